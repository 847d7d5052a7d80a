"""ND702 underfitting."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nndiag import progress, synthetic
from nndiag.check import Check, Finding
from nndiag.run import Run


@dataclass(frozen=True)
class Underfitting(Check):
    """At the end the network is no better on its own training data than a trivial prediction.

    Always predicting the frequencies of the labels, or the mean of the targets, costs as much. Either it has not learned
    (then a cause stands above this), or it is too small, too strongly regularised, or there is nothing to learn.

    Decides on the training loss over the last tenth of the reads, at least 20: not below the trivial loss by `errors`
    standard errors of its block means. Of a run that still goes on nothing is said: ND601 sees there what does not fall.
    """

    code = "ND702"
    name = "underfitting"
    kind = "training"
    needs = ("losses.train",)
    min_reads = 50
    advice = "Train longer, use a larger network, less regularisation; and see whether a tiny batch can be overfitted (NDP02)."
    confirm = "print(trainer.evaluate(x, y))"
    passed = "training beats a trivial prediction"

    errors: float = 2.0

    def not_checked(self, run: Run) -> str | None:
        if reason := super().not_checked(run) or progress.no_measure(run):
            return reason
        if progress.trivial(run) is None:
            return "needs the loss of a trivial prediction: the kind of loss and the targets are not recorded"
        return "needs a run that has ended; this one is running" if run.meta.ended == "running" else None

    def examine(self, run: Run) -> Iterator[Finding]:
        trained = progress.training(run)
        if trained is None or trained.trivial is None or not np.isfinite(trained.now):
            return
        if trained.now >= trained.trivial - self.errors * trained.error:
            yield self.finding(
                f"the training loss ends at {trained.now:.3g}; a trivial prediction costs {trained.trivial:.3g}",
                first_step=int(run.train.index[-1]), last_step=int(run.train.index[-1]), value=trained.now,
                threshold=trained.trivial, causes=("ND502", "too small a network", "no signal in the data"),
            )  # fmt: skip

    @classmethod
    def _run(cls, end: float) -> Run:
        train = 2.6 - (2.6 - end) * np.minimum(1.0, np.arange(100) / 50) + 0.02 * np.sin(np.arange(100))
        return synthetic.run(train=train, data={"entropy": {"target": 2.3}}, **synthetic.CLASSES)

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(2.25)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(2.31)
