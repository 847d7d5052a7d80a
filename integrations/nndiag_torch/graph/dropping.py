"""Dropout in the graph of a loss, by a function as well as by a module."""

from __future__ import annotations

from torch import Tensor

from nndiag_torch.graph.nodes import Node, nodes_of, or_unknown, saved_by

SOME = 16
"""Values from which on a mask is told from numbers that happen to be like one."""

ERRORS = 4.0
"""Standard errors of a share of random draws that the zeros of a mask may be off the rate that its other values say."""


@or_unknown(float)
def dropped(loss: Tensor) -> float:
    """The largest share of values that a dropout in the graph of `loss` has set to 0; 0 where there is none on a CPU.

    There, dropout multiplies with a mask of 0 and 1 / (1 - p), which needs no gradient. Never raises.
    """
    return max((_share(node) for node in nodes_of(loss) if node.name() == "MulBackward0"), default=0.0)


def _share(node: Node) -> float:
    live = [edge[0] is not None for edge in node.next_functions]
    mask = saved_by(node, "self" if live == [False, True] else "other") if sum(live) == 1 else None
    if not isinstance(mask, Tensor) or not mask.is_cpu or mask.numel() < SOME or not mask.is_floating_point():
        return 0.0
    largest, zeros = float(mask.max()), mask == 0
    if not largest > 1 or not bool((zeros | (mask == mask.max())).all()):
        return 0.0
    share, rate = float(zeros.double().mean()), 1 - 1 / largest
    return share if 0 < share < 1 and abs(share - rate) <= ERRORS * (rate * (1 - rate) / mask.numel()) ** 0.5 else 0.0
