"""Decides which steps are read, so that nndiag's own time stays below a share of the training's."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Literal

from nndiag.settings import cadence

ALWAYS = 50
"""Steps at the start that "auto" reads whatever they cost: most faults show there."""

GROWTH = 1.25
"""Between two reads a run grows by a quarter at most."""

MEMORY = 40
"""Recent steps whose median stands for a step: an evaluation or a pause between two steps pays for no reading. More than twice
`TOGETHER`, of which one pause makes the time of all."""

SEEN = 0.65
"""Part of its cost that the clock of nndiag sees: handing events over and caches gone cold are the rest, as
`benchmarks/overhead` measures."""

READING = 0.25
"""Least part of the budget that is left for reading where the loss of every step alone uses it up."""


TOGETHER = 16
"""Steps that are accounted for together while a debt is far from paid: an account, whose caches a step has emptied, takes
longer than all else of a step that is not read."""

LIVE = 0.5
"""Part of the budget that live checks may take where they are on; reading has the rest."""


class Pace:
    """The cadence: `every` steps, or with "auto" as often as `budget` (a share of the bare training time) allows.

    Every read is a debt, which the steps that follow pay off with `budget` of their own time; when it is paid, the next step
    is read. So the share is kept whatever a read costs, and the cadence follows at once when steps become faster or slower.
    A step is read at the latest when `GROWTH` times as many have gone by as at the last one, so that even where steps are too
    short to pay, no run ends long after its last read: ten reads for each tenfold of steps.
    Use it as a context manager around what nndiag does: its time is `spent`.
    """

    def __init__(self, every: int | Literal["auto"], budget: float) -> None:
        every = cadence("every", every)
        self.every = 1 if every == "auto" else every
        self.spent = self.owed = 0.0
        self.running = False
        self._auto = every == "auto"
        self._regular = 0
        self._budget = budget
        self._bare: deque[float] = deque(maxlen=MEMORY)
        self.entered = self._begun = self._last = perf_counter()
        self._spent_before = self._debt = 0.0
        self._typical = 0.0
        self._fresh = 0
        self._read_at = self._step = self._paid_at = self._accounts_at = 0
        self._reading = True

    def __enter__(self) -> None:
        self.running, self.entered = True, perf_counter()

    def __exit__(self, *exception: object) -> None:
        self.running = False
        self.spent += perf_counter() - self.entered

    def aside(self, seconds: float) -> None:
        """Count time just spent that has a budget of its own: it is no debt of reading, and no time of the step."""
        self.spent += seconds
        self._spent_before += seconds
        self._last += seconds
        self.entered += seconds

    @property
    def adapts(self) -> bool:
        """Whether the cadence follows the cost: "auto", after the first steps, which are always read."""
        return self._auto and not self._regular and self._step >= ALWAYS

    def without_clock(self, every: int) -> bool:
        """Have "auto" read the first steps, then each `every`-th, as processes must that read together; whether it is "auto"."""
        self._regular = every * self._auto
        return self._auto

    def owe(self, seconds: float) -> None:
        """Count time that reading has cost where the clock does not see it, such as that of kernels on a device."""
        self.owed += seconds
        self.spent += seconds
        self._spent_before += seconds
        self._debt += seconds

    @contextmanager
    def owing(self) -> Iterator[None]:
        """What is done here belongs to steps that are over: all of its time is a debt, whether this step is read or not."""
        running, entered, spent, before, begun = (
            self.running, self.entered, self.spent, self._spent_before, perf_counter()
        )  # fmt: skip
        try:
            yield
        finally:
            aside = self._spent_before - before
            self.running, self.entered, self.spent = running, entered, spent + aside
            self.owe(perf_counter() - begun - aside)

    def next(self, step: int) -> bool:
        """Whether `step`, which begins now, is to be read."""
        self._step = step
        if self._regular:
            self.every = 1 if step < ALWAYS else self._regular
            self._reading = step < ALWAYS or step % self.every == 0
            return self._reading
        if self._auto:
            if self._paid_at < step < self._accounts_at:
                return False
            passed = step - self._paid_at
            self._pay(passed if 0 < passed <= TOGETHER else 1)  # else training has gone on from another step
            self._paid_at = step
            due = step < ALWAYS or self._debt <= 0 or step >= GROWTH * self._read_at
        else:
            due = step >= self._read_at + self.every
        if due:
            self.every = step - self._read_at if self._auto and step > ALWAYS else self.every
            self._read_at = step
            if step <= ALWAYS:
                self._debt = 0.0
        elif self._auto:
            self._accounts_at = step + self._surely_unread(step)
        self._reading = due
        return due

    @property
    def asked_at(self) -> int:
        """The step for which `next` has to be asked again: those before it are not read."""
        return self._accounts_at if self._auto else self._read_at + self.every

    def _surely_unread(self, step: int) -> int:
        """Steps from `step` on, at most `TOGETHER`, that are not read however long they take."""
        most = 2 * self._typical * SEEN * self._budget
        unpaid = self._debt / most if most else 0.0
        return int(min(TOGETHER, unpaid, GROWTH * self._read_at - step))

    def _pay(self, steps: int) -> None:
        """Add to the debt what the `steps` that have ended cost, and take off what they pay."""
        now = perf_counter()
        own = self.spent - self._spent_before
        bare = now - self._last - own
        if bare < 0:
            bare = 0.0
        self._last, self._spent_before = now, self.spent
        self._bare.extend([bare / steps] * steps)
        self._fresh += steps
        if self._fresh > MEMORY // 2 or not self._typical:  # the median is taken anew when half of them are
            self._typical, self._fresh = median(self._bare), 0
        most = 2 * self._typical * steps
        pays = SEEN * self._budget * (bare if bare < most else most)
        if not self._reading and own > (1 - READING) * pays:
            own = (1 - READING) * pays
        debt = self._debt + own - pays
        self._debt = debt if debt > -pays else -pays  # what one step has paid too much is not lost

    def back(self, step: int) -> None:
        """Training goes on from an earlier `step`, which is read."""
        self._read_at = step

    @property
    def cost(self) -> dict[str, float]:
        """nndiag's own time in seconds, its share of all time since the start, and the cadence in steps."""
        total = perf_counter() - self._begun
        return {
            "seconds": self.spent,
            "share": self.spent / total if total else 0.0,
            "every": max(self.every, self._step - self._read_at),
        }


def median(values: deque[float]) -> float:
    """Middle value, the upper one of two: cheaper than any library's at this size."""
    return sorted(values)[len(values) // 2]
