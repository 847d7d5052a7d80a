"""The way down from a loss to its terms."""

from __future__ import annotations

import math
from collections import deque

from torch import Tensor

from nndiag_torch.graph import paths
from nndiag_torch.graph.formulas import FORMULAS
from nndiag_torch.graph.losses import LOSSES
from nndiag_torch.graph.nodes import Edge, Node, inputs_of
from nndiag_torch.graph.terms import Path, Term
from nndiag_torch.graph.values import Values

NODES = 256
"""Nodes looked at for terms of a loss."""


def terms_of(loss: Tensor, values: Values) -> tuple[list[tuple[Term, Path]], bool]:
    """Loss functions that `loss` consists of, and whether it is nothing else.

    Breadth first: of a sum over many time steps the budget reaches the latest ones. A single one of the wrong sign, such as a
    log-likelihood that nobody has negated or minus a loss of the model's own outputs, is a loss all the same, with its sign
    forgotten.
    """
    path = Path() if loss.numel() == 1 else Path(factor=1 / max(1, loss.numel()), averaged=True)
    queue: deque[tuple[Edge, Path]] = deque([((loss.grad_fn, 0), path)])
    terms: list[tuple[Term, Path]] = []
    turned: list[tuple[Term, Path]] = []
    alone = True
    for _ in range(NODES):
        if not queue:
            only = alone and not terms and len(turned) == 1
            return (turned, True) if only else (terms, alone and not turned)
        edge, path = queue.popleft()
        term = _term(edge[0], values)
        if term is not None and _fits(term, path):
            terms.append((term, path))
        elif term is not None and _is_turned(term, path):
            turned.append((term, path))
        elif term is None and (further := paths.through(edge, path)) is not None:
            queue.extend(further)
        else:
            alone = False
    return terms, False


def is_weighed_either_way(loss: Tensor) -> bool:
    """Whether a part of `loss` is a sum over samples, each times a number of either sign, or the smaller of two such."""
    queue: deque[Node] = deque([loss.grad_fn])
    for _ in range(NODES):
        if not queue:
            return False
        node = queue.popleft()
        if paths.is_weighed_either_way(node):
            return True
        name, live = node.name(), [edge[0] for _, edge in inputs_of(node)]
        alone = len(live) == 1 or not name.startswith(("Mul", "Div"))  # a cosine is a product over others
        if alone and (name in paths.PASSES or name in ("MinimumBackward0", "MaximumBackward0")):
            queue.extend(live)
    return False


def _term(node: Node, values: Values) -> Term | None:
    """The loss function that `node` is the end of."""
    name = node.name()
    if (loss := LOSSES.get(name)) is not None:
        return loss(values, node)
    return next((term for formula in FORMULAS.get(name, ()) if (term := formula(values, node)) is not None), None)


def _is_turned(term: Term, path: Path) -> bool:
    """Whether `path` takes the plain mean or sum of a log-likelihood as it is, or minus that of a loss of the model's outputs.

    A generator that maximises the loss of its discriminator has returned something else than what goes into that.
    """
    counts = [1.0, 1 / max(1, term.elements)]
    plain = path.factor is not None and any(math.isclose(abs(path.factor), count, rel_tol=1e-6) for count in counts)
    known = term.sign < 0 or term.value.matched
    return known and plain and path.kept is None and not path.weighted and not path.root


def _fits(term: Term, path: Path) -> bool:
    """Whether `path` makes a loss of it: of the right sign, and no log p that is weighted by sample.

    Such is what policy gradients look like, -(log p(action) * advantage): their actions are no labels.
    """
    if path.factor is not None and path.factor * term.sign <= 0:
        return False
    return not (path.weighted and term.sign < 0) and not (path.root and term.name != "MSELoss")
