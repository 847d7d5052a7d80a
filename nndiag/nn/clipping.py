"""Clipping of gradients by the norm of all of them together."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from nndiag.nn.parameter import Parameter


def clip_by_global_norm(parameters: Sequence[Parameter], max_norm: float) -> float:
    """Norm of all gradients together before clipping; scales them to `max_norm` where it is larger.

    (Pascanu et al. 2013, algorithm 1.) Frozen parameters do not count. An infinite norm turns finite gradients to 0
    and infinite ones to NaN; a NaN norm changes nothing. Raises ValueError unless max_norm is positive.
    """
    if not max_norm > 0:
        raise ValueError(f"clip_by_global_norm got max_norm={max_norm!r}, wanted a positive number")
    gradients = [parameter.gradient for parameter in parameters if not parameter.frozen]
    # In float64, because a sum of squares meets the end of float32 at gradients of 1e19.
    norm = math.hypot(*(float(np.linalg.norm(gradient.astype(np.float64))) for gradient in gradients))
    if norm > max_norm:
        for gradient in gradients:
            gradient *= max_norm / norm
    return norm
