"""ND106 clipped-logits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nndiag import synthetic
from nndiag.check import Check, Finding
from nndiag.objective import Objective
from nndiag.run import Run


@dataclass(frozen=True)
class ClippedLogits(Check):
    """A ReLU sits on the outputs of a classifier.

    What goes into the loss is cut off at zero: no class can be spoken against, and where the output is 0 no gradient comes
    back, so units die at the very end of the network and take everything before them along. A loss on probabilities gets
    numbers that are none.

    Decides on values that go into a loss over classes: never negative, on every one of at least 3 reads, with `zeros` of
    them or more exactly 0 in the median, and not confined to 0 … 1 as probabilities are; or on a ReLU as last layer, unless
    an output is negative all the same, or before a softmax or sigmoid that is. Logits of a linear layer have both signs and are
    never exactly 0. A twentieth is far above any chance.
    """

    code = "ND106"
    name = "clipped-logits"
    kind = "exact"
    needs = ("outputs.min", "outputs.zero_fraction")
    min_reads = 3
    advice = "Drop the ReLU after the last layer."
    confirm = "z = model.forward(x[:64]); print(z.min(), np.mean(z == 0))"
    passed = "nothing clips the outputs"

    zeros: float = 0.05

    def not_checked(self, run: Run) -> str | None:
        if reason := super().not_checked(run):
            return reason
        return None if Objective(run).task in ("classes", "binary") else self.needs_loss(run, "a loss over classes")

    def examine(self, run: Run) -> Iterator[Finding]:
        seen = Objective(run)
        zeros = float(np.median(seen.of("zero_fraction")))
        by_value = seen.head == "unknown" and seen.range[0] == 0 and seen.range[1] > 1 + 1e-3 and zeros >= self.zeros
        by_layer = seen.head == "relu" and not seen.range[0] < 0
        if by_layer or by_value:
            first, last = seen.steps
            yield self.finding(
                f"{zeros:.0%} of the outputs are exactly 0 and none is negative: a ReLU sits between them and {seen.loss}",
                layer=run.meta.layers[-1].name if by_layer else None, steps=(first, last),
                value=zeros, threshold=self.zeros, fix=self._fix(seen),
            )  # fmt: skip
        elif seen.logits_layer is not None and seen.logits_layer.kind == "relu":
            yield from self._before_the_end(run, seen, seen.logits_layer.name)

    def _before_the_end(self, run: Run, seen: Objective, relu: str) -> Iterator[Finding]:
        """What is said of a ReLU that a softmax or sigmoid at the end is taken of."""
        zeros = run.series("activations", "zero_fraction", relu)
        if len(zeros) and zeros.median() >= self.zeros:
            first, last = seen.steps
            yield self.finding(
                f"a ReLU sits before the {seen.head} at the end: no logit is negative, and {zeros.median():.0%} are exactly 0",
                layer=relu, steps=(first, last), value=float(zeros.median()), threshold=self.zeros,
                fix=f"Drop the ReLU {relu}: the {seen.head} wants logits of either sign.",
            )  # fmt: skip

    def _fix(self, seen: Objective) -> str:
        if seen.expects in ("probabilities", "log_probabilities"):
            head = "a sigmoid" if seen.task == "binary" else "a softmax"
            head = head if seen.expects == "probabilities" else "a log-softmax"
            return f"Put {head} in place of the last ReLU, which {seen.loss} expects."
        return f"Drop the last ReLU: {seen.loss} expects logits of either sign."

    @classmethod
    def _run(cls, zeros: float) -> Run:
        outputs = {"width": 10.0, "min": 0.0, "max": 3.0, "zero_fraction": zeros}
        return synthetic.run(outputs={name: {"outputs": value} for name, value in outputs.items()}, **synthetic.CLASSES)

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(0.04)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(0.06)
