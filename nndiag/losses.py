"""What losses are called, and what they cost: their names, the value of the usual ones, and what they do not fall below."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from nndiag import statistics as st
from nndiag.labels import integral
from nndiag.statistics import Array

CLIPPED = 1e-7
"""Where probabilities are clipped before their logarithm is taken, as losses of them commonly do."""

SQUARED = ("mse", "meansquarederror", "mseloss", "squarederror")
ABSOLUTE = ("mae", "meanabsoluteerror", "l1loss", "l1", "absoluteerror")
CROSS_ENTROPIES = ("crossentropyloss", "softmaxcrossentropy", "crossentropy")
BINARY = ("bcewithlogitsloss", "bcewithlogits", "bceloss", "binarycrossentropy")
"""What frameworks call squared and absolute error and cross-entropies, in lower case, letters and digits only."""

DIVERGENCES = ("kldivloss", "kldivergence")
"""Losses of which the entropy of the targets is taken off: their floor is 0."""

MARGINS = ("multimarginloss", "multilabelmarginloss", "softmarginloss", "hinge", "hingeloss", "squaredhingeloss")
NO_ENTROPY = frozenset((*DIVERGENCES, *MARGINS))
"""Losses over classes or labels of which knowing nothing costs something else than the entropy of the labels."""

WEIGHTED = ("weight", "weights", "class_weight", "class_weights", "pos_weight", "sample_weight")
"""Keys of a loss that say it weights its samples: the entropy of the labels is no measure for it."""

OTHER_TERMS = " with other terms"
"""What the name of a loss ends with whose number holds more than that loss."""


def named(loss: Mapping[str, Any]) -> tuple[str, bool]:
    """Name of a loss in lower case, letters and digits only, and whether its number holds other terms besides."""
    name, others, _ = str(loss.get("name") or "").partition(OTHER_TERMS)
    return plain(name), bool(others)


def plain(name: str) -> str:
    """`name` in lower case, letters and digits only."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def toward(outputs: Array, y: Array, task: str) -> Array | None:
    """A direction (batch, units) from `outputs` towards targets `y`; None where the two do not fit each other."""
    if y.size != outputs.size or task not in ("binary", "real", "classes"):
        return None
    centre = outputs if task == "real" else 0.5
    return np.asarray(y.reshape(outputs.shape) - centre, np.float64)


def class_ids(y: Array, classes: int) -> Array | None:
    """Class of each target: ids (batch,) or (batch, 1) as they are, rows (batch, classes) by their largest; None else."""
    if y.ndim == 2 and y.shape[1] == classes > 1:
        return np.asarray(y.argmax(axis=1))
    ids = y.reshape(-1) if y.ndim == 1 or y.shape[1:] == (1,) else None
    if ids is None or not integral(ids):
        return None
    low, high = st.bounds(ids) if len(ids) else (0, 0)
    return ids.astype(np.intp) if low >= 0 and high < max(classes, 2) else None


def squared_error(outputs: Array, y: Array) -> float:
    """Mean of (output − target)², pair by pair; NaN where there are not as many of each."""
    if y.size != outputs.size:
        return math.nan
    error = _floats(outputs).reshape(-1) - _floats(y).reshape(-1)
    norm = st.norm(error)
    return norm * norm / y.size


def term(outputs: Array, y: Array, loss: Mapping[str, Any]) -> float:
    """The mean loss of outputs (batch, units) alone, of one that has other terms beside it; NaN of a kind that is not known.

    Squared and absolute error, cross-entropy and binary cross-entropy of logits or probabilities, none of them weighted.
    """
    name, _ = named(loss)
    given, targets, logits = _floats(outputs), _floats(y), loss.get("expects") == "logits"
    if name in SQUARED:
        return squared_error(outputs, y)
    if name in CROSS_ENTROPIES and (outputs.shape[1] < 2 or (y.ndim > 1 and y.shape[1] > 1 and not integral(y))):
        return math.nan  # of rows that are no one-hot ones
    if name in CROSS_ENTROPIES and (ids := class_ids(y, outputs.shape[1])) is not None and len(ids) == len(given):
        right = given[np.arange(len(ids)), ids]
        if not logits:
            return float(-np.mean(np.log(np.maximum(right, CLIPPED))))
        top = given.max(axis=1)
        return float(np.mean(top + np.log(np.exp(given - top[:, None]).sum(axis=1)) - right))
    if y.size != outputs.size:
        return math.nan
    given, targets = given.reshape(-1), targets.reshape(-1)
    if name in ABSOLUTE:
        return float(np.mean(np.abs(given - targets)))
    if name not in BINARY:
        return math.nan
    if logits:
        return float(np.mean(np.logaddexp(0, given) - targets * given))
    one, other = np.log(np.maximum(given, CLIPPED)), np.log(np.maximum(1 - given, CLIPPED))
    return float(-np.mean(targets * one + (1 - targets) * other))


def smoothed_floor(smoothing: float, classes: float) -> float:
    """Entropy of a label smoothed over `classes`, the lowest cross-entropy there is against it (Szegedy et al. 2016)."""
    if not smoothing or classes < 2:
        return 0.0
    other = smoothing / classes
    own = 1 - smoothing + other
    return -own * math.log(own) - (classes - 1) * other * math.log(other)


def _floats(array: Array) -> Array:
    return array if array.dtype.kind == "f" else array.astype(np.float64)
