"""Runs made from plain numbers: the healthy and sick examples of checks, and fixtures for tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from nndiag.meta import Meta
from nndiag.run import Run
from nndiag.statistics import Array
from nndiag.table import Column, Table

Statistics = Mapping[str, Mapping[str, Any]]
"""statistic → layer, parameter or split → values by step; a single number stands for every step."""

CLASSES: dict[str, Any] = {
    "loss": {"name": "SoftmaxCrossEntropy", "task": "classes", "expects": "logits", "label_smoothing": 0.0}
}
"""Metadata of a classifier trained on logits."""


def run(
    *,
    steps: int = 100,
    train: ArrayLike | None = None,
    validation: Mapping[int, float] | None = None,
    activations: Statistics | None = None,
    gradients: Statistics | None = None,
    updates: Statistics | None = None,
    metrics: Statistics | None = None,
    evaluations: Statistics | None = None,
    data: Statistics | None = None,
    outputs: Statistics | None = None,
    loop: Mapping[str, ArrayLike] | None = None,
    epoch: ArrayLike = 0,
    **meta: Any,
) -> Run:
    """A run of `steps` steps, from 0, with these values and metadata; `validation` maps updates done to losses.

    `epoch` is the epoch of every step; `loop` maps statistics of that frame to values by step.

    Raises ValueError where a series is neither a number nor `steps` long.
    """
    given = {"activations": activations, "gradients": gradients, "updates": updates, "metrics": metrics,
             "evaluations": evaluations, "data": data, "outputs": outputs,
             "loop": {name: {"": values} for name, values in (loop or {}).items()}}  # fmt: skip
    tables = {name: _table(statistics, steps) for name, statistics in given.items() if statistics}
    if train is not None or validation:
        tables["losses"] = _losses(np.nan if train is None else train, validation or {}, steps, epoch)
    return Run(Meta(ended="completed").describe(meta), tables)


def decay(steps: int = 100, start: float = 2.3, end: float = 0.2, rate: float = 5.0, noise: float = 0.02) -> Array:
    """An ordinary training loss: exponential from `start` towards `end`, with noise (seeded) of `noise` of its value."""
    curve = end + (start - end) * np.exp(-rate * np.arange(steps) / max(1, steps))
    return curve * (1 + noise * np.random.default_rng(0).standard_normal(steps))


def _table(statistics: Statistics, steps: int) -> Table:
    columns: dict[Column, Array] = {
        (statistic, name): _series(values, steps, f"{statistic} of {name}")
        for statistic, named in statistics.items()
        for name, values in named.items()
    }
    return Table(tuple(columns), np.arange(steps), np.column_stack(list(columns.values())))


def _losses(train: ArrayLike, validation: Mapping[int, float], steps: int, epoch: ArrayLike) -> Table:
    rows = max([steps, *(step + 1 for step in validation)])
    values = np.full((rows, 3), np.nan)
    values[:, 0] = np.max(epoch)
    values[:steps, 0] = _series(epoch, steps, "epoch")
    values[:steps, 1] = _series(train, steps, "train")
    for step, loss in validation.items():
        values[step, 2] = loss
    return Table((("epoch", ""), ("train", ""), ("validation", "")), np.arange(rows), values)


def _series(values: ArrayLike, steps: int, what: str) -> Array:
    array = np.asarray(values, float)
    if array.ndim and array.shape != (steps,):
        raise ValueError(f"{what}: wanted one number or {steps} of them, got shape {array.shape}")
    return np.broadcast_to(array, (steps,))
