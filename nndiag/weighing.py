"""What a loss multiplies the samples of each class with, measured by the gradient of its outputs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from nndiag import frames
from nndiag import statistics as st
from nndiag.statistics import Array

WEIGHTED = ("weight", "weights", "class_weight", "class_weights", "pos_weight", "sample_weight")
"""Keys of a loss that say it weights its samples: the entropy of the labels is no measure for it."""

LOOKS, AGREE = 50, 2
"""Reads after which nothing more is looked at, and reads with all classes after which they are known."""

CLOSE = 0.02
"""Relative distance up to which weights of one class are the same, and above which one differs from 1."""

APART = 1e-3
"""How far a probability must be from 0 and 1 for its error to be measured: losses clip what is nearer."""


class Weighing:
    """Finds the weights of classes in a loss that says nothing of them, such as one that a user has written.

    What the gradient of the outputs is, over what that of a plain mean would be, is the weight of each sample. Where it is the
    same within each class, those of the classes are told, unless all are 1; n for each is a sum over n samples. Else the loss
    is of another kind.
    """

    def __init__(self) -> None:
        self._looks = self._whole = 0
        self._known: dict[int, float] = {}
        self._plain: tuple[list[Array], Array, int] | None = None

    def outputs(self, outputs: Array, targets: Array | None, loss: Mapping[str, object]) -> None:
        """What goes into the loss in this step; what is made of it is kept until the gradient comes."""
        self._plain = None
        if self._looks < LOOKS and targets is not None:
            self._looks += 1
            self._plain = _plain(*frames.as_samples(outputs, targets), loss)

    def gradient(self, gradient: Array) -> list[float] | None:
        """The weights of the classes by their ids, with the gradient (batch, units) of the outputs, once they are known."""
        plain, self._plain = self._plain, None
        if plain is None or len(plain[1]) not in (gradient.size, len(np.atleast_1d(gradient))):
            return None
        forms, ids, classes = plain
        own = gradient.reshape(-1)
        own = own if own.size == len(ids) else gradient.reshape(len(ids), -1)[np.arange(len(ids)), ids]
        off, weights = min((_by_class(own / form, ids) for form in forms), key=lambda found: found[0])
        changed = any(abs(self._known.get(label, w) - w) > CLOSE * w for label, w in weights.items())
        self._known |= weights
        self._whole += len(self._known) == classes
        if off > CLOSE or changed or self._whole >= AGREE:
            self._looks = LOOKS  # known, or of another kind
        if off > CLOSE or changed or self._whole < AGREE:
            return None
        found = [round(self._known[label], 6) for label in range(classes)]
        return found if any(abs(weight - 1) > CLOSE for weight in found) else None


def _by_class(weights: Array, ids: Array) -> tuple[float, dict[int, float]]:
    """How far the weights of samples differ within a class, relatively, and the middle one of each class; NaN is not measured."""
    off, middle = 0.0, {}
    for label in np.unique(ids[np.isfinite(weights)]).tolist():
        own = weights[(ids == label) & np.isfinite(weights)]
        middle[label] = float(np.median(own))
        off = max(off, float(np.ptp(own)) / middle[label] if middle[label] > 0 else np.inf)
    return off, middle


def _plain(rows: Array, y: Array | None, loss: Mapping[str, object]) -> tuple[list[Array], Array, int] | None:
    """What the gradient of a plain mean may be, of the right class of each sample or of each label; these; their number.

    It is (p - 1) / n for the logit of the right class and (p - y) / n for that of a label; with respect to a probability both
    over p (1 - p) (Bishop 2006, section 4.3), and where the loss divides each row by its sum, the one of the logit over p.
    """
    if y is None or loss.get("label_smoothing") or loss.get("expects") not in ("logits", "probabilities"):
        return None
    z, logits = st.as_rows(rows).astype(np.float64), loss.get("expects") == "logits"
    binary = loss.get("task") == "binary"
    classes = 2 if binary else z.shape[1]
    if not (binary and y.size == z.size) and not (loss.get("task") == "classes" and classes > 1):
        return None
    ids = frames.class_ids(y.reshape(-1) if binary else y, classes)
    if ids is None or (not binary and len(ids) != len(z)):
        return None
    with np.errstate(all="ignore"):
        if binary:
            p = (1 / (1 + np.exp(-z)) if logits else z).reshape(-1)
        else:
            p = np.exp(z - z.max(axis=1, keepdims=True)) if logits else z
            p = (p / p.sum(axis=1, keepdims=True) if logits else p)[np.arange(len(z)), ids]
        p = np.where((p > APART) & (p < 1 - APART), p, np.nan)
        error = (p - ids if binary else p - 1) / len(ids)
        if logits:
            return [error], ids, classes
        return [error / (p * (1 - p)), *([] if binary else [error / p])], ids, classes
