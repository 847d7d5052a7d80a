"""NDP02 overfit-tiny-batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from nndiag.check import Finding
from nndiag.errors import NndiagError
from nndiag.probes.probe import Probe
from nndiag.probes.subject import Pupil, Subject, tiny
from nndiag.run import Run
from nndiag.statistics import Array


@dataclass(frozen=True)
class OverfitTinyBatch(Probe):
    """The network can learn a handful of samples by heart.

    Whoever cannot overfit sixteen samples cannot learn a thousand: something in the model, the loss, the gradients or
    the learning rate is broken (Karpathy 2019, "A recipe for training neural networks", step 3).

    Trains a copy, without dropout and weight decay, on `samples` samples (of sequences and images that are told a class at
    every position fewer: as many positions, at least two samples) for `steps` steps at the configured learning
    rate, and if need be at a tenth and at ten times of it, each time from the start. It passes when the loss comes down
    to its floor plus `left` of the way there. When only another learning rate gets there it says which.
    """

    code = "NDP02"
    name = "overfit-tiny-batch"
    kind = "training"
    wants = ("loss", "optimizer")
    advice = "Look at the other findings first; then at the loss, the labels and the size of the network."
    confirm = "print(nndiag.probes.overfit_tiny_batch(trainer, x, y))"
    passed = "a tiny batch is learned by heart"

    samples: int = 16
    steps: int = 500
    left: float = 0.05
    factors: tuple[float, ...] = (1.0, 0.1, 10.0)

    def measure(self, subject: Subject) -> dict[str, Any]:
        rows = tiny(subject, self.samples)
        reached: dict[str, float] = {}
        for factor in self.factors:
            pupil = subject.copy(dropout=False, decay=False)
            target = goal(pupil, rows, self.left)
            losses = learned(pupil, rows, factor, self.steps, target)
            reached[f"{factor:g}"] = min(losses)
            if min(losses) <= target:
                break
        return {
            "initial": losses[0],
            "target": target,
            "reached": {factor: loss if np.isfinite(loss) else None for factor, loss in reached.items()},
            "lr": subject.lr,
            "samples": len(rows),
        }

    def examine(self, run: Run) -> Iterator[Finding]:
        measured = self.measured(run)
        target, lr, reached = measured["target"], measured["lr"], measured["reached"]
        enough = [float(factor) for factor, loss in reached.items() if loss is not None and loss <= target]
        if 1.0 in enough:
            return
        best = min((loss for loss in reached.values() if loss is not None), default=float("nan"))
        if enough:
            yield self.finding(
                f"{measured['samples']} samples are learned by heart only with {enough[0]:g} times the learning rate",
                steps=0, value=best, threshold=target, causes=("ND501" if enough[0] < 1 else "ND502",),
                fix=f"Try lr = {lr * enough[0]:.2g} instead of {lr:.2g}.",
            )  # fmt: skip
        else:
            yield self.finding(
                f"{measured['samples']} samples cannot be learned by heart: the loss gets from {measured['initial']:.3g} "
                f"to {best:.3g}, wanted {target:.3g}",
                steps=0, value=best, threshold=target,
                causes=("NDP01", "ND1", "ND2", "ND5"),
            )  # fmt: skip

    @classmethod
    def _run(cls, reached: float) -> Run:
        return cls.example(initial=2.3, target=0.115, reached={"1": reached, "0.1": 1.0, "10": 2.3}, lr=0.1, samples=16)

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(0.1)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(0.15)


def goal(pupil: Pupil, rows: Array, left: float) -> float:
    """The loss with `left` of the way to its floor left. Raises NndiagError where it does not begin above that.

    A network that is trained already, so that the targets of other samples cost it more than twice as much as its own, has
    come from there.
    """
    floor, initial, others = pupil.floor(rows), pupil.loss(rows), pupil.loss(rows, targets=np.roll(rows, 1))
    if not floor < initial < np.inf:
        raise NndiagError(f"the loss begins at {initial:.3g}: how low it can get is not known")
    return floor + left * ((others if others - floor > 2 * (initial - floor) else initial) - floor)


def learned(pupil: Pupil, rows: Array, factor: float, steps: int, target: float = -np.inf) -> list[float]:
    """Losses of a pupil trained on one batch, until `target` is reached; infinite, and the last one, where not finite."""
    losses: list[float] = []
    for _ in range(steps):
        loss = pupil.step(rows, factor)
        losses.append(loss if np.isfinite(loss) else np.inf)
        if loss <= target or not np.isfinite(loss):
            break
    return losses
