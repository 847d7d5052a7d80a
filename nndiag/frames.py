"""The frames of a run: the statistics that each holds, in order, and how one entry is computed from arrays."""

from __future__ import annotations

import itertools
import math

import numpy as np

from nndiag import statistics as st
from nndiag.labels import integral
from nndiag.statistics import Array, Summary

FORWARD = ("mean", "variance", "batch_variance", "min", "max", "zero_fraction", "dead_fraction", "saturated_fraction",
           "nonfinite", "gain")  # fmt: skip
BACKWARD = ("gradient_rms",)
NORM = ("norm", "rms", "nonfinite")
EXTREMES = ("max_abs", "zero_fraction", "identical_rows")
CLIPPED_NORM = ("clipped_norm",)
GRADIENT = ("norm", "rms", "max_abs", "zero_fraction", "nonfinite", "identical_rows", "clipped_norm")
UPDATE = ("weight_norm", "update_norm", "ratio", "descent")
LOSS = ("epoch", "train", "validation")
INPUT = ("mean", "variance", "rms", "min", "max", "nonfinite_fraction", "feature_shift", "shifted_feature",
         "feature_spread", "widest_feature", "constant_fraction", "samples", "nonzero_rms",
         "examined", "distinct", "code_feature", "code", "code_fraction", "code_spread")  # fmt: skip
"""The last six are of the first samples, one by one: how many were looked at and are different, and of a feature with a code for
what is missing its number, the code, the share of the samples that have it, and the spread of the others over that of all."""
TARGET = ("mean", "variance", "rms", "min", "max", "nonfinite_fraction", "integer", "width", "classes", "entropy",
          "total_variance", "absolute_deviation", "leak_left", "leak_feature", "leak_steps",
          "code", "code_fraction", "code_spread")  # fmt: skip
"""The last six are of the first samples: the share of the variance that a single feature leaves, that feature, and of how many
steps it is the last, 0 where samples are rows of a table; and of single targets with a code for what is missing what is said of
such a feature."""
MOVED = ("shift", "scale")
SHARED = ("samples", "overlap", "duplicates", "distinct")
VALIDATION = (*SHARED, *MOVED, "label_shift", "awakened", "target_mean")
"""How the validation set compares with the training samples so far: `MOVED` and `SHARED` also of passes that are no training and
of which it is not known whose samples they are."""
DROPPED = ("dropped",)
"""The share of values that dropout takes out of an evaluation."""
OUTPUT = ("rows", "width", "dimensions", "mean", "variance", "min", "max", "zero_fraction", "nonfinite", "row_sum_min",
          "row_sum_max", "column_sum_min", "column_sum_max", "batch_variance", "predicted_classes")  # fmt: skip
OUTPUT_TARGET = ("rows", "width", "dimensions", "mean", "variance", "min", "max", "integer", "row_sum_min",
                 "row_sum_max")  # fmt: skip
OUTPUT_GRADIENT = ("alignment", "gradient_row_sum", "gradient_column_sum", "gradient_sum", "gradient_mass")
MOMENTS = ("mean", "variance")
"""What is recorded of activations where nothing more is wanted."""
SQUARED_ERROR, TERM, COUNT, NONFINITE = ("squared_error",), ("term",), ("count",), ("nonfinite",)
SAMPLED = 1 << 12
"""Values of one tensor that make a histogram: shares of bins are then right to 1.5 % with 95 % confidence."""
BINS = 30
"""Bins of a histogram: as many as TensorBoard draws."""
HISTOGRAM = ("low", "high", *(f"bin{i}" for i in range(BINS)))
LOOP = ("backward_passes", "updates", "skipped_updates", "gradients_kept", "evaluation_mode", "loss_scale")
"""What a loop did in one iteration, as an adapter saw it: backward passes; steps of the optimiser (0 where none was made);
steps that a gradient scaler left out; 1 if gradients of before, of an optimiser that stepped, were still there when each of its
backward passes began; 1 if a pass that a backward pass followed was made in evaluation mode; the factor on the loss, 1 without a
gradient scaler."""
EVALUATION = ("training_mode",)
"""Of the row that holds a validation: 1 if all passes without gradients since the one before were made in training mode."""

FRAMES: dict[str, tuple[str, ...]] = {
    "activations": FORWARD + BACKWARD,
    "gradients": GRADIENT,
    "updates": UPDATE,
    "losses": LOSS,
    "metrics": (),
    "evaluations": (*VALIDATION, *DROPPED),
    "data": tuple(dict.fromkeys((*INPUT, *TARGET, "count"))),
    "outputs": tuple(
        dict.fromkeys((*OUTPUT, *OUTPUT_TARGET, *OUTPUT_GRADIENT, "squared_error", "term", "count", "hits"))
    ),
    "histograms": HISTOGRAM,
    "loop": LOOP + EVALUATION,
}
"""Every frame with its statistics in order; those of `metrics` are the metrics' own names, and what `OWN` lists."""

OWN = ("nonfinite", "logged_loss")
"""Columns of `metrics` that nobody else may log: how many values of a step were not finite, and losses told now and then that
are no losses of their step."""

SATURATED = 0.1
"""A unit whose slope stays below a tenth of its largest possible one on average is saturated: |tanh| > 0.95 (the 95 %
level of Glorot & Bengio 2010, figures 2 and 3)."""

MANY_CLASSES = 100
"""Label counts get columns of their own up to this many classes; entropy and the number of classes always."""

SAME_WEIGHTS, SAME_GRADIENTS = 1e-6, 1e-4
"""Rows that agree this well, relative to their largest value, are the same up to the rounding of float32."""


def saturated_fraction(slope: Array | None) -> float:
    """Share of units whose `slope` (batch, …, units) over its largest possible one is small; NaN without slopes."""
    if slope is None:
        return math.nan
    rows = st.as_rows(slope)
    return float(np.mean(st.unit_sums(rows) < SATURATED * len(rows)))


def scale(s: Summary) -> tuple[float, ...]:
    """Mean, variance, RMS, extremes and share of non-finite values of a batch, as `INPUT` and `TARGET` begin."""
    return (s.mean, s.variance, s.rms, s.min, s.max, s.nonfinite / s.size if s.size else math.nan)


def as_samples(outputs: Array, y: Array | None) -> tuple[Array, Array | None]:
    """Outputs as (samples, units), and targets beside them: ids (samples,) or (samples, columns)."""
    if outputs.ndim < 2:
        outputs = outputs.reshape(-1, 1)
    if not outputs.size:
        return outputs.reshape(0, max(1, outputs.shape[-1])), y
    y = None if y is None else np.atleast_1d(y)
    if outputs.ndim == 2 or y is None:
        return outputs.reshape(-1, outputs.shape[-1]), y
    if y.shape == (outputs.shape[0], *outputs.shape[2:]) != outputs.shape[:-1]:
        outputs = np.moveaxis(outputs, 1, -1)
    rows = outputs.reshape(-1, outputs.shape[-1])
    if y.size == len(rows):
        return rows, y.reshape(-1)
    return rows, y.reshape(-1, y.shape[-1]) if y.size == rows.size else y.reshape(len(y), -1)


def output_entry(outputs: Array, threshold: float) -> tuple[tuple[float, ...], Array | None, int]:
    """`OUTPUT` of network outputs (batch, units), the class that each row names, and how many values are not finite.

    A single unit names class 1 above `threshold`.
    """
    rows = st.as_rows(outputs)
    summary, columns, batch_variance = st.summarize_units(rows)
    named = rows.argmax(axis=1) if rows.shape[1] > 1 else (rows[:, 0] > threshold).astype(np.intp)
    sums = row_sums(rows)
    classes = float(np.count_nonzero(np.bincount(named))) if rows.shape[1] > 1 else math.nan
    entry: tuple[float, ...] = (len(rows), rows.shape[1], outputs.ndim, summary.mean, summary.variance, summary.min, summary.max,
             summary.zero_fraction, summary.nonfinite, *st.bounds(sums), *st.bounds(columns), batch_variance,
             classes)  # fmt: skip
    return entry, named, summary.nonfinite


def output_target_entry(y: Array) -> tuple[float, ...]:
    """`OUTPUT_TARGET` of a batch of targets as they go into the loss."""
    summary = st.summarized(y)
    low, high = (summary.min, summary.max)
    if y.ndim > 1 and y.shape[1] > 1:
        sums = row_sums(st.as_rows(y.reshape(len(y), -1)))
        low, high = st.bounds(sums)
    return (len(y), y.shape[1] if y.ndim > 1 else 1, y.ndim, summary.mean, summary.variance, summary.min, summary.max,
            integral(y), low, high)  # fmt: skip


def output_gradient_entry(gradient: Array, toward: Array | None, ids: Array | None) -> tuple[float, ...]:
    """`OUTPUT_GRADIENT` of δ, the gradient of the loss with respect to the outputs (batch, units).

    `alignment` is the cosine between −δ and `toward`, a direction in which the outputs approach the targets, or with class
    `ids` the direction one-hot − 1 / units; the sums over rows and columns are the largest, over the largest sum of
    magnitudes; `gradient_sum` is the norm of δ summed over the batch, which is the gradient of a bias there;
    `gradient_mass` is the sum of all magnitudes.
    """
    rows = st.as_rows(gradient.reshape(len(gradient), -1))
    size = np.abs(rows)
    sums, columns = row_sums(rows), st.unit_sums(rows)
    sizes, column_sizes = row_sums(size), st.unit_sums(size)
    norm = math.sqrt(st.sum_of_squares(rows.reshape(-1)))
    along = math.nan
    if ids is not None and len(ids) == len(rows):
        hit = st.total(rows[np.arange(len(rows)), ids]) - st.total(columns) / rows.shape[1]
        along = -_over(hit, norm * math.sqrt(len(rows) * (1 - 1 / rows.shape[1])))
    elif toward is not None and toward.shape == rows.shape:
        along = -_over(float(np.vdot(rows, toward)), norm * float(np.linalg.norm(toward)))
    return (along, _over(_largest(sums), _largest(sizes)), _over(_largest(columns), _largest(column_sizes)),
            math.sqrt(float(columns.dot(columns))), st.total(sizes))  # fmt: skip


def _largest(values: Array) -> float:
    low, high = st.bounds(values)
    return max(abs(low), abs(high))


def _over(part: float, whole: float) -> float:
    return part / whole if whole > 0 else math.nan


def row_sums(rows: Array) -> Array:
    """Sum of each row (n,) of float rows (n, units)."""
    if rows.shape[1] <= st.MANY_ROWS:
        return np.asarray(rows.dot(st.ones(rows.shape[1], rows.dtype)))
    return np.asarray(np.add.reduce(rows, axis=1, dtype=np.float64))


def histogram_entry(array: Array) -> tuple[float, ...] | None:
    """`HISTOGRAM` of the finite values: bounds and counts of equal bins between them; None without finite values.

    Of more than `SAMPLED` values evenly spaced ones are taken, every k-th with k prime to the width: a histogram is a picture.
    """
    values = array.ravel()
    if values.size > SAMPLED:
        values = values[:: stride(values.size // SAMPLED, array.shape[-1])]
    low, high = st.bounds(values) if len(values) else (math.nan, math.nan)
    if not (math.isfinite(low) and math.isfinite(high)):
        values = values[np.isfinite(values)]
        if not len(values):
            return None
        low, high = st.bounds(values)
    low, high, values = float(low), float(high), values.astype(np.float64)
    if not low / 2 < high / 2:
        pad = max(abs(low), 1.0) / 2
        low, high = low - pad, high + pad
    values *= 0.5  # halves, since the whole range of ±1e308 is not a number
    values -= low / 2
    values /= high / 2 - low / 2
    values *= BINS
    counts = np.bincount(values.astype(np.int32), minlength=BINS).tolist()  # to int32 in an eighth of the time of int64
    return (low, high, *counts[: BINS - 1], sum(counts[BINS - 1 :]))  # the largest value lies on the last edge


def stride(least: int, width: int) -> int:
    """The first number from `least` on that shares no factor with `width`, so that all columns are met."""
    return next(k for k in itertools.count(max(1, least)) if math.gcd(k, width) == 1)
