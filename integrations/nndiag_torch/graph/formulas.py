"""Losses written out as formulas, by the user or by PyTorch itself, known by the pattern of their nodes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from nndiag_torch.graph.axes import misplaced
from nndiag_torch.graph.losses import (
    behind_guards,
    behind_logarithm,
    behind_reshapes,
    broadcast,
    log_probabilities,
    nll,
    of_logarithm,
    places,
)
from nndiag_torch.graph.nodes import DEPTH, Edge, Node, inputs_of, name_of, number_in, saved_by, shape_of, signed
from nndiag_torch.graph.terms import Term
from nndiag_torch.graph.values import RESHAPES, Values, head_of

NAMES = {"logits": "CrossEntropyLoss", "probabilities": "CrossEntropy", "log_probabilities": "NLLLoss"}
"""What a cross-entropy is called, by what it is computed from."""

LEAF = "torch::autograd::AccumulateGrad"

OVER = 1e-2
"""Share of the targets that may be added to what an error is divided by."""

WHOLE = 1e-3
"""By how much the shares of two labels may miss 1, and weights that are the same differ."""


def _squared(values: Values, node: Node) -> Term | None:
    """(outputs - targets) ** 2."""
    if node.name() == "PowBackward0":
        fits, difference = number_in(saved_by(node, "exponent")) == 2, node.next_functions[0]
    else:
        first, difference = node.next_functions
        fits = None not in (first[0], difference[0]) and (
            first[0] is difference[0] or first[0].next_functions == difference[0].next_functions
        )
    return _difference(values, "MSELoss", difference, saved_by(node, "self")) if fits else None


def _absolute(values: Values, node: Node) -> Term | None:
    """|outputs - targets|."""
    return _difference(values, "L1Loss", node.next_functions[0], saved_by(node, "self"))


def _percentage(values: Values, node: Node) -> Term | None:
    """|outputs - targets| / |targets|, or the absolute of the quotient."""
    divided = node if node.name() == "DivBackward0" else node.next_functions[0][0]
    if divided is None or divided.name() != "DivBackward0" or len(inputs_of(divided)) != 1:
        return None
    over, inner = saved_by(divided, "other"), divided.next_functions[0]
    if over is None or inner[0] is None:
        return None
    if divided is node:
        term = _absolute(values, inner[0]) if name_of(inner) == "AbsBackward0" else None
    else:
        quotient = saved_by(node, "self")
        term = None if quotient is None else _difference(values, "L1Loss", inner, quotient.detach() * over)
    targets = None if term is None else term.targets
    if term is None or targets is None or targets.numel() != over.numel():
        return None
    apart = (over.detach().reshape(-1).abs() - targets.reshape(-1).abs()).abs().mean()
    same = bool(apart <= OVER * targets.abs().mean())  # what keeps the quotient finite is next to nothing
    return replace(term, name="MeanAbsolutePercentageError") if same else None


def _difference(values: Values, name: str, edge: Edge, difference: Tensor | None) -> Term | None:
    """A loss of outputs - targets; the targets are what the outputs are off by `difference` from."""
    node = edge[0]
    if name_of(edge) != "SubBackward0" or node._saved_alpha != 1:
        return None
    found = [(place, values.unexpanded(inner)) for place, inner in inputs_of(node) if name_of(inner) != LEAF]
    if len(inputs_of(node)) == 2:  # of two that are learned the output must be known for one, and not for both
        found = [pair for pair in found if pair[1].matched]
    if len(found) != 1:
        return None
    place, value = found[0]
    outputs, targets, both = value.tensor, None, shape_of(edge)
    if (
        difference is not None and outputs is not None and bool(outputs.detach().sum().isfinite())
    ):  # inf - inf tells nothing
        targets = _paired(_snapped(outputs, difference.detach() * (-1 if place else 1)), value.shape)
    more: dict[str, Any] = {} if targets is None else broadcast(value.shape, tuple(targets.shape), both)
    if outputs is not None and targets is not None and _ids_for_each(outputs.detach(), targets):
        targets, more = targets[:, :1], more | {"ids_for_each": True}
    return Term(name, "real", "real", value, targets, elements=math.prod(both), more=more)


def _ids_for_each(outputs: Tensor, targets: Tensor) -> bool:
    """Whether each of the C probabilities of a sample, outputs (N, C), was compared with the id of its class."""
    same = targets.shape == outputs.shape and targets.ndim == 2 and _are_ids(targets[:, :1], tuple(outputs.shape))
    return same and bool((targets == targets[:, :1]).all()) and _distributions(outputs, 1)


def _paired(targets: Tensor, outputs: tuple[int, ...]) -> Tensor:
    """Targets (N,) from the (N, N) that outputs (N, 1) were compared with, (N, 1) where outputs are (N,)."""
    n = outputs[0] if outputs else 0
    if n < 2 or tuple(targets.shape) != (n, n) or outputs not in ((n, 1), (n,)):
        return targets
    one, other = (targets[0], targets[-1]) if len(outputs) == 2 else (targets[:, :1], targets[:, -1:])
    return one if torch.allclose(one, other, rtol=1e-3, atol=1e-4) else targets


def _snapped(outputs: Tensor, difference: Tensor) -> Tensor:
    """outputs - difference, in whole numbers where all are whole up to the rounding of the subtraction."""
    targets = outputs - difference
    first = targets.reshape(-1)[:16]
    if bool(((first - first.round()).abs() > 1e-2).any()):
        return targets
    whole = targets.round()
    limit = 4 * torch.finfo(difference.dtype).eps * torch.maximum(outputs.abs(), difference.abs())
    return whole if bool(((targets - whole).abs() <= limit).all()) else targets


def _picked(values: Values, node: Node) -> Term | None:
    """log p[class], negated: by `gather` or by an index for each row; p may still be under the logarithm."""
    logarithm = node.name() == "LogBackward0"
    pick = behind_guards(node.next_functions[0])[0] if logarithm else node
    if pick is None or (ids := _ids(pick)) is None:
        return None
    edge: Edge = pick.next_functions[0]
    if logarithm:
        kind, value = "probabilities", values.value(behind_guards(edge))
        known = value.matched or head_of(edge) in ("softmax", "sigmoid")
    else:
        kind, value, _ = log_probabilities(values, edge)
        known = kind != "log_probabilities" or head_of(edge) == "log_softmax"
    if not known or places(ids, value.shape):
        return None
    before = edge if logarithm else behind_logarithm(values, edge)
    more = of_logarithm(before) | misplaced(values, before, 1)
    if logarithm and pick is not node.next_functions[0][0]:
        more.pop("unguarded", None)  # what was picked is kept from 0
    return Term(NAMES[kind], "classes", kind, value, ids, elements=len(ids), axis=1, sign=-1, more=more)


def _ids(node: Node) -> Tensor | None:
    """The class that is picked from each row (N, C)."""
    shape = shape_of(node.next_functions[0]) if node.next_functions[0][0] is not None else ()
    if node.name() == "GatherBackward0" and len(shape) == 2:
        index = saved_by(node, "index")
        good = index is not None and signed(node._saved_dim) % 2 == 1 and tuple(index.shape) == (shape[0], 1)
        return index.detach().reshape(-1) if good else None
    if node.name() == "IndexBackward0" and len(shape) == 2:
        try:
            rows, index = node._saved_indices
        except (RuntimeError, ValueError):
            return None
        if rows is None or index is None or index.dtype == torch.bool or index.shape != (shape[0],):
            return None
        return index if torch.equal(rows, torch.arange(shape[0], device=rows.device)) else None
    return None


def _soft(values: Values, node: Node) -> Term | None:
    """q log p, negated and summed over the classes: cross-entropy with probabilities for targets."""
    inputs = inputs_of(node)
    if len(inputs) != 1:
        return None
    ((place, edge),) = inputs
    kind, value, axis = log_probabilities(values, edge)
    targets, shape = saved_by(node, "self" if place else "other"), value.shape
    if kind == "log_probabilities" or targets is None or len(shape) < 2:
        return None
    if tuple(targets.shape) == (shape[0], 1) and _are_ids(targets, shape):
        return Term(NAMES[kind], "classes", kind, value, targets.detach().reshape(-1).long(), elements=shape[0],
                    axis=1, sign=-1, more={"ids_multiply": shape[1]})  # fmt: skip
    if tuple(targets.shape) != shape:
        return None
    axis = 1 if axis is None else axis
    logits = kind == "logits"
    more: dict[str, Any] = {"label_smoothing": 0.0} if logits else of_logarithm(behind_logarithm(values, edge))
    if not logits and "normalizes" not in more and not _distributions(targets, axis):
        return None  # one half of a loss on labels
    return Term(NAMES[kind], "classes", kind, value, targets, elements=math.prod(shape) // max(1, shape[axis]),
                axis=axis, sign=-1, more=more)  # fmt: skip


def _are_ids(targets: Tensor, shape: tuple[int, ...]) -> bool:
    """Whether `targets` (N, 1), on a CPU, are ids of three classes or more of outputs (N, C): whole, and no mask of 0 and 1."""
    if len(shape) != 2 or shape[1] < 3 or targets.device.type != "cpu" or not torch.equal(targets, targets.round()):
        return False
    return float(targets.min()) >= 0 and 1 < float(targets.max()) < shape[1]


def _distributions(q: Tensor, axis: int) -> bool:
    """Whether `q` is not negative and sums to 1 along `axis`."""
    return bool((q >= 0).all()) and bool(((q.sum(axis) - 1).abs() < 1e-3).all())


def _smoothed(values: Values, node: Node) -> Term | None:
    """(1 - s) times the loss of the ids plus s / C times that of all classes: label smoothing (Szegedy et al. 2016)."""
    edges = node.next_functions
    if [name_of(edge) for edge in edges] != ["MulBackward1", "MulBackward1"]:
        return None
    ids, rest = edges[0][0].next_functions[0], edges[1][0].next_functions[0]
    if not name_of(ids).startswith("NllLoss"):
        return None
    softmax = behind_reshapes(values, ids[0].next_functions[0])[0]
    if not _comes_from(rest, softmax[0]) or (term := nll(values, ids[0])) is None:
        return None
    smoothing = 1 - float(edges[0][0]._saved_other)
    return replace(term, more=term.more | {"label_smoothing": round(smoothing, 9)})


def _comes_from(edge: Edge, node: Node) -> bool:
    """Whether a chain of single inputs leads from `edge` to `node`."""
    for _ in range(DEPTH):
        if edge[0] is node:
            return True
        live = inputs_of(edge[0]) if edge[0] is not None else []
        if len(live) != 1:
            return False
        edge = live[0][1]
    return False


def _binary(values: Values, node: Node) -> Term | None:
    """y log p + (1 - y) log(1 - p), negated as a whole or half by half, either half weighed or not."""
    halves = [found for edge in node.next_functions[:2] if (found := _half(edge)) is not None]
    if len(halves) < 2 or name_of(halves[0][1]) != name_of(halves[1][1]):
        return None
    (yes, first), (no, second) = halves
    no = -no if node.name() == "SubBackward0" and no is not None else no
    if (order := _yes_first(first, second)) is None:
        return None
    if not order:
        yes, first, no, second = no, second, yes, first
    sign, targets, more = _labels(yes, no, -1 if node.name() == "AddBackward0" else 1)
    if not sign:
        return None
    p = first[0].next_functions[0]
    if name_of(first) == "LogSigmoidBackward0":
        form, value = ("MultiLabelSoftMarginLoss", "binary", "logits"), values.value(p, saved_by(first[0], "self"))
    else:
        form, value, more = (
            ("BCELoss", "binary", "probabilities"),
            values.value(behind_guards(p)),
            more | of_logarithm(p),
        )
        value = values.value(behind_guards(p), saved_by(first[0], "self")) if value.source is None else value
    return Term(*form, value, targets, elements=math.prod(shape_of((node, 0))), sign=sign, more=more)


def _half(edge: Edge) -> tuple[Tensor | None, Edge] | None:
    """What a logarithm behind `edge` is multiplied by, None where that is forgotten, and the edge of the logarithm."""
    factor: Tensor | None = torch.ones(())
    for _ in range(DEPTH):
        name = name_of(edge)
        if name in ("LogBackward0", "LogSigmoidBackward0"):
            return factor, edge
        live = [] if edge[0] is None else inputs_of(edge[0])
        if name not in ("NegBackward0", "MulBackward0") or len(live) != 1:
            return None
        if name == "NegBackward0":
            factor = None if factor is None else -factor
        else:
            other = saved_by(edge[0], "self" if live[0][0] else "other")
            factor = None if factor is None or other is None else factor.to(other.device) * other
        edge = live[0][1]
    return None


def _yes_first(first: Edge, second: Edge) -> bool | None:
    """Whether of two logarithms the first is of p and the second of 1 - p; None where they are not of the two."""
    p, other = first[0].next_functions[0], second[0].next_functions[0]
    if name_of(first) == "LogSigmoidBackward0":
        negated = [name_of(edge) == "NegBackward0" for edge in (p, other)]
        return None if negated[0] == negated[1] else negated[1]
    for yes, one, rest in ((True, p, other), (False, other, p)):
        one, rest = behind_guards(one), behind_guards(rest)
        root = (inputs_of(one[0]) or [(0, one)])[0][1]  # p itself may be computed once or twice
        if name_of(rest).startswith(("Rsub", "Sub")) and (_comes_from(rest, root[0]) or _comes_from(rest, one[0])):
            return yes
    return None


def _labels(yes: Tensor | None, no: Tensor | None, sign: int) -> tuple[int, Tensor | None, dict[str, Any]]:
    """The sign of a term, its labels and what it says of weights, by the factors of log p and of log(1 - p).

    Factors y and 1 - y are those of labels, or of both signs turned around; of a y that is 0 or 1 each may be times a weight.
    `sign` is right where the factors are forgotten, 0 says that they are none of a loss.
    """
    if yes is None or no is None:
        return sign, None, {}
    whole = yes + no
    for turn in (-1, 1):
        if bool((whole + turn).abs().max() < WHOLE):
            return turn, yes * -turn, {}
        a, b = yes * -turn, no * -turn
        if bool((a >= 0).all()) and bool((b >= 0).all()) and bool((a * b == 0).all()):
            more: dict[str, Any] = {"weight": True}
            weights = [side[side > 0] for side in torch.broadcast_tensors(a, b)]
            if all(len(side) and bool(side.max() - side.min() <= WHOLE * side.max()) for side in weights):
                positive, negative = (float(side[0]) for side in weights)
                more = {"pos_weight": [round(positive, 4)]} if abs(negative - 1) < WHOLE else more
            return turn, (a > 0).to(a.dtype), more
    return 0, None, {}


def _hinge(values: Values, node: Node) -> Term | None:
    """max(0, 1 - y z), of labels y that are -1 and 1, or 0 by mistake."""
    rest = inputs_of(node)[0][1]
    product = rest[0].next_functions[-1] if name_of(rest) in ("RsubBackward1", "SubBackward0") else (None, 0)
    live = inputs_of(product[0]) if name_of(product) == "MulBackward0" and len(inputs_of(rest[0])) == 1 else []
    if len(live) != 1:
        return None
    ((place, edge),) = live
    labels = saved_by(product[0], "self" if place else "other")
    if not isinstance(labels, Tensor) or tuple(labels.shape) != shape_of(edge):
        return None
    if not bool(((labels == 1) | (labels == 0) | (labels == -1)).all()):
        return None
    return Term("HingeLoss", "", "real", values.value(edge), labels, elements=labels.numel())


def _squared_hinge(values: Values, node: Node) -> Term | None:
    """max(0, 1 - y z) ** 2."""
    edge = node.next_functions[0]
    cut = name_of(edge) in ("ClampMinBackward0", "ClampBackward1", "ReluBackward0")
    term = _hinge(values, edge[0]) if cut and number_in(saved_by(node, "exponent")) == 2 else None
    return None if term is None else replace(term, name="SquaredHingeLoss")


def _gaussian(values: Values, node: Node) -> Term | None:
    """log var + (outputs - targets)² / var."""
    divided = (*node.next_functions, (None, 0), (None, 0))[1]
    if name_of(divided) != "DivBackward0" or name_of(divided[0].next_functions[0]) != "PowBackward0":
        return None
    term = _squared(values, divided[0].next_functions[0][0])
    return None if term is None else replace(term, name="GaussianNLLLoss")


def _divergence(values: Values, node: Node) -> Term | None:
    """q log q - q log p, the Kullback-Leibler divergence of log p from targets q."""
    edges = node.next_functions
    if node.name() == "SubBackward0" and edges[0][0] is None and name_of(edges[1]) == "MulBackward0":
        product, place = edges[1][0], 1
    elif node.name() == "MulBackward0" and edges[0][0] is None and name_of(edges[1]) == "SubBackward0":
        product, place = node, 1
        if edges[1][0].next_functions[0][0] is not None:
            return None
    else:
        return None
    targets, inner = saved_by(product, "self"), product.next_functions[place]
    inner = inner[0].next_functions[1] if product is node else inner
    if targets is None or inner[0] is None or targets.ndim < 2 or targets.numel() == 1:
        return None
    axis = 1 if _distributions(targets, 1) else targets.ndim - 1
    if not _distributions(targets, axis):
        return None
    return Term("KLDivLoss", "classes", "log_probabilities", values.value(inner), targets,
                elements=targets.numel() // max(1, targets.shape[axis]), axis=axis)  # fmt: skip


def _poisson(values: Values, node: Node) -> Term | None:
    """rate - targets log rate, of the rate or, as is usual, of its logarithm."""
    rate, product = node.next_functions[:2]
    if name_of(product) != "MulBackward0" or rate[0] is None:
        return None
    live, targets = inputs_of(product[0]), saved_by(product[0], "self")
    if len(live) != 1:
        return None
    inner = live[0][1]
    elements = math.prod(shape_of((node, 0)))
    if name_of(rate) == "ExpBackward0" and rate[0].next_functions[0][0] is inner[0]:
        more = {"log_rates": True}
        return Term("PoissonNLLLoss", "", "", values.value(inner), targets, elements=elements, more=more)
    if name_of(inner) == "LogBackward0" and behind_guards(inner[0].next_functions[0])[0] is rate[0]:
        return Term("PoissonNLLLoss", "real", "real", values.value(rate), targets, elements=elements)
    return None


def _likelihood(values: Values, node: Node) -> Term | None:
    """logsumexp(z) - z[class]."""
    total, picked = node.next_functions[:2]
    if name_of(total) != "LogsumexpBackward0" or picked[0] is None:
        return None
    pick = picked[0].next_functions[0][0] if name_of(picked) in RESHAPES else picked[0]
    if pick is None or (ids := _ids(pick)) is None or pick.next_functions[0][0] is not total[0].next_functions[0][0]:
        return None
    value = values.value(total[0].next_functions[0], saved_by(total[0], "self"))
    return Term("CrossEntropyLoss", "classes", "logits", value, ids, elements=len(ids), axis=1)


Form = Callable[[Values, Node], Term | None]

FORMULAS: dict[str, tuple[Form, ...]] = {
    "PowBackward0": (_squared, _squared_hinge),
    "AbsBackward0": (_absolute, _percentage),
    "DivBackward0": (_percentage,),
    "MulBackward0": (_squared, _divergence, _soft),
    "AddBackward0": (_smoothed, _binary, _gaussian),
    "SubBackward0": (_divergence, _binary, _poisson, _likelihood),
    "GatherBackward0": (_picked,),
    "IndexBackward0": (_picked,),
    "LogBackward0": (_picked,),
    "ClampMinBackward0": (_hinge,),
    "ClampBackward1": (_hinge,),
    "ReluBackward0": (_hinge,),
}
"""What a loss written out, by the user or by PyTorch itself, may look like at the node that ends it."""
