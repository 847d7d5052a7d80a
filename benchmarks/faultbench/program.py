"""A training program as plain values, and a published case: a faulty program and how it was fixed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, replace
from typing import Any, ClassVar, Literal, Protocol

import numpy as np

import nndiag
from benchmarks.faultbench.data import Recipe
from benchmarks.faultbench.keras import Spec, accuracy, column, network
from nndiag import nn
from nndiag.statistics import Array

Task = Literal["classes", "real"]
LEARNED = 0.2
"""Skill from which a program counts as having learned its training data."""


@dataclass(frozen=True)
class Program:
    """What a user wrote: data, network, loss, optimiser and the call of fit; `validation` is the share held out."""

    data: Recipe
    layers: tuple[Spec, ...]
    loss: Callable[[], nn.Loss]
    optimizer: Callable[[], nn.Optimizer]
    epochs: int
    batch_size: int = 32
    validation: float = 0.0
    metrics: Mapping[str, Callable[[Array, Array], float]] | None = None

    def trainer(self, width: int, seed: int) -> nn.Trainer:
        """The trainer for inputs of `width`, untrained."""
        metrics = {"accuracy": accuracy} if self.metrics is None else self.metrics
        return nn.Trainer(network(self.layers, width, seed), self.loss(), self.optimizer(), metrics=metrics, seed=seed)

    def run(self, seed: int, watched: bool = True) -> Outcome:
        """Train it from `seed`, and examine what was recorded."""
        x, y = self.data(seed)
        held_out = round(self.validation * len(x))
        validation = (x[-held_out:], y[-held_out:]) if held_out else None
        x, y = x[: len(x) - held_out], y[: len(y) - held_out]
        trainer = self.trainer(x.shape[1], seed)
        with nndiag.watch(trainer, every=1 if watched else 1_000_000) as recorder:
            history = trainer.fit(x, y, validation=validation, epochs=self.epochs, batch_size=self.batch_size)
            report = recorder.check()
        threshold = 0.0 if trainer.loss.expects == "logits" else 0.5
        return Outcome(report, history[-1]["loss"], trainer.predict(x), y, threshold)


@dataclass(frozen=True)
class Outcome:
    """What nndiag says of a program, its last mean loss, and its outputs beside the targets that it trained on."""

    report: nndiag.Report
    loss: float
    outputs: Array
    targets: Array
    threshold: float

    def skill(self, task: Task) -> float:
        """How much of the way from the best constant answer to the perfect one: R², or the same of the accuracy.

        NaN where all labels are the same, so that there is no way to go.
        """
        t, o = column(self.targets), self.outputs.astype(np.float64)
        if task == "real":
            skill = float(1 - np.mean((o - t) ** 2) / np.mean((t - t.mean(axis=0)) ** 2))
            return skill if math.isfinite(skill) else -math.inf
        ids = t[:, 0] if t.shape[1] == 1 else t.argmax(axis=1)
        said = (o[:, 0] > self.threshold) if o.shape[1] == 1 else o.argmax(axis=1)
        most = np.unique(ids, return_counts=True)[1].max() / len(ids)
        return float((np.mean(said == ids) - most) / (1 - most)) if most < 1 else float("nan")


class Runs(Protocol):
    """A program of either half, NumPy's or PyTorch's: a dataclass that can be run."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    def run(self, seed: int) -> Outcome:
        """Train it from `seed`, and examine what was recorded."""
        ...


@dataclass(frozen=True)
class Case:
    """A published program with the faults it is known for.

    `labels` is "B" where the benchmark itself published the fault, "I" where one reader saw it in the program. `fixed`
    is what the published fix changes, None where there is none, and `left` are the faults that it leaves in place.
    `unsound` says why the fixed program does not learn either. Where `chance` is set, only some seeds fail, and only
    those count.
    """

    id: str
    faults: tuple[str, ...]
    labels: Literal["B", "I"]
    task: Task
    program: Runs
    fixed: Mapping[str, Any] | None = None
    role: Literal["faulty", "control"] = "faulty"
    left: tuple[str, ...] = ()
    unsound: str = ""
    chance: bool = False

    @property
    def fixed_program(self) -> Runs | None:
        """The program after the published fix."""
        return None if self.fixed is None else replace(self.program, **self.fixed)
