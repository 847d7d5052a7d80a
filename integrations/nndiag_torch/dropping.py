"""Dropout by a function, `F.dropout(x)`, that goes on in evaluation because nobody tells it the mode."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from nndiag_torch import graph


class FunctionalDropout:
    """Whether a network that drops values by a function alone draws random numbers in an evaluation, too; on a CPU.

    One evaluation is enough to tell, the first after training was seen to drop.
    """

    def __init__(self) -> None:
        self._share = 0.0
        self._random: torch.Tensor | None = None

    def trains(self, loss: torch.Tensor, modules: Iterable[nn.Module | None]) -> None:
        """Look at the graph of a training loss; where one of the called `modules` drops, it says nothing of functions."""
        if not any(map(_drops, modules)):
            self._share = max(self._share, graph.dropped(loss))

    def evaluation_begins(self) -> None:
        """A pass in evaluation mode, without gradients, begins."""
        if self._share:
            self._random = torch.get_rng_state()

    def evaluation_ends(self) -> float | None:
        """The share of values that it drops; 0 where it draws no random numbers, None where nothing was to be told."""
        random, self._random = self._random, None
        if random is None:
            return None
        share, self._share = self._share, 0.0
        return 0.0 if torch.equal(random, torch.get_rng_state()) else share


def _drops(module: nn.Module | None) -> bool:
    """Whether a module, if there is one, has a dropout of its own, as attention and recurrent layers have, too."""
    rate = (
        getattr(module, "p", 0.0)
        if isinstance(module, nn.modules.dropout._DropoutNd)
        else getattr(module, "dropout", 0.0)
    )
    return isinstance(rate, float) and rate > 0
