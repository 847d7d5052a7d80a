"""NDP07 determinism."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from nndiag.check import Finding
from nndiag.probes.batch_independence import changes
from nndiag.probes.probe import Probe
from nndiag.probes.subject import Subject, drawn, seeded
from nndiag.run import Run
from nndiag.statistics import Array


@dataclass(frozen=True)
class Determinism(Probe):
    """The same inputs give the same outputs in evaluation mode, and the same seed the same training.

    Dropout that is not told whether the network trains, or noise that is always on, makes evaluation a matter of luck;
    random numbers that no seed reaches make a run impossible to repeat (PyTorch documentation, "Reproducibility").

    Sends `samples` samples through a copy in evaluation mode twice, and trains two copies for `steps` steps on them with the
    same seed. It is a warning when the outputs differ by more than `change` of their spread over the samples, or when the
    updates of the two trainings differ by more than `change` of their size. A smaller difference, as sums in another order
    leave it on a GPU, is a remark. Without an optimiser only the first is done.
    """

    code = "NDP07"
    name = "determinism"
    kind = "training"
    wants = ()
    advice = "Give every source of random numbers a seed, and draw none in evaluation mode."
    confirm = "print(nndiag.probes.determinism(trainer, x, y))"
    passed = "the same inputs give the same outputs, the same seed the same training"

    change: float = 1e-3
    samples: int = 16
    steps: int = 5

    def measure(self, subject: Subject) -> dict[str, Any]:
        rows, pupil = drawn(subject, self.samples), subject.copy()
        outputs = changes(pupil.outputs(rows), pupil.outputs(rows))
        if subject.lacks:
            return {"outputs": outputs, "updates": None, "parameter": ""}
        before, one, other = pupil.read(), self._trained(subject, rows), self._trained(subject, rows)
        apart = {name: _apart(before[name], one[name], other[name]) for name in before}
        worst = max(apart, key=apart.__getitem__, default="")
        return {"outputs": outputs, "updates": apart.get(worst, 0.0), "parameter": worst if apart.get(worst) else ""}

    def _trained(self, subject: Subject, rows: Array) -> dict[str, Array]:
        with seeded(subject):
            pupil = subject.copy()
            for _ in range(self.steps):
                pupil.step(rows)
            return pupil.read()

    def examine(self, run: Run) -> Iterator[Finding]:
        m = self.measured(run)
        outputs, updates, parameter = m["outputs"], m["updates"], m["parameter"]
        if outputs > self.change:
            yield self.finding(
                f"the same inputs give outputs that differ by {outputs:.1e} of their spread, in evaluation mode",
                steps=0, value=outputs, threshold=self.change,
                causes=("dropout or noise that is on in evaluation mode",),
                fix="Let noise depend on the mode: F.dropout(x, p, training=self.training), or an nn.Dropout layer.",
            )  # fmt: skip
        if updates is not None and updates > self.change:
            yield self.finding(
                f"two trainings with the same seed differ in {parameter} by {updates:.1e} of its update "
                f"after {self.steps} steps",
                parameter=parameter, steps=0, value=updates, threshold=self.change,
                causes=("random numbers from a generator without a seed",),
            )  # fmt: skip
        if updates is None:
            yield self.note("training was not repeated: that needs loss and optimizer")
        elif 0 < updates <= self.change:
            yield self.note(f"two trainings with the same seed differ by {updates:.1e} of the updates: rounding")

    @classmethod
    def healthy(cls) -> Run:
        return cls.example(outputs=0.0, updates=6e-4, parameter="h1.weight")

    @classmethod
    def sick(cls) -> Run:
        return cls.example(outputs=1.8e-3, updates=0.0, parameter="")


def _apart(before: Array, one: Array, other: Array) -> float:
    """‖one − other‖ over the larger of both updates from `before`; 0 where both are the same, NaN for NaN."""
    if np.array_equal(one, other, equal_nan=True):
        return 0.0
    size = max(float(np.linalg.norm(one - before)), float(np.linalg.norm(other - before)))
    apart = float(np.linalg.norm(one - other)) / size
    return apart if np.isfinite(apart) else float(np.finfo(np.float64).max)
