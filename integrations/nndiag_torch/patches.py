"""What PyTorch has no hooks for: backward, clipping of gradients and the gradient scaler tell the loops that are watched."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import torch
from torch.amp import grad_scaler
from torch.nn.utils import clip_grad
from torch.utils.checkpoint import CheckpointFunction

from nndiag_torch import compiled
from nndiag_torch.graph import nodes


class Watcher(Protocol):
    """A loop that wants to know."""

    def goes_back(self, loss: torch.Tensor) -> None:
        """A backward pass from `loss` is about to begin."""

    def clipping(self, tensors: list[torch.Tensor], limit: dict[str, float]) -> None:
        """Gradients of `tensors` are about to be clipped: "max_norm" or "value" is the limit."""

    def clamping(self, tensors: list[torch.Tensor], value: float) -> None:
        """Tensors, which may be gradients, are about to be clipped to -`value` … `value`."""

    def scaled(self, loss: Any, scale: Any) -> None:
        """`loss` was multiplied by `scale`, a number or a tensor that will change, for its backward pass."""

    def unscaled(self, optimizer: torch.optim.Optimizer) -> None:
        """The scale of the loss is about to be taken off the gradients that `optimizer` holds."""

    def steps_of(self, optimizer: torch.optim.Optimizer) -> int | None:
        """Steps of this optimiser so far; None for one of another loop."""

    def skipped(self, optimizer: torch.optim.Optimizer) -> None:
        """The scaler has left out a step, for gradients that are not finite."""


WATCHERS: list[Watcher] = []
_ORIGINALS: list[tuple[Any, str, Any]] = []
_LEFT: dict[tuple[Any, str], Any] = {}
"""Wrappers of ours that others have wrapped in turn, by owner and name: they stay, and serve again."""


def add(watcher: Watcher) -> None:
    """Tell `watcher` from now on."""
    if not WATCHERS:
        _install()
    WATCHERS.append(watcher)


def remove(watcher: Watcher) -> None:
    """Tell `watcher` no more; with the last one PyTorch is as it was."""
    if watcher in WATCHERS:
        WATCHERS.remove(watcher)
    if not WATCHERS:
        nodes.packs(False)
        while _ORIGINALS:
            owner, name, original = _ORIGINALS.pop()
            now = getattr(owner, name)
            ours = next((one for one in _chain(now) if getattr(one, "__wrapped__", None) is original), None)
            if ours is now:  # nobody has patched it since
                setattr(owner, name, original)
            elif ours is not None:
                _LEFT[owner, name] = ours


def _install() -> None:
    _wrap(torch.autograd, "backward", _goes_back)  # what `Tensor.backward` calls
    _wrap(clip_grad, "_clip_grads_with_norm_", _clips_norm)  # what clip_grad_norm_ calls, whoever has imported that
    _wrap(torch.nn.utils, "clip_grads_with_norm_", _clips_norm)  # the same under its public name
    for owner in (clip_grad, torch.nn.utils):
        _wrap(owner, "clip_grad_value_", _clips_value)
    _wrap(torch, "_foreach_clamp_min_", _clamps)  # what that calls with -limit, whoever has imported it
    _wrap(grad_scaler.GradScaler, "scale", _scales)
    _wrap(grad_scaler.GradScaler, "unscale_", _unscales)
    _wrap(grad_scaler.GradScaler, "step", _steps)
    if not nodes.TELLS:
        _wrap(nodes.PACKERS, "__enter__", _packs)


def _wrap(owner: Any, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    original = getattr(owner, name, None)
    left = _LEFT.pop((owner, name), None)
    if left is not None and any(one is left for one in _chain(original)):
        _ORIGINALS.append((owner, name, left.__wrapped__))
    elif original is not None:
        setattr(owner, name, functools.wraps(original)(make(original)))
        _ORIGINALS.append((owner, name, original))


_CHECKPOINT = CheckpointFunction.forward.__code__


def is_checkpointing() -> bool:
    """Whether a reentrant checkpoint runs what is called just now, which it does without gradients at first."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_code is _CHECKPOINT:
            return True
    return False


def _chain(function: Any) -> Iterator[Any]:
    """A function and what it wraps, as far as it says so."""
    while function is not None:
        yield function
        function = getattr(function, "__wrapped__", None)


def _goes_back(original: Callable[..., Any]) -> Callable[..., Any]:
    def backward(tensors: Any, *rest: Any, **options: Any) -> Any:
        if torch._C._current_graph_task_id() == -1:  # else a checkpoint's own
            losses = tensors if isinstance(tensors, list | tuple) else [tensors]
            for watcher in list(WATCHERS):
                for loss in losses:
                    if isinstance(loss, torch.Tensor):  # and not an edge of the graph
                        watcher.goes_back(loss)
        return original(tensors, *rest, **options)

    compiled.keep_out(backward.__code__)
    return backward


def _packs(original: Callable[..., Any]) -> Callable[..., Any]:
    def enter(self: Any) -> Any:
        nodes.packs()
        return original(self)

    return enter


def _clips_norm(original: Callable[..., Any]) -> Callable[..., Any]:
    def clip(parameters: Any, max_norm: float, *rest: Any, **options: Any) -> Any:
        if torch.compiler.is_compiling():
            return original(parameters, max_norm, *rest, **options)
        tensors = _tensors(parameters)
        for watcher in list(WATCHERS):
            watcher.clipping(tensors, {"max_norm": float(max_norm)})
        return original(tensors, max_norm, *rest, **options)

    return clip


def _clips_value(original: Callable[..., Any]) -> Callable[..., Any]:
    def clip(parameters: Any, clip_value: float, *rest: Any, **options: Any) -> Any:
        if torch.compiler.is_compiling():
            return original(parameters, clip_value, *rest, **options)
        tensors = _tensors(parameters)
        for watcher in list(WATCHERS):
            watcher.clipping(tensors, {"value": float(clip_value)})
        return original(tensors, clip_value, *rest, **options)

    return clip


def _clamps(original: Callable[..., Any]) -> Callable[..., Any]:
    def clamp(*arguments: Any, **options: Any) -> Any:
        if torch.compiler.is_compiling():
            return original(*arguments, **options)
        if len(arguments) == 2 and isinstance(arguments[1], float) and arguments[1] < 0:
            for watcher in list(WATCHERS):
                watcher.clamping(arguments[0], -arguments[1])
        return original(*arguments, **options)

    return clamp


def _tensors(parameters: torch.Tensor | Iterable[torch.Tensor]) -> list[torch.Tensor]:
    return [parameters] if isinstance(parameters, torch.Tensor) else list(parameters)


def _scales(original: Callable[..., Any]) -> Callable[..., Any]:
    def scale(self: Any, outputs: Any) -> Any:
        scaled = original(self, outputs)
        if self.is_enabled():
            for watcher in list(WATCHERS):
                watcher.scaled(outputs, _scale_of(self))
        return scaled

    return scale


def _unscales(original: Callable[..., Any]) -> Callable[..., Any]:
    def unscale_(self: Any, optimizer: torch.optim.Optimizer) -> Any:
        for watcher in list(WATCHERS):
            watcher.unscaled(optimizer)
        return original(self, optimizer)

    return unscale_


def _scale_of(scaler: Any) -> Any:
    """The scale as the tensor that a scaler keeps: `get_scale` would wait for the device."""
    kept = getattr(scaler, "_scale", None)
    return scaler.get_scale() if kept is None else kept


def _steps(original: Callable[..., Any]) -> Callable[..., Any]:
    def step(self: Any, optimizer: torch.optim.Optimizer, *args: Any, **options: Any) -> Any:
        before = [(watcher, watcher.steps_of(optimizer)) for watcher in WATCHERS]
        result = original(self, optimizer, *args, **options)
        for watcher, steps in before:
            if steps is not None and watcher.steps_of(optimizer) == steps:
                watcher.skipped(optimizer)
        return result

    return step
