"""ND606 constant-loss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nndiag import synthetic
from nndiag.check import Check, Finding
from nndiag.run import Run


@dataclass(frozen=True)
class ConstantLoss(Check):
    """The training loss is the same on every step from the start.

    Batches differ and weights move, so a loss that never changes does not depend on them: the optimiser does nothing, the
    outputs are constant (a softmax over a single unit, a dead layer), or the loss is computed from something else. A loss
    of exactly 0 from the first step says that outputs and targets agree by construction: there is nothing to learn.

    Decides on all training losses: their range is below `same` of their magnitude, which is what float32 leaves of equal
    numbers after a sum over a batch. Exact, so 5 reads are enough.
    """

    code = "ND606"
    name = "constant-loss"
    kind = "exact"
    needs = ("losses.train",)
    min_reads = 5
    advice = "See that the loss is computed from the network's outputs and these targets, and that the optimiser steps."
    confirm = "print(run.losses['train'].describe(), run.updates['update_norm'].max())"
    passed = "the training loss changes from step to step"

    same: float = 1e-6

    def examine(self, run: Run) -> Iterator[Finding]:
        losses = run.train
        low, high = float(losses.min()), float(losses.max())
        if not np.isfinite(high - low) or high - low > self.same * max(abs(low), abs(high)):
            return
        still = run.first("metrics", "lr", "train") == 0
        exactly = "exactly 0" if high == low == 0 else f"{high:.6g}"
        yield self.finding(
            f"the training loss is {exactly} on all {len(losses)} reads",
            steps=losses.index, value=high - low,
            threshold=self.same * abs(high),
            causes=("ND102", "ND301", "ND502" if still else "ND503", "a loss that is not computed from the outputs"),
        )  # fmt: skip

    @classmethod
    def _run(cls, swing: float) -> Run:
        return synthetic.run(steps=20, train=0.7 * (1 + swing * (np.arange(20) % 2)))

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(1.5e-6)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(0.7e-6)
