"""Training loops as people write them: an epoch of training, a validation, and each of them with one line wrong.

`Loop` holds what a script has at the top level: the model, the optimiser, the loss and the batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Batches = Iterable[tuple[Tensor, Tensor]]
LossFunction = Callable[[Any, Tensor], Tensor]
Judge = Callable[[Any, Tensor], float]
"""How wrong outputs are: a share of wrong decisions, or of unexplained variance."""


@dataclass
class Loop:
    """What a loop works with; `log` hands numbers to the recorder, where there is one."""

    model: nn.Module
    optimizer: Any
    loss: LossFunction
    batches: Batches
    validation_batches: Batches
    log: Callable[..., None]
    scheduler: Any = None
    judge: Judge | None = None


Epoch = Callable[[Loop], None]


# Sound epochs


def plain(loop: Loop) -> None:
    """Zero, forward, backward, step."""
    loop.model.train()
    for x, y in loop.batches:
        loop.optimizer.zero_grad()
        loss = loop.loss(loop.model(x), y)
        loop.log(loss=loss)
        loss.backward()
        loop.optimizer.step()


def zero_last(loop: Loop) -> None:
    """Gradients are cleared after the step."""
    loop.model.train()
    for x, y in loop.batches:
        outputs = loop.model(x)
        loss = loop.loss(outputs, y)
        loop.log(loss=loss)
        loss.backward()
        loop.optimizer.step()
        loop.optimizer.zero_grad()


def zero_filled(loop: Loop) -> None:
    """Gradients are filled with zeros, by the model."""
    loop.model.train()
    for x, y in loop.batches:
        loop.model.zero_grad(set_to_none=False)
        loss = loop.loss(loop.model(x), y)
        loop.log(loss=loss)
        loss.backward()
        loop.optimizer.step()


def clipped(loop: Loop, most: float = 1.0) -> None:
    """Gradients are clipped to a norm."""
    loop.model.train()
    for x, y in loop.batches:
        loop.optimizer.zero_grad()
        loss = loop.loss(loop.model(x), y)
        loop.log(loss=loss)
        loss.backward()
        nn.utils.clip_grad_norm_(loop.model.parameters(), most)
        loop.optimizer.step()


def scheduled(loop: Loop) -> None:
    """The schedule takes a step with every batch."""
    loop.model.train()
    for x, y in loop.batches:
        loop.optimizer.zero_grad()
        loss = loop.loss(loop.model(x), y)
        loop.log(loss=loss)
        loss.backward()
        nn.utils.clip_grad_norm_(loop.model.parameters(), 1.0)
        loop.optimizer.step()
        loop.scheduler.step()


def each_epoch(loop: Loop) -> None:
    """The schedule takes a step with every epoch."""
    plain(loop)
    loop.scheduler.step()


def accumulating(loop: Loop, parts: int = 4) -> None:
    """An update for every four batches, with a quarter of each loss."""
    loop.model.train()
    loop.optimizer.zero_grad()
    for number, (x, y) in enumerate(loop.batches, start=1):
        loss = loop.loss(loop.model(x), y) / parts
        loop.log(loss=loss * parts)
        loss.backward()
        if number % parts == 0:
            loop.optimizer.step()
            loop.optimizer.zero_grad()


def autocast(loop: Loop) -> None:
    """Forward in bfloat16 where that is safe."""
    loop.model.train()
    for x, y in loop.batches:
        loop.optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = loop.loss(loop.model(x), y)
        loop.log(loss=loss)
        loss.backward()
        loop.optimizer.step()


def frozen_body(loop: Loop) -> None:
    """The body stays in evaluation mode, as it is not trained."""
    loop.model.head.train()
    for x, y in loop.batches:
        loop.optimizer.zero_grad()
        loss = loop.loss(loop.model(x), y)
        loop.log(loss=loss)
        loss.backward()
        loop.optimizer.step()


# Sound validations


def evaluate(loop: Loop) -> None:
    """Mean loss and accuracy, in evaluation mode and without gradients."""
    loop.model.eval()
    with torch.no_grad():
        validated(loop)


def validated(loop: Loop) -> None:
    """Go through the validation batches and log what they give."""
    loss = wrong = count = 0.0
    for x, y in loop.validation_batches:
        outputs = loop.model(x)
        loss += loop.loss(outputs, y).item() * len(y)
        wrong += loop.judge(outputs, y) * len(y) if loop.judge else 0
        count += len(y)
    loop.log(validation_loss=loss / count)
    if loop.judge:
        loop.log(validation_accuracy=1 - wrong / count)


# Epochs with a line that is wrong or missing


def zero_forgotten(loop: Loop) -> None:
    """Without zero_grad."""
    loop.model.train()
    for x, y in loop.batches:
        loss = loop.loss(loop.model(x), y)
        loop.log(loss=loss)
        loss.backward()
        loop.optimizer.step()


def zero_before_step(loop: Loop) -> None:
    """zero_grad stands between backward and step."""
    loop.model.train()
    for x, y in loop.batches:
        loss = loop.loss(loop.model(x), y)
        loop.log(loss=loss)
        loss.backward()
        loop.optimizer.zero_grad()
        loop.optimizer.step()


def step_forgotten(loop: Loop) -> None:
    """Without step."""
    loop.model.train()
    for x, y in loop.batches:
        loop.optimizer.zero_grad()
        loss = loop.loss(loop.model(x), y)
        loop.log(loss=loss)
        loss.backward()


def backward_forgotten(loop: Loop) -> None:
    """Without backward."""
    loop.model.train()
    for x, y in loop.batches:
        loop.optimizer.zero_grad()
        loss = loop.loss(loop.model(x), y)
        loop.log(loss=loss)
        loop.optimizer.step()


def loss_rewrapped(loop: Loop) -> None:
    """The loss is made into a new tensor, as some do to silence "does not require grad"."""
    loop.model.train()
    for x, y in loop.batches:
        loop.optimizer.zero_grad()
        loss = loop.loss(loop.model(x), y)
        loss = torch.tensor(loss.item(), requires_grad=True)
        loop.log(loss=loss)
        loss.backward()
        loop.optimizer.step()


def decisions_compared(loop: Loop) -> None:
    """The loss compares decisions, not outputs: nothing can be derived by them."""
    loop.model.train()
    for x, y in loop.batches:
        loop.optimizer.zero_grad()
        predicted = loop.model(x).argmax(dim=-1).float().requires_grad_()
        loss = F.mse_loss(predicted, y.float())
        loop.log(loss=loss)
        loss.backward()
        loop.optimizer.step()


def mode_forgotten(loop: Loop) -> None:
    """train() is not called again after a validation has called eval()."""
    for x, y in loop.batches:
        loop.optimizer.zero_grad()
        loss = loop.loss(loop.model(x), y)
        loop.log(loss=loss)
        loss.backward()
        loop.optimizer.step()


def climbing(loop: Loop) -> None:
    """Goes along the gradient of minus the loss."""
    loop.model.train()
    for x, y in loop.batches:
        loop.optimizer.zero_grad()
        loss = loop.loss(loop.model(x), y)
        loop.log(loss=loss)
        (-loss).backward()
        loop.optimizer.step()


def accumulating_undivided(loop: Loop, parts: int) -> None:
    """An update for so many batches, with all of each loss."""
    loop.model.train()
    loop.optimizer.zero_grad()
    for number, (x, y) in enumerate(loop.batches, start=1):
        loss = loop.loss(loop.model(x), y)
        loop.log(loss=loss)
        loss.backward()
        if number % parts == 0:
            loop.optimizer.step()
            loop.optimizer.zero_grad()


def scheduled_each_batch(loop: Loop) -> None:
    """A schedule that counts epochs takes a step with every batch."""
    loop.model.train()
    for x, y in loop.batches:
        loop.optimizer.zero_grad()
        loss = loop.loss(loop.model(x), y)
        loop.log(loss=loss)
        loss.backward()
        loop.optimizer.step()
        loop.scheduler.step()


def clipped_while_scaled(loop: Loop) -> None:
    """Gradients are clipped before the scaler has taken its factor out again."""
    scaler = torch.amp.GradScaler("cpu")
    loop.model.train()
    for x, y in loop.batches:
        loop.optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = loop.loss(loop.model(x), y)
        loop.log(loss=loss)
        scaler.scale(loss).backward()
        nn.utils.clip_grad_norm_(loop.model.parameters(), 1.0)
        scaler.step(loop.optimizer)
        scaler.update()


def scaled_step(loop: Loop) -> None:
    """The optimiser takes the step itself, with gradients that are still scaled."""
    scaler = torch.amp.GradScaler("cpu")
    loop.model.train()
    for x, y in loop.batches:
        loop.optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = loop.loss(loop.model(x), y)
        loop.log(loss=loss)
        scaler.scale(loss).backward()
        loop.optimizer.step()


# Validations with a line that is wrong or missing


def evaluated_in_training_mode(loop: Loop) -> None:
    """Without eval()."""
    with torch.no_grad():
        validated(loop)
