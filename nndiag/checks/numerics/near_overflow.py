"""ND802 near-overflow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nndiag import signals, structure, synthetic
from nndiag.check import Check, Finding
from nndiag.run import Run


@dataclass(frozen=True)
class NearOverflow(Check):
    """Activations come near the largest number that their type can hold.

    A few more steps, or one unusual input, and they are infinite; sums and squares of them are so already.

    Decides on the largest magnitude of each layer's output: above `headroom` of the largest number of the dtype, on 3 reads
    in a row. A ten-thousandth leaves room for the sum over a wide layer. Half precision has no such room to give: there it is
    `half`, as single activations of some thousands occur in sound language models (Sun et al. 2024).
    """

    code = "ND802"
    name = "near-overflow"
    kind = "training"
    needs = ("activations.max", "activations.min")
    min_reads = 3
    advice = "Initialise smaller, normalise, avoid exponentials between layers, or compute in float32."
    confirm = "run.activations['max'].plot(logy=True)"
    passed = "activations stay clear of overflow"

    headroom: float = 1e-4
    half: float = 0.1

    def examine(self, run: Run) -> Iterator[Finding]:
        largest = structure.largest(run)
        limit = (self.half if largest == structure.LARGEST["float16"] else self.headroom) * largest
        highs, lows = run.statistic("activations", "max"), run.statistic("activations", "min")
        size = np.maximum(highs.to_numpy(), -lows.reindex_like(highs).to_numpy())
        for column, layer in enumerate(structure.recorded(run, "max")):
            bad = size[:, column] > limit
            if (at := signals.onset(bad)) is not None:
                yield self.finding(
                    f"the output of {layer} reaches {np.nanmax(size[:, column]):.2g}; {run.meta.dtype or 'float32'} ends at "
                    f"{largest:.2g}",
                    layer=layer, steps=(highs.index[at], highs.index[np.flatnonzero(bad)[-1]]),
                    value=float(np.nanmax(size[:, column])), threshold=limit, causes=("ND203", "ND501"),
                )  # fmt: skip
                return

    @classmethod
    def _run(cls, high: float) -> Run:
        return synthetic.run(activations={"max": {"h1": high}, "min": {"h1": 0.0}}, dtype="float16")

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(5e3)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(9e3)
