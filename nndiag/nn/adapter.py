"""How `nndiag.watch` takes hold of a Trainer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from nndiag.errors import WatchError
from nndiag.hooks import Hook
from nndiag.nn.trainer import Trainer
from nndiag.recorder import Recorder


def attach(trainer: Any, optimizer: Any, loss: Any, recorder: Recorder, hooks: Sequence[Hook]) -> Callable[[], None]:
    """Let `hooks` on `trainer` feed `recorder`; gives back the function that takes them off again.

    Raises `WatchError` for anything but a Trainer, and for an optimiser or a loss beside it: a Trainer has its own.
    """
    if not isinstance(trainer, Trainer):
        raise WatchError(
            f"nndiag.watch got an object of type {type(trainer).__name__}, wanted the nn.Trainer that trains it"
        )
    if optimizer is not None or loss is not None:
        raise WatchError("nndiag.watch got an optimizer or a loss beside a Trainer; leave them out, it has its own")
    recorder.describe(**trainer.describe())
    trainer.hooks.add(hooks, recorder)
    return lambda: trainer.hooks.remove(recorder)
