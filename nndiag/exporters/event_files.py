"""Where TensorBoard events go: files of our own, or a SummaryWriter that the user already has."""

from __future__ import annotations

import math
import os
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from tensorboardX import summary as tbx
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary

from nndiag import store

SMALLEST, LARGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)

DATA_CLASS_SCALAR = b"\x20\x01"
"""Field 4 of SummaryMetadata on the wire, `data_class`, of value 1, for which tensorboardX's proto has no name: without it
TensorBoard's default (Rust) loader drops what is written beside a chart."""


class Scalar(NamedTuple):
    """One point of a chart; `help` (Markdown) stands beside the chart, and is given with its first point."""

    tag: str
    value: float
    help: str = ""


class Histogram(NamedTuple):
    """Counts of equal bins between `low` and `high`."""

    tag: str
    low: float
    high: float
    counts: Sequence[float]


class Sink(Protocol):
    """Takes points for the TensorBoard run "train" or "validation"."""

    def write(self, run: str, step: int, scalars: Sequence[Scalar], histograms: Sequence[Histogram] = ()) -> None:
        """Everything of one step."""

    def text(self, tag: str, text: str, step: int) -> None:
        """Markdown for the Text tab."""

    def flush(self) -> None:
        """Make it visible."""

    def close(self) -> None:
        """Nothing more comes."""


def single(value: float) -> float:
    """`value` as TensorBoard's float32 can hold it: what is finite stays finite, what is not zero stays off zero."""
    if value == 0 or not math.isfinite(value):
        return value
    return math.copysign(min(max(abs(value), SMALLEST), LARGEST), value)


class EventFiles:
    """Event files of our own below `logdir`, one event a step, one folder a TensorBoard run.

    Written directly rather than through a SummaryWriter, whose queue loses what is not drained and blocks the training
    when it is full, and whose file names, made of whole seconds, let two writers erase each other. Nor is a folder
    shared with other event files: TensorBoard's Python loader follows only the last file of a folder while it grows.
    So the runs are `train` and `validation`, or `train-2` and `validation-2` beside other people's. Raises OSError.
    """

    def __init__(self, logdir: Path) -> None:
        self._logdir = logdir.absolute()  # whatever the training does to the working directory; and never read as a URL
        self._logdir.mkdir(parents=True, exist_ok=True)
        self._number = store.claim(self._logdir / "train").name.removeprefix("train")
        self._suffix = f".{os.getpid()}.{uuid.uuid4().hex[:12]}"
        self._writers: dict[str, EventsWriter] = {}
        self._writer("train")

    def _writer(self, run: str) -> EventsWriter:
        if run not in self._writers:
            folder = self._logdir / f"{run}{self._number}"
            folder.mkdir(exist_ok=True)
            self._writers[run] = EventsWriter(str(folder / "events"), self._suffix)
        return self._writers[run]

    def write(self, run: str, step: int, scalars: Sequence[Scalar], histograms: Sequence[Histogram] = ()) -> None:
        values = [_scalar(scalar) for scalar in scalars]
        values += [value for histogram in histograms for value in tbx.histogram_raw(*_raw(histogram)).value]
        if values:
            self._event(run, Summary(value=values), step)

    def text(self, tag: str, text: str, step: int) -> None:
        self._event("train", tbx.text(tag, text), step)

    def _event(self, run: str, content: Any, step: int) -> None:
        self._writer(run).write_event(Event(wall_time=time.time(), step=step, summary=content))

    def flush(self) -> None:
        for writer in self._writers.values():
            writer.flush()

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()


def _scalar(scalar: Scalar) -> Any:
    value = Summary.Value(tag=scalar.tag, simple_value=single(scalar.value))
    if scalar.help:
        value.metadata.MergeFromString(DATA_CLASS_SCALAR)
        value.metadata.plugin_data.plugin_name = "scalars"
        value.metadata.summary_description = scalar.help
    return value


def _raw(histogram: Histogram) -> tuple[Any, ...]:
    """Arguments of `add_histogram_raw`: tag, min, max, number, sum and sum of squares of values, upper limits, counts.

    The values of a bin are taken to lie in its middle.
    """
    low, high, counts = single(histogram.low), single(histogram.high), np.asarray(histogram.counts, float)
    edges = np.linspace(low, high, len(counts) + 1)
    middles = (edges[:-1] + edges[1:]) / 2
    total, squares = float(counts @ middles), float(counts @ middles**2)
    return (histogram.tag, low, high, int(counts.sum()), total, squares, edges[1:].tolist(), counts.tolist())


class UsersWriter:
    """A SummaryWriter (tensorboardX's or PyTorch's) that the user has and closes; the run stands in the tag.

    Its `add_scalar` warns of every NaN; those points are left out here, and `nndiag/nonfinite_total` counts them.
    """

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def write(self, run: str, step: int, scalars: Sequence[Scalar], histograms: Sequence[Histogram] = ()) -> None:
        for scalar in scalars:
            tag = f"{scalar.tag}/{run}" if scalar.tag == "loss" or run != "train" else scalar.tag
            if math.isfinite(scalar.value):
                self._writer.add_scalar(tag, single(scalar.value), step)
        for histogram in histograms:
            self._writer.add_histogram_raw(*_raw(histogram), step)

    def text(self, tag: str, text: str, step: int) -> None:
        self._writer.add_text(tag, text, step)

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.flush()
