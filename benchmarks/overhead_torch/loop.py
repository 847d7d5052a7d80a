"""A user's own training loop, what it does for a tool that watches it, and the switch that takes the tool's hooks off."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from time import process_time
from typing import Any

import torch
from torch.nn.modules import module as modules
from torch.optim import optimizer as optimizers

from benchmarks.overhead_torch.networks import Network, loss_of
from nndiag_torch import patches


class Training:
    """A model, its optimiser and its batches."""

    def __init__(self, network: Network) -> None:
        torch.manual_seed(0)
        self.model = network.model()
        self.optimizer = network.optimizer(self.model.parameters())
        self.batches = network.batches()


def nothing(*_: Any) -> None:
    """What the bare loop does for a tool."""


@dataclass(frozen=True)
class Tool:
    """The lines that a tool asks for in the loop: before the backward pass, before the update, and after the step."""

    on_loss: Callable[[torch.Tensor], Any] = nothing
    on_gradients: Callable[[], Any] = nothing
    on_step: Callable[[], Any] = nothing
    close: Callable[[], Any] = nothing


Attach = Callable[[Training], Tool]
"""Puts a tool's hooks on a training."""


class Block:
    """A training that goes on a block of steps at a time, with a tool attached or, for comparison, without it."""

    def __init__(self, network: Network, attach: Attach, steps: int, warm_up: int) -> None:
        self.training = Training(network)
        self._steps = steps
        self._tool = attach(self.training)
        self._switch = Switch(self.training)
        self.train(warm_up)
        self._switch.off()

    def train(self, steps: int) -> None:
        """Go on for `steps` steps with the tool attached."""
        self._train(steps, self._tool)

    def pair(self, bare_first: bool) -> tuple[float, float]:
        """CPU time of a step without and with the tool, in seconds: of the same training, in the same memory."""
        seconds = {bare: self._seconds(bare) for bare in (bare_first, not bare_first)}
        return seconds[True], seconds[False]

    def train_attached(self, steps: int) -> None:
        """Go on for `steps` steps with the tool's hooks switched on for these alone."""
        self._switch.on()
        self.train(steps)
        self._switch.off()

    def close(self) -> None:
        """Take the tool off for good."""
        self._tool.close()

    def _seconds(self, bare: bool) -> float:
        if not bare:
            self._switch.on()
        begun = process_time()
        self._train(self._steps, BARE if bare else self._tool)
        seconds = (process_time() - begun) / self._steps
        self._switch.off()
        return seconds

    def _train(self, steps: int, tool: Tool) -> None:
        model, optimizer = self.training.model, self.training.optimizer
        for x, y in islice(self.training.batches, steps):
            loss = loss_of(model(x), y)
            tool.on_loss(loss)
            loss.backward()
            tool.on_gradients()
            optimizer.step()
            optimizer.zero_grad()
            tool.on_step()


BARE = Tool()


class Switch:
    """Every dictionary in which PyTorch keeps hooks on a training, what a tool has put there, and what nndiag has patched.

    So a tool goes off and on in microseconds and keeps its state, and of several tools on different models, some of which
    listen to all modules of the process, only one hears anything.
    """

    def __init__(self, training: Training) -> None:
        self._hooks = [(found, dict(found)) for found in _dictionaries(training)]
        self._watchers = list(patches.WATCHERS)

    def on(self) -> None:
        """The tool's hooks hear what happens."""
        for found, hooks in self._hooks:
            found.update(hooks)
        for watcher in self._watchers:
            patches.add(watcher)

    def off(self) -> None:
        """No hook hears anything."""
        for found, _ in self._hooks:
            found.clear()
        for watcher in self._watchers:
            patches.remove(watcher)


def _dictionaries(training: Training) -> Iterator[dict[int, Any]]:
    """The dictionaries of hooks of the process, the modules, the parameters and the optimiser, where there are hooks."""
    owners: list[dict[str, Any]] = [vars(modules), vars(optimizers), vars(training.optimizer)]
    owners += [vars(module) for module in training.model.modules()]
    owners += [
        {"_backward_hooks": parameter._backward_hooks, "_accumulate_hooks": parameter._post_accumulate_grad_hooks}
        for parameter in training.model.parameters()
    ]
    for owner in owners:
        for name, found in owner.items():
            if name.endswith("_hooks") and isinstance(found, dict) and found:
                yield found
