"""The rows of one frame: growing while a run is recorded, frozen when it is read."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from nndiag.statistics import Array

Column = tuple[str, str]
"""(statistic, name of a layer, parameter, split, …)"""

Block = tuple[tuple[Column, ...], Array]
"""Columns, and rows (n, 1 + columns) whose first value is the step."""

CHUNK = 256
"""Rows that a buffer allocates at once."""


@dataclass(frozen=True)
class Table:
    """`values` (n, columns) in float64, NaN where nothing was recorded, at `steps` (n,), ascending."""

    columns: tuple[Column, ...]
    steps: Array
    values: Array

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def last(self) -> int:
        """The last step."""
        return int(self.steps[-1])

    def before(self, step: int) -> Table:
        """The rows before `step`."""
        end = int(np.searchsorted(self.steps, step))
        return Table(self.columns, self.steps[:end], self.values[:end])

    @staticmethod
    def of(blocks: Iterable[Block]) -> Joined:
        """One table from blocks that may differ in columns, put together when its rows are asked for."""
        return Joined(blocks)

    @classmethod
    def joined(cls, blocks: Sequence[Block]) -> Table:
        """One table from blocks that may differ in columns; a step that stands in two blocks becomes one row."""
        columns = tuple(dict.fromkeys(column for names, _ in blocks for column in names))
        if len(blocks) == 1:
            rows = blocks[0][1]
            return cls(columns, rows[:, 0].astype(np.int64), rows[:, 1:])
        at = {column: i for i, column in enumerate(columns)}
        steps = np.concatenate([rows[:, 0] for _, rows in blocks] or [np.empty(0)]).astype(np.int64)
        values = np.full((len(steps), len(columns)), np.nan)
        first = 0
        for names, rows in blocks:
            values[first : first + len(rows), [at[name] for name in names]] = rows[:, 1:]
            first += len(rows)
        return cls(columns, steps, values)._merged()

    def _merged(self) -> Table:
        """Rows of one step merged, later values winning; only neighbours can be of one step."""
        same = np.flatnonzero(np.diff(self.steps) == 0)
        if not len(same):
            return self
        values = self.values.copy()
        for i in same:
            values[i + 1] = np.where(np.isnan(values[i + 1]), values[i], values[i + 1])
        keep = np.setdiff1d(np.arange(len(self)), same)
        return Table(self.columns, self.steps[keep], values[keep])


class Joined(Table):
    """A table of blocks, whose rows are put together when they are asked for: those of a long run fill gigabytes."""

    def __init__(self, blocks: Iterable[Block]) -> None:
        self.__dict__["blocks"] = blocks = [block for block in blocks if len(block[1])]
        self.__dict__["columns"] = tuple(dict.fromkeys(column for names, _ in blocks for column in names))

    blocks: list[Block]

    @cached_property
    def _whole(self) -> Table:
        return Table.joined(self.blocks)

    @property
    def steps(self) -> Array:
        """Step of each row."""
        return self._whole.steps

    @property
    def values(self) -> Array:
        """The rows."""
        return self._whole.values

    def __len__(self) -> int:
        twice = sum(one[-1, 0] == other[0, 0] for (_, one), (_, other) in pairwise(self.blocks))
        return sum(len(rows) for _, rows in self.blocks) - int(twice)

    @property
    def last(self) -> int:
        """The last step."""
        return int(self.blocks[-1][1][-1, 0])

    def before(self, step: int) -> Joined:
        """The rows before `step`."""
        return Joined((columns, rows[: _first(rows, step)]) for columns, rows in self.blocks)


def _first(rows: Array, step: int) -> int:
    """Position of the first row of `step` or a later one, by a look at a few rows."""
    return bisect_left(range(len(rows)), step, key=lambda i: rows[i, 0])


class Buffer:
    """The row of one frame that is being recorded, and the finished rows that nobody has taken yet."""

    def __init__(self) -> None:
        self._columns: list[Column] = []
        self._slots: dict[tuple[str, Sequence[str]], slice] = {}
        self._row = np.empty(0)
        self._blocks: list[Block] = []
        self._chunk = np.empty((0, 1))
        self._used = 0
        self.touched = False

    def put(self, name: str, statistics: tuple[str, ...], values: Sequence[float]) -> None:
        """Set `statistics` of `name` in the current row."""
        slot = self._slots.get((name, statistics)) or self._extend(name, statistics)
        self._row[slot] = values
        self.touched = True

    def _extend(self, name: str, statistics: tuple[str, ...]) -> slice:
        self._seal()
        slot = slice(len(self._columns), len(self._columns) + len(statistics))
        self._columns += [(statistic, name) for statistic in statistics]
        self._row = np.concatenate([self._row, np.full(len(statistics), np.nan)])
        self._slots[name, statistics] = slot
        return slot

    @property
    def columns(self) -> tuple[Column, ...]:
        """Columns of the current row."""
        return tuple(self._columns)

    def close_row(self, step: int) -> Array:
        """Finish the current row as that of `step`, and give back its values."""
        if self._used == len(self._chunk) or self._chunk.shape[1] != 1 + len(self._row):
            self._seal()
            self._chunk = np.empty((CHUNK, 1 + len(self._row)))
        row: Array = self._chunk[self._used]
        row[0], row[1:] = step, self._row
        self._used += 1
        self._row.fill(np.nan)
        self.touched = False
        values: Array = row[1:]
        return values

    def pending(self, step: int) -> list[Block]:
        """The current row as a block, if anything is in it."""
        return [(self.columns, np.concatenate([[step], self._row])[None])] if self.touched else []

    def blocks(self) -> list[Block]:
        """Finished rows that have not been taken."""
        self._seal()
        return list(self._blocks)

    def take(self) -> list[Block]:
        """Finished rows that have not been taken; they are the caller's from now on."""
        blocks = self.blocks()
        self._blocks.clear()
        return blocks

    def _seal(self) -> None:
        if self._used:
            self._blocks.append((tuple(self._columns), self._chunk[: self._used]))
        self._chunk, self._used = self._chunk[self._used :], 0
