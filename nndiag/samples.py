"""The first training samples one by one: how many are different, codes among their numbers, a feature that is the target."""

from __future__ import annotations

import math

import numpy as np

from nndiag.labels import integral
from nndiag.statistics import Array, all_finite


class FirstSamples:
    """The first `MOST` samples that are looked at, and evenly spaced features of each.

    `code` and `leak` are the values of `frames.INPUT` and `frames.TARGET` of those names, of tables (samples, features) and of
    the last steps of sequences (samples, steps, features); features count from 0.
    """

    MOST, LEAST, FEATURES = 512, 32, 256
    """Samples that are gathered, those that it takes to say something, and features of each."""

    def __init__(self) -> None:
        self.count = 0
        self.code = math.nan, math.nan, math.nan, math.nan
        self.leak = math.nan, math.nan
        self._different: set[bytes] = set()
        self._x: list[Array] = []
        self._y: list[Array] = []
        self._known, self._stride = 0, 1
        self._due = self._paired = self._sequence = False

    @property
    def distinct(self) -> int:
        """How many of them are different."""
        return len(self._different)

    def inputs(self, x: Array) -> None:
        """The inputs (samples, …) of a batch."""
        self._paired = self._due = False
        if self.count >= self.MOST:
            self._x, self._y = [], []
            return
        if x.ndim == 0 or not x.size:
            return
        x = x[: self.MOST - self.count]
        self.count += len(x)
        rows = _spaced(x.reshape(len(x), -1), self.FEATURES)[0]
        self._different.update(row.tobytes() for row in np.ascontiguousarray(rows + 0))
        self._sequence = x.ndim == 3
        table = x[:, -1] if self._sequence else x
        if table.ndim != 2 or table.shape[1] + self._sequence < 2 or table.dtype.kind != "f" or not all_finite(table):
            return
        rows, stride = _spaced(table, self.FEATURES)
        if self._x and (rows.shape[1] != self._x[0].shape[1] or stride != self._stride):
            return
        self._stride, self._paired = stride, True
        self._x.append(rows.astype(np.float64))
        if self._due_now():
            self.code = coded(np.concatenate(self._x), stride)

    def _due_now(self) -> bool:
        """Whether there are four times as many samples as were last gone through, or all."""
        self._due = self.count >= max(self.LEAST, 4 * self._known) or self.count >= self.MOST
        self._known = self.count if self._due else self._known
        return self._due

    def targets(self, y: Array) -> None:
        """The targets (samples, …) of the inputs that came last; classes of sequences may well be what their last step says."""
        paired = self._paired and y.size == len(y) >= len(self._x[-1]) and len(self._y) + 1 == len(self._x)
        if not paired or not all_finite(y) or (self._sequence and integral(y)):
            return
        self._y.append(y.reshape(-1)[: len(self._x[-1])].astype(np.float64))
        if self._due:
            self.leak = leaking(np.concatenate(self._x), np.concatenate(self._y), self._stride)


def _spaced(rows: Array, most: int) -> tuple[Array, int]:
    """At most so many evenly spaced columns, and how far apart they are."""
    stride = max(1, -(-rows.shape[1] // most))
    return rows[:, ::stride], stride


ALIKE, OTHERS, SQUEEZED = 3, 10, 0.05
"""Samples that have a code, different values besides, and their spread over that of all, below which it squeezes them."""


def coded(rows: Array, stride: int) -> tuple[float, float, float, float]:
    """Of rows (samples, features): (feature, value, share of the samples, spread of the others over that of all).

    A code for what is missing, such as -9999, is the smallest or largest value of a feature, that of several samples and of no
    more than half of them; the others have many values, close together. NaN without any.
    """
    best = math.nan, math.nan, math.nan, math.nan
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
                best = float(j * stride), float(ends[j]), float(share[j]), math.sqrt(max(0.0, left[j]) / variance[j])
    return best


def leaking(rows: Array, y: Array, stride: int) -> tuple[float, float]:
    """Of rows (samples, features): (share of the variance of `y` that one feature leaves, that feature).

    Of the feature that leaves least, by a straight line; NaN where targets or features do not vary.
    """
    x, y = rows - rows.mean(axis=0), y - y.mean()
    over, total = np.einsum("ij,ij->j", x, x), float(y @ y)
    varies = over > 0
    if not varies.any() or total <= 0:
        return math.nan, math.nan
    left = 1 - np.where(varies, (y @ x) ** 2 / np.where(varies, over, 1.0), 0.0) / total
    best = int(left.argmin())
    return max(0.0, float(left[best])), float(best * stride)
