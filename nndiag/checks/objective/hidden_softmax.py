"""ND112 hidden-softmax."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nndiag import structure, synthetic
from nndiag.check import Check, Finding
from nndiag.run import Run


@dataclass(frozen=True)
class HiddenSoftmax(Check):
    """A softmax sits between hidden layers.

    Its outputs share a total of 1: with 64 units each has 1/64 on average and hardly varies, so the next layer sees almost
    nothing, and units can only gain at the cost of others. Outside attention and mixtures of experts it is a mistake for an
    activation function.

    Decides on the outputs of each layer before the last one with weights: none is negative and their mean is 1 / units
    within `tolerance`, relative, on every read, for 3 units or more; which is what rows that sum to 1 have in common. Where
    it is known what goes into which layer, only what another takes as it is: weights of an attention are multiplied.
    """

    code = "ND112"
    name = "hidden-softmax"
    kind = "training"
    needs = ("activations.mean", "activations.min")
    min_reads = 1
    advice = "Use ReLU or tanh between hidden layers; a softmax belongs behind the last one only."
    confirm = "print(run.activations['mean'])  # 1 / units in every row"
    passed = "no softmax between hidden layers"

    tolerance: float = 1e-4
    units: int = 3

    def examine(self, run: Run) -> Iterator[Finding]:
        means, lows = run.statistic("activations", "mean"), run.statistic("activations", "min")
        for layer in self._before_the_last(run):
            units = int(np.prod(run.meta.layer(layer).shape)) if run.meta.layer(layer).shape else 0
            mean = means[layer].dropna().to_numpy()
            if units < self.units or not len(mean) or layer not in lows or lows[layer].min() < 0:
                continue
            off = float(np.abs(mean * units - 1).max())
            if off <= self.tolerance:
                yield self.finding(
                    f"the {units} outputs of {layer} sum to 1 for every input: a softmax between hidden layers",
                    layer=layer, steps=means.index, value=off,
                    threshold=self.tolerance,
                )  # fmt: skip

    def _before_the_last(self, run: Run) -> list[str]:
        layers, weighted = structure.recorded(run, "mean"), structure.linear(run)
        before = layers[: layers.index(weighted[-1])] if weighted else []
        told = {layer.after for layer in run.meta.layers if layer.after is not None}
        return [layer for layer in before if layer in told] if told else before

    @classmethod
    def _run(cls, mean: float) -> Run:
        layers = [{"name": "h1", "kind": "affine", "shape": [16]}, {"name": "h1.softmax", "shape": [16]},
                  {"name": "output", "kind": "affine", "shape": [3]}]  # fmt: skip
        activations: synthetic.Statistics = {"mean": {"h1": 0.0, "h1.softmax": mean, "output": 0.0},
                                             "min": {"h1": -1.0, "h1.softmax": 0.0, "output": -1.0}}  # fmt: skip
        return synthetic.run(activations=activations, layers=layers)

    @classmethod
    def healthy(cls) -> Run:
        return cls._run((1 + 1.5e-4) / 16)

    @classmethod
    def sick(cls) -> Run:
        return cls._run((1 + 0.7e-4) / 16)
