"""The methods of a recorder that take arrays, found by their annotations, and how to call one."""

from __future__ import annotations

import inspect

import numpy as np
from numpy.typing import DTypeLike

from nndiag import Recorder
from nndiag.statistics import Array

TAKERS = {
    name: [p.name for p in inspect.signature(method).parameters.values() if "Array" in str(p.annotation)]
    for name, method in inspect.getmembers(Recorder, inspect.isfunction)
    if not name.startswith("_")
    and any("Array" in str(p.annotation) for p in inspect.signature(method).parameters.values())
}
"""The methods of a recorder that take arrays, with the names of those."""


def hand_over(recorder: Recorder, method: str, arrays: dict[str, Array], name: str = "h1") -> None:
    """Call `method` with `arrays`, and with a name where it wants one."""
    if method in ("update", "after_update"):
        other = next(iter(arrays.values()))
        recorder.before_update(name, other + other.dtype.type(1))
    named = {"name": name} if "name" in inspect.signature(getattr(recorder, method)).parameters else {}
    getattr(recorder, method)(**named, **arrays)


def owners(method: str, shape: tuple[int, ...] = (8, 4), dtype: DTypeLike = np.float32) -> dict[str, Array]:
    """An array that owns its memory for every array parameter of `method`."""
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(shape).astype(dtype) for name in TAKERS[method]}
