"""Samples of what goes into a loss: in rows, without those that do not count, and not more than can be looked at."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from torch import Tensor

from nndiag_torch.graph.terms import Path, Term

VALUES = 1 << 22
"""Values of outputs beyond which only evenly spaced samples are taken: a vocabulary times a text would fill the memory."""


@dataclass(frozen=True)
class Rows:
    """Brings outputs of `shape` into rows, classes last where `axis` is theirs, and leaves out what is not `kept`.

    Of the samples, or of the places of each where classes have an axis of their own, every `stride`-th is taken.
    """

    shape: tuple[int, ...]
    axis: int | None
    stride: int = 1
    kept: Tensor | None = None

    @classmethod
    def of(cls, term: Term, path: Path) -> Rows:
        """The rows of a term: what its path masks, and the id that it ignores, do not count."""
        shape, axis, kept = term.value.shape, term.axis, path.kept
        rows = cls(shape, axis, max(1, -(-math.prod(shape) // VALUES)))
        if axis is None:
            return (
                rows if kept is None or kept.shape != shape[: kept.ndim] else replace(rows, kept=kept[:: rows.stride])
            )
        kept = rows.ids(kept) if kept is not None and kept.numel() == term.elements else None
        if term.ignored is not None and term.targets is not None:
            counted = rows.ids(term.targets) != term.ignored
            kept = counted if kept is None else counted & kept
        return rows if kept is None or bool(kept.all()) else replace(rows, kept=kept)

    def __call__(self, t: Tensor) -> Tensor:
        """The rows of outputs, of their gradient, or of targets of the same shape."""
        if self.axis is None:
            t = t[:: self.stride] if self.stride > 1 and t.ndim else t
        elif self.axis == t.ndim - 1:
            t = t.reshape(-1, t.shape[-1])[:: self.stride]
        else:
            t = t.flatten(self.axis + 1)[..., :: self.stride].movedim(self.axis, -1)
            t = t.reshape(-1, t.shape[-1])
        return t if self.kept is None else t[self.kept]

    def ids(self, t: Tensor) -> Tensor:
        """The class of each row."""
        places = self.axis is not None and self.axis != len(self.shape) - 1
        t = t.reshape(self.shape[0], -1) if places else t.reshape(-1)
        t = t[..., :: self.stride].reshape(-1)
        return t if self.kept is None else t[self.kept]
