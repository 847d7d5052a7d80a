"""ND303 activation-drift."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from nndiag import signals, structure, synthetic
from nndiag.check import Check, Finding
from nndiag.objective import Objective
from nndiag.run import Run


@dataclass(frozen=True)
class ActivationDrift(Check):
    """What a hidden layer puts out grows and grows while the network trains.

    Its weights or biases run away: the next layers see inputs of a scale that they were not made for, activation functions
    saturate, and gradients grow with the product of both. It ends in an overflow, or in a layer that nothing can move.

    Decides on the root mean square of each hidden layer's output: more than `factor` times its median over the `window`
    reads after the warm-up, and as many times the root mean square of the inputs or of real targets (or 1, whichever is
    most), on 3 reads in a row. A signal that starts too small and is brought up to scale is no drift, nor one that has to
    reach targets in the thousands, which is ND004's. The last layer with weights is exempt:
    logits of sound classifiers grow some 250 times as they become sure.
    """

    code = "ND303"
    name = "activation-drift"
    kind = "training"
    needs = ("activations.mean", "activations.variance")
    advice = "Lower the learning rate, add weight decay or normalisation layers, or clip gradients."
    confirm = "(run.activations['variance'] + run.activations['mean'] ** 2).pow(0.5).plot(logy=True)"
    passed = "hidden layers keep the scale of their outputs"

    factor: float = 100.0
    window: int = 20

    def not_checked(self, run: Run) -> str | None:
        if reason := super().not_checked(run):
            return reason
        return None if structure.hidden(run) else "needs a hidden layer"

    def examine(self, run: Run) -> Iterator[Finding]:
        layers = structure.hidden(run)
        steps, rms = run.activations.index.to_numpy(), structure.rms(run, layers)
        begin = signals.warm_up(len(rms))
        usual = pd.DataFrame(rms[begin : begin + self.window]).median().to_numpy()
        limits = self.factor * np.maximum(usual, self._scale(run))
        for column, layer in enumerate(layers):
            bad = rms[:, column] > limits[column]
            bad[:begin] = False
            if (at := signals.onset(bad)) is not None:
                worst = float(np.nanmax(rms[:, column]))
                yield self.finding(
                    f"the outputs of {layer} grow to {worst:.2g} (root mean square), from {usual[column]:.2g} early on",
                    layer=layer, steps=(steps[at], steps[np.flatnonzero(bad)[-1]]), value=worst,
                    threshold=float(limits[column]), causes=("ND501", "ND402", "no weight decay and no normalisation"),
                )  # fmt: skip

    def _scale(self, run: Run) -> float:
        """Root mean square of the inputs or, if larger, of real targets; at least 1."""
        parts = ("input", "target") if Objective(run).task == "real" else ("input",)
        return max(1.0, *(run.first("data", "rms", part) or 1.0 for part in parts))

    @classmethod
    def _run(cls, growth: float) -> Run:
        rms = np.geomspace(1.0, growth, 200)
        layers = [{"name": "h1", "kind": "affine"}, {"name": "h1.relu", "kind": "relu"},
                  {"name": "output", "kind": "affine"}]  # fmt: skip
        grown = {"h1": rms**2, "h1.relu": rms**2 / 2, "output": 1e4 * rms**2}
        return synthetic.run(
            steps=200, activations={"mean": dict.fromkeys(grown, 0.0), "variance": grown}, layers=layers
        )

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(120.0)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(260.0)
