"""The first training samples one by one: how many are different, codes among their numbers, a feature that is the target."""

from __future__ import annotations

import math

import numpy as np

from nndiag.labels import integral
from nndiag.statistics import Array, all_finite


class FirstSamples:
    """The first `MOST` samples that are looked at, and evenly spaced features of each; of sequences the last step and the first.

    `code`, `leak` and `target_code` are the values of `frames.INPUT` and `frames.TARGET`; features count from 0. They are worked
    out at `LEAST` samples, at four times as many and so on, and at `MOST`; then all samples are forgotten.
    """

    MOST, LEAST, FEATURES = 512, 32, 1024
    """Samples that are gathered, those that it takes to say something, and features of each."""

    def __init__(self) -> None:
        self.count = 0
        self.distinct = math.nan
        self.code: tuple[float, ...] = (math.nan,) * 4
        self.leak = math.nan, math.nan, math.nan
        self.target_code: tuple[float, ...] = (math.nan,) * 3
        self._different: dict[int, Array] = {}
        self._x: list[Array] = []
        self._paired: list[tuple[Array, Array]] = []
        self._y: list[Array] = []
        self._latest: Array | None = None
        self._known, self._stride, self._steps = 0, 1, 0
        self._due = False

    def inputs(self, x: Array) -> None:
        """The inputs (samples, …) of a batch."""
        self._latest, self._due = None, False
        self._forget()
        if self.count >= self.MOST or x.ndim == 0 or not x.size:
            return
        x = x[: self.MOST - self.count]
        self.count += len(x)
        self._due = self.count >= max(self.LEAST, 4 * self._known) or self.count >= self.MOST
        self._known = self.count if self._due else self._known
        self._tell_apart(x)
        if x.ndim in (2, 3) and x.dtype.kind == "f":
            self._take(x)
        if self._due and self._x and not self._steps:
            column, *rest = coded(np.concatenate(self._x))
            self.code = column * self._stride, *rest

    def _take(self, x: Array) -> None:
        """Features of tables (samples, features), and those of the last step and the first of (samples, steps, features)."""
        steps = x.shape[1] if x.ndim == 3 else 0
        table = np.concatenate([x[:, -1], x[:, 0]], axis=1) if steps else x
        stride = max(1, -(-table.shape[1] // self.FEATURES))
        rows = table[:, ::stride].astype(np.float64)
        fits = not self._x or (rows.shape[1], stride, steps) == (self._x[0].shape[1], self._stride, self._steps)
        if fits and rows.size and all_finite(rows) and (stride == 1 or not steps):
            self._stride, self._steps, self._latest = stride, steps, rows
            self._x.append(rows)

    def _tell_apart(self, x: Array) -> None:
        """How many samples are different; NaN where they are few by nature, as letters are: no feature is different in each."""
        rows = as_table(x)
        rows = rows[:, :: max(1, rows.shape[1] // self.FEATURES)]
        for key, row in zip(hashes(rows), rows, strict=True):
            self._different.setdefault(key, row.copy())
        if self._due:
            number, different = len(self._different), list(self._different.values())
            alike = len({len(row) for row in different}) == 1  # sequences of several lengths are not few
            by_nature = 1 < number <= FEW and alike and own_values(np.array(different)) < OWN
            self.distinct = math.nan if by_nature else float(number)

    def _forget(self) -> None:
        if self.count >= self.MOST:
            self._x, self._y, self._paired, self._different, self._latest = [], [], [], {}, None

    def targets(self, y: Array) -> None:
        """The targets (samples, …) of the inputs that came last."""
        if self.count and y.size == len(y) and y.dtype.kind == "f":
            self._y.append(y.reshape(-1)[: self.MOST].astype(np.float64))
            if self._due and all(map(all_finite, self._y)):
                self.target_code = coded(np.concatenate(self._y)[:, None])[1:]
        self._pair(y)
        self._forget()

    def _pair(self, y: Array) -> None:
        """Take in targets, but for classes of sequences: they may well be what their last step says."""
        x, self._latest = self._latest, None
        if x is None or y.size != len(y) or len(y) < len(x) or (self._steps and integral(y)):
            return
        y = y.reshape(-1)[: len(x)].astype(np.float64)
        if not all_finite(y):
            return
        self._paired.append((x, y))
        if self._due:
            rows, every = (np.concatenate(part) for part in zip(*self._paired, strict=True))
            left, feature = leaking(rows, every, least=self.LEAST, features=1 if self._steps else 2)
            if self._steps and feature >= rows.shape[1] / 2:
                left = 1.0  # to recall the first step may be the task
            self.leak = left, feature * self._stride, float(self._steps)


FEW = 64
"""Different samples up to which there may be few by nature, as of letters."""

OWN = 0.9
"""Share of the samples in which a feature has a value of its own if it was measured."""


def as_table(x: Array) -> Array:
    """Samples (n, …) as rows (n, features)."""
    return x.reshape(len(x), -1) if x.ndim > 1 else x.reshape(-1, 1)


def hashes(x: Array) -> list[int]:
    """A hash of each sample as float32, so that the same numbers are the same row whatever their type; −0 is 0."""
    rows = np.ascontiguousarray(as_table(x), np.float32) + np.float32(0)
    return [hash(row.tobytes()) for row in rows]


def own_values(rows: Array) -> float:
    """Values of the feature that has most of them, over the rows (n, features): 1 where it has one of its own in each."""
    return max(len(np.unique(column)) for column in rows.T) / len(rows)


ALIKE = 3
"""Samples at least that have a code for what is missing."""

OTHERS = 10
"""Different values at least that the other samples have."""

SQUEEZED = 0.05
"""Spread of these over that of all values, below which the code squeezes them together."""


def coded(rows: Array) -> tuple[float, float, float, float]:
    """Of rows (samples, features): (feature, value, share of the samples, spread of the others over that of all).

    A code for what is missing, such as -9999, is the smallest or largest value of a feature, that of several samples and of no
    more than half of them; the others have many values, close together. NaN without any.
    """
    best = math.nan, math.nan, math.nan, math.nan
    size = np.abs(rows).max(axis=0)
    rows = rows / np.where(size > 0, size, 1.0)
    variance = rows.var(axis=0)
    for ends in (rows.min(axis=0), rows.max(axis=0)):
        away = rows - ends  # 0 for those that have the code
        others = np.count_nonzero(away, axis=0)
        number = np.maximum(others, 1)
        left = np.einsum("ij,ij->j", away, away) / number - (away.sum(axis=0) / number) ** 2
        share = 1 - others / len(rows)
        squeezed = (left < SQUEEZED**2 * variance) & (len(rows) - others >= ALIKE) & (share <= 0.5)
        for j in np.flatnonzero(squeezed):
            if len(np.unique(rows[:, j])) > OTHERS and not share[j] <= best[2]:
                spread = math.sqrt(max(0.0, left[j]) / variance[j])
                best = float(j), float(ends[j] * size[j]), float(share[j]), spread
    return best


NOTHING_LEFT = 1e-9
"""Share of the variance that a straight line leaves through what is the same number up to the rounding of single precision."""


def leaking(rows: Array, y: Array, *, least: int = 32, features: int = 2) -> tuple[float, float]:
    """Of rows (samples, features): (share of the variance of `y` that one feature leaves, that feature).

    Of the feature that leaves least, by a straight line. NaN where fewer than `least` samples are different or than `features`
    vary, where targets do not, or only by a code for what is missing, and where several features leave nothing: of a straight
    ramp every step is the target.
    """
    nothing = math.nan, math.nan
    varies = np.ptp(rows, axis=0) > 0
    different = len({row.tobytes() for row in rows})
    if different < least or varies.sum() < features or np.ptp(y) == 0 or not math.isnan(coded(y[:, None])[0]):
        return nothing
    x = rows / np.where(varies, np.abs(rows).max(axis=0), 1.0)
    y = y / np.abs(y).max()
    x, y = x - x.mean(axis=0), y - y.mean()
    over, total = np.einsum("ij,ij->j", x, x), float(y @ y)
    left = np.where(varies, 1 - (y @ x) ** 2 / np.where(varies, over, 1.0) / total, 1.0)
    if np.count_nonzero(left < NOTHING_LEFT) > 1:
        return nothing
    best = int(left.argmin())
    return max(0.0, float(left[best])), float(best)
