"""Writing a run folder: run.json, and append-only files of fixed-width rows, one for each frame and set of columns.

`frames/activations-0.json` names the columns; `frames/activations-0.f64` holds rows of little-endian float64, the step
first. A new set of columns, or a step that goes back, opens `activations-1`. docs/run_folder.md says what is promised and
what is assumed.
"""

from __future__ import annotations

import errno
import json
import logging
import mmap
import os
import platform
import weakref
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nndiag import stored
from nndiag.errors import RunError
from nndiag.lock import Lock
from nndiag.meta import FORMAT, Meta
from nndiag.plain import as_json
from nndiag.statistics import Array
from nndiag.stored import ROW, Segment, Stored
from nndiag.table import Block, Column, sound_steps

log = logging.getLogger("nndiag")


def claim(path: Path) -> Path:
    """Make the folder `path`, or the first free `path-2`, `path-3`, …: a folder that is not empty is never shared."""
    return next(_claims(path))


def _claims(path: Path) -> Iterator[Path]:
    """Folders that were made or are empty."""
    if path.name in ("", ".."):
        raise RunError(f"{str(path)!r} names no folder to make; give one such as runs/digits")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for candidate in _siblings(path):
            try:
                candidate.mkdir()
            except FileExistsError:
                if not candidate.is_dir() or any(candidate.iterdir()):
                    continue
            yield candidate
    except OSError as fault:
        raise RunError(f"cannot make the folder {path}: {fault.strerror or fault}") from fault


def _siblings(path: Path) -> Iterator[Path]:
    yield path
    yield from (path.with_name(f"{path.name}-{number}") for number in count(2))


class Open:
    """A file or folder that is open as `number` as long as this object lives."""

    def __init__(self, name: str | Path, flags: int, folder: int | None = None) -> None:
        self.number = os.open(name, flags | os.O_CLOEXEC, 0o666, dir_fd=folder)
        self._close = weakref.finalize(self, os.close, self.number)

    @property
    def status(self) -> os.stat_result:
        """As of now."""
        return os.fstat(self.number)


class Appended:
    """A file of rows with `columns` that is open for appending; `last` is the step of its last row."""

    def __init__(self, file: Open, columns: tuple[Column, ...], last: int = -1) -> None:
        self._file = file
        self.columns, self._place = columns, {column: 1 + i for i, column in enumerate(columns)}
        self._width = (1 + len(columns)) * ROW.itemsize
        self.rows, self._last = self._file.status.st_size // self._width, last

    @property
    def there(self) -> bool:
        """Whether the file has not been removed."""
        return self._file.status.st_nlink > 0

    def takes(self, columns: tuple[Column, ...], step: float) -> bool:
        """Whether rows of `columns` that begin at `step` can go on here."""
        whole = self._file.status.st_size == self.rows * self._width
        return whole and step > self._last and (columns == self.columns or self._place.keys() >= set(columns))

    def append(self, columns: tuple[Column, ...], rows: Array) -> int:
        """Append `rows`; how many there was room for, or OSError where there was room for none."""
        if not self.there:
            raise FileNotFoundError(errno.ENOENT, "the folder was removed")
        taken = 0
        try:
            self._write(self._fitted(columns, rows).data.cast("B"))
        except OSError:
            if self._file.status.st_size < (self.rows + 1) * self._width:
                raise
        finally:
            taken = self._settle(rows)
        return taken

    def _fitted(self, columns: tuple[Column, ...], rows: Array) -> Array:
        """`rows` as this file has them."""
        if columns == self.columns:
            return np.ascontiguousarray(rows, dtype=ROW)
        wide = np.full((len(rows), 1 + len(self.columns)), np.nan, dtype=ROW)
        wide[:, 0] = rows[:, 0]
        wide[:, [self._place[column] for column in columns]] = rows[:, 1:]
        return wide

    def _write(self, data: memoryview) -> None:
        while data:
            data = data[os.write(self._file.number, data) :]

    def _settle(self, rows: Array) -> int:
        """How many of `rows` are there now; a part of one is cut off, whole ones stay, for a reader may have mapped them."""
        whole, part = divmod(self._file.status.st_size, self._width)
        taken = min(max(whole - self.rows, 0), len(rows))
        last = int(rows[taken - 1, 0]) if taken else self._last
        self._last = last  # before `rows`: broken off here, by Ctrl-C, the file no longer `takes` what it has
        self.rows = whole
        if part:
            with suppress(OSError):  # then it `takes` nothing from now on
                os.ftruncate(self._file.number, whole * self._width)
        return taken

    @property
    def block(self) -> Block:
        """All its rows; of a large file as a memory map, which outlives the file and holds it open."""
        rows, width = min(self.rows, self._file.status.st_size // self._width), 1 + len(self.columns)
        if not rows:
            return self.columns, np.empty((0, width))
        size = rows * self._width
        small = os.pread(self._file.number, size, 0) if size <= stored.SMALL else b""
        view = small if len(small) == size else mmap.mmap(self._file.number, size, access=mmap.ACCESS_READ)
        return self.columns, np.frombuffer(view, ROW).reshape(rows, width)


class Held(NamedTuple):
    """A file to which nothing is appended any more, still open."""

    name: str
    file: Appended


class Finished(NamedTuple):
    """A file to which nothing is appended any more, and which is opened again to be read."""

    name: str
    columns: tuple[Column, ...]
    rows: int


MOST_HELD = 8
"""Finished files of a frame that are held open, in case the folder is removed; there may be many more than a process may open."""


class Folder:
    """Writes one run. What a call that raises OSError has not written can be given to it again.

    The folder is held open: where it is moved in the meantime it is written on, and never another that stands in its place.
    """

    def __init__(self, path: Path, here: Open, lock: Lock) -> None:
        self.path = path
        self._here = here
        self._lock: Lock | None = lock
        with suppress(FileExistsError):
            os.mkdir("frames", dir_fd=here.number)
        self._frames = Open("frames", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, here.number)
        self._earlier: dict[str, list[Block]] = {}
        self._finished: dict[str, list[Held | Finished | Block]] = {}
        self._last: dict[str, tuple[str, Appended]] = {}
        self._rows: dict[str, int] = {}
        self._lost: set[str] = set()

    @classmethod
    def claim(cls, path: Path) -> Folder:
        """A new run in `path`, or in the first free sibling. Raises RunError where none can be made."""
        try:
            return next(folder for candidate in _claims(path) if (folder := cls._made(candidate)))
        except OSError as fault:
            raise RunError(f"cannot make the folder {path}: {fault.strerror or fault}") from fault

    @classmethod
    def _made(cls, path: Path) -> Folder | None:
        """The run in the empty folder `path`; None where another process was faster."""
        try:
            here = Open(path, os.O_RDONLY | os.O_DIRECTORY)
            return cls(path, here, Lock.make(here.number))
        except (FileExistsError, FileNotFoundError):
            return None

    @classmethod
    def resume(cls, path: Path) -> tuple[Folder, Stored]:
        """The run in `path`, to be appended to, and what it holds. Raises RunError while another process writes it."""
        try:
            here = Open(path, os.O_RDONLY | os.O_DIRECTORY)
            lock, alone = Lock.take(here.number)
            found = stored.read(path, held=False)
            if not alone and found.meta.ended == "killed" and stored.alive(found.meta.writer):
                raise BlockingIOError
            folder = cls(path, here, lock)
            folder._go_on(found)
        except BlockingIOError as fault:
            who = stored.read(path).meta.writer
            raise RunError(
                f"cannot resume {path}: process {who.get('pid')} is still writing it, on {who.get('host')}"
            ) from fault
        except OSError as fault:
            raise RunError(f"cannot resume {path}: {fault.strerror or fault}") from fault
        return folder, found

    def _go_on(self, found: Stored) -> None:
        """Keep what is there; the last file of each frame is appended to, if it can be read to its end."""
        self._rows = {**found.rows}
        last = {segment.frame: segment for segment in found.segments}
        for segment in found.segments:
            self._rows[segment.name] = max(len(segment.rows), self._rows.get(segment.name, 0))
            file = self._again(segment) if segment is last[segment.frame] else None
            if file:
                self._last[segment.frame] = segment.name, file
            else:
                self._earlier.setdefault(segment.frame, []).append((segment.columns, segment.rows))

    def _again(self, segment: Segment) -> Appended | None:
        """The file of `segment`, open for appending, unless it is damaged or not this run's own."""
        if not len(steps := sound_steps(segment.rows)):
            return None
        try:
            flags = os.O_RDWR | os.O_APPEND | os.O_NONBLOCK | os.O_NOFOLLOW
            file = Open(f"{segment.name}.f64", flags, self._frames.number)
        except OSError:
            return None
        appended = Appended(file, segment.columns, int(steps[-1]))
        return appended if len(steps) == len(segment.rows) == appended.rows else None

    def append(self, frame: str, blocks: list[Block]) -> None:
        """Append whole rows to `frame`, and take off `blocks` what is written."""
        while blocks:
            columns, rows = blocks[0]
            if len(rows):
                name, file = self._file(frame, blocks)
                rows = rows[file.append(columns, rows) :]
                self._rows[name] = file.rows
            blocks[:1] = [(columns, rows)] if len(rows) else []

    def _file(self, frame: str, blocks: list[Block]) -> tuple[str, Appended]:
        """Where the first of `blocks` goes: to the last file, or into a new one that has the columns of all of them."""
        columns, rows = blocks[0]
        if frame not in self._last or not self._last[frame][1].takes(columns, rows[0, 0]):
            made = self._new(frame, tuple(dict.fromkeys(column for names, _ in blocks for column in names)))
            self._finish(frame)
            self._last[frame] = made
        return self._last[frame]

    def _finish(self, frame: str, held: int = MOST_HELD) -> None:
        """Nothing more is appended to the last file of `frame`; of the finished ones the last `held` stay open."""
        files = self._finished.setdefault(frame, [])
        if frame in self._last:
            files.append(Held(*self._last.pop(frame)))
        for at, one in enumerate(files[: max(0, len(files) - held)]):
            if isinstance(one, Held):
                file = one.file
                files[at] = Finished(one.name, file.columns, file.rows) if file.there else file.block

    def _new(self, frame: str, columns: tuple[Column, ...]) -> tuple[str, Appended]:
        """A file for `columns`, with the next number."""
        taken = [name for name in stored.names(self._names()) if name.startswith(f"{frame}-")]
        name = f"{frame}-{1 + stored.numbered(taken[-1])[1] if taken else 0}"
        if len(text := json.dumps({"columns": columns})) > stored.LARGEST:
            raise OSError(errno.EFBIG, f"{len(columns)} columns in {frame} are more than can be read back")
        file = Open(f"{name}.f64", os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL, self._frames.number)
        try:
            _replace(f"{name}.json", text, self._frames.number)
        except OSError:
            os.unlink(f"{name}.f64", dir_fd=self._frames.number)
            raise
        return name, Appended(file, columns)

    def _names(self) -> list[str]:
        with os.scandir(self._frames.number) as entries:
            return [entry.name for entry in entries]

    def blocks(self) -> dict[str, list[Block]]:
        """All rows that were written, oldest first, also if the folder has been removed meanwhile."""
        blocks = {frame: list(earlier) for frame, earlier in self._earlier.items()}
        for frame, finished in self._finished.items():
            blocks.setdefault(frame, []).extend(map(self._read, finished))
        for frame, (_, file) in self._last.items():
            blocks.setdefault(frame, []).append(file.block)
        return blocks

    def _read(self, finished: Held | Finished | Block) -> Block:
        """The rows of a file that is finished; none, with one warning, of one that has been removed since it was closed."""
        match finished:
            case Finished(name, columns, rows):
                try:
                    file = Open(f"{name}.f64", os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW, self._frames.number)
                except OSError as fault:
                    if name not in self._lost:
                        self._lost.add(name)
                        log.warning(
                            "the rows of %s are lost: its file in %s is gone (%s)", name, self.path, fault.strerror
                        )
                    return columns, np.empty((0, 1 + len(columns)))
                whole = Appended(file, columns)
                whole.rows = min(whole.rows, rows)
                return whole.block
            case Held():
                return finished.file.block
            case _:
                return finished

    @property
    def there(self) -> bool:
        """Whether the folder still stands where it was made."""
        try:
            return os.path.samestat(self.path.stat(), self._here.status)
        except OSError:
            return False

    def write_meta(self, meta: Meta) -> None:
        """Replace run.json. Once the run has ended, others may write the folder."""
        self._lock = self._lock or Lock.take(self._here.number)[0]
        data = {"format": FORMAT, "rows": self._rows, **meta.to_dict()}
        try:
            _replace("run.json", as_json(data), self._here.number)
        finally:
            if meta.ended != "running":
                self._lock.release()
                self._lock = None
                for frame in {*self._last, *self._finished}:
                    self._finish(frame, held=0)


def _replace(name: str, text: str, folder: int) -> None:
    """Write `text` to `name` in `folder` so that a reader sees the old text or the new one, never a part."""
    part, flags = f".{name}.{os.getpid()}.part", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    try:
        with os.fdopen(os.open(part, flags, 0o666, dir_fd=folder), "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(part, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        with suppress(OSError):
            os.unlink(part, dir_fd=folder)
        raise


def writer() -> dict[str, Any]:
    """Who is writing a run: enough to tell later whether it is still there."""
    return {"pid": os.getpid(), "host": platform.node()}
