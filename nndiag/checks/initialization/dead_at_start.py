"""ND205 dead-at-start."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nndiag import signals, structure, synthetic
from nndiag.check import Check, Finding
from nndiag.run import Run


@dataclass(frozen=True)
class DeadAtStart(Check):
    """Units of a ReLU layer are silent on every input from the start.

    A unit whose output is zero on all inputs passes no gradient and never learns. Large negative biases, inputs of one
    sign with unlucky weights, or an all-zero layer do it before training begins.

    Decides on the first read that covers `samples` inputs: the share of units that were zero on all of them is above
    `fraction` by two standard errors of a share of that many units. A half is where a sound, very deep ReLU network
    ends up on its own: its inputs become so alike that a unit is on or off for all of them (the lesson's He network has
    26 % at layer 20).
    """

    code = "ND205"
    name = "dead-at-start"
    kind = "training"
    needs = ("activations.dead_fraction",)
    min_reads = 1
    advice = "Start biases at 0 (or slightly positive) and weights with init='he_normal'; centre the inputs."
    confirm = "print(run.activations['dead_fraction'].iloc[0])"
    passed = "units answer to some inputs from the start"

    fraction: float = 0.5
    samples: int = 20

    def not_checked(self, run: Run) -> str | None:
        if reason := super().not_checked(run):
            return reason
        if not structure.rectified(run):
            return "no ReLU layers: only units that can be exactly zero can be silent"
        return None if self._read(run) is not None else f"needs {self.samples} samples"

    def examine(self, run: Run) -> Iterator[Finding]:
        reads, at = run.statistic("activations", "dead_fraction"), self._read(run) or 0
        dead, step = reads.iloc[at], int(reads.index[at])
        for layer in structure.rectified(run):
            limit = signals.clearly_above(self.fraction, structure.units(run, layer))
            if dead[layer] >= limit:
                yield self.finding(
                    f"{dead[layer]:.0%} of the units of {layer} are silent on every input at the start",
                    layer=layer, steps=step, value=float(dead[layer]),
                    threshold=limit, causes=("negative biases", "weights all zero or of one sign"),
                )  # fmt: skip

    def _read(self, run: Run) -> int | None:
        """Position of the first read that covers enough inputs; the first where sample counts are not recorded."""
        reads = run.statistic("activations", "dead_fraction").index
        seen = run.series("data", "samples", "input").reindex(reads, method="ffill")
        if seen.isna().all():
            return 0
        enough = np.flatnonzero(seen.to_numpy() >= self.samples)
        return int(enough[0]) if len(enough) else None

    @classmethod
    def _run(cls, dead: float) -> Run:
        layers = [{"name": "h1", "kind": "affine", "shape": [256]}, {"name": "h1.relu", "kind": "relu", "shape": [256]},
                  {"name": "output", "kind": "affine", "shape": [10]}]  # fmt: skip
        fractions = {"h1": 0.0, "h1.relu": dead, "output": 0.0}
        return synthetic.run(
            steps=1, activations={"dead_fraction": fractions, "mean": dict.fromkeys(fractions, 1.0)}, layers=layers
        )

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(0.5)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(0.6)
