"""The Journal: the finished rows of a run, appended to its folder, or kept in memory where there is none or it fails."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from nndiag import kept, store
from nndiag.errors import RunError
from nndiag.interrupts import propagates
from nndiag.memory import Memory
from nndiag.meta import Meta
from nndiag.stored import Stored
from nndiag.table import KEPT, STEPS, Block, Table
from nndiag.thinning import FOLLOWING, Thinning

log = logging.getLogger("nndiag")

OFTEN = 256 << 20
"""Bytes of rows after which what stands for the run is kept anew: a reader goes through no more than so many."""

LITTLE = 16 << 20
"""Bytes of rows that are gone through in no time: at the end of fewer, nothing is kept."""


class Journal:
    """Keeps what a recorder has finished: whole rows, frame by frame, and the metadata.

    With `path` in a run folder, which is claimed so that no two writers share one; what cannot be written there is kept in
    memory and tried again with the next. A forked child keeps to its memory: the folder is its parent's. With `strict` a
    fault that is not the disk's is raised.
    """

    def __init__(
        self, path: Path | None = None, *, resume: bool = False, flush_seconds: float = 5.0, strict: bool = False
    ) -> None:
        self._strict = strict
        self._flush_seconds = flush_seconds
        self.flushed_at = time.monotonic()
        self.due_at = self.flushed_at + flush_seconds
        """When, by `time.monotonic`, what is finished is to be handed over; `flushed_at` is when it was."""
        self._memory = Memory()
        self._thinning, self._thins, self._lent = Thinning(), True, False
        self._unkept = 0
        self._meta: Meta | None = None
        self._failing = False
        self._process = os.getpid()
        self._folder: store.Folder | None = None
        self.resumed: Meta | None = None
        self._had: dict[str, int] = {}
        """Of frames that had lost rows before this recorder, how many they have had."""
        self.next_step = 0
        if path is not None and resume and (path / "run.json").exists():
            self._folder, found = store.Folder.resume(path)
            self.resumed, self.next_step = found.meta, updates(found)
            self._had = dict(found.meta.thinned)
            self._thinning = kept.thinned(path, found.blocks)
        elif path is not None:
            self._folder = store.Folder.claim(path)
            if self._folder.path != path:
                log.warning("%s is not empty: this run is recorded into %s", path, self._folder.path)

    @property
    def path(self) -> Path | None:
        """The run folder, or None while the record is only in memory."""
        return self._folder.path if self._folder else None

    def append(self, rows: Mapping[str, list[Block]]) -> None:
        """Take over finished rows."""
        self.flushed_at = time.monotonic()
        self.due_at = self.flushed_at + self._flush_seconds
        for frame in self._had.keys() & rows.keys():
            self._had[frame] += sum(len(block) for _, block in rows[frame])
        self._memory.add(rows)
        self._write()
        if self._thins:
            self._thin(rows)

    def _thin(self, rows: Mapping[str, list[Block]]) -> None:
        """Choose what stands for the run; if that fails, memory grows and readers go through all rows, but nothing is lost."""
        try:
            if self._lent:
                self._thinning, self._lent = self._thinning.copy(), False
            self._thinning.add(rows)
            self._unkept += sum(block.nbytes for blocks in rows.values() for _, block in blocks)
            self._fit()
            self._keep(OFTEN)
        except Exception as fault:
            if propagates(fault, self._strict):
                raise
            self._thins = False
            log.error("rows are no longer thinned as they come; training goes on", exc_info=fault)

    def _fit(self) -> None:
        """Let go of rows that outgrow the memory for them, with one warning."""
        said = bool(self._memory.thinned)
        self._memory.fit()
        if self._memory.thinned and not said:
            log.warning(
                "the rows of %s take more than %d MB of memory: of older ones only a part is kept from now on%s",
                self.path or "this run", self._memory.most >> 20, "" if self.path else "; a run folder keeps all",
            )  # fmt: skip

    def _keep(self, least: int) -> None:
        """Keep what stands for the run in its folder, after `least` bytes of rows; it is for speed, and can be done without."""
        if (
            self._unkept <= least
            or self._folder is None
            or not self._writing
            or self._memory.thinned
            or not self._thins
        ):
            return
        self._unkept = 0
        if self._folder.there:
            with suppress(OSError):
                kept.save(self._folder.path, self._thinning)

    def close(self) -> None:
        """Nothing more comes."""
        self._keep(LITTLE)

    def write_meta(self, meta: Meta) -> None:
        """Replace what the run says of itself."""
        self._meta = meta
        self._write()

    def blocks(self, more: Mapping[str, list[Block]] | None = None) -> dict[str, list[Block]]:
        """All rows that there are, oldest first, `more` at their end."""
        blocks = self._folder.blocks() if self._folder else {}
        for rest in (self._memory.blocks(self._thinning), more or {}):
            for frame, parts in rest.items():
                blocks.setdefault(frame, []).extend(parts)
        return blocks

    def thinned(self, more: Mapping[str, list[Block]]) -> Callable[[], Mapping[str, Table]] | None:
        """Gives what stands for the run as it is now, and for `more` rows that are not finished."""
        if not self._thins:
            return None
        thinning, self._lent = self._thinning, True

        def tables() -> Mapping[str, Table]:
            own = thinning.copy()
            own.add(more)
            return own.tables()

        return tables

    def forgotten(self, more: Mapping[str, list[Block]]) -> dict[str, int]:
        """Frames of whose past only what stands for it is left, and how many rows they have had, with `more`."""
        had = {**{frame: self._thinning.of[frame].count for frame in self._memory.thinned}, **self._had}
        return {frame: count + sum(len(rows) for _, rows in more.get(frame, [])) for frame, count in had.items()}

    @property
    def _writing(self) -> bool:
        """Whether what comes goes into the folder: a forked child keeps to its memory."""
        return self._folder is not None and self._process == os.getpid()

    def _write(self) -> None:
        """Hand the folder what it has not got yet, each frame and the metadata by itself: one may fit where another does not."""
        if self._folder is None or not self._writing:
            return
        faults: list[Exception] = []
        for frame in self._memory.frames:
            with _noting(faults):
                self._folder.append(frame, self._memory.to_store(frame, self._thinning))
        with _noting(faults):
            if self._meta is not None:
                self._folder.write_meta(replace(self._meta, thinned={**self._meta.thinned, **self.forgotten({})}))
                self._meta = None
        self._say(faults[0] if faults else None)
        for fault in faults if self._strict else ():
            if not isinstance(fault, OSError):
                raise fault

    def _say(self, fault: Exception | None) -> None:
        """Warn once when writing begins to fail."""
        if fault and not self._failing:
            log.warning(
                "cannot write %s (%s): what is recorded is kept in memory, and written if that becomes possible again",
                self.path, getattr(fault, "strerror", None) or repr(fault),
                exc_info=None if isinstance(fault, OSError) else fault,
            )  # fmt: skip
        elif self._failing and not fault:
            log.info("%s can be written again and is complete", self.path)
        self._failing = fault is not None


@contextmanager
def _noting(faults: list[Exception]) -> Iterator[None]:
    try:
        yield
    except Exception as fault:
        if propagates(fault):
            raise
        faults.append(fault)


def updates(found: Stored) -> int:
    """Number of updates that a stored run covers. Raises RunError if it is absurd.

    A validation after the last one adds none, nor do other numbers right behind the last loss where each step has one.
    """
    covered = {frame: _updates(frame, table) for frame, table in found.tables.items() if len(table)}
    if (last := _last_loss(found.tables.get("losses"))) is not None and covered.get("metrics") == last + 2:
        covered["metrics"] = last + 1
    done = max(covered.values(), default=0)
    if done >= STEPS:
        raise RunError(f"cannot resume {found.meta.name}: it is damaged, its last step is {done - 1}")
    return done


def _last_loss(losses: Table | None) -> int | None:
    """The step of the last training loss, where the step before it has one, too, if there is one."""
    if losses is None or ("train", "") not in losses.columns:
        return None
    rows = losses.between(max(0, len(losses.steps) - 4), len(losses.steps))
    trained, validated = (
        ~np.isnan(rows.values[:, rows.columns.index(column)]) if column in rows.columns else np.zeros(len(rows), bool)
        for column in (("train", ""), ("validation", ""))
    )
    known = rows.steps[trained | ~validated]  # a row with neither is of a loss that is no number
    every = len(known) > 0 and (known[-1] == 0 or (len(known) > 1 and known[-2] == known[-1] - 1))
    return int(known[-1]) if every else None


def _updates(frame: str, table: Table) -> int:
    last = table.between(len(table.steps) - 1, len(table.steps))
    seen = {column for column, value in zip(table.columns, last.values[0], strict=True) if not np.isnan(value)}
    evaluated = frame == "evaluations" or (frame in FOLLOWING and all(c in KEPT or c[1] == "validation" for c in seen))
    return int(last.steps[0]) + (not evaluated)
