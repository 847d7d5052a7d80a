"""What an optimiser has just subtracted from its parameters, where its state holds it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.optim import SGD, Optimizer

from nndiag.statistics import Array
from nndiag_torch.arrays import as_array


def subtracted(optimizer: Optimizer) -> Mapping[int, tuple[Array, float]]:
    """By the id of a parameter, an array and the factor of it that the step just done has taken off; those known alone.

    SGD subtracts lr · v, where v is the momentum buffer, which it keeps, or without momentum and weight decay the gradient.
    """
    if type(optimizer) is not SGD or hasattr(optimizer, "grad_scale"):  # mixed precision: gradients may still be scaled
        return {}
    taken = {}
    for group in optimizer.param_groups:
        lr = float(group["lr"])
        for tensor in group["params"]:
            if lr > 0 and (update := _update(group, optimizer.state[tensor], tensor)) is not None:
                taken[id(tensor)] = as_array(update), lr
    return taken


def _update(group: Mapping[str, Any], state: Mapping[str, Any], tensor: torch.Tensor) -> torch.Tensor | None:
    if tensor.grad is None or group["nesterov"] or group["maximize"]:
        return None
    if group["momentum"]:
        return state.get("momentum_buffer")
    return None if group["weight_decay"] else tensor.grad
