"""Rows that no folder holds: the latest as they are, and what stands for those before."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import numpy as np

from nndiag.table import Block
from nndiag.thinning import Thinning

MOST = 48 << 20
"""Bytes of whole rows, of all frames together: about 30,000 steps of a network of six layers."""


class Memory:
    """Finished rows of each frame that are not in a folder, oldest first; `thinned` are frames that have lost some of them."""

    def __init__(self, most: int = MOST) -> None:
        self.most = most
        self._whole: dict[str, list[Block]] = defaultdict(list)
        self._past: dict[str, float] = {}
        self.thinned: set[str] = set()

    @property
    def frames(self) -> list[str]:
        """The frames that have rows here."""
        return [frame for frame, blocks in self._whole.items() if blocks]

    def add(self, rows: Mapping[str, list[Block]]) -> None:
        """Take in the next rows of every frame."""
        for frame, blocks in rows.items():
            self._whole[frame] += [block for block in blocks if len(block[1])]

    def fit(self) -> None:
        """Let go of the older half of each frame if all together take too much."""
        if sum(rows.nbytes for blocks in self._whole.values() for _, rows in blocks) > self.most:
            for frame in self._whole:
                self._halve(frame)

    def _halve(self, frame: str) -> None:
        blocks = self._whole[frame]
        goes = sum(len(rows) for _, rows in blocks) // 2
        if goes:
            self.thinned.add(frame)
            self._past.setdefault(frame, blocks[0][1][0, 0] - 1)
        while goes:
            columns, rows = blocks.pop(0)
            if len(rows) > goes:
                blocks.insert(0, (columns, rows[goes:].copy()))
            goes -= min(goes, len(rows))

    def blocks(self, thinning: Thinning) -> dict[str, list[Block]]:
        """All rows that there are; of those that are gone what `thinning` holds of them."""
        return {frame: [*self._gone(frame, thinning), *blocks] for frame, blocks in self._whole.items()}

    def _gone(self, frame: str, thinning: Thinning) -> list[Block]:
        if frame not in self._past:
            return []
        past, until = thinning.of[frame].table(), self._whole[frame][0][1][0, 0]
        held = (past.steps > self._past[frame]) & (past.steps < until)
        return [(past.columns, np.column_stack([past.steps[held], past.values[held]]))]

    def to_store(self, frame: str, thinning: Thinning) -> list[Block]:
        """The rows of `frame`, for a folder to take off what it has written."""
        blocks = self._whole[frame]
        blocks[:0] = self._gone(frame, thinning)
        self._past.pop(frame, None)
        return blocks
