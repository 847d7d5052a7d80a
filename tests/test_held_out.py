"""How a validation set compares with the training samples, and what outputs and δ look like beside the targets."""

from __future__ import annotations

import numpy as np
import pytest

import nndiag
from nndiag import frames, held_out, nn
from nndiag import statistics as st
from nndiag.held_out import Evaluated, HeldOut, SeenRows, SharedRows
from nndiag.labels import Labels
from nndiag.statistics import Array


def compared(train: Array, held_out: Array, y: Array, y_held_out: Array) -> dict[str, float]:
    rows, features, labels = SeenRows(), st.FeatureMoments(train.shape[1]), Labels()
    rows.add(train)
    features.add(train)
    labels.add(y, binary=False)
    values = HeldOut(held_out, y_held_out, binary=False).compared(rows, features, labels)
    return dict(zip(frames.VALIDATION, values, strict=True))


def test_another_part_of_the_same_data_has_nothing_in_common_and_nothing_moved() -> None:
    x, y = np.random.default_rng(0).standard_normal((2000, 5)), np.arange(2000) % 3

    seen = compared(x[:1500], x[1500:], y[:1500], y[1500:])

    assert seen["overlap"] == seen["duplicates"] == 0
    assert seen["shift"] < 0.1
    assert seen["scale"] == pytest.approx(1, abs=0.1)
    assert seen["label_shift"] < 0.01


def test_a_feature_that_never_varies_in_training_and_does_later_has_awakened() -> None:
    x = np.random.default_rng(0).standard_normal((2000, 5))
    x[:1500, 3], x[1500:, 3] = 0.0, np.where(np.arange(500) % 2, 30.0, -40.0)
    seen = compared(x[:1500], x[1500:], x[:1500, 0], x[1500:, 0] + 2)

    assert seen["awakened"] == pytest.approx(np.sqrt((30**2 + 40**2) / 2), rel=0.05)
    assert seen["target_mean"] == pytest.approx(2, abs=0.2)
    assert compared(x[:, :3], x[:, :3], x[:, 0], x[:, 0])["awakened"] == 0.0


def test_the_first_inputs_that_are_evaluated_are_compared_once_there_are_twenty() -> None:
    x = np.random.default_rng(0).standard_normal((3000, 4))
    train, evaluated = st.FeatureMoments(4), Evaluated()
    train.add(x)

    assert evaluated.add(3 * x[:19], train) is None
    assert evaluated.add(3 * x[19:20], train) == pytest.approx((0.0, 3.0), abs=1.5)
    shift, scale = evaluated.add(3 * x[20:2000] + 2, train) or (0.0, 0.0)
    assert shift == pytest.approx(2, abs=0.2)
    assert scale == pytest.approx(3, abs=0.2)
    assert evaluated.add(9 * x, train) is None


def shared(train: Array, passes: list[Array]) -> tuple[float, ...] | None:
    """What is known of the rows that these passes share with two epochs of training, in batches of 40."""
    rows, known = SharedRows(), None
    for epoch in range(2):
        for batch in np.split(np.random.default_rng(epoch).permutation(train), len(train) // 40):
            known = rows.train(batch) or known
        for each in passes:
            known = rows.evaluate(each) or known
    return known


X = np.random.default_rng(0).standard_normal((900, 5))
TRAIN, OTHERS = X[:600], X[600:]


@pytest.mark.parametrize(
    ("passes", "overlap"),
    [
        ([OTHERS[:100], OTHERS[100:]], 0.0),
        ([np.concatenate([TRAIN[:20], OTHERS[:80]]), OTHERS[100:]], 20 / 300),
        ([np.concatenate([TRAIN[:3], OTHERS[:97]])], 0.03),
        ([TRAIN[:100], np.concatenate([TRAIN[100:150], OTHERS[:50]])], 150 / 200),
    ],
    ids=["another set", "some of it", "three rows", "whole passes, too"],
)
def test_rows_that_are_in_passes_of_both_kinds_are_shared(passes: list[Array], overlap: float) -> None:
    samples, share, copies, distinct = shared(TRAIN, passes) or (0.0, -1.0, -1.0, -1.0)

    assert samples == sum(map(len, passes)) * 2
    assert share == pytest.approx(overlap)
    assert copies == 0
    assert distinct == 1


@pytest.mark.parametrize(
    "passes",
    [[TRAIN[:100], TRAIN[100:200], OTHERS], [np.concatenate([TRAIN[:2], OTHERS])], [X], []],
    ids=["passes of training rows", "two rows", "everything at once", "no pass"],
)
def test_what_may_be_no_validation_set_says_nothing(passes: list[Array]) -> None:
    assert shared(TRAIN, passes) is None


def test_the_same_batch_several_times_in_a_row_is_no_second_epoch() -> None:
    """As of closures: nothing is known of the set after one batch of it."""
    rows = SharedRows()
    rows.evaluate(np.concatenate([TRAIN[:10], OTHERS]))
    assert [rows.train(TRAIN[:40]) for _ in range(5)] == [None] * 5
    assert not rows.complete


@pytest.mark.parametrize(("unread", "known"), [(None, True), (3, False), (15, False)])
def test_of_training_rows_that_were_not_all_looked_at_nothing_is_known(unread: int | None, known: bool) -> None:
    """Epochs that are told do not hide the batch that was not read."""
    row = nndiag.Recorder(every=1).row
    row.shared = SharedRows()
    row.data(TRAIN[:40], None)
    row.evaluated(np.concatenate([TRAIN[:20], OTHERS]))
    for step in range(40):
        if step % 15 == 0:
            row.begin_epoch(step // 15)
        if step != unread:
            row.data(TRAIN[40 * (step % 15) :][:40], None)
        row.close(step, step != unread)
    assert (("overlap", "unknown") in row.buffers["evaluations"].columns) == known


def test_of_training_sets_that_are_too_large_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SharedRows, "VALUES", TRAIN.size)
    assert shared(TRAIN, [np.concatenate([TRAIN[:20], OTHERS])]) is None


@pytest.mark.parametrize(
    ("values", "own"), [(None, 1.0), (100, 0.5), (3, 0.0)], ids=["measured", "whole numbers up to 100", "three levels"]
)
def test_a_feature_that_is_measured_has_a_value_of_its_own_in_each_row(values: int | None, own: float) -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((200, 4)) if values is None else rng.integers(0, values, (200, 4))
    copied = np.concatenate([rows, rows[:50], rows[:50]])

    assert held_out.distinct(copied) == pytest.approx(own, abs=0.1)
    assert np.isnan(held_out.distinct(rows[:49]))


def test_of_wide_inputs_few_are_evaluated() -> None:
    x = np.random.default_rng(0).standard_normal((30, 300_000), np.float32)
    train, evaluated = st.FeatureMoments(x.shape[1]), Evaluated()
    train.add(x)

    assert evaluated.add(x[:25], train) is not None
    assert evaluated.add(x[25:], train) is None


def test_inputs_of_another_width_are_passed_over() -> None:
    x = np.random.default_rng(0).standard_normal((60, 4))
    train, evaluated = st.FeatureMoments(4), Evaluated()
    train.add(x)

    assert evaluated.add(x[:, :3], train) is None
    assert evaluated.add(x[0, 0], train) is None
    assert evaluated.add(x, train) == pytest.approx((0.0, 1.0))
    assert evaluated.add(x[:0], train) is None


@pytest.mark.parametrize(("samples", "scale"), [(5, 1.0), (15, 0.0)])
def test_features_that_hardly_any_sample_has_are_not_compared(samples: int, scale: float) -> None:
    """As the last places of texts, of which a few are long: no other text need be so long."""
    x = np.random.default_rng(0).standard_normal((1000, 9))
    x[samples:, 4:] = 0
    train, evaluated = st.FeatureMoments(9), Evaluated()
    train.add(x)
    x[:, 4:] = 0

    assert evaluated.add(x, train) == pytest.approx((0.0, scale), abs=0.15)


def test_shared_rows_another_scale_and_other_labels_are_measured() -> None:
    x, y = np.random.default_rng(0).standard_normal((300, 4)), np.arange(300) % 3

    assert compared(x[:200], x[150:], y[:200], y[150:])["overlap"] == pytest.approx(1 / 3)
    assert compared(x, 255 * x, y, y)["scale"] == pytest.approx(255)
    assert compared(x, x + 5, y, y)["shift"] == pytest.approx(5, rel=0.1)
    assert compared(x, x, y, np.zeros(300, int))["label_shift"] == pytest.approx(2 / 3)


def test_copies_inside_the_training_set_are_counted() -> None:
    rows = SeenRows()
    rows.add(np.ones((10, 3)))

    assert rows.duplicates == pytest.approx(0.9)


def test_a_fit_records_the_comparison_once_and_never_for_itself(trainer: nn.Trainer, data: tuple[Array, Array]) -> None:
    x, y = data
    with nndiag.watch(trainer, every=1, strict=True) as recorder:
        trainer.fit(x[:60], y[:60], validation=(x[40:], y[40:]), epochs=3, batch_size=20)

    overlap = recorder.run.evaluations["overlap"]["validation"].dropna()
    assert overlap.index.tolist() == [3]
    assert overlap.iloc[0] == pytest.approx(20 / 56)


@pytest.mark.parametrize(
    ("model", "loss"),
    [
        (nn.MLP([8, 16, 3]), nn.SoftmaxCrossEntropy()),
        (nn.Sequential([nn.Affine(8, 3), nn.Softmax()]), nn.CrossEntropy()),
    ],
)
def test_delta_points_away_from_the_targets(model: nn.Sequential, loss: nn.Loss, data: tuple[Array, Array]) -> None:
    trainer = nn.Trainer(model, loss, nn.SGD(0.1))
    with nndiag.watch(trainer, every=1, strict=True) as recorder:
        trainer.fit(*data, epochs=2)

    assert recorder.run.outputs["alignment"]["outputs"].min() > 0.1


def test_softmax_over_the_classes_has_rows_of_delta_that_sum_to_zero(run: nndiag.Run) -> None:
    delta = run.outputs

    assert delta["gradient_row_sum"]["outputs"].max() < 1e-5
    assert delta["gradient_column_sum"]["outputs"].max() > 1e-3


def test_the_sum_of_delta_is_the_gradient_of_the_last_bias(run: nndiag.Run) -> None:
    sums = run.outputs["gradient_sum"]["outputs"]

    assert len(sums) > 50
    np.testing.assert_allclose(sums, run.gradients["norm"]["output.bias"][sums.index], rtol=1e-4, atol=1e-7)


def test_hits_and_counts_give_recall(run: nndiag.Run) -> None:
    hits, counts = run.outputs["hits"].iloc[-6:].sum(), run.data["count"].iloc[-6:].sum()

    assert list(hits.index) == ["label 0", "label 1", "label 2"]
    assert (hits / counts).min() > 0.9


def test_dropout_in_an_evaluation_is_seen(data: tuple[Array, Array]) -> None:
    class Stuck(nn.Dropout):
        def forward(self, x: Array, training: bool = True) -> Array:
            return super().forward(x, training=True)

    for layer, least, most in ((nn.Dropout(0.5), 0, 0), (Stuck(0.5), 0.3, 0.7)):
        model = nn.Sequential([nn.Affine(8, 16), nn.Tanh(), layer, nn.Affine(16, 3)])
        trainer = nn.Trainer(model, nn.SoftmaxCrossEntropy(), nn.SGD(0.1))
        with nndiag.watch(trainer, every=1, strict=True) as recorder:
            trainer.fit(*data, validation=data)
        assert least <= recorder.run.evaluations["dropped"]["validation"].dropna().iloc[0] <= most


def test_until_is_the_run_as_it_was(run: nndiag.Run) -> None:
    early = run.until(12)

    assert early.steps == 12
    assert early.train.index[-1] == 11
    assert early.validation.index.tolist() == [6, 12]
    assert run.until(10**9).steps == run.steps


def test_a_batch_without_targets_says_nothing_and_ends_nothing() -> None:
    recorder = nndiag.Recorder(every=1, strict=True)
    recorder.describe(loss={"name": "MSELoss", "task": "real"})
    recorder.row.targets(np.zeros((0, 3), np.float32))
    recorder.row.targets(np.ones((2, 3), np.float32))
    recorder.step()
    assert recorder.run.data["mean"]["target"].to_list() == [1.0]


def test_another_validation_set_is_compared_with_all_training_rows_so_far(data: tuple[Array, Array]) -> None:
    x, y = data
    half = len(x) // 2
    trainer = nn.Trainer(nn.MLP([x.shape[1], 8, 10], seed=0), nn.SoftmaxCrossEntropy(), nn.SGD(0.1), seed=0)
    with nndiag.watch(trainer) as recorder:
        trainer.fit(x[:half], y[:half], validation=(x[half:], y[half:]), epochs=2)
        apart = float(recorder.run.series("evaluations", "overlap", "validation").iloc[-1])
        trainer.fit(x[half:], y[half:], validation=(x[:half], y[:half]), epochs=2)

    assert apart == 0
    assert len(recorder.run.series("evaluations", "overlap", "validation").dropna()) == 2
    assert recorder.run.series("evaluations", "overlap", "validation").iloc[-1] == 1


def test_a_trainer_that_has_trained_before_has_a_validation_set_too(data: tuple[Array, Array]) -> None:
    x, y = data
    trainer = nn.Trainer(nn.MLP([8, 16, 3], seed=0), nn.SoftmaxCrossEntropy(), nn.SGD(0.05))
    trainer.fit(x, y, epochs=2)
    with nndiag.watch(trainer, every=1) as recorder:
        trainer.fit(x[16:], y[16:], validation=(x[:32], y[:32]), epochs=2)
    results = recorder.check().to_frame()

    assert results.loc["ND008", "verdict"] in ("warn", "fail")
    assert results.loc["ND009", "verdict"] == "pass"
