"""ND103 output-units."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nndiag import synthetic
from nndiag.check import Check, Finding
from nndiag.objective import Objective
from nndiag.run import Run


@dataclass(frozen=True)
class OutputUnits(Check):
    """The number of output units does not fit the labels.

    A loss over C classes needs C units, one for each class, and class ids from 0 to C − 1; a binary loss needs one unit
    for each label. Frameworks that broadcast go on without an error and train something else.

    Decides on values: class ids at or above the number of units; one unit for class ids of three classes or more; rows of
    targets wider or narrower than the outputs, of real targets a single output against rows of several. There is no threshold.
    """

    code = "ND103"
    name = "output-units"
    kind = "exact"
    needs = ("outputs.width", "outputs.integer")
    min_reads = 1
    advice = "Give the last layer one unit for each class."
    confirm = "print(model.forward(x[:8]).shape, np.unique(y))"
    passed = "there are as many output units as the labels need"

    def not_checked(self, run: Run) -> str | None:
        if reason := super().not_checked(run):
            return reason
        seen = Objective(run)
        known = seen.task in ("classes", "binary") or self._spread(seen)
        return None if known else self.needs_loss(run, "a loss over classes")

    def examine(self, run: Run) -> Iterator[Finding]:
        seen = Objective(run)
        classes = self._classes(seen)
        if seen.ids and classes > max(seen.width, 2):
            yield self._finding(
                seen, f"class ids go up to {classes - 1}, and there are {seen.width} output units", classes
            )
        elif self._spread(seen):
            yield self._finding(
                seen, f"a single output unit is compared with each of {seen.target_width} targets, and can only say their mean",
                seen.target_width, f"Give the last layer {seen.target_width} units, one for each target.",
            )  # fmt: skip
        elif seen.target_width > 1 and seen.width != seen.target_width:
            yield self._finding(
                seen,
                f"targets have {seen.target_width} columns, and there are {seen.width} output units",
                seen.target_width,
            )

    def _spread(self, seen: Objective) -> bool:
        """Whether a loss on real targets broadcasts one output (N, 1) over rows of targets (N, K)."""
        flat = all(len(of) and of.max() == 2 for of in (seen.of("dimensions"), seen.of("dimensions", "targets")))
        return seen.task == "real" and flat and seen.width == 1 < seen.target_width

    def _classes(self, seen: Objective) -> int:
        """Classes that the ids speak of: the largest id and those below it; two, however they are numbered, are ND110's."""
        two = seen.task == "binary" and seen.classes == 2
        return int(seen.target_range[1]) + 1 if seen.ids and not two else 0

    def _finding(self, seen: Objective, fact: str, wanted: int, fix: str = "") -> Finding:
        first, last = seen.steps
        return self.finding(
            fact, steps=(first, last), value=float(seen.width), threshold=float(wanted),
            fix=fix or f"Give the last layer {wanted} units, and use a loss over classes such as softmax cross-entropy.",
        )  # fmt: skip

    @classmethod
    def _run(cls, largest: float) -> Run:
        outputs: synthetic.Statistics = {
            "width": {"outputs": 5.0, "targets": 1.0}, "integer": {"targets": 1.0},
            "min": {"outputs": -1.0, "targets": 0.0}, "max": {"outputs": 1.0, "targets": largest},
        }  # fmt: skip
        return synthetic.run(outputs=outputs, **synthetic.CLASSES)

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(4.0)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(5.0)
