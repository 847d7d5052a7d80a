"""Statistics that an adapter has computed where its arrays lie, and the row that takes them in place of the arrays."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from nndiag.meters import ActivationMeter, GradientMeter, UpdateMeter
from nndiag.row import Row
from nndiag.statistics import Array, Summary


@dataclass(frozen=True)
class Output:
    """What a layer put out in one pass: `samples` rows of units.

    `sums` (units,) in float64 are those of the finite values, `within` is the variance over inputs averaged over units,
    `silent` (units,) says which have no value but exact zeros, `saturated` is the share of units whose slope is small, and
    `sample` are some of the values, for a histogram.
    """

    summary: Summary
    sums: Array
    within: float
    silent: NDArray[Any]
    samples: int
    saturated: float = math.nan
    sample: Array | None = None


@dataclass(frozen=True)
class Magnitude:
    """A gradient, δ or a weight: L2 norm, largest magnitude and zeros of its `count` finite values, and how many are not.

    `same` says whether all its rows are the same up to rounding.
    """

    norm: float
    count: int
    nonfinite: int
    largest: float = math.nan
    zeros: int = 0
    same: bool = False
    sample: Array | None = None


@dataclass(frozen=True)
class Update:
    """How an update moved a parameter; `uphill` is the sign of Δw·g, NaN where it is not known."""

    weight_norm: float
    update_norm: float
    uphill: float = math.nan


class MeasuredRow(Row):
    """A recorder's row that takes measured values as well as arrays; it goes on with what `row` has."""

    def __init__(self, row: Row) -> None:
        self.__dict__ = row.__dict__

    def activation(self, name: str, array: Any, slope: Array | None, *, whole: bool = True) -> None:
        if not isinstance(array, Output):
            super().activation(name, array, slope, whole=whole)
            return
        if name == self._first:
            self._signal = self._input  # another pass of this step begins
        self._first = self._first or name
        self._activation(name).measured(array, self._signal)
        self.nonfinite += array.summary.nonfinite
        self._signal = array.summary.rms

    def moments(self, name: str, array: Any) -> None:
        if isinstance(array, Output):
            self._activation(name).measured_moments(array)
        else:
            super().moments(name, array)

    def activation_gradient(self, name: str, array: Any) -> None:
        if isinstance(array, Magnitude):
            self._activation(name).measured_gradient(array)
            self.nonfinite += array.nonfinite
        else:
            super().activation_gradient(name, array)

    def gradient(self, name: str, array: Any) -> None:
        if isinstance(array, Magnitude):
            self._meter(self._gradients, GradientMeter, name, "gradients").measured(array)
            self.nonfinite += array.nonfinite
        else:
            super().gradient(name, array)

    def gradient_extremes(self, name: str, array: Any, weights: Any) -> None:
        if isinstance(array, Magnitude):
            self._gradients[name].measured_extremes(array, weights if isinstance(weights, Magnitude) else None)
        else:
            super().gradient_extremes(name, array, weights)

    def clipped_gradient(self, name: str, array: Any) -> None:
        if isinstance(array, Magnitude):
            self._meter(self._gradients, GradientMeter, name, "gradients").measured_clipped(array)
        else:
            super().clipped_gradient(name, array)

    def before_update(self, name: str, weights: Any, *, copy: bool, whole: bool = True, unread: int = 0) -> None:
        if not isinstance(weights, Magnitude):
            super().before_update(name, weights, copy=copy, whole=whole, unread=unread)

    def after_update(self, name: str, weights: Any, gradient: Any) -> None:
        if isinstance(weights, Update):
            self._meter(self._updates, UpdateMeter, name, "updates").measured(weights)
        else:
            super().after_update(name, weights, gradient)

    def histogram(self, name: str, array: Any) -> None:
        values = array.sample if isinstance(array, Output | Magnitude) else array
        if values is not None:
            super().histogram(name, values)

    def unseen(self, samples: int) -> None:
        """A batch of which only a sample is to come has so many inputs more."""
        self._data.samples += samples
        if samples:
            self.shared = None  # what is not looked at may be shared

    def _activation(self, name: str) -> ActivationMeter:
        return self._activations.get(name) or self._meter(self._activations, ActivationMeter, name, "activations")
