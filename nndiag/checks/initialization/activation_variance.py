"""ND203 activation-variance."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from nndiag import structure, synthetic
from nndiag.check import Check, Finding
from nndiag.progress import first
from nndiag.run import Run


@dataclass(frozen=True)
class ActivationVariance(Check):
    """The signal shrinks or grows from layer to layer, before any learning.

    Weights whose standard deviation does not fit the number of inputs multiply the signal by the same factor in every
    layer. With the lesson's 20 layers of 256 units, a standard deviation of 0.02 leaves a variance of 1.5e-26 and 0.2
    one of 1.9e14, where He's 0.088 keeps it near 1 (He et al. 2015, equation 10). Gradients suffer the same way back.

    Decides on the root mean square of what each hidden block hands on at the first read, over that of the input: outside
    1/`total` … `total` end to end, or more than `per_layer` times up or down a layer, in the geometric mean over at
    least `depth` layers. Xavier with ReLU shrinks 1.44 times a layer and PyTorch's default 2.2 times: sound. Networks
    with normalisation are exempt. From the first layer on with 90 % of its units silent the signal is not followed: that
    is ND205's.
    """

    code = "ND203"
    name = "activation-variance"
    kind = "training"
    needs = ("activations.mean", "activations.variance")
    min_reads = 1
    advice = "Use init='he_normal' for ReLU or 'xavier_normal' for tanh, or add normalisation layers."
    confirm = "run.activations['variance'].iloc[0].plot(logy=True)"
    passed = "the signal keeps its size through the layers"

    total: float = 1e3
    per_layer: float = 3.0
    depth: int = 4
    silent: float = 0.9

    def not_checked(self, run: Run) -> str | None:
        if reason := super().not_checked(run):
            return reason
        if structure.normalized(run):
            return "the network has normalisation layers, which reset the scale"
        signal = self._signal(run)
        if len(signal) < 2 or not signal.iloc[0] > 0:
            return "needs a hidden layer with living units and an input that is not all zero"
        return None

    def examine(self, run: Run) -> Iterator[Finding]:
        signal = self._signal(run)
        layers = len(signal) - 1
        end_to_end = float(signal.iloc[-1] / signal.iloc[0])
        per_layer = end_to_end ** (1 / layers) if end_to_end else 0.0
        steep = layers >= self.depth and not 1 / self.per_layer <= per_layer <= self.per_layer
        if not steep and 1 / self.total <= end_to_end <= self.total:
            return
        with np.errstate(all="ignore"):
            steepness = np.abs(np.diff(np.log(signal.to_numpy())))
        layer = str(signal.index[1 + int(np.argmax(steepness > 0.8 * np.nanmax(steepness)))])
        word = "shrinks" if end_to_end < 1 else "grows"
        factor = 1 / per_layer if 0 < per_layer < 1 else per_layer
        yield self.finding(
            f"the signal {word} {factor:.2g} times a layer, to {end_to_end:.1e} of its size after {layers} layers",
            layer=layer, first_step=self._step(run), last_step=self._step(run),
            value=end_to_end if not steep else per_layer,
            threshold=self.per_layer if steep else self.total,
            causes=("weights initialised too small" if end_to_end < 1 else "weights initialised too large",),
            fix=self._fix(run, layer),
        )  # fmt: skip

    def _step(self, run: Run) -> int:
        return int(run.activations.index[0])

    def _signal(self, run: Run) -> pd.Series[float]:
        """Root mean square at the first read: of the input, then of every hidden block up to the first silent layer."""
        now = run.activations.iloc[0]
        layers = structure.hidden(run)
        rms = pd.Series({name: float(np.hypot(now["mean", name], np.sqrt(now["variance", name]))) for name in layers})
        if "dead_fraction" in now.index:
            silent = [i for i, name in enumerate(layers) if now.get(("dead_fraction", name), 0.0) >= self.silent]
            rms = rms.iloc[: silent[0]] if silent else rms
        entrance = first(run, "data", "rms", "input")
        return pd.concat([pd.Series({"input": entrance}), rms]) if entrance else rms

    def _fix(self, run: Run, layer: str) -> str:
        for parameter in run.meta.parameters:
            if parameter.kind == "weight" and parameter.fan_in and layer.startswith(parameter.layer or "\0"):
                he, xavier = (2 / parameter.fan_in) ** 0.5, (2 / (parameter.fan_in + parameter.shape[0])) ** 0.5
                return f"Initialise {parameter.name} with std = {he:.2g} (He, for ReLU) or {xavier:.2g} (Xavier, for tanh)."
        return self.advice

    @classmethod
    def _run(cls, gain: float) -> Run:
        rms = gain ** np.arange(1, 7)
        activations = {
            "mean": {f"h{i}": 0.0 for i in range(6)} | {"output": 0.0},
            "variance": {f"h{i}": rms[i] ** 2 for i in range(6)} | {"output": 1.0},
        }
        return synthetic.run(steps=1, activations=activations, data={"rms": {"input": 1.0}})

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(1 / 2.9)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(1 / 3.2)
