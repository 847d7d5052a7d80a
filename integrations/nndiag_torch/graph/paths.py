"""Nodes between a loss and its terms: what adds, scales, averages or masks losses."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from nndiag_torch.graph.nodes import Edge, Node, inputs_of, name_of, number_in, or_unknown, saved_by, shape_of, signed
from nndiag_torch.graph.terms import Path
from nndiag_torch.graph.values import RESHAPES


def through(edge: Edge, path: Path) -> list[tuple[Edge, Path]] | None:
    """The inputs of a node that only adds, scales, averages or masks losses; None for any other."""
    rule = PASSES.get(edge[0].name())
    if rule is None:
        return None
    further = rule(edge[0], path)
    return None if further is None or any(following[0] is None for following, _ in further) else further


@or_unknown(lambda: 1.0)
def factor_on(loss: Tensor) -> float:
    """The number that the whole of a `loss` is multiplied with; 1 where there is none, or it is not known."""
    edge: Edge = (loss.grad_fn, 0)
    path = Path()
    while edge[0] is not None and edge[0].name().startswith(("MulBackward", "DivBackward")):
        passed = through(edge, path)
        if passed is None or len(passed) > 1 or passed[0][1].factor is None:
            break
        ((edge, path),) = passed
    return path.factor or 1.0


Passed = list[tuple[Edge, Path]] | None


def _same(node: Node, path: Path) -> Passed:
    return [(edge, path) for _, edge in inputs_of(node)]


def _negated(node: Node, path: Path) -> Passed:
    return [(edge, _turned(path, -1)) for _, edge in inputs_of(node)]


def _turned(path: Path, sign: float) -> Path:
    return replace(path, factor=None if path.factor is None else path.factor * sign)


def _subtracted(node: Node, path: Path) -> Passed:
    return [(edge, _turned(path, -1.0 if place else 1.0)) for place, edge in inputs_of(node)]


def _times_scalar(node: Node, path: Path) -> Passed:
    return [(node.next_functions[0], path.times(number_in(saved_by(node, "other"))))]


def _over_scalar(node: Node, path: Path) -> Passed:
    return [(node.next_functions[0], path.times(_inverse(number_in(saved_by(node, "other")))))]


def _inverse(number: float | None) -> float | None:
    return 1 / number if number else None


def _times(node: Node, path: Path) -> Passed:
    """A factor: a number, a mask or weights; of two losses with a gradient each is scaled by what is not known."""
    live = inputs_of(node)
    if len(live) == 2:
        return [(edge, path.times(None)) for _, edge in live]
    ((place, edge),) = live
    other = saved_by(node, "self" if place else "other")
    if other is None:
        return [(edge, path.times(None))]
    if not isinstance(other, Tensor) or other.numel() == 1:
        return [(edge, path.times(number_in(other)))]
    return _masked(edge, path, other, shape_of((node, 0)))


def _masked(edge: Edge, path: Path, other: Tensor, shape: tuple[int, ...]) -> Passed:
    """Losses times `other`: a mask of zeros and ones, or weights, of classes or of samples."""
    if bool((other == 1).all()):
        return [(edge, path)]
    if bool(((other == 0) | (other == 1)).all()):
        return [(edge, _keeping(path, other != 0, shape))]
    if not bool((other >= 0).all()):
        return None
    by_class = (
        other.ndim < len(shape) or other.shape[0] == 1 or bool(((other == other.min()) | (other == other.max())).all())
    )
    return [(edge, replace(path, weighted=path.weighted or not by_class, more=(*path.more, "weight")).times(None))]


def is_weighed_either_way(node: Node) -> bool:
    """Whether a node multiplies samples, each by a given number, and those are of either sign."""
    live = inputs_of(node) if node.name() == "MulBackward0" else []
    if len(live) != 1:
        return False
    other, shape = saved_by(node, "self" if live[0][0] else "other"), shape_of((node, 0))
    one_each = isinstance(other, Tensor) and bool(shape) and other.numel() == shape[0] > 1
    return one_each and bool((other < 0).any()) and bool((other > 0).any())


def _keeping(path: Path, kept: Tensor, shape: tuple[int, ...]) -> Path:
    """`path` with only the elements of losses of `shape` that `kept` is True for; the mean may be over those alone."""
    if tuple(kept.shape) != shape or path.kept is not None:
        return replace(path, factor=None)
    return replace(path, kept=kept)


def _over(node: Node, path: Path) -> Passed:
    """Over a number that is no part of the graph."""
    if node.next_functions[0][0] is None:
        return None
    other = saved_by(node, "other")
    if isinstance(other, Tensor) and other.numel() > 1:  # CTC divides by the lengths of the targets
        return (
            [(node.next_functions[0], path.times(None))] if name_of(node.next_functions[0]).startswith("Ctc") else None
        )
    return [(node.next_functions[0], path.times(_inverse(number_in(other))))]


def _mean(node: Node, path: Path) -> Passed:
    shape = tuple(node._saved_self_sym_sizes)
    dims = range(len(shape)) if node.name() == "MeanBackward0" else [signed(d) % len(shape) for d in node._saved_dim]
    count = math.prod(shape[dim] for dim in dims)
    factor = None if path.factor is None else path.factor / max(1, count)
    averaged = path.averaged or (0 in dims and shape[0] > 1)
    return [(edge, replace(path, factor=factor, averaged=averaged)) for _, edge in inputs_of(node)]


def _stacked(node: Node, path: Path) -> Passed:
    """Losses side by side: a mean over them is none over a batch."""
    return [(edge, replace(path, averaged=False, kept=None)) for _, edge in inputs_of(node)]


def _filled(node: Node, path: Path) -> Passed:
    mask = saved_by(node, "mask")
    kept = path.times(None) if mask is None else _keeping(path, ~mask, shape_of((node, 0)))
    return [(edge, kept) for _, edge in inputs_of(node)]


def _chosen(node: Node, path: Path) -> Passed:
    """`torch.where(condition, losses, 0)`."""
    condition, shape = saved_by(node, "condition"), shape_of((node, 0))
    if condition is None or len(inputs_of(node)) != 1:
        return [(edge, path.times(None)) for _, edge in inputs_of(node)]
    ((place, edge),) = inputs_of(node)
    return [(edge, _keeping(path, ~condition if place else condition, shape))]


def _picked_losses(node: Node, path: Path) -> Passed:
    """`losses[mask]` and the like."""
    mask = saved_by(node, "mask") if node.name() == "MaskedSelectBackward0" else _only(node._saved_indices)
    edge: Edge = node.next_functions[0]
    whole = isinstance(mask, Tensor) and mask.dtype == torch.bool
    return [(edge, _keeping(path, mask, shape_of(edge)) if whole else path.times(None))]


def _only(items: Any) -> Any:
    return items[0] if len(items) == 1 else None


def _root(node: Node, path: Path) -> Passed:
    return [(edge, replace(path, root=True)) for _, edge in inputs_of(node)]


PASSES: dict[str, Callable[[Node, Path], Passed]] = {
    **dict.fromkeys((*RESHAPES, "ToCopyBackward0", "NanToNumBackward0"), _same),
    **dict.fromkeys(("SumBackward0", "SumBackward1"), _same),
    **dict.fromkeys(("AddBackward0", "AddBackward1"), _same),
    **dict.fromkeys(("SelectBackward0", "UnbindBackward0"), _stacked),
    "SubBackward0": _subtracted,
    "SubBackward1": _subtracted,
    "NegBackward0": _negated,
    "MulBackward0": _times,
    "MulBackward1": _times_scalar,
    "DivBackward0": _over,
    "DivBackward1": _over_scalar,
    "MeanBackward0": _mean,
    "MeanBackward1": _mean,
    "StackBackward0": _stacked,
    "CatBackward0": _stacked,
    "MaskedFillBackward0": _filled,
    "WhereBackward0": _chosen,
    "IndexBackward0": _picked_losses,
    "MaskedSelectBackward0": _picked_losses,
    "SqrtBackward0": _root,
}
"""Nodes between a loss and its terms."""
