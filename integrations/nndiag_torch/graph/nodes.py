"""Nodes of an autograd graph: their names, shapes and inputs, and what they keep for backward."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from nndiag.interrupts import propagates

Node = Any
"""A node of the graph, `tensor.grad_fn`."""
Edge = tuple[Node, int]
"""A node and which of its outputs: one entry of `next_functions`; the node is None where nothing needs a gradient."""

DEPTH = 16
"""Nodes followed in a row."""

TELLS = hasattr(torch._C._autograd.SavedTensor, "data")
"""Whether a node says of what it keeps if hooks have packed it away; older releases of PyTorch do not."""

PACKERS = torch.autograd.graph.saved_tensors_hooks
"""The context in which hooks pack away what nodes keep: checkpointing is one, and so is offloading to the host."""

_packed = False


def packs(on: bool = True) -> None:
    """Hooks may have packed what nodes keep, or, with `on` false, nobody has: for releases in which no node says so."""
    global _packed
    _packed = on


_P = ParamSpec("_P")
_R = TypeVar("_R")


def or_unknown(unknown: Callable[[], _R]) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Has a function give `unknown()` where it fails: a check of the user's training must not end it, whatever graph is met."""

    def wrap(function: Callable[_P, _R]) -> Callable[_P, _R]:
        @wraps(function)
        def guarded(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            try:
                return function(*args, **kwargs)
            except Exception as fault:
                if propagates(fault):
                    raise
                return unknown()

        return guarded

    return wrap


def signed(number: int) -> int:
    """Nodes give negative dimensions as unsigned numbers of 64 bits."""
    return number - (1 << 64) if number >= 1 << 63 else number


def saved_by(node: Node, name: str) -> Any:
    """What `node` keeps for backward as `name`; None where it is freed or hooks have packed it away.

    To unpack could recompute a whole block: that is what checkpointing packs with.
    """
    try:
        raw = getattr(node, f"_raw_saved_{name}", None)
        if raw is not None and (
            (raw.unpack_hook is not None or not isinstance(raw.data, Tensor)) if TELLS else _packed
        ):
            return None
        return getattr(node, f"_saved_{name}", None)
    except RuntimeError:
        return None


def shape_of(edge: Edge) -> tuple[int, ...]:
    """Shape of the tensor that the edge stands for."""
    node, at = edge
    if (leaf := getattr(node, "variable", None)) is not None:
        return tuple(leaf.shape)
    return tuple(node._input_metadata[at].shape)


def inputs_of(node: Node) -> list[tuple[int, Edge]]:
    """The inputs of `node` that need a gradient, with their places."""
    return [(place, edge) for place, edge in enumerate(node.next_functions) if edge[0] is not None]


def nodes_of(loss: Tensor, ends: Iterable[Node] = ()) -> Iterator[Node]:
    """Every node of the graph of `loss` down to `ends`, those of the last layers first; nothing where it has none."""
    start = getattr(loss, "grad_fn", None)
    seen = {start, *ends}
    stack = [] if start is None or start in ends else [start]
    while stack:
        node = stack.pop()
        yield node
        for following, _ in getattr(node, "next_functions", ()):
            if following is not None and following not in seen:
                seen.add(following)
                stack.append(following)


def name_of(edge: Edge) -> str:
    return "" if edge[0] is None else str(edge[0].name())


def number_in(value: Any) -> float | None:
    """A single number; None where to read it would wait for an accelerator, or there are several."""
    if isinstance(value, Tensor):
        return float(value.detach()) if value.numel() == 1 and value.device.type == "cpu" else None
    return None if value is None else float(value)
