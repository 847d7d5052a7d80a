"""Checks of how samples are cut into batches, for nndiag."""

from __future__ import annotations

from nndiag import Check
from nndiag_batches.leftover_batch import LeftoverBatch as LeftoverBatch


def checks() -> tuple[type[Check], ...]:
    """What the entry point `nndiag.checks` gives to the catalogue."""
    return (LeftoverBatch,)
