"""Dropout in the graph of a loss, by a function as well as by a module."""

from __future__ import annotations

from torch import Tensor

from nndiag_torch.graph.nodes import Node, nodes_of, saved_by

SOME = 16
"""Values from which on a mask is told from numbers that happen to be like one."""


def dropped(loss: Tensor) -> float:
    """The largest share of values that a dropout in the graph of `loss` has set to 0; 0 where there is none on a CPU.

    There, dropout multiplies with a mask of 0 and 1 / (1 - p), which needs no gradient. Never raises.
    """
    try:
        return max((_share(node) for node in nodes_of(loss) if node.name() == "MulBackward0"), default=0.0)
    except Exception:  # as `objective`
        return 0.0


def _share(node: Node) -> float:
    live = [edge[0] is not None for edge in node.next_functions]
    mask = saved_by(node, "self" if live == [False, True] else "other") if sum(live) == 1 else None
    if not isinstance(mask, Tensor) or not mask.is_cpu or mask.numel() < SOME or not mask.is_floating_point():
        return 0.0
    largest, zeros = mask.max(), mask == 0
    share = float(zeros.double().mean())
    scaled = abs(float(largest) * (1 - share) - 1) < 0.5 and float(largest) > 1
    return share if 0 < share < 1 and scaled and bool((zeros | (mask == largest)).all()) else 0.0
