"""NDP03 shapes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from nndiag.check import Finding
from nndiag.nn import Trainer
from nndiag.nn.layers import Layer
from nndiag.probes.probe import Probe, plain_copy
from nndiag.run import Run
from nndiag.statistics import Array


@dataclass(frozen=True)
class Shapes(Probe):
    """Every layer puts out what it declares, for any batch size.

    A layer that mixes up the batch axis with another works for one batch size and breaks, or worse, does something else,
    for the next.

    Sends the first sample, and the first three, through a copy of the model in evaluation mode, and compares the shape
    of each layer's output with the batch size and the width that the layer declares. An error on the way counts too.
    """

    code = "NDP03"
    name = "shapes"
    kind = "exact"
    needs = ()
    advice = "Correct the layer named: its forward pass, or the width that it declares."
    confirm = "print(nndiag.probes.shapes(trainer, x, y))"
    passed = "forward shapes match the declared dimensions"

    batches: tuple[int, ...] = (1, 3)

    def measure(self, trainer: Trainer, x: Array, y: Array) -> dict[str, Any]:
        declared = {layer["name"]: tuple(layer["shape"]) for layer in trainer.describe()["layers"]}
        mismatches = []
        for batch in self.batches:
            mismatches += self._forward(trainer, np.resize(x, (batch, *x.shape[1:])), declared)
        return {"layers": len(declared), "mismatches": mismatches}

    def _forward(self, trainer: Trainer, x: Array, declared: dict[str, tuple[int, ...]]) -> list[dict[str, str]]:
        found: list[dict[str, str]] = []

        def compare(layer: Layer, _: Array, output: Array) -> None:
            wanted = (len(x), *declared[layer.name])
            if output.shape != wanted:
                found.append({"layer": layer.name, "got": str(output.shape), "wanted": str(wanted)})

        try:
            with np.errstate(all="ignore"):
                plain_copy(trainer.model).forward(x, observe=compare)
        except (ValueError, IndexError) as fault:
            found.append({"layer": "", "got": str(fault), "wanted": f"a forward pass of a batch of {len(x)}"})
        return found

    def examine(self, run: Run) -> Iterator[Finding]:
        for mismatch in self.measured(run)["mismatches"]:
            yield self.finding(
                f"{mismatch['layer'] or 'the model'} gave {mismatch['got']}, wanted {mismatch['wanted']}",
                layer=mismatch["layer"] or None, first_step=0, last_step=0,
            )  # fmt: skip

    @classmethod
    def healthy(cls) -> Run:
        return cls.example(layers=3, mismatches=[])

    @classmethod
    def sick(cls) -> Run:
        return cls.example(layers=3, mismatches=[{"layer": "h1", "got": "(64, 3)", "wanted": "(3, 64)"}])
