"""Robust readings of recorded series that checks share: onsets, medians, spreads and slopes."""

from __future__ import annotations

import numpy as np

from nndiag.statistics import Array

PATIENCE = 3
"""Reads in a row that open a finding: two outliers in a row are common, three are a state."""

POINTS = 200
"""Points between which slopes are taken: all of more would take seconds, and tell no more."""

NEAR = 0.02
"""Part of the way down to the lowest value up to which another is as good."""


def warm_up(reads: int) -> int:
    """Reads at the start that relative rules leave out: 5 %, at least 5 and at most 50."""
    return max(5, min(reads // 20, 50))


def onset(bad: Array) -> int | None:
    """Position where the first run of `PATIENCE` true values in a row begins; None without one."""
    if len(bad) < PATIENCE:
        return None
    runs = np.convolve(np.asarray(bad, int), np.ones(PATIENCE, int), "valid") == PATIENCE
    return int(np.argmax(runs)) if runs.any() else None


def lasting_onset(bad: Array) -> int | None:
    """Position from which on every value is true, to the end; None if the last is not."""
    if not len(bad) or not bad[-1]:
        return None
    good = np.flatnonzero(~np.asarray(bad, bool))
    return int(good[-1]) + 1 if len(good) else 0


def spread(values: Array) -> float:
    """Robust standard deviation, 1.4826 · MAD, with a floor of a thousandth of the median's magnitude."""
    middle = float(np.median(values))
    return max(1.4826 * float(np.median(np.abs(values - middle))), 1e-3 * abs(middle))


def clearly_above(share: float, count: int) -> float:
    """`share` plus two standard errors of a share of `count`, at most 1: what is clearly more than it."""
    return float(min(1.0, share + 2 * np.sqrt(share * (1 - share) / count)))


def blocks(values: Array, count: int = 8) -> Array:
    """Means of `count` equal blocks of a series (fewer if it is shorter): the noise of neighbours averages out."""
    parts = np.array_split(np.asarray(values, float), max(1, min(count, len(values))))
    return np.array([part.mean() for part in parts])


def theil_sen(x: Array, y: Array) -> float:
    """Median of the slopes between all pairs of points, on at most `POINTS` evenly spaced points (Theil 1950, Sen 1968)."""
    at = np.unique(np.linspace(0, len(x) - 1, min(POINTS, len(x))).astype(int))
    i, j = np.triu_indices(len(at), 1)
    if not len(i):
        return 0.0
    x, y = np.asarray(x, float)[at], np.asarray(y, float)[at]
    return float(np.median((y[j] - y[i]) / (x[j] - x[i])))


def pace(falling: Array, durations: Array | None = None) -> float:
    """How fast a series falls over its second half, beside its mean pace over the whole; 0 where it does not fall clearly.

    `durations` says how long each read lasts, such as its learning rate; without, all are as long. Clearly is by three
    standard errors between the means of both quarters, from the scatter of neighbours, tails included. An exponential that
    has gone half of its way ends at 0.8, one that has gone three quarters at 0.6 and one that has gone nine tenths at 0.4.
    """
    clock = np.cumsum(np.ones(len(falling)) if durations is None else durations)
    if not len(clock) or not clock[-1] > 0:
        return 0.0
    older, newer = falling[(clock > clock[-1] / 2) & (clock <= 3 * clock[-1] / 4)], falling[clock > 3 * clock[-1] / 4]
    if min(len(older), len(newer)) < 2:
        return 0.0
    fall, whole = float(older.mean() - newer.mean()), float(falling[:3].mean() - newer.mean())
    scatter = float(np.std(np.diff(falling[-len(older) - len(newer) :]))) / np.sqrt(2)
    error = scatter * np.sqrt(1 / len(older) + 1 / len(newer))
    # The means of the quarters lie a quarter of the time apart, and seven eighths of it from the start.
    return 3.5 * fall / whole if fall > 3 * error and whole > 0 else 0.0


def descends(values: Array) -> bool:
    """Whether each value, of two or more, is below the one before."""
    return len(values) > 1 and bool((np.diff(values) < 0).all())


def ends_at_best(falling: Array) -> bool:
    """Whether one of the last three values is the lowest, to `NEAR` of the way down to it; true of fewer than three."""
    if len(falling) < 3:
        return True
    lowest = float(falling.min())
    return bool(falling[-3:].min() - lowest <= NEAR * max(float(falling[0]) - lowest, 0.0))
