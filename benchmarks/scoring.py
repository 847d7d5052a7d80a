"""Shares with their intervals, and tables in Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Z = 1.959963984540054
"""Normal quantile of 97.5 %, for intervals of 95 %."""


@dataclass(frozen=True)
class Share:
    """`hits` of `total`, with its interval."""

    hits: int
    total: int

    @classmethod
    def of(cls, outcomes: Iterable[bool]) -> Share:
        """The share of true ones."""
        known = list(outcomes)
        return cls(sum(known), len(known))

    @property
    def value(self) -> float:
        """hits / total, NaN of nothing."""
        return self.hits / self.total if self.total else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval (Wilson 1927)."""
        return wilson(self.hits, self.total)

    def __str__(self) -> str:
        if not self.total:
            return "–"
        low, high = (percent(bound).removesuffix(" %") for bound in self.interval)
        return f"{percent(self.value)} [{low}–{high} %] ({self.hits}/{self.total})"

    @property
    def short(self) -> str:
        """Percent and counts, without the interval."""
        return f"{percent(self.value)} ({self.hits}/{self.total})" if self.total else "–"


def wilson(hits: int, total: int, z: float = Z) -> tuple[float, float]:
    """Score interval of a share (Wilson 1927); from 0 to 1 of nothing."""
    if not total:
        return 0.0, 1.0
    p, n = hits / total, total
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def percent(share: float) -> str:
    """In percent, with a decimal where it is not whole."""
    return f"{100 * share:.1f}".removesuffix(".0") + " %"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)
