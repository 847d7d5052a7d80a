"""Targets in the shape that a loss computes with."""

from __future__ import annotations

import numpy as np

from nndiag.errors import NndiagError, ShapeError
from nndiag.statistics import Array


class TargetError(NndiagError, ValueError):
    """Targets that are no class ids, or ids of classes that the outputs do not have."""


def distribution(outputs: Array, targets: Array, loss: str) -> Array:
    """Targets as a distribution over the classes of `outputs` (N, C), of their dtype: from ids (N,) or from (N, C).

    Raises `ShapeError` for other shapes, and `TargetError` for ids that are no integers or out of range.
    """
    targets = np.asarray(targets)
    if outputs.ndim == 2 and targets.shape == outputs.shape:
        return targets.astype(outputs.dtype)
    if outputs.ndim != 2 or targets.shape != outputs.shape[:1]:
        raise ShapeError(
            f"{loss} got outputs of shape {outputs.shape} and targets of shape {targets.shape}, "
            "wanted outputs (N, C) and targets (N,) of class ids or (N, C) of probabilities"
        )
    _check_ids(targets, outputs.shape[1], loss)
    q = np.zeros_like(outputs)
    q[np.arange(len(targets)), targets.astype(np.intp)] = 1
    return q


def matched(outputs: Array, targets: Array, loss: str) -> Array:
    """Targets in the shape and dtype of `outputs`; (N,) also fits outputs (N, 1). Raises `ShapeError` otherwise."""
    targets = np.asarray(targets)
    if outputs.shape not in (targets.shape, (*targets.shape, 1)):
        raise ShapeError(
            f"{loss} got outputs of shape {outputs.shape} and targets of shape {targets.shape}, "
            f"wanted targets of shape {outputs.shape}"
        )
    return targets.reshape(outputs.shape).astype(outputs.dtype)


def _check_ids(ids: Array, classes: int, loss: str) -> None:
    if ids.dtype.kind not in "biu":
        raise TargetError(f"{loss} got class ids of type {ids.dtype}, wanted integers; try y.astype(int)")
    strange = ids[(ids < 0) | (ids >= classes)]
    if len(strange):
        raise TargetError(f"{loss} got class id {strange[0]}, wanted 0 to {classes - 1} for {classes} outputs")
