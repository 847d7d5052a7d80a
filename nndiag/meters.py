"""Meters: each turns the arrays of one layer, one parameter or one batch into its values of a frame's row.

A meter keeps what its statistics need from step to step, and its place in the row; an array it reads at once and forgets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from math import hypot, nan, sqrt
from typing import TYPE_CHECKING

import numpy as np

from nndiag import frames, losses
from nndiag import statistics as st
from nndiag.errors import NndiagError, ShapeError
from nndiag.labels import Labels, integral
from nndiag.samples import FirstSamples
from nndiag.statistics import Array, Summary
from nndiag.table import Buffer, Slot

if TYPE_CHECKING:
    from nndiag.measured import Magnitude, Output, Update


class ActivationMeter:
    """What one layer puts out, and δ, the gradient that flows back to it; passes of one step are merged."""

    GROWN = 2.0
    """Growth of the RMS since extremes and zeros were last looked at after which they are, due or not."""

    def __init__(self, name: str, buffer: Buffer) -> None:
        self._name, self._buffer = name, buffer
        self._forward: Slot | None = None  # places in the row: the buffer need not look for them
        self._backward: Slot | None = None
        self._moments: Slot | None = None
        self._activity = st.UnitActivity(0)
        self.rms = nan
        self._quiet, self._low = 0.0, nan  # what the latest look at extremes has shown
        self._merged = st.EMPTY
        self._sums: Array = np.zeros(0)
        self._gradient = 0.0, 0
        self._passed_in = self._returned_in = -1  # the rows that these are of

    def turn(self) -> None:
        """An epoch begins."""
        self._activity.turn()

    def take_back(self) -> None:
        """The passes of this row do not count: the next is not merged with them."""
        self._passed_in = self._returned_in = -1

    def forward(self, array: Array, slope: Array | None, signal: float, *, whole: bool = True) -> int:
        """`FORWARD` of an output (batch, …, units), given the RMS of what came in; how many of its values are not finite.

        The RMS of this array alone is left in `rms`. Unless `whole`, extremes and zeros are looked at only where it has grown.
        """
        rows = st.as_rows(array)
        summary, sums, batch_variance = st.summarize_units(rows, 0.0 if whole else self._quiet)
        count, mean, m2, low, high, zeros, own = summary
        nonfinite, buffer = own, self._buffer
        self.rms = rms = hypot(sqrt(m2 / count), mean) if count else nan
        if low == low:
            self._quiet, self._low = self.GROWN * self.GROWN * rms * rms, low
        dead = self._dead(rows, sums, zeros)
        if self._passed_in == buffer.number:
            summary, batch_variance = self._merge(summary, sums)
            count, mean, m2, low, high, zeros, nonfinite = summary
        self._merged, self._sums, self._passed_in = summary, sums, buffer.number
        if self._forward is None:
            self._forward = buffer.slot(self._name, frames.FORWARD)
        over = count or nan
        buffer.fill(self._forward, (
            mean, m2 / over, batch_variance, low, high, zeros / over, dead,
            nan if slope is None else frames.saturated_fraction(slope), nonfinite, rms / signal if signal else nan,
        ))  # fmt: skip
        return own

    def _merge(self, summary: Summary, sums: Array) -> tuple[Summary, float]:
        """The passes of this row together, and their variance over inputs; `sums` becomes those of all."""
        whole = self._merged | summary
        if len(self._sums) != len(sums):
            return whole, nan
        sums += self._sums
        return whole, st.within_units(whole, sums)

    def _dead(self, rows: Array, sums: Array, zeros: float) -> float:
        """Share of silent units. What put out nothing negative at the latest look is taken to be a function that never does."""
        samples, activity = len(rows), self._activity
        if not rows.size:
            return nan
        if len(sums) != activity.units:
            activity = self._activity = st.UnitActivity(len(sums))
        silent = activity.begin(samples)
        if not len(silent):
            return 0.0
        if zeros < samples:  # too few for a silent unit
            return activity.left(silent[:0])
        return activity.left(st.silent_units(silent, rows, sums, self._low))

    def moments(self, array: Array) -> None:
        """Mean and variance alone."""
        if self._moments is None:
            self._moments = self._buffer.slot(self._name, frames.MOMENTS)
        self._buffer.fill(self._moments, st.moments(array))

    def backward(self, array: Array) -> int:
        """`BACKWARD` of δ; how many of its values are not finite."""
        norm, count, nonfinite = st.magnitude(array)
        buffer = self._buffer
        if self._returned_in == buffer.number:
            norm, count = hypot(norm, self._gradient[0]), count + self._gradient[1]
        self._gradient, self._returned_in = (norm, count), buffer.number
        if self._backward is None:
            self._backward = buffer.slot(self._name, frames.BACKWARD)
        buffer.fill(self._backward, (norm / sqrt(count) if count else nan,))
        return nonfinite

    def measured(self, output: Output, signal: float) -> None:
        """`FORWARD` of an output that was measured elsewhere."""
        whole, within, buffer = output.summary, output.within, self._buffer
        if self._passed_in == buffer.number:
            whole, within = self._merge(whole, output.sums)
        self._merged, self._sums, self._passed_in = whole, output.sums, buffer.number
        self.rms, count = output.summary.rms, whole.count or nan
        buffer.put(self._name, frames.FORWARD, (
            whole.mean, whole.m2 / count, within, whole.min, whole.max, whole.zeros / count, self._measured_dead(output),
            output.saturated, whole.nonfinite, self.rms / signal if signal else nan,
        ))  # fmt: skip

    def _measured_dead(self, output: Output) -> float:
        if len(output.sums) != self._activity.units:
            self._activity = st.UnitActivity(len(output.sums))
        if not output.samples:
            return nan
        silent = self._activity.begin(output.samples)
        return self._activity.left(silent[output.silent[silent]])

    def measured_moments(self, output: Output) -> None:
        """Mean and variance alone of an output that was measured elsewhere."""
        self._buffer.put(self._name, frames.MOMENTS, (output.summary.mean, output.summary.variance))

    def measured_gradient(self, gradient: Magnitude) -> None:
        """`BACKWARD` of a δ that was measured elsewhere."""
        norm, count = gradient.norm, gradient.count
        if self._returned_in == self._buffer.number:
            norm, count = hypot(norm, self._gradient[0]), count + self._gradient[1]
        self._gradient, self._returned_in = (norm, count), self._buffer.number
        self._buffer.put(self._name, frames.BACKWARD, (norm / sqrt(count) if count else nan,))


class GradientMeter:
    """The gradient of one parameter, before clipping, and what clipping has left of it."""

    def __init__(self, name: str, buffer: Buffer) -> None:
        self._name, self._buffer = name, buffer
        self._norm: Slot | None = None

    def norm(self, array: Array) -> int:
        """`NORM`; how many values are not finite."""
        norm, count, nonfinite = st.magnitude(array)
        rms = norm / sqrt(count) if count else nan
        if self._norm is None:
            self._norm = self._buffer.slot(self._name, frames.NORM)
        self._buffer.fill(self._norm, (norm if count or not nonfinite else nan, rms, nonfinite))
        return nonfinite

    def extremes(self, array: Array, weights: Array | None) -> None:
        """`EXTREMES`; `identical_rows` is 1 where all units share their weights and their gradient, ½ where the weights alone."""
        low, high, zeros, count = st.finite_extremes(st.flattened(array))
        max_abs = max(-low, high)
        same = 0.0 if weights is None else _identical_units(array, weights, max_abs)
        self._buffer.put(self._name, frames.EXTREMES, (max_abs, zeros / count if count else nan, same))

    def clipped(self, array: Array) -> None:
        """`CLIPPED_NORM`."""
        self._buffer.put(self._name, frames.CLIPPED_NORM, (st.norm(array),))

    def measured(self, gradient: Magnitude) -> None:
        """`NORM` of a gradient that was measured elsewhere."""
        norm, count = gradient.norm, gradient.count
        rms = norm / sqrt(count) if count else nan
        known = norm if count or not gradient.nonfinite else nan
        self._buffer.put(self._name, frames.NORM, (known, rms, gradient.nonfinite))

    def measured_extremes(self, gradient: Magnitude, weights: Magnitude | None) -> None:
        """`EXTREMES` of a gradient that was measured elsewhere, as its weights were, if they were."""
        share = gradient.zeros / gradient.count if gradient.count else math.nan
        same = 0.0 if weights is None or not weights.same else 1.0 if gradient.same else 0.5
        self._buffer.put(self._name, frames.EXTREMES, (gradient.largest, share, same))

    def measured_clipped(self, gradient: Magnitude) -> None:
        """`CLIPPED_NORM` of a gradient that was measured elsewhere."""
        self._buffer.put(self._name, frames.CLIPPED_NORM, (gradient.norm,))


def _identical_units(gradient: Array, weights: Array, max_abs: float) -> float:
    """1 where all rows of a weight and of its gradient, of known largest magnitude, are the same; ½ if only the weight's are."""
    if gradient.ndim < 2 or len(gradient) < 2 or not st.identical_rows(weights, frames.SAME_WEIGHTS):
        return 0.0
    if abs(gradient.item(0) - gradient.item(gradient.size // len(gradient))) > frames.SAME_GRADIENTS * max_abs:
        return 0.5  # the first two rows differ in their first value
    return 1.0 if st.identical_rows(gradient, frames.SAME_GRADIENTS) else 0.5


STEADY = 0.01
"""Share of the norm of weights that their updates may add up to before that norm is taken anew: no norm can change by more."""

LOST = {2: 40.0, 4: 5e-3, 8: 1e-11}
"""Share of a single weight below which an update begins to be lost in rounding, two standard errors of it included: by the
bytes of a number, since it goes with its precision."""


class UpdateMeter:
    """How the optimiser moves one parameter: from a copy of its values before, or from what the optimiser subtracted.

    Taking the update from the optimiser saves two passes over the parameter. The weights then differ from it by rounding,
    in float32 by up to 6e-8 of each weight in either direction. Of n weights that shows in the norm of the update by some
    2.5e-8 / (ratio · √n), which is less than 1e-5 while the update is above `LOST` / √n of the weights. Below, the real
    difference is measured from the next read on, and in a read that has neither the norm is unknown (NaN).
    The norm of the weights themselves, one more pass, is kept while updates cannot have changed it by `STEADY`; those that were
    not read are taken to be as large as the last that was.
    """

    def __init__(self, name: str, buffer: Buffer) -> None:
        self._name, self._buffer = name, buffer
        self._before: Array | None = None
        self._copied = False
        self._offered = False
        self._large = False
        self._weight_norm = self._least = nan
        self._moved = nan
        """Norms of the updates since that of the weights was taken, added up."""
        self._latest = nan
        self._slot: Slot | None = None

    def before(self, weights: Array, *, copy: bool, whole: bool = True, unread: int = 0) -> None:
        """Remember the weights; without `copy` only if the optimiser did not hand over its last update, or a tiny one.

        Unless `whole`, their norm is kept while they have hardly moved, in `unread` updates since the last one, too.
        """
        self._copied = copy or not (self._offered and self._large)
        if unread:
            self._moved += unread * self._latest
        if not (whole or self._copied) and self._moved < STEADY * self._weight_norm:
            return
        self._moved = 0.0
        if weights.dtype.kind != "f":
            weights = weights.astype(np.float64)
        if self._copied:
            weights = self._copy(weights)
        self._weight_norm = st.norm(weights)
        self._least = LOST.get(weights.itemsize, 0.0) / sqrt(weights.size or 1) * self._weight_norm

    def _copy(self, weights: Array) -> Array:
        if self._before is None or self._before.shape != weights.shape or self._before.dtype != weights.dtype:
            self._before = np.array(weights, copy=True, order="C", subok=False)
        else:
            np.copyto(self._before, weights)
        return self._before

    def subtracted(self, update: Array | None, gradient: Array | None, factor: float = 1.0) -> None:
        """The optimiser has subtracted `factor`, which is positive, times `update` from the weights; None where it cannot say."""
        self._offered = update is not None
        if self._copied:
            return
        norm = nan if update is None else factor * st.norm(update)
        self._put(norm if norm > self._least else nan, update, gradient, -1.0)

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
        self._moved += norm
        self._latest = norm
        self._large = norm > 2 * self._least
        uphill = nan if change is None or gradient is None else sign * float(change.ravel().dot(gradient.ravel()))
        descent = _against(uphill)
        if self._slot is None:
            self._slot = self._buffer.slot(self._name, frames.UPDATE)
        self._buffer.fill(self._slot, (size, norm, norm / size if size else nan, descent))

    def measured(self, update: Update) -> None:
        """`UPDATE` of an update that was measured elsewhere."""
        size, norm, uphill = update.weight_norm, update.update_norm, update.uphill
        descent = _against(uphill)
        self._buffer.put(self._name, frames.UPDATE, (size, norm, norm / size if size else math.nan, descent))


def _against(uphill: float) -> float:
    """Whether an update went down, 1, or up, -1, by its product with the gradient; 0 and NaN stay."""
    return -math.copysign(1.0, uphill) if uphill < 0 or uphill > 0 else uphill


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
            if losses.named(loss)[1]:
                self._buffer.put("outputs", frames.TERM, (losses.term(rows, y, loss),))
        return nonfinite

    def _against(self, rows: Array, named: Array | None, y: Array, task: str) -> None:
        self._buffer.put("targets", frames.OUTPUT_TARGET, frames.output_target_entry(y))
        self._buffer.put("outputs", frames.SQUARED_ERROR, (losses.squared_error(rows, y),))
        ids = losses.class_ids(y, rows.shape[1]) if task in ("classes", "binary") else None
        classes = max(2, rows.shape[1])
        if ids is not None and named is not None and len(ids) == len(rows) and classes <= frames.MANY_CLASSES:
            self._buffer.put_each("hits", "label", np.bincount(ids, weights=named == ids, minlength=classes).tolist())
        if task == "classes" and rows.shape[1] > 1:
            self._ids = ids
        else:
            self._toward = losses.toward(rows, y, task)

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
        self._first = FirstSamples()
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
        nonzero = sqrt(1 - summary.zero_fraction) if summary.zero_fraction < 1 else nan
        entry = (*frames.scale(summary), *self._features_entry, self.samples, summary.rms / nonzero)
        self._first.inputs(x)
        entry += (self._first.count, self._first.distinct, *self._first.code)
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
        self._first.targets(y)
        entry = (*frames.scale(summary), integral(y), width, *over_all, *self._first.leak, *self._first.target_code)
        self._buffer.put("target", frames.TARGET, entry)
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
