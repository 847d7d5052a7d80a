"""ND101 double-softmax."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from nndiag import synthetic
from nndiag.check import Check, Finding
from nndiag.meta import LayerMeta
from nndiag.objective import ENDS, Objective
from nndiag.run import Run


@dataclass(frozen=True)
class DoubleSoftmax(Check):
    """The outputs are probabilities already, and the loss, or the last layer, turns them into probabilities once more.

    A loss on logits applies softmax (or the sigmoid) itself. Fed with values between 0 and 1 it can never say more than
    e / (e + C − 1) for the right one of C classes, so the loss stays high and gradients are small: the network trains,
    slowly, to a poor end, and nothing raises an error.

    Decides on the values that go into a loss on logits: rows that are not negative and sum to 1 within `tolerance` on
    every read prove a softmax; all values within 0 … 1, and not constant, on every one of at least 3 reads and 60
    samples, with some above a half and some below, and sums more than `apart` from 1, a sigmoid, unless the last layer is
    known to be another. Names of layers play no part. Where the loss takes probabilities: on a softmax or sigmoid at the end
    that is taken of what a layer of such a kind puts out.
    """

    code = "ND101"
    name = "double-softmax"
    kind = "exact"
    needs = ("outputs.row_sum_min", "outputs.row_sum_max", "outputs.min", "outputs.max")
    min_reads = 1
    advice = "Drop the last softmax or sigmoid (the loss applies its own), or use the loss on probabilities."
    confirm = "print(model.forward(x[:8]).sum(axis=1))"
    passed = "the loss gets logits, not probabilities"

    tolerance: float = 1e-3
    apart: float = 0.05

    def not_checked(self, run: Run) -> str | None:
        expects = run.meta.loss.get("expects")
        if _twice(Objective(run)) is not None:
            return None
        if expects != "logits":
            return self.needs_loss(run, "a loss on logits" if expects else "to know what the loss expects")
        return super().not_checked(run)

    def examine(self, run: Run) -> Iterator[Finding]:
        seen = Objective(run)
        if (first := _twice(seen)) is not None:
            last = seen.head
            yield self.finding(
                f"the {last} at the end is taken of what a {first.kind} puts out: of numbers between 0 and 1", layer=first.name,
                fix=f"Drop the {first.kind} {first.name}: the {last} wants numbers of any size.",
            )  # fmt: skip
            return
        of = {name: run.series("outputs", name, "outputs") for name in
              ("row_sum_min", "row_sum_max", "min", "max", "width", "rows", "batch_variance")}  # fmt: skip
        off = float(np.maximum(of["row_sum_max"] - 1, 1 - of["row_sum_min"]).max())
        within = of["min"].min() >= 0 and of["max"].max() <= 1 + self.tolerance
        if within and off <= self.tolerance and of["width"].min() > 1:
            yield self._finding(run, f"every row of the outputs sums to 1 (within {off:.1g})", "softmax", off)
        elif within and (off > self.apart or of["width"].max() == 1) and self._sigmoid(run, of):
            yield self._finding(run, f"all outputs lie within 0 … 1 on all {len(of['min'])} reads", "sigmoid", None)

    def _sigmoid(self, run: Run, of: dict[str, pd.Series[float]]) -> bool:
        """Whether values between 0 and 1 must come from a sigmoid: enough of them, on both sides of a half."""
        enough = len(of["min"]) >= 3 and of["rows"].sum() >= 60 and of["batch_variance"].max() > 0
        head = Objective(run).head
        possible = head in ("sigmoid", "hard_sigmoid") or (head == "unknown" and of["max"].max() > 0.9)
        return bool(possible and enough and of["min"].min() < 0.5 < of["max"].max())

    def _finding(self, run: Run, fact: str, function: str, off: float | None) -> Finding:
        steps = run.statistic("outputs", "min").index
        return self.finding(
            f"{fact}: they went through a {function}, and {run.meta.loss.get('name', 'the loss')} applies it again",
            steps=steps, value=off, threshold=self.tolerance,
            fix=f"Drop the last {function}: the loss applies its own. Or use the loss on probabilities.",
        )  # fmt: skip

    @classmethod
    def _run(cls, row_sum: float) -> Run:
        outputs = {"row_sum_min": 1.0, "row_sum_max": row_sum, "min": 0.0, "max": 0.9, "width": 10, "rows": 64,
                   "batch_variance": 0.1}  # fmt: skip
        return synthetic.run(outputs={name: {"outputs": value} for name, value in outputs.items()}, **synthetic.CLASSES)

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(1.0019)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(1.0006)


def _twice(seen: Objective) -> LayerMeta | None:
    """The layer whose probabilities the last layer makes probabilities of; None where there is none."""
    before = seen.logits_layer if seen.expects in ("probabilities", "log_probabilities") else None
    return before if before is not None and before.kind in ENDS else None
