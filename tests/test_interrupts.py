"""Ctrl-C, as a signal, at any line of what hands rows over."""

import signal
import sys
import threading
from contextlib import nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

from nndiag import Recorder, nn, open_run, watch
from nndiag.interrupts import uninterrupted
from tests.conftest import Array


@pytest.fixture(autouse=True)
def python_hears_it() -> Any:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class CtrlC:
    """Within it, the `at`-th line of nndiag's gets a SIGINT, counted in functions of the names `within` if there are any."""

    number = signal.SIGINT

    def __init__(self, at: int, within: tuple[str, ...] = ()) -> None:
        self._left, self._within, self.came = at, within, False

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        if "nndiag" not in frame.f_code.co_filename:
            return None
        if event == "line" and (not self._within or frame.f_code.co_name in self._within):
            self._left -= 1
            if not self._left:
                self.came = True
                signal.raise_signal(self.number)
        return self

    def __enter__(self) -> "CtrlC":
        self._before = sys.gettrace()
        sys.settrace(self)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)


class OutOfTime(Exception):
    """What a program's own time limit raises."""


class Alarm(CtrlC):
    """The same with SIGALRM, whose handler raises `OutOfTime`."""

    number = signal.SIGALRM

    def __enter__(self) -> "Alarm":
        def out_of_time(*_: object) -> None:
            raise OutOfTime

        self._usual = signal.signal(signal.SIGALRM, out_of_time)
        super().__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        signal.signal(signal.SIGALRM, self._usual)


def train_by_hand(folder: Path) -> None:
    from nndiag.exporters import TensorBoard

    with Recorder(folder / "run", every=1, check_every=2, flush_seconds=0) as recorder:
        recorder.add_exporter(TensorBoard(folder / "events"))
        for step in range(6):
            recorder.gradient("w", np.full((2, 2), step))
            recorder.log(loss=float(step))
            recorder.step()


@pytest.mark.parametrize("part", ["not_checked", "arrange", "fit", "to_store", "write_meta", "put"])
def test_a_time_limit_of_the_program_ends_it_wherever_it_comes(part: str, tmp_path: Path) -> None:
    """In a check, the live checks, what thins, writes and keeps rows, and an exporter."""
    pytest.importorskip("tensorboardX")
    with Alarm(1, within=(part,)) as alarm, pytest.raises(OutOfTime):
        train_by_hand(tmp_path)
    assert alarm.came


def test_an_interrupt_comes_after_what_must_be_whole() -> None:
    done = []

    @uninterrupted()
    def whole() -> None:
        signal.raise_signal(signal.SIGINT)
        done.append(1)

    with pytest.raises(KeyboardInterrupt):
        whole()
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        whole()
    assert done == [1, 1]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_interrupt_is_heard_at_once() -> None:
    done = []

    @uninterrupted()
    def twice() -> None:
        signal.raise_signal(signal.SIGINT)
        done.append(1)
        signal.raise_signal(signal.SIGINT)
        done.append(2)

    for nested in (False, True):
        with pytest.raises(KeyboardInterrupt), uninterrupted() if nested else nullcontext():
            twice()
    assert done == [1, 1]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_set_within_stays() -> None:
    def mine(*_: Any) -> None:
        """Somebody else's."""

    with uninterrupted():
        signal.signal(signal.SIGINT, mine)
    assert signal.getsignal(signal.SIGINT) is mine


def test_other_threads_and_deaf_processes_do_as_ever() -> None:
    seen = []

    def elsewhere() -> None:
        with uninterrupted():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with uninterrupted():
        seen.append(signal.getsignal(signal.SIGINT))
    assert seen == [signal.default_int_handler, signal.SIG_IGN]


def test_an_interrupt_at_any_line_of_close_loses_no_row(tmp_path: Path) -> None:
    for at in range(1, 10_000, 4):
        recorder = Recorder(tmp_path / str(at), every=1, flush_seconds=1e9)
        for step in range(3):
            recorder.gradient("w", np.full((2, 2), step))
            recorder.log(loss=float(step))
            recorder.step()
        with CtrlC(at) as interrupt:
            try:
                recorder.close()
            except KeyboardInterrupt:
                assert interrupt.came
        recorder.close()
        run = open_run(tmp_path / str(at))
        assert (run.train.to_list(), len(run.gradients), run.meta.ended) == ([0.0, 1.0, 2.0], 3, "completed"), at
        if not interrupt.came:
            break
    assert 20 < at < 9_000


def test_an_interrupt_while_a_resting_trainer_is_asked_loses_no_loss(data: tuple[Array, Array]) -> None:
    """Between two reads the trainer keeps its losses to itself, and hands them over when one is due."""
    x, y = data
    for at in range(1, 10_000, 3):
        trainer = nn.Trainer(nn.MLP([x.shape[1], 4, 3], seed=0), nn.CrossEntropy(), nn.Adam(), seed=0)
        recorder = watch(trainer, every=10)
        with CtrlC(at, within=("wake", "_kept", "rested")) as interrupt:
            try:
                trainer.fit(x, y, epochs=3, batch_size=16)
            except KeyboardInterrupt:
                assert interrupt.came
        steps = recorder.run.train.index
        assert steps.to_list() == list(range(len(steps))), at
        assert trainer.steps <= len(steps) <= trainer.steps + 1, at  # that of the step under way may be there
        if not interrupt.came:
            break
    assert 20 < at < 9_000
