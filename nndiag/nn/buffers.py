"""Memory that a layer or loss keeps from one call to the next."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from nndiag.statistics import Array


class Buffers:
    """Arrays that are allocated once for the largest batch seen, and sliced for smaller ones."""

    def __init__(self) -> None:
        self._kept: dict[str, Array] = {}

    def get(self, name: str, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """Array of `shape` and `dtype` with whatever was in it; the same memory at each call with this `name`."""
        kept = self._kept.get(name)
        if kept is None or kept.dtype != dtype or kept.shape[1:] != shape[1:] or len(kept) < shape[0]:
            kept = self._kept[name] = np.empty(shape, dtype)
        return kept[: shape[0]]

    def like(self, name: str, x: Array) -> Array:
        """Array of the shape and dtype of `x`."""
        return self.get(name, x.shape, x.dtype)
