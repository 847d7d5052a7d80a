"""ND108 sum-reduction."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nndiag import progress, structure, synthetic
from nndiag.check import Check, Finding
from nndiag.objective import LEARNED, Objective
from nndiag.run import Run
from nndiag.statistics import Array

USUAL = 3e-3
"""Updates up to this share of the weights are of ordinary size (three times Bottou's 1e-3): the rate was chosen for the sum."""

LIVELY, WELL, ORDINARY = 10**-1.5, 0.8, 0.1
"""So it was where they are up to ND501's limit, training has come this far of its way, and the rate of an optimiser that takes
gradients as they are, times the samples, is up to this: a usual one for a mean."""


@dataclass(frozen=True)
class SumReduction(Check):
    """The loss is a sum over the batch instead of a mean.

    Gradients, and with them the size of a step, then grow with the batch size: a learning rate that suits one sample is 64
    times too high for 64 of them, and changes again with the last, smaller batch.

    Decides on what the loss was seen to do, where that is known: a mean times the samples of the batch is a sum, too, and a sum
    that comes to no more than `little` means is none, as where it is divided by the tokens of all micro-batches. Else on
    δ of the outputs, the gradient that the loss sends back. For a mean over N samples, its magnitudes sum to at most 2 for
    classes, to at most the number of labels for binary ones, and to twice the mean error for squared error; for a sum they
    are N times that. More than `share` of the sum's own value, in the median of the first reads with N of 8 or more, is a
    sum: for a mean that would need N ≤ 8. Where the weights of classes were measured, the smallest is N then. A remark only,
    where updates are of ordinary size all the same, or the rate times the samples is a usual one for a mean and the loss
    comes far down: it was chosen for the sum; where training has come most of the way with gradients that are clipped to a
    norm, which takes the scale off; and with an optimiser such as Adam, whose steps do not depend on it, where the loss alone
    was looked at.
    """

    code = "ND108"
    name = "sum-reduction"
    kind = "training"
    needs = ("outputs.gradient_mass", "outputs.rows")
    min_reads = 3
    advice = "Take the mean over the batch instead of the sum, or divide the learning rate by the batch size."
    confirm = "compare the loss of x[:32] with that of x[:64]: a mean stays about the same, a sum doubles"
    passed = "steps do not grow with the size of a batch"

    share: float = 0.3
    samples: int = 8
    little: float = 2.0

    def not_checked(self, run: Run) -> str | None:
        seen, told = Objective(run), self._told(run)
        if not told and (reason := super().not_checked(run)):
            return reason
        if (seen.reduction != "mean" or self._summed(run)) and self._rows(run) < self.samples:
            return f"needs batches of {self.samples} samples or more"
        return None if told or len(self._shares(run)) else "needs to know the loss: classes, binary or squared error"

    def examine(self, run: Run) -> Iterator[Finding]:
        seen, told = Objective(run), self._told(run)
        share = None if told else float(np.median(self._shares(run)[:20]))
        if not self._summed(run) if share is None else share <= self.share:
            return
        rows, lr = self._rows(run), run.series("metrics", "lr", "train")
        first, last = seen.steps if len(seen.of("rows")) else (None, None)
        rate = f" from {lr.iloc[0]:.3g} to {lr.iloc[0] / rows:.1g}" if len(lr) else ""
        harmless = self._adapted(run) or self._clipped(run) or (told and self._scale_free(run))
        yield self.finding(
            f"{seen.loss} is a sum over the {rows:.0f} samples of a batch: its gradient is {rows:.0f} times that of a mean",
            kind="note" if harmless else self.kind, steps=(first, last), value=share,
            threshold=self.share, fix=f"Take the mean over the batch, or lower the learning rate{rate}.",
        )  # fmt: skip

    def _told(self, run: Run) -> bool:
        """Whether the loss was seen to take the sum or the mean."""
        return Objective(run).reduction in ("mean", "sum")

    def _summed(self, run: Run) -> bool:
        """Whether the loss was seen to take the sum, or the mean times as many as there are samples.

        A sum that is divided by a number of samples, as by those of all micro-batches of an update, is none.
        """
        scale, rows = run.meta.loss.get("scale", 1.0), self._rows(run)
        if Objective(run).reduction == "sum":
            return not isinstance(scale, int | float) or scale * rows > self.little
        return isinstance(scale, int | float) and rows > 1 and abs(scale / rows - 1) < 1e-3

    def _rows(self, run: Run) -> float:
        """Samples of a typical batch."""
        rows = Objective(run).of("rows")
        return float(np.median(rows)) if len(rows) else float(run.meta.batch_size or 0)

    def _scale_free(self, run: Run) -> bool:
        """Whether the optimiser divides gradients by their own size."""
        return structure.scale_free(str(run.meta.optimizer.get("name") or ""))

    def _clipped(self, run: Run) -> bool:
        """Whether gradients were clipped to a norm, and the loss has come most of the way to 0."""
        clipping = run.meta.clipping or {}
        limited = isinstance(clipping.get("max_norm"), int | float) and clipping.get("gradients") == "before"
        return limited and progress.has_come(run, LEARNED)

    def _shares(self, run: Run) -> Array:
        """By read, the magnitudes of δ over what they sum to for a sum over the batch, before anything is learned."""
        seen, weights = Objective(run), run.meta.loss.get("class_weights")
        if weights and self._rows(run):
            return np.array([min(weights) / self._rows(run)])
        if seen.task == "real" and (seen.squared or "square" in seen.loss.lower()):
            mass, rows, errors = seen.together("gradient_mass", "rows", "squared_error")
            whole = 2 * 0.8 * rows * seen.width * np.sqrt(errors)
        else:
            mass, rows = seen.together("gradient_mass", "rows")
            whole = {"classes": 2.0, "binary": 0.5 * seen.width}.get(seen.task, np.nan) * rows
        known = (whole > 0) & np.isfinite(whole) & np.isfinite(mass) & (seen.expects != "probabilities")
        return np.asarray(mass[known] / whole[known])

    def _adapted(self, run: Run) -> bool:
        weights, made = structure.weights(run, "updates", "ratio"), progress.training(run)
        if not weights or made is None:
            return False
        lively = made.value > WELL and self._chosen(run)
        most = LIVELY if lively else USUAL if Objective(run).learned else -1.0
        return bool(run.statistic("updates", "ratio")[weights].iloc[:20].median(axis=1).dropna().median() <= most)

    def _chosen(self, run: Run) -> bool:
        """Whether the learning rate is a usual one for a mean once it is multiplied by the samples."""
        rates = run.series("metrics", "lr", "train")
        return not self._scale_free(run) and len(rates) > 0 and rates.max() * self._rows(run) <= ORDINARY

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
