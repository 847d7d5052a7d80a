"""The report on a loss: its name and what it expects, its outputs and targets, and where their gradient can be had."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from nndiag.losses import OTHER_TERMS
from nndiag_torch.graph.nodes import nodes_of, or_unknown
from nndiag_torch.graph.rows import Rows
from nndiag_torch.graph.terms import Path, Term
from nndiag_torch.graph.values import Step, Values, applied, candidates, head_of
from nndiag_torch.graph.walk import is_weighed_either_way, terms_of

TERMS = 32
"""Terms of one kind whose outputs are joined."""

COPIES = 32
"""Targets that have to be those that went in, for it to be no chance."""


@dataclass(frozen=True)
class Found:
    """What a loss is made of; what is not known is empty or None.

    `loss` is fit for `meta.loss`: name, task, expects, reduction ("mean", "sum", or "none" where one loss for each sample
    was given), label_smoothing; weight and pos_weight where it weighs, as a list of those of the classes or True;
    ignore_index where it is not -100, with the share of targets that are `ignored` where that is one of the classes. `scale` is
    there where the number is not the plain mean or sum of the loss's own formula: how many times that, None where not known.
    `broadcast` are the shapes of outputs and targets of which every one is compared with every other, `ids_multiply` is the
    number of classes whose logarithms are all multiplied with the id of one, `ids_for_each` says that each probability is
    compared with that id, `softmax_axis` the axis of a softmax that does not run over the classes, `axes_mixed` the shapes
    around a reshape that mixes them up, `unguarded` says that a logarithm is taken of a softmax or sigmoid as it is,
    `log_rates` that outputs are taken for logarithms of rates, and `signed_weights` that samples are weighed by numbers of
    either sign, as of a policy gradient.

    `outputs` goes into the loss, before a softmax or sigmoid of the loss's own; for a loss over classes it is (samples,
    classes), and `targets` (samples,) or (samples, classes), without the samples that the loss leaves out. Of very many values
    evenly spaced samples are taken. Where only the
    loss's own log-softmax can be read, they are its values, logits all the same. `head` is the kind of the elementwise function
    right before the loss, "unknown" where arithmetic stands between the two.

    A hook on `gradient_source` gets a gradient that `delta` brings, value by value, into the shape of `outputs`. Let the
    hook hold `delta` alone: one that holds the source, or this, would keep the graph alive for ever.
    """

    loss: dict[str, Any] = field(default_factory=dict)
    outputs: Tensor | None = None
    targets: Tensor | None = None
    head: str = ""
    gradient_source: Tensor | None = None
    delta: Callable[[Tensor], Tensor] = Tensor.detach

    def copies(self, ids: Tensor | None) -> bool:
        """Whether the targets of a loss over classes are `ids` (N, T), which went in, place by place; on a CPU alone."""
        if ids is None or (targets := self._texts(ids)) is None:
            return False
        given = (_spaced(ids.reshape(1, -1), len(targets)), _spaced(ids, len(targets)))
        return any(torch.equal(one, targets) for found in given for one in found)

    def follow(self, ids: Tensor | None) -> bool:
        """Whether the target at each place is the one of `ids` (N, T) that comes after it, as in texts; on a CPU alone."""
        if ids is None or (targets := self._texts(ids)) is None:
            return False
        for length in (ids.shape[1], ids.shape[1] - 1):
            stride = -(-len(ids) * length // len(targets))
            at = torch.arange(0, len(ids) * length, stride)
            row, place = at // length, at % length + 1
            there = place < ids.shape[1]
            if len(at) == len(targets) and torch.equal(ids[row[there], place[there]], targets[there]):
                return True
        return False

    def _texts(self, ids: Tensor) -> Tensor | None:
        """The targets, where both they and `ids` (N, T) are ids on a CPU, many and not all the same."""
        targets = self.targets
        if targets is None or ids.device.type != "cpu" or targets.device.type != "cpu":
            return None
        texts = ids.ndim == 2 and ids.shape[1] > 1 and targets.ndim == 1 and not targets.is_floating_point()
        many = texts and len(targets) >= COPIES and bool((targets != targets[0]).any())
        return targets if many else None


def _spaced(rows: Tensor, number: int) -> Iterator[Tensor]:
    """All ways to take a `number` of evenly spaced values of `rows` (N, T), as many of each from its first on, which are few."""
    each, rest = divmod(number, len(rows))
    if not rest and 0 < each <= rows.shape[1]:
        most = -(-rows.shape[1] // (each - 1)) if each > 1 else rows.shape[1] + 1
        for stride in range(-(-rows.shape[1] // each), most):
            yield rows[:, ::stride].reshape(-1)


@or_unknown(Found)
def objective(loss: Tensor, output: Any = None) -> Found:
    """What `loss` is computed from, where its graph tells; `output` is what the model returned, a tensor or several.

    Values are read before backward; after it, the structure alone is left. Never raises: a graph of another kind is
    unknown. Nothing is kept but what is handed out.
    """
    if not isinstance(loss, Tensor) or loss.grad_fn is None:
        return Found()
    every, alone = terms_of(loss, Values(output, loss))
    signed = {"signed_weights": True} if is_weighed_either_way(loss) else {}
    if not every:
        return Found(signed)
    terms = _alike(every)
    main = terms[0][0]
    facts = _facts(terms, loss.numel() > 1, alone=alone and len(terms) == len(every)) | signed
    rows = [Rows.of(*pair) for pair in terms[:TERMS]]
    outputs, targets = _joined([_pair(term, shape) for (term, _), shape in zip(terms, rows, strict=False)])
    source, head = main.value.source, head_of(main.value.edge)
    if len(terms) > 1 or outputs is None or targets is None or source is None or source.grad_fn is None:
        return Found(facts, outputs, targets, head)
    return Found(facts, outputs, targets, head, source, partial(_delta, (*main.value.steps, rows[0])))


@or_unknown(bool)
def ends_elsewhere(found: Found, output: Any, loss: Tensor, ours: Container[int]) -> bool:
    """Whether parameters that are not `ours`, by id, lie between what the model put out and what goes into the loss."""
    if found.gradient_source is None:
        return False
    ends = {tensor.grad_fn for tensor in candidates(output, loss)}
    return bool(ends) and any(
        isinstance(leaf := getattr(node, "variable", None), nn.Parameter) and id(leaf) not in ours
        for node in nodes_of(found.gradient_source, ends)
    )


def reached(loss: Tensor) -> set[int]:
    """Ids of `leaves`."""
    return {id(leaf) for leaf in leaves(loss)}


def leaves(loss: Tensor) -> Iterator[Tensor]:
    """The leaf parameters that backward from `loss` gets to, over the whole graph, those of the last layers first.

    What a checkpoint with `use_reentrant=True` or a function of the user's own hides inside is not among them.
    """
    yield from (leaf for node in nodes_of(loss) if (leaf := getattr(node, "variable", None)) is not None)


def _delta(steps: tuple[Step, ...], gradient: Tensor) -> Tensor:
    return applied(steps, gradient.detach())


def _alike(terms: list[tuple[Term, Path]]) -> list[tuple[Term, Path]]:
    """The terms that are one objective: the same loss as the first, on outputs of one width; what the model returned first."""
    matched = [pair for pair in terms if pair[0].value.matched]
    first = (matched or terms)[0][0]
    return [pair for pair in matched or terms if pair[0].name == first.name and _width(pair[0]) == _width(first)]


def _width(term: Term) -> tuple[int, ...]:
    shape = term.value.shape
    return shape[1:] if term.axis is None else shape[term.axis : term.axis + 1]


def _facts(terms: list[tuple[Term, Path]], samples: bool, *, alone: bool) -> dict[str, Any]:
    """`meta.loss` of terms of one kind; `alone` where the loss is nothing but those."""
    term, path = terms[0]
    name = term.name if not path.root else "RMSELoss"
    facts: dict[str, Any] = {"name": name if alone else f"{name}{OTHER_TERMS}"}
    facts |= {key: word for key, word in (("task", term.task), ("expects", term.expects)) if word}
    averaged = _averaged(term, path)
    if averaged or path.factor is not None:
        facts["reduction"] = "none" if samples else "mean" if averaged else "sum"
    scales = [_scale(*pair) for pair in terms]
    scale = sum(number for number in scales if number is not None) if alone and None not in scales else None
    if scale is None or not math.isclose(scale, 1.0, rel_tol=1e-3):
        facts["scale"] = scale
    return facts | term.more | dict.fromkeys(path.more, True)


def _averaged(term: Term, path: Path) -> bool:
    """Whether a mean over the batch is taken somewhere."""
    return term.reduction == 1 or path.averaged or any(_is_count(term, path, number) for number in path.divisors)


def _scale(term: Term, path: Path) -> float | None:
    """How many times the mean of the term's losses is in the loss; of a sum, how many times the sum."""
    if path.factor is None or term.reduction == 1 or not _averaged(term, path):
        return None if path.factor is None else abs(path.factor)
    scale = abs(path.factor) * (term.elements if path.kept is None else int(path.kept.sum()))
    return (
        scale if path.kept is None or math.isclose(scale, 1.0, rel_tol=1e-3) else None
    )  # masks differ from batch to batch


def _is_count(term: Term, path: Path, number: float) -> bool:
    """Whether what the loss is divided by is the number of samples, or of elements, in the batch."""
    shape = term.value.shape
    counts = {term.elements, *(math.prod(shape[:end]) for end in range(1, len(shape) + 1))}
    if path.kept is not None:
        counts.add(int(path.kept.sum()))
    return any(count > 1 and math.isclose(number, count, rel_tol=1e-6) for count in counts)


def _pair(term: Term, rows: Rows) -> tuple[Tensor | None, Tensor | None]:
    """Outputs and targets of one term, detached."""
    outputs, targets = term.value.tensor, None if term.targets is None else term.targets.detach()
    if outputs is not None:
        outputs = rows(outputs).to(term.value.dtype)
    if targets is not None:
        ids = term.axis is not None and tuple(targets.shape) != term.value.shape
        targets = rows.ids(targets) if ids else rows(targets)
    return outputs, targets


def _joined(pairs: list[tuple[Tensor | None, Tensor | None]]) -> tuple[Tensor | None, Tensor | None]:
    """Outputs and targets of several terms one after the other, where all have them."""
    if len(pairs) == 1:
        return pairs[0]
    both = [(outputs, targets) for outputs, targets in pairs if outputs is not None and targets is not None]
    if len(both) < len(pairs):
        return pairs[0]
    outputs, targets = ([torch.atleast_1d(t) for t in side] for side in zip(*both, strict=True))
    return torch.cat(outputs), torch.cat(targets)
