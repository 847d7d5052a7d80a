"""ND604 oscillating."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from nndiag import progress, signals, structure, synthetic
from nndiag.check import Check, Finding
from nndiag.run import Run
from nndiag.statistics import Array


@dataclass(frozen=True)
class Oscillating(Check):
    """The training loss swings up and down without getting anywhere.

    Each update overshoots the valley that the one before overshot from the other side (Goodfellow, Bengio & Courville
    2016, section 4.3.1), or the batches are so unlike each other that each undoes what the last has learned.

    Decides on the second half of the reads, of neighbouring steps, where less than `little` of the way from start to floor is
    made and the swing, a robust standard deviation of the loss around a straight line, is above `swing` of the way. Either
    the loss alternates (differences of neighbours have an autocorrelation below `alternating`; pure noise has -0.5, a loss
    that goes up and down in turn -1) and does not fall by `flat` of the way any more; or the swing is more than `noise` times
    what sampling explains (the losses of single samples scatter by about 1 to 1.4 times their mean, exponential, or squares
    of normal errors; those of a batch of n by √n less), and the fall is no more than such a swing gives by chance: two
    standard errors of a straight line through n values, times its length, are 2·√(12/n) of it. What sampling explains is not
    known where real targets have a heavy tail: their mean absolute deviation is below `tail` of their standard deviation
    (0.80 of a normal distribution, 0.69 of an exponential one, 0.52 of a lognormal one). Of labels with less than `uneven` of
    the entropy of equal classes, the rarest counts as the samples that the loss is made of. Full batches at the edge of
    stability swing while they fall, and small batches scatter: both pass. So does a run whose validation has made the way:
    its batches are made harder at random, as by mixing them up.
    """

    code = "ND604"
    name = "oscillating"
    kind = "training"
    needs = ("losses.train",)
    min_reads = 50
    advice = "Lower the learning rate by 3 to 10, lower the momentum, and shuffle the samples."
    confirm = "run.losses['train'].tail(100).plot(marker='.')"
    passed = "the training loss does not swing beyond what sampling gives"

    swing: float = 0.2
    little: float = 0.8
    flat: float = 0.05
    alternating: float = -0.8
    noise: float = 3.0
    tail: float = 0.65
    uneven: float = 0.5

    def not_checked(self, run: Run) -> str | None:
        if reason := super().not_checked(run) or progress.no_measure(run):
            return reason
        steps = np.diff(_late(run).index.to_numpy())
        return "needs neighbouring steps: of a long run only a sample is read" if np.median(steps) != 1 else None

    def examine(self, run: Run) -> Iterator[Finding]:
        trained, validated, late = progress.training(run), progress.validation(run), _late(run)
        if validated is not None and validated.value > self.little:
            return
        finite = trained is not None and np.isfinite([trained.now, *late]).all()
        if trained is None or not finite or trained.value >= self.little:
            return
        way, losses = trained.start - trained.floor, late.to_numpy()
        line = signals.theil_sen(np.arange(len(losses)), losses) * np.arange(len(losses))
        swing, fall = signals.spread(losses - line), -line[-1]
        alternates = fall < self.flat * way and self._alternates(losses)
        by_chance = max(self.flat * way, 2 * np.sqrt(12 / len(losses)) * swing)
        scatters = fall < by_chance and swing > self._by_sampling(run, late)
        if not way > 0 or swing < self.swing * way or not (alternates or scatters):
            return
        lr = run.first("metrics", "lr", "train")
        yield self.finding(
            f"the training loss swings by {swing:.2g} around {np.median(losses):.3g}, {swing / way:.0%} of the way from its "
            f"start to its floor, and does not come down",
            steps=late.index, value=swing / way, threshold=self.swing,
            causes=("ND501", "ND007", "batches that are too small"),
            fix=f"Try lr = {lr / 10:.1g} instead of {lr:.3g}, and shuffle the samples." if lr else "",
        )  # fmt: skip

    def _alternates(self, losses: Array) -> bool:
        steps = np.diff(losses)
        steps = steps - steps.mean()
        size = float(steps @ steps)
        return size > 0 and float(steps[1:] @ steps[:-1]) / size < self.alternating

    def _by_sampling(self, run: Run, late: pd.Series[float]) -> float:
        """The swing that the drawing of batches explains at most."""
        deviation, variance = (run.latest("data", name, "target") for name in ("absolute_deviation", "total_variance"))
        if run.meta.loss.get("task") == "real" and deviation and variance and deviation < self.tail * np.sqrt(variance):
            return np.inf
        rows = run.series("outputs", "rows", "outputs")
        batch = float(rows.median()) if len(rows) else float(run.meta.batch_size or 0)
        batch *= self._rare(run)
        return self.noise * float(late.median()) / np.sqrt(batch) if batch > 0 else np.inf

    def _rare(self, run: Run) -> float:
        """Share of the samples that most of the loss may be of: those of the rarest class where classes are uneven, else 1."""
        entropy, classes = (run.latest("data", name, "target") for name in ("entropy", "classes"))
        if not entropy or not classes or classes < 2 or entropy > self.uneven * np.log(classes):
            return 1.0
        return min([1.0, *structure.class_shares(run).tolist()])

    @classmethod
    def _run(cls, swing: float) -> Run:
        train = 2.4 + swing * 2.3 * np.where(np.arange(100) % 2, 1, -1) * (1 + 0.1 * np.sin(np.arange(100)))
        train[:3] = 2.3
        return synthetic.run(train=train, data={"entropy": {"target": 2.3}}, **synthetic.CLASSES)

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(0.12)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(0.3)


def _late(run: Run) -> pd.Series[float]:
    return run.train.iloc[len(run.train) // 2 :]
