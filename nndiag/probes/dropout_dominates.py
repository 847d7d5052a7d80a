"""NDP08 dropout-dominates."""

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
class DropoutDominates(Probe):
    """Dropout costs most of what the network could learn.

    Dropout regularises at the price of slower learning (Srivastava et al. 2014, section 7.3: rates of 0.4 to 0.8 were
    best for hidden units, 0.2 for inputs). With a rate so high that hardly a unit is left, or in a narrow network, it drowns
    the signal instead.

    Trains two copies on the same `steps` batches of `batch` samples, one with dropout and one without, and compares their
    losses in evaluation mode, on `samples` samples. It is a warning when with dropout the loss falls by less than `share` of
    what it falls by without (rates up to 0.5 in up to four layers leave 0.52 and more of it, 0.9 at most 0.30), or is not
    finite. Not checked where there is no dropout, or where the loss falls by less than `fall` of its way
    without it.
    """

    code = "NDP08"
    name = "dropout-dominates"
    kind = "training"
    wants = ("loss", "optimizer")
    advice = "Lower the dropout rates: 0.1 to 0.5 for hidden units, 0.2 at most for inputs; or widen the network."
    confirm = "print(nndiag.probes.dropout_dominates(trainer, x, y))"
    passed = "the network learns with dropout, too"

    share: float = 0.4
    fall: float = 0.1
    steps: int = 200
    batch: int = 32
    samples: int = 256

    def measure(self, subject: Subject) -> dict[str, Any]:
        rows = drawn(subject, self.samples)
        if self._first(subject, rows, dropout=True) == self._first(subject, rows, dropout=False):
            return {"reason": "there is no dropout in this model"}
        without, floor = subject.copy(dropout=False), subject.copy().floor(rows)
        initial = without.loss(rows, training=False)
        losses = {dropout: self._trained(subject, rows, dropout) for dropout in (True, False)}
        if not (np.isfinite(initial) and np.isfinite(losses[False])):
            return {"reason": "the loss is not finite without dropout either"}
        dropped = losses[True] if np.isfinite(losses[True]) else None
        return {"initial": initial, "floor": floor, "with": dropped, "without": losses[False]}

    def _first(self, subject: Subject, rows: Array, dropout: bool) -> float:
        with seeded(subject):
            return subject.copy(dropout=dropout).loss(rows[: self.batch])

    def _trained(self, subject: Subject, rows: Array, dropout: bool) -> float:
        rng = np.random.default_rng(0)
        with seeded(subject):
            pupil = subject.copy(dropout=dropout)
            for _ in range(self.steps):
                pupil.step(rng.permutation(subject.samples)[: self.batch])
            return pupil.loss(rows, training=False)

    def not_checked(self, run: Run) -> str | None:
        if reason := super().not_checked(run):
            return reason
        m = self.measured(run)
        if m["initial"] - m["without"] < self.fall * (m["initial"] - m["floor"]):
            return "training without dropout does not get far enough to compare with"
        return None

    def examine(self, run: Run) -> Iterator[Finding]:
        m = self.measured(run)
        reached = float("inf") if m["with"] is None else m["with"]
        share = (m["initial"] - reached) / (m["initial"] - m["without"])
        if share < self.share:
            yield self.finding(
                f"in {self.steps} steps the loss gets from {m['initial']:.3g} to {reached:.3g} with dropout and to "
                f"{m['without']:.3g} without",
                steps=0, value=share, threshold=self.share, causes=("a dropout rate too high",),
            )  # fmt: skip

    @classmethod
    def _run(cls, loss: float) -> Run:
        return cls.example(initial=2.3, floor=0.0, without=0.3, **{"with": loss})

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(1.4)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(1.6)
