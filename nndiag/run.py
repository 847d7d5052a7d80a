"""Run: the frozen record of one training run, as pandas frames; and how a run folder is opened."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from nndiag import kept, stored
from nndiag.errors import RunError, UnknownName
from nndiag.frames import FRAMES
from nndiag.meta import Meta
from nndiag.statistics import Array
from nndiag.table import KEPT, Column, Table
from nndiag.thinning import FOLLOWING, ROWS, thin

LEVELS = {"activations": "layer", "gradients": "parameter", "updates": "parameter", "metrics": "split",
          "evaluations": "part", "data": "part", "outputs": "part", "histograms": "tensor", "loop": "part"}  # fmt: skip
"""What the second column level of each frame names; the first is the statistic."""

FLAT = {"losses": "split", "loop": "statistic"}
"""Frames of one column level, which is always whole, and what it names in the long form."""

COPIED = 1_000_000
"""Values up to which a frame is a copy of its own; a larger one shares the memory of its table, and is read-only."""

SHARED = int(pd.__version__.split(".")[0]) < 3
"""Whether what is written to a shallow copy of a frame is written to the frame, as it was before pandas 3."""


@dataclass(frozen=True, repr=False)
class Run:
    """The frames and metadata of one training run.

    Every frame has the index `step` and columns (statistic, layer), (statistic, parameter) or the like, so that
    `run.activations["variance"]` is a step × layer frame; the columns of losses and loop are plain names. A frame that was
    not recorded is empty.
    """

    meta: Meta = field(default_factory=Meta)
    tables: Mapping[str, Table] = field(default_factory=dict)
    path: Path | None = None
    keep: Callable[[], Mapping[str, Table]] | None = field(default=None, compare=False)
    """Gives the thinned tables where they are kept, so that `thinned` need not go through all rows."""

    def __repr__(self) -> str:
        frames = [f"{name} ({said})" if (said := self._thinly(name)) else name for name in self.tables]
        return f"<Run {self.meta.name}: {self.steps} steps, {self.meta.ended}; {', '.join(frames) or 'no frames'}>"

    def __reduce__(self) -> tuple[Any, ...]:
        """What is pickled, as between processes, holds all rows and no file."""
        tables = {name: Table(table.columns, table.steps, table.values) for name, table in self.tables.items()}
        return Run, (self.meta, tables, self.path)

    def _thinly(self, name: str) -> str:
        """What a frame says of itself of whose past only a part is left."""
        return f"{len(self.tables[name]):,} of {self._recorded(name):,} rows" if name in self.meta.thinned else ""

    @cached_property
    def activations(self) -> pd.DataFrame:
        """What flowed through each layer, and δ (`gradient_rms`) back to its output."""
        return self.frame("activations")

    @cached_property
    def gradients(self) -> pd.DataFrame:
        """Gradient of each parameter, before clipping."""
        return self.frame("gradients")

    @cached_property
    def updates(self) -> pd.DataFrame:
        """What the optimiser did to each parameter."""
        return self.frame("updates")

    @cached_property
    def losses(self) -> pd.DataFrame:
        """Columns `epoch`, `train` and `validation`; NaN where not evaluated."""
        return self.frame("losses")

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """Columns (metric, split)."""
        return self.frame("metrics")

    @cached_property
    def evaluations(self) -> pd.DataFrame:
        """How the samples of evaluations compare with those of training, and what dropout did there (`nndiag.frames`).

        Columns (statistic, part): of the "validation" set, and of passes of which it is "unknown" whose samples they are.
        """
        return self.frame("evaluations")

    @cached_property
    def data(self) -> pd.DataFrame:
        """Scale of inputs and targets, and label counts, of each batch."""
        return self.frame("data")

    @cached_property
    def outputs(self) -> pd.DataFrame:
        """What went into the loss, of each batch."""
        return self.frame("outputs")

    @cached_property
    def histograms(self) -> pd.DataFrame:
        """Bounds `low`, `high` and counts of equal bins, for tensors such as `weights/hidden1.weight`."""
        return self.frame("histograms")

    @cached_property
    def loop(self) -> pd.DataFrame:
        """What the loop did in each iteration (`nndiag.frames.LOOP`) and in what mode it evaluated; NaN where not known."""
        return self.frame("loop")

    def frame(self, name: str) -> pd.DataFrame:
        """The frame called `name`. Raises UnknownName if there is none such."""
        frame = self._frame(name, self._table(name))
        if name in self.tables and (said := self._thinly(name)):
            frame.attrs["thinned"] = said
        return frame

    def _frame(self, name: str, table: Table) -> pd.DataFrame:
        order = self._order(name, table.columns)
        if name in FLAT:
            return _losses(table) if name == "losses" else _flat(table, name)
        frame = _framed(table, order)
        frame.columns = pd.MultiIndex.from_tuples([table.columns[i] for i in order], names=["statistic", LEVELS[name]])
        return frame

    def _table(self, name: str) -> Table:
        if name not in FRAMES:
            raise UnknownName(f"no frame {name!r}; there are {', '.join(FRAMES)}")
        return self.tables.get(name, Table((), np.empty(0, np.int64), np.empty((0, 0))))

    def _order(self, name: str, columns: tuple[Column, ...]) -> list[int]:
        """Statistics in the order of the schema, then layers or parameters in forward order."""
        known = {statistic: i for i, statistic in enumerate(FRAMES[name])}
        described = [
            *(layer.name for layer in self.meta.layers),
            *(parameter.name for parameter in self.meta.parameters),
        ]
        place = {item: i for i, item in enumerate(dict.fromkeys([*described, *(owner for _, owner in columns)]))}
        rank = {statistic: known.get(statistic, len(known)) for statistic, _ in columns}
        return sorted(range(len(columns)), key=lambda i: (rank[columns[i][0]], columns[i][0], place[columns[i][1]]))

    def statistic(self, frame: str, statistic: str) -> pd.DataFrame:
        """Step × layer (or parameter, …) frame of one statistic, without rows that hold nothing; empty if not recorded."""
        found = self._statistics.get((frame, statistic))
        if found is None:
            found = self._statistic(frame, statistic)
            if found.size <= COPIED:
                self._statistics[frame, statistic] = found
        return found.copy(deep=SHARED)

    @cached_property
    def _statistics(self) -> dict[tuple[str, str], pd.DataFrame]:
        """What `statistic` has given back, of which eighty checks ask the same again."""
        return {}

    def _statistic(self, frame: str, statistic: str) -> pd.DataFrame:
        whole: pd.DataFrame = getattr(self, frame)
        if frame in FLAT:
            return whole[[statistic]].astype(float).dropna(how="all")
        if statistic not in whole.columns.get_level_values(0):
            return pd.DataFrame(index=pd.Index([], name="step", dtype="int64"))
        return pd.DataFrame(whole[statistic]).dropna(how="all")

    def series(self, frame: str, statistic: str, name: str) -> pd.Series[float]:
        """One column without missing values; empty if not recorded."""
        values = self.statistic(frame, statistic)
        return values[name].dropna() if name in values else pd.Series(dtype=float, index=values.index[:0])

    def first(self, frame: str, statistic: str, name: str) -> float | None:
        """The first recorded value of one column; None without any."""
        series = self.series(frame, statistic, name)
        return float(series.iloc[0]) if len(series) else None

    def latest(self, frame: str, statistic: str, name: str) -> float | None:
        """The last recorded value of one column; None without any."""
        series = self.series(frame, statistic, name)
        return float(series.iloc[-1]) if len(series) else None

    @property
    def train(self) -> pd.Series[float]:
        """Training loss by step, where recorded and a number; `metrics["nonfinite"]` counts what was none."""
        return self.statistic("losses", "train")["train"]

    @property
    def validation(self) -> pd.Series[float]:
        """Validation loss by number of updates, where evaluated."""
        return self.statistic("losses", "validation")["validation"]

    @property
    def steps(self) -> int:
        """Number of updates that the record covers: a validation after the last one adds none."""
        read = [table.last + 1 for name, table in self.tables.items() if len(table) and name not in FOLLOWING]
        return max([0, *read, *self._updates])

    @property
    def _updates(self) -> tuple[int, ...]:
        """Updates done by the last training loss, NaN among them, and by the last validation: a row without one has the other."""
        losses = self.tables.get("losses")
        if losses is None or not {("train", ""), ("validation", "")}.issubset(losses.columns):
            return ()
        train, validation = (
            ~np.isnan(losses.values[:, losses.columns.index((name, ""))]) for name in ("train", "validation")
        )
        trained, validated = np.flatnonzero(train | ~validation), np.flatnonzero(validation)
        return (*(int(losses.steps[at]) + 1 for at in trained[-1:]), *(int(losses.steps[at]) for at in validated[-1:]))

    @property
    def reads(self) -> int:
        """Number of steps of which more than losses and metrics was recorded; of a run with curves only, of those."""
        whole = [self._recorded(name) for name in self.tables if name not in FOLLOWING]
        return max(whole, default=len(self.train))

    def epoch_of(self, steps: pd.Index[int]) -> pd.Series[int]:
        """The epoch of each of `steps`, from the losses frame."""
        epochs = self.losses["epoch"].dropna()
        epochs = epochs[~epochs.index.duplicated(keep="last")].sort_index()
        return epochs.reindex(steps, method="ffill")

    def tidy(self, name: str) -> pd.DataFrame:
        """Frame `name` in long form: one row for each value, with columns step, epoch, statistic, layer (or such), value."""
        long = next(self.tidied(name, cells=sys.maxsize))
        return long.astype({column: str for column in long if isinstance(long[column].dtype, pd.CategoricalDtype)})

    def tidied(self, name: str, cells: int = 2**20) -> Iterator[pd.DataFrame]:
        """The long form of frame `name` in parts, each of consecutive steps and of at most so many cells of the frame.

        Statistics, layers and the like are categories.
        """
        table = self._table(name)
        columns = [i for i in self._order(name, table.columns) if (name, table.columns[i]) != ("losses", ("epoch", ""))]
        chunks = table.chunks(max(1, cells // max(1, len(columns)))) if len(table) else iter([table])
        return (self._long(name, chunk, columns) for chunk in chunks)

    def _long(self, name: str, table: Table, columns: list[int]) -> pd.DataFrame:
        values = table.values[:, columns].T
        at, row = np.nonzero(~np.isnan(values))
        levels = (FLAT[name],) if name in FLAT else ("statistic", LEVELS[name])
        named = {level: _categories([table.columns[i][part] for i in columns], at) for part, level in enumerate(levels)}
        epochs = _whole(self.epoch_of(pd.Index(table.steps, dtype=np.int64)))
        return pd.DataFrame({"step": table.steps[row], "epoch": epochs[row], **named, "value": values[at, row]})

    def to_csv(self, folder: str | Path) -> list[Path]:
        """Write every recorded frame in long form to `folder`/NAME.csv, and give back the files. Raises RunError."""
        folder, files = Path(folder), []
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name in FRAMES:
                if len(self.tables.get(name, ())):
                    files.append(folder / f"{name}.csv")
                    self._to_csv(name, files[-1])
        except OSError as fault:
            raise RunError(f"cannot write to {folder}: {fault.strerror or fault}") from fault
        return files

    def _to_csv(self, name: str, path: Path) -> None:
        broken = any("\r" in part for column in self._table(name).columns for part in column)  # a line, to who reads it
        quoting: Literal[0, 2] = csv.QUOTE_NONNUMERIC if broken else csv.QUOTE_MINIMAL
        with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            for number, part in enumerate(self.tidied(name)):
                part.to_csv(file, index=False, header=number == 0, quoting=quoting)

    def rows(self) -> Iterator[tuple[int, dict[str, tuple[tuple[Column, ...], Array]]]]:
        """Every step with what each frame holds of it: columns and values."""
        places = {name: {int(step): i for i, step in enumerate(table.steps)} for name, table in self.tables.items()}
        for step in sorted({step for place in places.values() for step in place}):
            yield (
                step,
                {
                    name: (self.tables[name].columns, self.tables[name].values[place[step]])
                    for name, place in places.items()
                    if step in place
                },
            )

    def until(self, steps: int) -> Run:
        """This run as it was after `steps` updates, still running: rows of earlier steps, and the validation made then."""
        if steps >= self.steps:
            return self
        tables = {name: _until(table, steps, name in FOLLOWING) for name, table in self.tables.items()}
        broken = self.meta.broken_at
        known = self.meta.first_nonfinite if broken is not None and broken < steps else None
        recorded = {name: min(rows, steps) for name, rows in self.meta.thinned.items()}
        return Run(replace(self.meta, ended="running", first_nonfinite=known, thinned=recorded), tables, self.path)

    def of_its_loss(self) -> Run:
        """This run with those outputs alone that went into the loss which it says it has: another may have come before."""
        since, outputs = self.meta.loss_since, self.tables.get("outputs")
        if since is None or outputs is None:
            return self
        late = outputs.take(np.flatnonzero(outputs.steps >= since))
        return replace(self, tables={**self.tables, "outputs": late})

    def thinned(self, rows: int = ROWS) -> Run:
        """This run with at most `rows` rows a frame, spread over its length; all of them while they are fewer.

        Of every stretch of a long frame these are the rows whose values are smallest and largest and one drawn by its step, so
        that frames can be read together; the first rows, exact extremes, and rows that hold what few do, such as a validation
        loss or a count of non-finite values, are kept besides (`nndiag.thinning.Thinner`). It is worked out once.
        """
        if all(self._recorded(name) <= rows for name in self.tables):
            return self
        return self._thinned if rows == ROWS else self._of(thin(self.tables, rows), rows)

    @cached_property
    def _thinned(self) -> Run:
        return self._of(self.keep() if self.keep else thin(self.tables), ROWS)

    def _of(self, thinned: Mapping[str, Table], rows: int) -> Run:
        """This run with its long frames replaced."""
        tables = {n: table if self._recorded(n) <= rows else thinned[n] for n, table in self.tables.items()}
        return Run(self.meta, tables, self.path)

    def _recorded(self, name: str) -> int:
        """Number of rows that were recorded of a frame, whether they are all still there or not."""
        return max(int(self.meta.thinned.get(name, 0)), len(self.tables[name]))


def _framed(table: Table, columns: list[int]) -> pd.DataFrame:
    """These columns of `table`, named 0, 1, …"""
    index, values = pd.Index(table.steps, name="step"), table.values
    if values.size <= COPIED:
        return pd.DataFrame(values[:, columns], index, copy=False)
    if columns == list(range(values.shape[1])):
        return pd.DataFrame(values, index, copy=False)
    return pd.DataFrame({at: values[:, i] for at, i in enumerate(columns)}, index, copy=False)


def _flat(table: Table, name: str) -> pd.DataFrame:
    """Every statistic of frame `name`, NaN where it was not recorded."""
    places = {statistic: i for i, (statistic, of) in enumerate(table.columns) if not of}
    held = [statistic for statistic in FRAMES[name] if statistic in places]
    frame = _framed(table, [places[statistic] for statistic in held]).set_axis(held, axis=1)
    return frame.reindex(columns=list(FRAMES[name]))


def _losses(table: Table) -> pd.DataFrame:
    frame = _flat(table, "losses")
    epochs = frame["epoch"].to_numpy(float)
    with np.errstate(invalid="ignore"):
        whole = epochs.astype(np.int64)
    return frame.assign(epoch=whole) if (whole == epochs).all() else frame


def _whole(numbers: pd.Series[Any]) -> Any:
    """`numbers` as whole ones, with gaps where they are none."""
    values = numbers.to_numpy(float)
    missing = ~((np.abs(values) < 2**53) & (np.floor(values) == values))
    return pd.arrays.IntegerArray(np.where(missing, 0, values).astype(np.int64), missing)


def _categories(names: list[str], at: Array) -> Any:
    """The names at those places of the list."""
    codes, known = pd.factorize(np.array(names, dtype=object))
    return pd.Categorical.from_codes(codes[at], pd.Index(known, dtype=object))


def _until(table: Table, steps: int, evaluated: bool) -> Table:
    """The rows before `steps`; where evaluations are kept, also what is of validation in the row of that many updates."""
    earlier = table.before(steps)
    last = len(earlier)
    if not evaluated or last == len(table) or table.steps[last] != steps:
        return earlier
    values = table.values[: last + 1].copy()
    values[-1, [column not in KEPT and column[1] != "validation" for column in table.columns]] = np.nan
    told = [column != ("epoch", "") for column in table.columns]
    if np.isnan(values[-1, told]).all():
        return earlier
    return Table(table.columns, table.steps[: last + 1], values)


def open_run(path: str | Path) -> Run:
    """The run in the folder that `nndiag.watch(..., run=path)` wrote, also while it is still being written.

    Raises RunError, with what is wrong and what to do, if the folder is missing, is no run or is damaged.
    """
    path = stored.folder(path)
    found = stored.read(path)
    return Run(found.meta, found.tables, path, lambda: kept.thinned(path, found.blocks).tables())
