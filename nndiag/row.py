"""The Row under way: the meters of a recorder, and what they have seen of the current step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from nndiag import frames
from nndiag import statistics as st
from nndiag.errors import NndiagError, ShapeError
from nndiag.held_out import Evaluated, HeldOut, SeenRows, SharedRows
from nndiag.meters import ActivationMeter, DataMeter, GradientMeter, OutputMeter, UpdateMeter
from nndiag.statistics import Array
from nndiag.table import Buffer, Buffers, Slot

_Meter = TypeVar("_Meter", ActivationMeter, GradientMeter, UpdateMeter)

SAME_LOSS = 1e-3
"""Relative difference up to which a loss that is told and one that was seen are the same, but for rounding."""


class Origin(NamedTuple):
    """Where a loss of training comes from: `told` by the user, `seen` to go back, or both.

    One that comes `again` replaces the last that was told or, where it is only seen, all that were seen in this step; one that is
    `added` is summed onto the last seen.
    """

    told: bool
    seen: bool
    again: bool = False
    added: bool = False


class Row:
    """Takes the arrays of one step, which are a recorder's to check and to time, and fills the row of every frame.

    Hooks feed it directly, on steps that are read and with NumPy's floating-point warnings off; a loop of its own goes
    through the methods of the same names of `Recorder`.
    """

    def __init__(self) -> None:
        self.epoch = 0
        self._first_epoch: int | None = None
        self.loss: Mapping[str, Any] = {}
        self.buffers = Buffers()
        self._activations: dict[str, ActivationMeter] = {}
        self._gradients: dict[str, GradientMeter] = {}
        self._updates: dict[str, UpdateMeter] = {}
        self._losses: tuple[Buffer, Slot] | None = None
        self._outputs = OutputMeter(self.buffers["outputs"])
        self._data = DataMeter(self.buffers["data"])
        self._samples = SeenRows()
        self._held_out: HeldOut | None = None
        self._evaluated = Evaluated()
        self.shared: SharedRows | None = None
        """Where passes that are no training are seen: their rows beside those of training."""
        self._compared = 0
        self._read_steps = self._all_steps = 0
        self._told = self._untold = 0
        """Steps whose loss was told, and steps whose loss was only seen."""
        self._begin()

    def _begin(self) -> None:
        self.train: list[float] = []
        self.seen: list[float] = []
        """Losses that an adapter saw go back: they stand where none is told."""
        self.validation = math.nan
        self.nonfinite = 0
        self._signal = self._input = math.nan
        self._first = ""

    # Forward

    def data(self, x: Array, y: Array | None) -> None:
        """A batch: inputs (batch, …) and targets (batch,) or (batch, …). Raises ShapeError unless there are as many of each."""
        if not x.size:
            return
        if y is not None and x.shape[:1] != y.shape[:1]:
            raise ShapeError(
                f"data() got inputs of shape {x.shape} and targets of shape {y.shape}; give as many of each"
            )
        summary = self._data.inputs(x)
        self._signal = self._input = summary.rms
        self.nonfinite += summary.nonfinite
        if self.shared is not None:
            self._share(self.shared.train(x))
        if y is not None:
            self.targets(y)

    def targets(self, y: Array) -> None:
        """The targets alone of a batch."""
        if y.size:
            self.nonfinite += self._data.targets(y, self._task)

    @property
    def remembers(self) -> bool:
        """Whether the rows of training batches are remembered, to find them in the validation set: in the first epoch here."""
        return self._first_epoch in (None, self.epoch) and self._held_out is not None

    def remember(self, x: Array) -> None:
        """The inputs of a training batch, whether its step is read or not."""
        if self.remembers:
            self._samples.add(x)

    def guard(self, x: Array, y: Array | None, *, counted: bool) -> None:
        """A batch of which nothing is recorded unless an input is not finite; `counted` among the samples that were read."""
        rms = st.root_mean_square(x)
        if not math.isfinite(rms) and not st.all_finite(x):
            self.data(x, y)
            return
        if counted:
            self._signal = self._input = rms
            self._data.samples += len(x)

    def validation_data(self, x: Array, y: Array) -> None:
        """What the validations that follow are made on: inputs (samples, …) and targets (samples, …)."""
        before = self._held_out
        self._held_out = HeldOut(x, y, binary=self._task == "binary") if x.size and len(x) == len(y) else None
        if before is None or self._held_out is None or not self._held_out.has_rows_of(before):
            self._compared = 0  # it is compared with all training rows so far, as those of folds before

    def evaluated(self, x: Array) -> None:
        """The inputs (samples, …) of a pass that is no training, after some that are: how they compare with those."""
        train = self._data.features
        if train is not None and (compared := self._evaluated.add(x, train)):
            self.buffers["evaluations"].put("unknown", frames.MOVED, compared)
        if self.shared is not None and x.ndim:
            self._share(self.shared.evaluate(x))

    def _share(self, known: tuple[float, ...] | None) -> None:
        if known is not None:
            self.buffers["evaluations"].put("unknown", frames.SHARED, known)

    def activation(self, name: str, array: Array, slope: Array | None, *, whole: bool = True) -> None:
        """What layer `name` put out: (batch, …, units) or (batch,); unless `whole`, extremes and zeros only if it has grown."""
        meter = self._activations.get(name) or self._meter(self._activations, ActivationMeter, name, "activations")
        if name == self._first:
            self._signal = self._input  # another pass of this step begins
        self._first = self._first or name
        rows = array if array.ndim > 1 else array.reshape(-1, 1)
        self.nonfinite += meter.forward(rows, slope, self._signal, whole=whole)
        self._signal = meter.rms

    def moments(self, name: str, array: Array) -> None:
        """Mean and variance alone of what layer `name` put out."""
        meter = self._activations.get(name) or self._meter(self._activations, ActivationMeter, name, "activations")
        meter.moments(array)

    def outputs(self, outputs: Array, y: Array | None) -> None:
        """Outputs of the network, (batch, …, units), as they go into the loss, and the targets."""
        self.nonfinite += self._outputs.outputs(outputs, y, self.loss)

    # Backward

    def output_gradient(self, gradient: Array) -> None:
        """δ of the outputs."""
        self._outputs.gradient(gradient)

    def activation_gradient(self, name: str, array: Array) -> None:
        """δ of what layer `name` put out."""
        meter = self._activations.get(name) or self._meter(self._activations, ActivationMeter, name, "activations")
        self.nonfinite += meter.backward(array)

    def gradient(self, name: str, array: Array) -> None:
        """The norm of the gradient of parameter `name`, before clipping."""
        meter = self._gradients.get(name) or self._meter(self._gradients, GradientMeter, name, "gradients")
        self.nonfinite += meter.norm(array)

    def gradient_extremes(self, name: str, array: Array, weights: Array | None) -> None:
        """The rest of the gradient of parameter `name`, after `gradient`; with `weights`, also whether all units are the same."""
        self._gradients[name].extremes(array, weights)

    def clipped_gradient(self, name: str, array: Array) -> None:
        """The norm of the gradient of parameter `name` after clipping."""
        meter = self._gradients.get(name) or self._meter(self._gradients, GradientMeter, name, "gradients")
        meter.clipped(array)

    # The update

    def before_update(self, name: str, weights: Array, *, copy: bool, whole: bool = True, unread: int = 0) -> None:
        """The weights of parameter `name` before the update; without `copy` the loop hands over what is subtracted.

        Unless `whole`, their norm is kept while they have hardly moved, in `unread` updates since the last one, too.
        """
        meter = self._updates.get(name) or self._meter(self._updates, UpdateMeter, name, "updates")
        meter.before(weights, copy=copy, whole=whole, unread=unread)

    def update(self, name: str, update: Array | None, gradient: Array | None, factor: float = 1.0) -> None:
        """What the optimiser has subtracted from parameter `name`, `factor` times one array, where it is that.

        Without a gradient, which way the update went is not said.
        """
        if meter := self._updates.get(name):
            meter.subtracted(update, gradient, factor)

    def after_update(self, name: str, weights: Array, gradient: Array | None) -> None:
        """The weights of parameter `name` after the update. Raises NndiagError where nothing came before."""
        meter = self._updates.get(name)
        if meter is None:
            raise NndiagError(f"after_update({name!r}) came without before_update({name!r}); call that before the step")
        meter.after(weights, gradient)

    # Numbers

    def metric(self, split: str, name: str, value: float) -> None:
        """A number of this step."""
        self.buffers["metrics"].put(split, (name,), (value,))

    def validated(self, loss: float) -> None:
        """The loss of a validation; with it, how its data compare with the training samples, where there are new ones."""
        self.validation = loss
        self.nonfinite += not math.isfinite(loss)
        if self._held_out is not None and self._samples.count > self._compared:
            self._compared = self._samples.count
            compared = self._held_out.compared(self._samples, self._data.features, self._data.labels)
            self.buffers["evaluations"].put("validation", frames.VALIDATION, compared)

    def dropped(self, share: float) -> None:
        """The share of the values that dropout has taken out of an evaluation, 0 where it rested."""
        self.buffers["evaluations"].put("validation", frames.DROPPED, (share,))

    def histogram(self, name: str, array: Array) -> None:
        """A histogram of the finite values of `array`."""
        if entry := frames.histogram_entry(array):
            self.buffers["histograms"].put(name, frames.HISTOGRAM, entry)

    # The clock

    def begin_epoch(self, epoch: int) -> None:
        """Epoch `epoch`, from 0, begins. Where every step of the one before was read, all units had their chance to speak."""
        self.epoch = epoch
        if self._first_epoch is None:
            self._first_epoch = epoch
        if self._read_steps == self._all_steps:
            for meter in self._activations.values():
                meter.turn()
        self._read_steps = self._all_steps = 0

    def loss_comes(self, origin: Origin) -> int:
        """A loss of this origin comes; gives back how many are there."""
        if origin.again and origin.told:
            del self.train[-1:]
        elif origin.again:
            self.seen.clear()
        return len(self.train)

    def loss_came(self, before: int, origin: Origin) -> None:
        """It has come, when `before` were there."""
        came = self.train[before:]
        if origin.added and self.seen:
            self.seen[-1] += sum(came)
        elif origin.seen:
            self.seen += came
        if not origin.told:
            del self.train[before:]

    def settle(self, parts: int) -> None:
        """The losses seen in this step were each divided by the number of `parts` of its batch; with 0, they led to no update."""
        self.seen[:] = [sum(self.seen)] if self.seen and parts else []

    def take_back(self, *, loss: bool) -> None:
        """What went forward in this row, and with `loss` the last of its losses, was no training: what comes takes its place."""
        for meter in self._activations.values():
            meter.take_back()
        self._first = ""
        if loss:
            del self.train[-1:]

    def fill(self, recording: bool) -> None:
        """Put what was gathered for this step into the rows; doing it twice changes nothing."""
        (train, other), validation = self._settled, self.validation
        if other:
            self.metric("train", "logged_loss", _mean(other))
        if train or validation == validation:
            loss = _mean(train) if train else math.nan
            buffer, slot = self._losses or self._make_losses()
            buffer.fill(slot, (self.epoch, loss, validation))
        if self.nonfinite or (recording and train):
            self.buffers["metrics"].put("train", frames.NONFINITE, (self.nonfinite,))

    def pass_over(self, step: int) -> bool:
        """Finish the row of `step`, which is not read, if at most a loss has come in it, as in most; whether that was so."""
        buffers, train, losses = self.buffers, self.train, self._losses
        if buffers.opened or self.nonfinite or self.validation == self.validation:
            return False
        if self.shared is not None and not self.shared.complete:
            return False
        if self.seen or self._untold:
            train, other = self._settled
            if other:
                return False
        if len(train) > 1 or (train and losses is None):
            return False
        self._count_losses()
        if train and losses:
            buffers.append(losses[0], [step, self.epoch, train[0], math.nan])
            self.train, self.seen = [], []
        self._all_steps += 1
        return True

    def rested(self, step: int, number: int, losses: Sequence[float]) -> None:
        """Finish the rows of `number` steps from `step` on, of which nothing was taken but, of the first or of all, the loss."""
        self._all_steps += number
        if losses:
            buffer, _ = self._losses or self._make_losses()
            rows: list[float] = []
            for loss in losses:
                rows += (step, self.epoch, loss, math.nan)
                step += 1
            self.buffers.append(buffer, rows, len(losses))

    def _make_losses(self) -> tuple[Buffer, Slot]:
        """The buffer of the losses, and where they stand in its row."""
        buffer = self.buffers["losses"]
        self._losses = buffer, buffer.slot("", frames.LOSS)
        return self._losses

    def close(self, step: int, recording: bool) -> list[tuple[Buffer, list[float]]]:
        """Finish the row of `step`: of every frame of which something was recorded the step and the values."""
        self._all_steps += 1
        if self.shared is not None and not recording and not self.shared.complete:
            self.shared = None  # a batch was not looked at
        self.fill(recording)
        self._count_losses()
        self._read_steps += recording
        self._begin()
        if recording:
            self._outputs.begin_step()
        return self.buffers.close(step)

    def _count_losses(self) -> None:
        """Whether the loss of this step was told, or only seen; where none is ever seen, nobody asks."""
        if self.seen or self._untold:
            self._told += bool(self.train)
            self._untold += bool(self.seen) and not self.train

    @property
    def _settled(self) -> tuple[list[float], list[float]]:
        """What stands for the loss of this step, and what was told as such but is another number, told now and then."""
        told, seen = self.train, self.seen
        if not told or self._told < self._untold:
            return seen, [] if _same(told, seen) else told
        return told, []

    @property
    def _task(self) -> str:
        return str(self.loss.get("task") or "")

    def _meter(self, meters: dict[str, _Meter], kind: Callable[[str, Buffer], _Meter], name: str, frame: str) -> _Meter:
        if not isinstance(name, str):
            raise TypeError(f"wanted the name of a layer or parameter, got {name!r}")
        meter = meters[name] = kind(name, self.buffers[frame])
        return meter


def _mean(losses: list[float]) -> float:
    return losses[0] if len(losses) == 1 else sum(losses) / len(losses)


def _same(told: list[float], seen: list[float]) -> bool:
    """Whether what is told, if anything, is what was seen, in the mean or in the last micro-batch."""
    like = (_mean(seen), seen[-1]) if seen and told else ()
    return not told or any(math.isclose(_mean(told), one, rel_tol=SAME_LOSS) for one in like)
