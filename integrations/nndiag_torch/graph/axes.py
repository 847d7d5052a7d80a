"""Where the axis of the classes comes from: a softmax over another one, or over samples, or a reshape that mixes it up."""

from __future__ import annotations

from itertools import accumulate, pairwise
from operator import mul
from typing import Any

from torch import Tensor

from nndiag_torch.graph.nodes import DEPTH, Edge, Node, name_of, nodes_of, or_unknown, shape_of, signed
from nndiag_torch.graph.values import RESHAPES, Values

SOFTMAXES = ("LogSoftmaxBackward0", "SoftmaxBackward0")

LOGSUMEXP = "LogsumexpBackward0"


def misplaced(values: Values, edge: Edge, axis: int) -> dict[str, Any]:
    """What is wrong with the classes along `axis` of what goes into a loss at `edge`, as facts of the loss; else nothing.

    `softmax_axis` is that of a softmax over other things than the classes, `axes_mixed` the shapes before and after a reshape
    that no transposition precedes where one should. The way back ends at what the model returned.
    """
    for _ in range(DEPTH):
        name, node, shape = name_of(edge), edge[0], shape_of(edge)
        if name in SOFTMAXES and (over := signed(node._saved_dim) % max(1, len(shape))) != axis:
            return {"softmax_axis": over}
        if values.returned(edge) is not None or not node.next_functions:
            break
        edge = node.next_functions[0]
        if name == "TransposeBackward0":
            swapped = {signed(d) % len(shape) for d in (node._saved_dim0, node._saved_dim1)}
            axis = next(iter(swapped - {axis}), axis) if axis in swapped else axis
        elif name == "PermuteBackward0":
            axis = signed(node._saved_dims[axis]) % len(shape)
        elif name in RESHAPES:
            before = shape_of(edge)
            if mixes(before, shape):
                return {"axes_mixed": [list(before), list(shape)]}
            if (found := same_axis(axis, shape, before)) is None:
                break
            axis = found
        elif name not in (*SOFTMAXES, "ToCopyBackward0"):
            break
    return {}


def crossed(edge: Edge, ids: Tensor | None) -> dict[str, Any]:
    """That outputs (A, B, C) and ids (B, A) were both flattened before a loss at `edge`, as a fact of it; else nothing.

    Each output then meets the id of another place.
    """
    if ids is None or ids.ndim != 1:
        return {}
    base = ids._base
    while name_of(edge) in (*SOFTMAXES, "ToCopyBackward0"):
        edge = edge[0].next_functions[0]
    if base is None or base.ndim != 2 or base.numel() != len(ids) or name_of(edge) not in RESHAPES:
        return {}
    whole, given = shape_of(edge[0].next_functions[0])[:-1], tuple(base.shape)
    return {"axes_crossed": [list(whole), list(given)]} if whole == given[::-1] != given and min(given) > 1 else {}


@or_unknown(str)
def over_samples(loss: Tensor, samples: int) -> str:
    """Which of "softmax" and "logsumexp" in the graph of `loss` runs over an axis of so many `samples`; "" where none does.

    That axis is the first of several, and no other is as long: a square of similarities is normalised over either. Never raises.
    """
    return next((kind for node in nodes_of(loss) if (kind := _over_first(node, samples))), "")


def _over_first(node: Node, samples: int) -> str:
    name = node.name()
    if name in SOFTMAXES:
        kind, dims = "softmax", [node._saved_dim]
    elif name == LOGSUMEXP:
        kind, dims = "logsumexp", list(node._saved_dim)
    else:
        return ""
    before = node.next_functions[0]
    shape = () if before[0] is None else shape_of(before)
    several = len(shape) > 1 and shape[0] == samples and max(shape[1:]) > 1 and samples not in shape[1:]
    return kind if several and [signed(d) % len(shape) for d in dims] == [0] else ""


def same_axis(axis: int, shape: tuple[int, ...], reshaped: tuple[int, ...]) -> int | None:
    """Where `axis` of `shape` is found after a reshape; None where it is split, or one with others."""
    axis %= max(1, len(shape))
    fits = (k for k, size in enumerate(reshaped) if size == shape[axis] and _below(reshaped)[k] == _below(shape)[axis])
    return next(fits, None)


def mixes(before: tuple[int, ...], after: tuple[int, ...]) -> bool:
    """Whether a reshape puts parts of different axes into one, as (N, T, C) to (N, C, T) does where T is not C.

    To split an axis, or to make one of several, is sound: between two borders that both shapes have, only one of them then
    has any more.
    """
    old, new = ({*_below(shape), *_whole(shape)} for shape in (before, after))
    return any(any(a < x < b for x in old - new) and any(a < x < b for x in new - old)
               for a, b in pairwise(sorted(old & new)))  # fmt: skip


@or_unknown(list[list[int]])
def scrambled(loss: Tensor, samples: int) -> list[list[int]]:
    """The shapes before and after the first reshape in the graph of `loss` that `scrambles`; empty without one.

    `samples` is 0 where it is not known how many there are. Never raises.
    """
    for node in nodes_of(loss):
        if node.name() in RESHAPES and node.next_functions[0][0] is not None:
            before, after = shape_of(node.next_functions[0]), shape_of((node, 0))
            if scrambles(before, after, samples):
                return [list(before), list(after)]
    return []


def scrambles(before: tuple[int, ...], after: tuple[int, ...], samples: int) -> bool:
    """Whether a reshape takes numbers of one axis for those of another, where it should have swapped axes.

    What splits axes and then makes one of neighbours, as (T, C) to (T/2, 2C), is sound, and so is all for which there are such
    parts: sizes that divide one another. Even then it is a fault to give (N, T, C) the shape (N, C, T), or (N, T, H·D) the
    shape (N, H, T, D) or the other way round, and to make the second axis, of the N samples, the first.
    """
    if 0 in before or not mixes(before, after):
        return False
    borders = sorted({*_below(before), *_below(after), *_whole(before)})
    if any(b % a for a, b in pairwise(borders)):
        return True
    first = before[0] == after[0] == samples and before.count(samples) == after.count(samples) == 1
    swapped = len(before) == len(after) == 3 and sorted(before) == sorted(after)
    moved = before[1:2] == after[:1] == (samples,) and before.count(samples) == after.count(samples) == 1
    return moved or (first and (swapped or _heads(before, after) or _heads(after, before)))


def _heads(whole: tuple[int, ...], parts: tuple[int, ...]) -> bool:
    """Whether (N, T, H·D) and (N, H, T, D) are the two shapes."""
    return len(whole) == 3 and len(parts) == 4 and parts[2] == whole[1] and parts[1] * parts[3] == whole[2]


def _below(shape: tuple[int, ...]) -> list[int]:
    """How many values lie side by side for one place of each axis."""
    return [*accumulate(reversed(shape[1:]), mul, initial=1)][::-1] if shape else []


def _whole(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (_below(shape)[0] * shape[0],) if shape else ()
