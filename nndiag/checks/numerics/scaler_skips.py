"""ND804 scaler-skips."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from nndiag import progress, structure, synthetic
from nndiag.check import Check, Finding
from nndiag.run import Run
from nndiag.statistics import Array

EXTREMES = 1 / 9
"""Share of the rows of a thinned frame that are there for their size (`nndiag.thinning`): any of them may be a skipped one."""


@dataclass(frozen=True)
class ScalerSkips(Check):
    """The gradient scaler leaves out many updates: gradients overflow in half precision.

    A scaler multiplies the loss so that small gradients do not become 0, leaves an update out where a gradient overflows, and
    halves its factor (Micikevicius et al. 2018). A few skips at the start find the factor, and after that PyTorch's default
    tries twice the factor every 2000 updates: one skip in 2000. What is skipped beyond that is lost, and where halving does
    not help, gradients are infinite or no numbers by themselves.

    Decides on the updates that the loop frame counts as skipped: more than `share` of `window` iterations in a row; so many of
    fewer iterations count, too. Of a long run that is read in part, a ninth is allowed besides. Skips since the loss itself
    stopped being a number are not counted (ND801).
    """

    code = "ND804"
    name = "scaler-skips"
    kind = "training"
    needs = ("loop.skipped_updates",)
    min_reads = 20
    advice = "Look for what overflows: lower the learning rate, clip after unscaling, or compute in bfloat16, without a scaler."
    confirm = "run.loop[['skipped_updates', 'loss_scale']].plot(subplots=True, logy=True)"
    passed = "hardly an update is left out"

    share: float = 0.05
    window: int = 200

    def not_checked(self, run: Run) -> str | None:
        if reason := super().not_checked(run):
            return reason
        skipped = self._skipped(run)
        if not len(skipped):
            return "the loss is no number from the start (ND801)"
        if not structure.scaler_at_work(run):
            return "no gradient scaler is at work"
        short = len(skipped) < self.window and not self._over(skipped).any()
        return f"needs {self.window} iterations with a gradient scaler, has {len(skipped)}" if short else None

    def examine(self, run: Run) -> Iterator[Finding]:
        skipped = self._skipped(run)
        over = np.flatnonzero(self._over(skipped))
        if not len(over):
            return
        end, scale = int(over[0]) + 1, run.loop["loss_scale"].dropna()
        window = skipped.iloc[max(0, end - self.window) : end] > 0
        steps = skipped.index[: over[-1] + 1][skipped.iloc[: over[-1] + 1] > 0]
        yield self.finding(
            f"the gradient scaler left out {int(window.sum())} of {len(window)} updates"
            + (f"; its factor ends at {scale.iloc[-1]:.3g}" if len(scale) else ""),
            steps=(window.index[window][0], steps[-1]), value=float(window.mean()),
            threshold=self.share, causes=("ND402", "ND501", "a factor that is raised too often"),
        )  # fmt: skip

    def _skipped(self, run: Run) -> pd.Series[float]:
        """Skipped updates by iteration, while the loss is a number."""
        skipped, broken = run.loop["skipped_updates"].dropna(), run.meta.broken_at
        if broken is None or not progress.ended_nonfinite(run):
            return skipped
        return skipped[skipped.index < broken]

    def _over(self, skipped: pd.Series[float]) -> Array:
        """Where the iterations before, up to a window of them, have too many skipped ones."""
        total = np.concatenate([np.zeros(self.window), np.cumsum(skipped.to_numpy() > 0)])
        steps = skipped.index.to_numpy()
        first = np.concatenate([np.full(min(self.window - 1, len(steps)), steps[0]), steps])[: len(steps)]
        thinned = steps - first >= self.window
        allowed = np.where(thinned, self.share + EXTREMES, self.share)
        return np.asarray(total[self.window :] - total[: -self.window] > allowed * self.window)

    @classmethod
    def _run(cls, skipped: int) -> Run:
        row = np.arange(200) % (200 // skipped) == 0
        return synthetic.run(steps=200, loop={"skipped_updates": row.astype(float), "loss_scale": 1024.0})

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(8)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(20)
