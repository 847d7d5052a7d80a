"""How the learning rate goes over the steps: constant, cosine, warm-up."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

Schedule = Callable[[int], float]
"""From the number of updates done to the learning rate of the next one."""


def checked_lr(lr: float, owner: str) -> float:
    """`lr` as a float; raises ValueError unless it is finite and not negative."""
    if not (math.isfinite(lr) and lr >= 0):
        raise ValueError(f"{owner} got a learning rate of {lr!r}, wanted a finite number, 0 or more")
    return float(lr)


def as_schedule(lr: float | Schedule, owner: str) -> Schedule:
    """`lr` itself when it is a schedule, else the constant one."""
    return lr if callable(lr) else Constant(checked_lr(lr, owner))


def base_lr(schedule: Schedule) -> float:
    """The learning rate that a schedule starts from, warm-up aside."""
    return base_lr(schedule.inner) if isinstance(schedule, WarmUp) else float(schedule(0))


def describe(schedule: Schedule) -> str:
    """A schedule in words, as it was written for those defined here, else its name."""
    if isinstance(schedule, Constant | Cosine | WarmUp):
        return repr(schedule)
    return getattr(schedule, "__name__", type(schedule).__name__)


@dataclass(frozen=True)
class Constant:
    """The same `lr` at every step."""

    lr: float

    def __post_init__(self) -> None:
        checked_lr(self.lr, "Constant")

    def __call__(self, step: int) -> float:
        return self.lr


@dataclass(frozen=True)
class Cosine:
    """From `lr` down to `floor` over `steps`, along half a cosine; `floor` from there on (Loshchilov & Hutter 2017)."""

    lr: float
    steps: int
    floor: float = 0.0

    def __post_init__(self) -> None:
        checked_lr(self.lr, "Cosine")
        checked_lr(self.floor, "Cosine(floor)")
        _check_steps(self.steps, "Cosine")

    def __call__(self, step: int) -> float:
        done = min(step / self.steps, 1.0)
        return self.floor + (self.lr - self.floor) * (1 + math.cos(math.pi * done)) / 2


class WarmUp:
    """Linearly up over `steps` to where `schedule` begins, and on with it; its own step 0 is the end of the warm-up.

    (Goyal et al. 2017, section 2.2.)
    """

    def __init__(self, schedule: float | Schedule, steps: int) -> None:
        _check_steps(steps, "WarmUp")
        self.inner = as_schedule(schedule, "WarmUp")
        self.steps = steps

    def __call__(self, step: int) -> float:
        if step >= self.steps:
            return self.inner(step - self.steps)
        return self.inner(0) * (step + 1) / self.steps

    def __repr__(self) -> str:
        return f"WarmUp({describe(self.inner)}, steps={self.steps})"


def _check_steps(steps: int, owner: str) -> None:
    if steps < 1:
        raise ValueError(f"{owner} got steps={steps!r}, wanted 1 or more")
