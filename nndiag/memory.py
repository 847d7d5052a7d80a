"""Rows that no folder holds: the latest as they are, the past as what stands for it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import numpy as np

from nndiag.table import Block
from nndiag.thinning import Thinning

MOST = 64 << 20
"""Bytes of whole rows, of all frames together; of about 30,000 steps of a network of four layers."""


class Memory:
    """The finished rows of each frame that are not in a folder: `whole`, the latest; before them the past, thinned."""

    def __init__(self, most: int = MOST) -> None:
        self.most = most
        self.whole: dict[str, list[Block]] = defaultdict(list)
        self._bytes = 0
        self._stored: dict[str, int] = defaultdict(int)
        self._begins: dict[str, int] = defaultdict(int)

    def add(self, rows: Mapping[str, list[Block]]) -> None:
        """Take in the next rows of every frame."""
        for frame, blocks in rows.items():
            self.whole[frame] += blocks
        self._bytes += sum(block.nbytes for blocks in rows.values() for _, block in blocks)

    def stored(self, frame: str) -> int:
        """The rows of `frame` are in a folder now; gives back their bytes."""
        before = self._bytes
        self._drop(frame, sum(len(rows) for _, rows in self.whole[frame]))
        self._stored[frame] = self._begins[frame]
        return before - self._bytes

    def begin(self, frame: str, count: int) -> None:
        """A folder holds the first `count` rows of `frame` already."""
        self._stored[frame] = self._begins[frame] = count

    def fit(self) -> None:
        """Let go of the older half of every frame where all together take too much."""
        if self._bytes > self.most:
            for frame, blocks in self.whole.items():
                self._drop(frame, sum(len(rows) for _, rows in blocks) // 2)

    def _drop(self, frame: str, rows: int) -> None:
        """Let go of the first `rows` rows of `frame`."""
        self._begins[frame] += rows
        blocks = self.whole[frame]
        while rows:
            columns, block = blocks.pop(0)
            if len(block) > rows:
                blocks.insert(0, (columns, block[rows:].copy()))
            gone = min(rows, len(block))
            self._bytes -= gone * block[0].nbytes
            rows -= gone

    @property
    def thinned(self) -> list[str]:
        """The frames whose past is thinned."""
        return [frame for frame, begins in self._begins.items() if begins > self._stored[frame]]

    def blocks(self, thinning: Thinning) -> dict[str, list[Block]]:
        """All rows, oldest first: of the past what `thinning` holds of it."""
        blocks = {frame: list(whole) for frame, whole in self.whole.items()}
        for frame in self.thinned:
            past = thinning.of[frame].table(self._stored[frame], self._begins[frame])
            blocks[frame].insert(0, (past.columns, np.column_stack([past.steps, past.values])))
        return blocks
