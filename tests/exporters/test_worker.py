"""The thread that works for an exporter."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import partial

import pytest

from nndiag import NndiagError
from nndiag.exporters.worker import Background


def nothing() -> None:
    pass


def failing(fault: BaseException) -> Callable[[], None]:
    def task() -> None:
        raise fault

    return task


def opened(gate: threading.Event) -> None:
    assert gate.wait(30)


def test_tasks_are_done_in_order_on_one_other_thread() -> None:
    done: list[tuple[int, int]] = []
    worker = Background(nothing, nothing)
    for number in range(1000):
        worker.put(0, lambda number: done.append((number, threading.get_ident())), number)
    worker.flush()

    assert [number for number, _ in done] == list(range(1000))
    [thread] = {thread for _, thread in done}
    assert thread != threading.get_ident()
    worker.close()


def test_the_last_task_is_done_once_and_the_thread_ends() -> None:
    done: list[str] = []
    worker = Background(nothing, lambda: done.append("last"))
    worker.put(0, done.append, "first")
    before = threading.active_count()
    worker.close()
    worker.close()

    assert done == ["first", "last"]
    assert threading.active_count() == before - 1


def test_a_flush_comes_after_everything_that_was_put_before_it() -> None:
    done: list[str] = []
    worker = Background(lambda: done.append("flush"), nothing)
    for task in ("first", "second"):
        worker.put(0, done.append, task)
        worker.flush()

    assert done == ["first", "flush", "second", "flush"]
    worker.close()


def test_without_a_task_there_is_no_thread() -> None:
    done: list[str] = []
    before = threading.active_count()
    worker = Background(nothing, lambda: done.append("last"))
    worker.flush()
    worker.close()
    assert threading.active_count() == before
    assert done == ["last"]


def test_who_gives_more_than_may_wait_waits_until_all_is_done() -> None:
    done: list[int] = []
    worker = Background(nothing, nothing, most=100)
    for number in range(3):
        worker.put(101, done.append, number)
        assert done == list(range(number + 1))
    worker.close()


def test_what_is_done_does_not_count_as_waiting() -> None:
    gate = threading.Event()
    worker = Background(nothing, nothing, most=100)
    worker.put(90, nothing)
    worker.flush()
    worker.put(90, opened, gate)  # if this waited, the gate would stay shut
    gate.set()
    worker.close()


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), KeyboardInterrupt(), MemoryError()])
def test_a_fault_is_raised_as_it_was_by_what_comes_next(fault: BaseException) -> None:
    done: list[str] = []
    worker = Background(nothing, lambda: done.append("last"))
    worker.put(0, failing(fault))
    worker.put(0, done.append, "after")

    calls = [worker.flush, partial(worker.put, 0, nothing), worker.close]
    for call in calls:
        with pytest.raises(type(fault)) as raised:
            call()
        assert raised.value is fault
    assert done == ["last"]
    worker.close()


def test_a_fault_of_the_last_task_is_raised_by_close() -> None:
    worker = Background(nothing, failing(OSError(28, "No space left on device")))
    worker.put(0, nothing)
    with pytest.raises(OSError, match="No space left"):
        worker.close()


def test_a_closed_worker_takes_nothing_more() -> None:
    worker = Background(nothing, nothing)
    worker.close()
    with pytest.raises(NndiagError, match="closed"):
        worker.put(0, nothing)


def test_an_abandoned_worker_does_what_waits_and_ends() -> None:
    done: list[str] = []
    ended = threading.Event()
    worker = Background(nothing, lambda: (done.append("last"), ended.set()))  # type: ignore[arg-type, func-returns-value]
    worker.put(0, done.append, "first")
    worker.abandon()

    assert ended.wait(30)
    assert done == ["first", "last"]
    worker.close()


def test_an_abandoned_worker_says_what_went_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    fault = OSError(28, "No space left on device")
    said: list[BaseException | None] = []
    told = threading.Event()
    monkeypatch.setattr(threading, "excepthook", lambda args: (said.append(args.exc_value), told.set()))
    worker = Background(nothing, nothing)
    worker.put(0, failing(fault))
    worker.abandon()

    assert told.wait(30)
    assert said == [fault]


def test_where_no_thread_can_be_started_tasks_are_done_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    done: list[str] = []
    worker = Background(nothing, lambda: done.append("last"))
    worker.put(0, done.append, "first")
    assert done == ["first"]
    worker.flush()
    worker.close()
    assert done == ["first", "last"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork of POSIX")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_does_nothing_and_does_not_wait() -> None:
    done: list[str] = []
    worker = Background(nothing, lambda: done.append("last"), most=100)
    worker.put(0, nothing)
    child = os.fork()
    if not child:
        worker.put(1000, done.append, "child")
        worker.flush()
        worker.close()
        os._exit(len(done))
    _, status = os.waitpid(child, 0)

    assert status == 0
    worker.close()
    assert done == ["last"]
