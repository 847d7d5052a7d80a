"""What a loss is made of: loss functions in its graph, and what the path from the loss to each does."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from nndiag_torch.graph.values import Value


@dataclass(frozen=True)
class Term:
    """One loss function in the graph: its name, what goes into it, and what it does with the losses of single elements.

    `reduction` is PyTorch's number: 0 leaves them, 1 takes the mean, 2 the sum. `elements` counts them. `axis` is that of the
    classes, `ignored` an id that is left out. `sign` is -1 for what is a loss only once it is negated.
    """

    name: str
    task: str
    expects: str
    value: Value
    targets: Tensor | None = None
    reduction: int = 0
    elements: int = 0
    axis: int | None = None
    ignored: int | None = None
    sign: int = 1
    more: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Path:
    """What lies between the loss and a term: a factor (None: not known), whether a mean over the batch was taken.

    `divisors` may be sizes of a batch, `kept` is True for the elements that count, `weighted` says whether samples weigh
    differently, and `root` whether the square root was taken.
    """

    factor: float | None = 1.0
    averaged: bool = False
    divisors: tuple[float, ...] = ()
    kept: Tensor | None = None
    weighted: bool = False
    more: tuple[str, ...] = ()
    root: bool = False

    def times(self, number: float | None) -> Path:
        """With another factor."""
        if number is None or self.factor is None:
            return replace(self, factor=None)
        inverse = (1 / abs(number),) if number else ()
        return replace(self, factor=self.factor * number, divisors=self.divisors + inverse)
