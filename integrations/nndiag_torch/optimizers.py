"""What an optimiser has just subtracted from its parameters, where its state holds it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from torch.optim import SGD, Optimizer

from nndiag.statistics import Array

if TYPE_CHECKING:
    from nndiag_torch.layers import Parameter


def subtracted(optimizer: Optimizer, parameters: Iterable[Parameter]) -> Mapping[int, tuple[Array, float]]:
    """By the id of a tensor, an array and the factor of it that the step just done has taken off; those known alone.

    SGD subtracts lr · v, where v is the momentum buffer, which it keeps, or without momentum and weight decay the gradient.
    """
    if type(optimizer) is not SGD or hasattr(optimizer, "grad_scale"):  # mixed precision: gradients may still be scaled
        return {}
    known = {id(parameter.tensor): parameter for parameter in parameters}
    taken = {}
    for group in optimizer.param_groups:
        lr = float(group["lr"])
        for tensor in group["params"] if lr > 0 and not (group["nesterov"] or group["maximize"]) else ():
            parameter = known.get(id(tensor))
            if parameter is not None and (update := _update(group, optimizer.state, parameter)) is not None:
                taken[id(tensor)] = update, lr
    return taken


def _update(group: Mapping[str, Any], state: Mapping[Any, Any], parameter: Parameter) -> Array | None:
    tensor = parameter.tensor
    if tensor.grad is None:
        return None
    if not group["momentum"]:
        return None if group["weight_decay"] else parameter.gradient
    buffer = state[tensor].get("momentum_buffer") if tensor in state else None
    return None if buffer is None else parameter.momentum.of(buffer)
