"""ND001 nonfinite-input."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nndiag import synthetic
from nndiag.check import Check, Finding
from nndiag.run import Run


@dataclass(frozen=True)
class NonfiniteInput(Check):
    """Inputs or targets contain NaN or infinite values.

    One such value spreads through the forward pass to the loss, through the loss to every gradient, and through the
    update to every weight: from that step on the network is gone. Nothing else that is found afterwards matters.

    Decides on the share of non-finite values of each batch as it enters the network. There is no threshold: one is
    enough.
    """

    code = "ND001"
    name = "nonfinite-input"
    kind = "exact"
    needs = ("data.nonfinite_fraction",)
    min_reads = 1
    advice = "Find and remove or impute these values before training: assert np.isfinite(x).all() where data is loaded."
    confirm = "print(np.argwhere(~np.isfinite(x)))"
    passed = "inputs and targets are finite"

    def examine(self, run: Run) -> Iterator[Finding]:
        shares = run.statistic("data", "nonfinite_fraction")
        for part in shares:
            bad = shares[part][shares[part] > 0]
            if len(bad):
                yield self.finding(
                    f"the {part} has values that are NaN or infinite, {bad.iloc[0]:.2g} of the batch at step {bad.index[0]}",
                    steps=bad.index,
                    value=float(bad.max()),
                    threshold=0.0,
                )

    @classmethod
    def healthy(cls) -> Run:
        return synthetic.run(data={"nonfinite_fraction": {"input": 0.0, "target": 0.0}})

    @classmethod
    def sick(cls) -> Run:
        share = [0.0] * 99 + [1 / 4096]
        return synthetic.run(data={"nonfinite_fraction": {"input": share, "target": 0.0}})
