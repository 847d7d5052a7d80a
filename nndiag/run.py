"""Run: the frozen record of one training run, as pandas frames; and how a run folder is opened."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, reduce
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nndiag import stored
from nndiag.errors import RunError, UnknownName
from nndiag.frames import FRAMES
from nndiag.meta import Meta
from nndiag.statistics import Array
from nndiag.table import KEPT, Column, Table

LEVELS = {"activations": "layer", "gradients": "parameter", "updates": "parameter", "metrics": "split", "data": "part",
          "outputs": "part", "histograms": "tensor"}  # fmt: skip
"""What the second column level of each frame names; the first is the statistic."""

COPIED = 1_000_000
"""Values up to which a frame is a copy of its own; a larger one shares the memory of its table, and is read-only."""


@dataclass(frozen=True, repr=False)
class Run:
    """The frames and metadata of one training run.

    Every frame has the index `step` and columns (statistic, layer), (statistic, parameter) or the like, so that
    `run.activations["variance"]` is a step × layer frame. A frame that was not recorded is empty.
    """

    meta: Meta = field(default_factory=Meta)
    tables: Mapping[str, Table] = field(default_factory=dict)
    path: Path | None = None

    def __repr__(self) -> str:
        return f"<Run {self.meta.name}: {self.steps} steps, {self.meta.ended}; {', '.join(self.tables) or 'no frames'}>"

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

    def frame(self, name: str) -> pd.DataFrame:
        """The frame called `name`. Raises UnknownName if there is none such."""
        table = self._table(name)
        order = self._order(name, table.columns)
        if name == "losses":
            return _losses(table)
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
        whole: pd.DataFrame = getattr(self, frame)
        if frame == "losses":
            return whole[[statistic]].astype(float).dropna(how="all")
        if statistic not in whole.columns.get_level_values(0):
            return pd.DataFrame(index=pd.Index([], name="step", dtype="int64"))
        return pd.DataFrame(whole[statistic]).dropna(how="all")

    def series(self, frame: str, statistic: str, name: str) -> pd.Series[float]:
        """One column without missing values; empty if not recorded."""
        values = self.statistic(frame, statistic)
        return values[name].dropna() if name in values else pd.Series(dtype=float, index=values.index[:0])

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
        trained = [int(table.steps[-1]) + 1 for name, table in self.tables.items()
                   if len(table) and name not in ("losses", "metrics")]  # fmt: skip
        trained += [int(self.train.index[-1]) + 1] if len(self.train) else []
        return max([*trained, int(self.validation.index[-1]) if len(self.validation) else 0])

    @property
    def reads(self) -> int:
        """Number of steps of which more than losses and metrics was recorded; of a run with curves only, of those."""
        whole = [len(table) for name, table in self.tables.items() if name not in ("losses", "metrics")]
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
        levels = ("split",) if name == "losses" else ("statistic", LEVELS[name])
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
        with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            for number, part in enumerate(self.tidied(name)):
                part.to_csv(file, index=False, header=number == 0)

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
        tables = {name: _until(table, steps, name in ("losses", "metrics")) for name, table in self.tables.items()}
        broken = self.meta.first_nonfinite
        known = broken if broken is not None and int(broken["step"]) < steps else None
        return Run(replace(self.meta, ended="running", first_nonfinite=known), tables, self.path)

    def thinned(self, rows: int = 2000) -> Run:
        """This run with at most `rows` rows a frame, evenly spread over its length; all of them while they are fewer.

        A third of the rows are of steps that all long frames have, evenly spaced, so that frames can be read together. The
        others are, of every bucket of steps, those whose values are smallest and largest (root mean square, each column over
        its typical magnitude), so that spikes and rows with counts of non-finite values survive.
        """
        long = [table.steps for table in self.tables.values() if len(table) > rows]
        shared = reduce(np.intersect1d, long) if long else np.empty(0, np.int64)
        anchors = shared[np.unique(np.linspace(0, len(shared) - 1, rows // 3).astype(int))] if len(shared) else shared
        return Run(self.meta, {name: _thin(table, rows, anchors) for name, table in self.tables.items()}, self.path)


def _framed(table: Table, columns: list[int]) -> pd.DataFrame:
    """These columns of `table`, named 0, 1, …"""
    index, values = pd.Index(table.steps, name="step"), table.values
    if values.size <= COPIED:
        return pd.DataFrame(values[:, columns], index, copy=False)
    if columns == list(range(values.shape[1])):
        return pd.DataFrame(values, index, copy=False)
    return pd.DataFrame({at: values[:, i] for at, i in enumerate(columns)}, index, copy=False)


def _losses(table: Table) -> pd.DataFrame:
    places = {statistic: i for i, (statistic, name) in enumerate(table.columns) if not name}
    held = [statistic for statistic in FRAMES["losses"] if statistic in places]
    frame = _framed(table, [places[statistic] for statistic in held]).set_axis(held, axis=1)
    frame = frame.reindex(columns=list(FRAMES["losses"]))
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
    last = int(np.searchsorted(table.steps, steps))
    if not evaluated or last == len(table) or table.steps[last] != steps:
        return Table(table.columns, table.steps[:last], table.values[:last])
    values = table.values[: last + 1].copy()
    values[-1, [column not in KEPT and column[1] != "validation" for column in table.columns]] = np.nan
    return Table(table.columns, table.steps[: last + 1], values)


def _thin(table: Table, rows: int, anchors: Array) -> Table:
    if len(table) <= rows:
        return table
    with np.errstate(all="ignore"):
        size = np.sqrt(np.nanmean(np.square(table.values / _typical(table.values)), axis=1))
    keep = {0, len(table) - 1, *np.searchsorted(table.steps, anchors).tolist()}
    for bucket in np.array_split(np.arange(len(table)), max(1, (rows - len(keep)) // 2)):
        ranked = bucket[np.argsort(size[bucket], kind="stable")]
        keep |= {int(ranked[0]), int(ranked[-1])}
    at = np.array(sorted(keep))[:rows]
    return Table(table.columns, table.steps[at], table.values[at])


def _typical(values: Array) -> Array:
    """Median magnitude of each column, 1 where that is zero or unknown."""
    with np.errstate(all="ignore"):
        typical = np.array([np.median(column[~np.isnan(column)]) if not np.isnan(column).all() else 1.0
                            for column in np.abs(values).T])  # fmt: skip
    return np.where(np.isfinite(typical) & (typical > 0), typical, 1.0)


def open_run(path: str | Path) -> Run:
    """The run in the folder that `nndiag.watch(..., run=path)` wrote, also while it is still being written.

    Raises RunError, with what is wrong and what to do, if the folder is missing, is no run or is damaged.
    """
    path = Path(path)
    found = stored.read(path)
    return Run(found.meta, found.tables, path)
