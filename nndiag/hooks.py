"""The hook objects, the events of a training loop that they listen to, and the dispatch of those events."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from nndiag.recorder import Recorder
from nndiag.statistics import Array

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("nndiag")


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
    `on_backward` (each layer, in backward order), `on_gradients`, `on_update_begin`, `on_update_end`, `on_step_end`.
    Arrays are the loop's own buffers: read them at once, never write to them, never keep them.
    Forward passes of an evaluation fire none of these; their result arrives as `on_validation`.
    """

    recorder: Recorder
    frame_name: ClassVar[str] = "metrics"

    def attach(self, loop: Any, recorder: Recorder | None = None) -> None:
        """Listen to `loop` (anything with a `hooks` attribute of type `Hooks`), alone or beside other hooks.

        Without `recorder`, the hook gets one of its own that reads every step and keeps the record in memory.
        """
        loop.hooks.add([self], recorder or Recorder(every=1))

    @property
    def frame(self) -> pd.DataFrame:
        """The frame that this hook fills, as recorded so far."""
        frame: pd.DataFrame = getattr(self.recorder.run, self.frame_name)
        return frame

    def on_train_begin(self, loop: Any) -> None:
        """`loop` is about to train."""

    def on_epoch_begin(self, epoch: int) -> None:
        """Epoch number `epoch`, from 0, begins."""

    def on_step_begin(self, x: Array, y: Array) -> None:
        """A batch is about to go forward: inputs (batch, …) and targets (batch,) or (batch, …)."""

    def on_forward(self, layer: LayerLike, x: Array, output: Array) -> None:
        """`layer` turned `x` into `output` in a training pass."""

    def on_loss(self, outputs: Array, targets: Array, loss: float) -> None:
        """The loss of this batch is known."""

    def on_backward(self, layer: LayerLike, gradient: Array) -> None:
        """The loss has `gradient` with respect to the output of `layer`."""

    def on_gradients(self, parameters: Sequence[ParameterLike]) -> None:
        """All gradients of this step are there, before clipping."""

    def on_update_begin(self, parameters: Sequence[ParameterLike], lr: float) -> None:
        """The optimiser is about to update `parameters` with learning rate `lr`; gradients are clipped by now."""

    def on_update_end(self, parameters: Sequence[ParameterLike]) -> None:
        """The optimiser has updated `parameters`."""

    def on_step_end(self) -> None:
        """The step is over."""

    def on_validation_data(self, x: Array, y: Array) -> None:
        """Validations of this training will be made on inputs (samples, …) and targets (samples, …)."""

    def on_validation_forward(self, layer: LayerLike, x: Array, output: Array) -> None:
        """`layer` turned `x` into `output` in the first validation of a training: nothing of it is for the frames of training."""

    def on_validation(self, values: Mapping[str, float]) -> None:
        """An evaluation on held-out data gave `values`: "loss" and any metrics."""

    def on_epoch_end(self, epoch: int) -> None:
        """Epoch number `epoch` is over, its validation included."""

    def on_train_end(self, ended: str) -> None:
        """Training is over: "completed", "stopped", "interrupted" or "crashed"."""


EVENTS = tuple(name for name in vars(Hook) if name.startswith("on_"))


class Hooks:
    """The hooks on one loop. Passes each event on, and detaches a hook that fails instead of stopping the training."""

    def __init__(self, loop: Any, hooks: Iterable[Hook] = ()) -> None:
        self.loop = loop
        self._hooks: list[Hook] = []
        self._listeners: dict[str, tuple[tuple[Hook, Callable[..., None]], ...]] = dict.fromkeys(EVENTS, ())
        if hooks := list(hooks):
            self.add(hooks, Recorder(every=1))

    def __iter__(self) -> Iterator[Hook]:
        return iter(self._hooks)

    def __len__(self) -> int:
        return len(self._hooks)

    def listened(self, event: str) -> bool:
        """Whether any hook overrides `event`; a loop asks this before it prepares a costly one."""
        return bool(self._listeners[event])

    def fire(self, event: str, *arguments: Any) -> None:
        """Pass `event` on to every hook that listens to it, in the order in which they were added."""
        for hook, listener in self._listeners[event]:
            try:
                listener(*arguments)
            except Exception as fault:
                self._fail(hook, event, fault)

    @property
    def stopping(self) -> bool:
        """Whether a recorder asks the loop to end; the loop looks after each step."""
        return any(hook.recorder.stopping for hook in self._hooks)

    def add(self, hooks: Sequence[Hook], recorder: Recorder) -> None:
        """Let `hooks` listen, all feeding `recorder`."""
        for hook in hooks:
            if not isinstance(hook, Hook):
                raise TypeError(f"a hook is an object of a subclass of nndiag.Hook, got {hook!r}")
            hook.recorder = recorder
        keepers = [hook for hook in self._hooks if isinstance(hook, StepHook)]
        if all(keeper.recorder is not recorder for keeper in keepers):
            keeper = StepHook()
            keeper.recorder = recorder
            keepers.append(keeper)
        self._listen([*(hook for hook in self if not isinstance(hook, StepHook)), *hooks, *keepers])

    def remove(self, recorder: Recorder) -> None:
        """Detach every hook that feeds `recorder`."""
        self._listen([hook for hook in self if hook.recorder is not recorder])

    def _listen(self, hooks: list[Hook]) -> None:
        self._hooks = hooks
        self._listeners = {
            event: tuple((hook, getattr(hook, event)) for hook in hooks if overrides(hook, event)) for event in EVENTS
        }

    def _fail(self, hook: Hook, event: str, fault: Exception) -> None:
        if hook.recorder.strict:
            raise fault
        name = type(hook).__name__
        log.error("%s failed in %s and is detached; training goes on", name, event, exc_info=fault)
        hook.recorder.fault(name, event, fault)
        self._listen([other for other in self if other is not hook])


def overrides(hook: Hook, event: str) -> bool:
    """Whether the class of `hook` does something on `event`."""
    return getattr(type(hook), event) is not getattr(Hook, event)


class StepHook(Hook):
    """Keeps a recorder's clock: what the loop consists of, epochs and steps. Each recorder on a loop has one, last."""

    def on_train_begin(self, loop: Any) -> None:
        self.recorder.begin()
        self.recorder.describe(**loop.describe())

    def on_epoch_begin(self, epoch: int) -> None:
        self.recorder.begin_epoch(epoch)

    def on_step_end(self) -> None:
        self.recorder.step()

    def on_train_end(self, ended: str) -> None:
        self.recorder.end(ended)


class ActivationHook(Hook):
    """Records what flows forward through every layer, and δ, the gradient that flows back to its output."""

    frame_name = "activations"

    def __init__(self) -> None:
        self._dropped = 0.0

    def on_forward(self, layer: LayerLike, x: Array, output: Array) -> None:
        if self.recorder.recording:
            self.recorder.activation(layer.name, output, slope=layer.slope())

    def on_backward(self, layer: LayerLike, gradient: Array) -> None:
        if self.recorder.recording:
            self.recorder.activation_gradient(layer.name, gradient)

    def on_validation_forward(self, layer: LayerLike, x: Array, output: Array) -> None:
        if layer.kind == "dropout":
            self._dropped = max(self._dropped, float(np.mean((output == 0) & (x != 0))))
            self.recorder.log(validation_dropped=self._dropped)


class GradientHook(Hook):
    """Records the gradient of every trainable parameter, before clipping."""

    frame_name = "gradients"

    def on_gradients(self, parameters: Sequence[ParameterLike]) -> None:
        if self.recorder.recording:
            for parameter in parameters:
                if not parameter.frozen:
                    self.recorder.gradient(parameter.name, parameter.gradient, weights=parameter.value)


class UpdateHook(Hook):
    """Records what the optimiser really did to every trainable parameter, in proportion to its size."""

    frame_name = "updates"

    def on_update_begin(self, parameters: Sequence[ParameterLike], lr: float) -> None:
        if self.recorder.recording:
            for parameter in parameters:
                if not parameter.frozen:
                    self.recorder.before_update(parameter.name, parameter.value)

    def on_update_end(self, parameters: Sequence[ParameterLike]) -> None:
        if self.recorder.recording:
            for parameter in parameters:
                if not parameter.frozen:
                    self.recorder.after_update(parameter.name, parameter.value, parameter.gradient)


class LossHook(Hook):
    """Records losses, metrics and the learning rate at every step, and what the outputs look like beside the targets."""

    frame_name = "losses"

    def __init__(self) -> None:
        self._output_next = False

    def on_loss(self, outputs: Array, targets: Array, loss: float) -> None:
        self.recorder.log(loss=loss)
        if self.recorder.recording:
            self.recorder.outputs(outputs, targets)
            self._output_next = True

    def on_backward(self, layer: LayerLike, gradient: Array) -> None:
        if self._output_next:  # backward begins at the outputs
            self._output_next = False
            self.recorder.output_gradient(gradient)

    def on_update_begin(self, parameters: Sequence[ParameterLike], lr: float) -> None:
        self.recorder.log(lr=lr)

    def on_validation(self, values: Mapping[str, float]) -> None:
        self.recorder.log(**{f"validation_{name}": value for name, value in values.items()})


class DataHook(Hook):
    """Records the scale of inputs and targets, non-finite values among them, and the labels seen."""

    frame_name = "data"

    def on_step_begin(self, x: Array, y: Array) -> None:
        self.recorder.data(x, y)  # on every step: a NaN must not slip through between two reads

    def on_validation_data(self, x: Array, y: Array) -> None:
        self.recorder.validation_data(x, y)


class HistogramHook(Hook):
    """Records histograms of activations, gradients and weights every `every` steps, or at the next step that is read."""

    frame_name = "histograms"

    def __init__(self, every: int = 100) -> None:
        if every < 1:
            raise ValueError(f"HistogramHook(every={every!r}): give a number of steps, 1 or more")
        self.every = every
        self._next, self._due = 0, False

    def on_step_begin(self, x: Array, y: Array) -> None:
        step = self.recorder.step_number
        self._due = self.recorder.recording and step >= self._next
        if self._due:
            self._next = step + self.every

    def on_forward(self, layer: LayerLike, x: Array, output: Array) -> None:
        if self._due:
            self.recorder.histogram(f"activations/{layer.name}", output)

    def on_gradients(self, parameters: Sequence[ParameterLike]) -> None:
        if self._due:
            for parameter in parameters:
                if not parameter.frozen:
                    self.recorder.histogram(f"gradients/{parameter.name}", parameter.gradient)
                self.recorder.histogram(f"weights/{parameter.name}", parameter.value)


def default_hooks() -> list[Hook]:
    """One of each: what `nndiag.watch` attaches unless told otherwise."""
    return [DataHook(), ActivationHook(), GradientHook(), UpdateHook(), LossHook(), HistogramHook()]
