"""NDP02 overfit-tiny-batch."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from nndiag.check import Finding
from nndiag.nn import Trainer
from nndiag.nn.schedules import Constant, base_lr
from nndiag.probes.probe import Probe, plain_copy, sample
from nndiag.progress import smoothed_floor
from nndiag.run import Run
from nndiag.statistics import Array


@dataclass(frozen=True)
class OverfitTinyBatch(Probe):
    """The network can learn a handful of samples by heart.

    Whoever cannot overfit sixteen samples cannot learn a thousand: something in the model, the loss, the gradients or
    the learning rate is broken (Karpathy 2019, "A recipe for training neural networks", step 3).

    Trains a copy, without dropout and weight decay, on `samples` samples for `steps` steps at the configured learning
    rate, and if need be at a tenth and at ten times of it, each time from the start. It passes when the loss comes down
    to its floor plus `left` of the way there. When only another learning rate gets there it says which.
    """

    code = "NDP02"
    name = "overfit-tiny-batch"
    kind = "training"
    needs = ()
    advice = "Look at the other findings first; then at the loss, the labels and the size of the network."
    confirm = "print(nndiag.probes.overfit_tiny_batch(trainer, x, y))"
    passed = "a tiny batch is learned by heart"

    samples: int = 16
    steps: int = 500
    left: float = 0.05
    factors: tuple[float, ...] = (1.0, 0.1, 10.0)

    def measure(self, trainer: Trainer, x: Array, y: Array) -> dict[str, Any]:
        x, y = sample(x, y, self.samples)
        reached: dict[str, float] = {}
        for factor in self.factors:
            losses = self._train(trainer, x, y, factor)
            reached[f"{factor:g}"] = min(losses)
            if min(losses) <= self._target(trainer, losses[0]):
                break
        return {
            "initial": losses[0],
            "target": self._target(trainer, losses[0]),
            "reached": {factor: loss if np.isfinite(loss) else None for factor, loss in reached.items()},
            "lr": base_lr(trainer.optimizer.schedule),
            "samples": len(x),
        }

    def _train(self, trainer: Trainer, x: Array, y: Array, factor: float) -> list[float]:
        """Losses of a copy trained on this batch alone, until the target is reached; infinite where it is not a number."""
        optimizer = copy.deepcopy(trainer.optimizer)
        optimizer.schedule, optimizer.weight_decay = Constant(base_lr(optimizer.schedule) * factor), 0.0
        pupil = Trainer(plain_copy(trainer.model), copy.deepcopy(trainer.loss), optimizer, clip_norm=trainer.clip_norm)
        losses: list[float] = []
        for _ in range(self.steps):
            loss = pupil.step(x, y)
            losses.append(loss if np.isfinite(loss) else np.inf)
            if loss <= self._target(trainer, losses[0]) or not np.isfinite(loss):
                break
        return losses

    def _target(self, trainer: Trainer, initial: float) -> float:
        width = trainer.model.parameters[-1].value.shape[0] if trainer.model.parameters else 1
        floor = smoothed_floor(trainer.loss.label_smoothing, width)
        return floor + self.left * max(initial - floor, 0.0)

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
                first_step=0, last_step=0, value=best, threshold=target, causes=("ND501" if enough[0] < 1 else "ND502",),
                fix=f"Try lr = {lr * enough[0]:.2g} instead of {lr:.2g}.",
            )  # fmt: skip
        else:
            yield self.finding(
                f"{measured['samples']} samples cannot be learned by heart: the loss gets from {measured['initial']:.3g} "
                f"to {best:.3g}, wanted {target:.3g}",
                first_step=0, last_step=0, value=best, threshold=target,
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
