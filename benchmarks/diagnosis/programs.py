"""A training program as a value that faults can change, and how one is trained and judged."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import numpy as np

import nndiag
from benchmarks.diagnosis.data import Data
from nndiag import nn
from nndiag.nn.initializers import Initializer
from nndiag.nn.schedules import Schedule
from nndiag.run import Run
from nndiag.statistics import Array

Task = Literal["classes", "binary", "labels", "real"]
"""One of C, yes or no by one output, several yes or no, a real number."""

EditData = Callable[[Data, np.random.Generator], Data]
EditLayers = Callable[[list[nn.Layer]], list[nn.Layer]]
EditModel = Callable[[nn.Sequential], None]


@dataclass(frozen=True)
class Program:
    """What is trained, on which data and how; `replace` makes another program of it.

    `decide` makes decisions of raw outputs: the largest output, a threshold at 0 or 0.5, the nearest id, or the number
    itself. The three tuples of edits apply to the data, to the layers before the model is put together, and to the
    model. `patience` is that of early stopping, in epochs.
    """

    name: str
    task: Task
    load: Callable[[int], Data]
    outputs: int
    hidden: tuple[int, ...] = (32,)
    activation: str | None = "relu"
    init: str | Initializer | None = None
    dropout: float = 0.0
    norm: Literal["layer", "batch"] | None = None
    dtype: str = "float32"
    head: tuple[Callable[[], nn.Layer], ...] = ()
    loss: Callable[[], nn.Loss] = nn.SoftmaxCrossEntropy
    decide: Literal["argmax", "sign", "half", "round", "real"] = "argmax"
    optimizer: Callable[..., nn.Optimizer] = nn.SGD
    lr: float = 0.1
    settings: Mapping[str, Any] = field(default_factory=dict)
    schedule: Callable[[float, int], Schedule] | None = None
    epochs: int = 10
    batch_size: int = 32
    shuffle: bool = True
    clip_norm: float | None = None
    validate: bool = True
    patience: int | None = None
    data_edits: tuple[EditData, ...] = ()
    layer_edits: tuple[EditLayers, ...] = ()
    model_edits: tuple[EditModel, ...] = ()

    def data(self, seed: int) -> Data:
        """The data as this program sees them."""
        data = self.load(seed)
        for number, edit in enumerate(self.data_edits):
            data = edit(data, np.random.default_rng([seed, number, 1]))
        return data

    def model(self, inputs: int, seed: int) -> nn.Sequential:
        """The network for inputs of this width."""
        sizes = [inputs, *self.hidden, self.outputs]
        layers = nn.MLP(sizes, self.activation, self.init, self.dropout, self.norm, self.dtype, seed).layers
        for edit in self.layer_edits:
            layers = edit(layers)
        model = nn.Sequential([*layers, *(layer() for layer in self.head)], seed)
        for amend in self.model_edits:
            amend(model)
        return model

    def updates(self, samples: int) -> int:
        """Number of updates that the program makes on this many samples."""
        return self.epochs * -(-samples // self.batch_size)

    def trainer(self, data: Data, seed: int) -> nn.Trainer:
        """The trainer of a new model."""
        rate = self.schedule(self.lr, self.updates(len(data.x))) if self.schedule else self.lr
        optimizer = self.optimizer(rate, **self.settings)
        model = self.model(data.x.shape[1], seed)
        return nn.Trainer(model, self.loss(), optimizer, clip_norm=self.clip_norm, seed=seed)

    def edit_data(self, *edits: EditData, **changes: Any) -> Program:
        """This program with more edits of the data."""
        return replace(self, data_edits=(*self.data_edits, *edits), **changes)

    def edit_layers(self, *edits: EditLayers, **changes: Any) -> Program:
        """This program with more edits of the layers."""
        return replace(self, layer_edits=(*self.layer_edits, *edits), **changes)

    def edit_model(self, *edits: EditModel, **changes: Any) -> Program:
        """This program with more edits of the model."""
        return replace(self, model_edits=(*self.model_edits, *edits), **changes)

    def set(self, **settings: Any) -> Program:
        """This program with other settings of its optimiser."""
        return replace(self, settings={**self.settings, **settings})


Cadence = Mapping[str, Any]
"""How often runs are read: arguments of `nndiag.watch`."""

Curve = list[dict[str, float]]
"""What each epoch gave: `loss` and, where the program validates, `validation_loss`."""


class Trained(NamedTuple):
    """A run, its final error, and its losses by epoch."""

    run: Run
    error: float
    curve: Curve


EVERY_STEP: Cadence = {"every": 1}

SELDOM: Cadence = {"every": "auto", "budget": 1e-9}
"""As few reads as the default ever makes: the first 50 steps and each growth of the run by a quarter, whatever the clock."""


def train(program: Program, seed: int, cadence: Cadence = EVERY_STEP) -> Trained:
    """Train `program` under the eyes of nndiag, which reads it so often."""
    data = program.data(seed)
    trainer = program.trainer(data, seed)
    curve: Curve = []
    with nndiag.watch(trainer, **cadence) as recorder:
        sound = fit(program, trainer, data, curve)
    return Trained(recorder.run, error(program, trainer, data) if sound else math.inf, curve)


def final_error(program: Program, seed: int) -> tuple[float, Curve]:
    """Train `program` unseen: its final error, and its losses by epoch."""
    data = program.data(seed)
    trainer = program.trainer(data, seed)
    curve: Curve = []
    return (error(program, trainer, data) if fit(program, trainer, data, curve) else math.inf), curve


def fit(program: Program, trainer: nn.Trainer, data: Data, curve: Curve) -> bool:
    """Train as `program` says and add to `curve`; False where training raised, which ends it."""
    validation = (data.x_val, data.y_val) if program.validate else None
    rounds = [program.epochs] if program.patience is None else [1] * program.epochs
    try:
        for epochs in rounds:
            curve += trainer.fit(data.x, data.y, validation=validation, epochs=epochs, batch_size=program.batch_size,
                                 shuffle=program.shuffle)  # fmt: skip
            if program.patience is not None and _best(curve) < len(curve) - program.patience:
                break
    except Exception:  # whatever a broken program raises, its record stays
        return False
    return True


def _best(curve: Curve) -> int:
    """Number of the best epoch, from 1."""
    return 1 + int(np.argmin([epoch["validation_loss"] for epoch in curve]))


def error(program: Program, trainer: nn.Trainer, data: Data) -> float:
    """How wrong the trained model is on the true task: share of wrong decisions, or 1 − R²; inf where it gives NaN."""
    outputs = trainer.predict(data.x_test).astype(np.float64)
    if not np.isfinite(outputs).all():
        return math.inf
    wanted = data.y_test.reshape(len(outputs), -1)
    if program.task == "real":
        return float(np.mean((outputs - wanted) ** 2) / np.var(wanted))
    return float(np.mean(_decisions(outputs, program.decide) != wanted))


def _decisions(outputs: Array, decide: str) -> Array:
    decisions: Array
    match decide:
        case "sign":
            decisions = outputs > 0
        case "half":
            decisions = outputs > 0.5
        case "round":
            decisions = np.rint(outputs)
        case _:
            decisions = outputs.argmax(axis=1)[:, None]
    return decisions
