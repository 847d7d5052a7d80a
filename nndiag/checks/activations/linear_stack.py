"""ND305 linear-stack."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from nndiag import structure, synthetic
from nndiag.check import Check, Finding
from nndiag.run import Run

AFFINE = ("affine", "convolution")
STRAIGHT = (*AFFINE, "dropout", "batch_norm", "average_pooling", "flatten", "identity")
"""Kinds that are affine maps when the network is used."""

POOLED = (*STRAIGHT, "max_pooling")
"""Kinds that are no activation functions."""


@dataclass(frozen=True)
class LinearStack(Check):
    """Layers with weights follow each other with no activation function between them.

    A chain of affine maps is one affine map: the second layer adds parameters and no power (Goodfellow, Bengio & Courville
    2016, section 6.1). A whole network of them can draw straight borders only, whatever its depth.

    Decides on the kinds of the layers, in forward order: from one affine layer or convolution to the next there are none but
    dropout and batch normalisation, which are affine too once trained, and means over places, and nothing that is no layer,
    where the run can tell. A middle narrower than both its sides is a factorisation and sound (low-rank layers, adapters). Such
    a pair in a network that bends elsewhere is a remark, and none of convolutions, which are taken apart on purpose (Chollet
    2017); two layers or more in a network that bends nowhere are a finding, and so is a pair of one kind in a network
    that bends by the maxima of its pooling alone.
    """

    code = "ND305"
    name = "linear-stack"
    kind = "training"
    min_reads = 1
    advice = "Put an activation function such as ReLU between the two layers, or keep one of them only."
    confirm = "print([(layer.name, layer.kind) for layer in run.meta.layers])"
    passed = "something nonlinear stands between the layers with weights"

    def not_checked(self, run: Run) -> str | None:
        if not run.reads:
            return "needs a step of training"
        if not structure.describes_kinds(run):
            return "needs the kinds of all layers, which the run does not describe"
        return None if len(self._affine(run)) > 1 else "needs two affine layers or convolutions"

    def examine(self, run: Run) -> Iterator[Finding]:
        pairs, affine = self._pairs(run), self._affine(run)
        alike = [pair for pair in pairs if len({structure.kind(run, layer) for layer in pair}) == 1]
        if pairs and len(self._straight(run)) == len(affine) - 1:
            yield self._found(
                pairs[0][0], affine, f"is one affine map: nothing nonlinear stands between its {len(affine)} layers"
            )
        elif alike and len(self._straight(run, POOLED)) == len(affine) - 1:
            first, second = alike[0]
            yield self._found(first, affine, f"has no activation function: {first} and {second} are one affine map, and between "
                              f"others of its {len(affine)} layers nothing bends but pooling")  # fmt: skip
        elif pairs := [pair for pair in pairs if all(structure.kind(run, layer) == "affine" for layer in pair)]:
            found = "; ".join(f"{first} and {second}" for first, second in pairs[:3])
            yield self.note(f"{found}: one affine map in two layers, nothing nonlinear stands between them")

    def _found(self, layer: str, affine: list[str], fact: str) -> Finding:
        return self.finding(f"the network {fact}", layer=layer, steps=0, value=float(len(affine)), threshold=1.0,
                            causes=("activation functions left out",))  # fmt: skip

    def _affine(self, run: Run) -> list[str]:
        return [layer.name for layer in run.meta.layers if layer.kind in AFFINE]

    def _straight(self, run: Run, kinds: tuple[str, ...] = STRAIGHT) -> list[tuple[str, str]]:
        """Neighbours among them between which there is nothing but `kinds`."""
        pairs, before, last = [], None, ""
        for layer in run.meta.layers:
            if layer.after not in (None, last):
                before = None  # something that is no layer lies between
            last = layer.name
            if layer.kind in AFFINE and before is not None:
                pairs.append((before, layer.name))
            before = layer.name if layer.kind in AFFINE else before if layer.kind in kinds else None
        return pairs

    def _pairs(self, run: Run) -> list[tuple[str, str]]:
        """Those of them that are no factorisation through a narrow middle."""
        return [(first, second) for first, second in self._straight(run) if not self._narrow(run, first, second)]

    def _narrow(self, run: Run, first: str, second: str) -> bool:
        return self._width(run, first) < min(self._into(run, first), self._width(run, second))

    def _width(self, run: Run, layer: str) -> float:
        return float(math.prod(run.meta.layer(layer).shape)) if run.meta.layer(layer).shape else math.inf

    def _into(self, run: Run, layer: str) -> float:
        weight = structure.weight_into(run, layer)
        return float(structure.fans(run, weight)[0] or math.inf) if weight is not None else math.inf

    @classmethod
    def _run(cls, *kinds: str) -> Run:
        layers = [{"name": f"l{i}", "kind": kind, "shape": [16]} for i, kind in enumerate(kinds)]
        return synthetic.run(train=synthetic.decay(), layers=layers)

    @classmethod
    def healthy(cls) -> Run:
        return cls._run("affine", "dropout", "affine", "relu", "affine")

    @classmethod
    def sick(cls) -> Run:
        return cls._run("affine", "dropout", "affine", "affine", "softmax")
