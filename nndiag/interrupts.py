"""Ctrl-C waits while rows change hands."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let Ctrl-C in here take effect at the end, so that no row is lost between two owners; a second one does so at once.

    Off the main thread, which Ctrl-C does not reach, in an interpreter within another, and where the process does not hear it,
    this changes nothing.
    """
    usual = signal.getsignal(signal.SIGINT)
    came: list[tuple[int, Any]] = []

    def wait(number: int, frame: Any) -> None:
        signal.signal(signal.SIGINT, usual)
        came.append((number, frame))

    if not callable(usual) or not _heard_by(wait):
        yield
        return
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is wait:
            signal.signal(signal.SIGINT, usual)
        for interrupt in came:
            usual(*interrupt)


def _heard_by(handler: Any) -> bool:
    """Whether `handler` hears Ctrl-C from now on."""
    try:
        signal.signal(signal.SIGINT, handler)
    except ValueError:  # on another thread
        return False
    return True
