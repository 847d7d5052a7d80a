"""Losses with a node of their own in PyTorch's graphs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from nndiag_torch.graph.axes import crossed, misplaced, same_axis
from nndiag_torch.graph.nodes import DEPTH, Edge, Node, inputs_of, name_of, saved_by, shape_of, signed
from nndiag_torch.graph.terms import Term
from nndiag_torch.graph.values import RESHAPES, Step, Value, Values, head_of, view

NATIVE: dict[str, tuple[str, str, str]] = {
    "BinaryCrossEntropyWithLogitsBackward0": ("BCEWithLogitsLoss", "binary", "logits"),
    "BinaryCrossEntropyBackward0": ("BCELoss", "binary", "probabilities"),
    "MseLossBackward0": ("MSELoss", "real", "real"),
    "HuberLossBackward0": ("HuberLoss", "real", "real"),
    "SmoothL1LossBackward0": ("SmoothL1Loss", "real", "real"),
    "MultilabelMarginLossBackward0": ("MultiLabelMarginLoss", "binary", "real"),
    "SoftMarginLossBackward0": ("SoftMarginLoss", "", "real"),
}
"""Name, task and what the outputs must be, of losses that compare two tensors of one shape. The labels of a soft margin are
-1 and 1: no task that a check knows."""


def _native(values: Values, node: Node) -> Term | None:
    """A loss that compares outputs with targets of the same shape, element by element."""
    name = node.name()
    if (side := values.side(node)) is None:
        return None
    place, value = side
    form, value = _of_probabilities(values, node.next_functions[place], value, NATIVE[name])
    targets = saved_by(node, "is_target" if name == "MultilabelMarginLossBackward0" else ("target", "self")[place])
    more: dict[str, Any] = {} if saved_by(node, "weight") is None else {"weight": True}
    more |= _weights(node, "pos_weight")
    both = shape_of(value.edge) if targets is None else tuple(targets.shape)
    if both != value.shape and targets is not None:
        targets = _unexpanded(targets)
        more |= broadcast(value.shape, tuple(targets.shape), both)
    return Term(*form, value, targets, node._saved_reduction, math.prod(both), more=more)


def _of_probabilities(
    values: Values, edge: Edge, value: Value, form: tuple[str, str, str]
) -> tuple[tuple[str, str, str], Value]:
    """Of a binary loss, what it takes for probabilities before they were clipped, or made logits by a logit; else the same."""
    if form[0] == "BCEWithLogitsLoss" and name_of(edge) == "LogitBackward0":
        form, edge = NATIVE["BinaryCrossEntropyBackward0"], edge[0].next_functions[0]
        value = values.value(edge, saved_by(edge[0], "self"))
    if form[0] != "BCELoss" or value.matched or (inner := behind_guards(edge)) is edge:
        return form, value
    before = values.value(inner)
    return form, value if before.source is None else before


MOST_WEIGHTS = 1000
"""Classes whose weights are kept with the description of the loss."""


def _weights(node: Node, key: str) -> dict[str, Any]:
    """The weights of classes; only that there are some, where they are no numbers, many, or on a device."""
    weights = saved_by(node, key)
    if weights is None:
        return {}
    known = weights.device.type == "cpu" and weights.numel() <= MOST_WEIGHTS and bool(weights.isfinite().all())
    return {key: weights.reshape(-1).tolist() if known else True}


def _unexpanded(tensor: Tensor) -> Tensor:
    """The values of a tensor without the copies that an expansion of stride 0 shows."""
    shape: list[int] = []
    for dim, (size, stride) in enumerate(zip(tensor.shape, tensor.stride(), strict=True)):
        copies = stride == 0 and size > 1
        tensor = tensor.narrow(dim, 0, 1) if copies else tensor
        if shape or not copies:  # leading dimensions are those that were added
            shape.append(1 if copies else size)
    return tensor.reshape(shape)


def broadcast(outputs: tuple[int, ...], targets: tuple[int, ...], both: tuple[int, ...]) -> dict[str, Any]:
    """The two shapes in words, where every sample of the one meets every sample of the other, as (N, 1) and (N,) do."""
    n = both[0] if len(both) > 1 and math.prod(outputs) == math.prod(targets) else 1
    a, b = ((1,) * (len(both) - len(shape)) + shape for shape in (outputs, targets))
    crossed = any(
        one[0] == 1 and other[0] == n and any(other[k] == 1 and both[k] == n for k in range(1, len(both)))
        for one, other in ((a, b), (b, a))
    )
    words = [str(tuple("N" if size == n else size for size in shape)).replace("'", "") for shape in (outputs, targets)]
    return {"broadcast": words} if crossed and n > 1 else {}


def _ctc(values: Values, node: Node) -> Term | None:
    """The loss of sequences whose places are not known."""
    value = values.value(node.next_functions[0], saved_by(node, "log_probs"))
    return Term("CTCLoss", "", "log_probabilities", value, reduction=0)


def _margin(values: Values, node: Node) -> Term | None:
    """The hinge loss of class ids."""
    value = values.value(node.next_functions[0], saved_by(node, "self"))
    more: dict[str, Any] = {} if saved_by(node, "weight") is None else {"weight": True}
    axis = len(value.shape) - 1
    return Term("MultiMarginLoss", "classes", "real", value, saved_by(node, "target"), node._saved_reduction,
                math.prod(value.shape[:axis]), axis, more=more)  # fmt: skip


def nll(values: Values, node: Node) -> Term | None:
    """Negative log-likelihood of class ids: cross-entropy, where a log-softmax stands before it."""
    edge: Edge = node.next_functions[0]
    kind, value, _ = log_probabilities(values, edge, saved_by(node, "self"))
    more: dict[str, Any] = {"label_smoothing": 0.0} if kind == "logits" else {}
    if kind == "probabilities":
        more |= of_logarithm(behind_logarithm(values, edge))
    more |= _weights(node, "weight")
    axis, ids = min(1, len(value.shape) - 1), saved_by(node, "target")
    if (ignored := signed(node._saved_ignore_index)) != -100:
        more |= {"ignore_index": ignored} | _left_out(ids, ignored, value.shape[axis])
    if places(ids, value.shape):
        return Term("CrossEntropyLoss", "", "", replace(value, source=None), reduction=node._saved_reduction)
    more |= misplaced(values, edge, axis) | crossed(edge, ids)
    name = "CrossEntropyLoss" if kind == "logits" else "NLLLoss"
    return Term(name, "classes", kind, value, ids, node._saved_reduction,
                math.prod(value.shape) // max(1, value.shape[axis]), axis, ignored, more=more)  # fmt: skip


def _left_out(ids: Tensor | None, ignored: int, classes: int) -> dict[str, Any]:
    """The share of the targets that an ignored id leaves out, where that is one of the classes."""
    if ids is None or not 0 <= ignored < classes or ids.device.type != "cpu":
        return {}
    share = float((ids == ignored).double().mean())
    return {"ignored": share} if share > 0 else {}


def places(ids: Tensor | None, shape: tuple[int, ...]) -> bool:
    """Whether each of N samples, 4 or more, is told from all N, as contrastive losses do: no classes of anything."""
    square = ids is not None and len(shape) == 2 and shape[0] == shape[1] > 3
    return ids is not None and square and torch.equal(ids, torch.arange(shape[0], device=ids.device))


def log_probabilities(values: Values, edge: Edge, saved: Tensor | None = None) -> tuple[str, Value, int | None]:
    """What the logarithms of probabilities at `edge` are made from: its kind, its value, and the axis of the softmax.

    Logits, where the loss or the user's code takes the log-softmax; probabilities, where it takes the logarithm.
    """
    at, steps = behind_reshapes(values, edge)
    name, node = name_of(at), at[0]
    axis = same_axis(signed(node._saved_dim), shape_of(at), shape_of(edge)) if name == "LogSoftmaxBackward0" else None
    inner = None
    if values.returned(at) is not None:
        pass
    elif name == "LogSoftmaxBackward0" and (inner := _logged(values, node.next_functions[0])) is not None:
        kind = "probabilities"  # whose logarithms a softmax brings to a sum of 1
    elif name == "LogSoftmaxBackward0":
        kind, inner = "logits", values.value(node.next_functions[0])
        if inner.source is None and (result := saved_by(node, "result")) is not None:
            inner = replace(inner, source=result.detach())
    elif name == "LogBackward0":
        kind, inner = "probabilities", _logged(values, at)
    elif name == "SubBackward0":
        kind, inner = "logits", _normalized(values, node)
    if inner is None:
        return "log_probabilities", values.value(edge, saved), axis
    return kind, replace(inner, shape=shape_of(edge), steps=(*inner.steps, *steps)), axis


def _logged(values: Values, edge: Edge) -> Value | None:
    """What the logarithm at `edge` is taken of, where that can be read."""
    if name_of(edge) != "LogBackward0" or values.returned(edge) is not None:
        return None
    value = values.value(behind_guards(edge[0].next_functions[0]))
    return None if value.source is None else value


def behind_reshapes(values: Values, edge: Edge) -> tuple[Edge, tuple[Step, ...]]:
    """Where a reshape or cast has come from, and what it did."""
    steps: list[Step] = []
    while values.returned(edge) is None and name_of(edge) in (*RESHAPES, "ToCopyBackward0") and len(steps) < DEPTH:
        if (step := view(edge)) is not None:
            steps.append(step)
        edge = edge[0].next_functions[0]
    return edge, tuple(reversed(steps))


GUARDS = ("AddBackward0", "AddBackward1", "ClampBackward1", "ClampMinBackward0")
"""What keeps a number from 0: a small one added to it, or a clamp."""


def behind_guards(edge: Edge) -> Edge:
    """What a logarithm is taken of, before it was kept from 0 or divided by its sum."""
    edge = _behind_small_numbers(edge)
    whole = _of_own_sum(edge)
    return edge if whole is None else behind_guards(whole)


def _behind_small_numbers(edge: Edge) -> Edge:
    """What comes along `edge`, before it was kept from 0."""
    while name_of(edge) in GUARDS and len(inputs := inputs_of(edge[0])) == 1:
        edge = inputs[0][1]
    return edge


POSITIVE = ("exponential", "softplus")
"""Functions whose values make probabilities once they are divided by their sum."""


def _of_own_sum(edge: Edge) -> Edge | None:
    """x, where x / x.sum() comes along `edge`; None where it does not, and where that makes good probabilities."""
    if name_of(edge) != "DivBackward0":
        return None
    whole, total = edge[0].next_functions[:2]
    total = _behind_small_numbers(total)
    own = name_of(total).startswith("SumBackward") and total[0].next_functions[0][0] is whole[0]
    return whole if own and whole[0] is not None and head_of(whole) not in POSITIVE else None


def behind_logarithm(values: Values, edge: Edge) -> Edge:
    """What the logarithm at `edge`, or right before a log-softmax there, is taken of; where there is none, `edge`."""
    at, _ = behind_reshapes(values, edge)
    if name_of(at) == "LogSoftmaxBackward0" and name_of(at[0].next_functions[0]) == "LogBackward0":
        at = at[0].next_functions[0]
    following: Edge = at[0].next_functions[0] if name_of(at) == "LogBackward0" else edge
    return following


def of_logarithm(edge: Edge) -> dict[str, Any]:
    """What is to be said of a logarithm of what comes along `edge`.

    That it is one of a softmax or sigmoid as it is, of which a value may become 0; or of outputs divided by their sum.
    """
    unguarded = name_of(edge) in ("SoftmaxBackward0", "SigmoidBackward0")
    normalizes = _of_own_sum(_behind_small_numbers(edge)) is not None
    return ({"unguarded": True} if unguarded else {}) | ({"normalizes": True} if normalizes else {})


def _normalized(values: Values, node: Node) -> Value | None:
    """The logits z of z - logsumexp(z)."""
    first, second = node.next_functions[:2]
    if name_of(second) != "LogsumexpBackward0" or second[0].next_functions[0][0] is not first[0]:
        return None
    return values.value(first, saved_by(second[0], "self"))


LOSSES: dict[str, Callable[[Values, Node], Term | None]] = {
    **dict.fromkeys(NATIVE, _native),
    "NllLossBackward0": nll,
    "NllLoss2DBackward0": nll,
    "MultiMarginLossBackward0": _margin,
    "CtcLossBackward0": _ctc,
}
"""What reads a loss, by its node."""
