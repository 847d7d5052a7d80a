"""ND010 no-validation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nndiag import synthetic
from nndiag.check import Check, Finding
from nndiag.run import Run


@dataclass(frozen=True)
class NoValidation(Check):
    """No validation loss was recorded.

    Whether what was learned holds for new data then nobody knows: the checks of generalisation (ND7) are not made. A remark,
    for there are good reasons: all data are needed, or the run is a test.

    Decides on whether the losses hold any validation.
    """

    code = "ND010"
    name = "no-validation"
    kind = "note"
    needs = ("losses.train",)
    advice = "Keep a tenth of the data aside: fit(..., validation=(x_val, y_val)) or log(validation_loss=…)."
    confirm = "print(run.validation)"
    passed = "the run looks at held-out data"

    def examine(self, run: Run) -> Iterator[Finding]:
        if not len(run.validation):
            evaluated = "validation" in run.metrics.columns.get_level_values(-1)
            what = "the validation loss was never a number" if evaluated else "no validation loss was recorded"
            yield self.note(f"{what}: nothing can be said of generalisation (ND7)")

    @classmethod
    def healthy(cls) -> Run:
        return synthetic.run(train=synthetic.decay(), validation={99: 0.3})

    @classmethod
    def sick(cls) -> Run:
        return synthetic.run(train=synthetic.decay())
