"""The meters, against NumPy in float64."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from hypothesis.extra import numpy as arrays

import nndiag
from nndiag import frames, nn
from nndiag import statistics as st
from nndiag.errors import NndiagError, ShapeError
from nndiag.hooks import ParameterLike
from nndiag.meters import STEADY, ActivationMeter, GradientMeter, OutputMeter, UpdateMeter
from nndiag.statistics import Array
from nndiag.table import Buffer, Table

FLOATS = arrays.arrays(
    some.sampled_from([np.float32, np.float64]),
    arrays.array_shapes(min_dims=2, max_dims=3, max_side=12),
    elements=some.floats(-1e4, 1e4, width=32).map(lambda x: 0.0 if abs(x) < 1e-3 else x),
)


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    """Meters are called with NumPy's floating-point warnings off."""
    with np.errstate(all="ignore"):
        yield


def row_of(buffer: Buffer) -> dict[tuple[str, str], float]:
    """The row under way, by (statistic, name)."""
    table = Table.of(buffer.pending(0))
    return dict(zip(table.columns, table.values[0].tolist(), strict=True))


@given(FLOATS)
def test_an_activation_has_the_statistics_of_numpy(array: Array) -> None:
    buffer = Buffer()
    ActivationMeter("h", buffer).forward(array, None, math.nan)
    row = {statistic: value for (statistic, _), value in row_of(buffer).items()}
    wide = array.astype(np.float64).reshape(-1, array.shape[-1])
    scale = float(np.square(wide).mean())

    assert row["mean"] == pytest.approx(wide.mean(), rel=1e-5, abs=1e-6 * math.sqrt(scale))
    assert row["variance"] == pytest.approx(wide.var(), rel=1e-5, abs=1e-9 * scale)
    assert row["batch_variance"] == pytest.approx(wide.var(axis=0).mean(), rel=1e-4, abs=1e-9 * scale)
    assert (row["min"], row["max"]) == (wide.min(), wide.max())
    assert row["zero_fraction"] == pytest.approx((wide == 0).mean())
    assert row["dead_fraction"] == pytest.approx((wide == 0).all(axis=0).mean())


@given(FLOATS)
def test_mean_and_variance_alone_are_those_of_numpy(array: Array) -> None:
    mean, variance = st.moments(array)
    wide = array.astype(np.float64)
    scale = float(np.square(wide).mean())

    assert mean == pytest.approx(wide.mean(), rel=1e-5, abs=1e-6 * math.sqrt(scale))
    assert variance == pytest.approx(wide.var(), rel=1e-5, abs=1e-9 * scale)


@given(FLOATS)
def test_a_gradient_has_the_statistics_of_numpy(array: Array) -> None:
    buffer = Buffer()
    meter = GradientMeter("w", buffer)
    meter.norm(array)
    meter.extremes(array, None)
    row = {statistic: value for (statistic, _), value in row_of(buffer).items()}
    wide = array.astype(np.float64)

    assert row["norm"] == pytest.approx(np.linalg.norm(wide), rel=1e-5)
    assert row["rms"] == pytest.approx(math.sqrt(np.square(wide).mean()), rel=1e-5)
    assert row["max_abs"] == np.abs(wide).max()
    assert row["zero_fraction"] == pytest.approx((wide == 0).mean())


@pytest.mark.parametrize("units", [1, 7, 200])
def test_a_large_output_is_as_exact_as_a_small_one(units: int) -> None:
    rng = np.random.default_rng(0)
    array = (rng.standard_normal((300_000 // units, units)) + np.arange(units) % 3).astype(np.float32)

    summary, sums, within = st.summarize_units(array)

    wide = array.astype(np.float64)
    assert summary.mean == pytest.approx(wide.mean(), rel=1e-5)
    assert summary.variance == pytest.approx(wide.var(), rel=1e-5)
    assert within == pytest.approx(wide.var(axis=0).mean(), rel=1e-4)
    np.testing.assert_allclose(sums, wide.sum(axis=0), rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("share", [1e-2, 1e-4, 1e-6])
def test_a_collapsed_output_keeps_what_varies_with_the_input(share: float) -> None:
    rng = np.random.default_rng(0)
    array = (rng.standard_normal(64) + share * rng.standard_normal((512, 64))).astype(np.float32)

    _, _, within = st.summarize_units(array)

    assert within == pytest.approx(array.astype(np.float64).var(axis=0).mean(), rel=1e-2)


def test_a_unit_whose_values_cancel_is_not_silent() -> None:
    rows = np.array([[1.0, 0.0, 2.0], [-1.0, 0.0, 2.0]])

    silent = st.silent_units(np.arange(3), rows, rows.sum(axis=0), low=-1.0)

    assert silent.tolist() == [1]


@pytest.mark.parametrize("lowest", [0.0, -1.0])
def test_units_are_dead_or_not_whether_extremes_are_looked_at_or_not(lowest: float) -> None:
    """Of three units one is silent, one speaks, and the values of one cancel where there are negative ones."""
    array = np.tile([[1.0, 0.0, 2.0], [lowest, 0.0, 2.0]], (8, 1))
    buffer = Buffer()
    meter = ActivationMeter("h", buffer)

    for whole in (True, False, False):
        meter.forward(array, None, 1.0, whole=whole)
        row = row_of(buffer)
        assert row["dead_fraction", "h"] == pytest.approx(1 / 3)
        assert np.isnan(row["min", "h"]) != whole
        buffer.close_row(0)


def test_the_passes_of_one_step_are_merged() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.standard_normal((n, 3)) + n for n in (5, 9)]
    buffer = Buffer()
    meter = ActivationMeter("h", buffer)
    for part in parts:
        meter.forward(part, None, 1.0)
        meter.backward(part)

    row, whole = row_of(buffer), np.concatenate(parts)
    assert row["mean", "h"] == pytest.approx(whole.mean())
    assert row["variance", "h"] == pytest.approx(whole.var())
    assert row["gradient_rms", "h"] == pytest.approx(math.sqrt(np.square(whole).mean()))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_counted_and_left_out(bad: float) -> None:
    array = np.array([[1.0, 2.0], [bad, 4.0]], np.float32)
    buffer = Buffer()
    passed = ActivationMeter("h", buffer).forward(array, None, 1.0)
    gradients = Buffer()
    counted = GradientMeter("w", gradients).norm(array)

    assert passed == counted == 1
    assert row_of(buffer)["mean", "h"] == pytest.approx(7 / 3)
    assert row_of(gradients)["norm", "w"] == pytest.approx(math.sqrt(21))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("ratio", [1e-1, 1e-3, 1e-4])
def test_an_update_taken_from_the_optimiser_is_the_real_one(dtype: type, ratio: float) -> None:
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((300, 200)).astype(dtype)
    gradient = rng.standard_normal(weights.shape).astype(dtype)
    buffer = Buffer()
    meter = UpdateMeter("w", buffer)
    rows = []
    for _ in range(3):
        meter.before(weights, copy=False)
        before = weights.astype(np.float64)
        update = (ratio * gradient).astype(dtype)
        weights = weights - update
        meter.subtracted(update, gradient)
        meter.after(weights, gradient)
        rows.append((row_of(buffer), np.linalg.norm(weights - before), np.linalg.norm(before)))

    assert not meter._copied
    for row, moved, norm in rows:
        assert row["update_norm", "w"] == pytest.approx(moved, rel=1e-5)
        assert row["weight_norm", "w"] == pytest.approx(norm, rel=1e-5)
        assert row["descent", "w"] == 1.0


def test_updates_that_are_lost_in_rounding_are_measured_on_the_weights() -> None:
    weights = np.ones(1000, np.float32)
    buffer = Buffer()
    meter = UpdateMeter("w", buffer)
    seen = []
    for size in (1e-2, 1e-2, 1e-9, 1e-9):
        meter.before(weights, copy=False)
        update = np.full(1000, size, np.float32)
        weights = weights - update
        meter.subtracted(update, update)
        meter.after(weights, update)
        seen.append(row_of(buffer)["update_norm", "w"])

    assert seen[:2] == [pytest.approx(1e-2 * math.sqrt(1000), rel=1e-4)] * 2
    assert math.isnan(seen[2])  # neither a copy nor an update large enough
    assert seen[3] == 0  # what really happened


def test_an_optimiser_that_hands_nothing_over_is_measured_on_the_weights() -> None:
    buffer = Buffer()
    meter = UpdateMeter("w", buffer)
    weights = np.arange(4.0)
    for _ in range(3):
        meter.before(weights, copy=False)
        meter.subtracted(None, None)
        weights = weights + 1
        meter.after(weights, None)

    assert row_of(buffer)["update_norm", "w"] == pytest.approx(2.0)


@pytest.mark.parametrize(("ratio", "read_anew"), [(1e-4, {7}), (4e-3, {3, 6, 7, 10}), (2e-2, set(range(1, 12)))])
def test_a_norm_of_weights_is_kept_while_updates_cannot_have_changed_it(ratio: float, read_anew: set[int]) -> None:
    rng = np.random.default_rng(0)
    weights = rng.normal(0, 1, 10_000)
    buffer = Buffer()
    meter = UpdateMeter("w", buffer)
    exact, known = [], []
    for step in range(12):
        meter.before(weights, copy=False, whole=step in (0, 7))
        exact.append(float(np.linalg.norm(weights)))
        update = ratio * weights  # the worst there is: all of it goes into the norm
        meter.subtracted(update, None)
        weights = weights - update
        meter.after(weights, None)
        known.append(row_of(buffer)["weight_norm", "w"])

    np.testing.assert_allclose(known, exact, rtol=STEADY / (1 - STEADY))
    changes = {step for step in range(1, 12) if known[step] != known[step - 1]}
    assert changes == read_anew


def test_what_comes_after_an_update_must_have_come_before() -> None:
    recorder = nndiag.Recorder(every=1)
    with pytest.raises(NndiagError, match="came without before_update"):
        recorder.after_update("w", np.ones(3))
    recorder.before_update("w", np.ones(3))
    with pytest.raises(ShapeError, match=r"shape \(3,\) before the update and \(4,\) after"):
        recorder.after_update("w", np.ones(4))


@given(arrays.arrays(np.float32, (6, 4), elements=some.floats(-100, 100, width=32)), some.randoms())
def test_the_gradient_of_the_outputs_points_to_the_right_class(delta: Array, random: Any) -> None:
    ids = np.array([random.randrange(4) for _ in range(6)])
    toward = np.eye(4)[ids] - 0.25
    entry = dict(zip(frames.OUTPUT_GRADIENT, frames.output_gradient_entry(delta, None, ids), strict=True))
    norms = np.linalg.norm(delta.astype(float)) * np.linalg.norm(toward)

    if norms > 1e-3:
        assert entry["alignment"] == pytest.approx(-float(np.vdot(delta, toward)) / norms, abs=1e-5)
    assert entry["gradient_mass"] == pytest.approx(np.abs(delta).sum(), rel=1e-5, abs=1e-6)


def test_outputs_are_counted_by_the_class_that_they_name() -> None:
    buffer = Buffer()
    outputs = np.array([[3.0, 1, 0], [0, 2, 1], [0, 5, 1]], np.float32)

    OutputMeter(buffer).outputs(outputs, np.array([0, 1, 2]), {"task": "classes", "expects": "logits"})

    row = row_of(buffer)
    assert [row["count", f"predicted {i}"] for i in range(3)] == [1, 2, 0]
    assert [row["hits", f"label {i}"] for i in range(3)] == [1, 1, 0]
    assert row["predicted_classes", "outputs"] == 2


@given(FLOATS)
def test_an_output_is_the_same_with_and_without_its_extremes(array: Array) -> None:
    rows = [Buffer(), Buffer()]
    meters = [ActivationMeter("h", buffer) for buffer in rows]
    for meter, whole in zip(meters, (True, False), strict=True):
        meter.forward(array, None, 1.0)
        meter.forward(array, None, 1.0)
        meter._buffer.close_row(0)
        meter.forward(array, None, 1.0, whole=whole)

    whole_row, row = map(row_of, rows)
    for column, value in row.items():
        assert value == whole_row[column] or math.isnan(value)
    left_out = {statistic for (statistic, _), value in row.items() if math.isnan(value)}
    assert left_out <= {"min", "max", "zero_fraction", "saturated_fraction"}


def test_the_extremes_of_an_output_that_has_doubled_are_looked_at() -> None:
    array = np.linspace(-1.0, 1.0, 64, dtype=np.float32).reshape(8, 8)
    buffer = Buffer()
    meter = ActivationMeter("h", buffer)
    found = []
    for size, whole in ((1, True), (1.5, False), (2.5, False), (2.5, False), (2.5, True)):
        meter.forward(np.float32(size) * array, None, 1.0, whole=whole)
        found.append(row_of(buffer)["max", "h"])
        buffer.close_row(len(found))

    assert [value if value == value else None for value in found] == [1.0, None, 2.5, None, 2.5]


def test_passes_of_which_one_was_not_looked_at_have_no_extremes_together() -> None:
    array = np.linspace(-1.0, 1.0, 64).reshape(8, 8)
    buffer = Buffer()
    meter = ActivationMeter("h", buffer)
    meter.forward(array, None, 1.0)
    meter.forward(array / 2, None, 1.0, whole=False)

    row = row_of(buffer)
    assert all(math.isnan(row[statistic, "h"]) for statistic in ("min", "max", "zero_fraction"))
    assert row["mean", "h"] == pytest.approx(0.0, abs=1e-12)


def test_without_a_gradient_the_direction_of_an_update_is_not_known() -> None:
    buffer = Buffer()
    meter = UpdateMeter("w", buffer)
    for step, gradient in enumerate((None, np.ones(3), -np.ones(3), np.zeros(3))):
        meter.before(np.ones(3), copy=True)
        meter.after(np.zeros(3), gradient)
        buffer.close_row(step)
    descents = Table.of(buffer.blocks()).values[:, 3]
    np.testing.assert_array_equal(descents, [np.nan, 1.0, -1.0, 0.0])


@pytest.mark.parametrize("every", [1, 100])
def test_the_norm_of_weights_is_right_to_a_hundredth_however_few_updates_are_read(every: int) -> None:
    class Truth(nndiag.Hook):
        norms: ClassVar[dict[tuple[int, str], float]] = {}

        def on_update_begin(self, parameters: Sequence[ParameterLike], lr: float) -> None:
            for parameter in parameters:
                self.norms[self.recorder.step_number, parameter.name] = float(np.linalg.norm(parameter.value))

    rng = np.random.default_rng(0)
    x = rng.normal(size=(256, 16)).astype(np.float32)
    trainer = nn.Trainer(nn.MLP([16, 24, 4]), nn.SoftmaxCrossEntropy(), nn.SGD(0.1, momentum=0.9))
    with nndiag.watch(trainer, every=every, hooks=[nndiag.UpdateHook(), truth := Truth()], strict=True) as recorder:
        trainer.fit(x, x[:, :4].argmax(axis=1), epochs=60, batch_size=16)
    norms = recorder.run.updates["weight_norm"]

    off = [abs(norms.loc[step, name] / truth.norms[step, name] - 1) for step in norms.index for name in norms]
    assert len(norms) == -(-960 // every)
    assert max(off) <= 0.01
