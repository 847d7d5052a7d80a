"""What a trainer makes of the data it is given: arrays of the right types that fit each other, in batches."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from nndiag.errors import ShapeError
from nndiag.nn.sequential import Sequential
from nndiag.statistics import Array


def inputs(x: ArrayLike, dtype: DTypeLike) -> Array:
    """Inputs as an array of `dtype`; NaN and infinity pass."""
    with np.errstate(all="ignore"):
        return np.asarray(x, dtype=dtype)


def targets(y: ArrayLike, dtype: DTypeLike) -> Array:
    """Targets as an array: integers and booleans as they are, floats as `dtype`; raises TypeError for anything else."""
    y = np.asarray(y)
    if y.dtype.kind not in "biuf":
        raise TypeError(f"targets are of type {y.dtype}, wanted numbers: class ids, probabilities or real values")
    return inputs(y, dtype) if y.dtype.kind == "f" else y


def fitting_inputs(x: ArrayLike, model: Sequential) -> Array:
    """Inputs (N, width) for `model`; raises `ShapeError` when there are none or their width is not the model's."""
    x = inputs(x, model.dtype)
    if x.ndim != 2 or not x.size:
        raise ShapeError(
            f"inputs are of shape {x.shape}, wanted (N, {model.input_width or 'width'}) with N of 1 or more"
        )
    model.output_widths(x.shape[1])
    return x


def pair(x: ArrayLike, y: ArrayLike, model: Sequential) -> tuple[Array, Array]:
    """Inputs and targets for `model`; raises `ShapeError` when they fit neither the model nor each other."""
    x, y = fitting_inputs(x, model), targets(y, model.dtype)
    if y.ndim < 1 or len(x) != len(y):
        raise ShapeError(f"inputs are of shape {x.shape} and targets of shape {y.shape}, wanted as many of each")
    return x, y


def check_last_batch(count: int, batch_size: int, model: Sequential) -> None:
    """Raise `ShapeError` where batch norm would meet a batch of 1 at the end of the first epoch."""
    if (count % batch_size == 1 or batch_size == 1) and any(layer.kind == "batch_norm" for layer in model.layers):
        raise ShapeError(
            f"{count} inputs in batches of {batch_size} end with a batch of 1, which batch norm cannot take; "
            "leave one out or choose another batch size"
        )


def slices(count: int, size: int) -> Iterator[slice]:
    """`count` rows in slices of `size`, the last one smaller where it must be; raises ValueError for a size below 1."""
    if size < 1:
        raise ValueError(f"got a batch size of {size}, wanted 1 or more")
    return (slice(start, min(start + size, count)) for start in range(0, count, size))
