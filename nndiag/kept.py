"""The thinned rows of a run folder, kept beside its frames, so that nobody has to look through all of a long run again.

`thinned/state.json` says how far they go; `thinned/activations-N.f64` holds those that stand for the first N rows of a
frame, as little-endian float64. A reader goes on from there, or from the start where they do not fit the frames. Only the
writer of a run writes them; a folder without them is whole.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from nndiag.errors import RunError
from nndiag.statistics import Array
from nndiag.stored import opened, read_json
from nndiag.table import Block
from nndiag.thinning import MARK, ROWS, Thinner, Thinning

FORMAT = 1
"""Version of what is kept; another one is passed over."""

FIELDS = tuple(name for name in MARK.names or () if name not in ("draw", "slot"))
"""What precedes the values of a kept row."""

MOST = 8 * ROWS
"""Rows that are kept of a frame at most, those that others are read beside among them."""

PROBES = 9
"""Kept rows that are compared with the frames before they are trusted."""


def save(path: Path, thinning: Thinning) -> None:
    """Keep `thinning` in the run folder `path`. Raises OSError."""
    folder = path / "thinned"
    folder.mkdir(exist_ok=True)
    thinners = {frame: thinner for frame, thinner in thinning.of.items() if thinner.count}
    names = {frame: f"{frame}-{thinner.count}.f64" for frame, thinner in thinners.items()}
    for frame, name in names.items():
        _replace(folder / name, _rows(thinners[frame]).tobytes())
    state = {"format": FORMAT, "frames": {frame: thinner.state() for frame, thinner in thinners.items()}}
    _replace(folder / "state.json", json.dumps(state).encode())
    for file in folder.glob("*.f64"):
        if file.name not in names.values():
            file.unlink(missing_ok=True)


def _replace(file: Path, content: bytes) -> None:
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        part.replace(file)
    except OSError:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def _rows(thinner: Thinner) -> Array:
    marks = thinner.marks
    known = [marks[name].astype(float) for name in FIELDS]
    return np.ascontiguousarray(np.column_stack([*known, thinner.store[marks["slot"]]]), "<f8")


def thinned(path: Path, blocks: Mapping[str, Sequence[Block]]) -> Thinning:
    """The thinned rows of the run in the folder `path`, whose frames are `blocks`: what is kept, and what came since."""
    thinning = _kept(path, blocks)
    thinning.read_all(blocks)
    return thinning


def _kept(path: Path, blocks: Mapping[str, Sequence[Block]]) -> Thinning:
    """What is kept in the folder `path`; nothing where it does not fit `blocks` or is damaged."""
    try:
        state = read_json(path / "thinned" / "state.json", path)
        if state["format"] != FORMAT:
            return Thinning()
        thinning = Thinning()
        for frame, known in state["frames"].items():
            thinning.of[frame] = _thinner(path, frame, known, blocks[frame])
    except (RunError, OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError):
        return Thinning()
    return thinning


def _thinner(path: Path, frame: str, known: Mapping[str, Any], blocks: Sequence[Block]) -> Thinner:
    """The thinner of `frame` as it was saved. Raises ValueError where it does not fit `blocks`."""
    file = path / "thinned" / f"{frame}-{int(known['count'])}.f64"
    columns = list(dict.fromkeys(column for names, _ in blocks for column in names))
    width = len(FIELDS) + len(known["columns"])
    if [tuple(column) for column in known["columns"]] != columns[: len(known["columns"])]:
        raise ValueError(f"{file} has other columns than the frame")
    with opened(file) as content:
        if os.fstat(content.fileno()).st_size > MOST * 8 * width:
            raise ValueError(f"{file} holds more than what stands for a frame")
        rows = np.fromfile(content, "<f8").reshape(-1, width)
    thinner = Thinner.restored(known, {name: rows[:, i] for i, name in enumerate(FIELDS)}, rows[:, len(FIELDS) :])
    for at in np.linspace(0, len(rows) - 1, PROBES).astype(int):
        step, values = _recorded(blocks, int(thinner.marks["index"][at]), columns[: len(known["columns"])])
        if step != thinner.marks["step"][at] or not np.array_equal(values, thinner.store[at], equal_nan=True):
            raise ValueError(f"{file} holds other rows than the frame")
    return thinner


def _recorded(blocks: Sequence[Block], index: int, columns: Sequence[tuple[str, str]]) -> tuple[float, Array]:
    """Step and values of row number `index` of a frame. Raises LookupError if it has none."""
    for names, rows in blocks:
        if 0 <= index < len(rows):
            row = dict(zip(names, rows[index, 1:].tolist(), strict=True))
            return float(rows[index, 0]), np.array([row.get(column, np.nan) for column in columns])
        index -= len(rows)
    raise LookupError(index)
