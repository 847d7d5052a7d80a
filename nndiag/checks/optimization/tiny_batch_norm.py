"""ND509 tiny-batch-norm."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from nndiag import synthetic
from nndiag.check import Check, Finding
from nndiag.meta import LayerMeta
from nndiag.run import Run


@dataclass(frozen=True)
class TinyBatchNorm(Check):
    """Batch normalisation takes its mean and variance from a handful of values.

    Both are then mostly noise: each sample's output depends on which others happen to be in its batch, and the running
    moments that evaluation uses fit none of the batches that training has seen (Wu & He 2018, figure 1: the error climbs
    from 8 images a batch down to 2).

    Decides on the number of values that a batch-normalisation layer has for each unit or channel: the rows that went into
    the loss, times the positions of an image or sequence where the layer's shape has such. Fewer than `values` on most
    reads; a smaller last batch of each epoch does not count.
    """

    code = "ND509"
    name = "tiny-batch-norm"
    kind = "training"
    needs = ("outputs.rows",)
    advice = "Use batches of 16 or more, or a layer norm or group norm, which do not look at the batch."
    confirm = "print(run.outputs['rows'].median())"
    passed = "batch normalisation has enough values to average over"

    values: int = 8

    def not_checked(self, run: Run) -> str | None:
        if reason := super().not_checked(run):
            return reason
        return None if self._layers(run) else "no batch normalisation"

    def examine(self, run: Run) -> Iterator[Finding]:
        rows = run.series("outputs", "rows", "outputs")
        if not len(rows):
            return
        for layer in self._layers(run):
            values = rows * _positions(layer)
            bad = values[values < self.values]
            if len(bad) > len(values) / 2:
                yield self.finding(
                    f"{layer.name} averages over {values.median():.0f} values a unit", layer=layer.name,
                    steps=bad.index, value=float(values.median()),
                    threshold=float(self.values), causes=("batches that are too small",),
                )  # fmt: skip

    def _layers(self, run: Run) -> list[LayerMeta]:
        return [layer for layer in run.meta.layers if layer.kind == "batch_norm"]

    @classmethod
    def _run(cls, rows: float) -> Run:
        layers = [{"name": "h1", "kind": "affine", "shape": [16]}, {"name": "h1.norm", "kind": "batch_norm", "shape": [16]},
                  {"name": "output", "kind": "affine", "shape": [3]}]  # fmt: skip
        return synthetic.run(outputs={"rows": {"outputs": rows}}, layers=layers)

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(8.0)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(7.0)


def _positions(layer: LayerMeta) -> int:
    """Positions of an image or sequence; channels are taken to be the longest axis, wherever they stand."""
    return math.prod(layer.shape) // max(layer.shape) if layer.shape and max(layer.shape) > 0 else 1
