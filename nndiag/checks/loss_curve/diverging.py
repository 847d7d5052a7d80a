"""ND602 diverging."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nndiag import progress, signals, synthetic
from nndiag.check import Check, Finding
from nndiag.run import Run


@dataclass(frozen=True)
class Diverging(Check):
    """The training loss had come down and has lost most of it again.

    After a good start the run has left the region where it was learning, mostly because the learning rate is too high
    for what the weights have become, or because of a batch that is unlike the others.

    Decides on progress, the share of the way from the start to the floor of the loss: its best was at least `learned`,
    and at the end less than `kept` of that best is left, with a rise of more than `errors` standard errors of 20 reads: the
    best of many noisy means is low by chance.
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

    def examine(self, run: Run) -> Iterator[Finding]:
        trained = progress.training(run)
        if trained is None or not np.isfinite(trained.now) or trained.best_value < self.learned:
            return
        noise = self.errors * max(trained.error, signals.spread(np.diff(run.train.to_numpy())) / np.sqrt(20))
        if trained.value < self.kept * trained.best_value and trained.now - trained.best > noise:
            train = run.train
            limit = trained.start - self.kept * trained.best_value * (trained.start - trained.floor)
            at = signals.lasting_onset((train.rolling(5, min_periods=1).median() > limit).to_numpy())
            yield self.finding(
                f"the training loss is back at {trained.now:.3g} after a best of {trained.best:.3g}",
                first_step=int(train.index[at if at is not None else -1]), last_step=int(train.index[-1]),
                value=trained.value, threshold=self.kept * trained.best_value,
                causes=("ND501", "ND402", "a change in the data"),
            )  # fmt: skip

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
