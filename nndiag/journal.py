"""The Journal: the finished rows of a run, appended to its folder, or kept in memory where there is none or it fails."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path

from nndiag import store
from nndiag.errors import RunError
from nndiag.meta import Meta
from nndiag.table import Block

log = logging.getLogger("nndiag")


class Journal:
    """Keeps what a recorder has finished: whole rows, frame by frame, and the metadata.

    With `path` in a run folder, which is claimed so that no two writers share one; else, and from the first write that
    fails on, in memory.
    """

    def __init__(self, path: Path | None = None, *, resume: bool = False, flush_seconds: float = 5.0) -> None:
        self._flush_seconds = flush_seconds
        self._flushed = time.monotonic()
        self._kept: dict[str, list[Block]] = defaultdict(list)
        self._folder: store.Folder | None = None
        self._storing = path is not None
        self.resumed: Meta | None = None
        self.next_step = 0
        if path is not None:
            self._open(path, resume)

    def _open(self, path: Path, resume: bool) -> None:
        if resume and (path / "run.json").exists():
            self.resumed = store.read_meta(path)
            if self.resumed.ended == "running":
                raise RunError(f"cannot resume {path}: process {self.resumed.writer.get('pid')} is still writing it")
            steps = [int(table.steps[-1]) for table in store.read_tables(path).values() if len(table)]
            self.next_step = max(steps, default=-1) + 1
        else:
            claimed = store.claim(path)
            if claimed != path:
                log.warning("%s is not empty: this run is recorded into %s", path, claimed)
            path = claimed
        self._folder = store.Folder(path)

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
        self._stored(self._append)

    def _append(self, folder: store.Folder) -> None:
        for frame, blocks in self._kept.items():
            folder.append(frame, blocks)
            blocks.clear()

    def write_meta(self, meta: Meta) -> None:
        """Replace what the run says of itself."""
        self._stored(lambda folder: folder.write_meta(meta))

    def blocks(self) -> dict[str, list[Block]]:
        """All finished rows, oldest first."""
        blocks = store.read_blocks(self._folder.path) if self._folder else {}
        for frame, kept in self._kept.items():
            blocks.setdefault(frame, []).extend(kept)
        return blocks

    def _stored(self, action: Callable[[store.Folder], None]) -> None:
        if self._folder is None or not self._storing:
            return
        try:
            action(self._folder)
        except OSError as fault:
            self._storing = False
            log.warning("cannot write %s any more (%s): the rest of the run is kept in memory", self.path, fault)
