"""NDP05 batch-independence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from nndiag.check import Finding
from nndiag.probes.probe import Probe
from nndiag.probes.subject import Subject, drawn, seeded
from nndiag.run import Run
from nndiag.statistics import Array


@dataclass(frozen=True)
class BatchIndependence(Probe):
    """What the network says of one sample does not depend on the others in its batch.

    A reshape that mixes axes, a softmax or a mean over the wrong one, or a recurrent layer that takes the batch for time
    lets information flow between samples. The network then trains, only worse, and what it says of a sample changes with
    its neighbours (Karpathy 2019, "A recipe for training neural networks": use backprop to chart dependencies).

    Sends `samples` samples through a copy in evaluation mode, where batch norm does not mix them, and again with the first
    and with the last of them replaced by another one, with the same random numbers. It fails when the outputs of the others
    change by more than `change` of their spread over the samples (rounding changes them by 1e-5 in float32). Names the first
    layer whose output has a row for each sample of which others changed.
    """

    code = "NDP05"
    name = "batch-independence"
    kind = "exact"
    wants = ()
    advice = "Look for view, reshape, transpose or a reduction over the batch axis, and for a missing batch_first=True."
    confirm = "print(nndiag.probes.batch_independence(trainer, x, y))"
    passed = "no sample's output depends on another's"

    change: float = 1e-3
    samples: int = 7

    def measure(self, subject: Subject) -> dict[str, Any]:
        rows = drawn(subject, self.samples)
        if len(rows) < 2:
            return {"reason": "needs 2 samples"}
        before = self._outputs(subject, rows)
        found: dict[str, Any] = {"change": 0.0, "sample": 0, "layer": ""}
        for position, other in ((0, -1), (len(rows) - 1, 0)):
            changed = rows.copy()
            changed[position] = rows[other]
            moved = changes(before, self._outputs(subject, changed), position)
            if moved > found["change"]:
                found = {"change": moved, "sample": position, "layer": self._layer(subject, rows, changed, position)}
        return found

    def _outputs(self, subject: Subject, rows: Array) -> Array:
        with seeded(subject):
            return subject.copy().outputs(rows)

    def _layer(self, subject: Subject, rows: Array, changed: Array, position: int) -> str:
        """The first layer that has a row for each sample and in which another one than the replaced one has changed."""
        passes = []
        for batch in (rows, changed):
            with seeded(subject):
                passes.append(subject.copy().layers(batch, training=False))
        for one, other in zip(*passes, strict=False):
            fits: bool = one.output.shape == other.output.shape and one.output.shape[:1] == rows.shape
            if fits and changes(one.output, other.output, position) > self.change:
                return str(one.name)
        return ""

    def examine(self, run: Run) -> Iterator[Finding]:
        m = self.measured(run)
        if m["change"] > self.change:
            where = f", first behind {m['layer']}" if m["layer"] else ""
            yield self.finding(
                f"another sample in place of number {m['sample']} of the batch changes the outputs of the others by "
                f"{m['change']:.1e} of their spread{where}",
                layer=m["layer"] or None, steps=0, value=m["change"], threshold=self.change,
                causes=("ND111", "an operation that mixes the batch axis with another"),
            )  # fmt: skip

    @classmethod
    def healthy(cls) -> Run:
        return cls.example(change=6e-4, sample=0, layer="")

    @classmethod
    def sick(cls) -> Run:
        return cls.example(change=1.8e-3, sample=0, layer="h1")


def changes(before: Array, after: Array, position: int | None = None) -> float:
    """Largest change of a row, without that at `position`, over the spread of the rows; infinite where one is not finite."""
    before, after = before.reshape(len(before), -1), after.reshape(len(after), -1)
    if position is not None:
        before, after = np.delete(before, position, axis=0), np.delete(after, position, axis=0)
    same = (before == after) | (np.isnan(before) & np.isnan(after))
    if same.all():
        return 0.0
    spread = np.sqrt(np.mean(before.var(axis=0)))
    scale = max(float(spread), 1e-3 * float(np.sqrt(np.mean(before**2))))
    with np.errstate(all="ignore"):
        moved = float(np.abs(np.where(same, 0.0, after - before)).max() / scale)
    return moved if np.isfinite(moved) else float(np.finfo(np.float64).max)
