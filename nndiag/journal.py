"""The Journal: the finished rows of a run, appended to its folder, or kept in memory where there is none or it fails."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from nndiag import kept, store
from nndiag.errors import RunError
from nndiag.memory import Memory
from nndiag.meta import Meta
from nndiag.table import Block, Table
from nndiag.thinning import Thinning

log = logging.getLogger("nndiag")

OFTEN = 256 << 20
"""Bytes of rows after which what stands for the run is kept anew: a reader looks through no more than so many."""

LITTLE = 16 << 20
"""Bytes of rows that are looked through in no time: for fewer, nothing is kept."""


class Journal:
    """Keeps what a recorder has finished: whole rows, frame by frame, and the metadata.

    With `path` in a run folder, which is claimed so that no two writers share one; else, and from the first write that
    fails on, in memory, which past rows leave but for those that stand for them. What stands for the whole run is always
    at hand, and kept in the folder every `OFTEN` bytes.
    """

    def __init__(self, path: Path | None = None, *, resume: bool = False, flush_seconds: float = 5.0) -> None:
        self._flush_seconds = flush_seconds
        self._flushed = time.monotonic()
        self._memory = Memory()
        self._thinning, self._lent = Thinning(), False
        self._unkept = 0
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
            self._go_on(path)
        else:
            claimed = store.claim(path)
            if claimed != path:
                log.warning("%s is not empty: this run is recorded into %s", path, claimed)
            path = claimed
        self._folder = store.Folder(path)

    def _go_on(self, path: Path) -> None:
        """Continue the run in the folder `path`."""
        blocks = store.read_blocks(path)
        steps = [int(rows[-1, 0]) for parts in blocks.values() for _, rows in parts if len(rows)]
        self.next_step = max(steps, default=-1) + 1
        self._thinning = kept.thinned(path, blocks)
        for frame, thinner in self._thinning.of.items():
            self._memory.begin(frame, thinner.count)

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
        if self._lent:
            self._thinning, self._lent = self._thinning.copy(), False
        self._thinning.add(rows)
        self._memory.add(rows)
        self._stored(self._append)
        self._fit()

    def _fit(self) -> None:
        said = self._memory.thinned
        self._memory.fit()
        if self._memory.thinned and not said:
            log.warning(
                "the rows of %s take more than %d MB of memory: only a part of the older ones is kept from now on",
                self.path or "a run without a folder",
                self._memory.most >> 20,
            )

    def _append(self, folder: store.Folder) -> None:
        for frame, blocks in self._memory.whole.items():
            folder.append(frame, blocks)
            self._unkept += self._memory.stored(frame)
        if self._unkept > OFTEN:
            self._keep(folder)

    def _keep(self, folder: store.Folder) -> None:
        """Keep what stands for the run beside it, which is for speed alone: where that fails it is done without."""
        self._unkept = 0
        with suppress(OSError):
            kept.save(folder.path, self._thinning)

    def close(self) -> None:
        """Nothing more comes."""
        if self._unkept > LITTLE:
            self._stored(self._keep)

    def write_meta(self, meta: Meta) -> None:
        """Replace what the run says of itself."""
        self._stored(lambda folder: folder.write_meta(meta))

    def blocks(self, more: Mapping[str, list[Block]]) -> dict[str, list[Block]]:
        """All rows that there are, oldest first, `more` at their end."""
        blocks = store.read_blocks(self._folder.path) if self._folder else {}
        for rest in (self._memory.blocks(self._thinning), more):
            for frame, parts in rest.items():
                blocks.setdefault(frame, []).extend(parts)
        return blocks

    def thinned(self, more: Mapping[str, list[Block]]) -> Callable[[], Mapping[str, Table]]:
        """Gives what stands for the run as it is now, and for `more` rows that are not finished."""
        thinning, self._lent = self._thinning, True

        def tables() -> Mapping[str, Table]:
            own = thinning.copy()
            own.add(more)
            return own.tables()

        return tables

    def forgotten(self, more: Mapping[str, list[Block]]) -> dict[str, int]:
        """Frames of whose past only what stands for it is left, and how many rows they have had, with `more`."""
        return {
            frame: self._thinning.of[frame].count + sum(len(rows) for _, rows in more.get(frame, []))
            for frame in self._memory.thinned
        }

    def _stored(self, action: Callable[[store.Folder], None]) -> None:
        if self._folder is None or not self._storing:
            return
        try:
            action(self._folder)
        except OSError as fault:
            self._storing = False
            log.warning("cannot write %s any more (%s): the rest of the run is kept in memory", self.path, fault)
