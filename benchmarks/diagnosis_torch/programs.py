"""A training program as a value that faults can change, and how one is trained and judged."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.diagnosis.data import Data
from benchmarks.diagnosis_torch import loops
from benchmarks.diagnosis_torch.loops import Batches, Epoch, Judge, Loop, LossFunction
from nndiag.statistics import Array

Task = Literal["classes", "binary", "labels", "real"]
EditData = Callable[[Data, np.random.Generator], Data]
EditModel = Callable[[nn.Module], nn.Module]
Watch = Callable[[nn.Module, Any], Any]
"""Takes the model and the optimiser and gives a recorder, as `nndiag.watch` does."""


def everything(model: nn.Module) -> list[Tensor]:
    """All parameters."""
    return list(model.parameters())


def head_parameters(model: nn.Module) -> list[Tensor]:
    """Those of the head alone."""
    return list(model.head.parameters())


@dataclass(frozen=True)
class Program:
    """What is trained, on which data and how; `replace` makes another program of it.

    `build` makes the model, `optimised` picks the parameters that the optimiser gets, `schedule` takes the optimiser and
    the number of batches of an epoch. `model_edits` come before the optimiser is made, `late_edits` after. `slices`
    cuts batches by hand instead of by a DataLoader.
    """

    name: str
    task: Task
    load: Callable[[int], Data]
    build: Callable[[], nn.Module]
    loss: LossFunction
    judge: Judge
    optimizer: Callable[..., Any] = torch.optim.Adam
    lr: float = 1e-3
    settings: Mapping[str, Any] = field(default_factory=dict)
    schedule: Callable[[Any, int], Any] | None = None
    epochs: int = 10
    batch_size: int = 32
    shuffle: bool = True
    slices: bool = False
    epoch: Epoch = loops.plain
    evaluate: Epoch = loops.evaluate
    optimised: Callable[[nn.Module], list[Tensor]] = everything
    data_edits: tuple[EditData, ...] = ()
    model_edits: tuple[EditModel, ...] = ()
    late_edits: tuple[EditModel, ...] = ()

    def data(self, seed: int) -> Data:
        """The data as this program sees them."""
        data = self.load(seed)
        for number, edit in enumerate(self.data_edits):
            data = edit(data, np.random.default_rng([seed, number, 1]))
        return data

    def model(self) -> nn.Module:
        """The network, with what is edited before the optimiser sees it."""
        model = self.build()
        for edit in self.model_edits:
            model = edit(model)
        return model

    def loop(self, data: Data, seed: int, watch: Watch | None, *, logged: bool = True) -> tuple[Loop, Any]:
        """Everything a loop needs, and the recorder if it is watched; the loss of training is `logged` or left to be seen."""
        torch.manual_seed(seed)
        model = self.model()
        optimizer = self.optimizer(self.optimised(model), lr=self.lr, **self.settings)
        for edit in self.late_edits:
            model = edit(model)
        batches = self.batches(data.x, data.y, self.shuffle)
        scheduler = self.schedule(optimizer, -(-len(data.x) // self.batch_size)) if self.schedule else None
        recorder = watch(model, optimizer) if watch else None
        judge = None if self.task == "real" else self.judge
        log = _nothing if recorder is None else recorder.log if logged else _without_loss(recorder.log)
        loop = Loop(
            model, optimizer, self.loss, batches, self.batches(data.x_val, data.y_val, False), log, scheduler, judge
        )
        return loop, recorder

    def batches(self, x: Array, y: Array, shuffle: bool) -> Batches:
        """Batches anew each time they are gone through."""
        if self.slices:
            return Slices(tensor(x), tensor(y), self.batch_size, shuffle)
        few = len(x) % self.batch_size == 1  # a single sample is no batch for batch norm
        dataset = TensorDataset(tensor(x), tensor(y))
        loader: Batches = DataLoader(dataset, self.batch_size, shuffle=shuffle, drop_last=shuffle and few)
        return loader

    def edit_data(self, *edits: EditData, **changes: Any) -> Program:
        """This program with more edits of the data."""
        return replace(self, data_edits=(*self.data_edits, *edits), **changes)

    def edit_model(self, *edits: EditModel, **changes: Any) -> Program:
        """This program with more edits of the model."""
        return replace(self, model_edits=(*self.model_edits, *edits), **changes)

    def set(self, **settings: Any) -> Program:
        """This program with other settings of its optimiser."""
        return replace(self, settings={**self.settings, **settings})


@dataclass(frozen=True)
class Slices:
    """Batches cut by hand out of a permutation, with what is left over as a last, smaller one."""

    x: Tensor
    y: Tensor
    batch_size: int
    shuffle: bool

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        count = len(self.x)
        order = torch.randperm(count) if self.shuffle else torch.arange(count)
        for start in range(0, count, self.batch_size):
            rows = order[start : start + self.batch_size]
            yield self.x[rows], self.y[rows]


def tensor(array: Array) -> Tensor:
    """Ids as int64, everything else as float32."""
    return torch.as_tensor(array, dtype=torch.int64 if array.dtype.kind in "iub" else torch.float32)


def train(program: Program, seed: int, watch: Watch | None = None, *, logged: bool = True) -> tuple[float, Any]:
    """Train `program`, under the eyes of a recorder or unseen: its final error, and the recorder; `logged` as of a loop.

    The error is infinite where training raised or the outputs are not finite.
    """
    torch.set_num_threads(1)
    data = program.data(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some faults are warned of; who reads that is no fault any more
        loop, recorder = program.loop(data, seed, watch, logged=logged)
        try:
            for _ in range(program.epochs):
                program.epoch(loop)
                program.evaluate(loop)
        except Exception:  # whatever a broken program raises, its record stays
            return math.inf, recorder
        if recorder:
            recorder.close()
        return error(program, loop.model, data), recorder


def error(program: Program, model: nn.Module, data: Data) -> float:
    """How wrong the trained model is on the true task, by the program's judge; inf where it gives NaN."""
    model.eval()
    with torch.no_grad():
        outputs = model(tensor(data.x_test))
    first = outputs[0] if isinstance(outputs, tuple) else outputs
    return program.judge(outputs, tensor(data.y_test)) if bool(torch.isfinite(first).all()) else math.inf


def _without_loss(log: Callable[..., None]) -> Callable[..., None]:
    """What a loop logs that does not log its loss of training."""

    def rest(**values: Any) -> None:
        others = {name: value for name, value in values.items() if name not in ("loss", "outputs", "targets")}
        if others:
            log(**others)

    return rest


def _nothing(**values: Any) -> None:
    """Where nobody listens."""
