"""How the validation set compares with the training samples seen so far: shared rows, shifted features, other labels."""

from __future__ import annotations

import math

import numpy as np

from nndiag import statistics as st
from nndiag.labels import Labels
from nndiag.samples import as_table, hashes, own_values
from nndiag.statistics import Array

MOST = 200_000
"""Rows remembered, 8 bytes and a set entry each; beyond them the overlap is that with the rows remembered."""


FEW, ROWS, FEATURES = 50, 500, 64
"""Different rows that tell whether features have values of their own, and rows and features that are looked at for it."""


class SeenRows:
    """Which input rows were seen, by hash, and how many of them had come before."""

    def __init__(self) -> None:
        self.seen: set[int] = set()
        self.count = 0
        self._until_new = 0

    def add(self, x: Array) -> None:
        """Take in the rows of a batch (samples, …)."""
        self.add_hashes(hashes(x))

    def add_hashes(self, hashes: list[int]) -> None:
        """Take in rows by their hashes."""
        if len(self.seen) < MOST:
            known = len(self.seen)
            self.seen.update(hashes)
            self.count += len(hashes)
            if len(self.seen) > known:
                self._until_new = self.count

    @property
    def repeats(self) -> int:
        """Rows since the last new one."""
        return self.count - self._until_new

    @property
    def duplicates(self) -> float:
        """Share of the rows that are copies of others, up to the last new one: what comes after is another epoch."""
        return 1 - len(self.seen) / self._until_new if self._until_new else math.nan


class HeldOut:
    """A validation set: hashes of its rows, moments of its features, shares of its classes. Keeps no array of it."""

    def __init__(self, x: Array, y: Array, *, binary: bool) -> None:
        self._hashes = hashes(x[:MOST])
        rows = as_table(x)
        self._features = st.FeatureMoments(rows.shape[1])
        self._features.add(rows)
        self._distinct = distinct(rows)
        self._labels = Labels()
        self._labels.add(y, binary=binary)
        self._target_mean = float(np.mean(y, dtype=np.float64)) if y.size and y.dtype.kind in "biuf" else math.nan

    def has_rows_of(self, other: HeldOut) -> bool:
        """Whether this has the rows of `other`, in their order."""
        return self._hashes == other._hashes

    def compared(self, train: SeenRows, features: st.FeatureMoments | None, labels: Labels) -> tuple[float, ...]:
        """`frames.VALIDATION` against the training samples so far."""
        overlap = float(np.mean([row in train.seen for row in self._hashes])) if self._hashes else math.nan
        shift, scale = moved(self._features, features)
        away = awakened(self._features, features)
        return (
            len(self._hashes),
            overlap,
            train.duplicates,
            self._distinct,
            shift,
            scale,
            self._label_shift(labels),
            away,
            self._target_mean,
        )

    def _label_shift(self, labels: Labels) -> float:
        """Total variation distance between the shares of the classes; NaN where targets are not classes."""
        here, there = self._labels.shares(), labels.shares()
        if not here or not there:
            return math.nan
        return sum(abs(here.get(label, 0.0) - there.get(label, 0.0)) for label in here.keys() | there.keys()) / 2


def moved(own: st.FeatureMoments, train: st.FeatureMoments | None) -> tuple[float, float]:
    """Median over features of |difference of means| / std, and of std / std, where training features vary in enough samples."""
    if train is None or len(train.mean) != len(own.mean) or not own.count:
        return math.nan, math.nan
    std = np.sqrt(train.m2 / max(1, train.count))
    varies = (std > 0) & train.speaking
    if not varies.any():
        return math.nan, math.nan
    shift = np.abs(own.mean - train.mean)[varies] / std[varies]
    scale = np.sqrt(own.m2 / own.count)[varies] / std[varies]
    return float(np.median(shift)), float(np.median(scale))


def awakened(own: st.FeatureMoments, train: st.FeatureMoments | None) -> float:
    """How far the feature that never varies in training goes from its value there, over the largest standard deviation of all.

    Far is meant in the root mean square, and the feature is the one that goes farthest.
    """
    if train is None or len(train.mean) != len(own.mean) or not own.count or not train.count:
        return math.nan
    still, largest = train.min == train.max, float(np.sqrt(train.m2.max() / train.count))
    away = np.hypot(own.mean - train.mean, np.sqrt(own.m2 / own.count))[still]
    return float(away.max()) / largest if len(away) and largest > 0 else 0.0


class Evaluated:
    """The inputs of passes that are no training, the first ones, of which it is not known whose they are.

    Those of another width than training's, as of other lengths of a sequence, are passed over.
    """

    LEAST, ENOUGH, VALUES = 20, 2_000, 1 << 22
    """Samples from which on they are compared, and samples and values after which no more are looked at."""

    def __init__(self) -> None:
        self._features: st.FeatureMoments | None = None

    def add(self, x: Array, train: st.FeatureMoments) -> tuple[float, float] | None:
        """`frames.MOVED` of them all against training inputs, with those of a batch (samples, …); None where nothing is new."""
        if self._features is None:
            self._features = st.FeatureMoments(len(train.mean))
        own, width = self._features, len(train.mean)
        more = min(self.ENOUGH, max(self.LEAST, self.VALUES // width)) - own.count
        fits = x.ndim > 0 and x.size > 0 and x.size == len(x) * width and width == len(own.mean)
        if more <= 0 or not fits:
            return None
        own.add(as_table(x)[:more])
        return moved(own, train) if own.count >= self.LEAST else None


class SharedRows:
    """Which rows of the first passes that are no training are training rows, where it is not known whose passes they are.

    Passes with rows of both kinds are those of a validation set into which training rows have got. One of training rows alone
    may measure the training loss, and where most training rows are met again, everything there is was evaluated at once. That
    takes all training rows: each batch from the first step on, until a fifth as many as there are were seen again and no new
    one. The same batch several times in a row counts once.
    """

    ENOUGH, VALUES = 2_000, 1 << 22
    """Rows of passes that are looked at, and values of training rows and of those."""

    BOTH = 3
    """Rows of training, and others, from which on a pass is one of both."""

    AGAIN = 0.2
    """Repeats, as a share of the rows of training, that show that all of these were seen."""

    EVERYTHING = 0.5
    """Share of the rows of training above which passes that meet them are those of everything."""

    def __init__(self) -> None:
        self._train = SeenRows()
        self._passes: list[list[int]] = []
        self._latest: list[int] = []
        self._left = self._more = self.VALUES
        self._distinct = math.nan
        self.complete = False
        """Whether all training rows were seen."""

    def train(self, x: Array) -> tuple[float, ...] | None:
        """`frames.SHARED`, once it is known, with the next training batch (samples, …)."""
        if self.complete or x.size > self._left:
            self._left = 0
            return None
        self._left -= x.size
        latest, self._latest = self._latest, hashes(x)
        if self._latest == latest:  # gone through once more, as a closure or a second pass of the same step does
            return None
        self._train.add_hashes(self._latest)
        self.complete = self._train.repeats >= max(self.BOTH, self.AGAIN * len(self._train.seen))
        return self._shared() if self.complete else None

    def evaluate(self, x: Array) -> tuple[float, ...] | None:
        """`frames.SHARED`, where that is known by now, with the rows of another pass (samples, …)."""
        if sum(map(len, self._passes)) >= self.ENOUGH or x.size > self._more:
            return None
        self._more -= x.size
        self._passes.append(hashes(x[: self.ENOUGH]))
        self._distinct = np.fmax(self._distinct, distinct(as_table(x)))
        return self._shared() if self.complete else None

    def _shared(self) -> tuple[float, ...] | None:
        seen, rows = self._train.seen, [row for rows in self._passes for row in rows]
        met = [row for row in rows if row in seen]
        if not rows or len(set(met)) > self.EVERYTHING * len(seen):
            return None
        mixed = [each for each in self._passes if sum(row not in seen for row in each) >= self.BOTH]
        if met and len(seen.intersection(row for each in mixed for row in each)) < self.BOTH:
            return None
        return len(rows), len(met) / len(rows), self._train.duplicates, float(self._distinct)


def distinct(rows: Array) -> float:
    """Values of the feature that has most of them, over the different rows (n, features); NaN of less than `FEW` of those.

    Near 1, equal rows are copies, and no chance: a feature that is measured has a value of its own in each of them. Of many rows
    and features the first ones are looked at.
    """
    some = np.unique(rows[:ROWS, :FEATURES], axis=0)
    return own_values(some) if len(some) >= FEW and some.size else math.nan
