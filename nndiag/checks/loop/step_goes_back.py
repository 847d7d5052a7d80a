"""ND907 step-goes-back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nndiag import synthetic
from nndiag.check import Check, Finding
from nndiag.run import Run


@dataclass(frozen=True)
class StepGoesBack(Check):
    """Training went back: it was resumed from a checkpoint older than what had been recorded.

    The steps in between were made twice. Frames and verdicts are of the later attempt; the earlier one is only in the files of
    the run folder. Work was lost, or an older state was chosen on purpose, after a divergence say: a remark. Where not all of
    the state came back (the optimiser's, the order of the data), the loss jumps at that step.

    Decides on where the run says that its steps go back, which a loop that counts its updates tells the recorder.
    """

    code = "ND907"
    name = "step-goes-back"
    kind = "note"
    needs = ("losses.train",)
    min_reads = 1
    advice = (
        "Save checkpoints more often, and with them all that training depends on: weights, optimiser, random state."
    )
    confirm = "print(run.meta.went_back); run.losses['train'].plot()"
    passed = "no step was made twice"

    def examine(self, run: Run) -> Iterator[Finding]:
        for turn in run.meta.went_back:
            yield self.note(
                f"training went back from step {turn['from']} to {turn['to']}: of what was recorded from there on before, the "
                "frames hold nothing"
            )

    @classmethod
    def healthy(cls) -> Run:
        return synthetic.run(train=synthetic.decay())

    @classmethod
    def sick(cls) -> Run:
        return synthetic.run(train=synthetic.decay(), went_back=[{"from": 51, "to": 50}])
