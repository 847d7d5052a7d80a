"""Probe: a check that makes its own measurement, on a copy of a trainer's model."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from nndiag import synthetic
from nndiag.check import Check
from nndiag.errors import NndiagError, UnknownName
from nndiag.meta import Meta
from nndiag.nn import Dropout, Sequential, Trainer
from nndiag.recorder import Recorder
from nndiag.report import Report
from nndiag.run import Run
from nndiag.statistics import Array


@dataclass(frozen=True)
class Probe(Check):
    """A check in two halves: `measure` experiments on a copy and gives plain numbers, `examine` judges them.

    The numbers travel in the run's metadata, so that the checklist on a recorded run speaks of the probes too. Calling a
    probe on a trainer and data does both. The trainer, its model, its optimiser and its random numbers stay as they are.
    """

    def measure(self, trainer: Trainer, x: Array, y: Array) -> dict[str, Any]:
        """What the experiment on inputs (N, width) and targets (N, …) gave, as plain JSON."""
        raise NotImplementedError(f"{type(self).__name__} has no measure()")

    def __call__(self, trainer: Trainer, x: ArrayLike, y: ArrayLike, *, recorder: Recorder | None = None) -> Report:
        """The verdict of this probe on `trainer` with training data `x`, `y`; with `recorder` it goes into that run.

        Raises UnknownName for anything but an `nndiag.nn.Trainer`, and NndiagError when no sample is finite.
        """
        from nndiag.checklist import Checklist

        measurement = self.measure(_trainer(trainer), *finite(x, y))
        if recorder is not None:
            recorder.probe(self.code, measurement)
        meta = Meta(name=self.name, ended="completed", probes={self.code: measurement})
        return Checklist(select=self.code, checks=[self]).examine(Run(meta))

    def measured(self, run: Run) -> Mapping[str, Any]:
        """The numbers that `measure` gave; empty if it was not run."""
        return run.meta.probes.get(self.code, {})

    def not_checked(self, run: Run) -> str | None:
        if not self.measured(run):
            return (
                f"the probe was not run: nndiag.probes.{self.name.replace('-', '_')}(trainer, x, y, recorder=recorder)"
            )
        return super().not_checked(run)

    @classmethod
    def example(cls, **measurement: Any) -> Run:
        """A run that holds this measurement."""
        return synthetic.run(steps=0, probes={cls.code: measurement})


def _trainer(trainer: Any) -> Trainer:
    if not isinstance(trainer, Trainer):
        raise UnknownName(
            f"a probe needs an nndiag.nn.Trainer, got {type(trainer).__module__}.{type(trainer).__qualname__}"
        )
    return trainer


def finite(x: ArrayLike, y: ArrayLike) -> tuple[Array, Array]:
    """The samples of `x`, `y` without NaN or infinity: those are ND001's. Raises NndiagError if none is left."""
    x, y = np.asarray(x), np.asarray(y)
    if not len(x) or len(x) != len(y):
        raise NndiagError(f"a probe needs as many inputs as targets, and some: got shapes {x.shape} and {y.shape}")
    good = np.isfinite(x.reshape(len(x), -1)).all(axis=1) & np.isfinite(y.reshape(len(y), -1)).all(axis=1)
    if not good.any():
        raise NndiagError("a probe needs samples without NaN or infinity; there is not one")
    return x[good], y[good]


def plain_copy(model: Sequential) -> Sequential:
    """A copy of `model` that does not drop anything out."""
    model = copy.deepcopy(model)
    for layer in model.layers:
        if isinstance(layer, Dropout):
            layer.p = 0.0
    return model


def sample(x: Array, y: Array, size: int, seed: int = 0) -> tuple[Array, Array]:
    """At most `size` samples drawn without replacement, the same at every call."""
    rows = np.random.default_rng(seed).permutation(len(x))[:size]
    return x[rows], y[rows]
