"""ND703 validation-below-train."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nndiag import progress, signals, synthetic
from nndiag.check import Check, Finding
from nndiag.run import Run


@dataclass(frozen=True)
class ValidationBelowTrain(Check):
    """The validation loss lies well below the training loss.

    Dropout and augmentation make training harder than validation, and an epoch's mean lags behind its end: both are
    ordinary. It can also mean that regularisation is too strong, that validation samples are easier, or that they are
    training samples.

    Decides on the last quarter: the validation loss below `share` of the training loss. A remark, never more.
    """

    code = "ND703"
    name = "validation-below-train"
    kind = "note"
    needs = ("losses.validation", "losses.train")
    min_reads = 3
    advice = (
        "Compare both in evaluation mode; then see whether dropout is stronger than needed, and how the split was made."
    )
    confirm = "print(trainer.evaluate(x, y), trainer.evaluate(x_val, y_val))"
    passed = "validation is no easier than training"

    share: float = 0.7

    def examine(self, run: Run) -> Iterator[Finding]:
        few = max(1, len(run.validation) // 4)
        validation, train = float(run.validation.iloc[-few:].median()), run.train
        late = float(train[train.index >= run.validation.index[-few - 1 if few < len(run.validation) else 0]].mean())
        if (
            late > 0
            and progress.floor(run) < validation < self.share * late
            and len(run.validation) >= signals.PATIENCE
        ):
            yield self.note(
                f"the validation loss ({validation:.3g}) lies well below the training loss ({late:.3g}): dropout, or a split "
                "that is too easy"
            )

    @classmethod
    def _run(cls, validation: float) -> Run:
        return synthetic.run(train=1.0, validation={20 * i: validation for i in range(1, 6)})

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(0.8)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(0.6)
