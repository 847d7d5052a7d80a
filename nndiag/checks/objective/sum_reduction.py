"""ND108 sum-reduction."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nndiag import structure, synthetic
from nndiag.check import Check, Finding
from nndiag.objective import Objective
from nndiag.run import Run
from nndiag.statistics import Array

USUAL = 3e-3
"""Updates up to this share of the weights are of ordinary size (three times Bottou's 1e-3): the rate was chosen for the sum."""


@dataclass(frozen=True)
class SumReduction(Check):
    """The loss is a sum over the batch instead of a mean.

    Gradients, and with them the size of a step, then grow with the batch size: a learning rate that suits one sample is 64
    times too high for 64 of them, and changes again with the last, smaller batch.

    Decides on δ of the outputs, the gradient that the loss sends back. For a mean over N samples, its magnitudes sum to at
    most 2 for classes, to at most the number of labels for binary ones, and to twice the mean error for squared error; for a
    sum they are N times that. More than `share` of the sum's own value, in the median of the first reads with N of 8 or more,
    is a sum: for a mean that would need N ≤ 8. A remark only, where updates are of ordinary size all the same: the rate was
    chosen for it.
    """

    code = "ND108"
    name = "sum-reduction"
    kind = "training"
    needs = ("outputs.gradient_mass", "outputs.rows")
    min_reads = 3
    advice = "Take the mean over the batch instead of the sum, or divide the learning rate by the batch size."
    confirm = "compare the loss of x[:32] with that of x[:64]: a mean stays about the same, a sum doubles"
    passed = "the loss is a mean over the batch"

    share: float = 0.3
    samples: int = 8

    def not_checked(self, run: Run) -> str | None:
        if reason := super().not_checked(run):
            return reason
        if np.median(Objective(run).of("rows")) < self.samples:
            return f"needs batches of {self.samples} samples or more"
        return None if len(self._shares(run)) else "needs to know the loss: classes, binary or squared error"

    def examine(self, run: Run) -> Iterator[Finding]:
        seen, share = Objective(run), float(np.median(self._shares(run)[:20]))
        if share > self.share:
            (first, last), rows, lr = (
                seen.steps,
                float(np.median(seen.of("rows"))),
                run.series("metrics", "lr", "train"),
            )
            rate = f" from {lr.iloc[0]:.3g} to {lr.iloc[0] / rows:.1g}" if len(lr) else ""
            yield self.finding(
                f"{seen.loss} is a sum over the {rows:.0f} samples of a batch: its gradient is {rows:.0f} times that of a mean",
                kind="note" if self._adapted(run) else self.kind, first_step=first, last_step=last, value=share,
                threshold=self.share, fix=f"Take the mean over the batch, or lower the learning rate{rate}.",
            )  # fmt: skip

    def _shares(self, run: Run) -> Array:
        """By read, the magnitudes of δ over what they sum to for a sum over the batch, before anything is learned."""
        seen = Objective(run)
        if seen.task == "real" and (seen.squared or "square" in seen.loss.lower()):
            mass, rows, errors = seen.together("gradient_mass", "rows", "squared_error")
            whole = 2 * 0.8 * rows * seen.width * np.sqrt(errors)
        else:
            mass, rows = seen.together("gradient_mass", "rows")
            whole = {"classes": 2.0, "binary": 0.5 * seen.width}.get(seen.task, np.nan) * rows
        known = (whole > 0) & (seen.expects != "probabilities")
        return np.asarray(mass[known] / whole[known])

    def _adapted(self, run: Run) -> bool:
        weights = structure.weights(run, "updates", "ratio")
        if not weights or not Objective(run).learned:
            return False
        return bool(run.statistic("updates", "ratio")[weights].iloc[:20].median(axis=1).median() <= USUAL)

    @classmethod
    def _run(cls, mass: float) -> Run:
        outputs = {"gradient_mass": mass, "rows": 64.0, "width": 10.0}
        return synthetic.run(outputs={name: {"outputs": value} for name, value in outputs.items()}, **synthetic.CLASSES)

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(30.0)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(50.0)
