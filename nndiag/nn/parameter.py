"""What training changes: a named array and its gradient."""

from __future__ import annotations

from typing import Literal

import numpy as np

from nndiag.statistics import Array

ParameterKind = Literal["weight", "bias", "norm"]


class Parameter:
    """A trainable array `value` with a `gradient` of the same shape; both stay the same arrays for life.

    Weight decay touches kind "weight" only. A frozen parameter still gets a gradient, but no update.
    """

    def __init__(self, name: str, kind: ParameterKind, value: Array, frozen: bool = False) -> None:
        self.name = name
        self.kind = kind
        self.value = value
        self.gradient = np.zeros_like(value)
        self.frozen = frozen

    def __repr__(self) -> str:
        return f"Parameter({self.name!r}, {self.kind!r}, shape={self.value.shape}{', frozen' if self.frozen else ''})"
