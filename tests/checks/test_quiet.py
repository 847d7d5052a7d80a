"""Sound programs that are unlike the zoo's: sequences, fine-tuning, weighted losses, loops without epochs, long runs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import nndiag
from nndiag import Checklist, Recorder, nn, progress, synthetic
from nndiag.causes import arrange
from nndiag.check import Finding, Verdict
from nndiag.checks import ImpossibleLoss, NotLearning, TargetBroadcast, UnshuffledBatches
from nndiag.run import Run
from nndiag.statistics import Array

RNG = np.random.default_rng(0)


def codes(run: Run, select: str = "ND0,ND1,ND4,ND9") -> list[str]:
    return [finding.code for finding in Checklist(select=select).examine(run).findings]


def recorded(outputs: Callable[[], Array], targets: Callable[[], Array], steps: int = 30, **loss: object) -> Run:
    recorder = Recorder(every=1)
    recorder.describe(loss=loss)
    for _ in range(steps):
        y = targets()
        recorder.data(RNG.standard_normal((len(y), 4)), y)
        recorder.outputs(outputs(), y)
        recorder.log(loss=1.0 + 0.1 * RNG.random())
        recorder.step()
    return recorder.run


LOGITS = {"name": "SoftmaxCrossEntropy", "task": "classes", "expects": "logits"}


@pytest.mark.parametrize(
    ("outputs", "targets"),
    [
        (lambda: RNG.standard_normal((8, 7, 5)), lambda: RNG.integers(0, 5, (8, 7))),
        (lambda: RNG.standard_normal((8, 7, 5)), lambda: np.eye(5)[RNG.integers(0, 5, (8, 7))]),
        (lambda: RNG.standard_normal((8, 5, 6, 6)), lambda: RNG.integers(0, 5, (8, 6, 6))),
    ],
    ids=["sequences of ids", "sequences of rows", "images"],
)
def test_every_place_of_a_sequence_is_a_sample(outputs: Callable[[], Array], targets: Callable[[], Array]) -> None:
    run = recorded(outputs, targets, **LOGITS)

    assert codes(run, "ND1,ND005") == []
    assert run.outputs["width"]["outputs"].iloc[0] == 5


def test_the_id_of_ignored_samples_is_no_class() -> None:
    run = recorded(
        lambda: RNG.standard_normal((8, 5)),
        lambda: np.where(RNG.random(8) < 0.3, -100, RNG.integers(0, 5, 8)),
        **LOGITS,
    )

    assert "ND110" not in codes(run)


def test_a_weighted_loss_is_not_held_to_the_entropy() -> None:
    run = synthetic.run(train=0.7 + 0.01 * RNG.standard_normal(100), data={"entropy": {"target": 0.18}},
                        loss={"name": "BCE", "task": "binary", "expects": "logits", "pos_weight": 24.0})  # fmt: skip

    assert Checklist(select="ND6,ND702").examine(run).verdict is not Verdict.FAIL


def test_a_network_with_batch_norm_may_be_trained_further(data: tuple[Array, Array]) -> None:
    trainer = nn.Trainer(nn.MLP([8, 16, 3], norm="batch"), nn.SoftmaxCrossEntropy(), nn.Adam(0.01))
    trainer.fit(*data, epochs=15, batch_size=32)
    with nndiag.watch(trainer, every=1) as recorder:
        trainer.fit(*data, epochs=2, batch_size=32)

    assert "ND902" not in codes(recorder.run)


def test_a_penalty_in_the_gradient_is_no_sum_of_earlier_ones(data: tuple[Array, Array]) -> None:
    class Penalised(nn.Affine):
        def backward_parameters(self, gradient: Array) -> None:
            super().backward_parameters(gradient)
            for parameter in self.parameters:
                parameter.gradient += 0.05 * parameter.value

    trainer = nn.Trainer(
        nn.Sequential([Penalised(8, 16), nn.Tanh(), Penalised(16, 3)]), nn.SoftmaxCrossEntropy(), nn.SGD(0.1)
    )
    with nndiag.watch(trainer, every=1) as recorder:
        trainer.fit(*data, epochs=10, batch_size=96)

    assert "ND901" not in codes(recorder.run)


def test_a_loop_that_tells_no_epochs_counts_its_rows_once() -> None:
    x, y = RNG.standard_normal((200, 4)), RNG.integers(0, 2, 200)
    recorder = Recorder(every=1)
    recorder.describe(loss=LOGITS)
    recorder.validation_data(x[:100].astype(np.float32), y[:100])
    for _ in range(5):
        for rows in np.split(RNG.permutation(200), 10):
            recorder.data(x[rows], y[rows])
            recorder.log(loss=0.5)
            recorder.step()
    recorder.log(validation_loss=0.5)

    evaluations = recorder.run.evaluations
    assert evaluations["duplicates"]["validation"].dropna().iloc[-1] == 0
    assert evaluations["overlap"]["validation"].dropna().iloc[-1] == 1  # whatever their type
    assert codes(recorder.run, "ND006,ND008") == ["ND008"]


@pytest.mark.parametrize(("same", "found"), [(True, ["ND006"]), (False, [])])
def test_the_same_batch_at_every_step_is_all_the_data_there_is(same: bool, found: list[str]) -> None:
    x, y = RNG.standard_normal((2, 20, 4)), RNG.integers(0, 3, (2, 20))
    recorder = Recorder(every=1)
    recorder.describe(loss=LOGITS)
    for step in range(50):
        recorder.data(x[0 if same else step % 2], y[0 if same else step % 2])
        recorder.log(loss=float(np.exp(-step)), validation_loss=1.0)
        recorder.step()

    assert codes(recorder.run, "ND006") == found


def test_empty_batches_are_passed_over() -> None:
    recorder = Recorder(every=1, strict=True)
    recorder.describe(loss=LOGITS)
    recorder.data(np.empty((0, 4)), np.empty(0, int))
    recorder.outputs(np.empty((0, 3)), np.empty(0, int))
    recorder.outputs(np.array([[0.1, 0.2, 0.3]]), np.array(1))
    recorder.step()

    assert len(recorder.run.outputs) == 1


def test_the_short_last_batch_does_not_make_data_unshuffled() -> None:
    recorder = Recorder(every=1)
    recorder.describe(loss={"name": "MSE", "task": "real", "expects": "real"})
    for step in range(60):
        size = 1 if step % 2 else 32
        y = RNG.standard_normal(size)
        recorder.data(RNG.standard_normal((size, 4)), y)
        recorder.outputs(RNG.standard_normal((size, 1)), y)
        recorder.step()

    assert UnshuffledBatches().not_checked(recorder.run) is None
    assert codes(recorder.run, "ND007") == []


@pytest.mark.parametrize("steps", [1_500, 30_000])
def test_frames_are_read_together_however_long_the_run(steps: int) -> None:
    noise = 1 + 0.2 * RNG.random(steps)
    outputs: synthetic.Statistics = {
        "width": {"outputs": 1.0}, "mean": {"outputs": 0.0, "targets": 1.0}, "squared_error": {"outputs": 1.9 * noise},
        "variance": {"outputs": noise, "targets": 0.5},
    }  # fmt: skip
    run = synthetic.run(steps=steps, train=noise + 1.5, outputs=outputs, loss={"name": "MSE", "task": "real"})

    assert [finding.code for finding in TargetBroadcast().examine(run.thinned())] == ["ND107"]


@pytest.mark.parametrize(("moved", "measured"), [(0.0, True), (0.9, True), (1.1, False)])
def test_a_loss_of_targets_that_move_measures_no_progress(moved: float, measured: bool) -> None:
    means = np.concatenate([np.zeros(50), np.linspace(0, moved, 45), np.full(5, moved)])
    run = synthetic.run(train=1.0, data={"mean": {"target": means}, "variance": {"target": 1.0}},
                        outputs={"rows": {"outputs": 64.0}}, loss={"name": "MSELoss", "task": "real"})  # fmt: skip

    assert (progress.no_measure(run) is None) is measured


def test_a_loss_that_is_to_grow_is_not_judged_by_its_fall() -> None:
    run = synthetic.run(train=np.linspace(-2.3, -0.1, 100), optimizer={"maximize": True}, **synthetic.CLASSES)

    assert "maximise" in (ImpossibleLoss().not_checked(run) or "")
    assert "maximise" in (NotLearning().not_checked(run) or "")


def found(code: str, kind: str = "training", first_step: int = 0, last_step: int | None = None) -> Finding:
    verdict = Verdict.FAIL if kind == "exact" else Verdict.WARN
    return Finding(code, code, "", kind, verdict, first_step=first_step, last_step=last_step)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("weak", "proven"), [("ND002", "ND503"), ("ND002", "ND403"), ("ND105", "ND503"), ("ND005", "ND502")]
)
def test_what_stands_still_is_not_explained_by_scales_and_labels(weak: str, proven: str) -> None:
    _, headlines = arrange([found(weak), found(proven, "exact")])

    assert set(headlines) == {weak, proven}


def test_a_finding_on_the_whole_run_waits_for_causes_that_take_an_epoch_to_see() -> None:
    _, headlines = arrange([found("ND301", first_step=500), found("ND601", first_step=0, last_step=2000)])

    assert headlines == ["ND301"]


@pytest.mark.parametrize(
    ("shape", "epochs", "found"),
    [
        ("drift", False, 0),
        ("drift", True, 1),
        ("saw", False, 1),
        ("saw", True, 1),
        ("noise", False, 0),
        ("jumps", False, 1),
        ("stairs", False, 0),
        ("stairs down", False, 0),
        ("stairs", True, 1),
    ],
)
def test_targets_that_grow_as_a_network_learns_are_no_order_of_a_set(shape: str, epochs: bool, found: int) -> None:
    time, random = np.linspace(0, 1, 120), np.random.default_rng(0)
    stairs = np.concatenate([np.zeros(100), np.arange(20) // 4])  # late in a run, reads are far apart
    means = {"drift": 1 - np.exp(-4 * time), "saw": 3 * time % 1, "noise": 0 * time, "jumps": random.random(120) > 0.5,
             "stairs": stairs, "stairs down": -stairs}[shape]  # fmt: skip
    data: synthetic.Statistics = {
        "mean": {"target": means + 0.1 * random.standard_normal(120)},
        "variance": {"target": 0.5},
    }
    run = synthetic.run(steps=120, train=1.0, data=data, outputs={"rows": {"outputs": 64.0}},
                        epoch=np.arange(120) // 40 if epochs else 0, loss={"name": "MSELoss", "task": "real"})  # fmt: skip

    assert codes(run, "ND007") == ["ND007"] * found


@pytest.mark.parametrize(("words", "found"), [(8.0, 0), (1.0, 1)])
def test_labels_of_all_words_of_a_text_may_be_the_same(words: float, found: int) -> None:
    """32 texts a batch, each of one of two kinds; or 256 samples that lie sorted."""
    first = 256 * np.random.default_rng(0).binomial(32, 0.5, 100) / 32
    data: synthetic.Statistics = {
        "mean": {"target": 0.5}, "count": {"label 0": first, "label 1": 256 - first},
        "samples": {"input": 256 / words * np.arange(1, 101)},
    }  # fmt: skip
    run = synthetic.run(train=1.0, data=data, outputs={"rows": {"outputs": 256.0}}, **synthetic.CLASSES)

    assert codes(run, "ND007") == ["ND007"] * found
