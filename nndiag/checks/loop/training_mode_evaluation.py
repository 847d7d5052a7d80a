"""ND903 training-mode-evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from nndiag import structure, synthetic
from nndiag.check import Check, Finding
from nndiag.run import Run


@dataclass(frozen=True)
class TrainingModeEvaluation(Check):
    """The network is evaluated in training mode: dropout goes on dropping.

    Validation losses and predictions then carry the noise of training, are worse than the network is, and differ from call
    to call; batch normalisation takes in the statistics of what is evaluated.

    Decides on the flag of the loop frame, where an adapter sets it: the passes before a validation were made with the whole
    network in training mode, in `most` of the validations, and it has dropout or batch normalisation. On fewer it is a remark.

    Elsewhere it decides on the layers of the first evaluation: a share of the values that go into a dropout layer come out
    as 0. In evaluation mode not one does. Dropout by a function, which no mode switches, goes on where a pass in evaluation mode
    has drawn random numbers, and training was seen to drop by a function alone.
    """

    code = "ND903"
    name = "training-mode-evaluation"
    kind = "exact"
    needs = ("evaluations.dropped",)
    min_reads = 1
    advice = (
        "Switch to evaluation mode before evaluating: model.eval(), or forward(x, training=False); "
        "a dropout by a function must be told: F.dropout(x, p, training=self.training)."
    )
    confirm = "print(np.array_equal(model.forward(x[:8]), model.forward(x[:8])))  # must be True"
    passed = "evaluations drop nothing"

    most: float = 0.5

    def not_checked(self, run: Run) -> str | None:
        measured = len(run.series("evaluations", "dropped", "validation")) > 0
        if len(self._awake(run)) and not measured:
            return None if structure.modal(run.meta.layers) else structure.MODELESS
        if len(run.validation) and not measured:
            return "no dropout layer was seen in an evaluation"
        return super().not_checked(run)

    def examine(self, run: Run) -> Iterator[Finding]:
        kinds = structure.modal(run.meta.layers)
        if kinds:
            yield from self._told(run)
        if "dropout" not in kinds or not len(self._awake(run)):  # else the mode says all there is
            yield from self._measured(run)

    def _awake(self, run: Run) -> pd.Series[float]:
        """Whether the network was evaluated in training mode, by validation."""
        return run.loop["training_mode"].dropna()

    def _told(self, run: Run) -> Iterator[Finding]:
        awake = self._awake(run)
        steps = awake.index[awake > 0]
        if not len(steps):
            return
        share, kinds = float(np.mean(awake > 0)), structure.modal(run.meta.layers)
        effects = ["dropout goes on dropping"] * ("dropout" in kinds)
        effects += ["batch normalisation takes the statistics of each batch, and keeps them"] * ("batch_norm" in kinds)
        yield self.finding(
            f"the network was in training mode in {len(steps)} of {len(awake)} evaluations: {', '.join(effects)}",
            kind=self.kind if share >= self.most else "note", steps=steps, value=share,
            threshold=self.most, confirm="print(model.training)  # before an evaluation: must be False",
        )  # fmt: skip

    def _measured(self, run: Run) -> Iterator[Finding]:
        dropped = run.series("evaluations", "dropped", "validation")
        bad = dropped[dropped > 0]
        if len(bad):
            yield self.finding(
                f"dropout zeroes {bad.max():.0%} of its inputs in evaluations",
                steps=bad.index, value=float(bad.max()), threshold=0.0,
            )  # fmt: skip

    @classmethod
    def healthy(cls) -> Run:
        return synthetic.run(evaluations={"dropped": {"validation": 0.0}})

    @classmethod
    def sick(cls) -> Run:
        return synthetic.run(evaluations={"dropped": {"validation": 1e-3}})
