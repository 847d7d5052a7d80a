"""How `nndiag.watch` takes hold of a PyTorch model."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

from nndiag.errors import WatchError
from nndiag.hooks import Hook
from nndiag.recorder import Recorder
from nndiag_torch.loop import TorchLoop

log = logging.getLogger("nndiag")

TOGETHER = 50
"""Cadence where parameters are spread over processes, which have to read the same steps: each gathers its parts of all others."""


def attach(model: Any, optimizer: Any, loss: Any, recorder: Recorder, hooks: Sequence[Hook]) -> Callable[[], None]:
    """Let `hooks` on the loop that trains `model` feed `recorder`; gives back the function that takes them off again.

    `optimizer` is one optimiser or a list of them; left out, those that step on the model's parameters are found as they do.
    `loss` is the loss module, which then need not be logged, or its function, or left out. Raises `WatchError` for
    anything else.
    """
    if not isinstance(model, nn.Module):
        raise WatchError(f"nndiag.watch got a {type(model).__name__}, wanted the torch.nn.Module that is trained")
    optimizers = [] if optimizer is None else list(optimizer) if isinstance(optimizer, list | tuple) else [optimizer]
    for one in optimizers:
        if not isinstance(one, Optimizer):
            raise WatchError(
                f"watch(model, {type(one).__name__}): wanted a torch.optim.Optimizer, or a list of them; the loss is the third"
            )
    if loss is not None and not callable(loss):
        raise WatchError(
            f"watch(model, optimizer, {type(loss).__name__}): wanted a loss module or a function, or nothing"
        )
    spread = any(hasattr(parameter, "full_tensor") for parameter in model.parameters())
    if spread and recorder.pace.without_clock(TOGETHER):
        log.warning("parameters are spread over processes, which are all to be watched and to read the same steps: "
                    "the first ones and every %dth, not as each one's clock says", TOGETHER)  # fmt: skip
    loop = TorchLoop(getattr(model, "_orig_mod", model), optimizers, loss, recorder)
    recorder.describe(**loop.describe())
    loop.hooks.add(hooks, recorder)
    loop.listen()
    return loop.leave
