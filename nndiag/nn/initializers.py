"""How weights begin: Xavier, He and two plain ones, each a function from a generator and a shape to an array."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from nndiag.errors import UnknownName
from nndiag.statistics import Array

Initializer = Callable[[np.random.Generator, tuple[int, ...]], Array]
"""From a generator and the shape (fan_out, fan_in) to float64 weights of that shape."""


def xavier_std(fan_in: int, fan_out: int) -> float:
    """Standard deviation √(2 / (fan_in + fan_out)) (Glorot & Bengio 2010, eq. 12)."""
    return math.sqrt(2 / (fan_in + fan_out))


def he_std(fan_in: int) -> float:
    """Standard deviation √(2 / fan_in), which keeps the variance through ReLU (He et al. 2015, eq. 10)."""
    return math.sqrt(2 / fan_in)


def xavier_normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Normal weights of standard deviation `xavier_std` (Glorot & Bengio 2010)."""
    return rng.normal(scale=xavier_std(shape[1], shape[0]), size=shape)


def xavier_uniform(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Uniform weights of standard deviation `xavier_std`, hence within ±√3 of it (Glorot & Bengio 2010, eq. 16)."""
    return _uniform(rng, shape, xavier_std(shape[1], shape[0]))


def he_normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Normal weights of standard deviation `he_std` (He et al. 2015)."""
    return rng.normal(scale=he_std(shape[1]), size=shape)


def he_uniform(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Uniform weights of standard deviation `he_std`, hence within ±√3 of it (He et al. 2015)."""
    return _uniform(rng, shape, he_std(shape[1]))


def constant(c: float) -> Initializer:
    """An initialiser that gives every weight the value `c`."""
    return lambda rng, shape: np.full(shape, float(c))


def normal(std: float) -> Initializer:
    """An initialiser that draws normal weights of standard deviation `std`."""
    return lambda rng, shape: rng.normal(scale=std, size=shape)


def initializer(init: str | Initializer) -> Initializer:
    """The initialiser called `init`, or `init` itself when it is one already.

    Raises `UnknownName` for a name that is none of `xavier_uniform`, `xavier_normal`, `he_uniform`, `he_normal`.
    """
    if callable(init):
        return init
    if init not in _BY_NAME:
        raise UnknownName(f"no initialiser is called {init!r}; there are {', '.join(_BY_NAME)}")
    return _BY_NAME[init]


def _uniform(rng: np.random.Generator, shape: tuple[int, ...], std: float) -> Array:
    return rng.uniform(-math.sqrt(3) * std, math.sqrt(3) * std, size=shape)


_BY_NAME: dict[str, Initializer] = {
    "xavier_uniform": xavier_uniform,
    "xavier_normal": xavier_normal,
    "he_uniform": he_uniform,
    "he_normal": he_normal,
}
