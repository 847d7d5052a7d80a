"""Workers do what an exporter has to do, in order: on the thread that asks for it, or on one of their own."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Protocol

from nndiag.errors import NndiagError

Task = Callable[[], None]

MOST = 16 * 2**20
"""Bytes that may wait for a thread."""

LOOK = 0.1
"""Seconds after which whoever waits for a thread looks whether it is still there."""


class Worker(Protocol):
    """Does tasks in order, and a last one at the end."""

    def put(self, task: Task, size: int = 0) -> None:
        """Have `task`, which holds about `size` bytes, done."""

    def finish(self) -> None:
        """Wait until everything is done."""

    def close(self) -> None:
        """Finish, and do the last task."""

    def abandon(self) -> None:
        """Nothing more comes, and nobody is there to call `close`."""


class AtOnce:
    """Does every task on the thread that asks for it."""

    def __init__(self, last: Task) -> None:
        self._last = last

    def put(self, task: Task, size: int = 0) -> None:
        task()

    def finish(self) -> None:
        pass

    def close(self) -> None:
        self._last()

    def abandon(self) -> None:
        pass


class Background:
    """Does tasks on a daemon thread, which starts with the first one.

    Nothing is thrown away: when more than `most` bytes wait, whoever has put them there waits until all are done, and what
    still waits when the interpreter exits is done before it does. After a task that fails only the last one is done;
    every call until `close` raises what the task raised. A child that was forked has no such thread and does nothing.
    To be used from one thread at a time.
    """

    def __init__(self, last: Task, most: int = MOST) -> None:
        self._last = last
        self._most = most
        self._tasks: SimpleQueue[tuple[Task, int] | threading.Event | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._process = 0
        self._given = self._done = 0
        self._fault: BaseException | None = None
        self._closed = self._abandoned = False

    def put(self, task: Task, size: int = 0) -> None:
        if self._closed:
            raise NndiagError("this exporter was closed; make a new one")
        if self._thread is None:
            self._start()
        if self._thread is None:
            task()
        elif not self._forked:
            self._give(task, size)

    def _give(self, task: Task, size: int) -> None:
        self._raise_fault()
        self._given += size
        self._tasks.put((task, size))
        if self._given - self._done > self._most:
            self.finish()

    def finish(self) -> None:
        if self._thread is None or self._forked:
            return
        reached = threading.Event()
        self._tasks.put(reached)
        while not reached.wait(LOOK) and self._thread.is_alive():
            pass
        self._raise_fault()

    def close(self) -> None:
        if self._closed or self._forked:
            return
        self._closed = True
        if self._thread is None:
            self._last()
        else:
            self._tasks.put(None)
            self._thread.join()
            self._raise_fault()

    def abandon(self) -> None:
        """As a finalizer it may run at any moment, on any thread, and so takes no lock and waits for nothing."""
        if self._closed:
            return
        self._closed = self._abandoned = True
        if self._thread is None:
            self._last()
        else:
            self._tasks.put(None)

    def _start(self) -> None:
        """Start the thread; where the interpreter starts none, as when it is about to exit, tasks are done at once."""
        thread = threading.Thread(target=self._work, name="nndiag exporter", daemon=True)
        with suppress(RuntimeError):
            thread.start()
            self._thread, self._process = thread, os.getpid()
            atexit.register(self.finish)

    @property
    def _forked(self) -> bool:
        return self._thread is not None and self._process != os.getpid()

    def _raise_fault(self) -> None:
        if self._fault is not None:
            raise self._fault

    # On the thread

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            if isinstance(task, threading.Event):
                task.set()
            else:
                self._do(*task)
        self._try(self._last)
        atexit.unregister(self.finish)
        if self._abandoned:
            self._raise_fault()  # nobody else is told: it is printed as the end of the thread

    def _do(self, task: Task, size: int) -> None:
        if self._fault is None:
            self._try(task)
        self._done += size

    def _try(self, task: Task) -> None:
        try:
            task()
        except BaseException as fault:
            self._fault = self._fault or fault
