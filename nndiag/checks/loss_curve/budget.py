"""ND607 budget."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nndiag import progress, signals, synthetic
from nndiag.check import Check, Finding
from nndiag.objective import Objective
from nndiag.run import Run


@dataclass(frozen=True)
class Budget(Check):
    """Training has ended too early: most of the way is left and the loss was still falling.

    Nothing is wrong with a run that simply needs more updates, but its result says little about the network: too few
    epochs, or batches so large that an epoch has only a handful of updates.

    Decides on completed runs. Fewer than `few` updates with more than `rest` of the way from the start of the loss (at
    most a trivial prediction's) to its floor left: hardly any network is done with a hundred updates, unless it began
    with what it knows, or stands still with less than `begun` of the way left, or validation was better before. Or more
    updates, with more than `left` of the way left, the loss still falling (`nndiag.progress.unfinished`) and validation, where
    there is one, ending at its best and with as much left: dropout holds the training loss up. Noisy labels, weak signals and
    learning by heart fall slower. A loss that still falls with less left, and one that was below `low` after a third of the run
    and has not moved since, are remarks.
    """

    code = "ND607"
    name = "budget"
    kind = "training"
    needs = ("losses.train",)
    min_reads = 2
    advice = "Train longer: more epochs, or smaller batches for more updates an epoch."
    confirm = "run.losses['train'].plot()"
    passed = "no sign that training ended too early"

    left: float = 0.5
    few: int = 100
    rest: float = 0.1
    begun: float = 0.9
    low: float = 0.1
    saturated: float = 0.005

    def not_checked(self, run: Run) -> str | None:
        if reason := super().not_checked(run) or progress.no_measure(run):
            return reason
        if run.meta.ended != "completed":
            return f"needs a completed run; this one is {run.meta.ended}"
        if Objective(run).classes == 1:
            return "every target is the same: there is no way to go"
        finite = np.isfinite(run.train).all() and not progress.ended_nonfinite(run)
        return None if finite else "needs a run whose loss stays finite"

    def examine(self, run: Run) -> Iterator[Finding]:
        losses, floor = run.train.to_numpy(), progress.floor(run)
        start = min(float(np.median(losses[:3])), progress.begin(run))
        now, way = float(losses[-max(3, len(losses) // 10) :].mean()), start - floor
        if not way > 0:
            return
        left, steps = min((now - floor) / way, progress.ahead(run, start)), run.steps
        falling = progress.unfinished(run) is not None and signals.ends_at_best(run.validation.to_numpy())
        few = steps < self.few and progress.trivial(run) is not None and (left > self.begun or not self._done(run, way))
        few = few and (len(run.validation) < progress.EVALUATIONS or signals.ends_at_best(run.validation.to_numpy()))
        if (few and left > self.rest) or (falling and left > self.left):
            yield self.finding(
                f"training ends after {steps} updates with {min(left, 1):.0%} of the loss's way left"
                + (", and the loss is still falling" if falling else ""),
                steps=run.train.index[-1], value=left,
                threshold=self.rest if few else self.left,
                causes=("too few epochs", "ND502", "batches that are too large"), fix=self._fix(steps),
            )  # fmt: skip
        elif falling and left > self.low:
            yield self.note(f"the loss is still falling, with {left:.0%} of the way left: train longer")
        elif left < self.low and (step := self._saturated(run, way)) is not None:
            yield self.note(f"nothing was gained after step {step} of {steps}: fewer updates would do")

    def _done(self, run: Run, way: float) -> bool:
        """Whether a short run began with what it knows (less than half of the trivial loss), or stands still at its end."""
        losses, fifth = run.train.to_numpy(), len(run.train) // 5
        if losses[0] < (progress.trivial(run) or 0.0) / 2:
            return True
        older, newer = losses[-2 * fifth : -fifth], losses[-fifth:]
        return fifth >= 4 and abs(float(older.mean() - newer.mean())) < self.saturated * way

    def _saturated(self, run: Run, way: float) -> int | None:
        """The step after a third of the run, if the loss has not fallen since."""
        later = run.train.iloc[len(run.train) // 3 :]
        if len(run.train) < progress.READS:
            return None
        fall = float(later.iloc[: len(later) // 3].mean() - later.iloc[-(len(later) // 3) :].mean())
        return int(later.index[0]) if fall < self.saturated * way else None

    def _fix(self, steps: int) -> str:
        return f"Train longer: at least {max(500, 3 * steps):,} updates, by more epochs or smaller batches."

    @classmethod
    def _run(cls, rate: float) -> Run:
        train = 2.3 * np.exp(-rate * np.arange(200) / 200) + 0.01 * np.random.default_rng(0).standard_normal(200)
        return synthetic.run(steps=200, train=train, data={"entropy": {"target": 2.3}}, **synthetic.CLASSES)

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(0.9)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(0.5)
