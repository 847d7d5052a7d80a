"""The hook objects, the events of a training loop that they listen to, and the dispatch of those events."""

from __future__ import annotations

import logging
import math
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np

from nndiag.errors import NndiagError
from nndiag.interrupts import propagates
from nndiag.pace import Pace
from nndiag.recorder import Recorder
from nndiag.settings import cadence
from nndiag.statistics import Array

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("nndiag")

ALWAYS = 50
"""Steps at the start of which the data, and what goes into the loss, are looked at whenever the step is read."""

RARELY = 4
"""With `every="auto"`, at most one of so many recorded steps has histograms."""

Every = int | Literal["auto"]
"""Steps from one look to the next; "auto" for 10, in long runs 1 to 2 % of the steps so far."""


class LayerLike(Protocol):
    """What an event says of a layer: its name and kind, and the slope of an activation function where it has one."""

    name: str
    kind: str

    def slope(self) -> Array | None:
        """Derivative of the latest output with respect to its input over its largest possible value, or None."""


class ParameterLike(Protocol):
    """What an event says of a parameter: `value` and `gradient` are the live arrays, not copies."""

    name: str
    kind: str
    frozen: bool
    value: Array
    gradient: Array


class Hook:
    """Observes a training loop. Subclass it and override the events that you need; the rest do nothing.

    One step of the loop fires, in this order: `on_step_begin`, `on_forward` (each layer, in forward order), `on_loss`,
    `on_output_gradient`, `on_backward` (each layer, in backward order), `on_gradients`, `on_clipped` (where they are clipped),
    `on_update_begin`, `on_update` (each parameter), `on_update_end`, `on_step_end`. Of `reads` a hook hears only on steps that
    its recorder reads.
    Arrays are the loop's own buffers: read them at once, never write to them, never keep them.
    Forward passes of an evaluation fire none of these; their result arrives as `on_validation`.
    """

    recorder: Recorder
    frame_name: ClassVar[str] = "metrics"
    reads: ClassVar[tuple[str, ...]] = ()
    takes_inputs: ClassVar[bool] = True
    """Whether `on_forward` looks at `x`; where no hook does, a loop may hand over the output in its place."""

    def attach(self, loop: Any, recorder: Recorder | None = None) -> None:
        """Listen to `loop` (anything with a `hooks` attribute of type `Hooks`), alone or beside other hooks.

        Without `recorder`, the hook gets one of its own that reads every step and keeps the record in memory.
        """
        loop.hooks.add([self], recorder or Recorder(every=1))

    @property
    def fills(self) -> tuple[str, ...]:
        """The frames that are not whole without this hook."""
        return (self.frame_name,)

    @property
    def looks_at_outputs(self) -> bool:
        """Whether `on_loss` of the step under way will look at more than the loss, if that is finite."""
        return True

    def hears(self, event: str) -> bool:
        """Whether this hook is to be told of `event` on the step under way."""
        return overrides(self, event) and (self.recorder.recording or event not in self.reads)

    @property
    def frame(self) -> pd.DataFrame:
        """The frame that this hook fills, as recorded so far."""
        frame: pd.DataFrame = getattr(self.recorder.run, self.frame_name)
        return frame

    def on_train_begin(self, loop: Any) -> None:
        """`loop` is about to train."""

    def on_epoch_begin(self, epoch: int) -> None:
        """Epoch number `epoch`, from 0, begins."""

    def on_step_begin(self, x: Array, y: Array | None) -> None:
        """A batch is about to go forward: inputs (batch, …) and targets (batch,) or (batch, …).

        Where the targets show only in the loss, as in PyTorch, they are None here.
        """

    def on_forward(self, layer: LayerLike, x: Array, output: Array) -> None:
        """`layer` turned `x` into `output` in a training pass."""

    def on_loss(self, outputs: Array, targets: Array | None, loss: float) -> None:
        """The loss of this batch is known; its targets are None where the loop does not show them."""

    def on_output_gradient(self, gradient: Array) -> None:
        """The loss has `gradient` (batch, …, units) with respect to the outputs."""

    def on_backward(self, layer: LayerLike, gradient: Array) -> None:
        """The loss has `gradient` with respect to the output of `layer`."""

    def on_gradients(self, parameters: Sequence[ParameterLike]) -> None:
        """All gradients of this step are there, before clipping."""

    def on_clipped(self, parameters: Sequence[ParameterLike]) -> None:
        """The gradients of `parameters` have been clipped, or looked at and found small enough."""

    def on_update_begin(self, parameters: Sequence[ParameterLike], lr: float) -> None:
        """The optimiser is about to update `parameters` with learning rate `lr`; gradients are clipped by now."""

    def on_update(self, parameter: ParameterLike, update: Array | None, factor: float = 1.0) -> None:
        """The optimiser has subtracted `factor` · `update` from `parameter`; None where it has moved it in more than one way."""

    def on_update_end(self, parameters: Sequence[ParameterLike]) -> None:
        """The optimiser has updated `parameters`."""

    def on_step_end(self) -> None:
        """The step is over."""

    def on_validation_data(self, x: Array, y: Array) -> None:
        """Validations of this training will be made on inputs (samples, …) and targets (samples, …)."""

    def on_validation_begin(self) -> None:
        """A validation is about to be made: no step comes until it is over."""

    def on_validation_forward(self, layer: LayerLike, x: Array, output: Array) -> None:
        """`layer` turned `x` into `output` in the first validation of a training: nothing of it is for the frames of training."""

    def on_validation(self, values: Mapping[str, float]) -> None:
        """An evaluation on held-out data gave `values`: "loss" and any metrics."""

    def on_epoch_end(self, epoch: int) -> None:
        """Epoch number `epoch` is over, its validation included."""

    def on_train_end(self, ended: str) -> None:
        """Training is over: "completed", "stopped", "interrupted" or "crashed"."""


Listeners = tuple[tuple[Hook, Callable[..., None], Pace], ...]
"""Hooks that hear an event, with their method for it and the clock of their recorder."""

EVENTS = tuple(name for name in vars(Hook) if name.startswith("on_"))


class Hooks:
    """The hooks on one loop. Passes each event on, and detaches a hook that fails instead of stopping the training.

    The loop fires events with NumPy's floating-point warnings off (`np.errstate(all="ignore")`).
    """

    def __init__(self, loop: Any, hooks: Iterable[Hook] = ()) -> None:
        self.loop = loop
        self._hooks: list[Hook] = []
        self.foreign = False
        """Whether a hook is not one of nndiag's own."""
        self.resting_until = -1
        """Number of the loop's `steps` up to which nobody needs to hear `on_step_end`, nor `on_loss` of a finite loss."""
        self.losses: dict[int, float] = {}
        """Losses that the loop has kept here instead, by its `steps` when they came."""
        self._able: dict[str, Listeners] = dict.fromkeys(EVENTS, ())
        self._listeners: dict[str, Listeners] = dict.fromkeys(EVENTS, ())
        if hooks := list(hooks):
            self.add(hooks, Recorder(every=1))

    def __iter__(self) -> Iterator[Hook]:
        return iter(self._hooks)

    def __len__(self) -> int:
        return len(self._hooks)

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy of a loop, and one that is pickled, is watched by nobody."""
        return Hooks, (self.loop,)

    def listened(self, event: str) -> bool:
        """Whether any hook overrides `event`; a loop asks this before it prepares a costly one."""
        return bool(self._listeners[event])

    def fire(self, event: str, *arguments: Any) -> None:
        """Pass `event` on to every hook that listens to it, in the order in which they were added."""
        for hook, listener, pace in self._listeners[event]:
            pace.running, pace.entered = True, perf_counter()
            try:
                listener(*arguments)
            except Exception as fault:
                self._fail(hook, event, fault)
            finally:
                pace.spent += perf_counter() - pace.entered
                pace.running = False

    @property
    def stopping(self) -> bool:
        """Whether a recorder asks the loop to end; the loop looks after each step."""
        return any(hook.recorder.stopping for hook in self._hooks)

    @property
    def looks_at_outputs(self) -> bool:
        """Whether anybody who hears `on_loss` will look at outputs or targets of this step."""
        return any(hook.looks_at_outputs for hook, *_ in self._listeners["on_loss"])

    @property
    def takes_inputs(self) -> bool:
        """Whether anybody who hears `on_forward` looks at what went in."""
        return any(hook.takes_inputs for hook, *_ in self._listeners["on_forward"])

    def listeners(self, event: str) -> Listeners:
        """Who hears `event` now."""
        return self._listeners[event]

    def fire_anew(self, event: str, heard: Listeners, *arguments: Any) -> None:
        """Pass `event` on to hooks that listen by now and are not among those who have `heard` it."""
        self._listeners[event] = tuple(one for one in self._listeners[event] if one not in heard)
        try:
            self.fire(event, *arguments)
        finally:
            self._listen()

    def add(self, hooks: Sequence[Hook], recorder: Recorder) -> None:
        """Let `hooks` listen, all feeding `recorder`."""
        for hook in hooks:
            if not isinstance(hook, Hook):
                raise TypeError(f"a hook is an object of a subclass of nndiag.Hook, got {hook!r}")
            held = _HEARS.get(hook) if own(hook) else None
            other = None if held is None else held()
            if hook in self._hooks or (other is not None and hook in other):
                whose = "this" if hook in self._hooks else "another"
                raise NndiagError(f"{hook!r} listens to {whose} loop already; give a new {type(hook).__name__}()")
        for hook in hooks:
            hook.recorder = recorder
            if own(hook):
                _HEARS[hook] = weakref.ref(self)
        keepers = [hook for hook in self._hooks if isinstance(hook, StepHook)]
        if all(keeper.recorder is not recorder for keeper in keepers):
            keeper = StepHook()
            keeper.recorder = recorder
            keepers.append(keeper)
            recorder.on_reading(self._listen)
        self._hold([*(hook for hook in self if not isinstance(hook, StepHook)), *hooks, *keepers])

    def remove(self, recorder: Recorder) -> None:
        """Detach every hook that feeds `recorder`."""
        recorder.wake()
        self._hold([hook for hook in self if hook.recorder is not recorder])

    def _hold(self, hooks: list[Hook]) -> None:
        """Have these hooks, and note which event each could hear at all."""
        self._hooks = hooks
        self.resting_until = -1
        self.foreign = not all(map(own, hooks))
        self._able = {
            event: tuple((hook, getattr(hook, event), hook.recorder.pace) for hook in hooks if overrides(hook, event))
            for event in EVENTS
        }
        self._listen()

    def _listen(self) -> None:
        """Who hears what on the steps from here on: an event that nobody hears costs the loop nothing."""
        self._listeners = {
            event: tuple([one for one in able if one[0].hears(event)]) if able else ()
            for event, able in self._able.items()
        }

    @property
    def may_rest(self) -> bool:
        """Whether the loop may keep losses in `losses`, and its steps to itself: where one recorder of nndiag's alone listens."""
        return not self.foreign and len(self._listeners["on_step_end"]) == 1

    def _fail(self, hook: Hook, event: str, fault: Exception) -> None:
        if propagates(fault, hook.recorder.strict):
            raise fault
        name, recorder = type(hook).__name__, hook.recorder
        log.error("%s failed in %s and is detached; training goes on", name, event, exc_info=fault)
        keeper = isinstance(hook, StepHook)  # without its clock, a recorder would merge all that follows into one row
        lost = [other for other in self if other is hook or (keeper and other.recorder is recorder)]
        self._hold([other for other in self if other not in lost])
        try:
            recorder.fault(name, event, fault, [frame for other in lost for frame in other.fills])
        except Exception as another:
            log.error("the fault of %s cannot be noted in the run", name, exc_info=another)


_HEARS: weakref.WeakKeyDictionary[Hook, weakref.ref[Hooks]] = weakref.WeakKeyDictionary()
"""What each hook of nndiag was added to last: it feeds one recorder alone."""


def own(hook: Hook) -> bool:
    """Whether a hook is one of nndiag's."""
    return type(hook).__module__ == __name__


def overrides(hook: Hook, event: str) -> bool:
    """Whether the class of `hook` does something on `event`."""
    return getattr(type(hook), event) is not getattr(Hook, event)


class Spacing:
    """Picks the steps at which something is looked at that hardly changes: the first `always`, then one of every `every`.

    "auto" is every 10, from step 200 on every 20, and later in a run one of each 1 to 2 % of the steps so far. Which one is
    pseudo-random if it is `drawn`, so that it is not always the same place of an epoch, and else the first. Where that step is
    not recorded, the next recorded one takes its place.
    """

    def __init__(self, every: Every, always: int = 0, *, drawn: bool = True) -> None:
        self._every, self._always, self._hashed = cadence("every", every), always, drawn
        self._begin = self._end = self._from = 0  # the stretch under way, and the first step of it that is due
        self._asked = RARELY

    def due(self, step: int, *, rarely: bool = False) -> bool:
        """Whether `step` is one of them; it is taken as such. With `rarely`, at most one in `RARELY` that are asked for is."""
        self._asked += 1
        due = self.would(step) and not (rarely and self._asked < RARELY)
        if due:
            self._from, self._asked = self._end, 0
        return due

    def would(self, step: int) -> bool:
        """Whether `step` would be one of them."""
        if not self._begin <= step < self._end:
            self._enter(step)
        return step >= self._from or step < self._always

    def _enter(self, step: int) -> None:
        """Begin the stretch of `step`."""
        length = self._every
        if length == "auto":
            length = _SHORTEST if step < _EARLY else 2 * _SHORTEST << max(0, (step // _LONG).bit_length() - 1)
        number = step // length
        missed = self._from < self._end or self._end < number * length
        self._begin, self._end = number * length, (number + 1) * length
        self._from = self._begin + (_drawn(number) % length if self._hashed and not missed else 0)


_SHORTEST, _EARLY, _LONG = 10, 200, 1000
"""Steps apart at first, up to which step, and steps of a run after which twice that doubles with its length, to 1 to 2 %."""


def _drawn(number: int) -> int:
    """A number that looks drawn at random, the same for the same `number` (Knuth's multiplicative hash)."""
    return (number * 2654435761 & 0xFFFFFFFF) >> 8 if number else 0


class StepHook(Hook):
    """Keeps a recorder's clock: what the loop consists of, epochs and steps. Each recorder on a loop has one, last.

    A loop that counts its updates in `steps` says with them where it goes on: from an older checkpoint at an earlier step.
    One that also `rests` counts for the recorder while nothing is to be read: see `Hooks.resting_until`.
    """

    def __init__(self) -> None:
        self._before: int | None = None
        self._loop: Any = None
        self._rests_from, self._woken_at = 0, -1

    def on_train_begin(self, loop: Any) -> None:
        self.recorder.begin()
        self.recorder.describe(**loop.describe())
        if isinstance(steps := getattr(loop, "steps", None), int):
            self.recorder.start_at(max(0, steps - self._steps_before(steps)))
        self._loop = loop if getattr(loop, "rests", False) else None

    def _steps_before(self, steps: int) -> int:
        """Updates of the loop that are not the recorder's: those before the run began; one that goes on says so."""
        if self._before is None:
            resumes = self.recorder.resumed and steps
            self._before = self.recorder.meta.steps_before if resumes else steps - self.recorder.step_number
            if self._before > 0 and not resumes:
                self.recorder.describe(steps_before=self._before)
        return self._before

    def on_epoch_begin(self, epoch: int) -> None:
        self.recorder.begin_epoch(epoch)

    def on_step_end(self) -> None:
        recorder, loop = self.recorder, self._loop
        if recorder.meta.ended != "running":
            return  # a hook has closed it in this event
        if recorder.recording or loop is None:
            recorder.step()
            return
        with recorder.lock:
            if self._woken_at == loop.steps:
                return  # another thread has looked, and counted it
            if loop.hooks.losses and not recorder.resting and (kept := self._kept(loop.steps - 1)):
                recorder.loss(*kept)
            recorder.step()
            self._rests_from = loop.steps
            if not recorder.recording and loop.hooks.may_rest and (iterations := recorder.rest(self)):
                loop.hooks.resting_until = loop.steps + iterations

    def _kept(self, *steps: int) -> list[float]:
        """The losses that the loop has kept of these of its `steps`, if anybody listens to losses; they are kept no longer."""
        losses = self._loop.hooks.losses
        kept = [losses.pop(step) for step in steps if step in losses]
        return kept if self._loop.hooks.listened("on_loss") else []

    @property
    def passed(self) -> int:
        """Iterations of the loop that are over since it was let run on by itself."""
        passed: int = self._loop.steps - self._rests_from
        return passed

    def wake(self) -> tuple[int, list[float]]:
        """Hear every iteration again; gives back how many were not heard, and their losses.

        Another thread may train meanwhile: first it is told, then it is asked how far it has come.
        """
        self._loop.hooks.resting_until = -1
        self._woken_at = steps = self._loop.steps
        return max(0, steps - self._rests_from), self._kept(*range(self._rests_from, steps))

    def on_validation_begin(self) -> None:
        self.recorder.pause()

    def on_train_end(self, ended: str) -> None:
        self.recorder.end(ended)
        self._loop = None


class ActivationHook(Hook):
    """Records what flows forward through every layer, and δ, the gradient that flows back to its output.

    The extremes and zeros of an output, which take three more passes, are looked at in the first 50 steps, then as far apart
    as `every` says, and whenever its RMS has doubled since; with `light` only the mean and the variance of each output are taken.
    """

    frame_name = "activations"
    reads = ("on_forward", "on_backward")
    takes_inputs = False

    def __init__(self, every: Every = "auto", *, light: bool = False) -> None:
        self._light = light
        self._extremes = Spacing(every, always=ALWAYS)
        self._step, self._whole = -1, True
        self._dropped = 0.0

    def on_forward(self, layer: LayerLike, x: Array, output: Array) -> None:
        recorder = self.recorder
        if self._light:
            recorder.row.moments(layer.name, output)
            return
        if recorder.step_number != self._step:
            self._step = recorder.step_number
            self._whole = self._extremes.due(self._step) or recorder.alarmed
        recorder.row.activation(layer.name, output, layer.slope(), whole=self._whole)

    def hears(self, event: str) -> bool:
        return super().hears(event) and not (self._light and event == "on_backward")

    def on_backward(self, layer: LayerLike, gradient: Array) -> None:
        self.recorder.row.activation_gradient(layer.name, gradient)

    def on_validation_forward(self, layer: LayerLike, x: Array, output: Array) -> None:
        if layer.kind == "dropout":
            self._dropped = max(self._dropped, float(np.mean((output == 0) & (x != 0))))
            self.recorder.row.dropped(self._dropped)


class GradientHook(Hook):
    """Records the gradient of every trainable parameter, before clipping, and its norm after it.

    Norms are taken at every read; its largest value and its zeros, which take three more passes, in the first 50 steps
    and then as far apart as `every` says; with `light` not at all.
    """

    frame_name = "gradients"
    reads = ("on_gradients", "on_clipped")

    def __init__(self, every: Every = "auto", *, light: bool = False) -> None:
        self._light = light
        self._extremes = Spacing(every, always=ALWAYS)

    def on_gradients(self, parameters: Sequence[ParameterLike]) -> None:
        recorder = self.recorder
        whole = not self._light and (self._extremes.due(recorder.step_number) or recorder.alarmed)
        row = recorder.row
        for parameter in parameters:
            if not parameter.frozen:
                row.gradient(parameter.name, parameter.gradient)
                if whole:
                    row.gradient_extremes(parameter.name, parameter.gradient, parameter.value)

    def on_clipped(self, parameters: Sequence[ParameterLike]) -> None:
        for parameter in parameters:
            if not parameter.frozen:
                self.recorder.row.clipped_gradient(parameter.name, parameter.gradient)


class UpdateHook(Hook):
    """Records what the optimiser really did to every trainable parameter, in proportion to its size.

    Whether it went downhill and the size itself, which take one more pass each, are looked at in the first 50 steps and then as
    far apart as `every` says; the size also when the updates since may have changed it by 1 %.
    """

    frame_name = "updates"
    reads = ("on_update_begin", "on_update", "on_update_end")

    def __init__(self, every: Every = "auto") -> None:
        self._descent = Spacing(every, always=ALWAYS)
        self._step, self._whole = -1, True
        self._unread = 0

    def on_update_begin(self, parameters: Sequence[ParameterLike], lr: float) -> None:
        recorder = self.recorder
        row, step = recorder.row, recorder.step_number
        if step != self._step:
            self._unread = max(0, step - self._step - 1)
            self._step, self._whole = step, self._descent.due(step) or recorder.alarmed
        for parameter in parameters:
            if not parameter.frozen:
                row.before_update(parameter.name, parameter.value, copy=False, whole=self._whole, unread=self._unread)

    def on_update(self, parameter: ParameterLike, update: Array | None, factor: float = 1.0) -> None:
        self.recorder.row.update(parameter.name, update, parameter.gradient if self._whole else None, factor)

    def on_update_end(self, parameters: Sequence[ParameterLike]) -> None:
        row = self.recorder.row
        for parameter in parameters:
            if not parameter.frozen:
                row.after_update(parameter.name, parameter.value, parameter.gradient if self._whole else None)


class LossHook(Hook):
    """Records losses and metrics, and at steps that are read the learning rate and the outputs beside the targets.

    Outputs and targets are looked at in the first 50 steps, then as far apart as `every` says, and when the loss is not
    finite; with `light` not at all.
    """

    frame_name = "losses"
    reads = ("on_output_gradient", "on_update_begin")

    @property
    def fills(self) -> tuple[str, ...]:
        return ("losses", "outputs", "metrics", "evaluations")

    def __init__(self, every: Every = "auto", *, light: bool = False) -> None:
        self._light = light
        self._outputs = Spacing(every, always=ALWAYS)
        self._due = False

    def hears(self, event: str) -> bool:
        return super().hears(event) and not (self._light and event == "on_output_gradient")

    @property
    def looks_at_outputs(self) -> bool:
        recorder = self.recorder
        wanted = recorder.recording and not self._light
        return wanted and (self._outputs.would(recorder.step_number) or recorder.alarmed)

    def on_loss(self, outputs: Array, targets: Array | None, loss: float) -> None:
        recorder = self.recorder
        recorder.loss(loss)
        wanted = recorder.recording and not self._light
        self._due = wanted and (self._outputs.due(recorder.step_number) or recorder.alarmed)
        if self._due:
            recorder.row.outputs(outputs, targets)
            recorder.recognized.outputs(outputs, targets, recorder.meta.loss)
            recorder.weighing.outputs(outputs, targets, recorder.meta.loss, loss)

    def on_output_gradient(self, gradient: Array) -> None:
        if self._due:
            self.recorder.row.output_gradient(gradient)
            self.recorder.weighing.gradient(gradient)

    def on_update_begin(self, parameters: Sequence[ParameterLike], lr: float) -> None:
        self.recorder.row.metric("train", "lr", lr)

    def on_validation(self, values: Mapping[str, float]) -> None:
        self.recorder.log(**{f"validation_{name}": value for name, value in values.items()})


class DataHook(Hook):
    """Records the scale of inputs and targets, non-finite values among them, and the labels seen.

    Batches are looked at in the first 50 steps, then as far apart as `every` says, and when the loss is not finite; at reads in
    between only inputs that are not finite are looked for.
    """

    frame_name = "data"
    reads = ("on_step_begin", "on_loss")

    @property
    def fills(self) -> tuple[str, ...]:
        return ("data", "evaluations")

    def __init__(self, every: Every = "auto") -> None:
        self._batches = Spacing(every, always=ALWAYS)
        self._looked = self._targets_to_come = False

    def hears(self, event: str) -> bool:
        return super().hears(event) or (event == "on_step_begin" and self.recorder.row.remembers)

    def on_step_begin(self, x: Array, y: Array | None) -> None:
        recorder = self.recorder
        recorder.row.remember(x)
        self._targets_to_come = y is None
        if not recorder.recording:
            return
        self._looked = self._batches.due(recorder.step_number) or recorder.alarmed
        if self._looked:
            recorder.row.data(x, y)
        else:
            recorder.row.guard(x, y, counted=True)

    @property
    def looks_at_outputs(self) -> bool:
        return self._looked and self._targets_to_come

    def on_loss(self, outputs: Array, targets: Array | None, loss: float) -> None:
        broken = not math.isfinite(loss) and not self._looked and self.recorder.meta.first_nonfinite is None
        if targets is not None and (broken or (self._looked and self._targets_to_come)):
            self.recorder.row.targets(targets)  # where the loss alone is broken, the inputs are finite

    def on_validation_data(self, x: Array, y: Array) -> None:
        self.recorder.validation_data(x, y)


class HistogramHook(Hook):
    """Records histograms of activations, gradients and weights every `every` steps, or at the next step that is read.

    Where the cadence follows the cost, no more than one read in `RARELY` has histograms: in a small network they cost as much
    as all else of a read.
    """

    frame_name = "histograms"
    reads = ("on_step_begin", "on_forward", "on_gradients")
    takes_inputs = False

    def __init__(self, every: int = 100) -> None:
        self.every = every
        self._spacing = Spacing(every, drawn=False)
        self._due = True

    def hears(self, event: str) -> bool:
        return super().hears(event) and (self._due or event == "on_step_begin")

    def on_step_begin(self, x: Array, y: Array | None) -> None:
        due = self._spacing.due(self.recorder.step_number, rarely=self.recorder.pace.adapts)
        if due != self._due:
            self._due = due
            self.recorder.listen_anew()

    def on_forward(self, layer: LayerLike, x: Array, output: Array) -> None:
        self.recorder.row.histogram(f"activations/{layer.name}", output)

    def on_gradients(self, parameters: Sequence[ParameterLike]) -> None:
        for parameter in parameters:
            if not parameter.frozen:
                self.recorder.row.histogram(f"gradients/{parameter.name}", parameter.gradient)
            self.recorder.row.histogram(f"weights/{parameter.name}", parameter.value)


def light_hooks() -> list[Hook]:
    """Means, variances, gradient norms and losses only, for a quarter to a third of the cost and a part of the checks."""
    return [ActivationHook(light=True), GradientHook(light=True), LossHook(light=True)]


def default_hooks() -> list[Hook]:
    """One of each: what `nndiag.watch` attaches unless told otherwise."""
    return [DataHook(), ActivationHook(), GradientHook(), UpdateHook(), LossHook(), HistogramHook()]
