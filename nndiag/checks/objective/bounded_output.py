"""ND104 bounded-output."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nndiag import synthetic
from nndiag.check import Check, Finding
from nndiag.objective import Objective
from nndiag.progress import latest
from nndiag.run import Run


@dataclass(frozen=True)
class BoundedOutput(Check):
    """Targets lie where the output layer cannot reach.

    A sigmoid ends at 0 and 1, tanh at −1 and 1, a ReLU at 0. Targets beyond can never be hit: the outputs push against
    their bound, where the slope is next to nothing, and the error of those samples stays.

    Decides on real targets that lie more than `beyond` of their standard deviation outside what the head can put out: the
    range of its kind of layer, or, where the kind is not known, 0 and up for outputs that are never negative and exactly 0
    in one of twenty. A quarter of a standard deviation leaves room for rounding and scaling to the very bounds.
    """

    code = "ND104"
    name = "bounded-output"
    kind = "exact"
    needs = ("outputs.min", "outputs.max")
    min_reads = 1
    advice = "Leave the last layer linear for a regression, or scale the targets into its range."
    confirm = "print(y.min(), y.max(), model.forward(x[:8]))"
    passed = "the outputs can reach the targets"

    beyond: float = 0.25

    def not_checked(self, run: Run) -> str | None:
        if reason := super().not_checked(run):
            return reason
        return None if Objective(run).task == "real" else "for regressions only: needs a loss of task real"

    def examine(self, run: Run) -> Iterator[Finding]:
        seen = Objective(run)
        (low, high), reach = seen.target_range, seen.reach
        spread = np.sqrt(latest(run, "data", "total_variance", "target") or 0.0) or max(abs(low), abs(high))
        if reach is None or not spread > 0:
            return
        over = max(reach[0] - low, high - reach[1]) / spread
        if over > self.beyond:
            first, last = seen.steps
            yield self.finding(
                f"targets go from {low:.3g} to {high:.3g}, the output layer ({seen.head}) only {_bounds(reach)}",
                layer=self._layer(run), first_step=first, last_step=last, value=float(over), threshold=self.beyond,
                fix=f"Leave the last layer linear (drop its {seen.head}), or scale the targets to lie {_bounds(reach)}.",
            )  # fmt: skip

    def _layer(self, run: Run) -> str | None:
        return run.meta.layers[-1].name if run.meta.layers else None

    @classmethod
    def _run(cls, high: float) -> Run:
        layers = [{"name": "output", "kind": "affine"}, {"name": "output.sigmoid", "kind": "sigmoid"}]
        outputs: synthetic.Statistics = {"width": {"outputs": 1.0}, "min": {"outputs": 0.1, "targets": 0.0},
                                         "max": {"outputs": 0.9, "targets": high}}  # fmt: skip
        data = {"total_variance": {"target": 1.0}}
        return synthetic.run(outputs=outputs, data=data, layers=layers, loss={"name": "MSE", "task": "real"})

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(1.2)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(1.3)


def _bounds(reach: tuple[float, float]) -> str:
    return f"from {reach[0]:g} up" if np.isinf(reach[1]) else f"from {reach[0]:g} to {reach[1]:g}"
