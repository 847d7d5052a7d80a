"""Exact statistics of one array, in few passes and mergeable: the numbers behind every frame."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

CANCELLATION = 0.25
"""Below this share of E[x²], a variance from E[x²] − mean² has lost digits: a float32 dot product carries some 1e-6 of
thousands of values, we promise 1e-5."""

SMALL = 1 << 14
"""Values up to which the calls of NumPy cost more than its passes: methods of arrays are called in half the time."""

BLOCK = 1 << 14
"""Values that one BLAS product of float32 may sum: of values of one magnitude, whose roundings do not cancel, it loses 3e-6
with sixteen at a time (AVX-512), of four times as many 1.4e-5."""

FOLD = 512
"""Columns, and rows at most, of the matrix as which a long array is summed."""

MANY_ROWS = 4096
"""Rows up to which float32 sums over them keep their digits."""

COLLAPSED = 0.02
"""Below this share of E[x²], a variance over inputs is computed from deviations: a difference has lost its digits."""

TINY, HUGE = 1e-30, 1e30
"""Sums of squares outside this range have met float32's limits (1e-38, 3e38) on the way: scale first."""


class Summary(NamedTuple):
    """Count, mean, M2 (sum of squared deviations), extremes, zeros and non-finite values of an array.

    `count` is the number of finite values, over which everything but `nonfinite` is computed. An empty summary has
    count 0 and NaN extremes; where extremes and zeros were not looked at, they are NaN.
    """

    count: int  # type: ignore[assignment]  # the statistic's name; a tuple's own count() is of no use here
    mean: float
    m2: float
    min: float
    max: float
    zeros: float
    nonfinite: int

    @property
    def size(self) -> int:
        """Number of values, non-finite ones included."""
        return self.count + self.nonfinite

    @property
    def variance(self) -> float:
        """Population variance; NaN when there is no finite value."""
        return self.m2 / self.count if self.count else math.nan

    @property
    def rms(self) -> float:
        """Root mean square, √(variance + mean²)."""
        return math.hypot(math.sqrt(self.m2 / self.count), self.mean) if self.count else math.nan

    @property
    def norm(self) -> float:
        """L2 norm, RMS · √count; 0 for an empty array, NaN when no value is finite."""
        return self.rms * math.sqrt(self.count) if self.count or self.nonfinite else 0.0

    @property
    def max_abs(self) -> float:
        """Largest magnitude; NaN when there is no finite value."""
        return max(abs(self.min), abs(self.max))

    @property
    def zero_fraction(self) -> float:
        """Share of exact zeros among the finite values."""
        return self.zeros / self.count if self.count else math.nan

    def __or__(self, other: Summary) -> Summary:
        """Summary of both arrays together (Chan, Golub, LeVeque 1983, eq. 2.1)."""
        if not self.count or not other.count:
            filled = self if self.count else other
            return filled._replace(nonfinite=self.nonfinite + other.nonfinite)
        count = self.count + other.count
        delta = other.mean - self.mean
        unknown = math.isnan(self.min + other.min)
        return Summary(
            count=count,
            mean=self.mean + delta * other.count / count,
            m2=self.m2 + other.m2 + delta * delta * self.count * other.count / count,
            min=math.nan if unknown else min(self.min, other.min),
            max=math.nan if unknown else max(self.max, other.max),
            zeros=self.zeros + other.zeros,
            nonfinite=self.nonfinite + other.nonfinite,
        )


EMPTY = Summary(0, math.nan, 0.0, math.nan, math.nan, 0, 0)


def summarize(array: Array) -> Summary:
    """Summary of all elements of a real array of any shape and memory layout."""
    with np.errstate(all="ignore"):  # whatever the user has set: an overflow here is a fact to record
        return summarized(array)


# What follows, up to `identical_rows`, is called at every step for every layer, with NumPy's floating-point warnings off.


def summarized(array: Array) -> Summary:
    """`summarize` for the hot path."""
    flat, squares = squared(array)
    if not TINY < squares < HUGE:
        return unusual(flat)
    return usual(flat, squares, total(flat))


def flattened(array: Array) -> Array:
    """All elements in one axis, as float32 or float64; a view wherever the memory allows it."""
    flat = array.ravel("K")
    if flat.dtype.char in "fd":
        return flat
    return flat.astype(np.float32 if flat.dtype == np.float16 else np.float64)


def squared(array: Array) -> tuple[Array, float]:
    """What `flattened` and `sum_of_squares` give, in one call: the first pass of every statistic."""
    flat = array.ravel("K")
    if flat.dtype.char in "fd" and len(flat) <= BLOCK:
        return flat, float(flat.dot(flat))
    flat = flattened(flat)
    return flat, sum_of_squares(flat)


def sum_of_squares(flat: Array) -> float:
    """Σ x² of a float array (n,); outside `TINY` … `HUGE`, among them 0 and NaN, it says only that `unusual` must look.

    A BLAS product is the cheapest pass over an array that NumPy has.
    """
    if len(flat) <= BLOCK:
        return float(flat.dot(flat))
    parts = (flat[at : at + BLOCK] for at in range(0, len(flat), BLOCK))
    return sum(float(part.dot(part)) for part in parts)


def total(flat: Array) -> float:
    """Σ x of a float array (n,), as a product too: a third of the time of `np.add.reduce`, and of long arrays less."""
    if len(flat) <= BLOCK:
        return float(flat.dot(ones(len(flat), flat.dtype)))
    return sum(_total(flat[at : at + FOLD * FOLD]) for at in range(0, len(flat), FOLD * FOLD))


def _total(part: Array) -> float:
    """Σ x as that of columns: each value is read once, and the vector of ones is short enough for the nearest cache."""
    rows = len(part) // FOLD
    sums = ones(rows, part.dtype).dot(part[: rows * FOLD].reshape(rows, FOLD)).astype(_DOUBLE)
    rest = part[rows * FOLD :]
    return float(sums.dot(ones(FOLD, _DOUBLE))) + float(rest.dot(ones(len(rest), part.dtype)))


def usual(flat: Array, squares: float, total: float, quiet: float = 0.0) -> Summary:
    """Summary of a float array (n,) of which Σ x², within `TINY` … `HUGE`, and Σ x are known: all its values are finite.

    Extremes and zeros are not looked at where the mean of x² is below `quiet`.
    """
    count = len(flat)
    mean = total / count
    m2 = squares - total * mean
    if m2 < CANCELLATION * squares:
        mean, m2 = _shifted(flat, mean)
    low, high, zeros = extremes(flat) if squares >= quiet * count else _UNKNOWN
    return _new(Summary, (count, mean, m2, low, high, zeros, 0))


_UNKNOWN = math.nan, math.nan, math.nan

_new = tuple.__new__
"""Makes a named tuple in half the time."""


def extremes(flat: Array) -> tuple[float, float, int]:
    """Smallest and largest of finite values (n,), and the number of exact zeros among them."""
    if len(flat) > SMALL:
        low, high = float(np.minimum.reduce(flat)), float(np.maximum.reduce(flat))
        return low, high, int(_count_nonzero(flat == 0)) if low <= 0 <= high else 0
    low, high = flat.item(flat.argmin()), flat.item(flat.argmax())
    return low, high, len(flat) - int(_count_nonzero(flat.astype(bool))) if low <= 0 <= high else 0


_count_nonzero = np.count_nonzero


def bounds(values: Array) -> tuple[float, float]:
    """Smallest and largest of some values (n,), NaN where one is: of a few hundred in a tenth of the time of `min` and `max`."""
    return values.item(values.argmin()), values.item(values.argmax())


def finite_extremes(flat: Array) -> tuple[float, float, float, int]:
    """Smallest and largest of the finite values (n,), the number of exact zeros among them, and how many they are."""
    if len(flat):
        low, high, zeros = extremes(flat)
        if math.isfinite(low) and math.isfinite(high):
            return low, high, zeros, len(flat)
    finite = unusual(flat)
    return finite.min, finite.max, finite.zeros, finite.count


def moments(array: Array) -> tuple[float, float]:
    """Mean and population variance alone, in two passes."""
    flat, squares = squared(array)
    count = len(flat)
    if not TINY < squares < HUGE:
        whole = unusual(flat)
        return whole.mean, whole.variance
    mean = total(flat) / count
    m2 = squares - count * mean * mean
    if m2 < CANCELLATION * squares:
        mean, m2 = _shifted(flat, mean)
    return mean, m2 / count


def all_finite(array: Array) -> bool:
    """Whether every value is finite, in one pass where the squares say so."""
    return math.isfinite(root_mean_square(array)) or bool(np.isfinite(array).all())


def root_mean_square(array: Array) -> float:
    """RMS of an array, NaN or infinite where a value is not finite, or its square; 0 for an empty one."""
    flat, squares = squared(array)
    return math.sqrt(abs(squares) / len(flat)) if len(flat) else 0.0


def magnitude(array: Array) -> tuple[float, int, int]:
    """L2 norm over the finite values, how many they are, and how many values are not finite."""
    flat, squares = squared(array)
    if TINY < squares < HUGE:
        return math.sqrt(squares), len(flat), 0
    return _scaled_norm(flat)


def norm(array: Array) -> float:
    """L2 norm over the finite values; 0 for an empty array, NaN when no value is finite."""
    flat, squares = squared(array)
    if TINY < squares < HUGE:
        return math.sqrt(squares)
    norm, count, nonfinite = _scaled_norm(flat)
    return norm if count or not nonfinite else math.nan


def _scaled_norm(flat: Array) -> tuple[float, int, int]:
    """`magnitude` of any float array (n,), by its largest value: squares neither overflow nor vanish."""
    if not flat.any():
        return 0.0, len(flat), 0
    finite = flat[np.isfinite(flat)].astype(np.float64)
    scale = float(np.abs(finite).max(initial=0.0)) or 1.0
    unit = finite / scale
    return scale * math.sqrt(float(unit @ unit)), len(finite), len(flat) - len(finite)


def _shifted(flat: Array, near: float) -> tuple[float, float]:
    """Mean and M2 from the deviations from `near`, a number close to the mean."""
    deviation = flat - flat.dtype.type(near)
    shift = float(np.add.reduce(deviation, dtype=np.float64)) / len(flat)
    return float(flat.dtype.type(near)) + shift, max(0.0, sum_of_squares(deviation) - len(flat) * shift * shift)


def unusual(flat: Array) -> Summary:
    """Summary of any float array (n,): non-finite values are counted and left out, the rest is scaled and in float64."""
    if len(flat) and not flat.any():  # the layers of a dead network
        return Summary(len(flat), 0.0, 0.0, 0.0, 0.0, len(flat), 0)
    finite = flat[np.isfinite(flat)].astype(np.float64)
    nonfinite = len(flat) - len(finite)
    if not len(finite):
        return EMPTY._replace(nonfinite=nonfinite)
    low, high = float(finite.min()), float(finite.max())
    scale = max(abs(low), abs(high)) or 1.0
    unit = finite / scale
    mean = float(np.add.reduce(unit)) / len(unit)
    deviation = unit - mean
    m2 = float(deviation @ deviation) * scale * scale
    return Summary(len(finite), mean * scale, m2, low, high, int(np.count_nonzero(finite == 0)), nonfinite)


_ONES: dict[np.dtype[Any], Array] = {}


@lru_cache(maxsize=256)
def ones(length: int, dtype: np.dtype[Any]) -> Array:
    """A vector of ones to multiply by, all of one dtype in the same memory. Not to be written to."""
    vector = _ONES.get(dtype)
    if vector is None or len(vector) < length:
        vector = _ONES[dtype] = np.ones(max(length, BLOCK), dtype)
    return vector[:length]


def summarize_units(rows: Array, quiet: float = 0.0) -> tuple[Summary, Array, float]:
    """Summary of an output, as `as_rows` gives it, its units' sums (units,) in float64, and the variance over inputs.

    That variance is averaged over units: the law of total variance takes what lies between units off the whole. Extremes and
    zeros are not looked at where the mean square is below `quiet` and the values are finite and not all zero.
    """
    flat = rows.ravel()
    size = len(flat)
    squares = float(flat.dot(flat)) if size <= BLOCK else sum_of_squares(flat)
    if not TINY < squares < HUGE:
        return _unusual_units(rows, flat)
    samples, units = rows.shape
    sums = (ones(samples, rows.dtype).dot(rows) if samples <= MANY_ROWS else unit_sums(rows)).astype(_DOUBLE)
    whole = float(sums.dot(ones(units, _DOUBLE)))
    summary = usual(flat, squares, whole, quiet)
    within = (summary[2] - (float(sums.dot(sums)) - whole * whole / units) * units / size) / size
    if within * size < COLLAPSED * squares:
        within = _within(rows, sums / samples)
    return summary, sums, within


_DOUBLE = np.dtype(np.float64)


def within_units(summary: Summary, sums: Array) -> float:
    """Variance over inputs, averaged over units, of arrays of which the summary and the units' sums (units,) are known."""
    if not summary.count:
        return math.nan
    whole = float(sums.sum())
    between = (float(sums.dot(sums)) - whole * whole / len(sums)) * len(sums) / summary.count
    return max(0.0, (summary.m2 - between) / summary.count)


def as_rows(array: Array) -> Array:
    """An output (batch, …, units) as float rows (samples, units), contiguous; of the array itself wherever that can be."""
    rows = array if array.ndim == 2 else array.reshape(math.prod(array.shape[:-1]), array.shape[-1])
    if rows.dtype.char not in "fd":
        rows = rows.astype(np.float32 if rows.dtype == np.float16 else np.float64)
    return rows if rows.flags.c_contiguous else np.ascontiguousarray(rows)


def unit_sums(rows: Array) -> Array:
    """Sum of each column (units,) of float rows (n, units)."""
    if len(rows) <= MANY_ROWS:
        return np.asarray(ones(len(rows), rows.dtype).dot(rows))
    return np.asarray(np.add.reduce(rows, axis=0, dtype=np.float64))


def _within(rows: Array, means: Array) -> float:
    """Variance over inputs, averaged over units, from the deviations themselves."""
    deviation = rows - means.astype(rows.dtype)
    shift = unit_sums(deviation).astype(np.float64) / len(rows)
    squares = sum_of_squares(deviation.reshape(-1))
    within: float = squares / deviation.size - float(shift.dot(shift)) / len(shift)
    return max(0.0, within)


def _unusual_units(rows: Array, flat: Array) -> tuple[Summary, Array, float]:
    summary = unusual(flat)
    if summary.zeros == len(flat) > 0:
        return summary, np.zeros(rows.shape[1]), 0.0
    sums = np.asarray(np.add.reduce(rows, axis=0, dtype=np.float64))
    if not summary.count:
        return summary, sums, math.nan
    if summary.nonfinite:
        return summary, sums, _within_finite(rows)
    return summary, sums, max(0.0, summary.variance - float(np.var(sums / len(rows))))


def _within_finite(rows: Array) -> float:
    """Variance over inputs of the finite values alone, such as those of logits of which some are masked with -inf."""
    finite = np.isfinite(rows)
    values = np.where(finite, rows, 0).astype(np.float64)
    counts = np.count_nonzero(finite, axis=0)
    deviation = np.where(finite, values - values.sum(axis=0) / np.maximum(1, counts), 0)
    return float(np.vdot(deviation, deviation)) / int(counts.sum())


def silent_units(units: Array, rows: Array, sums: Array, low: float) -> Array:
    """Those of `units` (numbers of columns) that have no value but exact zeros in `rows`, whose sums over them are known.

    `low` is the smallest value, NaN where nobody has looked. A unit whose value is NaN speaks.
    """
    over_rows = sums.take(units)
    if _count_nonzero(over_rows):
        units = units[over_rows == 0]
    if not len(units):
        return units
    if low != low:
        low = rows.item(rows.argmin())
    if not low >= 0:  # positive and negative values can cancel
        spoke = rows.take(units, axis=1).any(axis=0)
        return units[~spoke] if spoke.any() else units
    return units


def identical_rows(matrix: Array, tolerance: float) -> bool:
    """Whether all rows of a matrix with two rows or more agree to `tolerance` times its first row's largest magnitude."""
    if matrix.ndim < 2 or len(matrix) < 2 or not matrix.size:
        return False
    first = matrix[0].reshape(-1)
    apart = abs(float(matrix.item(0)) - float(matrix.item(len(first))))
    if apart > tolerance * math.sqrt(abs(sum_of_squares(first))):
        return False  # nearly every healthy matrix ends here: no value of a row exceeds its norm
    most = tolerance * float(np.abs(first).max(initial=0.0))
    return all(bool(np.allclose(rows, matrix[:1], rtol=0.0, atol=most)) for rows in (matrix[1:2], matrix))


class FeatureMoments:
    """Mean, variance and extremes of every input feature over all batches so far, without rows that are not finite."""

    SPEAKING = 0.01
    """A feature that differs from its usual value in less than this share of the samples has no scale of its own."""

    SHIFTED = 10.0
    """A mean of so many standard deviations in half of all features is a shift wherever it lies."""

    CENTRED = 3.0
    """A mean up to here is no shift: the dark border of standardised images lies between -0.4 and -2.7."""

    def __init__(self, features: int) -> None:
        self.count = 0
        self.mean = np.zeros(features)
        self.m2 = np.zeros(features)
        self.min = np.full(features, np.inf)
        self.max = np.full(features, -np.inf)
        self._usual: Array | None = None
        self._unusual = np.zeros(features)

    def add(self, rows: Array) -> None:
        """Take in a batch (samples, features) (Chan, Golub, LeVeque 1983)."""
        if not all_finite(rows):
            rows = rows[np.isfinite(rows).all(axis=1)]
        rows = rows.astype(np.float64)
        if not len(rows):
            return
        mean = unit_sums(rows) / len(rows)
        count, delta = self.count + len(rows), mean - self.mean
        deviation = rows - mean
        self.m2 += np.einsum("ij,ij->j", deviation, deviation) + delta**2 * self.count * len(rows) / count
        self.mean += delta * len(rows) / count
        if self._usual is None:
            self._usual = np.sort(rows, axis=0)[len(rows) // 2].copy()
        self._unusual += np.count_nonzero(rows != self._usual, axis=0)
        np.minimum(self.min, rows.min(axis=0), out=self.min)
        np.maximum(self.max, rows.max(axis=0), out=self.max)
        self.count = count

    @property
    def speaking(self) -> Array:
        """Which features differ from their usual value in enough samples to have a scale of their own."""
        return np.asarray(self._unusual >= self.SPEAKING * self.count)

    def scales(self) -> tuple[float, float, float, float]:
        """(largest |mean|/std, its feature, largest std over the lower quartile of them, its feature), features from 0.

        Over features that speak in enough samples and are not 0/1 indicators, whose scale is what it is; a shift counts
        only for means that are not near 0. NaN without any.
        """
        std = np.sqrt(self.m2 / max(1, self.count))
        indicator = (self.min == 0) & (self.max == 1)
        usable = np.flatnonzero(self.speaking & (std > 0) & ~indicator)
        if not len(usable):
            return (math.nan,) * 4
        mean, spread = np.abs(self.mean[usable]), std[usable]
        ratio = mean / spread
        shift = np.where((mean > self.CENTRED) | (np.median(ratio) > self.SHIFTED), ratio, 0.0)
        return (
            float(shift.max()),
            float(usable[shift.argmax()]),
            float(spread.max() / np.sort(spread)[len(spread) // 4]),
            float(usable[spread.argmax()]),
        )

    @property
    def constant_fraction(self) -> float:
        """Share of features that never changed."""
        return float(np.mean(self.min == self.max)) if self.count else math.nan


class UnitActivity:
    """Which units of a layer spoke in a rolling window of one to two spans of `SPAN` samples, or of one to two epochs."""

    SPAN = 2_000
    """Samples after which a silent unit counts as dead rather than rare: misses one that fires on 0.2 % once in 50."""

    def __init__(self, units: int) -> None:
        self.units = units
        self.silent: Array = np.arange(units)
        """Units that have not spoken in this span so far: only of these it matters what they do."""
        self._before = np.ones(units, bool)  # silent in the span before
        self._share = 1.0
        self._samples = 0

    def begin(self, samples: int) -> Array:
        """So many more inputs have come; gives back `silent` units."""
        if self._samples >= self.SPAN:
            self.turn()
        self._samples += samples
        return self.silent

    def left(self, silent: Array) -> float:
        """Of the `silent` units these are left; gives back the share of those silent over the window."""
        if silent is not self.silent:
            self.silent, self._share = silent, int(_count_nonzero(self._before[silent])) / self.units
        return self._share

    def turn(self) -> None:
        """Begin a new span (an epoch ends)."""
        self._before = np.zeros(self.units, bool)
        self._before[self.silent] = True
        self._share = len(self.silent) / (self.units or 1)
        self.silent, self._samples = np.arange(self.units), 0
