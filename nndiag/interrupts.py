"""Ctrl-C waits while rows change hands."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let Ctrl-C in here take effect at the end, so that no row is lost between two owners; a second one does so at once.

    Off the main thread, which Ctrl-C does not reach, and where the process does not hear it, this changes nothing.
    """
    usual = signal.getsignal(signal.SIGINT)
    if not callable(usual) or threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[tuple[int, Any]] = []

    def wait(number: int, frame: Any) -> None:
        signal.signal(signal.SIGINT, usual)
        came.append((number, frame))

    signal.signal(signal.SIGINT, wait)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is wait:
            signal.signal(signal.SIGINT, usual)
        for interrupt in came:
            usual(*interrupt)
