"""Padding in the graph of a loss: recurrent layers whose last state is taken after it, and targets that stand for it."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from torch import Tensor, nn

from nndiag_torch.graph.nodes import Node, nodes_of, or_unknown, signed

NODES = 8192
"""Nodes looked at: on a CPU a recurrent layer has some for each step."""

HALF, LONG = 0.5, 5
"""Share of the texts that end in one and the same id, and places of it that they end in, in the median."""


@or_unknown(bool)
def reads_last(loss: Tensor, ids: Tensor, recurrent: Iterable[nn.RNNBase]) -> bool:
    """Whether the state of a recurrent layer is taken after the last place of `ids` (N, T), which is padding in most texts.

    On a CPU alone. Never raises: a graph of another kind is unknown.
    """
    if ids.ndim != 2 or ids.device.type != "cpu" or not _padded(ids):
        return False
    layers = list(recurrent)
    states = {(layer.num_layers * (1 + layer.bidirectional), len(ids), layer.hidden_size) for layer in layers}
    widths = {layer.hidden_size * (1 + layer.bidirectional) for layer in layers}
    names, taken = set(), False
    for node in islice(nodes_of(loss), NODES):
        names.add(node.name())
        taken = taken or _takes_last(node, (len(ids), ids.shape[1]), widths, states)
    return taken and not any("PackPadded" in name for name in names)


@or_unknown(float)
def counted(ids: Tensor, targets: Tensor, ignored: int) -> float:
    """Share of `targets`, one for each of `ids` (N, T), that are at padding, if all these are one class that is not `ignored`.

    On a CPU alone, and of texts most of which end in padding; else 0. Never raises.
    """
    one_each = targets.numel() == ids.numel() and not targets.is_floating_point()
    if ids.ndim != 2 or ids.device.type != "cpu" or not one_each or not _padded(ids):
        return 0.0
    at_padding = _ends(ids).flip(1).bool()
    classes = targets.reshape(ids.shape)[at_padding].unique()
    return float(at_padding.float().mean()) if len(classes) == 1 and int(classes) != ignored else 0.0


def _ends(ids: Tensor) -> Tensor:
    """From the last place of each text backwards, 1 as long as there is the id that most texts end in, and then 0."""
    return (ids == ids[:, -1].mode().values).flip(1).cumprod(1)


def _padded(ids: Tensor) -> bool:
    """Whether most texts end in several places of one id, and not all of all texts are it."""
    last = ids[:, -1]
    padding = last.mode().values
    ends = _ends(ids).sum(1)[last == padding]  # places at the end that are padding
    most = len(ends) >= HALF * len(ids) and float(ends.median()) >= LONG
    return most and bool((ids != padding).any())


def _takes_last(node: Node, texts: tuple[int, int], widths: set[int], states: set[tuple[int, int, int]]) -> bool:
    """Whether `node` picks the last step of outputs (N, T, width), or of a layer's last states (layers, N, width) one."""
    if node.name() != "SelectBackward0":
        return False
    shape, dim = tuple(node._saved_self_sym_sizes), signed(node._saved_dim) % 3
    if len(shape) != 3:
        return False
    last = signed(node._saved_index) in (-1, shape[dim] - 1)
    steps = {(*texts, width) for width in widths}
    return (
        (dim == 1 and last and shape in steps)
        or (dim == 0 and shape in states)
        or (dim == 0 and last and (shape[1], shape[0], shape[2]) in steps)
    )
