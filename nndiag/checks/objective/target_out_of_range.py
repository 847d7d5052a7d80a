"""ND110 target-out-of-range."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nndiag import synthetic
from nndiag.check import Check, Finding
from nndiag.objective import Objective
from nndiag.run import Run


@dataclass(frozen=True)
class TargetOutOfRange(Check):
    """Targets are no probabilities, or no class ids, where the loss takes them for such.

    Binary cross-entropy against a target of 2 has no minimum: the loss falls below zero for ever while the outputs run
    away. Class ids below 0, or with a fraction, pick a wrong entry or none.

    Decides on every target seen: outside 0 … 1 by more than `tolerance` for a binary loss; for a loss over classes, rows
    with values outside 0 … 1, or single values that are negative or no whole numbers. The tolerance is rounding.
    """

    code = "ND110"
    name = "target-out-of-range"
    kind = "exact"
    needs = ("data.min", "data.max")
    min_reads = 1
    advice = "Bring the targets into the form that the loss expects."
    confirm = "print(np.unique(y)[:20])"
    passed = "targets are what the loss takes them for"

    tolerance: float = 1e-6

    def not_checked(self, run: Run) -> str | None:
        if reason := super().not_checked(run):
            return reason
        if Objective(run).task not in ("classes", "binary"):
            return "needs a loss over classes: describe(loss=…)"
        return None if len(run.series("data", "min", "target")) else "needs the targets"

    def examine(self, run: Run) -> Iterator[Finding]:
        seen = Objective(run)
        low, high = run.series("data", "min", "target"), run.series("data", "max", "target")
        outside = max(-float(low.min()), float(high.max()) - 1)
        width = float(run.series("data", "width", "target").max())
        whole = float(run.series("data", "integer", "target").min()) == 1
        if (seen.task == "binary" or width > 1) and outside > self.tolerance:
            fact = f"targets go from {low.min():.3g} to {high.max():.3g}, and {seen.loss} takes them for probabilities"
            fix = "Give labels 0 and 1; for real targets use a squared error, for more classes softmax cross-entropy."
        elif seen.task == "classes" and width == 1 and low.min() < 0:
            fact, outside = f"there is a class id {low.min():.3g}", -float(low.min())
            fix = "Number the classes from 0, or leave out samples without a label."
        elif seen.task == "classes" and width == 1 and not whole:
            fact, fix = f"targets are real numbers, and {seen.loss} takes them for class ids", "Use a squared error."
        else:
            return
        yield self.finding(fact, first_step=int(low.index[0]), last_step=int(low.index[-1]), value=outside,
                           threshold=self.tolerance, causes=("ND105",), fix=fix)  # fmt: skip

    @classmethod
    def _run(cls, high: float) -> Run:
        data: synthetic.Statistics = {name: {"target": value} for name, value in
                                      {"min": 0.0, "max": high, "width": 1.0, "integer": 0.0}.items()}  # fmt: skip
        return synthetic.run(data=data, loss={"name": "BCEWithLogits", "task": "binary", "expects": "logits"})

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(1 + 8e-7)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(1 + 1.6e-6)
