"""Which parameters an optimiser moves, and what it has just subtracted from them, where its state holds it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.optim import SGD, Optimizer

from nndiag.statistics import Array

if TYPE_CHECKING:
    from nndiag_torch.layers import Parameter


def moving_group(optimizer: Optimizer) -> dict[str, Any]:
    """The first group whose learning rate is not 0, which stands for all; the first of all where there is none."""
    groups: list[dict[str, Any]] = optimizer.param_groups
    return next((group for group in groups if not _rests(group)), groups[0])


def moving(optimizer: Optimizer, parameters: Sequence[Parameter]) -> Sequence[Parameter]:
    """Those of `parameters` that a step may move: not those of a group whose learning rate is 0 beside others.

    So a base is kept until its head is trained; where nothing moves, that is no plan but a fault.
    """
    still = list(filter(_rests, optimizer.param_groups))
    if not 0 < len(still) < len(optimizer.param_groups):
        return parameters
    kept = {id(tensor) for group in still for tensor in group["params"]}
    return [parameter for parameter in parameters if id(parameter.tensor) not in kept]


def _rests(group: Mapping[str, Any]) -> bool:
    """Whether the learning rate is the number 0; to look at a tensor could mean to wait for its device."""
    lr = group.get("lr")
    return not isinstance(lr, torch.Tensor) and lr == 0


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
