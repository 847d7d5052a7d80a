"""TensorBoard beside a training: nothing is lost, nothing is disturbed, and nothing is left behind."""

from __future__ import annotations

import errno
import gc
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest

import nndiag
from nndiag import Recorder, nn
from nndiag.exporters import TensorBoard
from nndiag.recorder import Rows
from nndiag.statistics import Array

Read = Callable[[Path], Any]

HEAD = """
    import os, signal, sys
    from nndiag import Recorder
    from nndiag.exporters import TensorBoard

    def feed(recorder, steps):
        for _ in range(steps):
            recorder.log(loss=float(recorder.step_number))
            recorder.step()

"""


def live(logdir: Path, **settings: Any) -> Recorder:
    """A recorder that is shown in `logdir`, and flushes only when told."""
    recorder = Recorder(every=1, flush_seconds=1e9, **settings)
    recorder.add_exporter(TensorBoard(logdir))
    return recorder


def feed(recorder: Recorder, steps: int) -> None:
    """Record so many steps, each with its number as the loss."""
    for _ in range(steps):
        recorder.log(loss=float(recorder.step_number))
        recorder.step()


def points(steps: int) -> list[tuple[int, float]]:
    """The loss of so many steps of `feed`."""
    return [(step, float(step)) for step in range(steps)]


def python(code: str, *arguments: object, head: str = HEAD) -> subprocess.CompletedProcess[str]:
    """Run `code` in another interpreter."""
    command = [
        sys.executable,
        "-W",
        "ignore::DeprecationWarning",
        "-c",
        dedent(head) + dedent(code),
        *map(str, arguments),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def exporters_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "nndiag exporter"]


# Nothing is lost


def test_a_burst_arrives_whole_and_in_order_when_it_is_flushed(tmp_path: Path, read: Read) -> None:
    with live(tmp_path, strict=True) as recorder:
        feed(recorder, 10_000)
        recorder.flush()

        assert read(tmp_path).scalars["train", "loss"] == points(10_000)


def test_every_flush_shows_what_came_before_it(tmp_path: Path, read: Read) -> None:
    with live(tmp_path, strict=True) as recorder:
        for count in range(1, 6):
            feed(recorder, 3)
            recorder.flush()

            assert read(tmp_path).scalars["train", "loss"] == points(3 * count)


def test_a_step_has_the_time_at_which_it_was_recorded(
    tmp_path: Path, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    with live(tmp_path, strict=True) as recorder:
        for step in range(5):
            monkeypatch.setattr(time, "time", lambda step=step: 1000.0 + step)
            recorder.log(loss=1.0, validation_loss=2.0)
            recorder.step()
        monkeypatch.setattr(time, "time", lambda: 9999.0)

    assert read(tmp_path).times == {run: [1000.0, 1001.0, 1002.0, 1003.0, 1004.0] for run in ("train", "validation")}


def test_rows_that_an_exporter_keeps_are_never_changed() -> None:
    class Keeping:
        kept: list[tuple[Rows, dict[str, Array]]] = []  # noqa: RUF012

        def write(self, step: int, rows: Rows) -> None:
            self.kept.append((rows, {frame: values.copy() for frame, (_, values) in rows.items()}))

        def nothing(self, *_: object) -> None:
            pass

        describe = report = flush = close = nothing

    keeping, rng = Keeping(), np.random.default_rng(0)
    with Recorder(every=1, strict=True) as recorder:
        recorder.add_exporter(keeping)
        for step in range(600):
            recorder.activation(f"h{step // 200}", rng.normal(size=(4, 3)))
            recorder.log(loss=float(step))
            recorder.step()
            if step % 50 == 0:
                recorder.flush()

    assert len(keeping.kept) == 600
    for rows, copies in keeping.kept:
        for frame, (columns, values) in rows.items():
            assert len(columns) == len(values)
            np.testing.assert_array_equal(values, copies[frame])


def test_layers_that_come_later_join_the_others(tmp_path: Path, read: Read) -> None:
    with live(tmp_path, strict=True) as recorder:
        for step in range(9):
            recorder.describe(layers=[{"name": f"h{i}"} for i in range(step // 3 + 1)])
            for layer in range(step // 3 + 1):
                recorder.activation(f"h{layer}", np.full((2, 2), step))
            recorder.step()

    events = read(tmp_path)
    assert {tag: values for (_, tag), values in events.scalars.items() if tag.startswith("activation_mean")} == {
        f"activation_mean/{i + 1:02d}_h{i}": [(step, step) for step in range(3 * i, 9)] for i in range(3)
    }
    assert all(len(texts) == 1 for texts in events.help.values())


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="signals of POSIX")
def test_what_was_flushed_survives_a_kill(tmp_path: Path, read: Read) -> None:
    code = """
        recorder = Recorder(every=1, flush_seconds=1e9)
        recorder.add_exporter(TensorBoard(sys.argv[1]))
        feed(recorder, 1000)
        recorder.flush()
        feed(recorder, 10)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    assert python(code, tmp_path).returncode == -signal.SIGKILL

    assert read(tmp_path).scalars["train", "loss"][:1000] == points(1000)


@pytest.mark.parametrize("run", ["", "run"])
@pytest.mark.parametrize("steps", [0, 3000])
def test_an_exit_without_close_loses_nothing(run: str, steps: int, tmp_path: Path, read: Read) -> None:
    code = """
        recorder = Recorder(sys.argv[2] or None, every=1, flush_seconds=1e9)
        recorder.add_exporter(TensorBoard(sys.argv[1]))
        feed(recorder, int(sys.argv[3]))
        recorder.log(loss=-1.0)  # a step that nobody ends: only a run folder has it closed at exit
    """
    ended = python(code, tmp_path / "logs", str(tmp_path / run) if run else "", steps)

    assert (ended.returncode, ended.stderr) == (0, "")
    last = [(steps, -1.0)] if run else []
    assert read(tmp_path / "logs").scalars["train", "loss"] == points(steps) + last


def test_a_recorder_that_is_forgotten_loses_nothing(tmp_path: Path, read: Read) -> None:
    recorder = live(tmp_path)
    feed(recorder, 3000)
    threads = exporters_threads()
    del recorder
    gc.collect()
    for thread in threads:
        thread.join(30)

    assert len(threads) == 1
    assert not exporters_threads()
    assert read(tmp_path).scalars["train", "loss"] == points(3000)


def test_recorders_side_by_side_keep_apart(tmp_path: Path, read: Read) -> None:
    recorders = [live(tmp_path, strict=True) for _ in range(2)]
    for _ in range(100):
        for count, recorder in enumerate(recorders, 1):
            feed(recorder, count)
    for recorder in recorders:
        recorder.close()

    scalars = read(tmp_path).scalars
    assert scalars["train", "loss"] == points(100)
    assert scalars["train-2", "loss"] == points(200)


# Nothing is disturbed


def trained(data: tuple[Array, Array], prepare: Callable[[Recorder], object]) -> tuple[Recorder, list[Array]]:
    """A recorder of 12 steps with what `prepare` has done to it, and the weights at the end."""
    trainer = nn.Trainer(nn.MLP([8, 16, 3], seed=0), nn.SoftmaxCrossEntropy(), nn.SGD(lr=0.05))
    with nndiag.watch(trainer, every=1) as recorder:
        prepare(recorder)
        trainer.fit(*data, epochs=2, batch_size=16)
        recorder.flush()
        trainer.fit(*data, epochs=2, batch_size=16)
    return recorder, [parameter.value for parameter in trainer.model.parameters]


def test_a_directory_that_is_removed_detaches_the_exporter_and_no_more(
    data: tuple[Array, Array], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def prepare(recorder: Recorder) -> None:
        recorder.add_exporter(TensorBoard(tmp_path / "logs"))
        shutil.rmtree(tmp_path / "logs")

    recorder, weights = trained(data, prepare)

    assert all(np.array_equal(a, b) for a, b in zip(weights, trained(data, lambda _: None)[1], strict=True))
    assert recorder.run.steps == 24
    [fault] = recorder.meta.faults
    assert "the event file was removed" in fault["error"]
    assert [r.message for r in caplog.records if r.levelno >= logging.WARNING] == [
        "TensorBoard failed and is detached; training goes on"
    ]
    assert not exporters_threads()


@pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")
def test_a_full_disk_detaches_the_exporter_and_no_more(tmp_path: Path) -> None:
    code = """
        import logging, resource
        logging.basicConfig(format="%(message)s")
        recorder = Recorder(every=1, flush_seconds=1e9)
        recorder.add_exporter(TensorBoard(sys.argv[1]))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        for _ in range(5):
            feed(recorder, 1000)
            recorder.flush()
        recorder.close()
        print(recorder.run.steps, *(fault["error"] for fault in recorder.meta.faults))
    """
    ended = python(code, tmp_path)

    assert ended.stdout == f"5000 OSError: [Errno {errno.EFBIG}] File too large\n"
    assert ended.stderr.count("TensorBoard failed and is detached; training goes on") == 1
    assert (ended.returncode, ended.stderr.count("Traceback")) == (0, 1)


@pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")
def test_a_fault_that_nobody_asks_for_is_printed_at_exit(tmp_path: Path) -> None:
    code = """
        import resource
        recorder = Recorder(every=1, flush_seconds=1e9)
        recorder.add_exporter(TensorBoard(sys.argv[1]))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, 5_000))
        feed(recorder, 500)
    """
    assert "File too large" in python(code, tmp_path).stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork of POSIX")
@pytest.mark.parametrize("end", ["os._exit(0)", "sys.exit()"])
def test_a_forked_child_neither_writes_nor_hangs(end: str, tmp_path: Path, read: Read) -> None:
    code = f"""
        recorder = Recorder(every=1, flush_seconds=1e9)
        recorder.add_exporter(TensorBoard(sys.argv[1]))
        feed(recorder, 100)
        child = os.fork()
        if not child:
            feed(recorder, 50)
            recorder.flush()
            feed(recorder, 50)
            {end}
        _, status = os.waitpid(child, 0)
        feed(recorder, 100)
        recorder.close()
        sys.exit(status)
    """
    ended = python(code, tmp_path)

    assert (ended.returncode, ended.stderr) == (0, "")
    assert read(tmp_path).scalars["train", "loss"] == points(200)


def test_a_child_may_record_what_its_parent_has_prepared(tmp_path: Path, read: Read) -> None:
    code = """
        recorder = Recorder(every=1, flush_seconds=1e9)
        recorder.add_exporter(TensorBoard(sys.argv[1]))
        child = os.fork()
        if not child:
            feed(recorder, 100)
            recorder.close()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        sys.exit(status)
    """
    ended = python(code, tmp_path)

    assert (ended.returncode, ended.stderr) == (0, "")
    assert read(tmp_path).scalars["train", "loss"] == points(100)


def test_a_users_writer_is_called_on_the_thread_that_trains(tmp_path: Path) -> None:
    class Theirs:
        threads: set[int] = set()  # noqa: RUF012

        def add_scalar(self, *_: Any) -> None:
            self.threads.add(threading.get_ident())

        def flush(self) -> None:
            self.threads.add(threading.get_ident())

    with Recorder(every=1, strict=True) as recorder:
        recorder.add_exporter(TensorBoard(Theirs()))
        feed(recorder, 3)

    assert Theirs.threads == {threading.get_ident()}


# Nothing is left behind


def test_no_thread_is_left_after_close(tmp_path: Path) -> None:
    with live(tmp_path, strict=True) as recorder:
        feed(recorder, 3)
        assert len(exporters_threads()) == 1
    assert not exporters_threads()


def test_without_validation_there_is_no_run_for_it(tmp_path: Path) -> None:
    with live(tmp_path, strict=True) as recorder:
        feed(recorder, 3)
    assert [folder.name for folder in tmp_path.iterdir()] == ["train"]
