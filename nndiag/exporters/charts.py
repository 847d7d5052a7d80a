"""What TensorBoard is shown of a run: which columns get charts, under which tags, and with which words beside them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Self

import numpy as np

from nndiag.exporters.event_files import Histogram, Scalar, Sink
from nndiag.meta import Meta
from nndiag.plain import printable
from nndiag.recorder import Rows
from nndiag.statistics import Array
from nndiag.structure import RECTIFIERS
from nndiag.table import Column

CHARTS = {
    ("activations", "mean"): ("activation_mean", "Mean over batch and units."),
    ("activations", "variance"): ("activation_variance", "Variance over batch and units; a level line is healthy."),
    ("activations", "dead_fraction"): ("activation_dead", "Share of units silent on every recent input."),
    ("gradients", "norm"): ("grad_norm", "L2 norm of the gradient, before clipping."),
    ("updates", "ratio"): ("update_ratio", "Norm of the update over that of the weights; about 1e-3 is usual."),
}
"""(frame, statistic) → group of charts and what it shows."""

TOTAL, REPORT, FINDINGS = "nndiag/nonfinite_total", "nndiag/report", "nndiag/findings_"


class Chart(NamedTuple):
    """The chart of one column: its name before cleaning, unique among those of its kind, and the words beside it."""

    kind: str
    name: str
    help: str = ""


NONFINITE = Chart(
    "total",
    TOTAL,
    "Values that were NaN or infinite so far, in everything recorded. TensorBoard's sampling can hide single NaNs.",
)

SCALE = Chart(
    "loop", "loop/loss_scale", "Factor on the loss that the gradient scaler has chosen; it falls on overflow."
)


@dataclass(frozen=True)
class Layout:
    """Where layers and parameters stand among the charts."""

    places: Mapping[str, str | None] = field(default_factory=dict)
    """What stands before a name in a tag: the number of the layer; None where there is to be no chart."""

    never_dead: frozenset[str] = frozenset()

    @classmethod
    def of(cls, meta: Meta, most: int) -> Self:
        """Number the layers in forward order, zero-padded so that charts sort; parameters go with their layer."""
        names = [layer.name for layer in meta.layers]
        shown = set(np.linspace(0, len(names) - 1, min(most, len(names))).astype(int).tolist())
        width = max(2, len(str(len(names))))
        places = {name: f"{i + 1:0{width}d}_" if i in shown else None for i, name in enumerate(names)}
        places |= {p.name: places[p.layer] for p in meta.parameters if p.layer in places}
        never_dead = frozenset(layer.name for layer in meta.layers if layer.kind not in (*RECTIFIERS, "unknown"))
        return cls(places, never_dead)

    def place(self, name: str) -> str | None:
        """The place of `name`: none before it if the run does not describe it."""
        return self.places.get(name, "")

    def chart(self, frame: str, column: Column, split: str) -> Chart | None:
        """The chart of a column in the TensorBoard run `split`, if it has one there."""
        statistic, name = column
        if frame == "metrics":
            return Chart("metric", statistic) if name == split and statistic != "nonfinite" else None
        place = self.place(name)
        if (frame, statistic) not in CHARTS or place is None:
            return None
        if statistic == "dead_fraction" and name in self.never_dead:
            return None
        group, text = CHARTS[frame, statistic]
        code = printable(name).replace("`", "'")
        return Chart("chart", f"{group}/{place}{name}", f"`{code}`. {text}")


class Selection(NamedTuple):
    """The charts of one frame, and where their values stand in a row with these columns."""

    columns: tuple[Column, ...]
    at: Array
    charts: list[Chart]

    @classmethod
    def of(cls, layout: Layout, frame: str, columns: tuple[Column, ...], split: str) -> Self:
        """What `layout` shows of a frame in the TensorBoard run `split`."""
        charts = [layout.chart(frame, column, split) for column in columns]
        at = np.array([i for i, chart in enumerate(charts) if chart], np.intp)
        return cls(columns, at, [chart for chart in charts if chart])


class Charts:
    """Turns the rows of a run into the points of its charts, and sends them to `sink`."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._layout = Layout()
        self._selections: dict[tuple[str, str], Selection] = {}
        self._tags = Tags()
        self._begun: dict[Chart, str] = {}
        self._nonfinite = 0.0

    def write(self, step: int, time: float, rows: Rows, layout: Layout) -> None:
        """Send what was recorded of `step` at `time`: one event for training, one for validation if there was one."""
        if layout is not self._layout:
            self._layout, self._selections = layout, {}
        train = [
            *self._losses(rows),
            *self._scalars(rows, "metrics"),
            *self._nonfinite_total(rows),
            *self._loss_scale(rows),
        ]
        for frame in ("activations", "gradients", "updates"):
            train += self._scalars(rows, frame)
        self._sink.write("train", step, time, train, list(self._histograms(rows)))
        validation = [Scalar("loss", value) for value in _column(rows, "losses", ("validation", ""))]
        self._sink.write("validation", step, time, [*validation, *self._scalars(rows, "metrics", "validation")])

    def _losses(self, rows: Rows) -> list[Scalar]:
        """The training loss; NaN, which TensorBoard marks, where it was not a number rather than not taken."""
        losses = _column(rows, "losses", ("train", ""))
        if not losses and "losses" in rows and any(_column(rows, "metrics", ("nonfinite", "train"))):
            losses = [math.nan]
        return [Scalar("loss", loss) for loss in losses]

    def _nonfinite_total(self, rows: Rows) -> list[Scalar]:
        """Cumulative count: TensorBoard's sampling drops single NaN points, a level that rises stays visible."""
        counts = _column(rows, "metrics", ("nonfinite", "train"))
        self._nonfinite += sum(counts)
        return [self._scalar(NONFINITE, self._nonfinite)] if counts else []

    def _loss_scale(self, rows: Rows) -> list[Scalar]:
        """The scale of the loss, in runs in which it is not always 1."""
        scales = _column(rows, "loop", ("loss_scale", ""))
        return [self._scalar(SCALE, scale) for scale in scales if scale != 1 or SCALE in self._begun]

    def _scalars(self, rows: Rows, frame: str, split: str = "train") -> list[Scalar]:
        if frame not in rows:
            return []
        columns, row = rows[frame]
        selection = self._selections.get((frame, split))
        if selection is None or selection.columns != columns:
            selection = self._selections[frame, split] = Selection.of(self._layout, frame, columns, split)
        values = _floats(row[selection.at])
        return [self._scalar(*pair) for pair in zip(selection.charts, values, strict=True) if not math.isnan(pair[1])]

    def _scalar(self, chart: Chart, value: float) -> Scalar:
        """A point, with the words beside its chart if it is the first."""
        tag = self._begun.get(chart)
        if tag is not None:
            return Scalar(tag, value)
        tag = self._begun[chart] = self._tags.clean(chart.name, chart.kind)
        return Scalar(tag, value, chart.help)

    def _histograms(self, rows: Rows) -> Iterator[Histogram]:
        bins: dict[str, dict[str, float]] = {}
        for (statistic, tensor), value in _cells(rows, "histograms"):
            bins.setdefault(tensor, {})[statistic] = value
        for tensor, values in bins.items():
            group, slash, name = tensor.partition("/")
            if (place := self._layout.place(name)) is not None:
                tag = self._tags.clean(f"{group}{slash}{place}{name}", "histogram")
                yield Histogram(tag, values.pop("low"), values.pop("high"), list(values.values()))


class Tags:
    """Names as TensorBoard keeps them: other characters than letters, digits and -/._ become _, and no two become one."""

    def __init__(self) -> None:
        self._of = {(NONFINITE.kind, NONFINITE.name): TOTAL}
        self._taken = {"loss", TOTAL, f"{REPORT}/text_summary", f"{FINDINGS}fail", f"{FINDINGS}warn"}

    def clean(self, name: str, kind: str) -> str:
        """The tag of `name` among tags of its kind, the same at every call."""
        if (kind, name) not in self._of:
            tag = base = re.sub(r"[^-/\w.]", "_", name).lstrip("/")
            number = 1
            while tag in self._taken:
                number += 1
                tag = f"{base}_{number}"
            self._of[kind, name] = tag
            self._taken.add(tag)
        return self._of[kind, name]


def _cells(rows: Rows, frame: str) -> Iterator[tuple[Column, float]]:
    """Columns of one frame that hold a value at this step. NaN is "not recorded": what was not finite is counted apart."""
    columns, values = rows.get(frame, ((), np.empty(0)))
    return ((column, value) for column, value in zip(columns, _floats(values), strict=True) if not math.isnan(value))


def _floats(values: Array) -> list[float]:
    floats: list[float] = values.tolist()
    return floats


def _column(rows: Rows, frame: str, column: Column) -> list[float]:
    """The value of one column at this step, if it was recorded."""
    columns, values = rows.get(frame, ((), np.empty(0)))
    value = float(values[columns.index(column)]) if column in columns else math.nan
    return [] if math.isnan(value) else [value]
