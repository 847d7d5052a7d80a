"""What a program of the zoo is, and the data, networks and loops that several of them share."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.diagnosis_torch.programs import Watch
from nndiag.datasets import digits

SEEDS = range(3)
"""Of sound programs."""

_SPLIT = digits()
X, Y = torch.tensor(_SPLIT.x, dtype=torch.float32), torch.tensor(_SPLIT.y)
"""Digits of 8 × 8 pixels, as (N, 64) from 0 to 1, and their classes."""
X_VAL, Y_VAL = torch.tensor(_SPLIT.x_val, dtype=torch.float32), torch.tensor(_SPLIT.y_val)

LossOf = Callable[[Any, Tensor, Tensor], Tensor]
"""Takes the model, inputs and targets of a batch, and gives the loss."""


@dataclass(frozen=True)
class Sound:
    """A sound program: `train` watches it by what it is given, and gives its final error, `most` at most.

    What the error is, its module or it itself says.
    """

    kind: str
    most: float
    train: Callable[[Watch], float]


ZOO: dict[str, Sound] = {}


def sound(kind: str, most: float) -> Callable[[Callable[[Watch], float]], Callable[[Watch], float]]:
    """Puts a program into the zoo, under the name of its function."""

    def put(train: Callable[[Watch], float]) -> Callable[[Watch], float]:
        ZOO[train.__name__.replace("_", "-")] = Sound(kind, most, train)
        return train

    return put


class Unseen:
    """Stands in for a recorder where nobody watches."""

    def log(self, **values: Any) -> None:
        """Nothing."""

    def __enter__(self) -> Unseen:
        return self

    def __exit__(self, *exception: object) -> None:
        """Nothing."""


def train(name: str, seed: int, watch: Watch | None = None) -> tuple[float, Any]:
    """Train a program of the zoo, seen by `watch` or unseen: its final error, inf where that is no number, and the recorder."""
    recorders: list[Any] = []

    def watched(model: Any, optimizer: Any) -> Any:
        recorders.append(watch(model, optimizer) if watch else Unseen())
        return recorders[-1]

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        error = ZOO[name].train(watched)
    return (error if math.isfinite(error) else math.inf), recorders[0]


def examine(job: tuple[str, int]) -> float:
    """The final error of a program with a seed, unseen."""
    return train(*job)[0]


# What programs share


def mlp(*sizes: int, activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    """Linear layers of these sizes, with activation functions in between."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), activation()]
    return nn.Sequential(*layers[:-1])


def batches(x: Tensor, y: Tensor, epochs: int = 1, size: int = 32) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of one size in a new order in each epoch; what is left over is left out."""
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(size):
            if len(rows) == size:
                yield x[rows], y[rows]


def update(
    recorder: Any, optimizer: torch.optim.Optimizer, loss: Tensor, parameters: Iterable[Tensor] = (), clip: float = 0.0
) -> None:
    """Log the loss and make one update, with the norm of the gradients of `parameters` clipped where `clip` is not 0."""
    recorder.log(loss=loss)
    optimizer.zero_grad()
    loss.backward()
    if clip:
        nn.utils.clip_grad_norm_(parameters, clip)
    optimizer.step()


def updates(
    watch: Watch, model: Any, optimizer: torch.optim.Optimizer, number: int, loss_of: Callable[[int], Tensor], *,
    clip: float = 0.0, after: Callable[[int], None] | None = None, precision: AbstractContextManager[Any] | None = None,
) -> None:  # fmt: skip
    """So many updates along the gradient of `loss_of(step)`."""
    with watch(model, optimizer) as recorder:
        for step in range(number):
            with precision or nullcontext():
                loss = loss_of(step)
            update(recorder, optimizer, loss, model.parameters(), clip)
            if after is not None:
                after(step)


def epochs_of(
    watch: Watch, model: nn.Module, optimizer: torch.optim.Optimizer, loss_of: LossOf, x: Tensor = X, y: Tensor = Y, *,
    epochs: int = 12, size: int = 32, clip: float = 0.0, scheduler: Any = None,
    validate: Callable[[], float] | None = None, after: Callable[[], None] | None = None,
) -> None:  # fmt: skip
    """Epochs over `x` and `y`; `scheduler` and `after` follow each update, `validate` gives a loss after each epoch."""
    with watch(model, optimizer) as recorder:
        for epoch in range(epochs):
            model.train()
            recorder.log(epoch=epoch)
            for inputs, targets in batches(x, y, 1, size):
                update(recorder, optimizer, loss_of(model, inputs, targets), model.parameters(), clip)
                if scheduler is not None:
                    scheduler.step()
                if after is not None:
                    after()
            if validate is not None:
                model.eval()
                with torch.no_grad():
                    recorder.log(validation_loss=validate())


def classified(model: nn.Module, x: Tensor = X_VAL, y: Tensor = Y_VAL) -> Tensor:
    """Cross-entropy, by default that of the validation digits."""
    return F.cross_entropy(model(x), y)


def follow(slow: nn.Module, fast: nn.Module, rate: float) -> None:
    """Move the parameters of `slow` by a small part of the way towards those of `fast`."""
    with torch.no_grad():
        for behind, ahead in zip(slow.parameters(), fast.parameters(), strict=True):
            behind.lerp_(ahead, rate)


def wrong(model: nn.Module, x: Tensor = X_VAL, y: Tensor = Y_VAL) -> float:
    """Share of the samples that `model`, as in evaluation, gives another class than `y`; 0.9 is chance for digits."""
    model.eval()
    with torch.no_grad():
        return float((model(x).argmax(1) != y).double().mean())


def unexplained(prediction: Tensor, target: Tensor) -> float:
    """Share of the variance of `target` that `prediction` leaves."""
    return float((prediction.detach() - target).square().mean() / target.var())
