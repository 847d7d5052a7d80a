"""The gradients of a PyTorch loop: told once in an iteration, without the loss scale, before and after they are clipped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch.optim import Optimizer

from nndiag_torch.objectives import LOOKED

if TYPE_CHECKING:
    from nndiag_torch.layers import Parameter
    from nndiag_torch.loop import TorchLoop


class Gradients:
    """What was told of gradients in the iteration under way, and how the loop scales and clips them.

    `clipping` is what is known of that: the limit, and which gradients it is applied to: those "before" the step, or mistakenly
    those that are "cleared" or "used" by then; "unknown" until any are clipped. `scaled_steps` counts steps of an optimiser on
    gradients from which nobody had taken the scale of the loss off, `scale` is that of the latest loss.
    """

    def __init__(self, loop: TorchLoop) -> None:
        self._loop = loop
        self.clipping: dict[str, Any] = {"gradients": "unknown"}
        self.scaled_steps = 0
        self._cleared = self._used = 0
        """How often gradients were clipped that were cleared, and that a step had used."""
        self._takes_scale_off = False
        """Whether optimisers take the scale off themselves, as fused ones do."""
        self.new_iteration()

    def new_iteration(self) -> None:
        """Nothing was told of the iteration that begins. Sets hold the ids of parameters."""
        self.scale: Any = 1.0
        self._is_scaled = False
        self._unscaled: set[int] = set()
        self._told: set[int] = set()
        self._clipped: set[int] = set()
        self._clipped_pass = 0
        """The number of the backward pass after which gradients were clipped last."""

    def tell(self, parameters: Iterable[Parameter]) -> None:
        """Tell the gradients that were not told in this iteration."""
        new = [p for p in parameters if id(p.tensor) not in self._told] if self._told else list(parameters)
        if new:
            self._told |= {id(p.tensor) for p in new}
            if self._loop.teller.wants("on_gradients"):
                with self._without_scale(new):
                    self._loop.teller.gradients(new)

    # The scale of the loss

    def loss_scaled(self, scale: Any) -> None:
        """The loss was multiplied by `scale`."""
        self.scale, self._is_scaled = self._loop.teller.number(scale), True

    def unscaled(self, parameters: Iterable[Parameter]) -> None:
        """The scale of the loss is taken off the gradients of `parameters`."""
        self._unscaled |= {id(parameter.tensor) for parameter in parameters}

    def _carries_scale(self, parameter: Parameter) -> bool:
        """Whether the gradient of `parameter` is still multiplied by the scale of the loss."""
        return self._is_scaled and id(parameter.tensor) not in self._unscaled

    @contextmanager
    def _without_scale(self, parameters: Sequence[Parameter]) -> Iterator[None]:
        """Have gradients of `parameters` in here divided by the scale where it is still in them."""
        carry = [p for p in parameters if self._carries_scale(p) and isinstance(p.scale, float) and p.scale == 1.0]
        for parameter in carry:
            parameter.scale = self.scale
        try:
            yield
        finally:
            for parameter in carry:
                parameter.scale = 1.0

    # Clipping

    def clip(self, tensors: Sequence[torch.Tensor], limit: dict[str, float]) -> None:
        """Gradients of `tensors` are about to be clipped."""
        iteration, parameters = self._loop.iteration, self._loop.parts.parameters
        ours = [found for tensor in tensors if (found := parameters.get(id(tensor)))]
        if not ours:
            return
        if (iteration.finished or not iteration.backward_passes) and all(map(is_cleared, tensors)):
            self._cleared += 1
            if self._cleared == LOOKED:
                self._describe({**limit, "gradients": "cleared"})
        elif iteration.finished:
            self._used += 1
            if self._used == LOOKED:
                self._describe({**limit, "gradients": "used"})
        else:
            scaled = {"scaled": True} if any(map(self._carries_scale, ours)) else {}
            self._describe({**limit, "gradients": "before", **scaled})
            self._tell_before(ours, iteration.backward_passes)

    def _tell_before(self, parameters: Sequence[Parameter], backward_pass: int) -> None:
        """Tell gradients that are about to be clipped: those of another micro-batch anew."""
        clipped = {id(parameter.tensor) for parameter in parameters}
        if self._clipped_pass != backward_pass:
            self._clipped_pass = backward_pass
            self._told -= clipped
        self.tell(parameters)
        self._clipped |= clipped

    def _describe(self, clipping: dict[str, Any]) -> None:
        """It is known, or known better, how gradients are clipped."""
        if self.clipping != clipping:
            self.clipping = clipping
            self._loop.recorder.describe(clipping=clipping)

    # The step

    def before_step(self, optimizer: Optimizer, parameters: Sequence[Parameter], others: Sequence[Parameter]) -> None:
        """`optimizer` is about to use those of `parameters`; `others` are nobody's."""
        scale = getattr(optimizer, "grad_scale", None)  # fused optimisers take it off themselves
        if scale is not None or self._takes_scale_off:
            self._takes_scale_off = True
            for parameter in parameters:
                parameter.scale = 1.0 if scale is None else self._loop.teller.number(scale)
        self.tell([*parameters, *others])
        clipped = [parameter for parameter in parameters if id(parameter.tensor) in self._clipped]
        if clipped and self._loop.teller.wants("on_clipped"):
            with self._without_scale(clipped):
                self._loop.teller.clipped(clipped)
        if scale is None and any(map(self._carries_scale, parameters)):
            self.scaled_steps += 1
            if self.scaled_steps == LOOKED:
                self._loop.recorder.describe(optimizer={**self._loop.recorder.meta.optimizer, "scaled": True})


def is_cleared(parameter: torch.Tensor | None) -> bool:
    """Whether a parameter, if there is one, has no gradient, or one of zeros where to look does not wait for a device."""
    if parameter is None:
        return False
    return parameter.grad is None or (parameter.grad.is_cpu and not parameter.grad.any())
