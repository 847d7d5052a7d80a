"""BAT001 leftover-batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nndiag import Check, Finding, Run, synthetic


@dataclass(frozen=True)
class LeftoverBatch(Check):
    """The last batch of each epoch is a small rest, and its update is mostly noise.

    Samples that do not divide by the batch size leave a rest. It makes an update at the full learning rate all the same,
    and the noise of a gradient grows with one over the root of the batch's size: a rest of one sample beside batches of
    64 is eight times as noisy, and batch normalisation has next to nothing to average over.

    Decides on the rows of each batch of outputs: the smallest below `share` of the median batch, where the gradient is
    more than four times as noisy. A rest of half a batch is normal and keeps quiet, and so do batches that are small all
    through, which are a choice.
    """

    code = "BAT001"
    name = "leftover-batch"
    kind = "training"
    needs = ("outputs.rows",)
    advice = "Leave the last batch out (drop_last), or choose a batch size that leaves more over."
    confirm = "print(run.outputs['rows'].value_counts())"
    passed = "no batch is much smaller than the others"

    share: float = 1 / 16

    def examine(self, run: Run) -> Iterator[Finding]:
        rows = run.statistic("outputs", "rows").max(axis=1)
        usual = float(rows.median())
        small = rows.index[rows < self.share * usual]
        if not len(small):
            return
        least = float(rows.min())
        yield self.finding(
            f"{len(small)} of {len(rows)} batches are a rest of as few as {least:.0f} samples, where {usual:.0f} are usual: "
            f"their gradient is {np.sqrt(usual / max(least, 1)):.1f} times as noisy",
            steps=small, value=least / usual, threshold=self.share,
        )  # fmt: skip

    @classmethod
    def _run(cls, rest: int) -> Run:
        rows = np.where(np.arange(100) % 10 == 9, rest, 64)
        return synthetic.run(outputs={"rows": {"outputs": rows}})

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(5)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(3)
