"""Measures the run folder: opening, frames, appending and export, and prints a table. Run it as a script."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from nndiag import store
from nndiag.errors import RunError
from nndiag.exporters.parquet import to_parquet
from nndiag.meta import Meta
from nndiag.run import Run, open_run
from nndiag.statistics import Array
from nndiag.table import Block, Column

NORMS: tuple[Column, ...] = tuple((statistic, f"h{i}.weight") for i in range(4) for statistic in ("norm", "rms"))
LOSSES: tuple[Column, ...] = (("epoch", ""), ("train", ""), ("validation", ""))
CHUNK = 100_000


def rows(columns: tuple[Column, ...], start: int, stop: int) -> Array:
    """Rows of plausible numbers for these steps."""
    values = np.random.default_rng(start).random((stop - start, 1 + len(columns)))
    values[:, 0] = np.arange(start, stop)
    if columns == LOSSES:
        values[:, 1] = 0
    return values


def written(path: Path, frame: str, columns: tuple[Column, ...], steps: int) -> Path:
    """A completed run with `steps` rows in one frame."""
    folder = store.Folder.claim(path)
    for start in range(0, steps, CHUNK):
        blocks: list[Block] = [(columns, rows(columns, start, min(start + CHUNK, steps)))]
        folder.append(frame, blocks)
    folder.write_meta(Meta(name=path.name, ended="completed"))
    return path


def segmented(path: Path, steps: int) -> Path:
    """A run whose second half has one more column."""
    folder = store.Folder.claim(path)
    folder.append("gradients", [(NORMS[:-1], rows(NORMS[:-1], 0, steps // 2))])
    folder.append("gradients", [(NORMS, rows(NORMS, steps // 2, steps))])
    folder.write_meta(Meta(name=path.name, ended="completed"))
    return path


def best(action: Callable[[], object], repeats: int = 5) -> float:
    """The shortest of some times in seconds."""
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        action()
        times.append(time.perf_counter() - begun)
    return min(times)


def append_cost(path: Path, columns: int) -> float:
    """Seconds a value of appending blocks of 256 rows."""
    names: tuple[Column, ...] = tuple(("norm", f"p{i}") for i in range(columns))
    folder, block = store.Folder.claim(path), rows(names, 0, 256)
    begun = time.perf_counter()
    for _ in range(40):
        folder.append("gradients", [(names, block)])
        block[:, 0] += 256
    return (time.perf_counter() - begun) / (40 * block.size)


def exports(run: Run, folder: Path) -> list[tuple[str, float]]:
    """Values a second of CSV, and of Parquet where pyarrow is there."""
    values = len(run.tables["gradients"]) * len(NORMS)
    speeds = [("export to CSV, values a second", values / best(lambda: run.to_csv(folder / "csv"), 1))]
    try:
        seconds = best(lambda: to_parquet(run, folder / "parquet"), 2)
    except RunError:
        return speeds
    return [*speeds, ("export to Parquet, values a second", values / seconds)]


def measure(folder: Path) -> list[tuple[str, float]]:
    """Everything, by name; in seconds unless the name says otherwise."""
    large = written(folder / "large", "gradients", NORMS, 10_000_000)
    result = [("open a run of 10,000,000 rows x 8 columns", best(lambda: open_run(large)))]
    shutil.rmtree(large)
    norms = written(folder / "norms", "gradients", NORMS, 1_000_000)
    result += [
        ("frame of 1,000,000 rows x 8 columns, opening included", best(lambda: open_run(norms).gradients)),
        ("... its steps alone", best(lambda: open_run(norms).tables["gradients"].steps)),
        ("sum of one column of that frame", best(lambda: open_run(norms).gradients["norm", "h2.weight"].sum())),
    ]
    halves = segmented(folder / "halves", 1_000_000)
    result.append(("... in two segments, which are copied", best(lambda: open_run(halves).gradients)))
    losses = written(folder / "losses", "losses", LOSSES, 1_000_000)
    result.append(("losses of 1,000,000 rows, opening included", best(lambda: open_run(losses).losses)))
    result += [(f"append, ns a value at {n} columns", 1e9 * append_cost(folder / f"a{n}", n)) for n in (8, 500)]
    short = written(folder / "short", "gradients", NORMS, 200_000)
    return result + exports(open_run(short), folder)


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as folder:
        for what, value in measure(Path(folder)):
            print(f"{what:55} {value:14,.4f}" if value < 1000 else f"{what:55} {value:14,.0f}")


if __name__ == "__main__":
    main()
