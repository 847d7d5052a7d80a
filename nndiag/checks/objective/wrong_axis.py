"""ND111 wrong-axis."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nndiag import synthetic
from nndiag.check import Check, Finding
from nndiag.meta import LayerMeta
from nndiag.objective import Objective
from nndiag.run import Run

RESHAPES = {
    "scrambled": (
        "{} is reshaped to {} in the model, which takes numbers of one axis for those of another",
        "Swap axes with transpose or permute first: a reshape only splits axes, or makes one of neighbours.",
    ),
    "axes_crossed": (
        "outputs are flattened from {} and targets from {}: each output meets the target of another place",
        "Bring both into the same order first: swap the first two axes of one of them with transpose(0, 1).",
    ),
    "axes_mixed": (
        "outputs {} are reshaped to {} before {loss}, which mixes up places and classes",
        "Swap axes with transpose(1, 2) or permute, which keep each number with its place and class.",
    ),
}
"""Facts of a loss that are two shapes each, the sentence that they make, and what to do."""


@dataclass(frozen=True)
class WrongAxis(Check):
    """The softmax, or a layer over sequences, runs over the samples of the batch, or a softmax over words or pixels.

    Each sample then competes with its neighbours in the batch. The loss falls a little, and predictions depend on what else
    is in the batch. Where outputs (N, T, C) were reshaped to (N, C, T), and not transposed, the loss compares each target with
    numbers of several places. A recurrent or attention layer that wants the steps of its sequences first, and gets the samples
    first, reads one sample after the other.

    Decides on the axis where the loss was seen to take its softmax, or the reshape seen before it; on any softmax or logsumexp of
    the graph that was seen to run over the samples, such as nn.Softmax() without a dim on three axes; on reshapes in the model
    that no split of axes and no join of neighbours explains, that exchange two, or that make the second axis, of the samples, the
    first, and on outputs and targets flattened from two orders; on layers with
    batch_first=False whose sequences had as many steps as the loss had samples, and were of another number, not 1 and no
    multiple; and else on sums. Of outputs: every column sums to 1 within `tolerance` and rows do not, on every read. Of δ,
    where the loss applies the softmax itself: adding a constant to all logits of a sample changes nothing, so each row of δ
    must sum to 0; here the columns do (to `tolerance`) and the rows are off by `off` of their size or more, in the median.
    """

    code = "ND111"
    name = "wrong-axis"
    kind = "exact"
    needs = ("outputs.column_sum_min", "outputs.column_sum_max", "outputs.rows")
    min_reads = 2
    advice = "Take the softmax over the last axis: axis=1 for outputs (batch, classes)."
    confirm = "print(p.sum(axis=1)[:5], p.sum(axis=0)[:5])  # the first must be ones"
    passed = "no axis is taken for another"

    tolerance: float = 1e-3
    off: float = 0.05

    def not_checked(self, run: Run) -> str | None:
        if run.meta.loss.get("over_samples") or self._axis(run) is not None or self._reshaped(run) or self._across(run):
            return None
        if reason := super().not_checked(run):
            return reason
        seen = Objective(run)
        if seen.task not in ("classes", "binary"):
            return self.needs_loss(run, "a loss over classes or labels")
        return None if seen.width > 1 and np.median(seen.of("rows")) > 1 else "needs two samples and two units or more"

    def examine(self, run: Run) -> Iterator[Finding]:
        seen = Objective(run)
        if (axis := self._axis(run)) is not None:
            yield self.finding(
                f"the softmax before {seen.loss} runs over axis {axis}, and the classes lie on another",
                fix="Take the softmax over the axis of the classes: dim=1 for outputs (N, C) and (N, C, …).",
            )
        elif over := run.meta.loss.get("over_samples"):
            yield self.finding(
                f"a {over} on the way to the loss runs over axis 0, the samples of the batch",
                fix="Take it over the axis of the classes, components or places: dim=1 or dim=-1, never dim=0.",
                confirm="compare model(x)[:1] with model(x[:1])  # a sample must not depend on the others",
            )
        elif reshaped := self._reshaped(run):
            yield self.finding(reshaped[0], fix=reshaped[1])
        elif across := self._across(run):
            steps, sequences = across.sequence
            yield self.finding(
                f"{across.name} takes its input for {sequences} sequences of {steps} steps: these are the {steps} samples of the "
                f"batch, which it reads one after the other",
                layer=across.name, fix="Make the layer with batch_first=True, or swap axes before it: x.transpose(0, 1).",
                confirm=f"print(x.shape, model.get_submodule({across.name!r}).batch_first)",
            )  # fmt: skip
        elif (fact := self._outputs(seen) or self._delta(seen)) is not None:
            first, last = seen.steps
            yield self.finding(f"{fact}: the softmax runs over the batch", steps=(first, last))

    def _axis(self, run: Run) -> int | None:
        """Axis of a softmax that is known not to be that of the classes."""
        axis = run.meta.loss.get("softmax_axis")
        return axis if isinstance(axis, int) else None

    def _reshaped(self, run: Run) -> tuple[str, str] | None:
        """What is said of shapes, those before and after a reshape or of outputs and targets, and what to do."""
        for kind, (fact, fix) in RESHAPES.items():
            shapes = run.meta.loss.get(kind)
            if isinstance(shapes, list | tuple) and len(shapes) == 2:
                return fact.format(*(tuple(shape) for shape in shapes), loss=Objective(run).loss), fix
        return None

    def _across(self, run: Run) -> LayerMeta | None:
        """The first layer whose steps are the samples of the batch."""
        rows = run.first("outputs", "rows", "outputs")
        known = (layer for layer in run.meta.layers if len(layer.sequence) == 2 and min(layer.sequence) > 1)
        return next((layer for layer in known if layer.sequence[0] == rows and layer.sequence[1] % rows), None)

    def _outputs(self, seen: Objective) -> str | None:
        off = max(1 - seen.of("column_sum_min").min(), seen.of("column_sum_max").max() - 1)
        batch = seen.of("rows") > 1
        columns = seen.range[0] >= 0 and batch.all() and off <= self.tolerance
        return (
            f"columns of the outputs sum to 1 (within {off:.1g}), rows do not"
            if columns and not seen.rows_sum_to_one
            else None
        )

    def _delta(self, seen: Objective) -> str | None:
        rows, columns = seen.of("gradient_row_sum"), seen.of("gradient_column_sum")
        if seen.expects != "logits" or not len(rows) or not len(columns):
            return None
        row, column = float(np.median(rows)), float(np.median(columns))
        return (
            f"columns of the gradient with respect to the logits sum to 0, rows to {row:.2g} of their size"
            if row > self.off and column <= self.tolerance
            else None
        )

    @classmethod
    def _run(cls, column_sum: float) -> Run:
        outputs = {"column_sum_min": 1.0, "column_sum_max": column_sum, "rows": 64.0, "width": 10.0, "min": 0.0, "max": 0.5,
                   "row_sum_min": 0.1, "row_sum_max": 0.3}  # fmt: skip
        return synthetic.run(outputs={name: {"outputs": value} for name, value in outputs.items()}, **synthetic.CLASSES)

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(1.0019)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(1.0006)
