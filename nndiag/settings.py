"""Numbers that a caller sets: taken in whatever type they come, or refused with what was wanted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np


def steps(name: str, value: Any, wanted: str = "a number of steps from 1, such as 10") -> int:
    """Setting `name` as a number of steps from 1. Raises ValueError, saying what was `wanted`, for anything else."""
    if isinstance(value, int | np.integer) and not isinstance(value, bool) and value >= 1:
        return int(value)
    raise ValueError(f"{name}={value!r}: give {wanted}")


def cadence(name: str, value: Any) -> int | Literal["auto"]:
    """Setting `name` as a number of steps from 1, or "auto". Raises ValueError for anything else."""
    if isinstance(value, str) and value == "auto":
        return "auto"
    return steps(name, value, 'a number of steps from 1, or "auto"')


def number(name: str, value: Any, wanted: str, valid: Callable[[float], bool]) -> float:
    """Setting `name` as a number that is `valid`. Raises ValueError, saying what was `wanted`, for anything else."""
    if (
        isinstance(value, int | float | np.integer | np.floating)
        and not isinstance(value, bool)
        and valid(float(value))
    ):
        return float(value)
    raise ValueError(f"{name}={value!r}: give {wanted}")
