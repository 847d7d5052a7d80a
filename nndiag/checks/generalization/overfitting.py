"""ND701 overfitting."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from nndiag import progress, signals, synthetic
from nndiag.check import Check, Finding
from nndiag.run import Run
from nndiag.statistics import Array

EVALUATED = "an evaluation that computes something else than training: batch norm, dropout, or how inputs are scaled"


@dataclass(frozen=True)
class Overfitting(Check):
    """The validation loss rises while the training loss falls: the network learns its training samples by heart.

    From the best evaluation on, every further step makes it worse on new data.

    Decides on the validation loss, smoothed by a running median of 3: its last `evaluations` values all above its best by
    more than `errors` standard errors (from the scatter between neighbouring evaluations) and by more than `rise` of its
    progress (from a trivial prediction's loss, where that is known, to its best), while the training loss is no higher than
    it was at that best. A gap between the two curves alone is no fault: where it widens while validation still falls (section
    12 of the lesson), that is a note. Where the first evaluation is `apart` times the training loss beside it or more, and none
    gets down to that, it may be the evaluation: nothing is known by heart that early.
    """

    code = "ND701"
    name = "overfitting"
    kind = "generalisation"
    needs = ("losses.validation", "losses.train")
    min_reads = 6
    advice = "Stop at the best evaluation; then more data, weight decay, dropout, or a smaller network."
    confirm = "nndiag.plots.losses(run)"
    passed = "validation does not rise while training falls"

    errors: float = 3.0
    rise: float = 0.05
    evaluations: int = 3
    apart: float = 2.0

    def not_checked(self, run: Run) -> str | None:
        if reason := super().not_checked(run) or progress.no_measure(run):
            return reason
        if not np.isfinite(run.validation).any():
            return "no validation loss is finite"
        return "training itself makes no progress, there is nothing to overfit" if progress.is_poor(run) else None

    def examine(self, run: Run) -> Iterator[Finding]:
        validation = run.validation
        smooth = validation.rolling(3, center=True, min_periods=1).median()
        best_at = int(np.argmin(smooth))
        best, tail = float(smooth.iloc[best_at]), smooth.iloc[-self.evaluations :]
        known = progress.trivial(run)  # the first evaluation comes after training has begun
        start = float(validation.iloc[0]) if known is None else known
        limit = best + max(self.errors * self._noise(validation.to_numpy()), self.rise * max(start - best, 0.0))
        train = self._train_at(run)
        if best_at < len(smooth) - self.evaluations and (tail > limit).all() and train.iloc[-1] <= train.iloc[best_at]:
            step = int(smooth.index[best_at])
            other = min(float(validation.iloc[0]), best) > self.apart * float(train.iloc[0]) > 0
            yield self.finding(
                f"the validation loss rises from {best:.3g} at step {step} to {tail.iloc[-1]:.3g} while training falls",
                steps=(step, smooth.index[-1]), value=float(tail.iloc[-1]), threshold=float(limit),
                causes=(*(EVALUATED,) * other, "too little data for this network", "wrong labels learned by heart",
                        "no regularisation"),
                fix=f"Stop at step {step}{self._epoch(run, step)}; then more data, weight decay, dropout or a smaller network.",
            )  # fmt: skip
        else:
            yield from self._gap(validation, train)

    def _noise(self, losses: Array) -> float:
        """Standard error of an evaluation: differences between neighbours have √2 times its spread."""
        steps = np.diff(losses)
        return signals.spread(steps - np.median(steps)) / np.sqrt(2) if len(steps) > 1 else 0.0

    def _train_at(self, run: Run) -> pd.Series[float]:
        """Training loss at each evaluation: the mean of the reads since the one before, 20 at the most."""
        evaluations = run.validation.index
        spacing = int(np.median(np.diff(evaluations))) if len(evaluations) > 1 else 1
        train = run.train.rolling(min(max(spacing, 1), 20), min_periods=1).mean()
        return train.reindex(evaluations, method="ffill").bfill()

    def _epoch(self, run: Run, step: int) -> str:
        epoch = run.losses["epoch"].get(step)
        return f" (epoch {epoch})" if epoch is not None and not pd.isna(epoch) and epoch > 0 else ""

    def _gap(self, validation: pd.Series[float], train: pd.Series[float]) -> Iterator[Finding]:
        gap, few = validation - train, max(self.evaluations, len(validation) // 10)
        first, last = float(gap.iloc[:few].median()), float(gap.iloc[-few:].median())
        third = len(validation) // 3
        falling = validation.iloc[-third:].median() < validation.iloc[-2 * third : -third].median()
        if falling and last > max(1.5 * first, 0.05 * float(validation.iloc[0])):
            yield self.note(
                f"the gap to the training loss has widened from {first:.2g} to {last:.2g}; validation still falls"
            )

    @classmethod
    def _run(cls, end: float) -> Run:
        validation = [*np.linspace(2.3, 0.8, 10), *np.linspace(0.8, end, 10)]
        return synthetic.run(
            steps=200, train=synthetic.decay(200, end=0.05), validation={10 * (i + 1): v for i, v in enumerate(validation)},
            data={"entropy": {"target": 2.3}}, **synthetic.CLASSES,
        )  # fmt: skip

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(0.86)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(1.2)
