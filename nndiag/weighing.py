"""What a loss multiplies the samples of each class with, measured by the gradient of its outputs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from nndiag import frames, losses
from nndiag import statistics as st
from nndiag.statistics import Array

LOOKS, AGREE = 50, 2
"""Reads after which nothing more is looked at, and reads with all classes after which they are known."""

CLOSE = 0.02
"""Relative distance up to which weights of one class are the same, and above which one differs from 1."""

TWICE = 1.9
"""Times that the number of a loss is off its weighed mean above which the gradient alone has that factor: 1/2, or 2, at least."""

APART = 1e-3
"""How far a probability must be from 0 and 1 for its error to be measured: losses clip what is nearer."""


class Weighing:
    """Finds the weights of classes in a loss that says nothing of them, such as one that a user has written.

    What the gradient of the outputs is, over what that of a plain mean would be, is the weight of each sample. Where it is the
    same within each class, those of the classes are told, unless all are 1; n for each is a sum over n samples. Else the loss
    is of another kind. A factor that the gradient has and the number of the loss has not, as where each of four parts of a
    batch is divided by 4, is none of the loss's.
    """

    def __init__(self) -> None:
        self._looks = self._whole = 0
        self._known: dict[int, float] = {}
        self._plain: _Plain | None = None
        self._number = math.nan
        self.found: _Found | None = None
        """What the gradients of this step have shown, until the step is over."""

    def outputs(
        self, outputs: Array, targets: Array | None, loss: Mapping[str, object], number: float = math.nan
    ) -> None:
        """What goes into the loss in this step, and its number if that is known; kept until the gradient comes."""
        self._plain, self._number = None, number
        if self._looks < LOOKS and targets is not None and not _is_told(loss):
            self._looks += 1
            self._plain = _plain(*frames.as_samples(outputs, targets), loss)

    def gradient(self, gradient: Array) -> None:
        """The gradient (batch, units) of the outputs."""
        plain, self._plain = self._plain, None
        if plain is None or len(plain.ids) not in (gradient.size, len(np.atleast_1d(gradient))):
            return
        ids, classes = plain.ids, plain.classes
        own = gradient.reshape(-1)
        own = own if own.size == len(ids) else gradient.reshape(len(ids), -1)[np.arange(len(ids)), ids]
        off, weights = min((_by_class(own / form, ids) for form in plain.gradients), key=lambda found: found[0])
        changed = any(abs(self._known.get(label, w) - w) > CLOSE * w for label, w in weights.items())
        self._known |= weights
        self._whole += len(self._known) == classes
        if off > CLOSE or changed or self._whole >= AGREE:
            self._looks = LOOKS  # known, or of another kind
        if off <= CLOSE and not changed and self._whole >= AGREE:
            found = np.array([self._known[label] for label in range(classes)])
            self.found = _Found(found, float(np.mean(found[ids] * plain.costs)))

    def step(self, numbers: Sequence[float]) -> list[float] | None:
        """The step is over, with these `numbers` of its loss: the weights of the classes by their ids, once they are known."""
        if self.found is None:
            return None
        (found, whole), self.found = self.found, None
        number = numbers[-1] if numbers else self._number
        times = number / whole if whole > 0 else math.nan  # of outputs that are all right, 0
        if 0 < times <= 1 / TWICE or TWICE <= times < math.inf:
            if np.ptp(found) <= CLOSE * found.min():
                return None
            found *= times
        return np.round(found, 6).tolist() if (abs(found - 1) > CLOSE).any() else None


class _Found(NamedTuple):
    """The weights of the classes as gradients have them, and the mean loss that these make of the samples."""

    weights: Array
    loss: float


class _Plain(NamedTuple):
    """What a plain mean over the samples, or over the labels where there are several, would be made of."""

    gradients: list[Array]
    """What its gradient may be, of the right class of each sample or of each label: one for each way to write the loss."""

    costs: Array
    ids: Array
    classes: int


def _is_told(loss: Mapping[str, object]) -> bool:
    """Whether all is known of how the loss weights its samples: its weights, or one factor for each of a mean or sum."""
    factor = loss.get("scale", 1.0 if "reduction" in loss else None)
    return factor is not None or any(loss.get(key) is not None for key in losses.WEIGHTED)


def _by_class(weights: Array, ids: Array) -> tuple[float, dict[int, float]]:
    """How far the weights of samples differ within a class, relatively, and the middle one of each class; NaN is not measured."""
    off, middle = 0.0, {}
    for label in np.unique(ids[np.isfinite(weights)]).tolist():
        own = weights[(ids == label) & np.isfinite(weights)]
        middle[label] = float(np.median(own))
        off = max(off, float(np.ptp(own)) / middle[label] if middle[label] > 0 else np.inf)
    return off, middle


def _plain(rows: Array, y: Array | None, loss: Mapping[str, object]) -> _Plain | None:
    """The plain mean of such a loss; None where it is of another kind.

    Its gradient is (p - 1) / n for the logit of the right class and (p - y) / n for that of a label; with respect to a
    probability both over p (1 - p) (Bishop 2006, section 4.3), and where the loss divides each row by its sum, the one of the
    logit over p.
    """
    if y is None or loss.get("label_smoothing") or loss.get("expects") not in ("logits", "probabilities"):
        return None
    z, logits = st.as_rows(rows).astype(np.float64), loss.get("expects") == "logits"
    binary = loss.get("task") == "binary"
    classes = 2 if binary else z.shape[1]
    if not (binary and y.size == z.size) and not (loss.get("task") == "classes" and classes > 1):
        return None
    ids = losses.class_ids(y.reshape(-1) if binary else y, classes)
    if ids is None or (not binary and len(ids) != len(z)):
        return None
    with np.errstate(all="ignore"):
        if binary:
            p = (1 / (1 + np.exp(-z)) if logits else z).reshape(-1)
            right = np.where(ids == 1, p, 1 - p)
        else:
            p = np.exp(z - z.max(axis=1, keepdims=True)) if logits else z
            p = right = (p / p.sum(axis=1, keepdims=True) if logits else p)[np.arange(len(z)), ids]
        costs = -np.log(np.clip(right, losses.CLIPPED, 1))
        p = np.where((p > APART) & (p < 1 - APART), p, np.nan)
        error = (p - ids if binary else p - 1) / len(ids)
        gradients = [error] if logits else [error / (p * (1 - p)), *([] if binary else [error / p])]
    return _Plain(gradients, costs, ids, classes)
