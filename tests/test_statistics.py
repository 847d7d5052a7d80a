"""One-pass statistics against float64 NumPy."""

from __future__ import annotations

import math
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from hypothesis.extra import numpy as arrays

from nndiag import statistics as st
from nndiag.statistics import Array, FeatureMoments, UnitActivity, magnitude, norm, summarize

FLOATS = arrays.arrays(
    some.sampled_from([np.float32, np.float64]),
    arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=20),
    elements=some.floats(-1e6, 1e6, width=32),
)


@pytest.mark.parametrize("share", [1e-4, 1.5e-3, 0.05, 0.3])
def test_a_variance_far_below_the_mean_square_keeps_its_digits(share: float) -> None:
    array = np.where(np.random.default_rng(0).random((20, 400)) < share, 0, 2361).astype(np.float32)

    assert summarize(array).variance == pytest.approx(array.astype(np.float64).var(), rel=1e-5)


@given(FLOATS)
def test_summary_agrees_with_float64_numpy(array: Array) -> None:
    wide = array.astype(np.float64)

    summary = summarize(array)

    assert summary.count == array.size
    if array.size:
        scale = np.abs(wide).max() or 1.0
        assert summary.mean == pytest.approx(wide.mean(), rel=1e-5, abs=1e-6 * scale)
        assert summary.variance == pytest.approx(wide.var(), rel=1e-4, abs=1e-9 * scale**2)
        assert summary.norm == pytest.approx(np.linalg.norm(wide), rel=1e-5)
        assert (summary.min, summary.max) == (wide.min(), wide.max())
        assert summary.zeros == np.sum(wide == 0)


@given(FLOATS, FLOATS)
def test_merged_summaries_are_the_summary_of_both(a: Array, b: Array) -> None:
    whole = summarize(np.concatenate([a.ravel(), b.ravel()]).astype(np.float64))

    merged = summarize(a.astype(np.float64)) | summarize(b.astype(np.float64))

    assert (merged.count, merged.zeros, merged.nonfinite) == (whole.count, whole.zeros, whole.nonfinite)
    assert merged.mean == pytest.approx(whole.mean, rel=1e-9, abs=1e-6, nan_ok=True)
    assert merged.m2 == pytest.approx(whole.m2, rel=1e-9, abs=1e-3)


@given(some.lists(FLOATS, min_size=2, max_size=6), some.randoms(use_true_random=False))
def test_parts_merge_to_the_whole_in_any_order_and_any_pairs(parts: list[Array], random: Random) -> None:
    whole = summarize(np.concatenate([part.ravel() for part in parts]).astype(np.float64))
    summaries = [summarize(part.astype(np.float64)) for part in parts]
    while len(summaries) > 1:
        random.shuffle(summaries)
        summaries.append(summaries.pop() | summaries.pop())

    (merged,) = summaries
    scale = max(abs(whole.min), abs(whole.max), 1e-300) if whole.count else 1.0
    assert (merged.count, merged.zeros, merged.nonfinite) == (whole.count, whole.zeros, whole.nonfinite)
    if whole.count:
        assert (merged.min, merged.max) == (whole.min, whole.max)
        assert merged.mean == pytest.approx(whole.mean, abs=1e-12 * scale)
        assert merged.m2 == pytest.approx(whole.m2, rel=1e-9, abs=1e-12 * scale * scale * whole.count)


@pytest.mark.parametrize("shape", [(64, 128), (512, 256), (3, 70_001), (200_000, 2)])
def test_every_way_to_a_variance_survives_such_a_mean(shape: tuple[int, int]) -> None:
    array = (1e4 + np.random.default_rng(0).standard_normal(shape)).astype(np.float32)
    wide = array.astype(np.float64)

    assert summarize(array).variance == pytest.approx(wide.var(), rel=1e-5)
    assert st.moments(array)[1] == pytest.approx(wide.var(), rel=1e-5)
    summary, _, within = st.summarize_units(array)
    assert summary.variance == pytest.approx(wide.var(), rel=1e-5)
    assert summary.mean == pytest.approx(wide.mean(), rel=1e-7)
    assert within == pytest.approx(wide.var(axis=0).mean(), rel=1e-4)


@pytest.mark.parametrize("size", [16_384, 32_768, 65_536, 300_000])
def test_values_of_one_magnitude_whose_roundings_do_not_cancel(size: int) -> None:
    up = np.random.default_rng(4).random(size) < 0.5
    for values in (np.where(up, 10_001, 9_999), np.where(np.arange(size) % 2, 0.1, -0.1), np.where(up, 1.7, -1.7)):
        array = values.astype(np.float32)
        wide = array.astype(np.float64)

        assert summarize(array).variance == pytest.approx(wide.var(), rel=1e-5)
        assert st.norm(array) == pytest.approx(np.linalg.norm(wide), rel=1e-5)


def test_variance_survives_a_mean_ten_thousand_times_the_deviation() -> None:
    array = (1e4 + np.random.default_rng(0).standard_normal(100_000)).astype(np.float32)

    summary = summarize(array)

    assert summary.variance == pytest.approx(array.astype(np.float64).var(), rel=1e-5)


LONG = [n + more for n in (st.BLOCK, st.FOLD * st.FOLD, 2 * st.FOLD * st.FOLD) for more in (-1, 0, 1, st.FOLD)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", LONG)
def test_the_sum_of_a_long_array_is_that_of_all_its_values(size: int, dtype: type) -> None:
    flat = (1 + np.random.default_rng(size).standard_normal(size)).astype(dtype)
    flat[-1] = 1e4
    wide = flat.astype(np.float64)

    assert st.total(flat) == pytest.approx(wide.sum(), rel=1e-6)
    assert st.moments(flat) == pytest.approx((wide.mean(), wide.var()), rel=1e-5)


@pytest.mark.parametrize("scale", [1e-25, 1e-3, 1e25])
def test_norm_survives_squares_beyond_float32(scale: float) -> None:
    array = (scale * np.random.default_rng(0).standard_normal(1000)).astype(np.float32)

    assert summarize(array).norm == pytest.approx(np.linalg.norm(array.astype(np.float64)), rel=1e-5)


def test_nonfinite_values_are_counted_and_left_out() -> None:
    summary = summarize(np.array([1.0, np.nan, 3.0, np.inf, -np.inf]))

    assert (summary.count, summary.nonfinite) == (2, 3)
    assert (summary.mean, summary.variance, summary.min, summary.max) == (2.0, 1.0, 1.0, 3.0)


def test_finite_values_whose_sum_overflows_stay_finite() -> None:
    summary = summarize(np.full(4, 3e38, np.float32))

    assert summary.nonfinite == 0
    assert summary.mean == pytest.approx(3e38, rel=1e-6)


@pytest.mark.parametrize("array", [np.empty(0), np.array([np.nan])])
def test_nothing_finite_has_no_moments(array: Array) -> None:
    summary = summarize(array)

    assert math.isnan(summary.variance)
    assert math.isnan(summary.min)
    assert math.isnan(summary.norm) == bool(array.size)


@pytest.mark.parametrize("layout", [lambda a: a.T, lambda a: a[::2, ::-1], np.asfortranarray])
def test_memory_layout_does_not_matter(layout: object) -> None:
    array = layout(np.random.default_rng(0).standard_normal((20, 30)))  # type: ignore[operator]

    assert summarize(array).variance == pytest.approx(array.var())


@pytest.mark.parametrize("dtype", [np.float16, np.int64, np.uint8, bool])
def test_other_dtypes_are_summarised_in_float64(dtype: type) -> None:
    array = np.array([0, 1, 1, 0, 1], dtype)

    assert summarize(array).mean == pytest.approx(0.6)


def test_batch_variance_leaves_out_what_differs_between_units() -> None:
    rng = np.random.default_rng(0)
    array = rng.standard_normal((500, 8)) + 10.0 * np.arange(8)

    found = st.summarize_units(array)[2]

    assert found == pytest.approx(array.var(axis=0).mean(), rel=1e-6)


def test_batch_variance_is_that_of_the_finite_values() -> None:
    array = np.random.default_rng(0).standard_normal((200, 6)) + np.arange(6)
    array[:, 4] = -np.inf
    array[::2, 5] = np.inf

    deviations = [
        column[np.isfinite(column)] - column[np.isfinite(column)].mean() for column in array.T[[0, 1, 2, 3, 5]]
    ]
    assert st.summarize_units(array)[2] == pytest.approx(np.concatenate(deviations).var(), rel=1e-9)
    assert np.isnan(st.summarize_units(np.full((4, 2), np.nan))[2])


def test_identical_rows_are_seen_through_rounding_only() -> None:
    rows = np.ones((5, 3), np.float32)

    assert st.identical_rows(rows * (1 + 1e-7), 1e-6)
    rows[4, 2] += 1e-3
    assert not st.identical_rows(rows, 1e-6)
    assert not st.identical_rows(rows[:1], 1e-6)


def test_feature_moments_of_batches_are_those_of_all_rows() -> None:
    rows = np.random.default_rng(0).standard_normal((100, 4)) * [1, 10, 100, 0] + [0, 5, 0, 3]
    moments = FeatureMoments(4)

    for batch in np.array_split(rows, 7):
        moments.add(batch)

    np.testing.assert_allclose(moments.mean, rows.mean(axis=0))
    np.testing.assert_allclose(moments.m2 / moments.count, rows.var(axis=0), atol=1e-12)
    assert moments.constant_fraction == 0.25


def test_feature_scales_leave_out_constant_rare_and_indicator_features() -> None:
    rng = np.random.default_rng(0)
    rows = np.stack([rng.standard_normal(2000), 50 * rng.standard_normal(2000), np.full(2000, 7.0),
                     np.arange(2000) % 1000 == 0, rng.integers(0, 2, 2000)], axis=1)  # fmt: skip
    rows[:, 3] *= 1e9
    moments = FeatureMoments(5)

    moments.add(rows)
    _, _, spread, widest = moments.scales()

    assert widest == 1
    assert spread == pytest.approx(50, rel=0.1)


def test_rows_with_nan_do_not_enter_feature_moments() -> None:
    moments = FeatureMoments(2)

    moments.add(np.array([[1.0, np.nan], [2.0, 3.0]]))

    assert moments.count == 1
    np.testing.assert_array_equal(moments.mean, [2.0, 3.0])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64, bool])
def test_bounds_are_the_smallest_and_the_largest(dtype: type) -> None:
    values = np.random.default_rng(0).integers(-50, 50, 200).astype(dtype)

    assert st.bounds(values) == (values.min(), values.max())


def test_bounds_with_a_nan_are_none() -> None:
    assert np.isnan(st.bounds(np.array([2.0, np.nan, -np.inf]))).all()


def dead(activity: UnitActivity, silent: list[int], samples: int) -> float:
    """Share of dead units after so many more samples in which these were silent."""
    left = activity.begin(samples)
    return activity.left(left[np.isin(left, silent)])


def test_a_unit_is_silent_only_if_it_was_so_over_the_whole_window() -> None:
    activity = UnitActivity(2)

    assert dead(activity, [1], 1500) == 0.5
    assert dead(activity, [0], 1500) == 0.0
    assert dead(activity, [1], 1500) == 0.0  # unit 1 fired in the span before
    assert dead(activity, [1], 1500) == 0.0
    assert dead(activity, [1], 1500) == 0.5


def test_a_unit_that_spoke_once_speaks_until_the_window_has_passed() -> None:
    activity = UnitActivity(2)

    assert dead(activity, [], 1500) == 0.0
    assert [dead(activity, [0], 1500) for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]


def test_units_that_are_all_silent_stay_so_from_span_to_span() -> None:
    activity = UnitActivity(3)

    assert [dead(activity, [0, 1, 2], 1500) for _ in range(5)] == [1.0] * 5
    assert [dead(activity, [0, 1], 1500) for _ in range(4)] == [2 / 3] * 4


def test_dead_units_are_those_of_a_look_at_every_value() -> None:
    rng = np.random.default_rng(0)
    activity, spans = UnitActivity(40), [np.ones(40, bool), np.ones(40, bool)]
    for step in range(200):
        rows = rng.standard_normal((500, 40)) * (rng.random(40) < rng.random(40) ** 4)
        if step % 4 == 0:
            spans = [spans[1], np.ones(40, bool)]
        spans[1] &= (rows == 0).all(axis=0)
        silent = st.silent_units(activity.begin(500), rows, rows.sum(axis=0), math.nan)
        assert activity.left(silent) == (spans[0] & spans[1]).mean()


@pytest.mark.parametrize("size", [1e-310, 1e-200, 1e-20, 1e20, 1e160, 1e300])
def test_a_norm_neither_overflows_nor_vanishes_with_its_squares(size: float) -> None:
    array = size * np.array([3.0, -4.0])
    with np.errstate(all="ignore"):
        one, other = norm(array), magnitude(np.append(array, np.inf))

    assert one == pytest.approx(5 * size, rel=1e-5)
    assert other == (pytest.approx(5 * size, rel=1e-5), 2, 1)
