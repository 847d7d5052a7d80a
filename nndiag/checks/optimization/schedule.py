"""ND505 schedule."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from nndiag import progress, signals, structure, synthetic
from nndiag.check import Check, Finding
from nndiag.checks.optimization.learning_rate_low import LearningRateLow
from nndiag.run import Run
from nndiag.statistics import Array


@dataclass(frozen=True)
class Schedule(Check):
    """The learning rate is not where it should be at that point of the run.

    It stays at 0 after the start, leaps up in the middle, or is gone long before the end: a schedule that counts epochs
    where it should count steps, or the other way round, or that was made for a run of another length.

    Decides on the learning rate of each step. It is 0 for more than `idle` of the run before it is anything else. Or after
    the first `idle` of the run it rises to `leap` times all that it has been or more, from one read to the next; a warm-up
    climbs in small steps, a step of 10 belongs to its beginning (He et al. 2016, section 4.2), and restarts return to where
    they were (Loshchilov & Hutter 2017). Or it is below `gone` times its largest for good before the last `end` of the run,
    with more than `left` of the loss's way to go. Until it had come down to a tenth of its largest the loss then fell, for
    its learning rate, at no less than `pace` of its mean pace (an exponential that has gone three quarters of its way falls
    at 0.6) and validation ends at its best. Or the rate is gone for `long` of the run or more, with more than `rest` of the
    way left, though the last quarter of the steps before that had still gained `gain` of the way over the quarter before it.
    Where it is gone for `most` of the run and less than `little` of the way was made, there was no time to fall; and nobody
    plans for a rate that is gone for `nearly` all of the run; nor where updates are found to be too small (as ND502 decides) that
    were not, `lively` of the weights or more in the median, before the rate was gone. Or all rates together come to less than
    `spent` of as many steps at the largest, as where a decay that was meant for epochs counts steps, with more than `rest` of the
    way left, the loss still falling for its rate at `pace` or more, and validation at its best. A cosine to zero at the end and a
    loss that had settled pass. A rate that is 0 throughout is ND502's.
    """

    code = "ND505"
    name = "schedule"
    kind = "training"
    needs = ("metrics.lr", "losses.train")
    min_reads = 50
    advice = "Give the schedule the number of steps of this run: epochs × batches an epoch."
    confirm = "run.metrics['lr'].plot(logy=True)"
    passed = "the learning rate is where it should be all along"

    idle: float = 0.1
    leap: float = 10.0
    gone: float = 1e-3
    end: float = 0.1
    left: float = 0.5
    pace: float = 0.6
    long: float = 0.25
    rest: float = 0.1
    gain: float = 0.02
    most: float = 0.75
    little: float = 0.25
    nearly: float = 0.85
    spent: float = 0.05
    lively: float = 1e-4

    def not_checked(self, run: Run) -> str | None:
        if reason := super().not_checked(run):
            return reason
        rates = run.series("metrics", "lr", "train")
        if len(rates) < self.min_reads or not np.isfinite(rates).all():
            return f"needs {self.min_reads} finite learning rates"
        return None if rates.max() > 0 else "the learning rate is never above 0, which ND502 names"

    def examine(self, run: Run) -> Iterator[Finding]:
        rates = run.series("metrics", "lr", "train")
        steps, lr = rates.index.to_numpy(), rates.to_numpy()
        for look in (self._idle, self._leap, self._gone, self._spent):
            if (finding := look(run, steps, lr)) is not None:
                yield finding
                return

    def _idle(self, run: Run, steps: Array, lr: Array) -> Finding | None:
        begin = int(np.argmax(lr > 0))
        if steps[begin] - steps[0] <= self.idle * (steps[-1] - steps[0] + 1):
            return None
        return self.finding(
            f"the learning rate is 0 for the first {begin} reads, up to step {steps[begin]}",
            steps=(steps[0], steps[begin - 1]), value=0.0, threshold=0.0,
            causes=("a warm-up that counts epochs, or begins late",),
        )  # fmt: skip

    def _leap(self, run: Run, steps: Array, lr: Array) -> Finding | None:
        before = np.maximum.accumulate(lr)[:-1]
        late = steps[1:] - steps[0] > self.idle * (steps[-1] - steps[0])
        bad = np.flatnonzero((lr[1:] > self.leap * before * (1 - 1e-6)) & (before > 0) & late)
        if not len(bad):
            return None
        step, old, new = int(steps[bad[0] + 1]), float(before[bad[0]]), float(lr[bad[0] + 1])
        return self.finding(
            f"the learning rate leaps from at most {old:.3g} to {new:.3g} at step {step}",
            steps=step, value=new / old, threshold=self.leap,
            causes=("a warm-up that sets in late", "parts of the schedule in the wrong order"),
            fix=f"Keep the rate at {old:.3g} or below after step {step}, or begin with a warm-up.",
        )  # fmt: skip

    def _gone(self, run: Run, steps: Array, lr: Array) -> Finding | None:
        at = signals.lasting_onset(lr <= self.gone * lr.max())
        trained = progress.training(run)
        if at is None or trained is None or not trained.start > trained.floor:
            return None
        unused = (steps[-1] - steps[at]) / (steps[-1] - steps[0])
        wasted = unused >= self.long and trained.value < 1 - self.rest
        if not wasted and (unused < self.end or trained.value > 1 - self.left):
            return None
        last = int(steps[np.flatnonzero(lr > 0.100001 * lr.max())[-1]])
        until = run.train.loc[:last]
        falling = self._falling(run, until, trained.start)
        falling = falling or (unused >= self.most and (trained.poor is True or trained.value < self.little))
        falling = falling or (unused >= self.nearly and wasted)
        falling = falling or (wasted and self._was_lively(run, last) and bool(LearningRateLow().found(run)))
        if not falling and not (wasted and self._gaining(until.to_numpy(), trained.start - trained.floor)):
            return None
        return self.finding(
            f"the learning rate is down to {lr[at]:.2g} at step {steps[at]} of {steps[-1] + 1}, and {1 - trained.value:.0%} of "
            f"the loss's way is left",
            steps=(steps[at], steps[-1]), value=float(lr[at] / lr.max()), threshold=self.gone,
            causes=("a schedule made for fewer steps",),
            fix=f"Let the schedule end at step {steps[-1] + 1} instead of step {steps[at]}.",
        )  # fmt: skip

    def _spent(self, run: Run, steps: Array, lr: Array) -> Finding | None:
        durations = _rates(run, run.train)
        share, trained = float(durations.mean() / lr.max()), progress.training(run)
        falls = lr.argmax() < lr.argmin()
        if share >= self.spent or not falls or trained is None or not trained.start > trained.floor:
            return None
        if trained.value > 1 - self.rest or not self._falling(run, run.train, trained.start):
            return None
        total = int(run.train.index[-1]) + 1
        return self.finding(
            f"the learning rate falls from {lr.max():.2g} to {lr[-1]:.2g}: all {total} steps come to {share * total:.0f} at the "
            f"largest, and {1 - trained.value:.0%} of the loss's way is left",
            steps=(steps[np.argmax(lr < lr.max() / 2)], steps[-1]), value=share, threshold=self.spent,
            causes=("a decay that counts steps where it should count epochs",),
            fix="Let the rate fall more slowly: after half of all steps it should still be above a tenth of the largest.",
        )  # fmt: skip

    def _falling(self, run: Run, losses: pd.Series[float], start: float) -> bool:
        """Whether `losses` still fall for their learning rates, and validation does."""
        pace = signals.pace(np.minimum(losses.to_numpy(), start), _rates(run, losses))
        return pace > self.pace and signals.ends_at_best(run.validation.to_numpy())

    def _was_lively(self, run: Run, last: int) -> bool:
        """Whether updates up to the step `last` were none of those that are too small."""
        ratios = run.statistic("updates", "ratio")[structure.weights(run, "updates", "ratio")].loc[:last]
        return float(ratios.max(axis=1).median()) >= self.lively

    def _gaining(self, losses: Array, way: float) -> bool:
        """Whether the last quarter of the reads is clearly below the one before."""
        few = max(1, len(losses) // 4)
        older, newer = losses[-2 * few : -few], losses[-few:]
        return len(older) > 0 and float(older.mean() - newer.mean()) > self.gain * way

    @classmethod
    def _run(cls, leap: float) -> Run:
        lr = np.where(np.arange(100) < 40, 0.01, 0.01 * leap)
        return synthetic.run(train=synthetic.decay(), metrics={"lr": {"train": lr}})

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(9.0)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(12.0)


def _rates(run: Run, losses: pd.Series[float]) -> Array:
    """The learning rate of each of the `losses`."""
    rates: Array = run.series("metrics", "lr", "train").reindex(losses.index).ffill().fillna(0.0).to_numpy()
    return rates
