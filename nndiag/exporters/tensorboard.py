"""The TensorBoard exporter: losses, activations, gradients, updates, histograms and the checklist's report."""

from __future__ import annotations

import logging
import os
import re
import time
import weakref
from pathlib import Path
from typing import Any

from nndiag.errors import RunError
from nndiag.exporters.charts import FINDINGS, REPORT, Charts, Layout
from nndiag.exporters.event_files import EventFiles, Scalar, Sink, UsersWriter
from nndiag.exporters.worker import AtOnce, Background, Worker
from nndiag.meta import Meta
from nndiag.recorder import Rows
from nndiag.report import Report

log = logging.getLogger("nndiag")

LAYERS = 40
"""Layers with charts of their own: with five groups that keeps a run near the 300 tags that TensorBoard lists fast."""

OBJECTS = 1024
"""Bytes that a step which waits to be written holds beside its values, about."""


class TensorBoard:
    """Shows a run in TensorBoard.

    `target` is a log directory, also one with other people's events in it, or a SummaryWriter (tensorboardX's or
    PyTorch's). Below a directory there are two TensorBoard runs, `train` and `validation`, whose `loss` shares a chart;
    where there is a `train` already they are `train-2` and `validation-2`. Of more than `layers` layers, evenly spaced
    ones get charts. Raises RunError if the directory cannot be written.

    Event files are written on a thread of their own, which `flush` and `close` wait for; if it falls so far behind that
    16 MiB of rows wait for it, training waits too, so that nothing is lost. What goes wrong there is raised by the next
    `write`, `flush` or `close`. A SummaryWriter, which its owner may use or close at any moment, is called on the thread
    that trains. A child that was forked from the process that writes the files writes nothing.
    """

    def __init__(self, target: str | os.PathLike[str] | Any, *, layers: int = LAYERS) -> None:
        self._sink = _sink(target)
        self._charts = Charts(self._sink)
        kind = AtOnce if isinstance(self._sink, UsersWriter) else Background
        self._worker: Worker = kind(self._sink.flush, self._sink.close)
        weakref.finalize(self, self._worker.abandon).atexit = False  # the worker sees to an exit itself
        self._layers = layers
        self._layout = Layout()
        self._warned = False

    def describe(self, meta: Meta) -> None:
        """Number the layers in forward order, zero-padded so that charts sort; parameters go with their layer."""
        self._layout = Layout.of(meta, self._layers)
        if len(meta.layers) > self._layers and not self._warned:
            log.warning(
                "TensorBoard gets charts of %d of the %d layers; the run holds all", self._layers, len(meta.layers)
            )
            self._warned = True

    def write(self, step: int, rows: Rows) -> None:
        """Send what was recorded of `step`: one event for training, one for validation if there was one."""
        size = OBJECTS
        for _, values in rows.values():
            size += values.nbytes
        self._worker.put(size, self._charts.write, step, time.time(), rows, self._layout)

    def report(self, report: Report, step: int) -> None:
        """Put the report into the Text tab as `nndiag/report`, and the number of findings into charts."""
        now, text = time.time(), report.to_markdown()
        counts = [Scalar(f"{FINDINGS}{verdict}", report.counts[verdict]) for verdict in ("fail", "warn")]
        self._worker.put(len(text), self._sink.text, REPORT, step, now, text)
        self._worker.put(OBJECTS, self._sink.write, "train", step, now, counts)
        self.flush()

    def flush(self) -> None:
        """Make everything so far visible to TensorBoard."""
        self._worker.flush()

    def close(self) -> None:
        """Flush and close the files; a SummaryWriter stays open for its owner."""
        self._worker.close()


def _sink(target: Any) -> Sink:
    if hasattr(target, "add_scalar"):
        return UsersWriter(target)
    if not isinstance(target, str | os.PathLike):
        raise TypeError(f"TensorBoard() wants a log directory or a SummaryWriter, got {type(target).__name__}")
    if re.match(r"\w{2,}:/", os.fspath(target)):
        raise RunError(
            f"TensorBoard() got the URL {target}; give a local directory, and copy it when training has ended"
        )
    try:
        return EventFiles(Path(target))
    except OSError as fault:
        raise RunError(f"cannot write TensorBoard events to {target}: {fault.strerror or fault}") from fault
