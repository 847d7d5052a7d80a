"""ND707 no-generalisation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nndiag import progress, signals, structure, synthetic
from nndiag.check import Check, Finding
from nndiag.run import Run

WEAK = "too small a network, or too few steps, for what is there to learn"
"""Likely where nothing is learned of the training samples either."""

TRAILS = "an average of the weights whose decay is slow for so few steps, or a copy made before training"
"""What follows training from afar."""

UNCLEAR = ("See whether a tiny batch can be overfitted (NDP02): if not, train longer or use a larger network; if so, see whether "
           "labels belong to their inputs.")  # fmt: skip


@dataclass(frozen=True)
class NoGeneralization(Check):
    """Training falls, but validation never gets better than a trivial prediction: nothing learned carries over.

    Where labels have no bearing on the inputs (shuffled, misaligned), the network can only learn samples by heart. The
    same picture comes from a validation set that is prepared in another way than the training set, or from another
    distribution. It is not overfitting, where validation first improves: this check goes before ND701.

    Decides on the training loss, better than trivial by two standard errors, and the best smoothed validation loss, not
    better than trivial by `errors` standard errors and `margin` of it: the best of many evaluations lies below the trivial
    loss by chance alone. A network too small to learn by heart stays at the trivial loss itself: that counts where it ends
    within `near` of it after `updates` updates of ordinary size (`slow` to `fast` of the weights), so that nothing but the
    labels keeps it there; what is found further up explains it otherwise, and a validation loss that falls at every
    evaluation of the second half, `evaluations` or more, is on its way. A run that still goes on, and whose validation
    is at its best, is left its time.

    Or training has `arrived`, and validation is better at each of `several` evaluations or more and has still come less than
    `behind` of its way: what is evaluated follows from afar, as an average of the weights over more steps than there were.
    """

    code = "ND707"
    name = "no-generalisation"
    kind = "generalisation"
    needs = ("losses.validation", "losses.train")
    min_reads = 6
    advice = "See whether labels belong to their inputs, and whether validation goes through the same preprocessing."
    confirm = "show a few (input, label) pairs of both sets, after all preprocessing"
    passed = "validation beats a trivial prediction"

    errors: float = 3.0
    margin: float = 0.02
    near: float = 0.05
    updates: int = 150
    evaluations: int = 5
    slow: float = 3e-4
    fast: float = 10**-1.5
    arrived: float = 0.9
    behind: float = 0.2
    several: int = 8

    def not_checked(self, run: Run) -> str | None:
        if reason := super().not_checked(run) or progress.no_measure(run):
            return reason
        if progress.trivial(run) is None:
            return "needs the loss of a trivial prediction: the kind of loss and the targets are not recorded"
        trained = progress.training(run)
        if trained is None:
            return f"needs {progress.READS} reads of losses.train"
        if trained.poor and not self._at_trivial(run, trained):
            return "training itself makes no progress, there is nothing to carry over"
        if run.meta.ended == "running" and signals.ends_at_best(run.validation.to_numpy()):
            return "the run goes on, and validation is at its best"
        return None

    def _at_trivial(self, run: Run, trained: progress.Progress) -> bool:
        """Whether training has settled at the trivial loss though its updates are of ordinary size."""
        weights = structure.weights(run, "updates", "ratio")
        if trained.trivial is None or not weights or run.steps < self.updates:
            return False
        usual = float(run.statistic("updates", "ratio")[weights].median(axis=1).dropna().median())
        later = run.validation.to_numpy()[len(run.validation) // 2 :]
        falls = len(later) >= self.evaluations and signals.descends(later)
        settled = abs(trained.now - trained.trivial) <= self.near * abs(trained.trivial)
        return bool(settled and not falls and self.slow <= usual <= self.fast)

    def examine(self, run: Run) -> Iterator[Finding]:
        trained, trivial = progress.training(run), progress.trivial(run)
        if trained is None or trivial is None:
            return
        validation = run.validation
        best = float(validation.rolling(3, min_periods=1).median().min())
        steps, turns = np.diff(validation.to_numpy()), np.diff(validation.to_numpy(), n=2)
        # White noise of size 1 gives differences of √2 and second differences of √6; a fall that slows down is in the first.
        noise = min(signals.spread(steps - np.median(steps)) / np.sqrt(2), signals.spread(turns) / np.sqrt(6))
        limit = trivial - max(self.margin * trivial, min(self.errors * noise, 0.1 * trivial))
        if best >= limit:
            other = WEAK if trained.poor else "validation from another distribution"
            yield self.finding(
                f"the best validation loss is {best:.3g}, where a trivial prediction costs {trivial:.3g}; training ends at "
                f"{trained.now:.3g}",
                steps=validation.index, value=best, threshold=limit,
                causes=("labels that do not belong to the inputs", "ND009", other), fix=UNCLEAR if trained.poor else "",
            )  # fmt: skip
        elif trained.value > self.arrived and (share := self._trails(run)) is not None:
            yield self.finding(
                f"the validation loss falls each time and has come {share:.0%} of its way, to {validation.iloc[-1]:.3g}; the "
                f"training loss is {trained.now:.3g}",
                steps=validation.index, value=share, threshold=self.behind,
                causes=(TRAILS, "ND009"), fix=f"Look at what is evaluated: {TRAILS}?",
            )  # fmt: skip

    def _trails(self, run: Run) -> float | None:
        """The share of its way that validation has come, where that is little and it has never stopped."""
        validated = progress.validation(run)
        if validated is None or validated.value >= self.behind or not progress.steady(run, self.several):
            return None
        return validated.value

    @classmethod
    def _run(cls, best: float) -> Run:
        validation = {20 * (i + 1): best + 0.02 * i for i in range(10)}
        return synthetic.run(
            steps=200, train=synthetic.decay(200), validation=validation, data={"entropy": {"target": 2.3}},
            **synthetic.CLASSES,
        )  # fmt: skip

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(2.2)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(2.285)
