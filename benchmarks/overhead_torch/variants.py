"""nndiag in its cadences, as what is attached to a training."""

from __future__ import annotations

from typing import Any

import torch

import nndiag
from benchmarks.overhead.variants import SilentHook
from benchmarks.overhead_torch.loop import Attach, Tool, Training
from nndiag.hooks import light_hooks


def _watch(training: Training, **options: Any) -> Tool:
    recorder = nndiag.watch(training.model, training.optimizer, strict=True, **options)

    def log(loss: torch.Tensor) -> None:
        recorder.log(loss=loss)

    return Tool(on_loss=log, close=recorder.close)


def all_hooks(training: Training) -> Tool:
    """All hooks, every step."""
    return _watch(training, every=1)


def light(training: Training) -> Tool:
    """Light hooks, every step."""
    return _watch(training, hooks=light_hooks(), every=1)


def default(training: Training) -> Tool:
    """What `nndiag.watch` does unless told otherwise."""
    return _watch(training)


def idle(training: Training) -> Tool:
    """The clock and the losses alone."""
    return _watch(training, hooks=[], every=10**9)


def silent(training: Training) -> Tool:
    """Every event is prepared and handed over, to a hook that does nothing."""
    return _watch(training, hooks=[SilentHook()], every=1)


VARIANTS: dict[str, Attach] = {
    "all hooks, every step": all_hooks,
    "light hooks, every step": light,
    'default (every="auto", budget=0.02)': default,
    "attached, nothing recorded": idle,
    "a hook that hears everything and does nothing": silent,
}

LIMITS = {
    "all hooks, every step": {"A": 1.10, "C": 1.08, "T": 1.06},
    "light hooks, every step": {"A": 1.05, "C": 1.05, "T": 1.03},
    'default (every="auto", budget=0.02)': {"A": 1.02, "C": 1.02, "T": 1.02},
}
"""What a step may cost over the bare one."""
