"""What a PyTorch loop consists of, in values fit for JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch.optim import Optimizer

from nndiag.meta import versions
from nndiag_torch.objectives import LOOKED
from nndiag_torch.optimizers import moving_group

if TYPE_CHECKING:
    from nndiag_torch.loop import TorchLoop

SETTINGS = ("momentum", "betas", "eps", "weight_decay", "decoupled_weight_decay", "nesterov", "dampening", "alpha",
            "amsgrad")  # fmt: skip
"""Settings of an optimiser that checks and readers of a run want to know."""


class Description:
    """What a recorder is told of a loop: anew when that is no longer so."""

    def __init__(self, loop: TorchLoop) -> None:
        self._loop = loop
        self._told: tuple[int, ...] = ()
        self._loss: Mapping[str, Any] | None = None
        self._trainable = self._written = 0
        """Parameters that are not frozen, as some are on the way, and those written to that no optimiser holds."""

    def keep(self, *, read: bool) -> None:
        """Tell the recorder, at the end of an iteration, unless it knows."""
        loop = self._loop
        if read:
            self._trainable = sum([not parameter.frozen for parameter in loop.parameters])
        if loop.steps & (loop.steps - 1) == 0:  # at powers of two: an average may follow once in an epoch
            self._written = sum([parameter.written for parameter in loop.parameters])
        parts = loop.parts
        known = len(parts.order), len(loop.reached), len(parts.parameters), self._trainable, self._written
        if self._told != known or loop.recorder.meta.loss is not self._loss:  # the user has told of it
            self._told = known
            loop.recorder.describe(**loop.describe())
            self._loss = loop.recorder.meta.loss


def loop(loop: TorchLoop) -> dict[str, Any]:
    """Layers in forward order, parameters, loss, optimiser and settings."""
    held = loop.holders.held
    return {
        "layers": [
            {"name": layer.name, "kind": layer.kind, "shape": list(layer.shape or ()), "after": layer.after}
            | ({} if layer.rate is None else {"rate": layer.rate})
            | ({"sequence": list(layer.sequence)} if layer.sequence else {})
            for layer in loop.layers
        ],
        "parameters": [
            parameter.describe()
            | {
                "optimized": not held or parameter.frozen or id(parameter.tensor) in held,
                "reached": id(parameter.tensor) in loop.reached if loop.reached else None,
            }
            for parameter in loop.parameters
        ],
        "loss": loop.objective,
        "optimizer": next((optimizer(one) for one in loop.optimizers), {})
        | ({"in_turn": True} if loop.in_turn else {})
        | ({"scaled": True} if loop.gradients.scaled_steps >= LOOKED else {}),
        "clipping": loop.gradients.clipping,
        "seeds": {"torch": torch.initial_seed()},
        "versions": versions() | {"torch": str(torch.__version__)},
        "dtype": next((str(p.tensor.dtype).removeprefix("torch.") for p in loop.parameters), ""),
    }


def optimizer(one: Optimizer) -> dict[str, Any]:
    """Name, learning rate and settings of the first group that moves."""
    group = moving_group(one)
    settings = {name: group[name] for name in SETTINGS if name in group}
    if "weight_decay" in group:
        settings.setdefault("decoupled_weight_decay", type(one).__name__.endswith("W"))
    if group.get("maximize"):
        settings["maximize"] = True
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}
    lr = group.get("lr")
    return {"name": type(one).__name__, **({} if lr is None else {"lr": float(lr)}), **plain}
