"""ND601 not-learning."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nndiag import progress, signals, structure, synthetic
from nndiag.causes import WRONG_SIGN
from nndiag.check import Check, Finding
from nndiag.progress import Progress
from nndiag.run import Run


@dataclass(frozen=True)
class NotLearning(Check):
    """The training loss does not fall.

    Something upstream is broken: data, objective, initialisation or learning rate. A loss that sits at the entropy of
    the labels says that the network has learned their frequencies and nothing of the inputs.

    Decides on the first `reads` reads: the Theil–Sen slope over them takes the loss down by less than `progress` of
    the way from its start to its floor; and at the end of the run the progress is below that too, and not known to be
    better than a trivial prediction by two standard errors. Where the loss of a trivial prediction is not known it is
    a remark, unless `evaluations` validations or more stand still, too, by the same measure, or the loss of a backward pass of
    one's own has climbed to `climbed` times its start and scatters less than that start: the losses of adversaries and
    contrasts may stand still while all is well. Sound but noisy data with a
    true R² of 0.09 makes a progress of 0.12. A run that still goes on, and whose loss falls at last, is left its time.
    """

    code = "ND601"
    name = "not-learning"
    kind = "training"
    needs = ("losses.train",)
    min_reads = 50
    advice = (
        "Look upstream first; then try another learning rate, and see whether a tiny batch can be overfitted (NDP02)."
    )
    confirm = "nndiag.probes.overfit_tiny_batch(trainer, x, y)"
    passed = "the training loss falls"

    progress: float = 0.02
    reads: int = 200
    evaluations: int = 5
    climbed: float = 1.5

    def not_checked(self, run: Run) -> str | None:
        return super().not_checked(run) or progress.no_measure(run)

    def examine(self, run: Run) -> Iterator[Finding]:
        trained = progress.training(run)
        if trained is None or not np.isfinite(trained.now) or trained.poor is False or trained.value >= self.progress:
            return
        if progress.underway(run):
            return
        early = run.train.iloc[: self.reads]
        fall = -signals.theil_sen(early.index.to_numpy(), early.to_numpy()) * (early.index[-1] - early.index[0])
        if fall >= self.progress * (trained.start - trained.floor):
            return
        at_entropy = trained.trivial is not None and abs(trained.now - trained.trivial) < 0.02 * trained.trivial
        hint = ", which is what guessing costs" if at_entropy else ""
        climbs = self._climbs(run, trained)
        yield self.finding(
            f"after {run.steps} steps the training loss is {trained.now:.3g}{hint}; it began at {early.iloc[0]:.3g}",
            steps=(early.index[0], run.train.index[-1]), value=trained.value,
            kind=None if trained.trivial is not None or self._stands(run) or climbs else "note", threshold=self.progress,
            causes=(*(WRONG_SIGN,) * climbs, "ND501", "ND502", "labels that do not belong to the inputs"),
        )  # fmt: skip

    def _stands(self, run: Run) -> bool:
        """Whether no validation is better than the first one."""
        losses, floor = run.validation.to_numpy(), progress.floor(run)
        return len(losses) >= self.evaluations and bool(losses[0] - losses.min() < self.progress * (losses[0] - floor))

    def _climbs(self, run: Run, trained: Progress) -> bool:
        """Whether the loss has gone up, by gradients of the loop's own making."""
        start = trained.start - trained.floor
        steady = start > signals.spread(np.diff(run.train.to_numpy()))
        return structure.by_hand(run) and bool(steady and trained.now - trained.floor > self.climbed * start)

    @classmethod
    def _run(cls, end: float) -> Run:
        train = np.linspace(2.3, end, 200) + 0.1 * np.random.default_rng(0).standard_normal(200)
        return synthetic.run(steps=200, train=train, data={"entropy": {"target": 2.3}}, **synthetic.CLASSES)

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(2.3 * 0.96)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(2.3 * 0.99)
