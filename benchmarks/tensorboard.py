"""What the TensorBoard exporter costs in CPU time, on the training's thread and in all: run it as a script.

Steps are written between matrix products of a few milliseconds, which empty the processor's caches as training does, with
and without the extra `fast`, in turn in every round. The table gives medians over the rounds with their quartiles.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import NamedTuple

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
if __name__ == "__main__" and any(os.environ.get(name) != "1" for name in THREADS):
    os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | dict.fromkeys(THREADS, "1"))

import numpy as np  # noqa: E402 - after the threads are set
from tensorboardX import crc32c, record_writer  # noqa: E402

from nndiag.exporters import TensorBoard  # noqa: E402
from nndiag.frames import BACKWARD, FORWARD, GRADIENT, LOSS, UPDATE  # noqa: E402
from nndiag.meta import Meta  # noqa: E402
from nndiag.recorder import Rows  # noqa: E402

SIZES = {4: 20, 24: 100, 74: 300}
"""Layers with a weight each → scalars a step: mean, variance, dead fraction or not, gradient norm, update ratio, …"""

STEPS, ROUNDS, WARM_UP = 150, 9, 1
MOST_A_STEP = 10.0
MOST_A_SCALAR = {"with crc32c": 10.0, "without": 25.0}
"""µs of CPU time: on the training's thread, and on both."""

Checksum = Callable[[bytes], int]


class Cost(NamedTuple):
    """µs of CPU time a step: of the training's thread, in the median, and of all threads, on average."""

    training: float
    total: float


def checksums() -> dict[str, Checksum]:
    """What tensorboardX takes checksums with, with and without the package crc32c."""
    without = {"without": crc32c._crc32c}
    return without if crc32c._crc32c_native is None else {"with crc32c": crc32c._crc32c_native, **without}


def steps(layers: int) -> list[Rows]:
    """Rows as the recorder makes them."""
    rng = np.random.default_rng(0)
    names = [f"hidden{i}" for i in range(layers)]
    columns = {
        "activations": [(statistic, name) for name in names for statistic in FORWARD + BACKWARD],
        "gradients": [(statistic, f"{name}.weight") for name in names for statistic in GRADIENT],
        "updates": [(statistic, f"{name}.weight") for name in names for statistic in UPDATE],
        "losses": [(statistic, "") for statistic in LOSS],
        "metrics": [("nonfinite", "train"), ("lr", "train")],
    }
    return [{f: (tuple(named), rng.random(len(named))) for f, named in columns.items()} for _ in range(STEPS)]


def training() -> Callable[[], object]:
    """What a training does between two steps."""
    x, weight = (np.random.default_rng(0).random(shape, np.float32) for shape in ((512, 256), (256, 768)))
    return lambda: x @ weight


def cost(rows: list[Rows], write: Callable[[int, Rows], None], finish: Callable[[], None]) -> Cost:
    """Write all of `rows`, then finish."""
    train, taken = training(), []
    others = time.process_time() - time.thread_time()
    for step, row in enumerate(rows):
        train()
        fresh = {frame: (columns, values.copy()) for frame, (columns, values) in row.items()}
        before = time.thread_time()
        write(step, fresh)
        taken.append(time.thread_time() - before)
    before = time.thread_time()
    finish()
    ours = sum(taken) + time.thread_time() - before
    others = time.process_time() - time.thread_time() - others
    return Cost(1e6 * median(taken), 1e6 * (ours + others) / len(rows))


def exporter(folder: Path, layers: int) -> TensorBoard:
    """One that has started, and knows its layers, all linear."""
    names = [f"hidden{i}" for i in range(layers)]
    exporter = TensorBoard(folder, layers=layers)
    exporter.describe(Meta().describe({
        "layers": [{"name": name, "kind": "linear"} for name in names],
        "parameters": [{"name": f"{name}.weight", "layer": name} for name in names],
    }))  # fmt: skip
    return exporter


def measured(layers: int, folder: Path) -> dict[str, list[Cost]]:
    """The costs with each checksum in every round, less those of writing nothing."""
    rows = steps(layers)
    exporters = {name: exporter(folder / name, layers) for name in checksums()}
    rounds: dict[str, list[Cost]] = {name: [] for name in exporters}
    for _ in range(WARM_UP + ROUNDS):
        nothing = cost(rows, lambda step, row: None, lambda: None)
        for name, checksum in checksums().items():
            record_writer.crc32c = checksum
            spent = cost(rows, exporters[name].write, exporters[name].flush)
            rounds[name].append(Cost(spent.training - nothing.training, spent.total - nothing.total))
    for each in exporters.values():
        each.close()
    return {name: costs[WARM_UP:] for name, costs in rounds.items()}


def table(costs: dict[tuple[int, str], list[Cost]]) -> Iterator[str]:
    """A line for each number of scalars and checksum."""
    yield f"{'scalars':>8}  {'':<12}{'training, µs a step':>26}{'in all, µs a scalar':>26}"
    for (scalars, name), rounds in costs.items():
        training = [cost.training for cost in rounds]
        total = [cost.total / scalars for cost in rounds]
        fine = median(training) <= MOST_A_STEP and median(total) <= MOST_A_SCALAR[name]
        line = f"{scalars:>8}  {name:<12}{spread(training)}{spread(total)}"
        yield f"{line}   at most {MOST_A_STEP:.0f} and {MOST_A_SCALAR[name]:.0f}: {'ok' if fine else 'TOO SLOW'}"


def spread(values: list[float]) -> str:
    """The median with the quartiles."""
    low, middle, high = quantiles(values, n=4)
    return f"{middle:>11.1f} [{low:5.1f}, {high:5.1f}]"


def main() -> int:
    """Print the table; 1 when the exporter is slower than it may be."""
    costs: dict[tuple[int, str], list[Cost]] = {}
    for layers, scalars in SIZES.items():
        with TemporaryDirectory() as folder:
            costs |= {(scalars, name): rounds for name, rounds in measured(layers, Path(folder)).items()}
    lines = list(table(costs))
    print("\n".join(lines))
    if len(checksums()) == 1:
        print("the package crc32c is absent; writing with it is left out")
    return int(any("TOO SLOW" in line for line in lines))


if __name__ == "__main__":
    sys.exit(main())
