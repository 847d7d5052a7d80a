"""ND401 vanishing-gradients."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from nndiag import progress, signals, structure, synthetic
from nndiag.check import Check, Finding
from nndiag.run import Run


@dataclass(frozen=True)
class VanishingGradients(Check):
    """Gradients shrink on their way from the output layer back to the first layer.

    Each layer multiplies the gradient that flows through it by its weights and by the slope of its activation function.
    Where that factor stays below 1 the early layers hardly learn (Hochreiter 1991; Glorot & Bengio 2010): the network
    behaves like its last layers on top of random features, or does not train at all.

    Decides on δ, the norm of the loss's gradient with respect to what a layer puts out for a sample: that of the first layer
    with weights below `ratio` times that of the last, in the median of `window` reads, on 3 reads in a row after the
    warm-up; or, where training makes poor progress, below `per_layer` to the power of the layers between, from 4 layers
    with weights on, which a stack of sigmoids does not reach (a quarter of the gradient passes each at the most), and below
    `unsquashed` where no function squashes: PyTorch's default weights, a third of what keeps a gradient, pass 0.4 of it through a
    ReLU, in networks that train. Squares
    are added up over units, pixels and steps: weights that are initialised by the number of inputs keep that norm on the
    way back, and not what reaches each unit (He et al. 2015, section 2.2), of which 160 below a single output get a twelfth
    each. δ, not the weights' gradients: in the lesson's net of 20 layers with standard deviation 0.02 those differ by a
    factor of 3 only, δ by 5e13. A sound He net of that depth has 0.05. Where δ vanishes because units are dead, that is
    ND205's or ND301's, and this is listed as its consequence.
    """

    code = "ND401"
    name = "vanishing-gradients"
    kind = "training"
    needs = ("activations.gradient_rms",)
    advice = "Use He initialisation with ReLU, add normalisation layers or skip connections, or use fewer layers."
    confirm = "run.activations['gradient_rms'].median().plot(logy=True, marker='o')"
    passed = "gradients reach the first layer"

    ratio: float = 1e-3
    window: int = 50
    per_layer: float = 0.35
    unsquashed: float = 0.28

    def not_checked(self, run: Run) -> str | None:
        if reason := super().not_checked(run):
            return reason
        return None if len(structure.linear(run, "gradient_rms")) > 2 else "needs three layers with weights or more"

    def examine(self, run: Run) -> Iterator[Finding]:
        layers, delta = self._delta(run)
        delta = delta.iloc[signals.warm_up(len(delta)) :]
        if len(delta) < signals.PATIENCE:
            return
        ratio = (delta[layers[0]] / delta[layers[-1]]).rolling(self.window, min_periods=1).median()
        limit = self._limit(run, len(layers))
        bad = (ratio < limit).to_numpy()
        if (at := signals.onset(bad)) is None:
            return
        worst = float(ratio.min())
        middle = delta[layers].median()
        layer = next(
            name for name in reversed(layers) if middle[name] < np.sqrt(limit) * middle[layers[-1]] or name == layers[0]
        )
        causes, fix = self._blamed(run)
        yield self.finding(
            f"δ in {layers[0]} is {worst:.2g} times that in {layers[-1]}: the first layers get next to no gradient"
            if worst > 0 else f"no gradient at all reaches {layers[0]}: δ there is exactly 0",
            layer=layer if middle[layer] > 0 else layers[0],
            steps=(delta.index[at], delta.index[np.flatnonzero(bad)[-1]]),
            value=worst, threshold=limit,
            causes=causes, fix=fix,
        )  # fmt: skip

    def cut_off(self, run: Run) -> int | None:
        """The step from which on next to no gradient reaches the first layers, if one did at the first read."""
        if (found := next(iter(self.found(run)), None)) is None:
            return None
        layers, delta = self._delta(run)
        begun = delta[layers[0]].iloc[0] / delta[layers[-1]].iloc[0]
        return found.first_step if begun >= self._limit(run, len(layers)) else None

    def _delta(self, run: Run) -> tuple[list[str], pd.DataFrame]:
        """The layers with weights, and the norm of δ in each at reads with a gradient."""
        delta, layers = run.statistic("activations", "gradient_rms"), structure.linear(run, "gradient_rms")
        sizes = np.sqrt([structure.units(run, layer) for layer in layers])
        return layers, delta[layers].mul(sizes)[delta[layers[-1]] > 0] if layers else delta

    def _blamed(self, run: Run) -> tuple[tuple[str, ...], str]:
        """Causes and fix: the activation functions, where some let through a quarter at most, or what else is usual."""
        if not structure.squashing(run):
            causes = "saturating activation functions in a deep stack", "too many layers without normalisation"
            return ("ND203", *causes), self.advice
        cause, fix = structure.squashed_by(run)
        return ("ND203", cause), fix

    def _limit(self, run: Run, layers: int) -> float:
        poor = layers >= 4 and progress.is_poor(run)
        passed = self.per_layer if structure.squashing(run) else self.unsquashed
        return max(self.ratio, passed ** (layers - 1)) if poor else self.ratio

    @classmethod
    def _run(cls, ratio: float) -> Run:
        delta = {"h1": 1e-3 * ratio, "h2": 1e-3 * ratio**0.5, "output": 1e-3}
        return synthetic.run(activations={"gradient_rms": delta, "mean": dict.fromkeys(delta, 0.0)})

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(1.5e-3)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(0.7e-3)
