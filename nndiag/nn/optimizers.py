"""The optimisers: SGD with momentum, and Adam; both with weight decay."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from nndiag.nn.buffers import Buffers
from nndiag.nn.parameter import Parameter
from nndiag.nn.schedules import Schedule, as_schedule, base_lr, checked_lr, describe
from nndiag.statistics import Array

ObserveUpdate = Callable[[Parameter, Array | None], None]


class Optimizer(ABC):
    """Updates parameters in place from their gradients, with a learning rate that may follow a schedule.

    Its moving averages are kept by parameter name. Weight decay touches parameters of kind "weight" only, and frozen
    ones are left alone. Raises ValueError for a negative or non-finite setting.
    """

    observe: ObserveUpdate | None = None
    """Called after each parameter with it and what was subtracted from its value: a buffer, good until the next parameter;
    None where it was changed in more than one way."""

    def __init__(self, lr: float | Schedule, weight_decay: float) -> None:
        self.schedule = as_schedule(lr, type(self).__name__)
        self.weight_decay = checked_lr(weight_decay, f"{type(self).__name__}(weight_decay)")
        self.updates = 0
        self._base_lr = base_lr(self.schedule)
        self._asked: tuple[int, Schedule, float] | None = None
        self._state: dict[str, Array] = {}
        self._buffers = Buffers()

    @property
    def current_lr(self) -> float:
        """Learning rate of the next update; raises ValueError where a schedule gives no finite number, 0 or more."""
        if self._asked is None or self._asked[0] != self.updates or self._asked[1] is not self.schedule:
            lr = checked_lr(self.schedule(self.updates), describe(self.schedule))
            self._asked = self.updates, self.schedule, lr  # a schedule may have a state: each update asks it once
        return self._asked[2]

    def step(self, parameters: Sequence[Parameter]) -> None:
        """Update `parameters` once; raises ValueError when two of them have the same name."""
        if len({parameter.name for parameter in parameters}) < len(parameters):
            raise ValueError(f"two parameters have the same name among {[parameter.name for parameter in parameters]}")
        lr = self.current_lr
        for parameter in parameters:
            if not parameter.frozen:
                update = self._update(parameter, lr, self.weight_decay if parameter.kind == "weight" else 0.0)
                if self.observe is not None:
                    self.observe(parameter, update)
        self.updates += 1

    def describe(self) -> dict[str, Any]:
        """Name, base learning rate, settings and schedule, fit for JSON."""
        return {
            "name": type(self).__name__,
            "lr": self._base_lr,
            **self._settings(),
            "weight_decay": self.weight_decay,
            "schedule": describe(self.schedule),
        }

    def state(self) -> dict[str, Array]:
        """Copies of what the next update depends on: the count of updates and the moving averages."""
        return {"updates": np.array(self.updates)} | {key: kept.copy() for key, kept in self._state.items()}

    def load_state(self, state: Mapping[str, Array]) -> None:
        """Go on from `state`, as `state()` gave it."""
        self._state = {key: np.array(kept) for key, kept in state.items() if key != "updates"}
        self.updates = int(state["updates"])

    @abstractmethod
    def _update(self, parameter: Parameter, lr: float, decay: float) -> Array | None:
        """Change the value of `parameter`; gives back what was subtracted from it, if that was all."""

    @abstractmethod
    def _settings(self) -> dict[str, Any]: ...

    def _scratch(self, parameter: Parameter) -> Array:
        # One for each shape, not for each parameter, so that it stays in the cache: 1 % of a step of 20 layers of 256.
        return self._buffers.like(str(parameter.value.shape), parameter.value)

    def _kept(self, what: str, parameter: Parameter) -> Array:
        """The moving average `what` of this parameter, zero at first."""
        key = f"{what}/{parameter.name}"
        if key not in self._state:
            self._state[key] = np.zeros_like(parameter.value)
        return self._state[key]


class SGD(Optimizer):
    """v ← momentum · v + g, θ ← θ − lr · v, where g includes weight_decay · θ (Polyak 1964, as PyTorch writes it).

    Raises ValueError unless 0 ≤ momentum < 1.
    """

    def __init__(self, lr: float | Schedule, momentum: float = 0.0, weight_decay: float = 0.0) -> None:
        super().__init__(lr, weight_decay)
        self.momentum = _checked_beta(momentum, "SGD(momentum)")

    def _update(self, parameter: Parameter, lr: float, decay: float) -> Array | None:
        gradient, scratch = parameter.gradient, self._scratch(parameter)
        if decay:
            gradient = np.multiply(parameter.value, decay, out=scratch)
            gradient += parameter.gradient
        if self.momentum:
            velocity = self._kept("velocity", parameter)
            velocity *= self.momentum
            velocity += gradient
            gradient = velocity
        update = np.multiply(gradient, lr, out=scratch)
        parameter.value -= update
        return update

    def _settings(self) -> dict[str, Any]:
        return {"momentum": self.momentum}


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015, algorithm 1) with decoupled weight decay (AdamW: Loshchilov & Hutter 2019, algorithm 2).

    Raises ValueError unless both betas lie in 0 ≤ beta < 1 and eps is positive.
    """

    def __init__(
        self,
        lr: float | Schedule = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(lr, weight_decay)
        if not (math.isfinite(eps) and eps > 0):
            raise ValueError(f"Adam got eps={eps!r}, wanted a positive number")
        self.betas = (_checked_beta(betas[0], "Adam(betas)"), _checked_beta(betas[1], "Adam(betas)"))
        self.eps = eps

    def _update(self, parameter: Parameter, lr: float, decay: float) -> Array | None:
        scratch, gradient = self._scratch(parameter), parameter.gradient
        first, second = self._kept("first", parameter), self._kept("second", parameter)
        beta1, beta2 = self.betas
        first *= beta1
        first += np.multiply(gradient, 1 - beta1, out=scratch)
        second *= beta2
        np.square(gradient, out=scratch)
        second += np.multiply(scratch, 1 - beta2, out=scratch)
        parameter.value *= 1 - lr * decay
        update = self._move(first, second, lr, scratch)
        parameter.value -= update
        return None if decay else update

    def _move(self, first: Array, second: Array, lr: float, scratch: Array) -> Array:
        """lr · m̂ / (√v̂ + eps), with both moments corrected for their start at zero."""
        done, (beta1, beta2) = self.updates + 1, self.betas
        np.divide(second, 1 - beta2**done, out=scratch)
        np.sqrt(scratch, out=scratch)
        scratch += self.eps
        np.divide(first, scratch, out=scratch)
        return np.multiply(scratch, lr / (1 - beta1**done), out=scratch)

    def _settings(self) -> dict[str, Any]:
        return {"betas": list(self.betas), "eps": self.eps}


def _checked_beta(beta: float, owner: str) -> float:
    if not 0 <= beta < 1:
        raise ValueError(f"{owner} got {beta!r}, wanted 0 <= beta < 1")
    return float(beta)
