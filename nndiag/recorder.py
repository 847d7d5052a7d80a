"""The Recorder: takes what hooks, adapters or a hand-written loop see, and makes the rows of a run from it."""

from __future__ import annotations

import atexit
import dataclasses
import logging
import math
import os
import sys
import traceback
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache, partial, wraps
from pathlib import Path
from threading import RLock
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, Literal, NoReturn, ParamSpec, Protocol, Self

import numpy as np

from nndiag import store, stored
from nndiag.errors import NndiagError, ShapeError
from nndiag.frames import OWN
from nndiag.interrupts import propagates, uninterrupted
from nndiag.journal import Journal
from nndiag.meta import Meta, versions
from nndiag.pace import LIVE, Pace
from nndiag.recognized import RecognizedLoss
from nndiag.row import Row
from nndiag.settings import number
from nndiag.statistics import Array
from nndiag.table import STEPS, Column, Table
from nndiag.weighing import Weighing

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
        """What was recorded of `step`; nobody changes `rows` afterwards, so that an exporter may keep them."""

    def report(self, report: Report, step: int) -> None:
        """The checklist has spoken, after `step` updates."""

    def flush(self) -> None:
        """Make what was written so far visible to readers."""

    def close(self) -> None:
        """Nothing more comes."""


class Resting(Protocol):
    """A loop that is let run on by itself while nothing of it is to be read."""

    @property
    def passed(self) -> int:
        """Iterations that are over since the rest began."""

    def wake(self) -> tuple[int, Sequence[float]]:
        """End the rest; gives back how many iterations are over, and the losses of all that are to be recorded."""


MOST_WAITING = 1 << 17
"""Values of finished rows that are handed to the journal without waiting for the clock."""

RECENT = 1.0
"""Seconds since the last flush after which a pause of the loop brings about another."""

LONGEST = 64
"""Iterations that a loop may keep to itself in one rest."""

SOON = 0.1
"""Seconds that a step may take for the loop to rest: of slower steps, others may want to see each as it comes."""

_HELD: set[Journal] = set()
"""Journals of the recorders that are open: the garbage collector must not close their files before the recorder is closed."""

_P = ParamSpec("_P")


PARTS = {"before_update": ("after_update",), "outputs": ("output_gradient",)}
"""Methods that are of no use once another is switched off, by that other."""

FILLS = {"activation": ("activations",), "activation_gradient": ("activations",), "gradient": ("gradients",),
         "before_update": ("updates",), "after_update": ("updates",), "outputs": ("outputs",),
         "output_gradient": ("outputs",), "data": ("data",), "histogram": ("histograms",),
         "validation_data": ("evaluations",), "log": ("losses", "metrics", "evaluations")}  # fmt: skip
"""Frames that are not whole without a method."""


def timed(method: Callable[Concatenate[Recorder, _P], None]) -> Callable[Concatenate[Recorder, _P], None]:
    """Adds the time that `method` takes to the recorder's own cost, unless a caller's clock runs already.

    What the caller got wrong is raised; a fault of nndiag's own is logged, the method switched off, and the loop goes on.
    """

    def clocked(self: Recorder, *args: _P.args, **kwargs: _P.kwargs) -> None:
        self._must_be_open(method.__name__.lstrip("_"))
        if self.pace.running:
            self._guarded(method, args, kwargs)
            return
        with self.pace, np.errstate(all="ignore"):  # whatever the user has set: an overflow here is a fact to record
            self._guarded(method, args, kwargs)

    return wraps(method)(clocked)  # type: ignore[return-value]  # still a method of Recorder


def read(method: Callable[Concatenate[Recorder, _P], None]) -> Callable[Concatenate[Recorder, _P], None]:
    """Makes `method` do nothing on steps that are not to be read, and `timed`."""
    clocked = timed(method)

    def gated(self: Recorder, *args: _P.args, **kwargs: _P.kwargs) -> None:
        if self.recording or self.meta.ended != "running":
            clocked(self, *args, **kwargs)

    return wraps(method)(gated)  # type: ignore[return-value]  # still a method of Recorder


class Recorder:
    """Records one training run, in memory or, with `run`, into a folder.

    Feed it arrays for the iteration under way, then call `step()`; `recording` says whether this step is read at all. Of
    several calls for one name within a step (the micro-batches of one update) activations, δ and losses merge into one row;
    of gradients, which accumulate, of data and of outputs the last call stands. `every` is the cadence in steps: 1 reads every
    step, "auto" keeps nndiag's own time under `budget` (a share of the training's) after the first 50 steps, but reads at the
    latest when the run has grown by a quarter; losses are taken always.
    A folder that exists and is not empty is left alone and a sibling `run-2` is used, unless `resume` appends to it.
    With `check_every` or `on_finding` the checks look at the run while it goes on (`nndiag.live`).
    Raises RunError if the folder cannot be made, and ValueError for a setting that makes no sense. Works as a context manager
    that closes the run.
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
        budget = number("budget", budget, "a share of the training time above 0, such as 0.02", lambda share: share > 0)
        flush_seconds = number(
            "flush_seconds", flush_seconds, "seconds from 0, such as 5", lambda seconds: seconds >= 0
        )
        self.strict = strict
        self._shown_by: int | None = None  # the process that has told the exporters of a step
        self._broken: set[str] = set()
        self._live = _live(check_every, on_finding, budget if every == "auto" else None, strict)
        self.pace = Pace(every, budget if self._live is None else (1 - LIVE) * budget)
        self.stopping = False
        self.recording = True
        self.meta = Meta(versions=versions(), created=datetime.now(UTC).isoformat(timespec="seconds"))
        self.row = Row()
        self._exporters: list[Exporter] = []
        self._on_close: list[Callable[[], None]] = []
        self._on_reading: list[Callable[[], None]] = []
        self._on_asking: list[Callable[[], None]] = []
        self.cadence: Callable[[int], bool] | None = None
        self._resting: Resting | None = None
        self.lock = RLock()
        """Held where rows are finished, or taken: whoever looks at the record may be another thread than the one that trains."""
        self._rested_at = -math.inf
        self._translators: list[Callable[[dict[str, Any]], dict[str, Any]]] = []
        self._ended: str | None = None
        self._told = self._turned = False
        self.recognized, self.weighing = RecognizedLoss(), Weighing()
        """Finds what the loss is by what it is made of, which hooks hand to it."""
        self._labelled = False  # whether targets come with the inputs
        self._at_exit: Callable[[], None] = _nothing
        path = None if run is None else stored.folder(run)
        self._journal = Journal(path, resume=resume, flush_seconds=flush_seconds, strict=strict)
        self._step = self._journal.next_step
        if self._journal.path is not None:
            self._opened(self._journal.path)

    def _opened(self, path: Path) -> None:
        meta = self._journal.resumed or self.meta
        self.meta = dataclasses.replace(meta, name=path.name, ended="running", stopped_by="", writer=store.writer())
        self.row.loss = self.meta.loss
        self._write_meta()
        _HELD.add(self._journal)
        self._at_exit = partial(_close_at_exit, weakref.ref(self))
        atexit.register(self._at_exit)

    def __reduce__(self) -> NoReturn:
        """Two recorders cannot write one run, nor one in two processes."""
        raise TypeError(f"{self!r} cannot be copied or pickled; its run can: recorder.run")

    def __repr__(self) -> str:
        return f"<Recorder of {self.path or 'a run in memory'}, step {self.step_number}>"

    @property
    def step_number(self) -> int:
        """Updates done so far: the number of the step under way."""
        return self._step if self._resting is None else self._step + self._resting.passed

    @property
    def path(self) -> Path | None:
        """The run folder, or None while the record is only in memory."""
        return self._journal.path

    @property
    def resumed(self) -> bool:
        """Whether the run began before this recorder."""
        return self._journal.resumed is not None

    @property
    def cost(self) -> dict[str, float]:
        """nndiag's own time in seconds, its share of all time since the start, and the cadence in steps."""
        return self.pace.cost

    # What the loop tells

    def describe(self, **meta: Any) -> None:
        """Tell what is trained: any field of `nndiag.meta.Meta`, such as `layers=[{"name": "h1", "kind": "relu"}]`.

        Mostly `layers`, `parameters`, `loss={"name": "MSE", "task": "real"}`, `optimizer={"name": "Adam", "lr": 1e-3}` and
        `batch_size`. Raises TypeError and ValueError for what no run can be told.
        """
        self.meta = self.meta.describe(meta)
        if (recorded := self._journal.resumed) and not (self._told or self.meta.may_be_of(recorded)):
            self._told = True
            log.warning("%s was recorded from a network with other layers than the one that resumes it", self.path)
        if not self._turned and (turned := self.meta.turned) and "torch" not in self.meta.versions:
            self._turned = True
            log.warning("%s: these weights look like (in, out) by the units of their layers, and nndiag expects (out, in); "
                        "give the shape, the values and the gradient of each transposed", ", ".join(turned))  # fmt: skip
        self.row.loss = self.meta.loss
        self._write_meta()
        self._exporting(lambda exporter: exporter.describe(self.meta))

    @timed
    def data(self, x: Array, y: Array | None = None) -> None:
        """Record scale, non-finite values and labels of a batch: inputs (batch, …), targets (batch,) or (batch, …).

        On steps that are not read, only inputs that are not finite are looked for, in one pass. Raises ShapeError unless
        there are as many inputs as targets.
        """
        x, y = np.atleast_1d(_array(x, "the inputs")), None if y is None else np.atleast_1d(_array(y, "the targets"))
        self.row.remember(x)
        if y is not None:
            self._labelled = True
        if self.recording:
            self.row.data(x, y)
            if y is not None:
                self.recognized.data(y)
        else:
            self.row.guard(x, y, counted=False)

    @timed
    def validation_data(self, x: Array, y: Array) -> None:
        """Tell what the validations that follow are made on: inputs (samples, …) and targets (samples, …).

        With each validation loss, the record then says how they compare with the training samples: rows that are in both,
        features that lie elsewhere, other shares of the classes. Raises ShapeError unless there are as many inputs as targets.
        """
        x, y = np.atleast_1d(_array(x, "the inputs")), np.atleast_1d(_array(y, "the targets"))
        if len(x) != len(y):
            raise ShapeError(
                f"validation_data() got inputs of shape {x.shape} and targets of shape {y.shape}; give as many of each"
            )
        self.row.validation_data(x, y)
        self.listen_anew()

    @read
    def activation(self, name: str, array: Array, *, slope: Array | None = None) -> None:
        """Record what layer `name` put out: (batch, …, units). Call it in forward order.

        `slope` is the derivative of an activation function at every element over its largest possible value, for
        functions that saturate.
        """
        array = _array(array, name)
        self.row.activation(name, array, None if slope is None else _array(slope, name))
        if self.recognized.layer(name, array, self.meta.loss):
            self.row.outputs(array, self.recognized.targets)

    @read
    def activation_gradient(self, name: str, array: Array) -> None:
        """Record δ, the gradient of the loss with respect to what layer `name` put out."""
        self.row.activation_gradient(name, _array(array, name))

    @read
    def gradient(self, name: str, array: Array, *, weights: Array | None = None) -> None:
        """Record the gradient of parameter `name`, before clipping.

        With its `weights` (out, in, …), also whether all units of the layer are the same. Raises ShapeError where they have
        another shape.
        """
        array, weights = _array(array, name), None if weights is None else _array(weights, name)
        if weights is not None and weights.shape != array.shape:
            raise ShapeError(f"{name} has shape {weights.shape} and its gradient {array.shape}; give the same")
        if not self.meta.dtype:
            self.describe(dtype=str(array.dtype))
        self.row.gradient(name, array)
        self.row.gradient_extremes(name, array, weights)

    @read
    def clipped_gradient(self, name: str, array: Array) -> None:
        """Record what clipping has left of the gradient of parameter `name`."""
        self.row.clipped_gradient(name, _array(array, name))

    @read
    def before_update(self, name: str, weights: Array) -> None:
        """Remember the values of parameter `name` for `after_update`."""
        self.row.before_update(name, _array(weights, name), copy=True)

    @read
    def after_update(self, name: str, weights: Array, gradient: Array | None = None) -> None:
        """Record how the update moved parameter `name`, from its values at `before_update`."""
        self.row.after_update(name, _array(weights, name), None if gradient is None else _array(gradient, name))

    @read
    def outputs(self, outputs: Array, targets: Array | None = None) -> None:
        """Record what the network's outputs (batch, …, units) look like as they go into the loss, and the targets.

        Of sequences and images every place counts as a sample: targets have the outputs' shape, or that without its units,
        which may also come second, as in (batch, classes, height, width). Where the run does not say what the loss is, its value
        on the first steps does (`nndiag.recognized`).
        """
        outputs, y = _array(outputs, "the outputs"), None if targets is None else _array(targets, "the targets")
        self.row.outputs(outputs, y)
        self.recognized.outputs(outputs, y, self.meta.loss)
        self.weighing.outputs(outputs, y, self.meta.loss)
        if y is not None and not self._labelled:
            self.row.targets(np.atleast_1d(y))

    @read
    def output_gradient(self, gradient: Array) -> None:
        """Record δ, the gradient (batch, units) of the loss with respect to the outputs, after `outputs`."""
        gradient = _array(gradient, "the output gradient")
        self.row.output_gradient(gradient)
        self.weighing.gradient(gradient)

    @read
    def histogram(self, name: str, array: Array) -> None:
        """Record a histogram of the finite values under `name`, such as `weights/h1.weight`."""
        self.row.histogram(name, _array(array, name))

    def log(self, /, **values: Any) -> None:
        """Record numbers of this step: `loss`, `validation_loss`, `epoch`, and any metric, also as `validation_…`.

        An adapter may take more: that of PyTorch, which sees the loss anyway, a `loss` tensor, and before its backward pass
        beside it `outputs` and `targets`. Raises TypeError on anything that is not a number, and NndiagError
        on the names that nndiag's own columns of `run.metrics` have (`nndiag.frames.OWN`).
        """
        self._must_be_open("log")
        for translate in self._translators:
            values = translate(values)
        if values:
            self._log(values)

    @timed
    def _log(self, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            self._log_one(*_place(name), _number(name, value))

    def on_log(self, translate: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """Have what is logged pass through `translate` first, which leaves the numbers: adapters take their tensors so."""
        self._translators.append(translate)

    def _log_one(self, split: str, metric: str, value: float) -> None:
        if (metric, split) == ("epoch", "train"):
            self.row.epoch = _epoch(value)
        elif metric != "loss":
            self.row.metric(split, metric, value)
        elif split == "validation":
            self.row.validated(value)
        else:
            self.loss(value)

    def loss(self, value: float) -> None:
        """Take the training loss of this step, or of one of its micro-batches; `log(loss=…)` for loops that have a number.

        When it is not finite for the first time, what is still to come of this step is read, whatever the cadence.
        """
        if self._resting is not None:
            self.wake()
        value = value if value.__class__ is float else _number("loss", value)
        self.row.train.append(value)
        if not math.isfinite(value):
            self.row.nonfinite += 1
            if self.meta.first_nonfinite is None:
                self.describe(first_nonfinite={"step": self._step, "what": "loss"})
                self._read(True)

    @property
    def alarmed(self) -> bool:
        """Whether the loss of the step under way is the first that is not finite."""
        return self.meta.broken_at == self._step

    def begin_epoch(self, epoch: int) -> None:
        """Epoch `epoch`, from 0, begins."""
        self.catch_up()
        remembered = self.row.remembers
        self.row.begin_epoch(_epoch(epoch))
        if remembered != self.row.remembers:
            self.listen_anew()

    def probe(self, code: str, measurement: Mapping[str, Any]) -> None:
        """Keep what a probe measured, plain JSON, for the check of that code."""
        self.describe(probes={**self.meta.probes, code: dict(measurement)})

    def fault(self, part: str, event: str, fault: BaseException, lost: Iterable[str] = ()) -> None:
        """Note that a part of nndiag failed, so that the run says what it does not hold: frames `lost` are not whole."""
        text = "".join(traceback.format_exception_only(fault)).strip()
        self.describe(faults=(*self.meta.faults, {"part": part, "event": event, "error": text, "lost": list(lost)}))

    # The clock

    def step(self) -> None:
        """The iteration is over: its row is closed, and what comes belongs to the next."""
        if self.meta.ended != "running":
            self._must_be_open("step")
        with self.lock:
            if self._resting is not None:
                self.wake(before=1)
            if self._unfollowed and self.row.pass_over(self._step):
                self._step += 1
                if self._step < self.pace.asked_at:
                    return
            elif self.pace.running:
                self._finish_step()  # whoever runs the clock sees to a fault
            elif "step" not in self._broken:
                self._finish_step_alone()
            recording = (self.cadence or self.pace.next)(self._step)
            if recording != self.recording:
                self._read(recording)

    def rest(self, loop: Resting) -> int:
        """How many iterations from here on need no `step` of their own: none is read, and nobody follows each of them.

        `loop` counts them. It is woken at the next `step`, and before anybody looks at the record or tells it something.
        """
        begun, self._rested_at = self._rested_at, monotonic()
        if self._rested_at - begun > SOON or not self._unfollowed:
            return 0
        iterations = max(0, min(LONGEST, self.pace.asked_at - self._step) - 1)
        self._resting = loop if iterations else None
        return iterations

    @property
    def resting(self) -> bool:
        """Whether a loop is let run on by itself."""
        return self._resting is not None

    def wake(self, before: int = 0) -> None:
        """End a rest: iterations that are over get their rows, but for the last `before`."""
        if self._resting is None:
            return
        with self.lock, uninterrupted():
            if (loop := self._resting) is None:  # another thread was faster
                return
            self._resting = None
            passed, losses = loop.wake()
            passed -= before
            self.row.rested(self._step, passed, losses[:passed])
            self.row.train += losses[passed:]
            self._step += passed

    def _finish_step_alone(self) -> None:
        """Without its clock, a recorder would merge all that follows into one row: a fault switches it off as a whole."""
        try:
            with self.pace, np.errstate(all="ignore"):
                self._finish_step()
        except Exception as fault:
            if propagates(fault, self.strict):
                raise
            self._broken |= {"step", *FILLS}
            log.error("step failed and recording is switched off; the loop goes on", exc_info=fault)
            self.fault("Recorder", "step", fault, self.row.buffers)

    def _finish_step(self) -> None:
        if self.recognized.fed and (loss := self.recognized.step(self.row.train)):
            self.describe(loss={**loss, **self.meta.loss})
        if self.weighing.found and (weights := self.weighing.step(self.row.train or self.row.seen)):
            self.describe(loss={**self.meta.loss, "class_weights": weights})
        self._close_row()
        self._step += 1
        if self._is_due:
            self.flush()
        if self._live is not None:
            self._live.step(self)

    @property
    def _unfollowed(self) -> bool:
        """Whether this step is not read, and nobody but the record wants to know of it."""
        return not (self.recording or self._exporters or self._live or self.cadence or self._is_due)

    @property
    def _is_due(self) -> bool:
        """Whether finished rows are to be flushed."""
        return self.row.buffers.waiting > MOST_WAITING or monotonic() > self._journal.due_at

    def on_reading(self, action: Callable[[], None]) -> None:
        """Have `action` done whenever `recording` changes, or what a hook wants to hear: adapters listen anew then."""
        self._on_reading.append(action)

    def on_asking(self, action: Callable[[], None]) -> None:
        """Have `action` done before anybody looks at the record: adapters that hand iterations over late catch up then.

        Such an adapter asks `pace.next` when an iteration really begins, and has `cadence` repeat the answer afterwards.
        """
        self._on_asking.append(action)

    def catch_up(self) -> None:
        """Have the adapters hand over what they have kept back."""
        self.wake()
        for action in self._on_asking:
            action()

    def listen_anew(self) -> None:
        """Tell the adapters that what the hooks want to hear has changed."""
        for action in self._on_reading:
            action()

    def _read(self, recording: bool) -> None:
        if recording != self.recording:
            self.recording = recording
            self.listen_anew()

    def stop(self, reason: str) -> None:
        """Ask the loop to end after this step: `stopping` is true from now on, and the run will say why.

        `nn.Trainer.fit` obeys; a loop of your own asks `if recorder.stopping: break`. What starts again starts afresh.
        """
        self._must_be_open("stop")
        self.wake()
        if not self.stopping:
            self.stopping = True
            self.describe(stopped_by=str(reason))
            log.warning("training is asked to stop at step %d: %s", self._step, reason)

    def begin(self) -> None:
        """The loop begins, or begins again."""
        self.stopping, self._ended = False, None
        self.meta = dataclasses.replace(self.meta, stopped_by="")

    def start_at(self, step: int) -> None:
        """Training goes on from `step` updates done, for a loop that knows: from its checkpoint. That may be an earlier step.

        What was recorded of later steps stays in the run folder; the frames hold what comes now.
        """
        self._must_be_open("start_at")
        self.wake()
        step = _step(step)
        if step != self._step:
            self._close_row()
        if step < self._step:
            self.flush()
            broken = self.meta.broken_at
            self.describe(
                went_back=(*self.meta.went_back, {"from": self._step, "to": step}),
                first_nonfinite=self.meta.first_nonfinite if broken is not None and broken < step else None,
            )
            self.pace.back(step)
            self._read(True)
        self._step = step

    def end(self, ended: str) -> None:
        """The loop has ended so: "completed", "stopped", "interrupted" or "crashed"; it may begin again until it is closed."""
        _must_end(ended)
        self._ended = ended
        self.flush()

    def _close_row(self) -> None:
        closed = self.row.close(self._step, self.recording)
        if closed and self._exporters:
            rows = {buffer.frame: (buffer.columns, np.array(row[1:])) for buffer, row in closed}
            self._shown_by = self._shown_by or os.getpid()
            self._exporting(lambda exporter: exporter.write(self._step, rows))

    def _exporting(self, action: Callable[[Exporter], None]) -> None:
        if self._shown_by not in (None, os.getpid()):
            return  # they are those of a parent process, which goes on with them
        for exporter in list(self._exporters):
            try:
                action(exporter)
            except Exception as fault:
                if propagates(fault, self.strict):
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

        with self.lock:
            self.catch_up()
            self.row.fill(self.recording)
            new = {name: [*part.blocks(), *part.pending(self._step)] for name, part in list(self.row.buffers.items())}
            tables = {frame: Table.of(parts) for frame, parts in self._journal.blocks(new).items()}
            thinned = {**self.meta.thinned, **self._journal.forgotten(new)}
            meta = dataclasses.replace(self.meta, ended=self._ended or self.meta.ended, thinned=thinned)
            return Run(meta, tables, self.path, self._journal.thinned(new))

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
        self._exporting(lambda exporter: exporter.report(report, self._step))
        return report

    def add_exporter(self, exporter: Exporter) -> None:
        """Show every step from now on through `exporter`, and each report of `check`; it is closed with the recorder."""
        self._must_be_open("add_exporter")
        if not hasattr(exporter, "write") or not hasattr(exporter, "describe"):
            raise TypeError(
                f"add_exporter() wants an exporter such as TensorBoard({exporter!r}), got a {type(exporter).__name__}"
            )
        self.wake()
        self._exporters.append(exporter)
        self._exporting(lambda each: each.describe(self.meta) if each is exporter else None)

    def _guarded(self, method: Callable[..., None], args: Any, kwargs: Any) -> None:
        name = method.__name__.lstrip("_")
        if name in self._broken:
            return
        try:
            self.wake()
            method(self, *args, **kwargs)
        except (TypeError, NndiagError):
            raise
        except Exception as fault:
            if propagates(fault, self.strict):
                raise
            self._broken |= {name, *PARTS.get(name, ())}
            log.error("%s failed and is switched off; the loop goes on", name, exc_info=fault)
            self.fault("Recorder", name, fault, FILLS.get(name, ()))

    def _must_be_open(self, what: str) -> None:
        if self.meta.ended != "running":
            raise NndiagError(f"{what}() came after the run was closed ({self.meta.ended}); make a new recorder")

    def flush(self) -> None:
        """Write finished rows to the run folder; where that fails they stay in memory, with one warning."""
        with self.lock:
            self.catch_up()
            with uninterrupted():
                self._journal.append(self.row.buffers.take())
            self._exporting(lambda exporter: exporter.flush())

    def pause(self) -> None:
        """The loop turns to something else than steps, such as a validation: what is finished goes to the run folder first.

        Nothing else would look at the clock meanwhile. What was flushed a moment ago need not be.
        """
        if self.path is not None and self.meta.ended == "running" and monotonic() - self._journal.flushed_at > RECENT:
            self.flush()

    def close(self, ended: str | None = None) -> None:
        """End the run: detach the hooks, close the row under way, write everything. A second call does nothing."""
        if self.meta.ended != "running":
            return
        if ended is not None:
            _must_end(ended)
        with uninterrupted():
            self._close(ended)

    def _close(self, ended: str | None) -> None:
        self._ended = ended or self._ended or ("stopped" if self.stopping else "completed")
        for action in (*self._on_close, self._close_row, self.flush, self._journal.close):
            self._attempt(action)
        self._on_close.clear()
        self._on_reading.clear()
        self._on_asking.clear()
        self._translators.clear()
        atexit.unregister(self._at_exit)
        _HELD.discard(self._journal)
        self.meta = dataclasses.replace(self.meta, ended=self._ended)
        self._write_meta()
        self._exporting(lambda exporter: exporter.close())
        self._exporters.clear()

    def _attempt(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as fault:
            if propagates(fault, self.strict):
                raise
            log.error("closing %r failed in part", self, exc_info=fault)
            with suppress(Exception):
                self.fault("Recorder", "close", fault)

    def on_close(self, action: Callable[[], None]) -> None:
        """Have `action` done first when the run is closed; adapters detach their hooks so."""
        self._on_close.append(action)

    def __enter__(self) -> Self:
        self._must_be_open("__enter__")
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, tb: TracebackType | None) -> None:
        self.close(None if fault is None else how(fault))

    def __del__(self) -> None:
        """A recorder that nobody holds any more, and nobody has closed, loses nothing either."""
        if hasattr(self, "_journal") and self.path is not None and self.meta.ended == "running":
            with suppress(Exception):
                self.close()

    def _write_meta(self) -> None:
        self._journal.write_meta(self.meta)


def _live(every: int | None, on_finding: OnFinding | None, budget: float | None, strict: bool) -> LiveChecks | None:
    """The live checks, if either of their arguments asks for them: they need pandas, which recording does not."""
    if every is None and on_finding is None:
        return None
    from nndiag.live import LiveChecks

    return LiveChecks(every, on_finding, budget=budget, strict=strict)


def _nothing() -> None:
    """What a recorder without a folder does at exit."""


def _must_end(ended: str) -> None:
    """Raises TypeError and ValueError for what no run ends with."""
    if not isinstance(ended, str):
        raise TypeError(f"a run ends with a word such as completed, got {ended!r}")
    if ended in ("", "running"):
        raise ValueError(f"a run ends with a word such as completed, stopped, interrupted or crashed, got {ended!r}")


def _step(value: Any) -> int:
    """A number of updates done. Raises TypeError and ValueError for what is none that a run can have."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"start_at({value!r}): wanted a whole number of updates done")
    if not 0 <= value < STEPS:
        raise ValueError(f"start_at({value!r}): wanted a number of updates done, 0 or more")
    return int(value)


def _epoch(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating) or value != value // 1:
        raise TypeError(f"epoch={value!r}: wanted a whole number")
    return int(value)


def _close_at_exit(reference: weakref.ref[Recorder]) -> None:
    """Close a recorder that nobody has closed: an exception that nobody caught has ended its run, if nothing had before."""
    recorder = reference()
    if recorder and recorder.meta.ended == "running":
        fault = None if hasattr(sys, "ps1") else getattr(sys, "last_value", None)  # at a prompt that may be long ago
        recorder.close(recorder._ended or (how(fault) if fault else None))


def how(fault: BaseException) -> str:
    """How a run ended that `fault` ended: "crashed", or "interrupted" by Ctrl-C, sys.exit or the like."""
    return "crashed" if isinstance(fault, Exception) else "interrupted"


def _array(value: Any, what: str) -> Array:
    """`value` as a real NumPy array. Raises TypeError on text, objects and complex numbers."""
    if not isinstance(what, str):
        raise TypeError(f"wanted the name of a layer or parameter, got {what!r}")
    try:
        array = value if type(value) is np.ndarray else np.asarray(value)
    except (ValueError, RuntimeError) as fault:  # RuntimeError of a tensor of PyTorch that requires a gradient
        raise TypeError(f"{what}: wanted an array of real numbers, got a {type(value).__name__}: {fault}") from None
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{what}: wanted an array of real numbers, got {type(value).__name__} of dtype {array.dtype}")
    return array


@lru_cache(maxsize=1024)
def _place(name: str) -> tuple[str, str]:
    """Split and metric that `name` of `log` stands for. Raises NndiagError where that is a column of nndiag's own."""
    prefixes = (("validation_", "validation"), ("val_", "validation"), ("train_", "train"))
    prefix, split = next((pair for pair in prefixes if name.startswith(pair[0])), ("", "train"))
    metric = name.removeprefix(prefix)
    if metric in OWN:
        raise NndiagError(f"log({name}=…): nndiag itself records {metric} in run.metrics; give yours another name")
    return split, metric


def _number(name: str, value: Any) -> float:
    try:
        if isinstance(value, str | bytes):
            raise TypeError
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f"log({name}={value!r}): wanted a number, got {type(value).__name__}") from None
