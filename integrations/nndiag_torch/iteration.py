"""What has happened so far in one iteration of a PyTorch loop, and in one pass of it; both are made anew for each."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch.optim import Optimizer

from nndiag_torch.objectives import nothing

if TYPE_CHECKING:
    from nndiag_torch.layers import Layer


@dataclass(slots=True)
class Iteration:
    """The passes of one batch, or of several micro-batches, and a step of every optimiser."""

    finished: bool = False
    """Whether every optimiser has stepped; what comes until the next pass is still told of this one."""
    surveyed: bool = False
    """Whether the model was gone through for modules that it has got since."""
    backward_passes: int = 0
    went_back: int = 0
    """Passes that a gradient went back through: some by `torch.autograd.grad`, which is no backward pass where another is."""
    updates: int = 0
    stepping: Optimizer | None = None
    stepped: set[Optimizer] = field(default_factory=set)
    skips: list[Any] = field(default_factory=list)
    """Of each step that a scaler had to do with, whether it was left out: booleans, or numbers where they lie."""
    kept: dict[Optimizer | None, Any] = field(default_factory=dict)
    """Of each optimiser, or of all parameters where there is none, whether its gradients were not cleared."""
    versions: list[int] = field(default_factory=list)
    """How often a few parameters had been written to when the latest backward pass began."""
    witness: torch.Tensor | None = None
    """A parameter that the loss reaches: cleared by the time another goes back, that one is of another batch."""
    evaluation_mode: float = math.inf
    """1 where all passes so far were in evaluation mode, 0 where one was not, infinite without any."""
    goes_back_in_evaluation_mode: bool = False


@dataclass(slots=True)
class Aside:
    """Passes in evaluation mode with gradients on, behind an iteration that is over: of training, once an optimiser steps."""

    goes_back: bool = False
    """Whether a backward pass went through them."""
    loss: Any = None
    """The first loss that went back, as a number, where it lies."""


@dataclass(slots=True)
class Pass:
    """One training pass of a batch: forward, the loss, and backward."""

    begun: bool = False
    inside: bool = False
    """Whether the model is running just now."""
    in_backward: bool = False
    """Whether a backward pass has begun since."""
    adds_up: bool = False
    """Whether that adds to gradients, as that of `torch.autograd.grad` does not."""
    collected: bool = False
    """Whether what compiled regions have measured of the outputs was taken over."""
    loss_is_in: bool = False
    """Whether the loss was told, and not only seen."""
    loss_seen: bool = False
    """Whether the loss was looked at as it went back."""
    unscaled: bool = False
    """Whether a scaled loss was already seen without its scale."""
    output: Any = None
    """What the model has put out, until the loss is known."""
    given: tuple[Any, Any] = (None, None)
    """Outputs and targets that were logged without a tensor of the loss, until that goes back."""
    previous: Layer | None = None
    """The layer that was heard last."""
    latest: tuple[Callable[[], torch.Tensor | None], int] = (nothing, 0)
    """A weak reference to what that layer has put out, and the version of its values."""
    function: str = ""
    """Kind of the latest function, which need not be told twice."""
    heard: set[str] = field(default_factory=set)
    """Names of the layers that have put something out."""
