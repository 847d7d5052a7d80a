"""The objective of a training step, read from the autograd graph of its loss: which loss it is, its outputs and targets."""

from nndiag_torch.graph.attention import looks_ahead, shows_padding
from nndiag_torch.graph.axes import over_samples, scrambled, scrambles
from nndiag_torch.graph.dropping import dropped
from nndiag_torch.graph.objective import Found, ends_elsewhere, leaves, objective, reached
from nndiag_torch.graph.padding import counted, reads_last
from nndiag_torch.graph.paths import factor_on

__all__ = [
    "Found",
    "counted",
    "dropped",
    "ends_elsewhere",
    "factor_on",
    "leaves",
    "looks_ahead",
    "objective",
    "over_samples",
    "reached",
    "reads_last",
    "scrambled",
    "scrambles",
    "shows_padding",
]
