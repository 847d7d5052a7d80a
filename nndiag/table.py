"""The rows of one frame: growing while a run is recorded, frozen when it is read."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from nndiag.statistics import Array

Column = tuple[str, str]
"""(statistic, name of a layer, parameter, split, …)"""

Block = tuple[tuple[Column, ...], Array]
"""Columns, and rows (n, 1 + columns) whose first value is the step."""

MOST = 1 << 17
"""Values of finished rows in one piece of memory."""


@dataclass(frozen=True)
class Table:
    """`values` (n, columns) in float64, NaN where nothing was recorded, at `steps` (n,), ascending."""

    columns: tuple[Column, ...]
    steps: Array
    values: Array

    def __len__(self) -> int:
        return len(self.steps)

    @classmethod
    def of(cls, blocks: Iterable[Block]) -> Table:
        """One table from blocks that may differ in columns; a step that stands in two blocks becomes one row."""
        blocks = [block for block in blocks if len(block[1])]
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


class Buffer:
    """The row of one frame that is being recorded, and the finished rows that nobody has taken yet.

    The row is a list, which takes a value in some 10 ns; closing it is one write of the whole row.
    """

    def __init__(self) -> None:
        self._columns: list[Column] = []
        self._slots: dict[tuple[str, tuple[str, ...]], slice] = {}
        self._runs: dict[tuple[str, str, int], slice] = {}
        self._row: list[float] = []
        self._empty: list[float] = []
        self._blocks: list[Block] = []
        self._finished = array("d")
        self.touched = False

    def put(self, name: str, statistics: tuple[str, ...], values: Sequence[float]) -> None:
        """Set `statistics` of `name` in the current row."""
        slot = self._slots.get((name, statistics)) or self._known(name, statistics)
        self._row[slot] = values
        self.touched = True

    def _known(self, name: str, statistics: tuple[str, ...]) -> slice:
        if (name, statistics) not in self._slots:
            self._slots[name, statistics] = self._extend([(statistic, name) for statistic in statistics])
        return self._slots[name, statistics]

    def _extend(self, columns: list[Column]) -> slice:
        self._seal()
        slot = slice(len(self._columns), len(self._columns) + len(columns))
        self._columns += columns
        self._empty += [math.nan] * len(columns)
        self._row += [math.nan] * len(columns)
        return slot

    def put_each(self, statistic: str, part: str, values: Sequence[float]) -> None:
        """Set `statistic` of `part 0`, `part 1`, … in the current row."""
        slot = self._runs.get((statistic, part, len(values)))
        if slot is None:
            slots = [self._known(f"{part} {i}", (statistic,)) for i in range(len(values))]
            slot = slice(slots[0].start, slots[-1].stop)
            if slot.stop - slot.start != len(values):  # the number has changed: some stand elsewhere
                for one, value in zip(slots, values, strict=True):
                    self._row[one] = (value,)
                self.touched = True
                return
            self._runs[statistic, part, len(values)] = slot
        self._row[slot] = values
        self.touched = True

    @property
    def columns(self) -> tuple[Column, ...]:
        """Columns of the current row."""
        return tuple(self._columns)

    def close_row(self, step: int) -> list[float]:
        """Finish the current row as that of `step`, and give back its values."""
        row, self._row = self._row, self._empty.copy()
        self.touched = False
        if len(row) != len(self._columns):
            raise AssertionError(f"a row of {len(row)} values for {len(self._columns)} columns")
        self._finished.fromlist([step, *row])
        if len(self._finished) > MOST:
            self._seal()
        return row

    def pending(self, step: int) -> list[Block]:
        """The current row as a block, if anything is in it."""
        return [(self.columns, np.array([[step, *self._row]]))] if self.touched else []

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
        """Make a block of the rows that are finished."""
        if self._finished:
            rows = np.frombuffer(self._finished).reshape(-1, 1 + len(self._columns))
            self._blocks.append((tuple(self._columns), rows))
            self._finished = array("d")
