"""Where nndiag's time goes in a step of PyTorch: the own time of every hook and of every function of the adapter."""

from __future__ import annotations

import inspect
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from time import process_time
from typing import Any

import numpy as np

from benchmarks.overhead_torch.loop import Attach, Block
from benchmarks.overhead_torch.networks import Network
from nndiag import hooks
from nndiag.recorder import Recorder

ADAPTER = "nndiag_torch"
SHOWN = 0.0005
"""Share of the step from which on a function has a line of its own."""

CALIBRATION = 20_000


class Clock:
    """Own CPU times of functions, in µs: what a call took, less what other functions of this clock took within it.

    What the clock itself takes, measured on a function that does nothing, is taken off.
    """

    def __init__(self) -> None:
        self.own: dict[str, list[float]] = defaultdict(list)
        self._within = self._inside = self._outside = 0.0
        empty = self.timed("empty", lambda: None)
        begun = process_time()
        for _ in range(CALIBRATION):
            empty()
        whole = 1e6 * (process_time() - begun) / CALIBRATION
        self._inside = usual(self.own.pop("empty"))
        self._outside = whole - self._inside

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, on this clock."""
        times = self.own[name]

        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            outer, self._within = self._within, 0.0
            begun = process_time()
            try:
                return function(*args, **kwargs)
            finally:
                taken = 1e6 * (process_time() - begun)
                times.append(max(0.0, taken - self._within - self._inside))
                self._within = outer + taken + self._outside

        return call


@contextmanager
def timing() -> Iterator[Clock]:
    """A clock on all hooks, and on all functions and methods of the adapter, wherever a name stands for them."""
    clock, before = Clock(), list[tuple[Any, str, Any]]()
    timed: dict[Any, Any] = {}
    for owner, name, value in [each for one in _owners() for each in _functions(one)]:
        if value not in timed:
            inner = _inner(value)
            call = clock.timed(f"{inner.__module__.removeprefix('nndiag.')}.{inner.__qualname__}", inner)
            timed[value] = property(call) if isinstance(value, property) else call
        before.append((owner, name, value))
        setattr(owner, name, timed[value])
    try:
        yield clock
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)


def _owners() -> list[Any]:
    """The hooks, and the adapter's modules and classes."""
    ours = [module for name, module in sys.modules.items() if name.partition(".")[0] == ADAPTER]
    classes = {value for module in (*ours, hooks) for value in vars(module).values() if inspect.isclass(value)}
    return [*ours, *(cls for cls in classes if _is_hook(cls) or _is_of_adapter(cls) or cls in (hooks.Hooks, Recorder))]


def _functions(owner: Any) -> Iterator[tuple[Any, str, Any]]:
    """Owner, name and value of what is timed there: of hooks their events, of the recorder `log`, of the adapter all."""
    for name, value in vars(owner).items():
        if _is_hook(owner):
            wanted = name in hooks.EVENTS
        elif owner in (hooks.Hooks, Recorder):
            wanted = name in ("fire", "_listen", "log", "_log", "loss")
        else:
            wanted = _is_of_adapter(_inner(value)) and inspect.isfunction(_inner(value))
        if wanted and name != "__init__" and not inspect.isgeneratorfunction(_inner(value)):
            yield owner, name, value


def _inner(value: Any) -> Any:
    return value.fget if isinstance(value, property) else value


def _is_hook(value: Any) -> bool:
    return inspect.isclass(value) and issubclass(value, hooks.Hook) and value is not hooks.Hook


def _is_of_adapter(value: Any) -> bool:
    return (getattr(value, "__module__", None) or "").partition(".")[0] == ADAPTER


def profile(network: Network, attach: Attach, title: str, steps: int, warm_up: int) -> Iterator[str]:
    """A Markdown table of what each hook and each function of the adapter costs by itself in a step that is read."""
    block = Block(network, attach, network.block, warm_up)
    pairs = [block.pair(bool(number % 2)) for number in range(max(2, steps // network.block))]
    block.close()
    bare, cost = (1e6 * float(np.median(values)) for values in ([b for b, _ in pairs], [a - b for b, a in pairs]))
    with timing() as clock:
        block = Block(network, attach, 1, warm_up)
        for times in clock.own.values():
            times.clear()
        block.train_attached(steps)
        rows = sorted(_rows(clock, steps), key=lambda row: -row[3])
    block.close()
    yield f"| {network.name}, {title}: own time | calls a step | µs a call | µs a step | share of the bare step |"
    yield "| --- | --- | --- | --- | --- |"
    for name, calls, each, whole in rows:
        if whole >= SHOWN * bare:
            yield f"| {name} | {calls:.2f} | {each:.1f} | {whole:.0f} | {100 * whole / bare:.2f} % |"
    rest = sum(row[3] for row in rows if row[3] < SHOWN * bare)
    seen = sum(row[3] for row in rows)
    for name, whole in {
        "functions below the least share": rest,
        "all of these": seen,
        "CPU time of a step with the hooks, less that of the bare one": cost,
        "of it outside: PyTorch's calls of hooks, caches gone cold": cost - seen,
        "the bare step": bare,
    }.items():
        yield f"| *{name}* | | | {whole:.0f} | {100 * whole / bare:.2f} % |"


def _rows(clock: Clock, steps: int) -> Iterator[tuple[str, float, float, float]]:
    """Name, calls a step, µs a call and µs a step of every function that was called."""
    for name, times in clock.own.items():
        if times:
            each, calls = usual(times), len(times) / steps
            yield name, calls, each, calls * each


def usual(times: list[float]) -> float:
    """Mean without the slowest twentieth, in which the machine did something else."""
    return float(np.mean(np.sort(times)[: max(1, len(times) * 19 // 20)]))
