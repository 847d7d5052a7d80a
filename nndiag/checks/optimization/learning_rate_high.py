"""ND501 learning-rate-high."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from nndiag import progress, signals, structure, synthetic
from nndiag.causes import ANEW, WRONG_SIGN
from nndiag.check import Check, Finding
from nndiag.checks.activations.dead_units import DeadUnits
from nndiag.checks.gradients.vanishing_gradients import VanishingGradients
from nndiag.checks.loss_curve.diverging import Diverging
from nndiag.losses import WEIGHTED
from nndiag.run import Run

USUAL_RATIO = 1e-3
"""Update norm over weight norm that trains well in practice (Bottou's rule of thumb; Karpathy 2015, CS231n)."""


@dataclass(frozen=True)
class LearningRateHigh(Check):
    """Updates are too large for the weights they change.

    A step that is too long overshoots: the loss climbs instead of falling, units die, or the run jumps about without
    settling (Goodfellow, Bengio & Courville 2016, section 8.3.1).

    Decides on two things. The loss rises from the start: the mean of `window` reads in a row, among the first `early`, is
    above `rise` times the loss before any update and above `rise` times what a trivial prediction costs, or the loss is
    no number after such a read. Or updates are too large: the norm of the update over that of the weight, in the median
    of all weights, above `ratio` (10^-1.5, thirty times the usual 1e-3 and twice what any sound run of the zoo holds) on
    most reads after the warm-up, short of `arrived` of the way (weights that shrink to 0 have large updates to the end)
    and unless each of three validations or more was better than the last; or, under the same conditions, above `leap` in
    the median of the first `window` reads. Sound runs begin with up to 0.06; a leap of a tenth of all weights at each of
    the first steps loses the initialisation. Without hidden layers, or where most weights begin below `small` of He's
    standard deviation, there is none to lose, and with Adagrad steps shrink by themselves: there the leap counts where training
    makes poor progress. So do large updates to the end without hidden layers, and where weights begin small: both may well be
    small beside what the batches add to them. Where training makes poor progress, updates above `ratio` in the first `window`
    reads are enough if a gradient reached the first layers then and next to none does later (as ND401 decides).

    Or updates are `brisk`, five times as large as usual, in the median of the `first` reads, and the run shows that it is
    thrown about: its second half and its end stay `above` the loss of a trivial prediction, which the last bias alone, if there
    is one, could reach, and do not fall towards it (`nndiag.progress.closing`); or it had come `gained` of its way and has lost
    half of that (as ND602 decides); or, short of `arrived`, more than half of the units of a ReLU layer have fallen silent (as
    ND301 decides) that had spoken at the start, or most weights have no gradient any more, from one of the first `most` of the
    reads to the end. Updates count while there is a gradient.
    """

    code = "ND501"
    name = "learning-rate-high"
    kind = "training"
    needs = ("losses.train",)
    min_reads = 5
    advice = "Lower the learning rate by 10, or warm it up."
    confirm = "run.losses['train'].head(50).plot(logy=True)"
    passed = "updates are in proportion to the weights"

    ratio: float = 10**-1.5
    leap: float = 0.1
    rise: float = 3.0
    early: int = 50
    window: int = 10
    most: float = 0.5
    arrived: float = 0.9
    brisk: float = 5e-3
    first: int = 200
    above: float = 0.1
    small: float = 0.15
    gained: float = 0.25

    def not_checked(self, run: Run) -> str | None:
        broken = run.meta.broken_at
        if broken is not None and broken < self.early and len(run.train) > 1:
            return None  # what is no number after a few steps is enough to judge by
        return super().not_checked(run)

    def examine(self, run: Run) -> Iterator[Finding]:
        looks = (self._rising, self._too_large, self._thrown_about)
        if (finding := next((found for look in looks if (found := look(run)) is not None), None)) is not None:
            yield finding
        elif not structure.weights(run, "updates", "ratio"):
            yield self.note("the size of the updates is not recorded: only the loss was looked at")

    def _of_updates(self, run: Run, ratio: float, first_step: int, last_step: int, *, limit: float, more: str = "",
                    place: str = "") -> Finding:  # fmt: skip
        """What is said of updates of this `ratio` to the weights."""
        return self.finding(
            f"updates are {ratio:.2g} of the weights, where about {USUAL_RATIO:g} is usual{more}",
            steps=(first_step, last_step), value=ratio, threshold=limit, fix=self._fix(run), place=place,
        )  # fmt: skip

    def _rising(self, run: Run) -> Finding | None:
        early = run.train.iloc[: self.early]
        start = float(early.iloc[0])
        if not start > 0 or progress.no_measure(run):
            return None  # a loss without a floor of 0 has no multiples
        scaled = run.meta.loss.get("scale", 1.0) is None  # by factors that are not known, as of a focal loss
        if scaled or any(run.meta.loss.get(key) is not None for key in WEIGHTED):
            start = max(start, float(early.iloc[: self.window].mean()))  # a batch without the heavy samples is cheap
        limit = self.rise * max(start, progress.trivial(run) or start)
        above = early.index[early > limit]
        if not len(above):
            return None
        window = min(self.window, len(early) - 1)
        lasting = bool((early.iloc[1:].rolling(window).mean() > limit).any())
        broken = run.meta.broken_at
        lost = broken is not None and int(above[0]) <= broken < self.early
        if not lasting and not lost:
            return None
        peak = float(early.max())
        return self.finding(
            f"the loss rises from {start:.3g} to {peak:.3g} within the first {self.early} steps",
            steps=(above[0], early.index[int(early.argmax())]), value=peak / start,
            threshold=self.rise, fix=self._fix(run),
            causes=(WRONG_SIGN,) if structure.by_hand(run) else (),
        )  # fmt: skip

    def _too_large(self, run: Run) -> Finding | None:
        trained = progress.training(run)
        weights = structure.weights(run, "updates", "ratio")
        if trained is None or not weights or trained.trivial is None or self._arrived(trained):
            return None  # weights that become 0 on the way, as of a quadratic, have large updates to the end
        if len(run.validation) >= progress.EVALUATIONS and signals.descends(run.validation.to_numpy()):
            return None  # such a run does not jump about
        ratio = run.statistic("updates", "ratio")[weights].median(axis=1)
        early, later = ratio.iloc[: self.window], ratio.iloc[signals.warm_up(len(ratio)) :]
        first = float(early.dropna().median())
        # The steps of Adagrad fall with the root of their number.
        shrinking = "adagrad" in str(run.meta.optimizer.get("name")).lower()
        if first > self.leap and (trained.poor or (self._has_a_beginning(run, weights) and not shrinking)):
            return self._of_updates(run, first, int(early.index[0]), int(early.index[-1]), limit=self.leap)
        if trained.poor and first > self.ratio and (step := VanishingGradients().cut_off(run)) is not None:
            more = f", and from step {step} on next to no gradient reaches the first layers"
            return self._of_updates(run, first, int(early.index[0]), step, limit=self.ratio, more=more)
        linear = structure.recorded(run, "mean") and not structure.hidden(run)
        if (linear or self._begins_small(run, weights)) and not trained.poor:
            return None
        bad = (later > self.ratio).to_numpy()
        if len(bad) < 20 or bad.mean() < self.most or (at := signals.onset(bad)) is None:
            return None
        steps = int(later.index[at]), int(later.index[np.flatnonzero(bad)[-1]])
        return self._of_updates(run, float(later.median()), *steps, limit=self.ratio)

    def _arrived(self, trained: progress.Progress) -> bool:
        """Whether `arrived` of the way is behind it, also of that from what knowing nothing costs: large steps start fast."""
        known, floor = trained.trivial, trained.floor
        of_guess = known is not None and trained.now < floor + (1 - self.arrived) * (known - floor)
        return trained.value > self.arrived or of_guess

    def _has_a_beginning(self, run: Run, weights: list[str]) -> bool:
        """Whether there are hidden layers, and most weights begin with `small` of He's standard deviation or more."""
        return bool(structure.hidden(run)) and bool(structure.over_he(run, weights).median() >= self.small)

    def _begins_small(self, run: Run, weights: list[str]) -> bool:
        """Whether most weights are known to begin with less."""
        return bool(structure.over_he(run, weights).median() < self.small)

    def _thrown_about(self, run: Run) -> Finding | None:
        """Brisk updates, with what shows that they are too large."""
        trained = progress.training(run)
        weights = structure.weights(run, "updates", "ratio")
        if trained is None or not weights or not np.isfinite(trained.now):
            return None
        ratios = run.statistic("updates", "ratio")[weights]
        still = structure.without_gradient(run, ratios)
        value = float(ratios.mask(still).median(axis=1).dropna().iloc[: self.first].median())
        if not value > self.brisk:
            return None
        fact, place = self._lost(run, trained), ""
        if not fact and trained.value < self.arrived:
            if (step := self._stopped(still)) is not None:
                fact = f"from step {step} on no gradient reaches most of them"
            elif layer := self._killed(run):
                fact = f"most units of {layer} have fallen silent"
                place = "ND502"  # which leaves ND301 a fault of its own
        steps = int(run.train.index[0]), int(run.train.index[-1])
        more = f", and {fact}"
        return self._of_updates(run, value, *steps, limit=self.brisk, more=more, place=place) if fact else None

    def _lost(self, run: Run, trained: progress.Progress) -> str:
        """How the loss has lost ground, or never gained any; "" where it has not."""
        later, known = float(run.train.iloc[len(run.train) // 2 :].mean()), trained.trivial
        above = known is not None and min(later, trained.now) > (1 + self.above) * known and structure.has_biases(run)
        if above and not progress.closing(run):
            return f"the loss stays at {later:.3g}, where a trivial prediction costs {known:.3g}"
        if trained.best_value > self.gained and any(found.place != ANEW for found in Diverging().found(run)):
            return f"the loss is back at {trained.now:.3g} after a best of {trained.best:.3g}"
        return ""

    def _stopped(self, still: pd.DataFrame) -> int | None:
        """The step from which on most weights have no gradient, though they had one before; None if there is none."""
        at = signals.lasting_onset((still.mean(axis=1) > self.most).to_numpy())
        return None if at is None or not 0 < at < self.most * len(still) else int(still.index[at])

    def _killed(self, run: Run) -> str | None:
        """A layer most of whose units have fallen silent, and had not been so at the start."""
        check, at_start = DeadUnits(), run.statistic("activations", "dead_fraction")
        return next((f.layer for f in check.found(run) if f.layer and at_start[f.layer].iloc[0] < check.fraction), None)

    def _fix(self, run: Run) -> str:
        lr, weights = run.first("metrics", "lr", "train"), structure.weights(run, "updates", "ratio")
        if not lr or not weights:
            return self.advice
        seen = float(run.statistic("updates", "ratio")[weights].iloc[:5].median(axis=1).max())
        factor = np.clip(seen / USUAL_RATIO / 3, 3.0, 100.0) if seen > 0 else 10.0
        return f"Try lr = {lr / factor:.1g} instead of {lr:.3g}, or warm it up."

    @classmethod
    def _run(cls, peak: float) -> Run:
        train = np.full(100, 2.4)
        train[0], train[3:12] = 2.5, peak
        return synthetic.run(train=train, data={"entropy": {"target": 2.3}}, **synthetic.CLASSES)

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(6.0)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(9.0)
