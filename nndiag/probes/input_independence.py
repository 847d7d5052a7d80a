"""NDP04 input-independence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from nndiag.check import Finding
from nndiag.probes.overfit_tiny_batch import goal, learned
from nndiag.probes.probe import Probe
from nndiag.probes.subject import Subject, tiny
from nndiag.run import Run
from nndiag.statistics import Array


@dataclass(frozen=True)
class InputIndependence(Probe):
    """What the network learns comes from its inputs: real ones are learned better than zeros.

    A network that is fed with the wrong tensor, or whose first layers let nothing through, still learns the frequencies of
    the labels or the mean of the targets, and its loss falls as a healthy one's does at first. Trained on zeros instead of
    the inputs it gets just as far (Karpathy 2019, "A recipe for training neural networks", step 2: the input-independent
    baseline).

    Trains as NDP02 does, with the best of its learning rates, and once more with all inputs zero for as many steps. It is
    a warning when the real inputs leave more than 1 − `gain` of what zeros leave between their loss and the floor, or where
    the outputs do not differ between samples by more than `same` of their size. Not judged where the targets can be learned
    without inputs, where the last fifth of the steps makes more than `moving` of what the loss falls by, and where training
    moves it by less than `moved` of its way: there NDP02 has something to say.
    """

    code = "NDP04"
    name = "input-independence"
    kind = "training"
    wants = ("loss", "optimizer")
    advice = "Follow one sample from the data to the first layer: is it passed on, and does that layer let it through?"
    confirm = "print(nndiag.probes.input_independence(trainer, x, y))"
    passed = "real inputs are learned better than zeros"

    gain: float = 0.1
    same: float = 1e-6
    moving: float = 0.05
    moved: float = 0.05
    samples: int = 16
    steps: int = 500
    left: float = 0.05
    factors: tuple[float, ...] = (1.0, 0.1, 10.0)

    def measure(self, subject: Subject) -> dict[str, Any]:
        rows = tiny(subject, self.samples)
        best: dict[str, Any] = {}
        for factor in self.factors:
            pupil = subject.copy(dropout=False, decay=False)
            target = goal(pupil, rows, self.left)
            losses = learned(pupil, rows, factor, self.steps, target)
            if np.isfinite(losses[-1]) and (not best or min(losses) < best["real"]):
                earlier = losses[: -(len(losses) // 5) or None]
                best = {"real": min(losses), "steps": len(losses), "factor": factor, "initial": losses[0], "target": target,
                        "floor": pupil.floor(rows), "fell": min(earlier) - min(losses),
                        "varies": _variation(pupil.outputs(rows))}  # fmt: skip
            if best and best["real"] <= target:
                break
        if not best:
            return {"reason": "training diverges: see NDP02"}
        zeros = subject.copy(dropout=False, decay=False, zeroed=True)
        goal(zeros, rows, self.left)
        return best | {"samples": len(rows), "zeroed": min(learned(zeros, rows, best["factor"], best["steps"]))}

    def not_checked(self, run: Run) -> str | None:
        if reason := super().not_checked(run):
            return reason
        m = self.measured(run)
        way = m["initial"] - m["floor"]
        if m["zeroed"] <= m["target"]:
            return "the targets of these samples can be learned without inputs"
        if m["real"] <= m["target"] or m["varies"] <= self.same:
            return None
        if m["initial"] - m["real"] < self.moved * way:
            return f"{m['steps']} steps hardly move the loss: see NDP02"
        if m["fell"] > self.moving * (m["initial"] - m["real"]):
            return f"the loss still falls after {m['steps']} steps: too early to tell"
        return None

    def examine(self, run: Run) -> Iterator[Finding]:
        m = self.measured(run)
        if m["real"] <= m["target"]:
            return
        if m["varies"] <= self.same:
            yield self.finding(
                f"the outputs are the same for all {m['samples']} samples after {m['steps']} steps of training on them",
                steps=0, value=m["varies"], threshold=self.same,
                causes=("inputs that do not reach the model", "ND205", "ND301"),
            )  # fmt: skip
        elif m["real"] - m["floor"] > (1 - self.gain) * (m["zeroed"] - m["floor"]):
            yield self.finding(
                f"the inputs do not help: training gets from {m['initial']:.3g} to {m['real']:.3g} with them and to "
                f"{m['zeroed']:.3g} with zeros in their place",
                steps=0, value=m["real"],
                threshold=m["floor"] + (1 - self.gain) * (m["zeroed"] - m["floor"]),
                causes=("inputs that do not reach the model", "ND205", "ND301", "ND302"),
            )  # fmt: skip

    @classmethod
    def _run(cls, real: float) -> Run:
        return cls.example(initial=2.3, floor=0.0, target=0.115, real=real, zeroed=1.9, fell=0.0, varies=0.1, steps=500,
                           samples=16, factor=1.0)  # fmt: skip

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(1.6)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(1.8)


def _variation(outputs: Array) -> float:
    """How much outputs (samples, values) differ between samples, in proportion to their size."""
    size = float(np.sqrt(np.mean(outputs**2)))
    spread = float(np.sqrt(np.mean(outputs.var(axis=0))))
    return spread / size if size > 0 and np.isfinite(size) else 0.0
