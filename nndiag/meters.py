"""Meters: each turns the arrays of one layer, one parameter or one batch into its values of a frame's row.

A meter keeps what its statistics need from step to step, and its place in the row; an array it reads at once and forgets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from nndiag import frames
from nndiag import statistics as st
from nndiag.errors import NndiagError, ShapeError
from nndiag.labels import Labels, integral
from nndiag.statistics import Array, Summary
from nndiag.table import Buffer

if TYPE_CHECKING:
    from nndiag.measured import Magnitude, Output, Update


class ActivationMeter:
    """What one layer puts out, and δ, the gradient that flows back to it; passes of one step are merged."""

    def __init__(self, name: str, buffer: Buffer) -> None:
        self._name, self._buffer = name, buffer
        self._activity = st.UnitActivity(0)
        self._merged: Summary | None = None
        self._sums: Array | None = None
        self._gradient: tuple[float, int] | None = None

    def begin_step(self) -> None:
        """What comes next belongs to a new row."""
        self._merged = self._sums = self._gradient = None

    def turn(self) -> None:
        """An epoch begins."""
        self._activity.turn()

    def forward(self, array: Array, slope: Array | None, signal: float) -> Summary:
        """`FORWARD` of an output (batch, …, units), given the RMS of what came in; the summary of this array alone."""
        rows = st.as_rows(array)
        summary, sums, batch_variance = st.summarize_units(rows)
        whole = summary
        if self._merged is not None:
            whole, batch_variance = self._merge(self._merged, summary, sums)
        self._merged, self._sums = whole, sums
        count = whole.count or math.nan
        self._buffer.put(self._name, frames.FORWARD, (
            whole.mean, whole.m2 / count, batch_variance, whole.min, whole.max, whole.zeros / count,
            self._dead(rows, sums, summary.min), math.nan if slope is None else frames.saturated_fraction(slope), whole.nonfinite,
            summary.rms / signal if signal else math.nan,
        ))  # fmt: skip
        return summary

    def _merge(self, before: Summary, summary: Summary, sums: Array) -> tuple[Summary, float]:
        """Both passes together, and their variance over inputs; `sums` becomes those of both."""
        whole = before | summary
        if self._sums is None or len(self._sums) != len(sums):
            return whole, math.nan
        sums += self._sums
        return whole, st.within_units(whole, sums)

    def _dead(self, rows: Array, sums: Array, low: float) -> float:
        if len(sums) != self._activity.units:
            self._activity = st.UnitActivity(len(sums))
        return self._activity.add(st.silent_units(rows, sums, low), len(rows)) if rows.size else math.nan

    def moments(self, array: Array) -> None:
        """Mean and variance alone."""
        mean, variance = st.moments(array)
        self._buffer.put(self._name, frames.MOMENTS, (mean, variance))

    def backward(self, array: Array) -> int:
        """`BACKWARD` of δ; how many of its values are not finite."""
        norm, count, nonfinite = st.magnitude(array)
        if self._gradient is not None:
            norm, count = math.hypot(norm, self._gradient[0]), count + self._gradient[1]
        self._gradient = norm, count
        self._buffer.put(self._name, frames.BACKWARD, (norm / math.sqrt(count) if count else math.nan,))
        return nonfinite

    def measured(self, output: Output, signal: float) -> None:
        """`FORWARD` of an output that was measured elsewhere."""
        whole, within = output.summary, output.within
        if self._merged is not None:
            whole, within = self._merge(self._merged, whole, output.sums)
        self._merged, self._sums = whole, output.sums
        count = whole.count or math.nan
        self._buffer.put(self._name, frames.FORWARD, (
            whole.mean, whole.m2 / count, within, whole.min, whole.max, whole.zeros / count, self._measured_dead(output),
            output.saturated, whole.nonfinite, output.summary.rms / signal if signal else math.nan,
        ))  # fmt: skip

    def _measured_dead(self, output: Output) -> float:
        if len(output.sums) != self._activity.units:
            self._activity = st.UnitActivity(len(output.sums))
        silent = output.silent if output.silent.any() else None
        return self._activity.add(silent, output.samples) if output.samples else math.nan

    def measured_moments(self, output: Output) -> None:
        """Mean and variance alone of an output that was measured elsewhere."""
        self._buffer.put(self._name, frames.MOMENTS, (output.summary.mean, output.summary.variance))

    def measured_gradient(self, gradient: Magnitude) -> None:
        """`BACKWARD` of a δ that was measured elsewhere."""
        norm, count = gradient.norm, gradient.count
        if self._gradient is not None:
            norm, count = math.hypot(norm, self._gradient[0]), count + self._gradient[1]
        self._gradient = norm, count
        self._buffer.put(self._name, frames.BACKWARD, (norm / math.sqrt(count) if count else math.nan,))


class GradientMeter:
    """The gradient of one parameter, before clipping."""

    def __init__(self, name: str, buffer: Buffer) -> None:
        self._name, self._buffer = name, buffer

    def norm(self, array: Array) -> int:
        """`NORM`; how many values are not finite."""
        norm, count, nonfinite = st.magnitude(array)
        rms = norm / math.sqrt(count) if count else math.nan
        self._buffer.put(self._name, frames.NORM, (norm if count or not nonfinite else math.nan, rms, nonfinite))
        return nonfinite

    def extremes(self, array: Array, weights: Array | None) -> None:
        """`EXTREMES`; `identical_rows` is 1 where all units share their weights and their gradient."""
        low, high, zeros, count = st.finite_extremes(st.flattened(array))
        max_abs = max(-low, high)
        same = weights is not None and _identical_units(array, weights, max_abs)
        self._buffer.put(self._name, frames.EXTREMES, (max_abs, zeros / count if count else math.nan, float(same)))

    def measured(self, gradient: Magnitude) -> None:
        """`NORM` of a gradient that was measured elsewhere."""
        norm, count = gradient.norm, gradient.count
        rms = norm / math.sqrt(count) if count else math.nan
        known = norm if count or not gradient.nonfinite else math.nan
        self._buffer.put(self._name, frames.NORM, (known, rms, gradient.nonfinite))

    def measured_extremes(self, gradient: Magnitude, *, same: bool) -> None:
        """`EXTREMES` of a gradient that was measured elsewhere."""
        share = gradient.zeros / gradient.count if gradient.count else math.nan
        self._buffer.put(self._name, frames.EXTREMES, (gradient.largest, share, float(same)))


def _identical_units(gradient: Array, weights: Array, max_abs: float) -> bool:
    """Whether all rows of a weight and of its gradient, whose largest magnitude is known, are the same."""
    if gradient.ndim < 2 or len(gradient) < 2 or not gradient.size:
        return False
    if abs(gradient.item(0) - gradient.item(gradient.size // len(gradient))) > frames.SAME_GRADIENTS * max_abs:
        return False  # the first two rows differ in their first value
    same = st.identical_rows(weights, frames.SAME_WEIGHTS)
    return same and st.identical_rows(gradient, frames.SAME_GRADIENTS)


class UpdateMeter:
    """How the optimiser moves one parameter: from a copy of its values before, or from what the optimiser subtracted.

    Taking the update from the optimiser saves two passes over the parameter. The weights then differ from it by rounding,
    in float32 by up to 6e-8 of each weight in either direction. Of n weights that shows in the norm of the update by some
    2.5e-8 / (ratio · √n), which is less than 1e-5 while the update is above `LOST` / √n of the weights. Below, the real
    difference is measured from the next read on, and in a read that has neither the norm is unknown (NaN).
    """

    LOST = 5e-3
    """Share of a single weight below which an update begins to be lost in rounding, two standard errors of it included."""

    def __init__(self, name: str, buffer: Buffer) -> None:
        self._name, self._buffer = name, buffer
        self._before: Array | None = None
        self._copied = False
        self._offered = False
        self._large = False
        self._weight_norm = math.nan
        self._size = 1

    @property
    def _least(self) -> float:
        return self.LOST / math.sqrt(max(1, self._size)) * self._weight_norm

    def before(self, weights: Array, *, copy: bool) -> None:
        """Remember the weights; without `copy` only if the optimiser did not hand over its last update, or a tiny one."""
        if weights.dtype.kind != "f":
            weights = weights.astype(np.float64)
        self._size = weights.size
        self._copied = copy or not (self._offered and self._large)
        if not self._copied:
            self._weight_norm = st.norm(weights)
            return
        if self._before is None or self._before.shape != weights.shape or self._before.dtype != weights.dtype:
            self._before = np.array(weights, copy=True, order="C", subok=False)
        else:
            np.copyto(self._before, weights)
        self._weight_norm = st.norm(self._before)

    def subtracted(self, update: Array | None, gradient: Array | None) -> None:
        """The optimiser has subtracted `update` from the weights; None where it cannot say."""
        self._offered = update is not None
        if self._copied:
            return
        norm = math.nan if update is None else st.norm(update)
        self._put(norm if norm > self._least else math.nan, update, gradient, -1.0)

    def after(self, weights: Array, gradient: Array | None) -> None:
        """`UPDATE` of the weights after the update; raises ShapeError where they have another shape than before."""
        if not self._copied:
            return
        before = self._before
        if before is None:
            raise NndiagError(
                f"after_update({self._name!r}) came without before_update({self._name!r}); call that before"
            )
        if before.shape != weights.shape:
            raise ShapeError(
                f"{self._name} has shape {before.shape} before the update and {weights.shape} after it; give the same"
            )
        if gradient is not None and gradient.shape != weights.shape:
            raise ShapeError(f"{self._name} has shape {weights.shape} and its gradient {gradient.shape}; give the same")
        delta = np.subtract(weights, before, out=before, casting="same_kind" if weights.dtype.kind == "f" else "unsafe")
        self._put(st.norm(delta), delta, gradient, 1.0)

    def _put(self, norm: float, change: Array | None, gradient: Array | None, sign: float) -> None:
        size = self._weight_norm
        self._large = norm > 2 * self._least
        uphill = math.nan if change is None or gradient is None else sign * float(np.vdot(change, gradient))
        descent = -math.copysign(1.0, uphill) if uphill else uphill
        self._buffer.put(self._name, frames.UPDATE, (size, norm, norm / size if size else math.nan, descent))

    def measured(self, update: Update) -> None:
        """`UPDATE` of an update that was measured elsewhere."""
        size, norm, uphill = update.weight_norm, update.update_norm, update.uphill
        descent = -math.copysign(1.0, uphill) if uphill else uphill
        self._buffer.put(self._name, frames.UPDATE, (size, norm, norm / size if size else math.nan, descent))


class OutputMeter:
    """What goes into the loss: the outputs, the targets beside them, and δ of the outputs."""

    def __init__(self, buffer: Buffer) -> None:
        self._buffer = buffer
        self._ids: Array | None = None
        self._toward: Array | None = None

    def outputs(self, outputs: Array, y: Array | None, loss: Mapping[str, object]) -> int:
        """`OUTPUT` of outputs (batch, …, units), and what they are beside targets; how many values are not finite."""
        rows, y = frames.as_samples(outputs, y)
        self._ids = self._toward = None
        if not rows.size:
            return 0
        entry, named, nonfinite = frames.output_entry(rows, 0.5 if loss.get("expects") == "probabilities" else 0.0)
        self._buffer.put("outputs", frames.OUTPUT, entry)
        classes = max(2, rows.shape[1])
        if named is not None and classes <= frames.MANY_CLASSES:
            self._buffer.put_each("count", "predicted", np.bincount(named, minlength=classes).tolist())
        if y is not None:
            self._against(rows, named, y, str(loss.get("task") or ""))
        return nonfinite

    def _against(self, rows: Array, named: Array | None, y: Array, task: str) -> None:
        self._buffer.put("targets", frames.OUTPUT_TARGET, frames.output_target_entry(y))
        self._buffer.put("outputs", frames.SQUARED_ERROR, (frames.squared_error(rows, y),))
        ids = frames.class_ids(y, rows.shape[1]) if task in ("classes", "binary") else None
        classes = max(2, rows.shape[1])
        if ids is not None and named is not None and len(ids) == len(rows) and classes <= frames.MANY_CLASSES:
            self._buffer.put_each("hits", "label", np.bincount(ids, weights=named == ids, minlength=classes).tolist())
        if task == "classes" and rows.shape[1] > 1:
            self._ids = ids
        else:
            self._toward = frames.toward(rows, y, task)

    def begin_step(self) -> None:
        """What comes next belongs to a new row."""
        self._ids = self._toward = None

    def gradient(self, array: Array) -> None:
        """`OUTPUT_GRADIENT` of δ (batch, units), after `outputs`."""
        array = np.atleast_1d(array)
        if not array.size:
            return
        self._buffer.put(
            "outputs", frames.OUTPUT_GRADIENT, frames.output_gradient_entry(array, self._toward, self._ids)
        )
        self._ids = self._toward = None


class DataMeter:
    """The batches: scale, non-finite values and labels of each, and features and targets over all of them.

    Features, and the moments of class ids, are gone through in the first `ALWAYS` batches and then in every `SELDOM`-th: they
    hardly change in mid-training, and to go through all of them costs more than all other statistics of a small network.
    """

    ALWAYS, SELDOM = 50, 10

    def __init__(self, buffer: Buffer) -> None:
        self._buffer = buffer
        self.features: st.FeatureMoments | None = None
        self.labels = Labels()
        self.samples = self._reads = 0
        self._features_entry: tuple[float, ...] = ()

    @property
    def _whole(self) -> bool:
        return self._reads <= self.ALWAYS or self._reads % self.SELDOM == 0

    def inputs(self, x: Array) -> Summary:
        """`INPUT` of a batch (samples, …); its summary."""
        self._reads += 1
        self.samples += len(x)
        summary = st.summarized(x)
        if self._whole:
            self._take_features(x.reshape(len(x), -1) if x.ndim > 1 else x.reshape(-1, 1))
        nonzero = math.sqrt(1 - summary.zero_fraction) if summary.zero_fraction < 1 else math.nan
        entry = (*frames.scale(summary), *self._features_entry, self.samples, summary.rms / nonzero)
        self._buffer.put("input", frames.INPUT, entry)
        return summary

    def _take_features(self, rows: Array) -> None:
        if self.features is None or len(self.features.mean) != rows.shape[1]:
            self.features = st.FeatureMoments(rows.shape[1])
        self.features.add(rows)
        self._features_entry = (*self.features.scales(), self.features.constant_fraction)

    def targets(self, y: Array, task: str) -> int:
        """`TARGET` of a batch (samples, …) and the samples of each class; how many values are not finite."""
        summary, labels = st.summarized(y), self.labels
        labels.add(y, binary=task == "binary", whole=self._whole or y.dtype.kind == "f")
        over_all = (labels.classes, labels.entropy, labels.variance, labels.deviation)
        width = y.shape[1] if y.ndim > 1 else 1
        self._buffer.put("target", frames.TARGET, (*frames.scale(summary), integral(y), width, *over_all))
        if task != "real" and labels.classes <= frames.MANY_CLASSES:
            self._label_counts()
        return summary.nonfinite

    def _label_counts(self) -> None:
        """Samples of each class in this batch, 0 for those that were seen in another."""
        ids, counts = self.labels.latest
        if ids is None and self.labels.complete:
            missing = int(self.labels.classes) - len(counts)
            self._buffer.put_each("count", "label", [*counts.tolist(), *[0] * missing])
            return
        named = range(len(counts)) if ids is None else ids.tolist()
        found = dict(zip(named, counts.tolist(), strict=True))
        for label in self.labels.counts:
            self._buffer.put(f"label {label}", frames.COUNT, (found.get(label, 0),))
