"""The metrics of an evaluation, by name or as functions of outputs and targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from nndiag.errors import NndiagError, UnknownName
from nndiag.frames import OWN
from nndiag.nn.losses import Loss
from nndiag.statistics import Array

Metric = Callable[[Array, Array], float]
"""From raw outputs (N, …) and targets of a whole data set to a number."""

Metrics = Sequence[str] | Mapping[str, Metric]


def resolve(metrics: Metrics | None, loss: Loss) -> dict[str, Metric]:
    """The functions for `metrics`; None stands for accuracy where `loss` has classes, and for nothing where it has not.

    Raises `UnknownName` for a name other than "accuracy", which in turn needs a loss over classes, and NndiagError for functions
    under names that stand for something else where they are recorded.
    """
    if isinstance(metrics, Mapping):
        if taken := [name for name in ("loss", *OWN) if name in metrics]:
            raise NndiagError(f"a metric is called {taken[0]!r}, which nndiag itself records; give it another name")
        return dict(metrics)
    if metrics is None:
        metrics = () if loss.task == "real" else ("accuracy",)
    return {name: _by_name(name, loss) for name in metrics}


def class_accuracy(outputs: Array, targets: Array) -> float:
    """Share of the rows of `outputs` (N, C) whose largest value is at the target (N,), or at that of targets (N, C)."""
    ids = targets if targets.ndim == 1 else targets.argmax(axis=1)
    return float(np.mean(outputs.argmax(axis=1) == ids))


def binary_accuracy(outputs: Array, targets: Array, threshold: float = 0.0) -> float:
    """Share of the elements of `outputs` that lie on the same side of `threshold` as the targets of one half."""
    return float(np.mean((outputs > threshold) == (targets.reshape(outputs.shape) > 0.5)))


def _by_name(name: str, loss: Loss) -> Metric:
    if name != "accuracy":
        raise UnknownName(f"no metric is called {name!r}; there is accuracy, or give {{name: function}}")
    if loss.task == "real":
        raise UnknownName(f"accuracy needs a loss over classes, and {loss.name} has none")
    if loss.task == "classes":
        return class_accuracy
    return partial(binary_accuracy, threshold=0.0 if loss.expects == "logits" else 0.5)
