"""The frames of a run: the statistics that each holds, in order, and how one entry is computed from arrays."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np

from nndiag import statistics as st
from nndiag.errors import ShapeError
from nndiag.statistics import Array, Summary

FORWARD = ("mean", "variance", "batch_variance", "min", "max", "zero_fraction", "dead_fraction", "saturated_fraction",
           "nonfinite", "gain")  # fmt: skip
BACKWARD = ("gradient_rms",)
GRADIENT = ("norm", "rms", "max_abs", "zero_fraction", "nonfinite", "identical_rows")
UPDATE = ("weight_norm", "update_norm", "ratio", "descent")
LOSS = ("epoch", "train", "validation")
INPUT = ("mean", "variance", "rms", "min", "max", "nonfinite_fraction", "feature_shift", "shifted_feature",
         "feature_spread", "widest_feature", "constant_fraction", "samples", "nonzero_rms")  # fmt: skip
TARGET = ("mean", "variance", "rms", "min", "max", "nonfinite_fraction", "integer", "width", "classes", "entropy",
          "total_variance", "absolute_deviation")  # fmt: skip
VALIDATION = ("samples", "overlap", "duplicates", "shift", "scale", "label_shift")
OUTPUT = ("rows", "width", "dimensions", "mean", "variance", "min", "max", "zero_fraction", "nonfinite", "row_sum_min",
          "row_sum_max", "column_sum_min", "column_sum_max", "batch_variance", "predicted_classes")  # fmt: skip
OUTPUT_TARGET = ("rows", "width", "dimensions", "mean", "variance", "min", "max", "integer", "row_sum_min",
                 "row_sum_max")  # fmt: skip
OUTPUT_GRADIENT = ("alignment", "gradient_row_sum", "gradient_column_sum", "gradient_sum", "gradient_mass")
BINS = 30
"""Bins of a histogram: as many as TensorBoard draws."""
HISTOGRAM = ("low", "high", *(f"bin{i}" for i in range(BINS)))

FRAMES: dict[str, tuple[str, ...]] = {
    "activations": FORWARD + BACKWARD,
    "gradients": GRADIENT,
    "updates": UPDATE,
    "losses": LOSS,
    "metrics": (),
    "data": tuple(dict.fromkeys((*INPUT, *TARGET, "count"))),
    "outputs": tuple(dict.fromkeys((*OUTPUT, *OUTPUT_TARGET, *OUTPUT_GRADIENT, "squared_error", "count", "hits"))),
    "histograms": HISTOGRAM,
}
"""Every frame with its statistics in order; those of `metrics` are the metrics' own names, `VALIDATION` among them."""

SATURATED = 0.1
"""A unit whose slope stays below a tenth of its largest possible one on average is saturated: |tanh| > 0.95 (the 95 %
level of Glorot & Bengio 2010, figures 2 and 3)."""

MANY_CLASSES = 100
"""Label counts get columns of their own up to this many classes; entropy and the number of classes always."""

SAME_WEIGHTS, SAME_GRADIENTS = 1e-6, 1e-4
"""Rows that agree this well, relative to their largest value, are the same up to the rounding of float32."""


def forward_entry(array: Array, slope: Array | None, dead: float, summary: Summary, signal: float) -> tuple[float, ...]:
    """`FORWARD` of one output (batch, …, units), given its summary, dead fraction and the RMS of what came in."""
    saturated = math.nan if slope is None else float(np.mean(st.unit_means(slope) < SATURATED))
    gain = summary.rms / signal if signal else math.nan
    return (summary.mean, summary.variance, st.batch_variance(array, summary.variance), summary.min, summary.max,
            summary.zero_fraction, dead, saturated, summary.nonfinite, gain)  # fmt: skip


def gradient_entry(array: Array, weights: Array | None, summary: Summary) -> tuple[float, ...]:
    """`GRADIENT` of one parameter; `identical_rows` is 1 where all units share their weights and their gradient."""
    same = weights is not None and st.identical_rows(weights, SAME_WEIGHTS) and st.identical_rows(array, SAME_GRADIENTS)
    return (summary.norm, summary.rms, summary.max_abs, summary.zero_fraction, summary.nonfinite, float(same))


def update_entry(name: str, before: Array, after: Array, gradient: Array | None) -> tuple[float, ...]:
    """`UPDATE` of a parameter that went from `before` to `after`. Raises ShapeError if they differ in shape."""
    if before.shape != after.shape:
        raise ShapeError(f"{name} has shape {before.shape} before the update and {after.shape} after it; give the same")
    with np.errstate(all="ignore"):
        delta = after - before
        uphill = math.nan if gradient is None else float(np.vdot(delta, gradient))
    size, step = st.summarize(before).norm, st.summarize(delta).norm
    return (size, step, step / size if size else math.nan, -math.copysign(1.0, uphill) if uphill else uphill)


def input_entry(summary: Summary, features: st.FeatureMoments) -> tuple[float, ...]:
    """`INPUT` of a batch, its features judged over all batches so far."""
    nonzero = math.sqrt(1 - summary.zero_fraction) if summary.zero_fraction < 1 else math.nan
    return (*_scale(summary), *features.scales(), features.constant_fraction, features.count, summary.rms / nonzero)


def target_entry(y: Array, summary: Summary, labels: Labels) -> tuple[float, ...]:
    """`TARGET` of a batch, its classes and total variance over all batches so far."""
    width = y.shape[1] if y.ndim > 1 else 1
    return (*_scale(summary), integral(y), width, labels.classes, labels.entropy, labels.variance, labels.deviation)


def _scale(s: Summary) -> tuple[float, ...]:
    return (s.mean, s.variance, s.rms, s.min, s.max, s.nonfinite / s.size if s.size else math.nan)


def as_rows(outputs: Array, y: Array | None) -> tuple[Array, Array | None]:
    """Outputs as (samples, units), and targets beside them: ids (samples,) or (samples, columns)."""
    if outputs.ndim < 2:
        outputs = outputs.reshape(-1, 1)
    y = None if y is None else np.atleast_1d(y)
    if outputs.ndim == 2 or y is None:
        return outputs.reshape(-1, outputs.shape[-1]), y
    if y.shape == (outputs.shape[0], *outputs.shape[2:]) != outputs.shape[:-1]:
        outputs = np.moveaxis(outputs, 1, -1)
    rows = outputs.reshape(-1, outputs.shape[-1])
    if y.size == len(rows):
        return rows, y.reshape(-1)
    return rows, y.reshape(-1, y.shape[-1]) if y.size == rows.size else y.reshape(len(y), -1)


def output_entry(outputs: Array, summary: Summary) -> tuple[float, ...]:
    """`OUTPUT` of a batch of network outputs (batch, units) as they go into the loss."""
    rows = outputs.reshape(len(outputs), -1)
    row_sums, column_sums = _sums(rows)
    classes = len(np.unique(rows.argmax(axis=1))) if rows.shape[1] > 1 else math.nan
    return (len(rows), rows.shape[1], outputs.ndim, summary.mean, summary.variance, summary.min, summary.max,
            summary.zero_fraction, summary.nonfinite, row_sums.min(), row_sums.max(), column_sums.min(), column_sums.max(),
            st.batch_variance(rows, summary.variance), classes)  # fmt: skip


def output_target_entry(y: Array, summary: Summary) -> tuple[float, ...]:
    """`OUTPUT_TARGET` of a batch of targets as they go into the loss."""
    sums, _ = _sums(y.reshape(len(y), -1))
    return (len(y), y.shape[1] if y.ndim > 1 else 1, y.ndim, summary.mean, summary.variance, summary.min, summary.max,
            integral(y), sums.min(), sums.max())  # fmt: skip


def output_gradient_entry(gradient: Array, toward: Array | None) -> tuple[float, ...]:
    """`OUTPUT_GRADIENT` of δ, the gradient of the loss with respect to the outputs (batch, units).

    `alignment` is the cosine between −δ and `toward`, a direction in which the outputs approach the targets; the sums over
    rows and columns are the largest, over the largest sum of magnitudes; `gradient_sum` is the norm of δ summed over the
    batch, which is the gradient of a bias there; `gradient_mass` is the sum of all magnitudes.
    """
    rows = gradient.reshape(len(gradient), -1).astype(np.float64)
    row_sums, column_sums = _sums(rows)
    size = np.abs(rows)
    along = math.nan
    if toward is not None and toward.shape == rows.shape:
        along = -_over(float(np.vdot(rows, toward)), float(np.linalg.norm(rows) * np.linalg.norm(toward)))
    return (along, _over(float(np.abs(row_sums).max()), float(size.sum(axis=1).max())),
            _over(float(np.abs(column_sums).max()), float(size.sum(axis=0).max())),
            float(np.linalg.norm(column_sums)), float(size.sum()))  # fmt: skip


def _over(part: float, whole: float) -> float:
    return part / whole if whole > 0 else math.nan


def _sums(rows: Array) -> tuple[Array, Array]:
    """Sums over each row and over each column, in float64."""
    with np.errstate(all="ignore"):
        return rows.sum(axis=1, dtype=np.float64), rows.sum(axis=0, dtype=np.float64)


def toward(outputs: Array, y: Array, task: str) -> Array | None:
    """A direction (batch, units) from `outputs` towards targets `y`; None where the two do not fit each other."""
    if task == "classes" and outputs.shape[1] > 1:
        known = class_ids(y, outputs.shape[1])
        return None if known is None else np.eye(outputs.shape[1])[known] - 1 / outputs.shape[1]
    if y.size != outputs.size or task not in ("binary", "real", "classes"):
        return None
    centre = outputs if task == "real" else 0.5
    return np.asarray(y.reshape(outputs.shape) - centre, np.float64)


def class_ids(y: Array, classes: int) -> Array | None:
    """Class of each target: ids (batch,) or (batch, 1) as they are, rows (batch, classes) by their largest; None else."""
    if y.ndim == 2 and y.shape[1] == classes > 1:
        return np.asarray(y.argmax(axis=1))
    ids = y.reshape(-1) if y.ndim == 1 or y.shape[1:] == (1,) else None
    if ids is None or not integral(ids) or ids.min(initial=0) < 0 or ids.max(initial=0) >= max(classes, 2):
        return None
    return ids.astype(np.intp)


def squared_error(outputs: Array, y: Array) -> float:
    """Mean of (output − target)², pair by pair; NaN where there are not as many of each."""
    if y.size != outputs.size:
        return math.nan
    return float(np.mean(np.square(outputs.reshape(-1).astype(np.float64) - y.reshape(-1))))


def predicted(outputs: Array, threshold: float) -> Array | None:
    """Class that each row of outputs (batch, units) names: its largest unit, or whether its only one is above `threshold`.

    None for more than `MANY_CLASSES` units.
    """
    if outputs.ndim != 2 or not 1 <= outputs.shape[1] <= MANY_CLASSES:
        return None
    return np.asarray(outputs.argmax(axis=1) if outputs.shape[1] > 1 else (outputs[:, 0] > threshold).astype(np.intp))


def histogram_entry(array: Array) -> tuple[float, ...] | None:
    """`HISTOGRAM` of the finite values: bounds and counts of equal bins between them; None without finite values."""
    values = array.ravel()
    values = values[np.isfinite(values)].astype(np.float64)
    if not len(values):
        return None
    low, high = float(values.min()), float(values.max())
    if not low / 2 < high / 2:
        pad = max(abs(low), 1.0) / 2
        low, high = low - pad, high + pad
    half = high / 2 - low / 2  # halves, since the whole range of ±1e308 is not a number
    places = ((values / 2 - low / 2) / half * BINS).astype(int)
    counts = np.bincount(np.minimum(places, BINS - 1), minlength=BINS)
    return (low, high, *counts.tolist())


def integral(y: Array) -> float:
    """1 where every value is a whole number, else 0."""
    return float(y.dtype.kind in "iub" or bool(np.all(np.isfinite(y) & (y == np.rint(y)))))


class Labels:
    """Targets over all batches so far: classes and their entropy in nats, and the variance of real values.

    Targets are class ids (batch,), one-hot rows or probabilities (batch, classes), or with `binary` independent 0/1
    columns (batch, labels), whose entropy is the mean over columns.
    """

    MOST = 10_000
    """Distinct whole numbers beyond which targets are counts or prices rather than class ids."""

    def __init__(self) -> None:
        self.latest: Counter[int] = Counter()
        self._total: Counter[int] = Counter()
        self._samples = 0
        self._binary = False
        self._deviation = 0.0
        self._moments: st.FeatureMoments | None = None

    def add(self, y: Array, *, binary: bool) -> None:
        """Take in the targets of a batch."""
        columns = y.reshape(len(y), -1) if y.ndim > 1 else y.reshape(-1, 1)
        if columns.shape[1] > 1 and not binary and integral(columns) and columns.max(initial=0) > 1:
            columns = columns.reshape(-1, 1)  # ids of a sequence or an image
        if self._moments is None or len(self._moments.mean) != columns.shape[1]:
            self._moments = st.FeatureMoments(columns.shape[1])
        self._moments.add(columns)
        self._samples += len(columns)
        with np.errstate(all="ignore"):
            self._deviation += len(columns) * float(np.mean(np.abs(columns - self._moments.mean)))
        self._binary = binary
        self.latest = Counter(_label_counts(columns))
        if len(self._total) <= self.MOST:
            self._total += self.latest

    @property
    def seen(self) -> list[int]:
        """The classes seen so far, in order."""
        return sorted(self._total)

    @property
    def classes(self) -> float:
        """Number of classes seen; NaN where targets are not classes."""
        return sum(count > 0 for count in self._total.values()) if self._known else math.nan

    @property
    def entropy(self) -> float:
        """Entropy of the labels in nats: the cross-entropy of always predicting their frequencies; NaN if not classes."""
        if self._binary and self._moments is not None and _within_unit(self._moments):
            p = np.stack([self._moments.mean, 1 - self._moments.mean])
            return float(-np.sum(p * np.log(np.where(p > 0, p, 1.0)), axis=0).mean())
        if not self._known:
            return math.nan
        shares = np.array([count for count in self._total.values() if count > 0]) / sum(self._total.values())
        return float(-(shares * np.log(shares)).sum())

    @property
    def variance(self) -> float:
        """Variance of each target column over samples, averaged: the squared error of always predicting the means."""
        return (
            float(np.mean(self._moments.m2 / self._moments.count))
            if self._moments and self._moments.count
            else math.nan
        )

    @property
    def deviation(self) -> float:
        """Mean distance of each target from the mean so far: about the absolute error of always predicting the mean."""
        return self._deviation / self._samples if self._samples else math.nan

    def shares(self) -> dict[int, float]:
        """Share of each class among all samples so far; empty where targets are not classes."""
        total = sum(self._total.values())
        return {label: count / total for label, count in self._total.items()} if self._known else {}

    @property
    def _known(self) -> bool:
        return 0 < len(self._total) <= self.MOST


def _label_counts(columns: Array) -> dict[int, int]:
    """Samples of each class in ids (n, 1) or rows that sum to one (n, classes); empty for real targets."""
    if columns.shape[1] == 1:
        if not integral(columns):
            return {}
        ids, counts = np.unique(columns, return_counts=True)
        return dict(zip(ids.astype(int).tolist(), counts.tolist(), strict=True))
    if np.all(columns >= 0) and np.allclose(columns.sum(axis=1), 1.0, atol=1e-3):
        return dict(enumerate(np.bincount(columns.argmax(axis=1), minlength=columns.shape[1]).tolist()))
    return {}


def _within_unit(moments: st.FeatureMoments) -> bool:
    return bool(moments.count and moments.min.min() >= 0 and moments.max.max() <= 1)
