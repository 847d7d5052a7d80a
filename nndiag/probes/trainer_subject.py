"""An `nndiag.nn.Trainer` as the subject of probes."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from nndiag.errors import NndiagError, UnknownName
from nndiag.losses import smoothed_floor
from nndiag.nn import Dropout, Sequential, Trainer
from nndiag.nn.layers import Layer
from nndiag.nn.schedules import Constant, base_lr
from nndiag.probes.subject import Passed, Shape, binary_entropy, entropy
from nndiag.statistics import Array


def subject(target: Any, x: ArrayLike, y: ArrayLike, loss: Any = None, optimizer: Any = None) -> TrainerSubject:
    """The subject of a trainer with training data x (N, width), y (N, …).

    Raises UnknownName for anything but a trainer, NndiagError for a loss or an optimiser beside the trainer's own and for
    samples of which none is finite.
    """
    if not isinstance(target, Trainer):
        raise UnknownName(
            f"a probe needs an nndiag.nn.Trainer, got {type(target).__module__}.{type(target).__qualname__}"
        )
    if loss is not None or optimizer is not None:
        raise NndiagError("a trainer has a loss and an optimiser of its own: leave loss= and optimizer= out")
    return TrainerSubject(target, *finite(x, y))


def finite(x: ArrayLike, y: ArrayLike) -> tuple[Array, Array]:
    """The samples of `x`, `y` without NaN or infinity: those are ND001's. Raises NndiagError if none is left."""
    x, y = np.asarray(x), np.asarray(y)
    if not len(x) or len(x) != len(y):
        raise NndiagError(f"a probe needs as many inputs as targets, and some: got shapes {x.shape} and {y.shape}")
    good = np.isfinite(x.reshape(len(x), -1)).all(axis=1) & np.isfinite(y.reshape(len(y), -1)).all(axis=1)
    if not good.any():
        raise NndiagError("a probe needs samples without NaN or infinity; there is not one")
    return x[good], y[good]


class TrainerSubject:
    """A trainer and its finite samples."""

    positions = 1
    lacks: tuple[str, ...] = ()

    def __init__(self, trainer: Trainer, x: Array, y: Array) -> None:
        self._trainer, self._x, self._y = trainer, x, y
        self.samples = len(x)
        self.lr: float | None = base_lr(copy.deepcopy(trainer.optimizer.schedule))

    def copy(
        self, *, dropout: bool = True, decay: bool = True, double: bool = False, zeroed: bool = False
    ) -> TrainerPupil:
        model = copy.deepcopy(self._trainer.model)
        for layer in model.layers:
            if isinstance(layer, Dropout) and not dropout:
                layer.p = 0.0
        x = np.zeros_like(self._x) if zeroed else self._x
        if double:
            _to_double(model)
            x = x.astype(np.float64)
        optimizer = copy.deepcopy(self._trainer.optimizer)
        if not decay:
            optimizer.weight_decay = 0.0
        pupil = Trainer(model, copy.deepcopy(self._trainer.loss), optimizer, clip_norm=self._trainer.clip_norm)
        widths = {layer["name"]: tuple(layer["shape"]) for layer in self._trainer.describe()["layers"]}
        return TrainerPupil(pupil, x, self._y, widths)

    def seeded(self, seed: int) -> nullcontext[None]:
        return nullcontext()  # layers draw from generators of their own, which are copied with them


class TrainerPupil:
    """A trainer of the probe's own."""

    def __init__(self, trainer: Trainer, x: Array, y: Array, widths: Mapping[str, tuple[int, ...]]) -> None:
        self._trainer, self._x, self._y, self._widths = trainer, x, y, widths
        self._lr = base_lr(trainer.optimizer.schedule)
        self._trained = [p for p in trainer.model.parameters if not p.frozen]

    def outputs(self, rows: Array) -> Array:
        with np.errstate(all="ignore"):
            outputs = self._trainer.model.forward(self._x[rows])
        if outputs.ndim < 1 or len(outputs) != len(rows):
            raise NndiagError(f"the model gave outputs {outputs.shape} for a batch of {len(rows)}")
        return outputs.reshape(len(rows), -1).astype(np.float64)

    def loss(self, rows: Array, training: bool = True, targets: Array | None = None) -> float:
        with np.errstate(all="ignore"):
            outputs = self._trainer.model.forward(self._x[rows], training)
            return float(self._trainer.loss(outputs, self._y[rows if targets is None else targets]))

    def gradients(self, rows: Array) -> dict[str, Array]:
        self.loss(rows)
        with np.errstate(all="ignore"):
            self._trainer.model.backward(self._trainer.loss.backward())
        return {p.name: p.gradient.astype(np.float64) for p in self._trained}

    def read(self) -> dict[str, Array]:
        return {p.name: p.value.astype(np.float64) for p in self._trained}

    def write(self, name: str, value: Array) -> None:
        next(p for p in self._trained if p.name == name).value[...] = value

    def step(self, rows: Array, factor: float = 1.0) -> float:
        self._trainer.optimizer.schedule = Constant(self._lr * factor)
        return self._trainer.step(self._x[rows], self._y[rows])

    def layers(self, rows: Array, training: bool) -> list[Passed]:
        model, loss = self._trainer.model, self._trainer.loss
        passed: list[tuple[Layer, Array]] = []
        deltas: dict[str, Array] = {}

        def keep(layer: Layer, _: Array, output: Array) -> None:
            passed.append((layer, output.astype(np.float64)))

        def keep_delta(layer: Layer, gradient: Array) -> None:
            deltas[layer.name] = gradient.astype(np.float64)

        with np.errstate(all="ignore"):
            outputs = model.forward(self._x[rows], training=training, observe=keep)
            if training:
                loss(outputs, self._y[rows])
                model.backward(loss.backward(), observe=keep_delta)
        return [Passed(layer.name, layer.kind, output, deltas.get(layer.name)) for layer, output in passed]

    def shapes(self, rows: Array) -> list[Shape]:
        found: list[Shape] = []

        def keep(layer: Layer, _: Array, output: Array) -> None:
            found.append(Shape(layer.name, output.shape, (len(rows), *self._widths[layer.name])))

        with np.errstate(all="ignore"):
            self._trainer.model.forward(self._x[rows], observe=keep)
        return found

    def floor(self, rows: Array) -> float:
        loss, targets = self._trainer.loss, self._y[rows]
        soft = targets.dtype.kind == "f" and targets.size > 0 and targets.min() >= 0 and targets.max() <= 1
        if loss.task == "binary":
            return binary_entropy(targets) if soft else 0.0
        parameters = self._trainer.model.parameters
        width = parameters[-1].value.shape[0] if parameters else 1
        if loss.task == "classes" and soft and targets.ndim == 2:
            smoothing = loss.label_smoothing
            return entropy((1 - smoothing) * targets + smoothing / width)
        return smoothed_floor(loss.label_smoothing, width)


def _to_double(model: Sequential) -> None:
    for parameter in model.parameters:
        parameter.value = parameter.value.astype(np.float64)
        parameter.gradient = np.zeros_like(parameter.value)
