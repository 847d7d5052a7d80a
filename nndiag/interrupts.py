"""Signals belong to the program: Ctrl-C waits while rows change hands, and what a handler raises is no fault of nndiag's."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType
from typing import Any


class Waiting:
    """Hears Ctrl-C in the place of its `usual` handler, which hears the next."""

    def __init__(self, usual: Any) -> None:
        self.usual = usual
        self.came: tuple[int, Any] | None = None

    def __call__(self, number: int, frame: Any) -> None:
        signal.signal(signal.SIGINT, self.usual)
        self.came = number, frame


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let Ctrl-C in here take effect at the end, so that no row is lost between two owners; a second one does so at once.

    Off the main thread, which Ctrl-C does not reach, in an interpreter within another, and where the process does not hear it,
    this changes nothing; nor does it within another.
    """
    usual = signal.getsignal(signal.SIGINT)
    waiting = Waiting(usual)
    if not callable(usual) or isinstance(usual, Waiting) or not _heard_by(waiting):
        yield
        return
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is waiting:
            signal.signal(signal.SIGINT, usual)
        if waiting.came is not None:
            usual(*waiting.came)


def _heard_by(handler: Waiting) -> bool:
    """Whether `handler` hears Ctrl-C from now on."""
    try:
        signal.signal(signal.SIGINT, handler)
    except ValueError:  # on another thread
        return False
    return True


def propagates(fault: BaseException, strict: bool = False) -> bool:
    """Whether `fault`, met in a part of nndiag, is to be raised: all are where `strict`, and the program's own always."""
    return strict or from_handler(fault)


def from_handler(fault: BaseException) -> bool:
    """Whether a signal handler of the program, such as a time limit's, has raised `fault`, wherever it came."""
    codes = {code for number in signal.valid_signals() if (code := _code(signal.getsignal(number))) is not None}
    trace = fault.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code in codes:
            return True
        trace = trace.tb_next
    return False


def _code(handler: Any) -> CodeType | None:
    """The code of a handler that is written in Python: a function, a method, a part of one or an object that is called."""
    handler = getattr(handler, "func", handler)
    called = handler if hasattr(handler, "__code__") else vars(type(handler)).get("__call__")
    code = getattr(called, "__code__", None)
    return code if isinstance(code, CodeType) else None
