"""What goes into the loss, read from the record: outputs, targets and what the loss expects of both."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from nndiag import losses, progress
from nndiag.meta import LayerMeta
from nndiag.run import Run
from nndiag.statistics import Array

REACH: dict[str, tuple[float, float]] = {
    "sigmoid": (0.0, 1.0),
    "hard_sigmoid": (0.0, 1.0),
    "softmax": (0.0, 1.0),
    "tanh": (-1.0, 1.0),
    "softsign": (-1.0, 1.0),
    "cosine": (-1.0, 1.0),
    "relu": (0.0, np.inf),
    "softplus": (0.0, np.inf),
    "exponential": (0.0, np.inf),
}
"""Smallest and largest output of the kinds of layer that do not reach every number."""

HANDED_ON = ("dropout", "flatten", "identity")
"""Kinds of layers that hand values on as they are, in another shape or some of them."""

ENDS = ("softmax", "log_softmax", "sigmoid", "hard_sigmoid")
"""What makes probabilities, or their logarithms, of logits."""

LEARNED = 0.5
"""Progress from which on an unusual objective is a remark: it has done most of its work all the same."""


@dataclass(frozen=True)
class Objective:
    """Outputs, targets and loss of `run`."""

    run: Run

    @property
    def task(self) -> str:
        """ "classes", "binary", "real", or "" where not told."""
        return str(self.run.meta.loss.get("task") or "")

    @property
    def expects(self) -> str:
        """ "logits", "probabilities", "log_probabilities", "real", or "" where not told."""
        return str(self.run.meta.loss.get("expects") or "")

    @property
    def reduction(self) -> str:
        """ "mean", "sum", "none", or "" where not told."""
        return str(self.run.meta.loss.get("reduction") or "")

    @property
    def loss(self) -> str:
        """What the loss is called, for sentences."""
        return str(self.run.meta.loss.get("name") or "the loss")

    @property
    def normalizes(self) -> bool:
        """Whether the loss divides the outputs of each sample by their sum, as some losses on probabilities do."""
        return bool(self.run.meta.loss.get("normalizes"))

    @property
    def squared(self) -> bool:
        """Whether the loss is a squared error."""
        return progress.plain_name(self.run) in losses.SQUARED

    def of(self, statistic: str, part: str = "outputs") -> Array:
        """Values of one statistic of the outputs, or of the "targets", by read."""
        return self.run.series("outputs", statistic, part).to_numpy()

    def together(self, *statistics: str) -> tuple[Array, ...]:
        """Values of several statistics of the outputs, by read that has all of them."""
        series = {name: self.run.series("outputs", name, "outputs") for name in statistics}
        whole = pd.DataFrame(series).dropna()
        return tuple(whole[name].to_numpy() for name in statistics)

    @property
    def steps(self) -> tuple[int, int]:
        """First and last step at which outputs were read."""
        index = self.run.statistic("outputs", "width").index
        return int(index[0]), int(index[-1])

    @cached_property
    def width(self) -> int:
        """Number of output units; 0 where not recorded."""
        return _whole(self.of("width"))

    @cached_property
    def target_width(self) -> int:
        """Number of values of one target; 0 where not recorded."""
        return _whole(self.of("width", "targets"))

    @cached_property
    def integers(self) -> bool:
        """Whether every target value is a whole number."""
        integer = self.of("integer", "targets")
        return bool(len(integer) and integer.min() == 1)

    @cached_property
    def target_range(self) -> tuple[float, float]:
        """Smallest and largest target value; NaN where not recorded."""
        low, high = self.of("min", "targets"), self.of("max", "targets")
        return (float(low.min()), float(high.max())) if len(low) else (np.nan, np.nan)

    @cached_property
    def range(self) -> tuple[float, float]:
        """Smallest and largest output over all reads; NaN where not recorded."""
        low, high = self.of("min"), self.of("max")
        return (float(low.min()), float(high.max())) if len(low) else (np.nan, np.nan)

    @cached_property
    def classes(self) -> int:
        """Number of classes seen among the targets; 0 where they are none."""
        return _whole(self.run.series("data", "classes", "target").to_numpy()[-1:])

    @property
    def one_each(self) -> bool:
        """Whether there is one output for each input, and none for each word or pixel, as the first read shows.

        Later reads of inputs and outputs may be several batches apart.
        """
        inputs = self.run.series("data", "samples", "input").iloc[:1]
        rows = self.run.series("outputs", "rows", "outputs").iloc[:1]
        return bool(len(inputs) and inputs.index.equals(rows.index) and rows.iloc[0] <= inputs.iloc[0])

    @property
    def ids(self) -> bool:
        """Whether targets are one whole number, 0 or more, for each sample: class ids by their form."""
        low, high = self.target_range
        return self.target_width == 1 and self.integers and low >= 0 and bool(np.isfinite(high))

    @cached_property
    def one_hot(self) -> bool:
        """Whether targets are rows of zeros with a single one."""
        return self._rows_of_bits and self._row_sums == (1.0, 1.0)

    @cached_property
    def multi_hot(self) -> bool:
        """Whether targets are rows of zeros and ones that do not all have a single one."""
        return self._rows_of_bits and self._row_sums != (1.0, 1.0)

    @property
    def _rows_of_bits(self) -> bool:
        return self.target_width > 1 and self.integers and self.target_range[0] >= 0 and self.target_range[1] <= 1

    @property
    def _row_sums(self) -> tuple[float, float]:
        low, high = self.of("row_sum_min", "targets"), self.of("row_sum_max", "targets")
        return (float(low.min()), float(high.max())) if len(low) else (np.nan, np.nan)

    @cached_property
    def head(self) -> str:
        """Kind of `head_layer`; "unknown" where not told."""
        return self.head_layer.kind if self.head_layer is not None else "unknown"

    @cached_property
    def head_layer(self) -> LayerMeta | None:
        """The layer that the outputs come from, whose values those of `HANDED_ON` are."""
        layers = [layer for layer in self.run.meta.layers if layer.kind not in HANDED_ON]
        return layers[-1] if layers else None

    @cached_property
    def logits_layer(self) -> LayerMeta | None:
        """The layer that a softmax or sigmoid at the end takes its logits from; None where there is none, or it is not known."""
        layers = [layer for layer in self.run.meta.layers if layer.kind not in HANDED_ON]
        if len(layers) < 2 or layers[-1].kind not in ENDS:
            return None
        before, last = layers[-2:]
        return before if last.after in (None, before.name) and before.shape == last.shape != () else None

    @cached_property
    def rows_sum_to_one(self) -> bool:
        """Whether every row of the outputs is a distribution, as a softmax makes it."""
        low, high = self.of("row_sum_min"), self.of("row_sum_max")
        if not len(low) or self.width < 2:
            return False
        return bool(self.range[0] >= 0 and low.min() >= 1 - 1e-3 and high.max() <= 1 + 1e-3)

    @cached_property
    def within_unit(self) -> bool:
        """Whether every output lies within 0 … 1."""
        return bool(self.range[0] >= 0 and self.range[1] <= 1 + 1e-6)

    @cached_property
    def reach(self) -> tuple[float, float] | None:
        """Smallest and largest value that the head can put out, by its kind or else by its values; None for any number."""
        if self.head != "unknown":
            return REACH.get(self.head)
        zeros = self.of("zero_fraction")
        if len(zeros) >= 3 and self.range[0] == 0 and np.median(zeros) >= 0.05:
            return (0.0, np.inf)
        return None

    @property
    def learned(self) -> bool:
        """Whether training has come most of the way."""
        made = progress.training(self.run)
        return made is not None and made.trivial is not None and made.value > LEARNED


def _whole(counts: Array) -> int:
    """The largest of counts, 0 without any or where they are not finite."""
    return int(counts.max()) if len(counts) and np.isfinite(counts.max()) else 0
