"""The way down from a loss to its terms."""

from __future__ import annotations

from collections import deque

from torch import Tensor

from nndiag_torch.graph.formulas import FORMULAS
from nndiag_torch.graph.losses import LOSSES
from nndiag_torch.graph.nodes import Edge, Node
from nndiag_torch.graph.paths import through
from nndiag_torch.graph.terms import Path, Term
from nndiag_torch.graph.values import Values

NODES = 256
"""Nodes looked at for terms of a loss."""


def terms_of(loss: Tensor, values: Values) -> tuple[list[tuple[Term, Path]], bool]:
    """Loss functions that `loss` consists of, and whether it is nothing else.

    Breadth first: of a sum over many time steps the budget reaches the latest ones.
    """
    path = Path() if loss.numel() == 1 else Path(factor=1 / max(1, loss.numel()), averaged=True)
    queue: deque[tuple[Edge, Path]] = deque([((loss.grad_fn, 0), path)])
    terms: list[tuple[Term, Path]] = []
    alone = True
    for _ in range(NODES):
        if not queue:
            return terms, alone
        edge, path = queue.popleft()
        term = _term(edge[0], values)
        if term is not None and _fits(term, path):
            terms.append((term, path))
        elif term is None and (further := through(edge, path)) is not None:
            queue.extend(further)
        else:
            alone = False
    return terms, False


def _term(node: Node, values: Values) -> Term | None:
    """The loss function that `node` is the end of."""
    name = node.name()
    if (loss := LOSSES.get(name)) is not None:
        return loss(values, node)
    return next((term for formula in FORMULAS.get(name, ()) if (term := formula(values, node)) is not None), None)


def _fits(term: Term, path: Path) -> bool:
    """Whether `path` makes a loss of it: of the right sign, and no log p that is weighted by sample.

    Such is what policy gradients look like, -(log p(action) * advantage): their actions are no labels.
    """
    if path.factor is not None and path.factor * term.sign <= 0:
        return False
    return not (path.weighted and term.sign < 0) and not (path.root and term.name != "MSELoss")
