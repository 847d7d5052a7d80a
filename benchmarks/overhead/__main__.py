"""Measures the cost of a training step with and without nndiag: `python -m benchmarks.overhead [A B C] [--dtype float32]`.

CPU time on one BLAS thread, everything interleaved in one run: in every round each variant trains a block of steps with its
hooks on and one with its hooks off, in an order of its own. The tables hold the median ratio of the two with its 95 %
interval. `--profile` says instead what each event costs.
"""

from __future__ import annotations

import os
import sys

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
if __name__ == "__main__" and any(os.environ.get(name) != "1" for name in THREADS):
    environment = os.environ | dict.fromkeys(THREADS, "1")
    os.execve(sys.executable, [sys.executable, "-m", "benchmarks.overhead", *sys.argv[1:]], environment)

import argparse  # noqa: E402 - after the threads are set
from collections import defaultdict  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from itertools import islice  # noqa: E402
from pathlib import Path  # noqa: E402
from time import perf_counter, process_time  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402

from benchmarks.overhead.networks import NETWORKS, Network  # noqa: E402
from benchmarks.overhead.variants import OTHERS, VARIANTS, Attach  # noqa: E402
from benchmarks.trainer import median  # noqa: E402
from nndiag.frames import FORWARD  # noqa: E402
from nndiag.hooks import Hooks  # noqa: E402
from nndiag.statistics import Array  # noqa: E402
from nndiag.table import Buffer  # noqa: E402

BARE = "bare"
WARM_UP = 60
"""Steps before the first timing: the first 50 are read by "auto" whatever they cost."""

LIMITS = {
    "all hooks, every step": {"A": 1.13, "C": 1.09, "B": 1.45},
    "light hooks, every step": {"A": 1.05, "C": 1.05, "B": 1.15},
    'default (every="auto", budget=0.02)': {"A": 1.02, "C": 1.02, "B": 1.03},
}


class Block:
    """A trainer that trains a block of steps at a time, with something attached or, for comparison, without it."""

    def __init__(self, network: Network, dtype: str, attach: Attach, steps: int) -> None:
        self.trainer = network.trainer(dtype)
        self._batches = network.batches(dtype)
        self._steps = steps
        self._bare = self.trainer.hooks
        self.trainer.hooks = self._attached = Hooks(self.trainer)
        attach(self.trainer)
        self.trainer.hooks.fire("on_train_begin", self.trainer)
        self.trainer.hooks.fire("on_epoch_begin", 0)
        self.train(WARM_UP)

    def train(self, steps: int) -> None:
        """Go on for `steps` steps."""
        for x, y in islice(self._batches, steps):
            self.trainer.step(x, y)

    def pair(self, bare_first: bool) -> tuple[float, float]:
        """CPU time of a step without and with what is attached: of the same trainer, in the same memory."""
        seconds = {bare: self._seconds(self._bare if bare else self._attached) for bare in (bare_first, not bare_first)}
        return seconds[True], seconds[False]

    def _seconds(self, hooks: Hooks) -> float:
        self.trainer.hooks, steps = hooks, self.trainer.steps
        begun = process_time()
        self.train(self._steps)
        seconds = (process_time() - begun) / self._steps
        if hooks is self._bare:
            self.trainer.steps = steps  # nobody was there to see them
        return seconds


def ratios(network: Network, dtype: str, rounds: int, variants: dict[str, Attach], steps: int) -> dict[str, Array]:
    """CPU time of a step over that of the bare step beside it, for every variant, and the bare step's in ms."""
    blocks = {name: Block(network, dtype, attach, steps) for name, attach in variants.items()}
    rng = np.random.default_rng(0)
    taken: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        for name in rng.permutation(list(blocks)).tolist():
            bare, attached = blocks[name].pair(bool(rng.integers(2)))
            taken[BARE].append(1e3 * bare)
            taken[name].append(attached / bare)
    return {name: np.array(taken[name]) for name in (BARE, *blocks)}


def table(dtype: str, results: dict[str, dict[str, Array]]) -> Iterator[str]:
    """A Markdown table: a row for each variant, a column for each network."""
    yield f"| {dtype} | {' | '.join(results)} |"
    yield f"| --- |{' --- |' * len(results)}"
    for name in next(iter(results.values())):
        cells = [_cell(name, network, result[name]) for network, result in results.items()]
        yield f"| {'bare step, ms' if name == BARE else name} | {' | '.join(cells)} |"


def _cell(name: str, network: str, values: Array) -> str:
    middle, low, high = median(values)
    if name == BARE:
        return f"{middle:.2f}"
    digits = 3 if middle < 10 else 0
    cell = f"{middle:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
    limit = LIMITS.get(name, {}).get(network)
    return cell if limit is None else f"{cell} {'≤' if middle <= limit else '**>**'} {limit}"


def profile(network: Network, dtype: str, steps: int) -> Iterator[str]:
    """A Markdown table of what each event of each hook costs in a step that is read: medians of wall time."""
    block = Block(network, dtype, VARIANTS["all hooks, every step"], steps)
    taken: dict[tuple[str, str], list[float]] = defaultdict(list)

    def fire(self: Hooks, event: str, *arguments: Any) -> None:
        for hook, listener, _ in self._listeners[event]:
            begun = perf_counter()
            listener(*arguments)
            taken[event, type(hook).__name__].append(1e6 * (perf_counter() - begun))

    usual, Hooks.fire = Hooks.fire, fire  # type: ignore[method-assign]
    whole = []
    for _ in range(steps):
        begun = perf_counter()
        block.train(1)
        whole.append(1e6 * (perf_counter() - begun))
    Hooks.fire = usual  # type: ignore[method-assign]
    yield f"| {network.name}, {dtype} | calls a step | µs a call | share of the step |"
    yield "| --- | --- | --- | --- |"
    for key in sorted(taken, key=lambda key: -_usual(taken[key]) * len(taken[key])):
        times, cost = taken[key], len(taken[key]) / steps * _usual(taken[key])
        share = 100 * cost / _usual(whole)
        yield f"| {key[1]}.{key[0]} | {len(times) / steps:.2f} | {_usual(times):.1f} | {share:.1f} % |"


def _usual(times: list[float]) -> float:
    """Mean without the slowest twentieth, in which the machine did something else."""
    kept = np.sort(times)[: max(1, len(times) * 19 // 20)]
    return float(np.mean(kept))


def recording(layers: tuple[int, ...] = (5, 50, 500), steps: int = 300) -> Iterator[str]:
    """A Markdown table of what it takes to put the statistics of some layers into a row and to close it, in ns a value."""
    yield "| layers | ns a value, put and written |"
    yield "| --- | --- |"
    for number in layers:
        names, values = [f"layer{i}" for i in range(number)], (0.5,) * len(FORWARD)
        taken = []
        for _ in range(9):
            buffer, begun = Buffer(), process_time()
            for step in range(steps):
                for name in names:
                    buffer.put(name, FORWARD, values)
                buffer.close_row(step)
            taken.append(1e9 * (process_time() - begun) / (steps * number * len(FORWARD)))
        yield f"| {number} | {np.median(taken):.0f} {'≤' if np.median(taken) <= 100 else '**>**'} 100 |"


def main() -> int:
    """Print the tables, and write them to a file where one is given; 1 when a limit is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", default=list(NETWORKS), metavar="NETWORK")
    parser.add_argument("--dtype", action="append", choices=("float32", "float64"))
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--steps", type=int, help="steps of a block: many short ones, where the machine has other work")
    parser.add_argument("--only", metavar="START", default="", help="variants whose names start so")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--others", action="store_true", help="naive hooks and tensorboardX histograms too")
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    options = parser.parse_args()
    if unknown := set(options.networks) - set(NETWORKS):
        parser.error(f"no network {', '.join(sorted(unknown))}; there are {', '.join(NETWORKS)}")
    if options.steps is not None and options.steps < 1:
        parser.error(f"--steps {options.steps}: wanted 1 or more")
    if not any(name.startswith(options.only) for name in VARIANTS):
        parser.error(f"no variant starts with {options.only!r}; there are {', '.join(VARIANTS)}")
    networks = [NETWORKS[name] for name in options.networks]
    lines: list[str] = []
    for dtype in options.dtype or ["float32", "float64"]:
        if options.profile:
            for network in networks:
                lines += [*profile(network, dtype, 4 * network.block), ""]
            continue
        rounds = options.rounds
        variants = {name: attach for name, attach in VARIANTS.items() if name.startswith(options.only)}
        blocks = {n: options.steps or n.block for n in networks}
        lines += [*table(dtype, {n.name: ratios(n, dtype, rounds, variants, blocks[n]) for n in networks}), ""]
        if options.others:
            lines += [*table(dtype, {n.name: ratios(n, dtype, 5, OTHERS, 3) for n in networks}), ""]
    if not options.profile:
        lines += [*recording(), ""]
    text = "\n".join(lines)
    print(text)
    if options.markdown:
        options.markdown.write_text(f"{text}", encoding="utf-8")
    return int("**>**" in text)


if __name__ == "__main__":
    sys.exit(main())
