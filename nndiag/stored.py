"""Reading a run folder, which anybody may have made: plain files only, of sizes that a run can have, by memory map."""

from __future__ import annotations

import json
import logging
import os
import platform
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from reprlib import repr as short
from typing import IO, Any

import numpy as np

from nndiag import lock
from nndiag.errors import RunError
from nndiag.frames import FRAMES
from nndiag.mapped import PIECE, pieces
from nndiag.meta import FORMAT, Meta
from nndiag.plain import as_utf8
from nndiag.statistics import Array
from nndiag.table import STEPS, Block, Column, Table, sound, sound_steps

log = logging.getLogger("nndiag")

ROW = np.dtype("<f8")

NAME = re.compile(r"([a-z]+)-([0-9]{1,6})")
"""Of a segment: frame and number."""

LARGEST = 16 * 2**20
"""Bytes of JSON in one file: room for 100,000 columns or layers; more would cost a reader gigabytes."""

DEEPEST = 32
"""Levels of JSON in run.json."""

SMALL = 2**20
"""Bytes of rows up to which they are read at once: memory maps of many small files would use up the open files."""

WHOLE = 64 * 2**20
"""Bytes of rows up to which the steps of all are looked at when a run is opened; of larger files those of `LOOKS` rows are."""

LOOKS = 1 << 14
"""Rows, evenly spaced, that a large file is judged by: to go through all of them would be to load it."""

NAMED = 5
"""Files that a complaint names."""


@dataclass(frozen=True, eq=False)
class Segment:
    """A file of rows: `name` is that of its files without extension, `rows` (n, 1 + columns) are its whole rows."""

    name: str
    columns: tuple[Column, ...]
    rows: Array

    @property
    def frame(self) -> str:
        """The frame whose rows these are."""
        return self.name.rpartition("-")[0]


@dataclass(frozen=True, eq=False)
class Stored:
    """What a run folder holds: `rows` says how many each segment had, or more, when run.json was last written."""

    meta: Meta
    segments: tuple[Segment, ...]
    rows: Mapping[str, int]

    @property
    def blocks(self) -> dict[str, list[Block]]:
        """The blocks of every frame, oldest first; nothing of them is read yet."""
        blocks: dict[str, list[Block]] = {}
        for segment in self.segments:
            blocks.setdefault(segment.frame, []).append((segment.columns, segment.rows))
        return blocks

    @property
    def tables(self) -> dict[str, Table]:
        """The frames."""
        return {frame: Table.of(parts) for frame, parts in self.blocks.items()}


def folder(path: str | Path) -> Path:
    """`path`, with the home folder in place of ~. Raises RunError where no folder can have that name."""
    if "\0" in str(path):
        raise RunError(f"{str(path)!r} names no folder: no path holds the character NUL")
    try:
        return Path(path).expanduser()
    except RuntimeError as fault:
        raise RunError(f"{str(path)!r} names no folder: {fault}") from fault


def read(path: Path, *, held: bool | None = None) -> Stored:
    """The run in the folder `path`; one whose writer is gone without a word has ended as "killed".

    `held` says whether a process writes it, if that is known. What the folder has lost since it was written is warned of,
    and stands in the faults of the run. Raises RunError for a folder that is no run or damaged.
    """
    data = _described(path)
    meta, rows = Meta.from_dict(data), _counts(data, path)
    if meta.ended == "running" and not (_written(path, meta) if held is None else held):
        meta = replace(meta, ended="killed")
    growing = meta.ended == "running"
    files = {name: extensions for name, extensions in _names(path).items() if _known(name)}
    segments = tuple(_segment(path, name, growing) for name in files if "json" in files[name])
    lost = [*_short(segments, rows), *([] if growing else _unnamed(path, files, rows))]
    return Stored(_with_loss(meta, lost, path) if lost else meta, segments, rows)


def _with_loss(meta: Meta, lost: list[str], path: Path) -> Meta:
    more = f" and {len(lost) - NAMED} more" if len(lost) > NAMED else ""
    error = f"{', '.join(lost[:NAMED])}{more}"
    log.warning("%s has lost rows since they were written: %s", path, error)
    fault = {"part": "the run folder", "event": "reading", "error": error}
    return meta if fault in meta.faults else replace(meta, faults=(*meta.faults, fault))


def _described(path: Path) -> Mapping[str, Any]:
    data = read_json(path / "run.json", path)
    version = data.get("format")
    if type(version) is not int or not 1 <= version <= FORMAT:
        raise RunError(f"{path} has run format {short(version)}; this nndiag reads 1 to {FORMAT}: upgrade nndiag")
    if not _shallow(data):
        raise RunError(f"{path / 'run.json'} is damaged: it is nested more than {DEEPEST} levels deep")
    return {as_utf8(key): _cleaned(value) for key, value in data.items()}


def _counts(data: Mapping[str, Any], path: Path) -> dict[str, int]:
    rows = data.get("rows", {})
    if isinstance(rows, dict) and all(NAME.fullmatch(name) and type(n) is int and n >= 0 for name, n in rows.items()):
        return rows
    raise RunError(f"{path / 'run.json'} is damaged: its rows are {short(rows)}, wanted numbers by file")


def _shallow(data: Any) -> bool:
    """Whether `data` is nested no deeper than a run's."""
    level = [data]
    for _ in range(DEEPEST):
        level = [item for outer in level if isinstance(outer, dict | list)
                 for item in (outer.values() if isinstance(outer, dict) else outer)]  # fmt: skip
    return not level


def _cleaned(data: Any) -> Any:
    """`data` with text that pandas, files and terminals can hold."""
    match data:
        case str():
            return as_utf8(data)
        case list():
            return [_cleaned(item) for item in data]
        case dict():
            return {as_utf8(key): _cleaned(value) for key, value in data.items()}
    return data


def _written(path: Path, meta: Meta) -> bool:
    """Whether a process still writes the run: it holds the lock, or where there is none, it is there."""
    held = lock.held(path)
    return alive(meta.writer) if held is None else held


def alive(who: Mapping[str, Any]) -> bool:
    """Whether the writer may still be there; on another host nobody can tell, so yes."""
    pid = who.get("pid")
    if who.get("host") != platform.node() or type(pid) is not int or pid <= 0:
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _names(path: Path) -> dict[str, set[str]]:
    try:
        return names(file.name for file in (path / "frames").iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as fault:
        raise RunError(f"cannot read {path / 'frames'}: {fault.strerror or fault}") from fault


def names(files: Iterable[str]) -> dict[str, set[str]]:
    """Segments in the order in which they were made, with the extensions that each has."""
    found: dict[str, set[str]] = {}
    for file in files:
        name, _, extension = file.partition(".")
        if extension in ("json", "f64") and NAME.fullmatch(name):
            found.setdefault(name, set()).add(extension)
    return {name: found[name] for name in sorted(found, key=numbered)}


def numbered(name: str) -> tuple[str, int]:
    """Frame and number of a segment."""
    frame, _, number = name.rpartition("-")
    return frame, int(number)


def _known(name: str) -> bool:
    """Whether a segment is of one of the frames: of others, as of a later version, nothing is read."""
    return numbered(name)[0] in FRAMES


def _short(segments: tuple[Segment, ...], rows: Mapping[str, int]) -> Iterator[str]:
    """Segments that hold fewer rows than they had."""
    found = {segment.name: len(segment.rows) for segment in segments}
    for name, count in rows.items():
        if _known(name) and found.get(name, 0) < count:
            yield f"{name} holds {found.get(name, 0)} of {count} rows"


def _unnamed(path: Path, files: Mapping[str, set[str]], rows: Mapping[str, int]) -> Iterator[str]:
    """Rows whose columns nothing names."""
    for name, extensions in files.items():
        file = path / "frames" / f"{name}.f64"
        if "json" not in extensions and name not in rows and file.is_file() and file.stat().st_size:
            yield f"{name}.f64 lies there without {name}.json, which names its columns"


def _segment(path: Path, name: str, growing: bool) -> Segment:
    schema = path / "frames" / f"{name}.json"
    named = read_json(schema, path).get("columns")
    if not isinstance(named, list) or not named:
        raise RunError(f"{schema} is damaged: it names no columns")
    columns = tuple(_column(item, schema) for item in named)
    try:
        return Segment(name, columns, _rows(schema.with_suffix(".f64"), 1 + len(columns), growing))
    except FileNotFoundError:
        return Segment(name, columns, np.empty((0, 1 + len(columns))))
    except (OSError, ValueError) as fault:  # ValueError where somebody cuts it short meanwhile
        raise RunError(f"cannot read {schema.with_suffix('.f64')}: {getattr(fault, 'strerror', fault)}") from fault


def _column(item: Any, schema: Path) -> Column:
    match item:
        case [str(statistic), str(name)]:
            return as_utf8(statistic), as_utf8(name)
    raise RunError(f"{schema} is damaged: {short(item)} is no column, which is [statistic, name]")


def _rows(path: Path, width: int, growing: bool) -> Array:
    """The whole rows of a file, up to the first that does not begin with the next step; of large ones only some are looked at."""
    with opened(path) as file:
        count, torn = divmod(os.fstat(file.fileno()).st_size, width * ROW.itemsize)
        if torn and not growing:
            log.warning("%s ends within a row: the last %d bytes are left out", path, torn)
        if not count:
            return np.empty((0, width))
        if count * width * ROW.itemsize <= SMALL:
            rows = np.fromfile(file, ROW, count * width).reshape(-1, width)
        else:
            rows = np.memmap(file, ROW, "r", shape=(count, width))
    if not 0 <= rows[0, 0] < STEPS:
        raise RunError(f"{path} is damaged: its first row does not begin with a step")
    plausible = 0 <= rows[-1, 0] - rows[0, 0] - (count - 1) < STEPS and _ascend(rows)
    return rows if plausible else rows[: len(sound_steps(rows, path))]


def _ascend(rows: Array) -> bool:
    """Whether rows begin with ascending steps: all of them, or of a large file those that are looked at."""
    every, last = 1 if rows.nbytes <= WHOLE else len(rows) // LOOKS, -1.0
    for piece in pieces(rows, size=PIECE if every == 1 else max(PIECE, rows.nbytes // 256)):
        steps = piece[::every, 0]
        if sound(steps, last) < len(steps):
            return False
        last = float(steps[-1])
    return True


def opened(path: Path) -> IO[bytes]:
    """The regular file `path`, open for reading. Raises RunError for what is none: a pipe would wait for ever."""
    file = open(str(path), "rb", 0, opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise RunError(f"{path} is no regular file")
    return file


def read_json(file: Path, run: Path) -> Mapping[str, Any]:
    try:
        with opened(file) as content:
            text = _read(content, file).decode("utf-8")
        data = json.loads(text)
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


def _read(content: IO[bytes], file: Path) -> bytes:
    if (size := os.fstat(content.fileno()).st_size) > LARGEST:
        raise RunError(f"{file} is damaged: {size} bytes, where a run has {LARGEST} at most")
    return content.read(LARGEST)
