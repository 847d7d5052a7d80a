"""What the autograd graph of a loss tells of the objective."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass(frozen=True)
class Found:
    """Loss, what goes into it, and where δ of the outputs can be had."""

    loss: dict[str, Any] = field(default_factory=dict)
    outputs: torch.Tensor | None = None
    targets: torch.Tensor | None = None
    head: str = ""
    gradient_source: torch.Tensor | None = None


def objective(loss: torch.Tensor, output: torch.Tensor | None) -> Found:
    """What the graph of `loss` shows, given what the model put out."""
    node: Any = loss.grad_fn
    if node is None or output is None:
        return Found()
    if node.name() == "NllLossBackward0":
        try:
            targets = node._saved_target
        except RuntimeError:
            return Found()
        return Found(
            {"name": "CrossEntropyLoss", "task": "classes", "expects": "logits", "label_smoothing": 0.0},
            output.detach(),
            targets,
            "",
            output,
        )
    if node.name() == "MseLossBackward0":
        return Found(
            {"name": "MSELoss", "task": "real", "expects": "real"},
            node._saved_self.detach(),
            node._saved_target,
            "",
            output,
        )
    return Found()
