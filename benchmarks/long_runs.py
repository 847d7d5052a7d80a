"""What a long run costs: memory while it is recorded, time and memory of its verdict: `python -m benchmarks.long_runs [STEPS …]`.

Rows of 50 layers are handed to a recorder as its hooks hand them over, a megabyte at a time, at 10,000, 100,000 and 1,000,000
steps, which write 9 GB; the networks behind them are left out. Every line is a process of its own.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from nndiag.frames import BACKWARD, FORWARD, GRADIENT, INPUT, LOSS, OUTPUT, OUTPUT_TARGET, TARGET, UPDATE
from nndiag.recorder import Recorder
from nndiag.statistics import Array
from nndiag.table import Block, Column

LAYERS, CLASSES = 50, 10
SIZES = (10_000, 100_000, 1_000_000)
EVALUATED = 1000
"""Steps between two evaluations."""

ROWS = 120
"""Rows that are handed over at once: a megabyte."""

META = {
    "layers": [{"name": f"l{i}", "kind": "relu" if i % 2 else "affine", "shape": (8,)} for i in range(LAYERS)],
    "parameters": [{"name": f"l{i}.{kind}", "kind": kind, "shape": (8, 8) if kind == "weight" else (8,), "layer": f"l{i}"}
                   for i in range(0, LAYERS, 2) for kind in ("weight", "bias")],
    "loss": {"name": "SoftmaxCrossEntropy", "task": "classes", "expects": "logits"},
}  # fmt: skip


def columns() -> dict[str, tuple[Column, ...]]:
    """The columns of every frame, as hooks make them."""
    parameters = [f"l{i}.{kind}" for i in range(0, LAYERS, 2) for kind in ("weight", "bias")]
    return {
        "data": (*((s, "input") for s in INPUT), *((s, "target") for s in TARGET)),
        "activations": tuple((s, f"l{i}") for i in range(LAYERS) for s in FORWARD + BACKWARD),
        "gradients": tuple((s, name) for name in parameters for s in GRADIENT),
        "updates": tuple((s, name) for name in parameters for s in UPDATE),
        "outputs": (*((s, "outputs") for s in OUTPUT), *((s, "targets") for s in OUTPUT_TARGET)),
        "losses": tuple((s, "") for s in LOSS),
        "metrics": (("nonfinite", "train"), ("lr", "train"), ("accuracy", "validation")),
    }


def rows(steps: int) -> Iterator[Mapping[str, list[Block]]]:
    """A run of `steps` steps, `ROWS` at a time: noise in every column, a loss that falls, an evaluation now and then."""
    frames = columns()
    noise = np.abs(1 + 0.1 * np.random.default_rng(0).standard_normal((4096, 1 + max(map(len, frames.values())))))
    for begin in range(0, steps, ROWS):
        at = np.arange(begin, min(begin + ROWS, steps))
        loss = 0.2 + 2.1 * np.exp(-5 * at / steps)
        blocks = {}
        for frame, names in frames.items():
            block = noise[(at * (3 + len(names))) % len(noise), : 1 + len(names)]
            block[:, 0] = at
            blocks[frame] = [(names, _shaped(frame, block, at, loss))]
        yield blocks


def _shaped(frame: str, block: Array, at: Array, loss: Array) -> Array:
    """`block` with what is no noise."""
    evaluated = at % EVALUATED == EVALUATED - 1
    if frame == "losses":
        block[:, 1], block[:, 2] = at // EVALUATED, block[:, 2] * loss
        block[:, 3] = np.where(evaluated, block[:, 3] * loss + 0.05, np.nan)
    elif frame == "metrics":
        block[:, 1], block[:, 2], block[:, 3] = 0, 0.1, np.where(evaluated, 0.9, np.nan)
    return block


def record(steps: int, path: Path | None) -> Recorder:
    """A recorder that has seen all of `rows`."""
    recorder = Recorder(path, every=1)
    recorder.describe(**META)
    for blocks in rows(steps):
        recorder._journal.append(blocks)
    return recorder


def memory() -> dict[str, float]:
    """Megabytes of this process by kind: all that is resident, at most so far, and the part that is no file's."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    kinds = {line.split(":")[0]: int(line.split()[1]) for line in status.splitlines() if line.endswith("kB")}
    return {"now": kinds["VmRSS"] / 1024, "peak": kinds["VmHWM"] / 1024, "own": kinds["RssAnon"] / 1024}


def recorded(steps: int, path: Path | None) -> dict[str, float]:
    """Time and memory of recording."""
    list(rows(ROWS))
    before, begun = memory(), time.perf_counter()
    recorder = record(steps, path)
    after = {"seconds": time.perf_counter() - begun, "peak": memory()["peak"] - before["now"]}
    if path is not None:
        recorder.close()
    return after


def checked(steps: int, path: Path | None) -> dict[str, float]:
    """Time and memory of a verdict on what is opened, or on what a recorder has in memory."""
    import nndiag

    nndiag.Checklist().examine(nndiag.synthetic.run())  # loads pandas and the checks
    recorder = record(steps, None) if path is None else None
    before, begun = memory(), time.perf_counter()
    run = recorder.run if recorder else nndiag.open_run(path or "")
    opened = time.perf_counter()
    thin = run.thinned()
    thinned = time.perf_counter()
    report = nndiag.Checklist().examine(run)
    done = time.perf_counter()
    return {"open": opened - begun, "thin": thinned - opened, "check": done - thinned, "reads": len(thin.train),
            "peak": memory()["peak"] - before["now"], "failed": report.counts["fail"]}  # fmt: skip


TASKS: dict[str, Callable[[int, Path | None], dict[str, float]]] = {"record": recorded, "check": checked}


def measured(task: str, steps: int, path: Path | None) -> str:
    """What `task` gives in a process of its own, as text."""
    command = [sys.executable, "-m", "benchmarks.long_runs", task, str(steps), *([str(path)] if path else [])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figures = json.loads(done.stdout)
    units = {"peak": "MB above the start", "failed": "FAIL", "reads": "reads"}
    return ", ".join(
        f"{name} {value:.2f} s" if name not in units else f"{value:.0f} {units[name]}"
        for name, value in figures.items()
    )


def main(sizes: list[int]) -> None:
    for steps in sizes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "run"
            print(f"{steps:,} steps of {LAYERS} layers")
            print(f"  recorded in memory:      {measured('record', steps, None)}")
            print(f"  recorded into a folder:  {measured('record', steps, path)}")
            print(f"  checked in memory:       {measured('check', steps, None)}")
            print(f"  checked from the folder: {measured('check', steps, path)}", flush=True)
            shutil.rmtree(path / "thinned", ignore_errors=True)
            print(f"  with nothing kept there: {measured('check', steps, path)}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in TASKS:
        print(json.dumps(TASKS[sys.argv[1]](int(sys.argv[2]), Path(sys.argv[3]) if len(sys.argv) > 3 else None)))
    else:
        main([int(size) for size in sys.argv[1:]] or list(SIZES))
