"""Decides which steps are read, so that nndiag's own time stays below a share of the training's."""

from __future__ import annotations

import math
import time
from collections import deque
from typing import Literal

ALWAYS = 50
"""Steps at the start that "auto" reads whatever they cost: most faults show there."""

MEMORY = 20
"""Recent steps whose median time stands for a step: an evaluation or a pause between two steps does not count."""


class Pace:
    """The cadence: `every` steps, or with "auto" as often as `budget` (a share of the bare training time) allows."""

    def __init__(self, every: int | Literal["auto"], budget: float) -> None:
        if every != "auto" and (not isinstance(every, int) or every < 1):
            raise ValueError(f'every={every!r}: give a number of steps from 1, or "auto"')
        if not budget > 0:
            raise ValueError(f"budget={budget!r}: give a share of the training time above 0, such as 0.02")
        self.every = 1 if every == "auto" else every
        self.spent = 0.0
        self._auto = every == "auto"
        self._budget = budget
        self._bare: deque[float] = deque(maxlen=MEMORY)
        self._own: deque[float] = deque(maxlen=MEMORY)
        self._begun = self._last = time.perf_counter()
        self._spent_before = 0.0
        self._due = self.every
        self._reading = True

    def next(self, step: int) -> bool:
        """Whether `step`, which begins now, is to be read."""
        now = time.perf_counter()
        own = self.spent - self._spent_before
        self._bare.append(max(0.0, now - self._last - own))
        if self._reading:
            self._own.append(own)
        self._last, self._spent_before = now, self.spent
        if self._auto and step >= ALWAYS:
            allowed = self._budget * median(self._bare)
            self.every = max(1, math.ceil(median(self._own) / allowed)) if allowed else self.every
        self._reading = step < ALWAYS if self._auto and step < ALWAYS else step >= self._due
        if self._reading:
            self._due = step + self.every
        return self._reading

    @property
    def cost(self) -> dict[str, float]:
        """nndiag's own time in seconds, its share of all time since the start, and the cadence in steps."""
        total = time.perf_counter() - self._begun
        return {"seconds": self.spent, "share": self.spent / total if total else 0.0, "every": self.every}


def median(values: deque[float]) -> float:
    """Middle value, the upper one of two: cheaper than any library's at this size."""
    return sorted(values)[len(values) // 2]
