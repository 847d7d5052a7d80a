"""Workers do what an exporter has to do, in order: on the thread that asks for it, or on one of their own."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, Protocol

from nndiag.errors import NndiagError

Task = Callable[..., None]

MOST = 16 * 2**20
"""Bytes that may wait for a thread."""

PAUSE = 0.1
"""Seconds between two batches, unless somebody waits: to wake a thread at every step would cost the training more."""


_forks = 0
"""How many forks lie between this process and the first; a thread stays in the process that has started it."""


def _forked() -> None:
    global _forks
    _forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


class Worker(Protocol):
    """Does tasks in order, and between them what it was made with: a task `flush`, and a task `close` at the end."""

    def put(self, size: int, task: Task, *arguments: Any) -> None:
        """Have `task` done with `arguments`, which hold about `size` bytes."""

    def flush(self) -> None:
        """Wait until everything is done and flushed."""

    def close(self) -> None:
        """Wait until everything is done and closed."""

    def abandon(self) -> None:
        """Nothing more comes, and nobody is there to call `close`."""


class AtOnce:
    """Does every task on the thread that asks for it."""

    def __init__(self, flush: Task, close: Task) -> None:
        self._flush, self._close = flush, close

    def put(self, size: int, task: Task, *arguments: Any) -> None:
        task(*arguments)

    def flush(self) -> None:
        self._flush()

    def close(self) -> None:
        self._close()

    def abandon(self) -> None:
        pass


class Background:
    """Does tasks on a daemon thread, which starts with the first one.

    Nothing is thrown away: when more than `most` bytes wait, whoever has put them there waits until all are done, and what
    still waits when the interpreter exits is done and flushed before it does. After a task that fails only `close` is
    done; every call until then raises what the task raised. A child that was forked is without the thread and does nothing.
    To be given tasks by one thread at a time.
    """

    def __init__(self, flush: Task, close: Task, most: int = MOST) -> None:
        self._flush, self._close = flush, close
        self._most = most
        self._tasks: SimpleQueue[tuple[int, Task, tuple[Any, ...]] | threading.Event | None] = SimpleQueue()
        self._hurry = threading.Event()
        self._thread: threading.Thread | None = None
        self._forks = _forks
        self._given = self._done = 0
        self._fault: BaseException | None = None
        self._closed = self._abandoned = False

    def put(self, size: int, task: Task, *arguments: Any) -> None:
        if self._closed:
            raise NndiagError("this exporter was closed; make a new one")
        if self._thread is None:
            self._start()
        if self._thread is None:
            task(*arguments)
        elif self._forks == _forks:
            self._give(size, task, arguments)

    def _give(self, size: int, task: Task, arguments: tuple[Any, ...]) -> None:
        if self._fault is not None:
            raise self._fault
        self._given += size
        self._tasks.put((size, task, arguments))
        if self._given - self._done > self._most:
            self.flush()

    def flush(self) -> None:
        if self._thread is None:
            self._flush()
        elif self._forks == _forks:
            self._reach(self._thread)
            self._raise_fault()

    def _reach(self, thread: threading.Thread) -> None:
        """Wait until the thread has done and flushed what was put before."""
        reached = threading.Event()
        self._tasks.put(reached)
        self._hurry.set()
        while not reached.wait(PAUSE) and thread.is_alive():
            pass

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._thread is None:
            self._close()
        elif self._forks == _forks:
            self._tasks.put(None)
            self._hurry.set()
            self._thread.join()
            self._raise_fault()

    def abandon(self) -> None:
        """As a finalizer it may run at any moment, on any thread, and so takes no lock and waits for nothing."""
        if self._closed:
            return
        self._closed = self._abandoned = True
        if self._thread is None:
            self._close()
        else:
            self._tasks.put(None)

    def _start(self) -> None:
        """Start the thread; where the interpreter starts none, as when it is about to exit, tasks are done at once."""
        thread = threading.Thread(target=self._work, name="nndiag exporter", daemon=True)
        with suppress(RuntimeError):
            thread.start()
            self._thread, self._forks = thread, _forks
            atexit.register(self.flush)

    def _raise_fault(self) -> None:
        if self._fault is not None:
            raise self._fault

    # On the thread

    def _work(self) -> None:
        while self._batch():
            self._hurry.wait(PAUSE)
            self._hurry.clear()
        self._try(self._close)
        atexit.unregister(self.flush)
        if self._abandoned:
            self._raise_fault()  # nobody else is told: it is printed as the end of the thread

    def _batch(self) -> bool:
        """Wait for a task, and do all that there are; False when there will be no more."""
        while (task := self._tasks.get()) is not None:
            if isinstance(task, threading.Event):
                self._do(0, self._flush)
                task.set()
            else:
                self._do(*task)
            if self._tasks.empty():
                return True
        return False

    def _do(self, size: int, task: Task, arguments: tuple[Any, ...] = ()) -> None:
        if self._fault is None:
            self._try(task, *arguments)
        self._done += size

    def _try(self, task: Task, *arguments: Any) -> None:
        try:
            task(*arguments)
        except BaseException as fault:
            self._fault = self._fault or fault
