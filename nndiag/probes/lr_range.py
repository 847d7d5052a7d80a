"""NDP06 lr-range."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from nndiag.check import Finding
from nndiag.probes.probe import Probe
from nndiag.probes.subject import Subject, drawn
from nndiag.run import Run
from nndiag.statistics import Array

DONE = 0.9
"""Share of what the loss falls by at which it has fallen: what comes later, at higher learning rates, are accidents."""


@dataclass(frozen=True)
class LrRange(Probe):
    """The configured learning rate lies between where learning begins and where it diverges.

    One short training with a learning rate that grows from step to step shows both ends (Smith 2017, "Cyclical learning
    rates for training neural networks", section 3.3: the LR range test).

    Trains a copy on one batch of `samples` samples, without dropout, for `steps` steps while the learning rate grows from
    `lowest` to `highest` in equal ratios: the same batch throughout, so that nothing but the learning rate moves the loss.
    The steepest one is where the loss, as a running median of five steps, falls fastest over the logarithm of the learning
    rate; the diverging one that from which on half of what was gained stays lost. A configured one more than `high` times
    that, or below `low` of the steepest, is a warning: sound trainings lie between a sixtieth of the steepest and a fifth of
    the diverging one, and fine-tuning goes lower. Where the loss falls by less than `fall` of its way nothing is judged.
    """

    code = "NDP06"
    name = "lr-range"
    kind = "training"
    wants = ("loss", "optimizer")
    advice = "Take a learning rate near the steepest one, and at least ten times below the diverging one."
    confirm = "print(nndiag.probes.lr_range(trainer, x, y))"
    passed = "the learning rate lies where the loss falls"

    lowest: float = 1e-6
    highest: float = 10.0
    steps: int = 100
    samples: int = 64
    low: float = 1e-3
    high: float = 3.0
    fall: float = 0.02

    def measure(self, subject: Subject) -> dict[str, Any]:
        configured = subject.lr or 0.0
        if not configured > 0:
            return {"reason": f"the configured learning rate is {configured:g}"}
        rows, pupil = drawn(subject, self.samples), subject.copy(dropout=False)
        floor, rates = pupil.floor(rows), np.geomspace(self.lowest, self.highest, self.steps)
        losses: list[float] = []
        for lr in rates:
            losses.append(pupil.step(rows, lr / configured))
            if not math.isfinite(losses[-1]):
                break
        if not math.isfinite(losses[0]):
            return {"reason": "the loss of the samples is not finite"}
        return {"lr": configured, **turning_points(rates, np.array(losses), floor)}

    def not_checked(self, run: Run) -> str | None:
        if reason := super().not_checked(run):
            return reason
        gained = self.measured(run)["gained"]
        return None if gained >= self.fall else f"the loss falls by only {gained:.1%} of its way at any learning rate"

    def examine(self, run: Run) -> Iterator[Finding]:
        m = self.measured(run)
        lr, steepest, diverging = m["lr"], m["steepest"], m["diverging"]
        seen = f"the loss falls fastest near lr = {steepest:.1e} and " + (
            f"diverges from {diverging:.1e} on" if diverging else f"does not diverge up to {self.highest:g}"
        )
        advised = min(steepest, diverging / 10 if diverging else steepest)
        if diverging and lr > self.high * diverging:
            yield self.finding(
                f"the learning rate {lr:.3g} lies where training diverges: {seen}",
                steps=0, value=lr, threshold=self.high * diverging, causes=("ND501",),
                fix=f"Try lr = {advised:.1e}.",
            )  # fmt: skip
        elif lr < self.low * steepest:
            yield self.finding(
                f"the learning rate {lr:.3g} is far too low to learn anything: {seen}",
                steps=0, value=lr, threshold=self.low * steepest, causes=("ND502",),
                fix=f"Try lr = {advised:.1e}.",
            )  # fmt: skip
        else:
            yield self.note(f"{seen}; configured is {lr:.3g}")

    @classmethod
    def _run(cls, lr: float) -> Run:
        return cls.example(lr=lr, gained=0.9, steepest=0.1, diverging=1.0)

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(2.4)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(3.6)


def turning_points(rates: Array, losses: Array, floor: float) -> dict[str, float | None]:
    """The steepest and the diverging (or None) of learning rates, from the loss before each update.

    `gained` is what the loss fell by at best, in proportion to its way to `floor`.
    """
    padded = np.pad(np.where(np.isfinite(losses), losses, np.inf), 2, mode="edge")
    smooth = np.median(np.lib.stride_tricks.sliding_window_view(padded, 5), axis=1)
    start, best = float(losses[0]), float(smooth.min())
    kept = int(np.flatnonzero(smooth <= (start + best) / 2)[-1])
    fallen = int(np.flatnonzero(smooth <= start - DONE * (start - best))[0])
    slopes = np.gradient(smooth[: fallen + 1], np.log(rates[: fallen + 1])) if fallen else np.zeros(1)
    ends_lost = kept + 1 < len(losses) or not np.isfinite(losses[-1])
    return {
        "steepest": float(rates[np.argmin(slopes)]),
        "diverging": float(rates[min(kept + 1, len(losses) - 1)]) if ends_lost else None,
        "gained": (start - best) / (start - floor) if start > floor else 0.0,
    }
