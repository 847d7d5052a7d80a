"""The run folder on disk: run.json, and append-only files of fixed-width rows, one for each frame and set of columns.

`frames/activations-0.json` names the columns; `frames/activations-0.f64` holds rows of little-endian float64, the step
first. A new set of columns opens `activations-1`. NumPy's memory map reads both; nothing in a folder is ever executed.
"""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nndiag.errors import RunError
from nndiag.meta import FORMAT, Meta
from nndiag.table import Block, Column, Table

ROW = np.dtype("<f8")
SEGMENT = re.compile(r"([a-z]+)-(\d{1,6})\.json")


def claim(path: Path) -> Path:
    """Make the folder `path`, or the first free `path-2`, `path-3`, …: a folder that is not empty is never shared."""
    if not path.name:
        raise RunError(f"{str(path)!r} names no folder to make; give one such as runs/digits")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for candidate in _siblings(path):
            try:
                candidate.mkdir()
            except FileExistsError:
                if not candidate.is_dir() or any(candidate.iterdir()):
                    continue
            return candidate
    except OSError as fault:
        raise RunError(f"cannot make the run folder {path}: {fault.strerror or fault}") from fault
    raise AssertionError("unreachable: there is always a next sibling")


def _siblings(path: Path) -> Iterator[Path]:
    yield path
    number = 2
    while True:
        yield path.with_name(f"{path.name}-{number}")
        number += 1


class Folder:
    """Writes one run. Every call either completes or raises OSError and changes nothing that was complete before."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._segments: dict[tuple[str, tuple[Column, ...]], Path] = {}
        (path / "frames").mkdir(exist_ok=True)

    def append(self, frame: str, blocks: Iterable[Block]) -> None:
        """Append whole rows to `frame`."""
        for columns, rows in blocks:
            with self._segment(frame, columns).open("ab") as file:
                file.write(np.ascontiguousarray(rows, dtype=ROW).tobytes())

    def _segment(self, frame: str, columns: tuple[Column, ...]) -> Path:
        if (frame, columns) not in self._segments:
            number = 1 + max((number for name, number, _ in _segments(self.path) if name == frame), default=-1)
            schema = self.path / "frames" / f"{frame}-{number}.json"
            replace(schema, json.dumps({"columns": columns}))
            self._segments[frame, columns] = schema.with_suffix(".f64")
        return self._segments[frame, columns]

    def write_meta(self, meta: Meta) -> None:
        """Replace run.json."""
        replace(self.path / "run.json", json.dumps({"format": FORMAT, **meta.to_dict()}, indent=1))


def replace(path: Path, text: str) -> None:
    """Write `text` to `path` so that a reader sees the old text or the new one, never a part."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def writer() -> dict[str, Any]:
    """Who is writing a run: enough to tell later whether it is still there."""
    return {"pid": os.getpid(), "host": platform.node()}


def read_meta(path: Path) -> Meta:
    """Metadata of the run in the folder `path`; a run whose writer is gone without a word has ended as "killed"."""
    data = _json(path / "run.json", path)
    if not isinstance(data.get("format"), int) or data["format"] > FORMAT:
        raise RunError(
            f"{path} has run format {data.get('format')!r}; this nndiag reads up to {FORMAT}: upgrade nndiag"
        )
    meta = Meta.from_dict(data)
    gone = meta.ended == "running" and not _alive(meta.writer)
    return meta.describe({"ended": "killed"}) if gone else meta


def read_tables(path: Path) -> dict[str, Table]:
    """All frames of the run in the folder `path`."""
    return {frame: Table.of(blocks) for frame, blocks in read_blocks(path).items()}


def read_blocks(path: Path) -> dict[str, list[Block]]:
    """The blocks of every frame in the folder `path`, oldest first, as memory maps; a torn tail is dropped."""
    blocks: dict[str, list[Block]] = {}
    for frame, _, schema in sorted(_segments(path)):
        blocks.setdefault(frame, []).append(_block(schema, path))
    return blocks


def _segments(path: Path) -> Iterator[tuple[str, int, Path]]:
    for file in sorted((path / "frames").glob("*.json")):
        if match := SEGMENT.fullmatch(file.name):
            yield match[1], int(match[2]), file


def _block(schema: Path, run: Path) -> Block:
    named = _json(schema, run).get("columns")
    if not isinstance(named, list) or not named:
        raise RunError(f"{schema} is damaged: it names no columns")
    columns = tuple(_column(item, schema) for item in named)
    file = schema.with_suffix(".f64")
    width = 1 + len(columns)
    try:
        rows = file.stat().st_size // (width * ROW.itemsize) if file.exists() else 0
        if not rows:
            return columns, np.empty((0, width))
        values = np.memmap(file, dtype=ROW, mode="r", shape=(rows, width))
    except OSError as fault:
        raise RunError(f"cannot read {file}: {fault.strerror or fault}") from fault
    if not all(0 <= values[at, 0] < 2**53 for at in (0, -1)):
        raise RunError(f"{file} is damaged: a row does not begin with a step")
    return columns, values


def _column(item: Any, schema: Path) -> Column:
    match item:
        case [str(statistic), str(name)]:
            return statistic, name
    raise RunError(f"{schema} is damaged: {item!r} is no column, which is [statistic, name]")


def _json(file: Path, run: Path) -> Mapping[str, Any]:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        what = "there is no such folder" if not run.exists() else f"it has no {file.name}"
        raise RunError(f"{run} is not a run: {what}; give the folder that nndiag.watch(..., run=...) wrote") from None
    except NotADirectoryError:
        raise RunError(
            f"{run} is not a run: it is a file; give the folder that nndiag.watch(..., run=...) wrote"
        ) from None
    except OSError as fault:
        raise RunError(f"cannot read {file}: {fault.strerror or fault}") from fault
    except (ValueError, RecursionError) as fault:
        raise RunError(f"{file} is damaged, it is no JSON: {fault}") from fault
    if not isinstance(data, dict):
        raise RunError(f"{file} is damaged: wanted a JSON object, got {type(data).__name__}")
    return data


def _alive(who: Mapping[str, Any]) -> bool:
    """Whether the writer may still be there; on another host nobody can tell, so yes."""
    pid = who.get("pid")
    if who.get("host") != platform.node() or not isinstance(pid, int) or pid <= 0:
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
