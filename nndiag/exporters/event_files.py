"""Where TensorBoard events go: files of our own, or a SummaryWriter that the user already has."""

from __future__ import annotations

import errno
import math
import os
import socket
import struct
import time
import uuid
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from tensorboardX import summary as tbx
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import masked_crc32c

from nndiag import store

SMALLEST, LARGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)

DATA_CLASS_SCALAR = b"\x20\x01"
"""Field 4 of SummaryMetadata on the wire, `data_class`, of value 1, for which tensorboardX's proto has no name: without it
TensorBoard's default (Rust) loader drops what is written beside a chart."""


BUFFER = 2**16
"""Bytes of events that are kept until they are worth a call of the operating system."""


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
    """Takes points for the TensorBoard run "train" or "validation", each with its step and the time of that step."""

    def write(
        self, run: str, step: int, time: float, scalars: Sequence[Scalar], histograms: Sequence[Histogram] = ()
    ) -> None:
        """Everything of one step."""

    def text(self, tag: str, step: int, time: float, text: str) -> None:
        """Markdown for the Text tab."""

    def flush(self) -> None:
        """Make it visible."""

    def close(self) -> None:
        """Nothing more comes."""


def single(value: float) -> float:
    """`value` as TensorBoard's float32 can hold it: what is finite stays finite, what is not zero stays off zero."""
    if SMALLEST <= abs(value) <= LARGEST or value == 0 or not math.isfinite(value):
        return value
    return math.copysign(min(max(abs(value), SMALLEST), LARGEST), value)


class EventFile:
    """One file of TensorFlow records: length, checksum, event, checksum. Raises OSError.

    It has a name that no other writer can have, and no buffer but one of whole records that only its methods pass on: a
    child that was forked writes nothing when it exits. They are passed on to the operating system; the disk is not waited
    for.
    """

    def __init__(self, folder: Path) -> None:
        name = f"{int(time.time())}.{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex[:12]}"
        self._path = folder / f"events.out.tfevents.{name}"
        self._file = self._path.open("xb", buffering=0)
        self._waiting = bytearray()
        self.write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        self.flush()

    def write(self, event: Any) -> None:
        """Append an event."""
        data = event.SerializeToString()
        length = struct.pack("<Q", len(data))
        self._waiting += length + _checksum(length) + data + _checksum(data)
        if len(self._waiting) >= BUFFER:
            self._write()

    def flush(self) -> None:
        """Let readers see everything; that the file was removed, so that nobody ever will, is an error."""
        self._write()
        if not os.fstat(self._file.fileno()).st_nlink and not self._path.exists():
            raise FileNotFoundError(errno.ENOENT, "the event file was removed", str(self._path))

    def _write(self) -> None:
        while self._waiting:
            del self._waiting[: self._file.write(self._waiting)]

    def close(self) -> None:
        """Flush and close."""
        with self._file:
            self.flush()


def _checksum(data: bytes) -> bytes:
    return struct.pack("<I", masked_crc32c(data))


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
        self._files: dict[str, EventFile] = {}
        self._file("train")

    def _file(self, run: str) -> EventFile:
        if run not in self._files:
            folder = self._logdir / f"{run}{self._number}"
            folder.mkdir(exist_ok=True)
            self._files[run] = EventFile(folder)
        return self._files[run]

    def write(
        self, run: str, step: int, time: float, scalars: Sequence[Scalar], histograms: Sequence[Histogram] = ()
    ) -> None:
        event = Event(wall_time=time, step=step)
        for scalar in scalars:
            _add(event.summary, scalar)
        for histogram in histograms:
            event.summary.MergeFrom(tbx.histogram_raw(*_raw(histogram)))
        if event.summary.value:
            self._file(run).write(event)

    def text(self, tag: str, step: int, time: float, text: str) -> None:
        self._file("train").write(Event(wall_time=time, step=step, summary=tbx.text(tag, text)))

    def flush(self) -> None:
        for file in self._files.values():
            file.flush()

    def close(self) -> None:
        with ExitStack() as stack:
            for file in self._files.values():
                stack.callback(file.close)


def _add(summary: Any, scalar: Scalar) -> None:
    value = summary.value.add(tag=scalar.tag, simple_value=single(scalar.value))
    if scalar.help:
        value.metadata.MergeFromString(DATA_CLASS_SCALAR)
        value.metadata.plugin_data.plugin_name = "scalars"
        value.metadata.summary_description = scalar.help


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

    It gives each point the time at which it gets it, and is not made to be called on several threads.

    Its `add_scalar` warns of every NaN; those points are left out here, and `nndiag/nonfinite_total` counts them.
    """

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def write(
        self, run: str, step: int, time: float, scalars: Sequence[Scalar], histograms: Sequence[Histogram] = ()
    ) -> None:
        for scalar in scalars:
            tag = f"{scalar.tag}/{run}" if scalar.tag == "loss" or run != "train" else scalar.tag
            if math.isfinite(scalar.value):
                self._writer.add_scalar(tag, single(scalar.value), step)
        for histogram in histograms:
            self._writer.add_histogram_raw(*_raw(histogram), step)

    def text(self, tag: str, step: int, time: float, text: str) -> None:
        self._writer.add_text(tag, text, step)

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.flush()
