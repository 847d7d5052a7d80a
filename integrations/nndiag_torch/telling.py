"""How the hooks of a PyTorch loop are told of its events: at once, with arrays; `nndiag_torch.device` tells them later."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextvars import Context, copy_context
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.optim import Optimizer

from nndiag.frames import LOOP
from nndiag.hooks import Listeners, own
from nndiag.measured import MeasuredRow
from nndiag.row import Origin
from nndiag.statistics import Array
from nndiag_torch import measure
from nndiag_torch.arrays import as_array
from nndiag_torch.optimizers import subtracted

if TYPE_CHECKING:
    from nndiag_torch.iteration import Iteration
    from nndiag_torch.layers import Layer, Parameter
    from nndiag_torch.loop import TorchLoop


UNKNOWN = None, 1.0
"""What an optimiser has subtracted that does not say so."""


class Now:
    """Tells every event as it happens. Arrays are views of the tensors where those lie on a CPU, and copies otherwise."""

    def __init__(self, loop: TorchLoop) -> None:
        self.loop, self.recorder = loop, loop.recorder
        self._ended = self._spent = 0.0
        self._heard_by: Listeners = ()
        self._takes_inputs = False
        self._silence = _silence()

    @property
    def reading(self) -> bool:
        """Whether the iteration under way is read."""
        return self.recorder.recording

    retelling = False
    """Whether what is told just now was kept back: never."""

    def wants(self, event: str) -> bool:
        """Whether anybody listens to `event` in this iteration."""
        return self.loop.hooks.listened(event)

    def number(self, value: Any) -> Any:
        """A number that may be a tensor, as it is now."""
        return float(value)

    def mean(self, loss: torch.Tensor) -> Any:
        """The loss as a number, as it is now."""
        return loss.detach().mean().item() if loss.ndim else loss.item()

    def any_nonzero(self, tensors: Iterable[torch.Tensor]) -> Any:
        """1 where any value of `tensors` is not 0, else 0."""
        return float(any(bool(tensor.any()) for tensor in tensors))

    def fire(self, event: str, *arguments: Any) -> None:
        """Tell the hooks of `event`."""
        with np.errstate(all="ignore"):
            self.loop.hooks.fire(event, *arguments)

    def _fire_layer(self, event: str, *arguments: Any) -> None:
        """Tell the hooks of what one layer did, as most events do; nndiag's own have no use for a context of the user."""
        hooks = self.loop.hooks
        if hooks.foreign or self._silence is None:
            self.fire(event, *arguments)
        else:
            self._silence.copy().run(hooks.fire, event, *arguments)

    def batch(self, x: torch.Tensor) -> None:
        """A training pass on `x` begins."""
        self.fire("on_step_begin", as_array(x), None)

    def evaluated(self, x: torch.Tensor) -> None:
        """A pass on `x` that is no training."""
        with np.errstate(all="ignore"):
            self.recorder.row.evaluated(as_array(x))

    def forward(self, layer: Layer, x: torch.Tensor | None, output: torch.Tensor) -> None:
        """`layer` has put out `output`, of `x` where that is known."""
        array = as_array(output)
        if array.ndim > 2 and layer.channels_first(array.ndim):
            array = np.moveaxis(array, 1, -1)
        layer.latest = array
        inputs = as_array(x) if x is not None and self._wants_inputs() else array
        self._fire_layer("on_forward", layer, inputs, array)
        layer.latest = None

    def _wants_inputs(self) -> bool:
        """Whether anybody looks at what goes into a layer; asked anew when others listen."""
        listeners = self.loop.hooks.listeners("on_forward")
        if listeners is not self._heard_by:
            self._heard_by, self._takes_inputs = listeners, self.loop.hooks.takes_inputs
        return self._takes_inputs

    def backward(self, layer: Layer, gradient: torch.Tensor, scale: Any) -> None:
        """δ of `layer`, times `scale`."""
        self._fire_layer("on_backward", layer, _over(gradient, scale))

    def measured(self, layers: Sequence[Layer], vectors: Sequence[torch.Tensor]) -> None:
        """`layers` have put out what a compiled region has measured: samples, and the values of `measure.output`."""
        for layer, vector in zip(layers, map(as_array, vectors), strict=True):
            if vector[0]:
                output = measure.as_output([(int(vector[0]), vector[1:])], layer.kind)
                self._fire_measured("on_forward", layer, None, output)

    def measured_backward(self, layers: Sequence[Layer], vectors: Sequence[torch.Tensor], scale: Any) -> None:
        """δ of `layers`, times `scale`, as a compiled region has measured it: size, and the values of `measure.magnitude`."""
        for layer, vector in zip(layers, map(as_array, vectors), strict=True):
            if vector[0]:
                gradient = measure.as_magnitude(vector[1:], int(vector[0]), scale)
                self._fire_measured("on_backward", layer, gradient)

    def _fire_measured(self, event: str, *arguments: Any) -> None:
        """Tell nndiag's own hooks; another's wants arrays, which there are none of."""
        if not isinstance(self.recorder.row, MeasuredRow):
            self.recorder.row = MeasuredRow(self.recorder.row)
        hooks = self.loop.hooks
        others = tuple(one for one in hooks.listeners(event) if not own(one[0]))
        with np.errstate(all="ignore"):
            hooks.fire_anew(event, others, *arguments) if others else hooks.fire(event, *arguments)

    def looks(self, value: float) -> bool:
        """Whether anybody will look at what went into the loss."""
        return self.wants("on_loss") and (self.loop.hooks.looks_at_outputs or not math.isfinite(value))

    def loss(self, value: float, origin: Origin, outputs: torch.Tensor | None, targets: torch.Tensor | None) -> None:
        """The loss, and what went into it where that is looked at."""
        before = self.recorder.row.loss_comes(origin)
        if outputs is None:
            self.recorder.loss(value)
        else:
            self.fire("on_loss", as_array(outputs), None if targets is None else as_array(targets), value)
        self.recorder.row.loss_came(before, origin)

    def losses_seen(self, parts: int) -> None:
        """What was seen to go back in this iteration were the losses of so many parts of its batch; 0: of nothing that counts."""
        self.recorder.row.settle(parts)

    def output_gradient(self, gradient: torch.Tensor, scale: Any) -> None:
        """δ of the outputs, times `scale`."""
        self.fire("on_output_gradient", _over(gradient, scale))

    def gradients(self, parameters: Sequence[Parameter]) -> None:
        """The gradients of `parameters` are there."""
        self.fire("on_gradients", parameters)

    def clipped(self, parameters: Sequence[Parameter]) -> None:
        """The gradients of `parameters` have been clipped."""
        self.fire("on_clipped", parameters)

    def update_begins(self, parameters: Sequence[Parameter], lr: Any) -> None:
        """The optimiser is about to update `parameters`."""
        if self.wants("on_update_begin"):
            self.fire("on_update_begin", parameters, float(lr))

    def update_ends(self, optimizer: Optimizer, parameters: Sequence[Parameter]) -> None:
        """`optimizer` has updated `parameters`."""
        if self.wants("on_update"):
            taken, fire = subtracted(optimizer, parameters), self.loop.hooks.fire
            with np.errstate(all="ignore"):
                for parameter in parameters:
                    fire("on_update", parameter, *taken.get(id(parameter.tensor), UNKNOWN))
        if self.wants("on_update_end"):
            self.fire("on_update_end", parameters)

    def iteration(self, done: Iteration, kept: Any, scale: Any, *, by_hand: bool) -> None:
        """What was `done` in the iteration, whether gradients were `kept`, and the `scale` of the loss: see `loop_row`."""
        if self.reading:
            row = loop_row(self.loop, done.backward_passes, done.updates, done.skips, kept, done.evaluation_mode, scale,
                           by_hand=by_hand)  # fmt: skip
            self.recorder.row.buffers["loop"].put("", LOOP, row)

    def logged(self, values: dict[str, Any]) -> dict[str, Any]:
        """Numbers that the user has logged, for the recorder to take."""
        return {name: number(name, value) for name, value in values.items()}

    def iteration_ends(self) -> None:
        """The iteration is over."""
        pace, now = self.recorder.pace, perf_counter()
        if self.loop.compiled.traced and self._ended:
            took = now - self._ended - (pace.spent - self._spent)
            pace.owe(self.loop.compiled.surcharge.of(self.reading, took, pace))
        self._ended, self._spent = now, pace.spent
        self.fire("on_step_end")

    def catch_up(self) -> None:
        """Tell what was kept back: nothing."""

    leave = catch_up


def _silence() -> Context | None:
    """A context in which NumPy's floating-point warnings are off: to go into a copy of it takes a tenth of `np.errstate`.

    None where those warnings belong to a thread, as they did before NumPy 2.
    """
    if int(np.__version__.split(".")[0]) < 2:
        return None
    context = copy_context()
    context.run(np.seterr, all="ignore")
    return context


def loop_row(
    loop: TorchLoop, passes: int, updates: int, skipped: Sequence[Any], kept: Any, evaluation: float, scale: Any,
    *, by_hand: bool,
) -> tuple[float, ...]:  # fmt: skip
    """Values of `LOOP`; `skipped` says of each step whether it was left out, `by_hand` that no optimiser steps.

    Updates by hand are not counted: where they are made, their number is not known (NaN).
    """
    left_out = sum(map(bool, skipped))
    moved = float("nan") if by_hand and loop.holders.moved() else updates - left_out
    return passes, moved, left_out, float(kept), evaluation, float(scale)


def number(name: str, value: Any) -> Any:
    """A tensor of one value as a number; anything else as it is, for `log` to judge."""
    return one_value(name, value).item() if isinstance(value, torch.Tensor) else value


def one_value(name: str, value: torch.Tensor) -> torch.Tensor:
    """`value`, if it is a single number. Raises TypeError otherwise."""
    if value.numel() != 1:
        raise TypeError(f"log({name}=tensor of shape {tuple(value.shape)}): wanted a single number; take its mean()")
    return value


def _over(gradient: torch.Tensor, scale: Any) -> Array:
    array = as_array(gradient)
    if scale == 1.0:
        return array
    with np.errstate(all="ignore"):
        return np.asarray(array / scale)
