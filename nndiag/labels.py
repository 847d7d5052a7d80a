"""Targets over all batches so far: the classes among them, their entropy, and the spread of real values."""

from __future__ import annotations

import math

import numpy as np

from nndiag.statistics import Array, FeatureMoments


class Labels:
    """Targets over all batches so far: classes and their entropy in nats, and the variance of real values.

    Targets are class ids (batch,), one-hot rows or probabilities (batch, classes), or with `binary` independent 0/1
    columns (batch, labels), whose entropy is the mean over columns.
    """

    MOST = 10_000
    """Distinct whole numbers beyond which targets are counts or prices rather than class ids."""

    def __init__(self) -> None:
        self.latest = _NONE
        self._dense = np.zeros(0, np.int64)  # samples of the classes 0, 1, … below `DENSE`
        self._ids = np.zeros(0, np.int64)  # any other whole numbers, ascending
        self._counts = np.zeros(0, np.int64)  # samples of those
        self._numbers = False  # too many of them to be classes
        self._samples = 0
        self._binary = False
        self._deviation = 0.0
        self._moments: FeatureMoments | None = None

    def add(self, y: Array, *, binary: bool, whole: bool = True) -> None:
        """Take in the targets of a batch; unless `whole`, only which classes are among them."""
        columns = y.reshape(len(y), -1) if y.ndim > 1 else y.reshape(-1, 1)
        if columns.shape[1] > 1 and not binary and integral(columns) and columns.max(initial=0) > 1:
            columns = columns.reshape(-1, 1)  # ids of a sequence or an image
        if whole:
            self._measure(columns)
        self._binary = binary
        self.latest = _label_counts(columns)
        if not self._numbers:
            self._count(*self.latest)

    def _count(self, ids: Array | None, counts: Array) -> None:
        if ids is None:
            self._room(len(counts))
            self._dense[: len(counts)] += counts
            return
        dense = (ids >= 0) & (ids < DENSE)
        if dense.any():
            self._room(int(ids[dense].max()) + 1)
            self._dense[ids[dense]] += counts[dense]
            ids, counts = ids[~dense], counts[~dense]
        self._merge(ids, counts)

    def _room(self, classes: int) -> None:
        """Make a place for each of so many classes from 0."""
        if classes > len(self._dense):
            self._dense = np.concatenate([self._dense, np.zeros(classes - len(self._dense), np.int64)])

    def _merge(self, ids: Array, counts: Array) -> None:
        """Count `ids`, ascending and each once, that have no place of their own."""
        at = np.searchsorted(self._ids, ids)
        known = np.zeros(len(ids), bool)
        inside = at < len(self._ids)
        known[inside] = self._ids[at[inside]] == ids[inside]
        self._counts[at[known]] += counts[known]
        if not known.all():
            self._ids = np.insert(self._ids, at[~known], ids[~known])
            self._counts = np.insert(self._counts, at[~known], counts[~known])
            self._numbers = len(self._ids) > self.MOST
            if self._numbers:
                self._ids, self._counts, self._dense = self._ids[:0], self._counts[:0], self._dense[:0]

    def _measure(self, columns: Array) -> None:
        if self._moments is None or len(self._moments.mean) != columns.shape[1]:
            self._moments = FeatureMoments(columns.shape[1])
        self._moments.add(columns)
        self._samples += len(columns)
        with np.errstate(all="ignore"):
            off = np.abs(columns - self._moments.mean)
        if len(finite := off[np.isfinite(off)]):
            self._deviation += len(columns) * float(np.mean(finite))

    @property
    def counts(self) -> dict[int, int]:
        """Samples of every class seen so far, in order of the classes."""
        dense = np.flatnonzero(self._dense)
        below = int(np.searchsorted(self._ids, 0))
        ids = np.concatenate([self._ids[:below], dense, self._ids[below:]])
        counts = np.concatenate([self._counts[:below], self._dense[dense], self._counts[below:]])
        return dict(zip(ids.tolist(), counts.tolist(), strict=True))

    @property
    def complete(self) -> bool:
        """Whether the classes seen are 0, 1, … without a gap."""
        return not len(self._ids) and int(np.count_nonzero(self._dense)) == len(self._dense)

    @property
    def classes(self) -> float:
        """Number of classes seen; NaN where targets are not classes."""
        number = int(np.count_nonzero(self._dense)) + len(self._ids)
        return float(number) if 0 < number <= self.MOST else math.nan

    @property
    def entropy(self) -> float:
        """Entropy of the labels in nats: the cross-entropy of always predicting their frequencies; NaN if not classes."""
        if self._binary and self._moments is not None and _within_unit(self._moments):
            p = np.stack([self._moments.mean, 1 - self._moments.mean])
            return float(-np.sum(p * np.log(np.where(p > 0, p, 1.0)), axis=0).mean())
        if not self.classes > 0:
            return math.nan
        counts = self._dense[self._dense > 0]
        if len(self._ids):
            counts = np.concatenate([counts, self._counts])
        shares = counts / np.add.reduce(counts)
        return -float(shares.dot(np.log(shares)))

    @property
    def variance(self) -> float:
        """Variance of each target column over samples, averaged: the squared error of always predicting the means."""
        if self._moments is None or not self._moments.count:
            return math.nan
        return float(np.add.reduce(self._moments.m2)) / len(self._moments.m2) / self._moments.count

    @property
    def deviation(self) -> float:
        """Mean distance of each target from the mean so far: about the absolute error of always predicting the mean."""
        return self._deviation / self._samples if self._samples else math.nan

    def shares(self) -> dict[int, float]:
        """Share of each class among all samples so far; empty where targets are not classes."""
        counts = self.counts
        total = sum(counts.values())
        return {label: count / total for label, count in counts.items()} if 0 < len(counts) <= self.MOST else {}


def integral(y: Array) -> float:
    """1 where every value is a whole number, else 0."""
    return float(y.dtype.kind in "iub" or bool(np.all(np.isfinite(y) & (y == np.rint(y)))))


_NONE: tuple[Array | None, Array] = (None, np.zeros(0, np.int64))

DENSE = 4096
"""Class ids below this are counted in an array with a place for each."""


def _label_counts(columns: Array) -> tuple[Array | None, Array]:
    """Class ids and the samples of each, ids None for 0, 1, …: of ids (n, 1) or of rows that sum to one (n, classes).

    There are none in real targets.
    """
    if columns.shape[1] == 1:
        return _id_counts(columns.reshape(-1)) if integral(columns) else _NONE
    if np.all(columns >= 0) and np.allclose(columns.sum(axis=1), 1.0, atol=1e-3):
        return None, np.bincount(columns.argmax(axis=1), minlength=columns.shape[1])
    return _NONE


def _id_counts(ids: Array) -> tuple[Array | None, Array]:
    if not len(ids):
        return _NONE
    if ids.dtype.kind in "iu" and ids.item(ids.argmin()) >= 0 and ids.item(ids.argmax()) < DENSE:
        return None, np.bincount(ids)
    found, counts = np.unique(ids, return_counts=True)
    return found.astype(np.int64), counts


def _within_unit(moments: FeatureMoments) -> bool:
    return bool(moments.count and moments.min.min() >= 0 and moments.max.max() <= 1)
