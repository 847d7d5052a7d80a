"""ND302 saturated-units."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nndiag import progress, signals, structure, synthetic
from nndiag.check import Check, Finding
from nndiag.nn.initializers import xavier_std
from nndiag.run import Run
from nndiag.statistics import Array


@dataclass(frozen=True)
class SaturatedUnits(Check):
    """Most units of a hidden layer sit at the flat ends of their activation function.

    There the slope is next to nothing: little gradient comes through, and the units say yes or no where they could say
    how much (Glorot & Bengio 2010, section 3). Weights that start too large, inputs that are not scaled or a large update
    drive them there.

    Decides on the share of units whose slope, in the mean over the inputs, is below a tenth of its largest (for tanh, a
    magnitude above 0.95): above `fraction` by two standard errors of a share of that many units, on 3 reads in a row. It
    is the slope of each unit that counts, so any activation function that reports one is read. Output layers, which are to
    be sure, are exempt. Networks that learn grow surer of themselves, and early on may pass through a state that they leave
    again: in a run that comes more than `learned` of its way, what comes up after the warm-up or is over in the last 20
    reads is a remark.
    """

    code = "ND302"
    name = "saturated-units"
    kind = "training"
    needs = ("activations.saturated_fraction",)
    advice = "Start with init='xavier_normal', standardise the inputs, and lower the learning rate."
    confirm = "run.activations['saturated_fraction'].plot()"
    passed = "hidden units keep clear of the flat ends of their activation functions"

    fraction: float = 0.6
    learned: float = 0.5

    def not_checked(self, run: Run) -> str | None:
        if len(run.activations) and not len(run.statistic("activations", "saturated_fraction")):
            return "no layers that saturate, such as tanh and sigmoid, or their slopes are not recorded"
        if reason := super().not_checked(run):
            return reason
        return None if structure.hidden(run, "saturated_fraction") else "no hidden layers"

    def examine(self, run: Run) -> Iterator[Finding]:
        shares, layers = run.statistic("activations", "saturated_fraction"), structure.hidden(run, "saturated_fraction")
        learned = progress.has_come(run, self.learned)
        for layer, share in zip(layers, shares[layers].to_numpy().T, strict=True):
            limit = signals.clearly_above(self.fraction, structure.units(run, layer))
            bad = share >= limit
            if (at := signals.onset(bad)) is not None:
                worst = float(np.nanmax(share))
                yield self.finding(
                    f"{worst:.0%} of the units of {layer} sit at the flat ends of their activation function",
                    kind="note" if learned and self._passing(at, bad) else "training", layer=layer,
                    steps=(shares.index[at], shares.index[np.flatnonzero(bad)[-1]]),
                    value=worst, threshold=limit, causes=("ND002", "ND203", "ND501", "weights initialised too large"),
                    fix=self._fix(run, layer),
                )  # fmt: skip

    def _passing(self, at: int, bad: Array) -> bool:
        return at > signals.warm_up(len(bad)) or bool(bad[-20:].mean() < 0.5)

    def _fix(self, run: Run, layer: str) -> str:
        weight = structure.weight_into(run, layer)
        if weight is None or not (fans := structure.fans(run, weight))[0]:
            return self.advice
        return f"Initialise {weight.name} with std = {xavier_std(*fans):.2g} (Xavier), and standardise the inputs."

    @classmethod
    def _run(cls, share: float) -> Run:
        layers = [{"name": "h1", "kind": "affine", "shape": [256]}, {"name": "h1.tanh", "kind": "tanh", "shape": [256]},
                  {"name": "output", "kind": "affine", "shape": [10]}]  # fmt: skip
        series = np.concatenate([np.zeros(30), np.full(70, share)])
        saturated = {"h1": np.nan, "h1.tanh": series, "output": np.nan}
        return synthetic.run(activations={"saturated_fraction": saturated}, layers=layers)

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(0.6)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(0.7)
