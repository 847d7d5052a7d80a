"""Attention in the graph of a loss: whether places of a sequence see those that come after them, and which places are hidden."""

from __future__ import annotations

from itertools import islice

import torch
from torch import Tensor

from nndiag_torch.graph.nodes import Node, nodes_of, or_unknown, saved_by

NODES = 4096
"""Nodes looked at for attention: a dozen blocks of a transformer."""

SOFTMAX = ("SoftmaxBackward0", "SafeSoftmaxBackward0")
"""What attention that is written out, by the user or by PyTorch, makes its weights with."""

SEVERAL = 3
"""Ids that are hidden at the least, where one alone is shown: text and not padding."""

LOWEST = -1e4
"""What a mask adds to hide a place is below: minus infinity, or the lowest number that half precision holds."""


@or_unknown(bool)
def looks_ahead(loss: Tensor, length: int) -> bool:
    """Whether there is attention of sequences of a `length` to themselves in the graph of `loss`, and all of it sees ahead.

    Where some does not, it is that of a decoder, and the others are of its encoder. The length may be off by the one place
    that is left out at an end. Never raises: a graph of another kind is unknown.
    """
    lengths = length - 1, length, length + 1
    known = (_sees_ahead(node, lengths) for node in islice(nodes_of(loss), NODES))
    ahead = [one for one in known if one is not None]
    return bool(ahead) and all(ahead)


def _sees_ahead(node: Node, lengths: tuple[int, ...]) -> bool | None:
    """Whether the attention that `node` is gives weight to later places; None where it is none of a sequence to itself."""
    name = node.name()
    if name in SOFTMAX:
        weights = saved_by(node, "result")
        return (
            bool((weights.detach().triu(1) > 0).any())
            if weights is not None and _square(weights.shape, lengths)
            else None
        )
    if not name.startswith("ScaledDotProduct"):
        return None
    query, key = saved_by(node, "query"), saved_by(node, "key")
    if query is None or key is None or not _square((*query.shape[:-1], key.shape[-2]), lengths):
        return None
    if node._saved_is_causal:
        return False
    masks = [found for kind in ("attn_mask", "attn_bias") if (found := saved_by(node, kind)) is not None]
    mask = masks[0] if masks else None
    return mask is None or bool((mask if mask.dtype == torch.bool else mask.detach() > LOWEST).triu(1).any())


@or_unknown(bool)
def shows_padding(loss: Tensor, ids: Tensor) -> bool:
    """Whether all attention to sequences of `ids` (N, T) that hides some places shows padding alone, and hides several ids.

    So it is where a mask is the wrong way round. Padding is one id at the end of texts, or at the beginning, of several places
    and not of as many in each. A place that was put before the others is left out; on a CPU alone. Never raises: a graph of
    another kind is unknown.
    """
    if ids.ndim != 2 or ids.device.type != "cpu":
        return False
    known = [
        _shows(hidden, ids) for node in islice(nodes_of(loss), NODES) if (hidden := _hidden(node, ids)) is not None
    ]
    return bool(known) and all(known)


def _shows(hidden: Tensor, ids: Tensor) -> bool:
    shown, kept_back = ids[~hidden].unique(), ids[hidden].unique()
    if len(shown) != 1 or len(kept_back) < SEVERAL or int(shown[0]) in kept_back.tolist():
        return False
    counts, places = (~hidden).sum(1, keepdim=True), torch.arange(ids.shape[1])
    ends = torch.equal(~hidden, places >= ids.shape[1] - counts) or torch.equal(~hidden, places < counts)
    return ends and int(counts.max()) > max(1, int(counts.min()))


def _hidden(node: Node, ids: Tensor) -> Tensor | None:
    """The places of `ids` that no place may look at, as the attention that `node` is has them; None where it hides none."""
    name = node.name()
    if name in SOFTMAX:
        weights = saved_by(node, "result")
        seen = None if weights is None else weights.detach() > 0
    elif name.startswith("ScaledDotProduct"):
        masks = [found for kind in ("attn_mask", "attn_bias") if (found := saved_by(node, kind)) is not None]
        seen = None if not masks else masks[0] if masks[0].dtype == torch.bool else masks[0].detach() > LOWEST
    else:
        return None
    samples, places = ids.shape
    if seen is None or seen.ndim < 3 or seen.shape[-1] not in (places, places + 1) or seen.shape[0] % samples:
        return None
    hidden = ~seen.any(dim=-2).reshape(samples, -1, seen.shape[-1])[:, 0, -places:]
    return hidden if bool(hidden.any()) else None


def _square(shape: tuple[int, ...], lengths: tuple[int, ...]) -> bool:
    return len(shape) > 2 and shape[-1] == shape[-2] > 1 and shape[-1] in lengths
