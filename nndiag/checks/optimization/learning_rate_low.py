"""ND502 learning-rate-low."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nndiag import progress, signals, structure, synthetic
from nndiag.check import Check, Finding
from nndiag.checks.optimization.learning_rate_high import USUAL_RATIO
from nndiag.progress import first
from nndiag.run import Run


@dataclass(frozen=True)
class LearningRateLow(Check):
    """Updates are too small for the weights they change: the network would need ages to get anywhere.

    Nothing looks wrong, the loss even falls, but most of the way is left when the run ends.

    Decides on the norm of the update over that of the weight, largest over all weights: below `ratio` in the median of
    the first `early` reads after the warm-up, a hundredth of the usual 1e-3; or below `slow`, that usual size, while the
    loss falls steadily (its last quarter falls at no less than `steady` of the pace of its second) with more than `left` of
    the way to go. A network that starts below half of the trivial loss is being fine-tuned, updates of exactly 0 have
    another cause unless the rate itself is 0, and where training has come `arrived` of the way the rate was enough: none of
    these counts. Only early reads count for the first rule: at the end of a run that has converged, or whose learning rate
    decays to zero, small updates are sound.
    """

    code = "ND502"
    name = "learning-rate-low"
    kind = "training"
    needs = ("updates.ratio", "losses.train")
    advice = "Raise the learning rate by 10 until the loss falls clearly within the first hundred steps."
    confirm = "run.updates['ratio'].plot(logy=True)"
    passed = "updates are large enough to get somewhere"

    ratio: float = 1e-5
    slow: float = 1e-3
    early: int = 200
    steady: float = 0.8
    left: float = 0.7
    arrived: float = 0.5

    def not_checked(self, run: Run) -> str | None:
        if reason := super().not_checked(run):
            return reason
        return None if structure.weights(run, "updates", "ratio") else "no weights are updated"

    def examine(self, run: Run) -> Iterator[Finding]:
        ratios = run.statistic("updates", "ratio")[structure.weights(run, "updates", "ratio")]
        ratio = ratios.max(axis=1).iloc[signals.warm_up(len(ratios)) :].iloc[: self.early]
        typical, trivial = float(ratio.median()), progress.trivial(run)
        if trivial is not None and run.train.iloc[0] < trivial / 2:
            return  # fine-tuning takes small steps on purpose
        trained = progress.training(run)
        if trained is not None and trained.trivial is not None and trained.value > self.arrived:
            return  # small steps are what is left once it is there
        if typical == 0 and first(run, "metrics", "lr", "train") != 0:
            return  # no gradient rather than a low rate
        if typical < self.ratio or (typical < self.slow and self._steady(run)):
            yield self.finding(
                f"updates are {typical:.2g} of the weights, where about {USUAL_RATIO:g} is usual",
                first_step=int(ratios.index[0]), last_step=int(ratios.index[-1]), value=typical,
                threshold=self.ratio if typical < self.ratio else self.slow,
                causes=("learning rate too low",), fix=self._fix(run, typical),
            )  # fmt: skip

    def _steady(self, run: Run) -> bool:
        """Whether the loss falls as fast at the end as before, with most of the way to go."""
        trained, losses = progress.training(run), run.train.to_numpy()
        if trained is None or trained.value > 1 - self.left:
            return False
        second, _, last = (part for part in np.array_split(losses, 4)[1:])
        slopes = [signals.theil_sen(np.arange(len(part)), part) for part in (second, last)]
        return slopes[0] < 0 and slopes[1] <= self.steady * slopes[0]

    def _fix(self, run: Run, typical: float) -> str:
        lr = first(run, "metrics", "lr", "train")
        if lr == 0:
            return "The learning rate is 0: give one, such as 0.01."
        if not lr or not typical > 0:
            return self.advice
        return f"Try lr = {lr * USUAL_RATIO / typical:.1g} instead of {lr:.3g}, and go on up by 10 while the loss falls faster."

    @classmethod
    def _run(cls, ratio: float) -> Run:
        updates = {"ratio": {"h1.weight": ratio / 2, "output.weight": ratio}}
        return synthetic.run(train=synthetic.decay(end=1.4), updates=updates)

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(1.5e-5)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(0.7e-5)
