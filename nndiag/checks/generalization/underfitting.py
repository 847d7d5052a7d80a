"""ND702 underfitting."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nndiag import progress, synthetic
from nndiag.check import Check, Finding
from nndiag.losses import OTHER_TERMS
from nndiag.progress import Term
from nndiag.run import Run


@dataclass(frozen=True)
class Underfitting(Check):
    """At the end the network is no better on its own training data than a trivial prediction.

    Always predicting the frequencies of the labels, or the mean of the targets, costs as much. Either it has not learned
    (then a cause stands above this), or it is too small, too strongly regularised, or there is nothing to learn.

    Decides on the training loss over the last tenth of the reads, at least 20: not below the trivial loss by `errors`
    standard errors of its block means. Of a loss with other terms besides, the number says nothing of that, and what the loss
    that the run names is worth is measured from outputs and targets: its mean after the first third of the run, not below its
    trivial one by `least` of it, and the number has fallen more for its other terms than for this one. They then decide what is
    learned, as a sum does beside a mean. Of a run that still goes on nothing is said: ND601 sees there what does not fall.
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
    least: float = progress.LEAST

    def not_checked(self, run: Run) -> str | None:
        if reason := super().not_checked(run) or progress.no_measure(run):
            return reason
        if progress.trivial(run) is None and progress.of_term(run) is None:
            return "needs the loss of a trivial prediction: the kind of loss and the targets are not recorded"
        return "needs a run that has ended; this one is running" if run.meta.ended == "running" else None

    def examine(self, run: Run) -> Iterator[Finding]:
        trained, term = progress.training(run), progress.of_term(run)
        if term is not None and term.now >= (1 - self.least) * term.trivial and term.rest > term.fallen:
            yield self._swamped(run, term)
        if trained is None or trained.trivial is None or not np.isfinite(trained.now):
            return
        if trained.now >= trained.trivial - self.errors * trained.error:
            yield self.finding(
                f"the training loss ends at {trained.now:.3g}; a trivial prediction costs {trained.trivial:.3g}",
                steps=run.train.index[-1], value=trained.now,
                threshold=trained.trivial, causes=("ND502", "too small a network", "no signal in the data"),
            )  # fmt: skip

    def _swamped(self, run: Run, term: Term) -> Finding:
        """What is said of a loss that is no better than trivial among other terms."""
        name = str(run.meta.loss.get("name")).removesuffix(OTHER_TERMS)
        return self.finding(
            f"{name}, a part of the loss, stays at {term.now:.3g}; a trivial prediction costs {term.trivial:.3g}: "
            "other terms decide",
            steps=run.train.index[-1], value=term.now, threshold=term.trivial,
            causes=("a term that swamps the others, as a sum beside a mean", "ND502", "too small a network"),
            fix="Print each term of the loss, and bring them to one scale: all as means or all as sums, or weighed.",
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
