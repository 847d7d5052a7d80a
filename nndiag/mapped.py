"""Rows that lie in a file by memory map: gone through without staying in memory."""

from __future__ import annotations

import mmap
from collections.abc import Iterator

import numpy as np

from nndiag.statistics import Array

PIECE = 1 << 20
"""Bytes that are gone through at once: they and what is computed of them stay in the processor's cache."""


def pieces(rows: Array, start: int = 0, size: int = PIECE) -> Iterator[Array]:
    """The `rows` from number `start`, about `size` bytes at a time; of a file, each is let go when the next is asked for."""
    few = max(1, size // max(1, rows.strides[0]))
    for at in range(start, len(rows), few):
        yield rows[at : at + few]
        let_go(rows[at : at + few])


def let_go(rows: Array) -> None:
    """Tell the system that the pages of `rows` are not needed, if they are mapped: they count as memory of this process.

    So do the pages before them: reading `rows` brings neighbours back.
    """
    mapped = _map(rows)
    if mapped is None or not hasattr(mmap, "MADV_DONTNEED"):
        return
    begin = rows.ctypes.data - np.frombuffer(mapped, np.uint8).ctypes.data
    first = max(0, begin - PIECE) // mmap.PAGESIZE * mmap.PAGESIZE
    mapped.madvise(mmap.MADV_DONTNEED, first, min(begin + rows.nbytes, len(mapped)) - first)


def _map(rows: Array) -> mmap.mmap | None:
    """The map of a file that `rows` are a part of; None where they are in memory."""
    base: object = rows
    while isinstance(base, np.ndarray | memoryview):
        base = base.base if isinstance(base, np.ndarray) else base.obj
    return base if isinstance(base, mmap.mmap) and rows.flags.c_contiguous else None
