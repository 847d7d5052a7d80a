"""Thinning: a few rows stand for a long frame, chosen while rows come in, the same however these are cut into pieces."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from nndiag.errors import NndiagError
from nndiag.frames import FRAMES
from nndiag.mapped import PIECE, pieces
from nndiag.statistics import Array
from nndiag.table import Block, Blocks, Column, Table, sound

ROWS = 2000
"""Rows of a thinned frame: what checks read."""

LEAST = 25
"""Rows that a thinned frame needs at least."""

BATCH = 8 << 20
"""Bytes of rows that wait to be gone through together: what each time costs is spread over so many."""

AT_ONCE = 1 << 14
"""Rows of which some are chosen together."""

HEAD = 50
"""Rows at the start that are all kept: most faults show there, and a loss falls fastest."""

WIDER = 4
"""The smallest and the largest row are kept of 2⁴ buckets together: of each they would make a loss look wilder than it is."""

KINDS = 8
"""Kinds of rows that are thinned apart: by which columns hold a value, those of later kinds together, and the broken ones."""

FOLLOWING = ("losses", "metrics", "evaluations", "loop")
"""Frames with rows of nearly all steps, or of none that is read: they keep what rows of the other frames are read beside."""

APART = ("histograms",)
"""Frames whose rows need no rows of other frames at the same steps."""

BROKEN = ("nonfinite", "nonfinite_fraction")
"""Statistics that count what was not finite."""

MARK = np.dtype([("index", "i8"), ("step", "i8"), ("size", "f8"), ("draw", "u8"), ("kind", "i8"), ("slot", "i8"),
                 ("chosen", "?"), ("anchor", "?"), ("followed", "?")])  # fmt: skip
"""What is known of a kept row. `draw` is a number drawn by its step; `slot` says where its values are, −1 for not yet."""

Mask = NDArray[np.bool_]


class Thinner:
    """The rows that stand for one frame: all of them up to `rows`, at most so many of a longer one.

    Rows are dealt, in the order of recording, into buckets of 2ᵏ, and those of a bucket that lack the same values into one
    pile each, so that the few that hold a validation loss, or what is not finite, count for themselves. Of each pile one row
    is kept, drawn by its step, so that frames of the same steps keep the same ones, and of every 16 piles in a row the
    smallest and the largest (root mean square, each column over its typical magnitude). So are the first `HEAD` rows, the
    first and last of each kind, and the exact extremes of each column (in wide frames, of each statistic). k is as small as
    fits.

    Of a longer frame it keeps what it would of its two parts: hence rows that come piece by piece come to the same.
    """

    def __init__(self, rows: int = ROWS) -> None:
        if rows < LEAST:
            raise NndiagError(f"thinned(rows={rows!r}): give {LEAST} rows or more")
        self.rows, self.count, self.level = rows, 0, 0
        self.columns: tuple[Column, ...] = ()
        self.marks = np.empty(0, MARK)
        self.store = np.empty((0, 0))
        self._weights = np.empty(0)
        self._kinds: dict[int, int] = {}
        self._ends = np.full((2, min(KINDS, max(2, rows // 40))), -1)
        self._counting: list[int] = []
        self._seen = np.empty(0, bool)
        self._extremes = Extremes(np.empty(0, np.int64))
        self._follows = False

    def copy(self) -> Thinner:
        """One that goes on by itself."""
        other = copy.copy(self)
        other.marks, other.store, other._weights = self.marks.copy(), self.store.copy(), self._weights.copy()
        other._ends = self._ends.copy()
        other._seen, other._kinds, other._extremes = self._seen.copy(), dict(self._kinds), self._extremes.copy()
        return other

    def state(self) -> dict[str, Any]:
        """What it takes to go on, beside the kept rows: plain JSON."""
        weights = [weight if seen else None for weight, seen in zip(self._weights.tolist(), self._seen, strict=True)]
        return {"count": self.count, "level": self.level, "follows": self._follows, "columns": self.columns,
                "weights": weights, "kinds": [hex(present) for present in self._kinds], "ends": self._ends.tolist()}  # fmt: skip

    @classmethod
    def restored(cls, state: Mapping[str, Any], marks: Mapping[str, Array], values: Array) -> Self:
        """The inverse of `state`, with the kept rows. Raises ValueError, TypeError or LookupError on what is none."""
        self = cls()
        self.count, self.level, self._follows = int(state["count"]), int(state["level"]), bool(state["follows"])
        self.columns = tuple((str(statistic), str(name)) for statistic, name in state["columns"])
        self._seen = np.array([weight is not None for weight in state["weights"]], bool)
        self._weights = np.array([weight or 1.0 for weight in state["weights"]], float)
        self._kinds = {int(present, 16): kind for kind, present in enumerate(state["kinds"])}
        self._ends[:] = state["ends"]
        self.marks, self.store = np.zeros(len(values), MARK), values
        with np.errstate(all="ignore"):
            for name, column in marks.items():
                self.marks[name] = column
        self.marks["draw"], self.marks["slot"] = _draw(self.marks["step"]), np.arange(len(values))
        if not self._sound():
            raise ValueError("these rows and this state do not belong together")
        self._arrange()
        return self

    def _sound(self) -> bool:
        index, ends = self.marks["index"], self._ends
        return bool(
            len(index) >= min(self.count, LEAST)
            and (np.diff(index, prepend=-1) > 0).all()
            and index[-1] == self.count - 1
            and 0 <= self.level < 63
            and len(self._seen) == len(self.columns) == len(set(self.columns)) == self.store.shape[1]
            and (np.isfinite(self._weights) & (self._weights > 0)).all()
            and ((self.marks["kind"] >= 0) & (self.marks["kind"] < self._most)).all()
            and ((ends >= -1) & (ends < self.count)).all()
            and len(self._kinds) < self._most
        )

    # Taking in

    def add(self, columns: tuple[Column, ...], steps: Array, values: Array, follow: Array | None = None) -> None:
        """Take in rows: `values` (n, columns) at `steps`. Those at the steps `follow`, ascending, are kept beside others."""
        self._follows |= follow is not None and len(follow) > 0
        if len(steps) and len(self.marks) and steps[0] <= self.marks["step"][-1]:
            self._go_back(int(steps[0]))
        at = 0
        while at < len(steps):
            end = min(at + self._until_weighing(), at + AT_ONCE, len(steps))
            at += self._take(columns, steps[at:end].astype(np.int64), values[at:end], follow)

    def _go_back(self, step: int) -> None:
        """Forget rows of later steps than `step`, where training goes on now; of their neighbours some may be gone before."""
        self.marks = self.marks[self.marks["step"] <= step]
        for kind in range(self._most):
            own = self.marks["index"][self.marks["kind"] == kind]
            self._ends[:, kind] = (own[0], own[-1]) if len(own) else -1
        self._arrange()

    def _in_place(self, columns: tuple[Column, ...], values: Array) -> Array:
        """`values` in the order of this frame's columns, which new ones join at the end."""
        if columns == self.columns:
            return values
        known = set(self.columns)
        if new := tuple(column for column in columns if column not in known):
            self._widen(new)
            if columns == self.columns:
                return values
        at = {column: i for i, column in enumerate(self.columns)}
        whole = np.full((len(values), len(self.columns)), np.nan)
        whole[:, [at[column] for column in columns]] = values
        return whole

    def _widen(self, new: tuple[Column, ...]) -> None:
        self.columns += new
        self.store = np.hstack([self.store, np.full((len(self.store), len(new)), np.nan)])
        self._weights = np.concatenate([self._weights, np.ones(len(new))])
        self._seen = np.concatenate([self._seen, np.zeros(len(new), bool)])
        self._arrange()

    def _arrange(self) -> None:
        """Find the columns that count what was not finite, and the extremes so far, which are among what is kept."""
        self._counting = [i for i, (statistic, _) in enumerate(self.columns) if statistic in BROKEN]
        self._extremes = Extremes(_groups(self.columns, self._seen, self.rows // 20))
        if len(self.marks):
            self._extremes.add(Piece(self.store[self.marks["slot"]]), self.marks["index"])

    def _take(self, columns: tuple[Column, ...], steps: Array, values: Array, follow: Array | None) -> int:
        """Take in rows up to the first with a column that has held nothing before, that one if it comes first; how many."""
        new = np.zeros(len(steps), MARK)
        new["index"], new["step"], new["slot"], new["chosen"] = self.count + np.arange(len(new)), steps, -1, True
        new["draw"] = _draw(steps)
        few = max(1, PIECE // (8 + 8 * len(columns)))
        for at in range(0, len(new), few):
            piece, marks = Piece(self._in_place(columns, values[at : at + few])), new[at : at + few]
            if len(met := self._met(piece)) and at:
                new = new[:at]
                break
            self._meet(piece, met)
            marks["kind"], marks["size"] = self._deal(piece), piece.sizes(self._weights)
            self._extremes.add(piece, marks["index"])
        if follow is not None:
            self.marks["followed"], new["followed"] = (_among(m["step"], follow) for m in (self.marks, new))
        self.count += len(new)
        self._note_ends(new)
        self._keep(new, columns, values)
        if self.count >= self._first_weighing and self.count.bit_count() == 1:
            self._weigh()
        return len(new)

    def _met(self, piece: Piece) -> Array:
        """The columns that hold their first value here."""
        return np.flatnonzero(~self._seen & ~np.isnan(piece.high)) if not self._seen.all() else np.empty(0, np.intp)

    def _meet(self, piece: Piece, met: Array) -> None:
        """Weigh the columns `met` by the first value that they hold."""
        if len(met):
            first = piece.values[np.argmax(piece.present[:, met], axis=0), met]
            self._weights[met] = _weights(first[None])
            self._seen[met] = True
            self._arrange()

    def _deal(self, piece: Piece) -> Array:
        """The kind of each row: the last for those that are not finite, else by which values are there."""
        broken = piece.infinite
        if self._counting:
            broken = broken | (piece.values[:, self._counting] > 0).any(axis=1)
        return np.where(broken, self._most - 1, self._patterns(piece))

    def _patterns(self, piece: Piece) -> Array:
        if piece.uniform:
            return np.full(len(piece.values), self._kind(piece.present[0]))
        packed = np.packbits(piece.present, axis=1)
        _, at, dealt = np.unique(packed.view((np.void, packed.shape[1]))[:, 0], return_index=True, return_inverse=True)
        named = np.empty(len(at), np.int64)
        for i in np.argsort(at):  # in the order of their first rows
            named[i] = self._kind(piece.present[at[i]])
        return np.asarray(named[dealt])

    def _kind(self, present: Mask) -> int:
        key = int.from_bytes(np.packbits(present, bitorder="little").tobytes(), "little")
        if key not in self._kinds and len(self._kinds) < self._most - 1:
            self._kinds[key] = len(self._kinds)
        return self._kinds.get(key, self._most - 2)

    @property
    def _most(self) -> int:
        return int(self._ends.shape[1])

    def _note_ends(self, new: Array) -> None:
        """Remember the first and the last row of each kind."""
        for kind in np.flatnonzero(np.bincount(new["kind"])):
            own = new["index"][new["kind"] == kind]
            self._ends[:, kind] = own[0] if self._ends[0, kind] < 0 else self._ends[0, kind], own[-1]

    # Weighing

    @property
    def _first_weighing(self) -> int:
        """A number of rows that are all kept."""
        return 1 << (self.rows.bit_length() - 2)

    def _until_weighing(self) -> int:
        return max(self._first_weighing, 1 << self.count.bit_length()) - self.count

    def _weigh(self) -> None:
        """Weigh the columns anew, by the later half of what is kept."""
        kept = self.marks[self.marks["chosen"]]
        late = self.store[kept["slot"][kept["index"] >= self.count // 2]]
        self._weights = np.where(self._seen, _weights(late), 1.0)
        if self.count == self._first_weighing:
            self.marks["size"] = Piece(self.store[self.marks["slot"]]).sizes(self._weights)

    # Keeping

    @property
    def _most_chosen(self) -> int:
        beside = self.rows // 3 if self._follows else 0
        return max(3, self.rows - self.rows // 10 - self._head - 2 * self._most - beside)

    @property
    def _head(self) -> int:
        return min(HEAD, self.rows // 10)

    def _keep(self, new: Array, columns: tuple[Column, ...], values: Array) -> None:
        """Keep of the marked rows and the `new` ones, whose values are `values`, what stands for all."""
        marks = np.concatenate([self.marks, new])
        wide = self.level + WIDER
        self._choose(marks[int(np.searchsorted(self.marks["index"], new["index"][0] >> wide << wide)) :])
        while self.count > self.rows and self._too_many(marks):
            self.level += 1
            self._choose(marks)
        self._settle(marks[self._own(marks) | marks["followed"]], columns, values[: len(new)])

    def _own(self, marks: Array) -> Mask:
        """Which rows are kept for their own sake."""
        if self.count <= self.rows:
            return np.ones(len(marks), bool)
        special = np.concatenate([self._ends.ravel(), self._extremes.at])
        return np.asarray(marks["chosen"] | (marks["index"] < self._head) | np.isin(marks["index"], special))

    def _too_many(self, marks: Array) -> bool:
        """Whether more rows may be chosen than there is room for; once so it stays so, unlike their number, as rows come in."""
        drawn = int(np.count_nonzero(marks["anchor"]))
        if drawn + 2 * min(drawn, self._most * (1 + (self.count >> self.level + WIDER))) <= self._most_chosen:
            return False
        wide = self._pile(marks[marks["anchor"]], self.level + WIDER)
        return bool(drawn + 2 * len(np.unique(wide)) > self._most_chosen)

    def _pile(self, marks: Array, level: int) -> Array:
        return np.asarray((marks["index"] >> level) * self._most + marks["kind"])

    def _choose(self, marks: Array) -> None:
        """Of the chosen rows, choose the drawn one of each pile, and the smallest and the largest of each wider one."""
        among = np.flatnonzero(marks["chosen"])
        marks["chosen"] = marks["anchor"] = False
        near, wide = (self._pile(marks[among], level) for level in (self.level, self.level + WIDER))
        marks["anchor"][_best(among, near, marks["draw"], np.minimum)] = True
        for best in (np.minimum, np.maximum):
            marks["chosen"][_best(among, wide, marks["size"], best)] = True
        marks["chosen"] |= marks["anchor"]

    def _settle(self, marks: Array, columns: tuple[Column, ...], values: Array) -> None:
        """Make `marks` the kept rows, and copy the values of the new among them."""
        new = marks["slot"] < 0
        if len(marks) > len(self.store):
            room = np.full((max(len(marks), min(2 * len(marks), self.rows)), len(self.columns)), np.nan)
            room[: len(self.store)] = self.store
            self.store = room
        free = np.ones(len(self.store), bool)
        free[marks["slot"][~new]] = False
        slots = np.flatnonzero(free)[: np.count_nonzero(new)]
        self.store[slots] = self._in_place(columns, values[marks["index"][new] - (self.count - len(values))])
        marks["slot"][new] = slots
        self.marks = marks

    # Giving out

    @property
    def anchors(self) -> Array:
        """The steps of the drawn rows."""
        return np.asarray(self.marks["step"][self.marks["anchor"]])

    def table(self) -> Table:
        """What stands for all rows."""
        own, draw = self._own(self.marks), self.marks["draw"]
        beside = np.flatnonzero(~own)[np.argsort(draw[~own], kind="stable")][: self.rows - np.count_nonzero(own)]
        own[beside] = True
        marks = self.marks[own]
        steps, values = marks["step"].copy(), self.store[marks["slot"]]
        twice = np.flatnonzero(np.diff(steps) == 0)  # a step that was gone on with
        for at in twice:
            values[at + 1] = np.where(np.isnan(values[at + 1]), values[at], values[at + 1])
        return Table(self.columns, np.delete(steps, twice), np.delete(values, twice, axis=0) if len(twice) else values)


@dataclass(frozen=True)
class Piece:
    """Rows that are looked through at once: `values` (n, columns), with n of 1 or more."""

    values: Array

    @cached_property
    def present(self) -> Mask:
        """Which values are there."""
        return ~np.isnan(self.values)

    @cached_property
    def uniform(self) -> bool:
        """Whether the same values are there in all rows."""
        return bool((self.present == self.present[0]).all())

    @cached_property
    def high(self) -> Array:
        """The largest value of each column; NaN where there is none."""
        return np.asarray((np.maximum if self.uniform else np.fmax).reduce(self.values, axis=0))

    @cached_property
    def low(self) -> Array:
        """The smallest value of each column; NaN where there is none."""
        return np.asarray((np.minimum if self.uniform else np.fmin).reduce(self.values, axis=0))

    @cached_property
    def infinite(self) -> Mask:
        """Which rows hold an infinite value."""
        if not np.isinf(self.high).any() and not np.isinf(self.low).any():
            return np.zeros(len(self.values), bool)
        return np.asarray(np.isinf(self.values).any(axis=1))

    @property
    def finite(self) -> Piece:
        """This without infinite values; not remembered, for it may be this itself, which would then never be freed at once."""
        return Piece(np.where(np.isinf(self.values), np.nan, self.values)) if self.infinite.any() else self

    def sizes(self, weights: Array) -> Array:
        """Sum of squares of each row, of columns by their weights."""
        squares = self.values * self.values
        squares *= weights
        if self.uniform:
            squares[:, ~self.present[0]] = 0
        else:
            squares[~self.present] = 0
        return np.asarray(squares.sum(axis=1))


class Extremes:
    """The rows with the smallest and the largest finite value of every group of columns; `groups` says whose each is."""

    def __init__(self, groups: Array) -> None:
        self._groups = groups
        self._best = np.full((2, int(groups.max(initial=-1)) + 1), -np.inf)
        self._at = np.full(self._best.shape, -1)

    def copy(self) -> Extremes:
        """One that goes on by itself."""
        other = Extremes(self._groups)
        other._best, other._at = self._best.copy(), self._at.copy()
        return other

    @property
    def at(self) -> Array:
        """The numbers of these rows; −1 where there is none."""
        return self._at.ravel()

    def add(self, piece: Piece, index: Array) -> None:
        """Take in the rows number `index`, later than all before."""
        piece = piece.finite if self._best.size else piece
        for side, sign, best in ((0, -1.0, piece.low), (1, 1.0, piece.high)):
            better = np.flatnonzero(sign * best > np.append(self._best[side], np.inf)[self._groups])
            groups, values = self._groups[better], sign * best[better]
            rows = np.argmax(piece.values[:, better] == best[better], axis=0)
            order = np.lexsort((rows, -values, groups))  # the best of a group comes first, of equals the first
            found, at = np.unique(groups[order], return_index=True)
            self._best[side, found], self._at[side, found] = values[order[at]], index[rows[order[at]]]


class Thinning:
    """The rows that stand for a whole run, frame by frame."""

    def __init__(self, rows: int = ROWS) -> None:
        self._rows = rows
        self._of: dict[str, Thinner] = {}
        self._waiting: list[dict[str, list[Block]]] = []
        self._bytes = 0

    @property
    def of(self) -> dict[str, Thinner]:
        """The thinner of each frame, which has taken in all rows."""
        self._take_in()
        return self._of

    def copy(self) -> Thinning:
        """One that goes on by itself."""
        other = Thinning(self._rows)
        other._of = {frame: thinner.copy() for frame, thinner in self.of.items()}
        return other

    def add(self, rows: Mapping[str, Iterable[Block]]) -> None:
        """Take in the next rows of every frame, up to the same step; they are gone through many at a time."""
        new = {frame: [block for block in blocks if len(block[1])] for frame, blocks in rows.items()}
        self._waiting.append(new)
        self._bytes += sum(block.nbytes for blocks in new.values() for _, block in blocks)
        if self._bytes > BATCH:
            self._take_in()

    def _take_in(self) -> None:
        """Take in what waits."""
        waiting, self._waiting, self._bytes = self._waiting, [], 0
        blocks: dict[str, list[Block]] = {}
        for rows in waiting:
            for frame, parts in rows.items():
                blocks.setdefault(frame, []).extend(parts)
        for frame in in_turn(blocks):
            for columns, block in stacked(blocks[frame]):
                self.take(frame, columns, block[:, 0], block[:, 1:])

    def take(self, frame: str, columns: tuple[Column, ...], steps: Array, values: Array) -> None:
        """Take in the next rows of one frame, after those that frames in `FOLLOWING` are read beside."""
        thinner = self._of.setdefault(frame, Thinner(self._rows))
        with np.errstate(all="ignore"):
            thinner.add(columns, steps, values, self.anchors if frame in FOLLOWING else None)

    def read(self, frame: str, blocks: Iterable[Block], start: int = 0) -> None:
        """Take in the rows of one frame from number `start`, of each block up to the first that is damaged."""
        for columns, rows in blocks:
            last = -1.0
            for piece in pieces(rows, min(start, len(rows)), BATCH):
                count, last = sound(piece[:, 0], last), piece[-1, 0]
                self.take(frame, columns, piece[:count, 0], piece[:count, 1:])
                if count < len(piece):
                    break
            start = max(0, start - len(rows))

    def read_all(self, blocks: Mapping[str, Sequence[Block]]) -> None:
        """Take in all rows of `blocks` that come after those it has; frames that are not read beside others at the same time."""
        seen = {frame: thinner.count for frame, thinner in self.of.items()}
        with ThreadPoolExecutor() as threads:
            list(
                threads.map(
                    lambda f: self.read(f, blocks[f], seen.get(f, 0)), [f for f in blocks if f not in FOLLOWING]
                )
            )
        for frame in FOLLOWING:
            self.read(frame, blocks.get(frame, ()), seen.get(frame, 0))

    @property
    def anchors(self) -> Array:
        """Steps of rows that others are to be read beside, ascending."""
        steps = [thinner.anchors for frame, thinner in self._of.items() if frame not in (*FOLLOWING, *APART)]
        return np.sort(np.concatenate(steps)) if steps else np.empty(0, np.int64)

    def tables(self) -> dict[str, Table]:
        """What stands for each frame."""
        of = self.of
        return {frame: of[frame].table() for frame in FRAMES if frame in of}


def stacked(blocks: Sequence[Block]) -> Iterator[Block]:
    """`blocks`, neighbours of the same columns joined as far as their steps ascend."""
    alike: list[Block] = []
    for columns, rows in blocks:
        if alike and (alike[-1][0] != columns or rows[0, 0] <= alike[-1][1][-1, 0]):
            yield alike[0][0], np.concatenate([part for _, part in alike])
            alike = []
        alike.append((columns, rows))
    if alike:
        yield alike[0][0], np.concatenate([part for _, part in alike])


def in_turn(frames: Iterable[str]) -> list[str]:
    """`frames` in the order in which they are to be thinned."""
    return sorted(frames, key=lambda frame: frame in FOLLOWING)


def thin(tables: Mapping[str, Table], rows: int = ROWS) -> dict[str, Table]:
    """What stands for `tables`, at most `rows` rows each."""
    thinning = Thinning(rows)
    for frame in in_turn(tables):
        table = tables[frame]
        if isinstance(table, Blocks):
            thinning.read(frame, table.blocks)
        else:
            thinning.take(frame, table.columns, table.steps, table.values)
    return thinning.tables()


def _groups(columns: tuple[Column, ...], seen: Mask, most: int) -> Array:
    """The group of each column: one of its own, with its statistic if these are more than `most`; −1 for none."""
    names: list[object] = list(columns) if np.count_nonzero(seen) <= most else [statistic for statistic, _ in columns]
    numbers: dict[object, int] = {}
    for name, held in zip(names, seen, strict=True):
        if held and len(numbers) < most:
            numbers.setdefault(name, len(numbers))
    return np.array([numbers.get(name, -1) if held else -1 for name, held in zip(names, seen, strict=True)], np.int64)


def _weights(values: Array) -> Array:
    """1 over the squared median magnitude of each column; 1 where that is zero or unknown."""
    ordered = np.sort(np.abs(values).T, axis=1)  # NaN last
    middle = np.maximum(np.count_nonzero(~np.isnan(ordered), axis=1) - 1, 0) // 2
    typical = ordered[np.arange(len(ordered)), middle]
    return np.where(np.isfinite(typical) & (typical > 0), np.clip(typical, 1e-150, 1e150), 1.0) ** -2.0


def _draw(steps: Array) -> Array:
    """A number for each step, as good as drawn: the finalizer of SplitMix64 (Steele, Lea & Flood 2014)."""
    x = steps.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)))


def _among(steps: Array, ascending: Array) -> Mask:
    """Which of `steps` are in `ascending`."""
    if not len(ascending):
        return np.zeros(len(steps), bool)
    at = np.minimum(np.searchsorted(ascending, steps), len(ascending) - 1)
    return np.asarray(ascending[at] == steps)


def _best(among: Array, pile: Array, what: Array, best: np.ufunc) -> Array:
    """Of the rows `among`, which are of these piles, the best of each in `what`, the first of equals."""
    order = np.argsort(pile, kind="stable")
    among, begins = among[order], _changes(pile[order])
    own, number = what[among], np.cumsum(begins) - 1
    hits = np.flatnonzero(own == best.reduceat(own, np.flatnonzero(begins))[number])
    return np.asarray(among[hits[_changes(number[hits])]])


def _changes(sorted_keys: Array) -> Mask:
    """Where a new key begins."""
    return np.append(True, sorted_keys[1:] != sorted_keys[:-1])[: len(sorted_keys)]
