"""ND502 learning-rate-low."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from nndiag import progress, signals, structure, synthetic
from nndiag.causes import UNMOVED
from nndiag.check import Check, Finding
from nndiag.checks.optimization.learning_rate_high import USUAL_RATIO
from nndiag.run import Run


@dataclass(frozen=True)
class LearningRateLow(Check):
    """Updates are too small for the weights they change: the network would need ages to get anywhere.

    Nothing looks wrong, the loss even falls, but most of the way is left when the run ends.

    Decides on the norm of the update over that of the weight, largest over all weights: below `ratio` in the median of the
    first `early` reads after the warm-up, a hundredth of the usual 1e-3; or below `slow`, twice that usual size, while the
    loss still falls at the end (`nndiag.progress.unfinished`) with more than `left` of its way left. Where every one of many
    validations was better than the one before (`nndiag.progress.steady`), so even a descent has room for longer steps: then
    more than `even` of the way is enough, and updates below `steady`, a third of what ND501 calls too large, if there were
    `updates` or more. So are `several` such validations of a training that has come `hardly` of its way, or so little that it
    cannot be told from a guess; and so are `updates` or more that come to less than `way` of the weights all together, had
    each gone the same way as the others, where training makes poor progress: the network is then what the initialisation made
    it. Whatever else is found goes before these. A network that starts below half of the trivial loss is being fine-tuned,
    updates of exactly 0 or without a gradient have another cause unless the rate itself is 0, and where training has come
    `arrived` of the way tiny steps are what is left: none of these counts. Only early reads count for the first rule: at the
    end of a run that has converged, or whose learning rate decays to zero, small updates are sound.
    """

    code = "ND502"
    name = "learning-rate-low"
    kind = "training"
    needs = ("updates.ratio", "losses.train")
    advice = "Raise the learning rate by 10 until the loss falls clearly within the first hundred steps."
    confirm = "run.updates['ratio'].plot(logy=True)"
    passed = "updates are large enough to get somewhere"

    ratio: float = 1e-5
    slow: float = 2e-3
    steady: float = 1e-2
    hardly: float = 0.1
    early: int = 200
    left: float = 0.5
    even: float = 0.25
    several: int = 6
    way: float = 0.2
    updates: int = 100
    arrived: float = 0.5

    def not_checked(self, run: Run) -> str | None:
        if reason := super().not_checked(run):
            return reason
        return None if structure.weights(run, "updates", "ratio") else "no weights are updated"

    def examine(self, run: Run) -> Iterator[Finding]:
        ratios = run.statistic("updates", "ratio")[structure.weights(run, "updates", "ratio")]
        ratio = self._moved(run, ratios).max(axis=1).iloc[signals.warm_up(len(ratios)) :].iloc[: self.early]
        typical, trivial = float(ratio.median()), progress.trivial(run)
        if trivial is not None and run.train.iloc[0] < trivial / 2:
            return  # fine-tuning takes small steps on purpose
        if not typical > 0 and run.first("metrics", "lr", "train") != 0:
            return  # no gradient rather than a low rate
        tiny = typical < self.ratio and not self._arrived(run)
        even = progress.steady(run)
        slow, crawls = self._slow(run, self.even if even else self.left), self._crawls(run)
        small = tiny or (typical < self.slow and (slow or crawls))
        stays = self._stays(run, ratios)
        enough = run.steps >= self.updates or not slow  # else there were too few of them, as ND607 says
        if small or (enough and typical < self.steady and ((slow and even) or crawls)) or stays:
            fact = "the loss still falls, and much of the way is left"
            if not (slow or crawls):
                fact = f"all {run.steps} of them come to less than {self.way:.0%}, and nothing is learned"
            yield self.finding(
                f"updates are {typical:.2g} of the weights, where about {USUAL_RATIO:g} is usual"
                if tiny else f"with updates of {typical:.2g} of the weights {fact}",
                steps=ratios.index, value=typical,
                threshold=self.ratio if tiny else self.slow if typical < self.slow else self.steady,
                fix=self._fix(run, typical), place="" if small else UNMOVED if stays else "ND707",
            )  # fmt: skip

    def _moved(self, run: Run, ratios: pd.DataFrame) -> pd.DataFrame:
        """`ratios`, 0 where a weight has no gradient."""
        return ratios.mask(structure.without_gradient(run, ratios), 0.0)

    def _arrived(self, run: Run) -> bool:
        trained = progress.training(run)
        return trained is not None and trained.trivial is not None and trained.value > self.arrived

    def _crawls(self, run: Run) -> bool:
        """Whether `several` validations are each better than the last, of a training that has come nowhere, or hardly."""
        trained = progress.training(run)
        nowhere = trained is not None and (trained.poor is True or trained.value < self.hardly)
        return nowhere and progress.steady(run, self.several) and not progress.ended_nonfinite(run)

    def _stays(self, run: Run, ratios: pd.DataFrame) -> bool:
        """Whether training makes poor progress, and all updates together are less than `way` of the weights."""
        whole = float(self._moved(run, ratios).max(axis=1).mean()) * run.steps
        return progress.is_poor(run) and run.steps >= self.updates and whole < self.way

    def _slow(self, run: Run, way: float) -> bool:
        """Whether the loss still falls at the end, with more than `way` of its way to go, and validation is at its best."""
        left = progress.unfinished(run)
        return left is not None and left > way and signals.ends_at_best(run.validation.to_numpy())

    def _fix(self, run: Run, typical: float) -> str:
        lr = run.first("metrics", "lr", "train")
        if lr == 0:
            return "The learning rate is 0: give one, such as 0.01."
        if not lr or not typical > 0:
            return self.advice
        factor = max(3.0, USUAL_RATIO / typical)
        return f"Try lr = {lr * factor:.1g} instead of {lr:.3g}, and go on up by 3 while the loss falls faster."

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
