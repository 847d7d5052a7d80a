"""Forked children for tests of what processes do to each other: quick, for they are warm from the start."""

from __future__ import annotations

import json
import os
import signal
import traceback
import warnings
from collections.abc import Callable
from typing import Any


def start(action: Callable[[], object]) -> int:
    """The process id of a child that does `action` and exits, with 1 if it raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads of BLAS, which the children leave alone
        child = os.fork()
    if child:
        return child
    try:
        action()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def wait(child: int) -> int:
    """How `child` ended: its exit code, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def result(action: Callable[[], Any]) -> Any:
    """What `action` returns in a child, by way of JSON; AssertionError with its end where it does not get that far."""
    reading, writing = os.pipe()
    child = start(lambda: os.write(writing, json.dumps(action()).encode()))
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        text = pipe.read()
    code = wait(child)
    assert code == 0, f"the child ended with {code if code >= 0 else signal.Signals(-code).name}"
    return json.loads(text)
