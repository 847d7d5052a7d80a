"""The Journal: the finished rows of a run, appended to its folder, or kept in memory where there is none or it fails."""

from __future__ import annotations

import logging
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from nndiag import store
from nndiag.errors import RunError
from nndiag.meta import Meta
from nndiag.stored import Stored
from nndiag.table import KEPT, STEPS, Block, Table

log = logging.getLogger("nndiag")


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
        self._flushed = time.monotonic()
        self._kept: dict[str, list[Block]] = defaultdict(list)
        self._meta: Meta | None = None
        self._failing = False
        self._process = os.getpid()
        self._folder: store.Folder | None = None
        self.resumed: Meta | None = None
        self.next_step = 0
        if path is not None and resume and (path / "run.json").exists():
            self._folder, found = store.Folder.resume(path)
            self.resumed, self.next_step = found.meta, updates(found)
        elif path is not None:
            self._folder = store.Folder.claim(path)
            if self._folder.path != path:
                log.warning("%s is not empty: this run is recorded into %s", path, self._folder.path)

    @property
    def path(self) -> Path | None:
        """The run folder, or None while the record is only in memory."""
        return self._folder.path if self._folder else None

    @property
    def due(self) -> bool:
        """Whether it is time to hand over what is finished."""
        return time.monotonic() - self._flushed > self._flush_seconds

    def append(self, rows: Mapping[str, list[Block]]) -> None:
        """Take over finished rows."""
        self._flushed = time.monotonic()
        for frame, blocks in rows.items():
            self._kept[frame] += blocks
        self._write()

    def write_meta(self, meta: Meta) -> None:
        """Replace what the run says of itself."""
        self._meta = meta
        self._write()

    def blocks(self) -> dict[str, list[Block]]:
        """All finished rows, oldest first."""
        blocks = self._folder.blocks() if self._folder else {}
        for frame, kept in self._kept.items():
            blocks.setdefault(frame, []).extend(kept)
        return blocks

    def _write(self) -> None:
        """Hand the folder what it has not got yet, each frame and the metadata by itself: one may fit where another does not."""
        if self._folder is None or self._process != os.getpid():
            return
        faults: list[Exception] = []
        for frame, blocks in self._kept.items():
            with _noting(faults):
                self._folder.append(frame, blocks)
        with _noting(faults):
            if self._meta is not None:
                self._folder.write_meta(self._meta)
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
        faults.append(fault)


def updates(found: Stored) -> int:
    """Number of updates that a stored run covers: a validation after the last one adds none. Raises RunError if it is absurd."""
    done = max((_updates(frame, table) for frame, table in found.tables.items() if len(table)), default=0)
    if done >= STEPS:
        raise RunError(f"cannot resume {found.meta.name}: it is damaged, its last step is {done - 1}")
    return done


def _updates(frame: str, table: Table) -> int:
    last = table.between(len(table) - 1, len(table))
    seen = {column for column, value in zip(table.columns, last.values[0], strict=True) if not np.isnan(value)}
    evaluated = frame in ("losses", "metrics") and all(c in KEPT or c[1] == "validation" for c in seen)
    return int(last.steps[0]) + (not evaluated)
