"""The TensorBoard exporter: losses, activations, gradients, updates, histograms and the checklist's report."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nndiag.errors import RunError
from nndiag.exporters.event_files import EventFiles, Histogram, Scalar, Sink, UsersWriter
from nndiag.meta import Meta
from nndiag.recorder import Rows
from nndiag.report import Report
from nndiag.statistics import Array
from nndiag.table import Column

log = logging.getLogger("nndiag")

CHARTS = {
    ("activations", "mean"): ("activation_mean", "Mean over batch and units."),
    ("activations", "variance"): ("activation_variance", "Variance over batch and units; a level line is healthy."),
    ("activations", "dead_fraction"): ("activation_dead", "Share of units silent on every recent input."),
    ("gradients", "norm"): ("grad_norm", "L2 norm of the gradient, before clipping."),
    ("updates", "ratio"): ("update_ratio", "Norm of the update over that of the weights; about 1e-3 is usual."),
}
"""(frame, statistic) → group of charts and what it shows."""

LAYERS = 40
"""Layers with charts of their own: with five groups that keeps a run near the 300 tags that TensorBoard lists fast."""


class TensorBoard:
    """Shows a run in TensorBoard.

    `target` is a log directory, also one with other people's events in it, or a SummaryWriter (tensorboardX's or
    PyTorch's). Below a directory there are two TensorBoard runs, `train` and `validation`, whose `loss` shares a chart.
    Of more than `layers` layers, evenly spaced ones get charts. Raises RunError if the directory cannot be made.
    """

    def __init__(self, target: str | Path | Any, *, layers: int = LAYERS) -> None:
        self._sink = _sink(target)
        self._layers = layers
        self._tags = Tags()
        self._shown: dict[str, int] = {}
        self._explained: set[str] = set()
        self._nonfinite = 0.0

    def describe(self, meta: Meta) -> None:
        """Number the layers in forward order; parameters go with their layer."""
        names = [layer.name for layer in meta.layers]
        chosen = np.unique(np.linspace(0, len(names) - 1, min(self._layers, len(names))).astype(int)) if names else []
        if len(chosen) < len(names):
            log.warning("TensorBoard gets charts of %d of the %d layers; the run holds all", len(chosen), len(names))
        self._shown = {names[i]: int(i) for i in chosen}
        self._shown |= {p.name: self._shown[p.layer] for p in meta.parameters if p.layer in self._shown}
        self._described = bool(names)
        self._width = max(2, len(str(len(names))))

    def write(self, step: int, rows: Rows) -> None:
        """Send what was recorded of `step`: one event for training, one for validation if there was one."""
        train = [*self._losses(rows), *self._metrics(rows, "train"), *self._nonfinite_total(rows), *self._charts(rows)]
        self._sink.write("train", step, train, list(self._histograms(rows)))
        validation = [Scalar("loss", value) for value in _column(rows, "losses", ("validation", ""))]
        self._sink.write("validation", step, [*validation, *self._metrics(rows, "validation")])

    def report(self, report: Report, step: int) -> None:
        """Put the report into the Text tab as `nndiag/report`, and the number of findings into charts."""
        self._sink.text("nndiag/report", report.to_markdown(), step)
        counts = [Scalar(f"nndiag/findings_{verdict}", report.counts[verdict]) for verdict in ("fail", "warn")]
        self._sink.write("train", step, counts)
        self.flush()

    def flush(self) -> None:
        """Make everything so far visible to TensorBoard."""
        self._sink.flush()

    def close(self) -> None:
        """Flush and close the files; a SummaryWriter stays open for its owner."""
        self._sink.close()

    def _losses(self, rows: Rows) -> list[Scalar]:
        """The training loss; NaN, which TensorBoard marks, where it was not a number rather than not taken."""
        nonfinite = any(value > 0 for value in _column(rows, "metrics", ("nonfinite", "train")))
        missing = [math.nan] if nonfinite and "losses" in rows else []
        return [Scalar("loss", value) for value in _column(rows, "losses", ("train", "")) or missing]

    def _metrics(self, rows: Rows, split: str) -> list[Scalar]:
        return [
            Scalar(self._tags.clean(name), value)
            for (name, owner), value in _cells(rows, "metrics")
            if owner == split and name != "nonfinite"
        ]

    def _nonfinite_total(self, rows: Rows) -> list[Scalar]:
        """Cumulative count: TensorBoard's sampling drops single NaN points, a level that rises stays visible."""
        for value in _column(rows, "metrics", ("nonfinite", "train")):
            self._nonfinite += value
            return [Scalar("nndiag/nonfinite_total", self._nonfinite, self._help("nndiag/nonfinite_total", NONFINITE))]
        return []

    def _charts(self, rows: Rows) -> Iterator[Scalar]:
        for frame in ("activations", "gradients", "updates"):
            for (statistic, name), value in _cells(rows, frame):
                if (frame, statistic) in CHARTS and (number := self._number(name)) is not None:
                    group, text = CHARTS[frame, statistic]
                    tag = self._tags.clean(f"{group}/{number}{name}")
                    yield Scalar(tag, value, self._help(tag, f"`{name}`. {text}"))

    def _histograms(self, rows: Rows) -> Iterator[Histogram]:
        bins: dict[str, dict[str, float]] = {}
        for (statistic, tensor), value in _cells(rows, "histograms"):
            bins.setdefault(tensor, {})[statistic] = value
        for tensor, values in bins.items():
            group, _, name = tensor.partition("/")
            if (number := self._number(name)) is not None:
                low, high = values.pop("low"), values.pop("high")
                yield Histogram(self._tags.clean(f"{group}/{number}{name}"), low, high, list(values.values()))

    def _number(self, name: str) -> str | None:
        """Zero-padded place of a layer or parameter in forward order, so that charts sort; None if it has no charts."""
        if name in self._shown:
            return f"{self._shown[name] + 1:0{self._width}d}_"
        return None if self._described else ""

    def _help(self, tag: str, text: str) -> str:
        if tag in self._explained:
            return ""
        self._explained.add(tag)
        return text


NONFINITE = (
    "Values that were NaN or infinite so far, in everything recorded. TensorBoard's sampling can hide single NaNs."
)


class Tags:
    """Names as TensorBoard keeps them: other characters than letters, digits and -/._ become _, and no two become one."""

    def __init__(self) -> None:
        self._of: dict[str, str] = {}
        self._taken: set[str] = set()

    def clean(self, name: str) -> str:
        """The tag of `name`, the same at every call."""
        if name not in self._of:
            tag = base = re.sub(r"[^-/\w.]", "_", name)
            number = 1
            while tag in self._taken:
                number += 1
                tag = f"{base}_{number}"
            self._of[name] = tag
            self._taken.add(tag)
        return self._of[name]


def _sink(target: Any) -> Sink:
    if hasattr(target, "add_scalar"):
        return UsersWriter(target)
    if not isinstance(target, str | Path):
        raise TypeError(f"TensorBoard() wants a log directory or a SummaryWriter, got {type(target).__name__}")
    try:
        return EventFiles(Path(target))
    except OSError as fault:
        raise RunError(f"cannot write TensorBoard events to {target}: {fault.strerror or fault}") from fault


def _cells(rows: Rows, frame: str) -> Iterator[tuple[Column, float]]:
    """Columns of one frame that hold a value at this step. NaN is "not recorded": what was not finite is counted apart."""
    columns, values = rows.get(frame, ((), np.empty(0)))
    return ((column, value) for column, value in zip(columns, _floats(values), strict=True) if not math.isnan(value))


def _floats(values: Array) -> list[float]:
    floats: list[float] = values.tolist()
    return floats


def _column(rows: Rows, frame: str, column: Column) -> list[float]:
    """The value of one column at this step, if it was recorded."""
    return [value for name, value in _cells(rows, frame) if name == column]
