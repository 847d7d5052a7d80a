"""ND301 dead-units."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from nndiag import signals, structure, synthetic
from nndiag.check import Check, Finding
from nndiag.run import Run
from nndiag.statistics import UnitActivity


@dataclass(frozen=True)
class DeadUnits(Check):
    """Units of a ReLU layer have fallen silent: zero on every input, so they get no gradient and never come back.

    A large update can push a unit's bias so low that nothing activates it any more (dying ReLU). What counts is the
    unit over many inputs, never the share of zeros: after ReLU 50 to 80 % of the elements are zero in sound networks,
    and tools that alarm on that are wrong on a third of them.

    Decides on the share of units that were exactly zero on every input of a rolling window of an epoch or 2,000 samples
    (a unit that fires on 0.2 % of the inputs is missed once in 50 windows): above `fraction` by two standard errors of a
    share of that many units, on 3 reads in a row, once the window is full. A half is also where a very deep sound ReLU
    network can start.
    """

    code = "ND301"
    name = "dead-units"
    kind = "training"
    needs = ("activations.dead_fraction",)
    advice = "Lower the learning rate, start biases at 0, or use LeakyReLU."
    confirm = "run.activations['dead_fraction'].plot()"
    passed = "the units of every ReLU layer fire"

    fraction: float = 0.5

    def not_checked(self, run: Run) -> str | None:
        if reason := super().not_checked(run):
            return reason
        if not structure.rectified(run):
            return "no ReLU layers: only units that can be exactly zero can be silent"
        reads = len(self._full(run))
        return None if reads >= self.min_reads else f"needs {self.min_reads} reads after a full epoch, has {reads}"

    def examine(self, run: Run) -> Iterator[Finding]:
        dead = self._full(run)
        for layer in structure.rectified(run):
            limit = signals.clearly_above(self.fraction, structure.units(run, layer))
            bad = (dead[layer] >= limit).to_numpy()
            if (at := signals.onset(bad)) is not None:
                yield self.finding(
                    f"{dead[layer].max():.0%} of the units of {layer} are silent on every input",
                    layer=layer, steps=(dead.index[at], dead.index[np.flatnonzero(bad)[-1]]),
                    value=float(dead[layer].max()), threshold=limit,
                    causes=("ND501", "ND205", "biases driven far below zero"),
                )  # fmt: skip

    def _full(self, run: Run) -> pd.DataFrame:
        """Reads whose window holds an epoch or the span of samples."""
        dead = run.statistic("activations", "dead_fraction")
        seen = run.series("data", "samples", "input").reindex(dead.index).ffill()
        epochs = run.epoch_of(dead.index).astype(float)
        if seen.isna().all() and epochs.isna().all():
            return dead
        whole = seen.isna() | (seen >= (structure.training_samples(run) or 0))  # an epoch of which all was read
        return dead[((seen >= UnitActivity.SPAN) | ((epochs >= 1) & whole)).to_numpy()]

    @classmethod
    def _run(cls, dead: float) -> Run:
        layers = [{"name": "h1", "kind": "affine", "shape": [256]}, {"name": "h1.relu", "kind": "relu", "shape": [256]},
                  {"name": "output", "kind": "affine", "shape": [10]}]  # fmt: skip
        series = np.concatenate([np.zeros(30), np.full(70, dead)])
        return synthetic.run(
            activations={"dead_fraction": {"h1": 0.0, "h1.relu": series, "output": 0.0}}, layers=layers
        )

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(0.5)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(0.6)
