"""Exact statistics of one array, in few passes and mergeable: the numbers behind every frame."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

CANCELLATION = 0.25
"""Below this share of E[x²], a variance from E[x²] − mean² has lost digits: a float32 dot product carries some 1e-6 of
thousands of values, we promise 1e-5."""

TINY, HUGE = 1e-30, 1e30
"""Sums of squares outside this range have met float32's limits (1e-38, 3e38) on the way: scale first."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Count, mean, M2 (sum of squared deviations), extremes, zeros and non-finite values of an array.

    `count` is the number of finite values, over which everything but `nonfinite` is computed. An empty summary has
    count 0 and NaN extremes.
    """

    count: int
    mean: float
    m2: float
    min: float
    max: float
    zeros: int
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
            return Summary(filled.count, filled.mean, filled.m2, filled.min, filled.max, filled.zeros,
                           self.nonfinite + other.nonfinite)  # fmt: skip
        count = self.count + other.count
        delta = other.mean - self.mean
        return Summary(
            count=count,
            mean=self.mean + delta * other.count / count,
            m2=self.m2 + other.m2 + delta * delta * self.count * other.count / count,
            min=min(self.min, other.min),
            max=max(self.max, other.max),
            zeros=self.zeros + other.zeros,
            nonfinite=self.nonfinite + other.nonfinite,
        )


def summarize(array: Array) -> Summary:
    """Summary of all elements of a real array of any shape and memory layout."""
    flat = array.ravel(order="K")
    if not flat.size:
        return Summary(0, math.nan, 0.0, math.nan, math.nan, 0, 0)
    if flat.dtype not in (np.float32, np.float64):
        flat = flat.astype(np.float64)
    with np.errstate(all="ignore"):  # whatever the user has set: an overflow here is a fact to record
        return _finite(flat) if math.isfinite(np.add.reduce(flat)) else _partly_finite(flat)


def _partly_finite(flat: Array) -> Summary:
    """Summary where a sum overflowed or a value is not finite: count those, go on in float64 with the rest."""
    finite = flat[np.isfinite(flat)].astype(np.float64)
    nonfinite = flat.size - finite.size
    if not finite.size:
        return Summary(0, math.nan, 0.0, math.nan, math.nan, 0, nonfinite)
    low, high = float(finite.min()), float(finite.max())
    scale = max(abs(low), abs(high)) or 1.0
    unit = finite / scale
    mean = float(np.add.reduce(unit)) / unit.size
    deviation = unit - mean
    m2 = float(deviation @ deviation) * scale * scale
    return Summary(finite.size, mean * scale, m2, low, high, finite.size - int(np.count_nonzero(finite)), nonfinite)


def _finite(flat: Array) -> Summary:
    """Summary of a non-empty float array without non-finite values."""
    count = flat.size
    total = float(np.add.reduce(flat, dtype=np.float64))
    mean = total / count
    squares = float(np.dot(flat, flat))
    if not TINY < squares < HUGE:
        return _extreme(flat, mean)
    m2 = squares - total * mean
    if m2 < CANCELLATION * squares:
        deviation = flat - flat.dtype.type(mean)
        shift = float(np.add.reduce(deviation, dtype=np.float64)) / count
        m2 = max(0.0, float(np.dot(deviation, deviation)) - count * shift * shift)
    return Summary(count, mean, m2, float(flat.min()), float(flat.max()), count - int(np.count_nonzero(flat)), 0)


def _extreme(flat: Array, mean: float) -> Summary:
    """Summary of values whose squares leave the dtype's range: deviations scaled to 1, in float64."""
    low, high = float(flat.min()), float(flat.max())
    scale = max(abs(low), abs(high))
    deviation = (flat.astype(np.float64) - mean) / (scale or 1.0)
    return Summary(flat.size, mean, float(deviation @ deviation) * scale * scale, low, high,
                   flat.size - int(np.count_nonzero(flat)), 0)  # fmt: skip


def unit_means(array: Array) -> Array:
    """Mean of every unit (last axis) over all other axes, in float64; the array must have two axes or more."""
    rows = array.reshape(-1, array.shape[-1])
    return np.asarray(np.add.reduce(rows, axis=0, dtype=np.float64) / max(1, len(rows)))


def batch_variance(array: Array, variance: float) -> float:
    """Variance over inputs, averaged over units: the law of total variance takes that between units off `variance`."""
    if array.ndim < 2 or not array.size:
        return math.nan
    return max(0.0, variance - float(np.var(unit_means(array))))


def active_units(array: Array) -> NDArray[np.bool_]:
    """For every unit (last axis), whether any of its values is not exactly zero; non-finite counts as active."""
    return np.asarray((array != 0).reshape(-1, array.shape[-1]).any(axis=0))


def identical_rows(matrix: Array, tolerance: float) -> bool:
    """Whether all rows of a matrix with two rows or more agree to `tolerance` times its largest magnitude."""
    if matrix.ndim < 2 or len(matrix) < 2:
        return False
    first, scale = matrix[:1], float(np.abs(matrix[0]).max(initial=0.0))
    if not np.allclose(matrix[1:2], first, rtol=0.0, atol=tolerance * scale):
        return False  # nearly every healthy matrix ends here
    return bool(np.allclose(matrix, first, rtol=0.0, atol=tolerance * scale))


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
        rows = rows[np.isfinite(rows).all(axis=1)].astype(np.float64)
        if not len(rows):
            return
        mean = rows.mean(axis=0)
        count, delta = self.count + len(rows), mean - self.mean
        self.m2 += np.square(rows - mean).sum(axis=0) + delta**2 * self.count * len(rows) / count
        self.mean += delta * len(rows) / count
        if self._usual is None:
            self._usual = np.sort(rows, axis=0)[len(rows) // 2]
        self._unusual += np.count_nonzero(rows != self._usual, axis=0)
        np.minimum(self.min, rows.min(axis=0), out=self.min)
        np.maximum(self.max, rows.max(axis=0), out=self.max)
        self.count = count

    def scales(self) -> tuple[float, float, float, float]:
        """(largest |mean|/std, its feature, largest std over the lower quartile of them, its feature), features from 0.

        Over features that speak in enough samples and are not 0/1 indicators, whose scale is what it is; a shift counts
        only for means that are not near 0. NaN without any.
        """
        std = np.sqrt(self.m2 / max(1, self.count))
        indicator = (self.min == 0) & (self.max == 1)
        usable = np.flatnonzero((self._unusual >= self.SPEAKING * self.count) & (std > 0) & ~indicator)
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
        self._now = np.zeros(units, bool)
        self._before = np.zeros(units, bool)
        self._samples = 0

    @property
    def units(self) -> int:
        """Number of units."""
        return len(self._now)

    def add(self, active: NDArray[np.bool_], samples: int) -> float:
        """Take in the units that were active among `samples` inputs; gives back the share silent over the window."""
        if self._samples >= self.SPAN:
            self.turn()
        self._now |= active
        self._samples += samples
        return 1.0 - float(np.mean(self._now | self._before))

    def turn(self) -> None:
        """Begin a new span (an epoch ends)."""
        self._before, self._now = self._now, np.zeros_like(self._now)
        self._samples = 0
