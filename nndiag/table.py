"""The rows of one frame: growing while a run is recorded, frozen when it is read."""

from __future__ import annotations

import logging
import math
from array import array
from bisect import bisect_left
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nndiag.mapped import pieces
from nndiag.statistics import Array

log = logging.getLogger("nndiag")

Column = tuple[str, str]
"""(statistic, name of a layer, parameter, split, …)"""

Block = tuple[tuple[Column, ...], Array]
"""Columns, and rows (n, 1 + columns) whose first value is the step; steps ascend."""

Slot = slice | tuple[int, ...]
"""Places of a row: one after the other, or anywhere."""

KEPT: tuple[Column, ...] = (("epoch", ""), ("validation", ""), ("training_mode", ""))
"""What row n of losses and loop holds of the validation after n updates; the rest of it is of the step that follows."""

MOST = 1 << 17
"""Values of finished rows in one piece of memory."""

STEPS = 2**53
"""What every step is below: float64 holds those exactly."""


@dataclass(frozen=True, eq=False)
class Piece:
    """The rows of one block that count: they become rows `at`, `at` + 1, … of the table, its values columns `to`."""

    at: int
    steps: Array
    values: Array
    to: Array | None

    @property
    def end(self) -> int:
        """The row after the last."""
        return self.at + len(self.steps)


class Table:
    """`values` (n, columns) in float64, NaN where nothing was recorded, at `steps` (n,), ascending.

    Of rows in a file nothing is read before it is asked for. `values` of a single block are its rows, as they lie there; of
    several blocks they are a copy, which `between`, `chunks` and `take` make of some rows only. Both are read-only.
    """

    def __init__(self, columns: tuple[Column, ...], steps: Array, values: Array) -> None:
        self.columns = columns
        self.steps, self.values = steps, values
        self._pieces = [Piece(0, steps, values, None)] if len(steps) else []

    @classmethod
    def of(cls, blocks: Iterable[Block]) -> Table:
        """One table from blocks, oldest first, that may differ in columns.

        A step that stands at the end of one block and at the beginning of the next becomes one row, later values winning.
        Where a block begins at an earlier step than those before it ended, training has gone back to there: what was recorded of
        later steps before that is superseded.
        """
        return Blocks([block for block in blocks if len(block[1])])

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

    def between(self, start: int, stop: int) -> Table:
        """Rows `start` to `stop`."""
        return self._taken(np.arange(start, min(stop, len(self.steps))))

    def chunks(self, rows: int) -> Iterator[Table]:
        """All rows, in tables of at most `rows`, without having the whole in memory."""
        return (self.between(start, start + rows) for start in range(0, len(self.steps), rows))

    def take(self, at: Array) -> Table:
        """The rows `at`, which ascend."""
        return self._taken(np.asarray(at))

    def _taken(self, at: Array) -> Table:
        return Table(self.columns, self.steps[at], self._filled(at))

    def _filled(self, at: Array) -> Array:
        """Values of the rows `at`, ascending, gathered from the pieces."""
        values = np.empty((len(at), len(self.columns)))
        done = 0
        for piece in self._pieces:
            first, last = np.searchsorted(at, (piece.at, piece.end))
            if first < last:
                _fill(values[first:last], piece, at[first:last] - piece.at, both=first < done)
                done = last
        return values


class Blocks(Table):
    """A table whose rows lie in blocks until they are asked for."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        self.columns = tuple(dict.fromkeys(column for names, _ in blocks for column in names))
        self.blocks = blocks

    def __len__(self) -> int:
        if "_pieces" in self.__dict__:
            return self._pieces[-1].end if self._pieces else 0
        total, limit = 0, np.inf
        for _, rows in reversed(self.blocks):
            if count := _first(rows, np.nextafter(limit, np.inf)):
                total += count - int(rows[count - 1, 0] == limit)
                limit = min(limit, rows[0, 0])
        return total

    @property
    def last(self) -> int:
        """The last step."""
        return int(self.blocks[-1][1][-1, 0])

    def before(self, step: int) -> Table:
        """The rows before `step`."""
        return Table.of((columns, rows[: _first(rows, step)]) for columns, rows in self.blocks)

    @cached_property
    def _pieces(self) -> list[Piece]:  # type: ignore[override]  # made when it is asked for
        place = {column: i for i, column in enumerate(self.columns)}
        pieces: list[Piece] = []
        end, last = 0, -1
        for names, steps, values in _counting(self.blocks):
            at = end - (steps[0] == last)
            to = None if names == self.columns else np.array([place[name] for name in names])
            pieces.append(Piece(at, steps, values, to))
            end, last = pieces[-1].end, steps[-1]
        return pieces

    @cached_property
    def steps(self) -> Array:  # type: ignore[override]
        if len(self._pieces) == 1:
            return self._pieces[0].steps
        steps = np.empty(self._pieces[-1].end if self._pieces else 0, np.int64)
        for piece in self._pieces:
            steps[piece.at : piece.end] = piece.steps
        return steps

    @cached_property
    def values(self) -> Array:  # type: ignore[override]
        if len(self._pieces) == 1 and self._pieces[0].to is None:
            return self._pieces[0].values
        values = self._filled(np.arange(len(self)))
        values.flags.writeable = False
        return values


def _first(rows: Array, step: float) -> int:
    """Position of the first row of `step` or a later one, by a look at a few rows."""
    if rows[-1, 0] < step:
        return len(rows)
    return bisect_left(range(len(rows)), step, key=lambda at: rows[at, 0])


def _counting(blocks: Sequence[Block]) -> list[tuple[tuple[Column, ...], Array, Array]]:
    """Columns, steps and values of the rows that no later block supersedes, of blocks that have any."""
    counting = []
    limit = np.iinfo(np.int64).max
    for names, rows in reversed(blocks):
        steps = sound_steps(rows)
        if count := int(np.searchsorted(steps, limit, side="right")):
            values = rows[:count, 1:]
            values.flags.writeable = False
            counting.append((names, steps[:count], values))
            limit = min(limit, steps[0])
    return counting[::-1]


def sound_steps(rows: Array, where: object = None) -> Array:
    """Steps of the leading `rows` that begin with one: whole, and later than that of the row before."""
    parts, last = [np.empty(0, np.int64)], -1
    for piece in pieces(rows):
        count = sound(piece[:, 0], last)
        parts.append(piece[:count, 0].astype(np.int64))
        if count < len(piece):
            where = where or getattr(rows, "filename", None) or "a frame"
            row = sum(map(len, parts))
            log.warning("%s: row %d does not begin with the next step; it and what follows are left out", where, row)
            break
        last = int(parts[-1][-1])
    return np.concatenate(parts)


def sound(raw: Array, last: float = -1) -> int:
    """How many of these numbers from the first on are steps: whole, and later than the one before, at first than `last`."""
    with np.errstate(invalid="ignore"):
        good = (raw == np.floor(raw)) & (raw < STEPS) & (np.diff(raw, prepend=last) > 0)
    return len(raw) if good.all() else int(np.argmin(good))


def _fill(values: Array, piece: Piece, at: Array, *, both: bool) -> None:
    """Set `values` to rows `at` of `piece`; with `both` the first row holds an earlier one of that step, which shows through."""
    earlier = values[0].copy() if both else None
    rows = piece.values[at[0] : at[-1] + 1] if at[-1] - at[0] == len(at) - 1 else piece.values[at]
    if piece.to is None:
        values[:] = rows
    else:
        values.fill(np.nan)
        values[:, piece.to] = rows
    if earlier is not None:
        values[0] = np.where(np.isnan(values[0]), earlier, values[0])


class Buffers(dict[str, "Buffer"]):
    """A buffer for each frame, made when it is asked for; `waiting` values of finished rows are there to be taken."""

    def __init__(self) -> None:
        self.waiting = 0
        self.opened: list[Buffer] = []
        """Those with something in the row under way."""

    def __missing__(self, frame: str) -> Buffer:
        buffer = self[frame] = Buffer(frame, self.opened)
        return buffer

    def append(self, buffer: Buffer, rows: list[float], number: int = 1) -> None:
        """Finish a `number` of whole rows of one buffer, of each the step and the values, one after the other."""
        buffer.finish(rows, number)
        self.waiting += len(rows)

    def close(self, step: int) -> list[tuple[Buffer, list[float]]]:
        """Finish the rows that have something in them as those of `step`; gives back of each the step and the values."""
        closed = []
        while self.opened:
            buffer = self.opened.pop(0)
            row = buffer.close_row(step)
            self.waiting += len(row)
            closed.append((buffer, row))
        return closed

    def take(self) -> dict[str, list[Block]]:
        """Finished rows of every frame; they are the caller's from now on."""
        self.waiting = 0
        return {frame: buffer.take() for frame, buffer in list(self.items())}


class Buffer:
    """The row of one frame that is being recorded, and the finished rows that nobody has taken yet.

    The row is a list, which takes a value in some 10 ns, with room for the step in front; closing it is one write of the
    whole row. `number` counts the rows that were closed; with its first value a row puts its buffer into `opened`.
    """

    def __init__(self, frame: str = "", opened: list[Buffer] | None = None) -> None:
        self.frame = frame
        self._opened = opened
        self.number = 0
        self._places: dict[Column, int] = {}
        self._slots: dict[Hashable, Slot] = {}
        self._row: list[float] = [math.nan]
        self._empty: list[float] = [math.nan]
        self._blocks: list[Block] = []
        self._finished = array("d")
        self.touched = False

    def put(self, name: str, statistics: tuple[str, ...], values: Sequence[float]) -> None:
        """Set `statistics` of `name` in the current row."""
        slot = self._slots.get((name, statistics))
        if slot is None:
            slot = self._slots[name, statistics] = self.slot(name, statistics)
        self.fill(slot, values)

    def slot(self, name: str, statistics: tuple[str, ...]) -> Slot:
        """Where `statistics` of `name` stand in every row from here on, for `fill`."""
        return self._slot([(statistic, name) for statistic in statistics])

    def put_each(self, statistic: str, part: str, values: Sequence[float]) -> None:
        """Set `statistic` of `part 0`, `part 1`, … in the current row."""
        slot = self._slots.get((statistic, part, len(values)))
        if slot is None:
            slot = self._slot([(statistic, f"{part} {i}") for i in range(len(values))])
            self._slots[statistic, part, len(values)] = slot
        self.fill(slot, values)

    def fill(self, slot: Slot, values: Sequence[float]) -> None:
        """Set what stands at `slot` of the current row."""
        if not self.touched:
            self.touched = True
            if self._opened is not None:
                self._opened.append(self)
        if slot.__class__ is slice:
            self._row[slot] = values
        else:
            for place, value in zip(slot, values, strict=True):  # type: ignore[arg-type]  # mypy knows no __class__
                self._row[place] = value

    def _slot(self, columns: list[Column]) -> Slot:
        """Where `columns` stand in the row; room is made for those that are new."""
        if new := [column for column in columns if column not in self._places]:
            self._seal()
            room = [math.nan] * len(new)
            places = {**self._places, **{column: at for at, column in enumerate(new, 1 + len(self._places))}}
            empty, row = self._empty + room, self._row + room
            self._places, self._empty, self._row = places, empty, row  # all or nothing, wherever Ctrl-C comes
        at = tuple(self._places[column] for column in columns)
        first = at[0] if at else 1
        return slice(first, first + len(at)) if at == tuple(range(first, first + len(at))) else at

    @property
    def columns(self) -> tuple[Column, ...]:
        """Columns of the current row."""
        return tuple(self._places)

    def close_row(self, step: int) -> list[float]:
        """Finish the current row as that of `step`, and give it back: the step and the values."""
        row, self._row = self._row, self._empty.copy()
        self.touched = False
        row[0] = step
        self.finish(row)
        return row

    def finish(self, rows: list[float], number: int = 1) -> None:
        """Take a `number` of whole rows, of each the step and the values."""
        self.number += number
        if len(rows) != number * len(self._empty):
            raise AssertionError(f"rows of {len(rows) / number - 1:g} values for {len(self._places)} columns")
        self._finished.fromlist(rows)
        if len(self._finished) > MOST:
            self._seal()

    def pending(self, step: int) -> list[Block]:
        """The current row as a block, if anything is in it; columns that another thread is making just now are left out."""
        columns, row = self.columns, self._row[1:]
        known = min(len(columns), len(row))
        return [(columns[:known], np.array([[step, *row[:known]]]))] if self.touched else []

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
            rows = np.frombuffer(self._finished).reshape(-1, len(self._empty))
            blocks, empty = [*self._blocks, (self.columns, rows)], array("d")
            self._blocks, self._finished = blocks, empty  # all or nothing, wherever Ctrl-C comes
