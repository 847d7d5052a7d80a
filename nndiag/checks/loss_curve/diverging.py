"""ND602 diverging."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from nndiag import progress, signals, synthetic
from nndiag.causes import ANEW
from nndiag.check import Check, Finding
from nndiag.run import Run
from nndiag.statistics import Array

WINDOW = 5
"""Reads whose median stands for a stretch of the loss."""


@dataclass(frozen=True)
class Diverging(Check):
    """The training loss had come down and has lost most of it again, or all of it time and again.

    After a good start the run has left the region where it was learning, mostly because the learning rate is too high
    for what the weights have become, or because of a batch that is unlike the others. A loss that begins anew at equal
    distances is that of a model that is made or initialised anew, such as in each epoch.

    Decides on progress, the share of the way from the start to the floor of the loss: its best was at least `learned`, and
    at the end less than `kept` of that best is left, with a rise of more than `errors` standard errors of 20 reads: the
    best of many noisy means is low by chance. Or the loss has begun anew `restarts` times or more, each with an epoch or
    all as far apart as the first is from the start, to 2 %: half of the way down in the median of 5 reads, then at one read
    within `again` of the way from the start, at the next within three times that, and above half in the median of these 5;
    on a way that is longer than `errors` times the scatter of single reads.
    """

    code = "ND602"
    name = "diverging"
    kind = "training"
    needs = ("losses.train",)
    min_reads = 50
    advice = "Go back to the checkpoint before the rise and lower the learning rate, or clip gradients."
    confirm = "run.losses['train'].plot()"
    passed = "what the training loss has gained, it keeps"

    learned: float = 0.1
    kept: float = 0.5
    errors: float = 4.0
    restarts: int = 2
    again: float = 0.1

    def not_checked(self, run: Run) -> str | None:
        return super().not_checked(run) or progress.no_measure(run)

    def examine(self, run: Run) -> Iterator[Finding]:
        trained = progress.training(run)
        if trained is not None and len(anew := self._begins_anew(run, trained.start)) >= self.restarts:
            steps = run.train.index.to_numpy()[anew]
            yield self.finding(
                f"the training loss begins anew at steps {int(steps[0])}, {int(steps[1])}, …, {len(anew)} times so far: what was "
                f"learned is gone each time",
                steps=steps, value=float(len(anew)), threshold=float(self.restarts),
                causes=("a model that is made or initialised anew in the loop", "an old checkpoint that is loaded in the loop",
                        "ND501"),
                fix="Make and initialise the model once, before the loop; watch each model of a cross-validation by itself.",
                place=ANEW,
            )  # fmt: skip
            return
        if trained is None or not np.isfinite(trained.now) or trained.best_value < self.learned:
            return
        noise = self.errors * max(trained.error, signals.spread(np.diff(run.train.to_numpy())) / np.sqrt(20))
        if trained.value < self.kept * trained.best_value and trained.now - trained.best > noise:
            train = run.train
            limit = trained.start - self.kept * trained.best_value * (trained.start - trained.floor)
            at = signals.lasting_onset((train.rolling(5, min_periods=1).median() > limit).to_numpy())
            yield self.finding(
                f"the training loss is back at {trained.now:.3g} after a best of {trained.best:.3g}",
                steps=(train.index[at if at is not None else -1], train.index[-1]),
                value=trained.value, threshold=self.kept * trained.best_value,
                causes=("ND501", "ND402", "a change in the data"),
            )  # fmt: skip

    def _begins_anew(self, run: Run, start: float) -> Array:
        """Positions at which the loss is back where it started; none unless they are equally far apart, or begin epochs."""
        train = run.train.to_numpy()
        medians = np.median(sliding_window_view(train, WINDOW), axis=1)
        span = start - float(np.min(medians))
        if not (np.isfinite(span) and span > self.errors * signals.spread(np.diff(train)) / np.sqrt(2)):
            return np.empty(0, int)
        at = np.arange(WINDOW, len(train) - WINDOW + 1)
        way = (start - train) / span  # 0 at the start, 1 at the best
        begins = (start - medians[at - WINDOW] > span / 2) & (start - medians[at] < span / 2)
        at = at[begins & (way[at] < self.again) & (way[at + 1] < 3 * self.again)]
        at = at[np.diff(at, prepend=-WINDOW) >= WINDOW]  # the first of each few in a row
        epochs = run.losses["epoch"].reindex(run.train.index).to_numpy()
        apart = np.diff(at, prepend=0)
        regular = len(at) and (np.ptp(apart) <= max(1, 0.02 * apart[0]) or (epochs[at] > epochs[at - 1]).all())
        return at if regular else np.empty(0, int)

    @classmethod
    def _run(cls, end: float) -> Run:
        train = np.concatenate([np.linspace(2.3, 1.0, 60), np.full(60, end)])
        return synthetic.run(steps=120, train=train, data={"entropy": {"target": 2.3}}, **synthetic.CLASSES)

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(1.5)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(1.9)
