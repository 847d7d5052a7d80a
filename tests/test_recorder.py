"""The Recorder, fed by hand."""

from __future__ import annotations

import copy
import math
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nndiag
from nndiag import NndiagError, Recorder, ShapeError, frames, open_run


def test_a_row_holds_what_happened_in_its_step() -> None:
    recorder = Recorder(every=1)
    h = np.array([[0.0, 2.0], [0.0, 4.0]])
    recorder.data(np.array([[1.0, -1.0], [1.0, 1.0]]), np.array([0, 1]))
    recorder.activation("h1", h)
    recorder.activation_gradient("h1", 0.5 * np.ones((2, 2)))
    recorder.gradient("h1.weight", np.array([[3.0, 4.0]]))
    recorder.log(loss=2.0, epoch=3, lr=0.1)
    recorder.step()

    run = recorder.run

    row = run.activations.xs("h1", axis=1, level="layer").loc[0]
    assert (row["mean"], row["variance"], row["min"], row["max"]) == (1.5, h.var(), 0.0, 4.0)
    assert row["batch_variance"] == pytest.approx(h.var(axis=0).mean())
    assert (row["zero_fraction"], row["dead_fraction"], row["nonfinite"]) == (0.5, 0.5, 0.0)
    assert row["gain"] == pytest.approx(np.sqrt(np.mean(h**2)) / 1.0)
    assert row["gradient_rms"] == 0.5
    assert run.gradients["norm"].loc[0, "h1.weight"] == pytest.approx(5.0)
    assert run.losses.loc[0].to_dict() == pytest.approx({"epoch": 3, "train": 2.0, "validation": np.nan}, nan_ok=True)
    assert run.metrics["lr"].loc[0, "train"] == 0.1
    assert run.data["entropy"].loc[0, "target"] == pytest.approx(np.log(2))


def test_micro_batches_merge_into_one_row() -> None:
    recorder, rng = Recorder(every=1), np.random.default_rng(0)
    halves = rng.standard_normal((2, 8, 3))
    for half in halves:
        recorder.activation("h1", half)
        recorder.log(loss=float(half.mean()))
    recorder.step()

    run = recorder.run

    assert run.activations["variance"].loc[0, "h1"] == pytest.approx(halves.var())
    assert run.losses.loc[0, "train"] == pytest.approx(halves.mean())


def test_validation_after_n_updates_stands_in_row_n() -> None:
    recorder = Recorder(every=1)
    for step in range(3):
        recorder.log(loss=3.0 - step)
        recorder.step()
    recorder.log(validation_loss=0.5, validation_accuracy=0.9)

    run = recorder.run

    assert run.validation.to_dict() == {3: 0.5}
    assert run.metrics["accuracy"].loc[3, "validation"] == 0.9
    assert run.steps == 3


def test_looking_at_the_run_in_the_middle_of_a_step_changes_nothing() -> None:
    recorder = Recorder(every=1)
    recorder.log(validation_loss=0.5)
    assert recorder.run.validation.to_dict() == {0: 0.5}
    recorder.log(loss=1.0)
    recorder.step()

    run = recorder.run

    assert (run.train.to_dict(), run.validation.to_dict()) == ({0: 1.0}, {0: 0.5})


def test_an_update_is_measured_between_before_and_after() -> None:
    recorder = Recorder(every=1)
    weights, gradient = np.array([3.0, 4.0]), np.array([1.0, 1.0])
    recorder.before_update("w", weights)
    weights -= 0.5 * gradient
    recorder.after_update("w", weights, gradient)
    recorder.step()

    row = recorder.run.updates.xs("w", axis=1, level="parameter").loc[0]

    assert row["weight_norm"] == pytest.approx(5.0)
    assert row["ratio"] == pytest.approx(0.5 * np.sqrt(2) / 5)
    assert row["descent"] == 1.0


def test_an_uphill_update_has_negative_descent() -> None:
    recorder = Recorder(every=1)
    recorder.before_update("w", np.zeros(2))
    recorder.after_update("w", np.ones(2), np.ones(2))

    assert recorder.run.updates["descent"].loc[0, "w"] == -1.0


def test_the_first_nonfinite_loss_is_remembered_with_its_step() -> None:
    recorder = Recorder(every=1)
    for loss in (1.0, float("nan"), float("inf")):
        recorder.log(loss=loss)
        recorder.step()

    run = recorder.run

    assert run.meta.first_nonfinite == {"step": 1, "what": "loss"}
    assert run.metrics["nonfinite"]["train"].tolist() == [0.0, 1.0, 1.0]


def test_histograms_count_finite_values_between_their_bounds() -> None:
    recorder = Recorder(every=1)
    recorder.histogram("weights/w", np.array([0.0, 1.0, 1.0, np.nan]))

    row = recorder.run.histograms.xs("weights/w", axis=1, level="tensor").loc[0]

    assert (row["low"], row["high"], row["bin0"], row["bin29"]) == (0.0, 1.0, 1.0, 2.0)


@pytest.mark.parametrize("name", ["loss", "validation_loss", "accuracy"])
@pytest.mark.parametrize("value", ["high", None, [1, 2]])
def test_log_refuses_what_is_no_number(name: str, value: object) -> None:
    with pytest.raises(TypeError, match=f"log\\({name}="):
        Recorder().log(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("value", ["text", np.array(["a"]), np.array([1j]), [object()]])
def test_arrays_must_be_real_numbers(value: object) -> None:
    with pytest.raises(TypeError, match="h1: wanted an array of real numbers"):
        Recorder().activation("h1", value)  # type: ignore[arg-type]


def test_updates_must_keep_their_shape() -> None:
    recorder = Recorder()
    recorder.before_update("w", np.zeros(2))

    with pytest.raises(ShapeError, match=r"w has shape \(2,\) before the update and \(3,\) after"):
        recorder.after_update("w", np.zeros(3))


def test_after_update_needs_before_update() -> None:
    with pytest.raises(NndiagError, match=r"without before_update\('w'\)"):
        Recorder().after_update("w", np.zeros(2))


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        *(("every", value) for value in (0, "often", 1.5, True, None)),
        *(("budget", value) for value in (0.0, -1, math.nan, None, "0.02", True)),
        *(("flush_seconds", value) for value in (-1, math.nan, None, "5")),
        *(("check_every", value) for value in (0, 2.5, True)),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(setting: str, value: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"^{setting}={re.escape(repr(value))}: give "):
        Recorder(tmp_path / "run", **{setting: value})

    assert list(tmp_path.iterdir()) == []


def test_settings_may_be_numbers_of_numpy() -> None:
    recorder = Recorder(every=np.int64(3), check_every=np.int32(5), budget=np.float32(0.5), flush_seconds=np.int8(1))  # type: ignore[arg-type]
    for _ in range(7):
        recorder.gradient("w", np.ones(3))
        recorder.step()

    assert recorder.run.gradients.index.tolist() == [0, 3, 6]


def codes(run: nndiag.Run) -> list[str]:
    return [finding.code for finding in nndiag.Checklist().examine(run).findings]


OWN_NAMES = [*frames.VALIDATION, *frames.DROPPED, "epoch"]


@pytest.mark.parametrize("name", OWN_NAMES)
def test_a_metric_may_be_called_what_nndiag_calls_something_of_its_own(name: str) -> None:
    def watched(metrics: dict[str, Any]) -> nndiag.Run:
        x = np.random.default_rng(0).standard_normal((40, 6)).astype(np.float32)
        y = np.arange(40) % 3
        trainer = nndiag.nn.Trainer(
            nndiag.nn.MLP([6, 8, 3], seed=0), nndiag.nn.SoftmaxCrossEntropy(), nndiag.nn.SGD(0.1), metrics=metrics
        )
        with nndiag.watch(trainer, every=1, strict=True) as recorder:
            trainer.fit(x[:30], y[:30], validation=(x[30:], y[30:]), epochs=3, batch_size=10)
        return recorder.run

    alone, beside = watched({}), watched({name: lambda outputs, targets: 0.99})

    assert beside.metrics[name, "validation"].dropna().tolist() == [0.99] * 3
    assert beside.losses.equals(alone.losses)
    assert beside.evaluations.equals(alone.evaluations)
    assert codes(beside) == codes(alone)


@pytest.mark.parametrize("name", ["nonfinite", "validation_nonfinite", "train_logged_loss"])
def test_a_name_of_a_column_of_nndiags_own_among_the_metrics_is_refused(name: str) -> None:
    with pytest.raises(nndiag.NndiagError, match="give yours another name"):
        Recorder().log(**{name: 1.0})


def test_empty_and_scalar_arrays_are_taken() -> None:
    recorder = Recorder(every=1)
    recorder.activation("empty", np.empty((0, 3)))
    recorder.activation("scalar", np.float32(2.0))
    recorder.gradient("w", np.empty(0))
    recorder.step()

    assert recorder.run.activations["mean"].loc[0, "scalar"] == 2.0


def test_numpy_set_to_raise_is_no_trouble(recwarn: pytest.WarningsRecorder) -> None:
    recorder = Recorder(every=1)
    large, tiny = np.full((4, 4), 3e38, np.float32), np.full((4, 4), 1e-40, np.float32)

    with np.errstate(all="raise"):
        recorder.activation("h1", large)
        recorder.gradient("w", tiny)
        recorder.step()

    assert recorder.run.activations["mean"].loc[0, "h1"] == pytest.approx(3e38)


def test_nothing_recorded_is_an_empty_run() -> None:
    run = Recorder().run

    assert run.steps == 0
    for name in frames.FRAMES:
        assert getattr(run, name).empty


def test_every_second_step_is_read_but_every_loss_is_taken(trainer: nndiag.nn.Trainer, data: tuple) -> None:  # type: ignore[type-arg]
    with nndiag.watch(trainer, every=2, strict=True) as recorder:
        trainer.fit(*data, epochs=2, batch_size=16)

    assert recorder.run.losses.index.tolist() == list(range(12))
    assert recorder.run.activations.index.tolist() == list(range(0, 12, 2))


def test_an_exception_in_a_with_block_leaves_a_crashed_run(tmp_path: Path) -> None:
    def train() -> None:
        with Recorder(tmp_path / "run") as recorder:
            recorder.log(loss=1.0)
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        train()

    run = open_run(tmp_path / "run")
    assert run.meta.ended == "crashed"
    assert run.train.tolist() == [1.0]


def test_a_recorder_that_nobody_closes_is_closed_at_exit(tmp_path: Path) -> None:
    code = (
        "import nndiag, sys; r = nndiag.Recorder(sys.argv[1]); r.log(loss=1.0); r.step(); r.log(loss=2.0); r.step()\n"
        "assert nndiag.open_run(sys.argv[1]).meta.ended == 'running'"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "run")], check=True)

    run = open_run(tmp_path / "run")

    assert run.meta.ended == "completed"
    assert run.train.tolist() == [1.0, 2.0]


def test_the_cost_is_told() -> None:
    recorder = Recorder(every=1)
    recorder.activation("h1", np.ones((100, 100)))
    recorder.step()

    assert recorder.cost["seconds"] > 0
    assert 0 < recorder.cost["share"] < 1
    assert recorder.cost["every"] == 1


def test_a_hand_fed_loop_keeps_the_cadence_too() -> None:
    recorder = Recorder(every=3)
    for step in range(7):
        recorder.activation("h1", np.full((2, 2), step))
        recorder.log(loss=1.0)
        recorder.step()

    run = recorder.run

    assert run.activations["mean"]["h1"].to_dict() == {0: 0.0, 3: 3.0, 6: 6.0}
    assert len(run.train) == 7


@pytest.mark.parametrize("values", [[-1e308, 1e308], [5e-324, 0.0], [3.0, 3.0]])
def test_every_finite_value_falls_into_a_bin(values: list[float]) -> None:
    recorder = Recorder(every=1)
    recorder.histogram("w", np.array(values))

    row = recorder.run.histograms.xs("w", axis=1, level="tensor").loc[0]

    assert row.filter(like="bin").sum() == 2
    assert np.isfinite(row).all()


@pytest.mark.parametrize(
    "call", [lambda r: r.log(loss=1.0), lambda r: r.step(), lambda r: r.add_exporter(object()), Recorder.__enter__]
)
def test_nothing_comes_after_the_end(call: object) -> None:
    recorder = Recorder()
    recorder.close()

    with pytest.raises(NndiagError, match=r"came after the run was closed \(completed\)"):
        call(recorder)  # type: ignore[operator]


@pytest.mark.parametrize("twice", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_recorder_is_not_copied(twice: Callable[[Recorder], object]) -> None:
    with pytest.raises(TypeError, match=r"cannot be copied or pickled; its run can"):
        twice(Recorder())


def test_a_nan_in_the_inputs_is_seen_on_steps_that_are_not_read() -> None:
    recorder = Recorder(every=10)
    for step in range(5):
        recorder.data(np.full((4, 2), np.nan if step == 3 else 1.0), np.zeros(4, int))
        recorder.log(loss=1.0)
        recorder.step()

    assert recorder.run.data["nonfinite_fraction"]["input"].to_dict() == {0: 0.0, 3: 1.0}


def test_as_many_targets_as_inputs() -> None:
    with pytest.raises(ShapeError, match="give as many of each"):
        Recorder().data(np.ones((4, 2)), np.ones(3))


def test_a_run_that_is_being_written_is_not_resumed(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "run")

    with pytest.raises(nndiag.RunError, match=r"process \d+ is still writing it"):
        Recorder(tmp_path / "run", resume=True)
    recorder.close()


@pytest.mark.parametrize("every", [7, 10**9])
def test_steps_that_are_not_read_keep_every_number_beside_the_loss(every: int) -> None:
    recorder = Recorder(every=every)
    for step in range(1, 61):
        if step % 11 == 0:
            recorder.log(validation_loss=2.0 / step)
        if step % 13 == 0:
            recorder.log(speed=step)
        if step % 3:
            recorder.log(loss=1.0 / step)
        if step % 5 == 0:
            recorder.log(loss=3.0 / step)  # a second micro-batch
        recorder.step()
    run = recorder.run

    wanted = {
        step - 1: np.mean([*([1.0 / step] if step % 3 else []), *([3.0 / step] if step % 5 == 0 else [])])
        for step in range(1, 61)
        if step % 3 or step % 5 == 0
    }
    assert run.train.dropna().to_dict() == pytest.approx(wanted)
    assert run.validation.dropna().to_dict() == {s - 1: 2.0 / s for s in range(11, 61, 11)}
    assert run.metrics["speed", "train"].dropna().to_dict() == {s - 1: s for s in range(13, 61, 13)}
    assert recorder.step_number == 60


def test_an_exporter_that_comes_late_sees_the_steps_from_then_on() -> None:
    class Exporter:
        steps: list[int] = []  # noqa: RUF012

        def describe(self, meta: object) -> None: ...
        def flush(self) -> None: ...
        def close(self) -> None: ...
        def write(self, step: int, rows: object) -> None:
            self.steps.append(step)

    recorder = Recorder(every=1000)
    for step in range(30):
        if step == 20:
            recorder.add_exporter(Exporter())
        recorder.log(loss=1.0)
        recorder.step()

    assert Exporter.steps == list(range(20, 30))


def test_a_recorder_at_rest_still_minds_the_first_loss_that_is_not_finite() -> None:
    recorder = Recorder(every=1000)
    for step in range(30):
        recorder.log(loss=np.inf if step == 20 else 1.0)
        if step == 20:
            assert recorder.recording
        recorder.step()

    assert recorder.meta.first_nonfinite == {"step": 20, "what": "loss"}
    assert recorder.step_number == 30


def test_as_many_validation_targets_as_inputs_and_weights_like_their_gradients() -> None:
    recorder = Recorder(every=1)

    with pytest.raises(ShapeError, match=r"inputs of shape \(5, 2\) and targets of shape \(4,\)"):
        recorder.validation_data(np.zeros((5, 2)), np.zeros(4))
    with pytest.raises(ShapeError, match=r"w has shape \(3, 2\) and its gradient \(2, 3\)"):
        recorder.gradient("w", np.ones((2, 3)), weights=np.ones((3, 2)))


def test_the_precision_of_a_loop_of_ones_own_is_that_of_its_gradients() -> None:
    recorder = Recorder(every=1)
    recorder.gradient("w", np.ones(3, np.float64))

    assert recorder.meta.dtype == "float64"


@pytest.mark.parametrize(("changes", "words"), [
    ({"batch_size": "32"}, "batch_size='32'.*number of samples"), ({"samples": -1}, "number of samples"),
    ({"name": 3}, "name=3.*wanted text"), ({"clipping": 1.0}, "clipping=1.0.*wanted a mapping"),
    ({"probes": {"NDP01": 3}}, "mappings by code"), ({"faults": ["x"]}, "wanted mappings"),
    ({"first_nonfinite": 3}, "a step and what"), ({"thinned": {"losses": "x"}}, "numbers of rows"),
])  # fmt: skip
def test_what_no_reader_would_take_is_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(TypeError, match=words):
        Recorder().describe(**changes)


def test_numbers_of_samples_may_be_of_any_type(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "run")
    recorder.describe(batch_size=np.float64(32), samples=1e3)
    recorder.close()

    meta = open_run(tmp_path / "run").meta
    assert (meta.batch_size, meta.samples) == (32, 1000)


@pytest.mark.parametrize(
    ("step", "fault"), [(1.5, TypeError), (np.nan, TypeError), (True, TypeError), (-1, ValueError), (2**60, ValueError)]
)
def test_steps_to_start_at_are_steps(step: int, fault: type[Exception]) -> None:
    with pytest.raises(fault, match="start_at"):
        Recorder().start_at(step)


@pytest.mark.parametrize(("ended", "fault"), [(3, TypeError), ("running", ValueError), ("", ValueError)])
def test_a_run_ends_with_a_word(ended: str, fault: type[Exception]) -> None:
    recorder = Recorder()
    with pytest.raises(fault, match="a run ends with"):
        recorder.close(ended)
    with pytest.raises(fault, match="a run ends with"):
        recorder.end(ended)
    recorder.close()
    assert recorder.run.meta.ended == "completed"


@pytest.mark.parametrize("value", ["0.5", b"1", np.array([1.0])])
def test_a_loss_that_is_no_number_is_not_kept(value: float) -> None:
    recorder = Recorder(every=1)
    for take in (recorder.loss, lambda loss: recorder.log(loss=loss)):
        with pytest.raises(TypeError, match="wanted a number"):
            take(value)
    recorder.loss(2.0)
    recorder.step()
    assert recorder.run.train.to_list() == [2.0]


def test_ctrl_c_while_room_is_made_costs_nothing() -> None:
    """What takes several steps is there in the end or not at all."""
    recorder = Recorder(every=1)
    recorder.activation("a", np.ones((2, 2)))
    recorder.log(loss=1.0)
    recorder.step()
    buffer = recorder.row.buffers["activations"]
    seal = buffer._seal
    buffer._seal = lambda: exec("raise KeyboardInterrupt")  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        recorder.activation("b", np.ones((2, 2)))
    buffer._seal = seal  # type: ignore[method-assign]
    for _ in range(3):
        recorder.activation("a", np.ones((2, 2)))
        recorder.activation("b", np.ones((2, 2)))
        recorder.log(loss=1.0)
        recorder.step()
    assert recorder.run.activations["mean"].shape == (4, 2)


def test_a_layer_that_is_told_something_unknown_is_refused() -> None:
    with pytest.raises(TypeError, match=r"layers=…\) got type .*each can be told name, kind, shape"):
        Recorder().describe(layers=[{"name": "h", "type": "relu"}])
    with pytest.raises(TypeError, match=r"parameters=…\) got fan_in"):
        Recorder().describe(parameters=[{"name": "w", "fan_in": 3}])


def test_a_learning_rate_may_be_spelled_out() -> None:
    recorder = Recorder()
    recorder.describe(optimizer={"name": "SGD", "learning_rate": 0.1})

    assert recorder.meta.optimizer["lr"] == 0.1


def test_layers_and_outputs_without_units_switch_nothing_off() -> None:
    recorder = Recorder(every=1, strict=True)
    for shape in ((4, 2, 0), (4, 0), (0, 3), (4, 2, 3)):
        recorder.activation("h", np.zeros(shape))
        recorder.outputs(np.zeros(shape), np.zeros(shape))
        recorder.log(loss=1.0)
        recorder.step()

    assert recorder.run.activations["zero_fraction", "h"].loc[3] == 1.0
    assert recorder.run.outputs["rows", "outputs"].loc[3] == 8
