"""Tensors as NumPy arrays: of a CPU tensor a view, which costs a microsecond and no memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor

from nndiag.statistics import Array

VIEWED = frozenset({torch.float32, torch.float64, torch.float16, torch.int64, torch.int32, torch.int16, torch.int8,
                    torch.uint8, torch.bool})  # fmt: skip
"""What NumPy has a type for."""


STRIDED = torch.strided

PLAIN = torch.Tensor.__torch_dispatch__
"""What a class of tensors dispatches by whose values lie in its own memory: no distributed tensor, and none around others."""

NAME = "nndiag"
"""Key of a hook on a gradient; PyTorch's own are numbers."""


def as_array(tensor: torch.Tensor) -> Array:
    """The values of a dense or sparse tensor on any device, of bfloat16 and the like as float32; not to be written to."""
    if not is_viewed(tensor):
        tensor = dense(tensor)
        tensor = (tensor if tensor.dtype in VIEWED else tensor.to(torch.float32)).cpu()
    array: Array = tensor.numpy(force=tensor.requires_grad)  # detached within one call
    return array


def is_viewed(tensor: torch.Tensor) -> bool:
    """Whether `as_array` gives a view of the memory of `tensor`."""
    strided = tensor.is_cpu and tensor.dtype in VIEWED and tensor.layout is STRIDED
    return strided and type(tensor).__torch_dispatch__ is PLAIN


class View:
    """The array of a tensor that stays where it is from step to step, such as a parameter: made once.

    It keeps the memory of that tensor alive, which is for what lives as long as the model alone.
    """

    def __init__(self) -> None:
        self._known: tuple[torch.Tensor, int, Array] | None = None

    def of(self, tensor: torch.Tensor) -> Array:
        """What `as_array` gives."""
        known = self._known
        if known is not None and known[0] is tensor and known[1] == tensor.data_ptr():
            return known[2]
        array = as_array(tensor)
        self._known = (tensor, tensor.data_ptr(), array) if is_viewed(tensor) else None
        return array


def dense(tensor: torch.Tensor) -> torch.Tensor:
    """A plain tensor of real numbers on the same device, of one that is distributed, sparse, quantised or complex."""
    tensor = tensor.detach()
    if hasattr(tensor, "full_tensor"):  # a distributed tensor
        tensor = tensor.full_tensor()
    if tensor.layout is not torch.strided:
        tensor = tensor.to_dense()
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    return tensor


def hook_of(method: Callable[..., None], first: Any) -> Callable[[torch.Tensor], None]:
    """A hook for gradients that calls `method(first, gradient)`, and of which nothing is said where its tensor is saved."""
    hook = partial(method, first)
    hook.__torch_unserializable__ = True  # type: ignore[attr-defined]
    return hook


def on_gradient(tensor: torch.Tensor, hook: Callable[[torch.Tensor], None]) -> None:
    """`tensor.register_hook(hook)` of what a function has put out, in a third of the time, for a hook that is never removed."""
    if tensor._backward_hooks is not None or tensor.grad_fn is None:
        tensor.register_hook(hook)
        return
    tensor._backward_hooks = OrderedDict(((NAME, hook),))
    tensor.grad_fn._register_hook_dict(tensor)


def has_values(tensor: torch.Tensor) -> bool:
    """Whether there is an array of numbers in it: not on the meta device, nor in a fake tensor or one of ragged rows."""
    kind = type(tensor)
    fake = kind is not torch.Tensor and (
        isinstance(tensor, FakeTensor) or not (kind.__torch_dispatch__ is PLAIN or hasattr(kind, "full_tensor"))
    )
    return not (fake or tensor.is_nested or tensor.is_meta)


def version_of(tensor: torch.Tensor) -> int:
    """How often a tensor was written to; of one made in inference mode nobody counts that."""
    return -1 if tensor.is_inference() else int(tensor._version)


def same_start(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors begin at the same place in memory, as what works in place takes and gives; sparse ones have none."""
    return one is other or (one.layout is other.layout is STRIDED and one.data_ptr() == other.data_ptr())


def first_tensor(value: Any, *, floating: bool = True) -> torch.Tensor | None:
    """The first (floating-point) tensor in what a module takes or gives: a tensor, or tuples, lists and mappings of them."""
    if isinstance(value, torch.Tensor):
        return value if (value.is_floating_point() or not floating) and has_values(value) else None
    if isinstance(value, dict):
        value = [*(value[name] for name in ("logits", "output", "out") if name in value), *value.values()]
    elif not isinstance(value, (tuple, list)):
        return None
    for one in value:
        if (found := first_tensor(one, floating=floating)) is not None:
            return found
    return None
