"""Whether weights are freshly drawn, or hold something that was learned elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from nndiag import structure
from nndiag.meta import ParameterMeta
from nndiag.run import Run

ERRORS = 2.0
"""Standard errors of its standard deviation within which a weight counts as freshly initialised."""

FEW = 150
"""Numbers of which the standard deviation says nothing: within its errors, a third of all values fit one scheme or another."""

OFF = 4.0
"""Standard errors that the mean of fresh weights keeps to in all but 6 of 100,000 cases."""

HELD = ("weight", "embedding")
"""Kinds of parameters that can hold something learned elsewhere."""


def fresh(run: Run, parameter: ParameterMeta, errors: float = ERRORS) -> bool:
    """Whether a weight has the standard deviation of a usual initialisation: He, Glorot, LeCun or PyTorch's default.

    The default of an embedding is 1. All draw around 0: a mean of more than `OFF` standard errors has come by training.
    """
    (fan_in, fan_out), size = structure.fans(run, parameter), math.prod(parameter.shape)
    if not parameter.std or not fan_in or size < FEW:
        return False
    if abs(parameter.mean or 0.0) > OFF * parameter.std / math.sqrt(size):
        return False
    schemes = [2 / fan_in, 2 / (fan_in + fan_out), 1 / fan_in, 1 / (3 * fan_in)]
    usual = np.sqrt([1.0] if parameter.kind == "embedding" else schemes)
    error = errors / math.sqrt(2 * size) + 0.005
    return bool(np.any(np.abs(parameter.std / usual - 1) <= error))


def loaded(run: Run, parameters: Sequence[ParameterMeta], errors: float = ERRORS) -> bool:
    """Whether the weights among these hold something to preserve: most of their numbers do not look freshly initialised.

    Of many trained weights a few have such a standard deviation by chance, mostly those of few numbers, whose errors are wide:
    numbers are counted and not weights. Less than `FEW` say nothing.
    """
    sizes = {p: math.prod(p.shape) for p in parameters if p.kind in HELD and p.std and math.prod(p.shape) >= FEW}
    return 2 * sum(size for p, size in sizes.items() if fresh(run, p, errors)) < sum(sizes.values())


def adapted(frozen: ParameterMeta, weights: Sequence[ParameterMeta]) -> bool:
    """Whether two trainable weights beside a frozen one are of low rank and of its shape together (Hu et al. 2022, LoRA)."""
    beside = frozen.name.rpartition(".")[0].rpartition(".")[0]
    trainable = [p for p in weights if not p.frozen and len(p.shape) == 2]
    pair = [p.shape for p in trainable if (p.name.startswith(f"{beside}.") if beside else "." not in p.name)]
    ranks = [(a[0], a[1], b[0]) for a in pair for b in pair if a[0] == b[1] < min(a[1], b[0])]
    return any(frozen.shape == (outputs, inputs) for _, inputs, outputs in ranks)
