"""The lock of a run folder: who holds it writes the run, and it ends with the process that holds it."""

from __future__ import annotations

import errno
import fcntl
import os
import time
import weakref
from pathlib import Path
from typing import ClassVar

NAME = ".lock"

PATIENCE = 15
"""Times that a lock is tried, 20 ms apart."""

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW


class Lock:
    """The hold of one process on the file `.lock` of a run folder; a forked child has no part in it."""

    _all: ClassVar[weakref.WeakSet[Lock]] = weakref.WeakSet()

    def __init__(self, folder: int, flags: int = 0) -> None:
        self._file = os.open(NAME, _FLAGS | flags, 0o666, dir_fd=folder)
        self._close = weakref.finalize(self, os.close, self._file)
        self._all.add(self)

    @classmethod
    def make(cls, folder: int) -> Lock:
        """The lock of a new run in the open `folder`. Raises FileExistsError where another was faster."""
        lock = cls(folder, os.O_EXCL)
        _locked(lock._file, fcntl.LOCK_EX)
        return lock

    @classmethod
    def take(cls, folder: int) -> tuple[Lock, bool]:
        """The lock of the run in the open `folder`, and whether that proves that nobody else writes there.

        It does not where there was no lock before, nor on a file system that has none. Raises BlockingIOError where another
        process holds it.
        """
        known = NAME in os.listdir(folder)
        lock = cls(folder)
        for _ in range(PATIENCE):  # a reader that looks has it for a moment
            if (locked := _locked(lock._file, fcntl.LOCK_EX)) is not False:
                return lock, known and locked is True
            time.sleep(0.02)
        raise BlockingIOError(errno.EAGAIN, "another process holds the lock")

    def release(self) -> None:
        """Let others write the folder."""
        self._close()

    @classmethod
    def forget(cls) -> None:
        """Close the files of all locks: in a forked child that leaves them to the parent alone."""
        for lock in list(cls._all):
            lock.release()


os.register_at_fork(after_in_child=Lock.forget)


def held(path: Path) -> bool | None:
    """Whether a process holds the lock of the run in the folder `path`; None where that cannot be told."""
    try:
        file = os.open(path / NAME, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        locked = _locked(file, fcntl.LOCK_SH)
    finally:
        os.close(file)
    return None if locked is None else not locked


def _locked(file: int, how: int) -> bool | None:
    """Whether `file` could be locked; None on a file system that has no locks."""
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
