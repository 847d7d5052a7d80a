"""ND113 dropped-outputs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nndiag import structure, synthetic
from nndiag.check import Check, Finding
from nndiag.objective import Objective
from nndiag.run import Run


@dataclass(frozen=True)
class DroppedOutputs(Check):
    """Dropout sits behind the last layer: outputs are set to 0 at random before they reach the loss.

    The network is punished for what it never said. The loss cannot fall below what the dropped outputs cost, and gradients
    are mostly noise.

    Decides on the outputs as they go into the loss: of either sign, and yet `zeros` or more of them exactly 0 at the first read
    and in the median of 3 or more; or dropout as the last layer. A layer with weights gives an exact 0 by chance once in
    millions; where hidden units have died, one without a bias gives nothing else, but not from the first step on.
    """

    code = "ND113"
    name = "dropped-outputs"
    kind = "training"
    needs = ("outputs.zero_fraction", "outputs.min", "outputs.max")
    min_reads = 3
    advice = "Move dropout between hidden layers; none belongs behind the last one."
    confirm = "print(np.mean(outputs == 0))  # in training mode, before the loss"
    passed = "no output is dropped at random"

    zeros: float = 0.02

    def examine(self, run: Run) -> Iterator[Finding]:
        seen, layer = Objective(run), self._layer(run)
        shares = np.asarray(seen.of("zero_fraction"))
        zeros, mixed = float(np.median(shares)), self._mixed(seen) and bool(shares[0] >= self.zeros)
        if layer is not None:
            inside = run.series("activations", "zero_fraction", layer)
            zeros, mixed = (float(inside.median()), True) if len(inside) else (zeros, mixed)
        if mixed and zeros >= self.zeros and (layer is not None or not structure.describes_kinds(run)):
            first, last = seen.steps
            yield self.finding(
                f"{zeros:.0%} of what the last layer puts out is set to 0 at random",
                layer=layer, steps=(first, last), value=zeros, threshold=self.zeros,
            )  # fmt: skip

    def _mixed(self, seen: Objective) -> bool:
        """Whether outputs lie on both sides of 0."""
        return bool(np.median(seen.of("min")) < 0 < np.median(seen.of("max")))

    def _layer(self, run: Run) -> str | None:
        """The first dropout layer behind the last one with weights."""
        layers = run.meta.layers
        weighted = [i for i, layer in enumerate(layers) if layer.kind in structure.LINEAR]
        behind = layers[weighted[-1] + 1 :] if weighted else ()
        return next((layer.name for layer in behind if layer.kind == "dropout"), None)

    @classmethod
    def _run(cls, zeros: float) -> Run:
        outputs = {"width": 10.0, "min": -3.0, "max": 3.0, "zero_fraction": zeros}
        return synthetic.run(outputs={name: {"outputs": value} for name, value in outputs.items()}, **synthetic.CLASSES)

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(0.015)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(0.03)
