"""How the hooks are told of what happens on a device: later, from statistics computed there, so that nothing ever waits for it.

A read iteration leaves small vectors on the device: of every layer extremes and, by unit, mean, variance and values that are
not 0; of every gradient and δ norm, largest value and zeros; of every update norms and direction. They travel to the host
together with those of other iterations, in one copy that nobody waits for, and are told to the hooks when they are there, at
most 16 iterations or 5 seconds later, and before anybody looks at the record. So `recorder.step_number` lags behind, and what
a first loss that is not finite brings about comes when it is seen: the steps behind it were read as the cadence had it.

Everything is exact but what needs the values themselves. Inputs, outputs and targets are looked at in a sample of evenly
spaced rows, up to `SAMPLE` bytes each; where that is not all, number of rows and sums of δ are still those of the whole, and
`squared_error` is not known. Of parameters with more than `COPIED` bytes together, updates are measured on every k-th value,
with k prime to the width. In float32, variances below 1e-38 or above 1e38 are not seen. Of a tensor with values that are not
finite, an extreme is not known (NaN) where it lies on the other side of 0 than all values.

Memory on the device: `COPIED` bytes between a read step's beginning and end, copies of `measure.CHUNK` values for a moment, and
`tape.BYTES` of vectors and samples, or those of one layer where they are more.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec

import numpy as np
import torch
from torch.linalg import vector_norm
from torch.optim import Optimizer

from nndiag.frames import LOOP, SAME_GRADIENTS, SAME_WEIGHTS, SAMPLED
from nndiag.hooks import HistogramHook, Spacing, overrides, own
from nndiag.interrupts import propagates
from nndiag.measured import Magnitude, MeasuredRow
from nndiag.row import Origin
from nndiag.statistics import Array
from nndiag_torch import measure
from nndiag_torch.arrays import dense
from nndiag_torch.tape import Tape
from nndiag_torch.telling import loop_row, one_value

if TYPE_CHECKING:
    from nndiag_torch.iteration import Iteration
    from nndiag_torch.layers import Layer, Parameter
    from nndiag_torch.loop import TorchLoop

log = logging.getLogger("nndiag")

ITERATIONS = 16
"""Iterations that wait for their values at most."""

SAMPLE = 1 << 20
"""Bytes of inputs, of outputs, of targets and of δ that are looked at in one iteration."""

EVALUATIONS = 20
"""Batches of the first evaluations of which inputs are looked at."""

COPIED = 512 << 20
"""Bytes of parameters that are copied before an update: all values of up to 134 million in float32."""

ARRAYS = ("on_step_begin", "on_forward", "on_loss", "on_output_gradient", "on_backward", "on_gradients", "on_clipped",
          "on_update_begin", "on_update", "on_update_end")  # fmt: skip
"""Events that come with arrays."""

FILLS = {"batch": "data", "forward": "activations", "backward": "activations", "measured": "activations",
         "measured_backward": "activations", "loss": "losses", "output_gradient": "outputs",
         "gradients": "gradients", "clipped": "gradients", "update_begins": "updates", "update_ends": "updates"}  # fmt: skip
"""The frame that is not whole without each part."""

_P = ParamSpec("_P")


def is_for(loop: TorchLoop) -> bool:
    """Whether events of `loop` are told later: its model is on a device, and its hooks are nndiag's own.

    Another's hook wants the arrays themselves, which then come at once, with a copy to the host that waits for the device.
    """
    if all(parameter.tensor.device.type in ("cpu", "meta") for parameter in loop.parameters):
        return False
    others = [hook for hook in loop.hooks if any(overrides(hook, event) for event in ARRAYS) and not own(hook)]
    if others:
        log.warning("%s wants the values of every layer: each step that is read waits for the device", others)
    return not others


def part(method: Callable[Concatenate[Later, _P], None]) -> Callable[Concatenate[Later, _P], None]:
    """Counts what `method` costs on host and device, and switches it off if it fails; training goes on."""
    name = method.__name__

    def guarded(self: Later, *args: _P.args, **kwargs: _P.kwargs) -> None:
        if name in self.broken or _capturing():
            return
        begun = perf_counter()
        self.clock.start()
        try:
            with torch.no_grad():
                method(self, *args, **kwargs)
        except Exception as fault:
            self.failed(name, fault)
        finally:
            self.clock.stop(perf_counter() - begun)
            self.recorder.pace.spent += perf_counter() - begun

    return functools.wraps(method)(guarded)  # type: ignore[return-value]  # still a method of Later


class Later:
    """Measures every event on the device, and tells the hooks when the values are on the host."""

    def __init__(self, loop: TorchLoop) -> None:
        self.loop, self.recorder = loop, loop.recorder
        self.tape = Tape(self.failed)
        self.reading = self.recorder.recording
        self.broken: set[str] = set()
        self.clock = _clock(loop)
        self._cadence: list[bool] = []
        self._evaluations = 0
        self._told: list[Told] = []
        self._events = {event for event in ARRAYS if any(overrides(hook, event) for hook in loop.hooks)}
        self._pictures = {
            hook: Spacing(hook.every, drawn=False) for hook in loop.hooks if isinstance(hook, HistogramHook)
        }
        self._pictured = bool(self._pictures)
        self._channels = False
        self._before: dict[int, torch.Tensor] = {}
        self._least = 1
        self.recorder.row = MeasuredRow(self.recorder.row)
        self.recorder.cadence = self._recall
        self.recorder.on_asking(self.catch_up)

    def failed(self, name: str, fault: Exception) -> None:
        """Switch the part called `name` off; with `strict` raises the fault instead."""
        if propagates(fault, self.recorder.strict):
            raise fault
        if name not in self.broken:
            self.broken.add(name)
            log.error("%s on the device failed and is switched off; training goes on", name, exc_info=fault)
            self.recorder.fault("Later", name, fault, [FILLS[name]] if name in FILLS else [])

    @property
    def retelling(self) -> bool:
        """Whether what is told just now was kept back."""
        return self.tape.playing

    def wants(self, event: str) -> bool:
        """Whether anybody will listen to `event` of this iteration."""
        return self.reading and event in self._events

    def looks(self, value: torch.Tensor) -> bool:
        """Whether anybody may look at what went into the loss: the hooks say so later."""
        return self.wants("on_loss")

    def number(self, value: Any) -> Any:
        """A number as it is now, where it lies."""
        return value.detach().clone() if isinstance(value, torch.Tensor) else float(value)

    def mean(self, loss: torch.Tensor) -> torch.Tensor:
        """The loss as a number, where it lies, and of its own memory."""
        return loss.detach().mean()

    def any_nonzero(self, tensors: Iterable[torch.Tensor]) -> Any:
        """1 where any value of `tensors` is not 0, else 0, where they lie."""
        found = [(dense(tensor) != 0).any() for tensor in tensors]
        return torch.stack([one.to(found[0].device) for one in found]).any() if found else 0.0

    def fire(self, event: str, *arguments: Any) -> None:
        """Tell the hooks of `event`."""
        with np.errstate(all="ignore"):
            self.loop.hooks.fire(event, *arguments)

    # Forward

    @part
    def batch(self, x: torch.Tensor) -> None:
        """A training pass on `x` begins."""
        if self._pictures:
            step = self.recorder.step_number + len(self._cadence)
            rarely = self.recorder.pace.adapts
            due = [spacing.due(step, rarely=rarely) for spacing in self._pictures.values()]
            self._pictured = any(due)
        x = dense(x)
        sample = x[measure.thinned(x, SAMPLE)]
        self.tape.add(self._batch, sample.clone(), len(x) - len(sample) if x.ndim else 0)

    def _batch(self, sample: Array, missing: int) -> None:
        self.row.unseen(missing)
        self.fire("on_step_begin", sample, None)

    @part
    def evaluated(self, x: torch.Tensor) -> None:
        """A pass on `x` that is no training: of the first ones a sample of the inputs is looked at."""
        if self._evaluations < EVALUATIONS:
            self._evaluations += 1
            x = dense(x)
            self.tape.add(self._evaluated, x[measure.thinned(x, SAMPLE)].clone())

    def _evaluated(self, sample: Array) -> None:
        self.row.evaluated(sample)

    @part
    def forward(self, layer: Layer, x: torch.Tensor | None, output: torch.Tensor) -> None:
        """`layer` has put out `output`."""
        output = dense(output)
        if output.numel():
            rows = measure.unit_rows(output, channels=layer.channels_first(output.ndim))
            parts = measure.chunks(rows)
            sizes = tuple(map(len, parts))
            self.tape.add(self._forward, layer, sizes, self._picture(rows), *map(measure.output, parts))

    @part
    def measured(self, layers: Sequence[Layer], vectors: Sequence[torch.Tensor]) -> None:
        """`layers` have put out what a compiled region has measured: samples, and the values of `measure.output`."""
        self.tape.add(self._measured, layers, tuple(map(len, vectors)), torch.cat(list(vectors)))

    def _measured(self, layers: Sequence[Layer], sizes: Sequence[int], vectors: Array) -> None:
        for layer, vector in zip(layers, np.split(vectors, np.cumsum(sizes)[:-1]), strict=True):
            if vector[0]:
                self._forward(layer, (int(vector[0]),), None, vector[1:])

    def _forward(self, layer: Layer, sizes: Sequence[int], sample: Array | None, *vectors: Array) -> None:
        output = measure.as_output(zip(sizes, vectors, strict=True), layer.kind, sample)
        self.fire("on_forward", layer, None, output)

    def _picture(self, tensor: torch.Tensor) -> torch.Tensor | None:
        return measure.spaced(tensor, SAMPLED) if self._pictured and tensor.numel() else None

    # Loss

    @part
    def loss(
        self, value: torch.Tensor, origin: Origin, outputs: torch.Tensor | None, targets: torch.Tensor | None
    ) -> None:
        """The loss, and what went into it where that is looked at."""
        if outputs is None:
            self.tape.add(self._loss, value, origin)
            return
        outputs, y = dense(outputs), None if targets is None else dense(targets)
        self._channels = outputs.ndim > 2 and y is not None and (
            y.shape == (outputs.shape[0], *outputs.shape[2:]) != outputs.shape[:-1])  # fmt: skip
        places = measure.thinned(outputs, SAMPLE, channels=self._channels)
        sample = outputs[places]
        if y is not None:
            y = y[_places_of(y, outputs, places, channels=self._channels)].clone()
        rows = outputs.numel() // max(1, self._units(outputs)) if sample.numel() < outputs.numel() else None
        self.tape.add(self._loss, value, origin, sample.clone(), y, rows)

    def _units(self, outputs: torch.Tensor) -> int:
        return 1 if outputs.ndim < 2 else outputs.shape[1 if self._channels else -1]

    def _loss(
        self,
        value: Array,
        origin: Origin,
        outputs: Array | None = None,
        targets: Array | None = None,
        rows: int | None = None,
    ) -> None:
        before = self.row.loss_comes(origin)
        if outputs is None:
            self.recorder.loss(float(value))
        else:
            self.fire("on_loss", outputs, targets, float(value))
        self.row.loss_came(before, origin)
        if rows is not None:
            self._correct("outputs", ("rows", "squared_error"), (rows, math.nan))
            if targets is not None:
                self._correct("targets", ("rows",), (rows,))

    @part
    def losses_seen(self, parts: int) -> None:
        """What was seen to go back in this iteration were the losses of so many parts of its batch; 0: of nothing that counts."""
        self.tape.add(self._losses_seen, parts)

    def _losses_seen(self, parts: int) -> None:
        self.row.settle(parts)

    def _correct(self, part: str, statistics: tuple[str, ...], values: tuple[float, ...]) -> None:
        """Put what is known of the whole in place of what the sample says."""
        frame = self.row.buffers["outputs"]
        if frame.touched:
            frame.put(part, statistics, values)

    # Backward

    @part
    def output_gradient(self, gradient: torch.Tensor, scale: Any) -> None:
        """δ of the outputs, times `scale`."""
        gradient = dense(gradient)
        sample = gradient[measure.thinned(gradient, SAMPLE, channels=self._channels)]
        whole = None if sample.numel() == gradient.numel() else self._sums(gradient)
        self.tape.add(self._output_gradient, sample.clone(), scale, whole)

    def _sums(self, gradient: torch.Tensor) -> torch.Tensor:
        """Norm of δ summed over the batch, and the sum of its magnitudes."""
        rows = measure.unit_rows(gradient, channels=self._channels)
        parts = measure.chunks(rows)
        by_unit = torch.stack([part.sum(0, dtype=measure.exact(rows)) for part in parts]).sum(0)
        mass = torch.stack([vector_norm(part, 1, dtype=measure.exact(rows)) for part in parts]).sum()
        return torch.stack((vector_norm(by_unit), mass))

    def _output_gradient(self, sample: Array, scale: Any, whole: Array | None) -> None:
        self.fire("on_output_gradient", sample if float(scale) == 1 else sample / float(scale))
        if whole is not None:
            self._correct("outputs", ("gradient_sum", "gradient_mass"), tuple((whole / float(scale)).tolist()))

    @part
    def backward(self, layer: Layer, gradient: torch.Tensor, scale: Any) -> None:
        """δ of `layer`, times `scale`."""
        if gradient.numel():
            self.tape.add(self._backward, layer, gradient.numel(), scale, _magnitude(dense(gradient)))

    @part
    def measured_backward(self, layers: Sequence[Layer], vectors: Sequence[torch.Tensor], scale: Any) -> None:
        """δ of `layers`, times `scale`, as a compiled region has measured it: size, and the values of `measure.magnitude`."""
        self.tape.add(self._measured_backward, layers, scale, torch.stack(list(vectors)))

    def _measured_backward(self, layers: Sequence[Layer], scale: Any, vectors: Array) -> None:
        for layer, vector in zip(layers, vectors, strict=True):
            if vector[0]:
                self._backward(layer, int(vector[0]), scale, vector[1:])

    def _backward(self, layer: Layer, size: int, scale: Any, vectors: Array) -> None:
        self.fire("on_backward", layer, measure.as_magnitude(vectors, size, float(scale)))

    @part
    def gradients(self, parameters: Sequence[Parameter]) -> None:
        """The gradients of `parameters` are there."""
        for parameter in parameters:
            value, gradient = dense(parameter.tensor), parameter.tensor.grad
            gradient = None if gradient is None or parameter.frozen or not gradient.numel() else dense(gradient)
            pairs = gradient is not None and gradient.ndim > 1 and len(gradient) > 1 and gradient.shape == value.shape
            self.tape.add(
                self._gradient, parameter, parameter.frozen, value.numel(), parameter.scale,
                None if gradient is None else _magnitude(gradient),
                measure.rows_apart(value) if pairs else None, measure.rows_apart(gradient) if pairs else None,
                self._picture(value), None if gradient is None else self._picture(gradient),
            )  # fmt: skip
        self.tape.add(self._gradients)

    def _gradient(
        self, parameter: Parameter, frozen: bool, size: int, scale: Any, vectors: Array | None, rows: Array | None,
        gradient_rows: Array | None, values: Array | None, sample: Array | None,
    ) -> None:  # fmt: skip
        over, nan = float(scale), math.nan
        same = measure.same_rows(rows, SAME_WEIGHTS)
        gradient = Magnitude(0.0, size, 0, 0.0, size) if vectors is None else measure.as_magnitude(
            vectors, size, over, same=measure.same_rows(gradient_rows, SAME_GRADIENTS),
            sample=None if sample is None else sample / over)  # fmt: skip
        self._told.append(Told(parameter, Magnitude(nan, 0, 0, same=same, sample=values), gradient, frozen=frozen))

    def _gradients(self) -> None:
        told, self._told = self._told, []
        self.fire("on_gradients", told)

    @part
    def clipped(self, parameters: Sequence[Parameter]) -> None:
        """The gradients of `parameters` have been clipped."""
        left = {p: dense(g) for p in parameters if not p.frozen and (g := p.tensor.grad) is not None and g.numel()}
        if left:
            scales = [parameter.scale for parameter in left]
            self.tape.add(self._clipped, tuple(left), len(left), *measure.norms(list(left.values()), 2), *scales)

    def _clipped(self, parameters: Sequence[Parameter], number: int, *values: Any) -> None:
        told = []
        for parameter, norm, scale in zip(parameters, values[:number], values[number:], strict=True):
            left = Magnitude(float(norm) / float(scale), parameter.tensor.numel(), 0)
            told.append(Told(parameter, Magnitude(math.nan, 0, 0), left))
        self.fire("on_clipped", told)

    # The update

    @part
    def update_begins(self, parameters: Sequence[Parameter], lr: Any) -> None:
        """The optimiser is about to update `parameters`."""
        if not self.wants("on_update_begin"):
            return
        moving = [parameter for parameter in parameters if not parameter.frozen]
        self._least = max(1, -(-sum(p.tensor.numel() * p.tensor.element_size() for p in moving) // COPIED))
        self._before = {id(p.tensor): self._flat(p.tensor).clone() for p in moving}
        self.tape.add(self._update_begins, moving, self.number(lr))

    def _flat(self, tensor: torch.Tensor) -> torch.Tensor:
        return measure.every(dense(tensor), self._least)

    def _update_begins(self, parameters: Sequence[Parameter], lr: Any) -> None:
        nothing = Magnitude(math.nan, 0, 0)
        self.fire("on_update_begin", [Told(parameter, nothing, nothing) for parameter in parameters], float(lr))

    @part
    def update_ends(self, optimizer: Optimizer, parameters: Sequence[Parameter]) -> None:
        """`optimizer` has updated `parameters`."""
        before, self._before = self._before, {}
        moved = [p for p in parameters if id(p.tensor) in before and before[id(p.tensor)].numel()]
        if not moved or not self.wants("on_update_end"):
            return
        old = [before[id(p.tensor)] for p in moved]
        sizes = measure.norms(old, 2)
        changes = [self._flat(p.tensor).sub(one) for p, one in zip(moved, old, strict=True)]
        along = [self._along(change, p.tensor.grad) for p, change in zip(moved, changes, strict=True)]
        norms, largest = measure.norms(changes, 2), measure.norms(changes, math.inf)
        shares = [one.numel() / p.tensor.numel() for p, one in zip(moved, old, strict=True)]
        self.tape.add(self._update_ends, moved, shares, *sizes, *norms, *largest, *along)

    def _along(self, change: torch.Tensor, gradient: torch.Tensor | None) -> torch.Tensor:
        """Δw·g; NaN without a gradient."""
        if gradient is None:
            return change.new_full((), math.nan, dtype=measure.exact(change))
        dtype = measure.exact(change)
        return torch.dot(change.to(dtype), self._flat(gradient).to(dtype))

    def _update_ends(self, moved: Sequence[Parameter], shares: Sequence[float], *values: Array) -> None:
        table = np.array(values, np.float64).reshape(4, -1).T.tolist()
        updates = [measure.as_update(row, share) for row, share in zip(table, shares, strict=True)]
        told = [Told(parameter, update, None) for parameter, update in zip(moved, updates, strict=True)]
        self.fire("on_update_end", told)

    # The iteration

    @part
    def iteration(self, done: Iteration, kept: Any, scale: Any, *, by_hand: bool) -> None:
        """What was `done`, whether gradients were `kept`, and the `scale` of the loss: see `telling.loop_row`."""
        if self.reading:
            counts = done.backward_passes, done.updates
            self.tape.add(self._iteration, by_hand, *counts, kept, done.evaluation_mode, scale, *done.skips)

    def _iteration(
        self, by_hand: bool, passes: int, updates: int, kept: Any, evaluation: float, scale: Any, *skipped: Any
    ) -> None:
        row = loop_row(self.loop, passes, updates, skipped, kept, evaluation, scale, by_hand=by_hand)
        self.row.buffers["loop"].put("", LOOP, row)

    def logged(self, values: dict[str, Any]) -> dict[str, Any]:
        """Keep the numbers that the user has logged; the recorder takes at once what is none, to say so."""
        if self.tape.playing:
            return values
        numbers = {name: value for name, value in values.items() if isinstance(value, int | float | np.generic)}
        tensors = {
            name: one_value(name, t).detach().clone() for name, t in values.items() if isinstance(t, torch.Tensor)
        }
        if kept := numbers | tensors:
            self.tape.add(self._logged, tuple(kept), *kept.values())
        return {name: value for name, value in values.items() if name not in kept}

    def _logged(self, names: Sequence[str], *values: Any) -> None:
        self.recorder.log(**{name: _plain(value) for name, value in zip(names, values, strict=True)})

    def iteration_ends(self) -> None:
        """The iteration is over; whether the next is read is decided now, before anything of this one is known."""
        self.tape.add(self._iteration_ends, self.reading, self.clock.lap())
        recorder = self.recorder
        self._cadence.append(self.reading)
        self.reading = recorder.pace.next(recorder.step_number + len(self._cadence))
        if len(self._cadence) % ITERATIONS == 0 or self.tape.due:
            self.tape.send()
        self._play(wait=False)

    def _iteration_ends(self, read: bool, lap: Callable[[], tuple[float, float]]) -> None:
        self._cadence.pop(0)
        self.fire("on_step_end")
        owed, bare = lap()
        self.recorder.pace.owe(owed)
        if self.loop.compiled.traced:
            self.recorder.pace.owe(self.loop.compiled.surcharge.of(read, bare, self.recorder.pace))

    def _recall(self, step: int) -> bool:
        """Whether the iteration that is told next was read."""
        return self._cadence[0] if self._cadence else self.reading

    def catch_up(self) -> None:
        """Tell everything, and wait for what is still on the device."""
        if not self.tape.playing:
            self.tape.send()
            self._play(wait=True)

    def _play(self, *, wait: bool) -> None:
        while self.tape.arrived(wait=wait):
            with self.recorder.pace.owing(), np.errstate(all="ignore"):
                self.tape.play()

    def leave(self) -> None:
        """Tell everything, and leave the recorder as it was."""
        self.catch_up()
        self.recorder.cadence = None

    @property
    def row(self) -> MeasuredRow:
        """The recorder's row."""
        row = self.recorder.row
        assert isinstance(row, MeasuredRow)
        return row


class Told:
    """A parameter as late events speak of it: with measured values instead of arrays, and frozen or not as it was then."""

    def __init__(self, parameter: Parameter, value: Any, gradient: Any, *, frozen: bool = False) -> None:
        self.name, self.kind, self.frozen = parameter.name, parameter.kind, frozen
        self.value, self.gradient = value, gradient


class Clock:
    """Times what is measured, and the steps, on a CPU."""

    def __init__(self) -> None:
        self._parts = 0.0
        self._ended = perf_counter()

    def start(self) -> None:
        """A part begins."""

    def stop(self, seconds: float) -> None:
        """It has been launched, in so many seconds."""
        self._parts += seconds

    def lap(self) -> Callable[[], tuple[float, float]]:
        """A step ends. The function that gives, once the device has done it, the seconds that the step's parts have taken there
        beyond their launching, and the step's own without them."""
        now = perf_counter()
        bare = now - self._ended - self._parts
        self._ended, self._parts = now, 0.0
        return lambda: (0.0, bare)


class CudaClock(Clock):
    """Times with events between the kernels: what waits in the device's own queue is not seen by the clock of the host."""

    def __init__(self) -> None:
        super().__init__()
        self._pairs: list[tuple[Any, Any]] = []
        self._end = _now()

    def start(self) -> None:
        self._pairs.append((_now(), None))

    def stop(self, seconds: float) -> None:
        super().stop(seconds)
        self._pairs[-1] = self._pairs[-1][0], _now()

    def lap(self) -> Callable[[], tuple[float, float]]:
        pairs, launching, begin, end = self._pairs, self._parts, self._end, _now()
        self._pairs, self._parts, self._end = [], 0.0, end

        def seconds() -> tuple[float, float]:
            parts = sum(one.elapsed_time(other) for one, other in pairs) / 1e3
            return max(0.0, parts - launching), begin.elapsed_time(end) / 1e3 - parts

        return seconds


def _now() -> Any:
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _clock(loop: TorchLoop) -> Clock:
    devices = {parameter.tensor.device for parameter in loop.parameters}
    return CudaClock() if len(devices) == 1 and devices.pop().type == "cuda" else Clock()


def _capturing() -> bool:
    """Whether a CUDA graph is being captured: what is launched now would be part of it."""
    return bool(torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing())


def _magnitude(tensor: torch.Tensor) -> torch.Tensor:
    return torch.stack([measure.magnitude(part) for part in measure.chunks(tensor.reshape(-1))])


def _places_of(
    targets: torch.Tensor, outputs: torch.Tensor, places: tuple[slice, ...], *, channels: bool
) -> tuple[slice, ...]:
    """The places of the targets of a sample of outputs."""
    if targets.ndim and targets.shape != outputs.shape and channels:
        return (places[0], *places[2:])
    return places[: targets.ndim] if targets.shape == outputs.shape[: targets.ndim] else places[:1] * bool(targets.ndim)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.ndarray) else value
