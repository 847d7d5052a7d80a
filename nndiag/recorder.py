"""The Recorder: takes what hooks, adapters or a hand-written loop see, and makes the rows of a run from it."""

from __future__ import annotations

import atexit
import dataclasses
import logging
import math
import time
import traceback
import weakref
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, Protocol, Self

import numpy as np

from nndiag import frames, store
from nndiag import statistics as st
from nndiag.errors import NndiagError, ShapeError
from nndiag.held_out import HeldOut, SeenRows
from nndiag.journal import Journal
from nndiag.meta import Meta, versions
from nndiag.pace import Pace
from nndiag.statistics import Array, Summary
from nndiag.table import Buffer, Column, Table

if TYPE_CHECKING:
    from nndiag.check import Finding
    from nndiag.checklist import Checklist
    from nndiag.live import LiveChecks, OnFinding
    from nndiag.report import Report
    from nndiag.run import Run

log = logging.getLogger("nndiag")

Rows = Mapping[str, tuple[tuple[Column, ...], Array]]
"""One step: for each frame its columns and values."""


class Exporter(Protocol):
    """Shows a run elsewhere, while it is recorded or afterwards."""

    def describe(self, meta: Meta) -> None:
        """Layers, parameters and settings are known, or known better."""

    def write(self, step: int, rows: Rows) -> None:
        """What was recorded of `step`."""

    def report(self, report: Report, step: int) -> None:
        """The checklist has spoken, after `step` updates."""

    def flush(self) -> None:
        """Make what was written so far visible to readers."""

    def close(self) -> None:
        """Nothing more comes."""


_P = ParamSpec("_P")


def timed(method: Callable[Concatenate[Recorder, _P], None]) -> Callable[Concatenate[Recorder, _P], None]:
    """Adds the time that `method` takes to the recorder's own cost.

    What the user has told np.seterr is not its affair: an overflow here is a fact to record.
    """

    def clocked(self: Recorder, *args: _P.args, **kwargs: _P.kwargs) -> None:
        begun = time.perf_counter()
        try:
            with np.errstate(all="ignore"):
                method(self, *args, **kwargs)
        finally:
            self.pace.spent += time.perf_counter() - begun

    return wraps(method)(clocked)  # type: ignore[return-value]  # still a method of Recorder


def read(method: Callable[Concatenate[Recorder, _P], None]) -> Callable[Concatenate[Recorder, _P], None]:
    """Makes `method` do nothing on steps that are not to be read, and `timed`."""
    measured = timed(method)

    def gated(self: Recorder, *args: _P.args, **kwargs: _P.kwargs) -> None:
        if self.recording:
            measured(self, *args, **kwargs)

    return wraps(method)(gated)  # type: ignore[return-value]  # still a method of Recorder


class Recorder:
    """Records one training run, in memory or, with `run`, into a folder.

    Feed it arrays for the iteration under way, then call `step()`; `recording` says whether this step is read at all.
    Several calls for one name within a step (the
    micro-batches of one update) merge into one row. `every` is the cadence in steps: 1 reads every step, "auto" keeps
    nndiag's own time under `budget` (a share of the training's) after the first 50 steps; losses are taken always.
    A folder that exists and is not empty is left alone and a sibling `run-2` is used, unless `resume` appends to it.
    With `check_every` or `on_finding` the checks look at the run while it goes on (`nndiag.live`).
    Raises RunError if the folder cannot be made. Works as a context manager that closes the run.
    """

    def __init__(
        self,
        run: str | Path | None = None,
        *,
        every: int | Literal["auto"] = "auto",
        budget: float = 0.02,
        strict: bool = False,
        resume: bool = False,
        flush_seconds: float = 5.0,
        check_every: int | None = None,
        on_finding: OnFinding | None = None,
    ) -> None:
        self.strict = strict
        self.pace = Pace(every, budget)
        self.stopping = False
        self._live = _live(check_every, on_finding, budget if every == "auto" else None, strict)
        self.step_number = 0
        self.epoch = 0
        self.recording = True
        self.meta = Meta(versions=versions(), created=datetime.now(UTC).isoformat(timespec="seconds"))
        self._buffers: dict[str, Buffer] = defaultdict(Buffer)
        self._exporters: list[Exporter] = []
        self._on_close: list[Callable[[], None]] = []
        self._ended: str | None = None
        self._features: st.FeatureMoments | None = None
        self._labels = frames.Labels()
        self._rows = SeenRows()
        self._held_out: HeldOut | None = None
        self._compared = 0
        self._toward: Array | None = None
        self._activity: dict[str, st.UnitActivity] = {}
        self._weights: dict[str, Array] = {}
        self._begin_row()
        path = None if run is None else Path(run).expanduser()
        self._journal = Journal(path, resume=resume, flush_seconds=flush_seconds)
        self.step_number = self._journal.next_step
        if self._journal.path is not None:
            self._opened(self._journal.path)

    def _opened(self, path: Path) -> None:
        meta = self._journal.resumed or self.meta
        self.meta = dataclasses.replace(meta, name=path.name, ended="running", stopped_by="", writer=store.writer())
        self._write_meta()
        atexit.register(_close_at_exit, weakref.ref(self))

    def __repr__(self) -> str:
        return f"<Recorder of {self.path or 'a run in memory'}, step {self.step_number}>"

    @property
    def path(self) -> Path | None:
        """The run folder, or None while the record is only in memory."""
        return self._journal.path

    @property
    def cost(self) -> dict[str, float]:
        """nndiag's own time in seconds, its share of all time since the start, and the cadence in steps."""
        return self.pace.cost

    # What the loop tells

    def describe(self, **meta: Any) -> None:
        """Tell what is trained: any field of `nndiag.meta.Meta`, such as `layers=[{"name": "h1", "kind": "relu"}]`."""
        self.meta = self.meta.describe(meta)
        self._write_meta()
        self._exporting(lambda exporter: exporter.describe(self.meta))

    def data(self, x: Array, y: Array | None = None) -> None:
        """Record scale, non-finite values and labels of a batch: inputs (batch, …), targets (batch,) or (batch, …).

        Values that are not finite are looked for on every step: one sum. Raises ShapeError unless there are as many inputs
        as targets.
        """
        if self.recording or not _sum_is_finite(x):
            self._data(_array(x, "the inputs"), None if y is None else _array(y, "the targets"))

    @timed
    def _data(self, x: Array, y: Array | None) -> None:
        if not x.size:
            return
        if y is not None and x.shape[:1] != y.shape[:1]:
            raise ShapeError(
                f"data() got inputs of shape {x.shape} and targets of shape {y.shape}; give as many of each"
            )
        summary = self._counted(x)
        rows = x.reshape(len(x), -1) if x.ndim > 1 else x.reshape(-1, 1)
        if self._features is None or len(self._features.mean) != rows.shape[1]:
            self._features = st.FeatureMoments(rows.shape[1])
        self._features.add(rows)
        if self.epoch == 0:
            self._rows.add(x)
        self._signal = summary.rms
        self._buffers["data"].put("input", frames.INPUT, frames.input_entry(summary, self._features))
        if y is not None:
            self._target_data(y)

    def _target_data(self, y: Array) -> None:
        summary = self._counted(y)
        self._labels.add(y, binary=self._binary)
        data = self._buffers["data"]
        data.put("target", frames.TARGET, frames.target_entry(y, summary, self._labels))
        if self.meta.loss.get("task") != "real" and self._labels.classes <= frames.MANY_CLASSES:
            for label in self._labels.seen:
                data.put(f"label {label}", ("count",), (self._labels.latest[label],))

    def validation_data(self, x: Array, y: Array) -> None:
        """Tell what the validations that follow are made on: inputs (samples, …) and targets (samples, …).

        With each validation loss, the record then says how they compare with the training samples: rows that are in both,
        features that lie elsewhere, other shares of the classes.
        """
        x, y = np.atleast_1d(_array(x, "the inputs")), np.atleast_1d(_array(y, "the targets"))
        self._held_out = HeldOut(x, y, binary=self._binary) if x.size and len(x) == len(y) else None

    def _compare_validation(self) -> None:
        """Record, as metrics, how the validation set compares with the training samples, where there are new ones."""
        if self._held_out is not None and self._rows.count > self._compared:
            self._compared = self._rows.count
            compared = self._held_out.compared(self._rows, self._features, self._labels)
            self._buffers["metrics"].put("validation", frames.VALIDATION, compared)

    @property
    def _binary(self) -> bool:
        return self.meta.loss.get("task") == "binary"

    @read
    def activation(self, name: str, array: Array, *, slope: Array | None = None) -> None:
        """Record what layer `name` put out: (batch, …, units). Call it in forward order.

        `slope` is the derivative of an activation function at every element over its largest possible value, for
        functions that saturate.
        """
        array = _array(array, name)
        if array.ndim < 2:
            array = array.reshape(-1, 1)
        summary = self._counted(array)
        units = array.shape[-1]
        if name not in self._activity or self._activity[name].units != units:
            self._activity[name] = st.UnitActivity(units)
        dead = self._activity[name].add(st.active_units(array), array.size // units) if array.size else math.nan
        entry = frames.forward_entry(array, slope, dead, summary, self._signal)
        if name in self._forward:
            summary = self._forward[name][0] | summary
        self._forward[name] = (summary, entry)
        self._signal = summary.rms

    @read
    def activation_gradient(self, name: str, array: Array) -> None:
        """Record δ, the gradient of the loss with respect to what layer `name` put out."""
        summary = self._counted(_array(array, name))
        self._backward[name] = self._backward[name] | summary if name in self._backward else summary

    @read
    def gradient(self, name: str, array: Array, *, weights: Array | None = None) -> None:
        """Record the gradient of parameter `name`, before clipping.

        With its `weights` (out, in, …), also whether all units of the layer are the same.
        """
        array = _array(array, name)
        entry = frames.gradient_entry(array, weights, self._counted(array))
        self._buffers["gradients"].put(name, frames.GRADIENT, entry)

    @read
    def before_update(self, name: str, weights: Array) -> None:
        """Remember the values of parameter `name` for `after_update`."""
        kept = self._weights.get(name)
        if kept is None or kept.shape != weights.shape or kept.dtype != weights.dtype:
            self._weights[name] = np.array(weights, copy=True)
        else:
            np.copyto(kept, weights)

    @read
    def after_update(self, name: str, weights: Array, gradient: Array | None = None) -> None:
        """Record how the update moved parameter `name`, from its values at `before_update`."""
        if name not in self._weights:
            raise NndiagError(f"after_update({name!r}) came without before_update({name!r}); call that before the step")
        entry = frames.update_entry(name, self._weights[name], _array(weights, name), gradient)
        self._buffers["updates"].put(name, frames.UPDATE, entry)

    @read
    def outputs(self, outputs: Array, targets: Array | None = None) -> None:
        """Record what the network's outputs (batch, …, units) look like as they go into the loss, and the targets.

        Of sequences and images every place counts as a sample: targets have the outputs' shape, or that without its units,
        which may also come second, as in (batch, classes, height, width).
        """
        rows, y = frames.as_rows(
            _array(outputs, "the outputs"), None if targets is None else _array(targets, "the targets")
        )
        if not rows.size:
            return
        buffer = self._buffers["outputs"]
        buffer.put("outputs", frames.OUTPUT, frames.output_entry(rows, self._counted(rows)))
        threshold = 0.5 if self.meta.loss.get("expects") == "probabilities" else 0.0
        named = frames.predicted(rows, threshold)
        if named is not None:
            counts = np.bincount(named, minlength=max(2, rows.shape[1])).tolist()
            for unit, count in enumerate(counts):
                buffer.put(f"predicted {unit}", ("count",), (count,))
        if y is not None:
            self._against(rows, named, y)

    def _against(self, outputs: Array, named: Array | None, y: Array) -> None:
        """Record outputs (batch, units), and the class that each row names, beside their targets."""
        buffer, task = self._buffers["outputs"], str(self.meta.loss.get("task", ""))
        buffer.put("targets", frames.OUTPUT_TARGET, frames.output_target_entry(y, st.summarize(y)))
        error = frames.squared_error(outputs, y)
        buffer.put("outputs", ("squared_error",), (error,))
        self._toward = frames.toward(outputs, y, task)
        ids = frames.class_ids(y, outputs.shape[1]) if task in ("classes", "binary") and named is not None else None
        if ids is not None and len(ids) == len(outputs):
            hits = np.bincount(ids, weights=named == ids, minlength=max(2, outputs.shape[1])).tolist()
            for label, count in enumerate(hits):
                buffer.put(f"label {label}", ("hits",), (count,))

    @read
    def output_gradient(self, gradient: Array) -> None:
        """Record δ, the gradient (batch, units) of the loss with respect to the outputs, after `outputs`."""
        entry = frames.output_gradient_entry(_array(gradient, "the output gradient"), self._toward)
        self._buffers["outputs"].put("outputs", frames.OUTPUT_GRADIENT, entry)
        self._toward = None

    @read
    def histogram(self, name: str, array: Array) -> None:
        """Record a histogram of the finite values under `name`, such as `weights/h1.weight`."""
        if entry := frames.histogram_entry(_array(array, name)):
            self._buffers["histograms"].put(name, frames.HISTOGRAM, entry)

    def log(self, **values: float) -> None:
        """Record numbers of this step: `loss`, `validation_loss`, `epoch`, and any metric, also as `validation_…`.

        Raises TypeError on anything that is not a number.
        """
        self._must_be_open("log")
        for name, value in values.items():
            self._log(name, _number(name, value))

    def _log(self, name: str, value: float) -> None:
        split = "train"
        for prefix, owner in (("validation_", "validation"), ("val_", "validation"), ("train_", "train")):
            if name.startswith(prefix):
                name, split = name.removeprefix(prefix), owner
        if name == "epoch":
            self.epoch = int(value)
        elif name != "loss":
            self._buffers["metrics"].put(split, (name,), (value,))
        elif split == "validation":
            self._validation = value
            self._nonfinite += not math.isfinite(value)
            self._compare_validation()
        else:
            self._train.append(value)
            if not math.isfinite(value):
                self._nonfinite += 1
                if self.meta.first_nonfinite is None:
                    self.describe(first_nonfinite={"step": self.step_number, "what": "loss"})

    def begin_epoch(self, epoch: int) -> None:
        """Epoch `epoch`, from 0, begins."""
        self.epoch = epoch
        for activity in self._activity.values():
            activity.turn()

    def probe(self, code: str, measurement: Mapping[str, Any]) -> None:
        """Keep what a probe measured, plain JSON, for the check of that code."""
        self.describe(probes={**self.meta.probes, code: dict(measurement)})

    def fault(self, part: str, event: str, fault: BaseException) -> None:
        """Note that a part of nndiag failed, so that the run says what it does not hold."""
        text = "".join(traceback.format_exception_only(fault)).strip()
        self.describe(faults=(*self.meta.faults, {"part": part, "event": event, "error": text}))

    def _counted(self, array: Array) -> Summary:
        summary = st.summarize(array)
        self._nonfinite += summary.nonfinite
        return summary

    # The clock

    def step(self) -> None:
        """The iteration is over: its row is closed, and what comes belongs to the next."""
        self._must_be_open("step")
        begun = time.perf_counter()
        self._close_row()
        self.step_number += 1
        self.pace.spent += time.perf_counter() - begun
        if self._live is not None:
            self._live.step(self)
        self.recording = self.pace.next(self.step_number)
        if self._journal.due:
            self.flush()

    def stop(self, reason: str) -> None:
        """Ask the loop to end after this step: `stopping` is true from now on, and the run will say why.

        `nn.Trainer.fit` obeys; a loop of your own asks `if recorder.stopping: break`. What starts again starts afresh.
        """
        self._must_be_open("stop")
        if not self.stopping:
            self.stopping = True
            self.describe(stopped_by=str(reason))
            log.warning("training is asked to stop at step %d: %s", self.step_number, reason)

    def begin(self) -> None:
        """The loop begins, or begins again."""
        self.stopping, self._ended = False, None
        self.meta = dataclasses.replace(self.meta, stopped_by="")

    def end(self, ended: str) -> None:
        """The loop has ended so: "completed", "stopped", "interrupted" or "crashed"; it may begin again until it is closed."""
        self._ended = ended
        self.flush()

    def _begin_row(self) -> None:
        self._forward: dict[str, tuple[Summary, tuple[float, ...]]] = {}
        self._backward: dict[str, Summary] = {}
        self._train: list[float] = []
        self._validation = math.nan
        self._nonfinite = 0
        self._signal = math.nan

    def _fill_row(self) -> None:
        """Put what was gathered for this step into the current rows; doing it twice changes nothing."""
        activations = self._buffers["activations"]
        for name, (s, entry) in self._forward.items():
            merged = (s.mean, s.variance, entry[2], s.min, s.max, s.zero_fraction, *entry[6:8], s.nonfinite, entry[9])
            activations.put(name, frames.FORWARD, merged)
        for name, s in self._backward.items():
            activations.put(name, frames.BACKWARD, (s.rms,))
        if self._train or not math.isnan(self._validation):
            train = sum(self._train) / len(self._train) if self._train else math.nan
            self._buffers["losses"].put("", frames.LOSS, (self.epoch, train, self._validation))
        if self._train or self._nonfinite:
            self._buffers["metrics"].put("train", ("nonfinite",), (self._nonfinite,))

    def _close_row(self) -> None:
        self._fill_row()
        rows = {
            frame: (buffer.columns, buffer.close_row(self.step_number))
            for frame, buffer in self._buffers.items()
            if buffer.touched
        }
        self._begin_row()
        if rows:
            self._exporting(lambda exporter: exporter.write(self.step_number, rows))

    def _exporting(self, action: Callable[[Exporter], None]) -> None:
        for exporter in list(self._exporters):
            try:
                action(exporter)
            except Exception as fault:
                if self.strict:
                    raise
                name = type(exporter).__name__
                log.error("%s failed and is detached; training goes on", name, exc_info=fault)
                self._exporters.remove(exporter)
                self.fault(name, "export", fault)
                with suppress(Exception):
                    exporter.close()

    # The record

    @property
    def run(self) -> Run:
        """What is recorded so far, the row under way included."""
        from nndiag.run import Run

        self._fill_row()
        blocks = self._journal.blocks()
        for frame, buffer in self._buffers.items():
            blocks.setdefault(frame, []).extend([*buffer.blocks(), *buffer.pending(self.step_number)])
        meta = dataclasses.replace(self.meta, ended=self._ended) if self._ended else self.meta
        return Run(meta, {frame: Table.of(parts) for frame, parts in blocks.items()}, self.path)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What the live checks have found and still find; nothing without them."""
        return self._live.findings if self._live else ()

    def check(self, checklist: Checklist | None = None) -> Report:
        """The report of `checklist`, all checks without one, on what is recorded so far; exporters show it."""
        from nndiag.checklist import Checklist

        checklist = Checklist() if checklist is None else checklist
        if not isinstance(checklist, Checklist):
            raise TypeError(f'check({checklist!r}): wanted a checklist, such as Checklist(select="ND4")')
        report = checklist.examine(self.run)
        self._exporting(lambda exporter: exporter.report(report, self.step_number))
        return report

    def add_exporter(self, exporter: Exporter) -> None:
        """Show every step from now on through `exporter`, and each report of `check`; it is closed with the recorder."""
        self._must_be_open("add_exporter")
        if not hasattr(exporter, "write") or not hasattr(exporter, "describe"):
            raise TypeError(
                f"add_exporter() wants an exporter such as TensorBoard({exporter!r}), got a {type(exporter).__name__}"
            )
        exporter.describe(self.meta)
        self._exporters.append(exporter)

    def _must_be_open(self, what: str) -> None:
        if self.meta.ended != "running":
            raise NndiagError(f"{what}() came after the run was closed ({self.meta.ended}); make a new recorder")

    def flush(self) -> None:
        """Write finished rows to the run folder; where that fails they stay in memory, with one warning."""
        self._journal.append({frame: buffer.take() for frame, buffer in self._buffers.items()})
        self._exporting(lambda exporter: exporter.flush())

    def close(self, ended: str | None = None) -> None:
        """End the run: detach the hooks, close the row under way, write everything. A second call does nothing."""
        if self.meta.ended != "running":
            return
        self._ended = ended or self._ended or ("stopped" if self.stopping else "completed")
        for action in self._on_close:
            action()
        self._close_row()
        self.flush()
        self.meta = dataclasses.replace(self.meta, ended=self._ended)
        self._write_meta()
        self._exporting(lambda exporter: exporter.close())
        self._exporters.clear()

    def on_close(self, action: Callable[[], None]) -> None:
        """Have `action` done first when the run is closed; adapters detach their hooks so."""
        self._on_close.append(action)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, tb: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.close("interrupted" if issubclass(kind, KeyboardInterrupt) else "crashed")

    def _write_meta(self) -> None:
        self._journal.write_meta(self.meta)


def _live(every: int | None, on_finding: OnFinding | None, budget: float | None, strict: bool) -> LiveChecks | None:
    """The live checks, if either of their arguments asks for them: they need pandas, which recording does not."""
    if every is None and on_finding is None:
        return None
    from nndiag.live import LiveChecks

    return LiveChecks(every, on_finding, budget=budget, strict=strict)


def _close_at_exit(reference: weakref.ref[Recorder]) -> None:
    if recorder := reference():
        recorder.close()


def _array(value: Any, what: str) -> Array:
    """`value` as a real NumPy array. Raises TypeError on text, objects and complex numbers."""
    if not isinstance(what, str):
        raise TypeError(f"wanted the name of a layer or parameter, got {what!r}")
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{what}: wanted an array of real numbers, got {type(value).__name__} of dtype {array.dtype}")
    return array


def _sum_is_finite(x: Any) -> bool:
    with np.errstate(all="ignore"):
        return bool(np.isfinite(np.sum(x)))


def _number(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"log({name}={value!r}): wanted a number, got {type(value).__name__}") from None
