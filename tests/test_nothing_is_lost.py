"""Promise 3, for real: killed processes, full disks, folders that vanish, several processes on one folder."""

from __future__ import annotations

import errno
import gc
import json
import logging
import os
import platform
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import children
import numpy as np
import pytest

import nndiag
from nndiag import Recorder, RunError, nn, open_run, store
from nndiag import recorder as recorders
from nndiag.statistics import Array


def train(recorder: Recorder, steps: int, after: Callable[[int], object] = lambda step: None) -> None:
    """A loop whose losses say which step they are of, and that grows a layer every 20 steps."""
    for step in range(recorder.step_number, steps):
        for layer in range(1 + step // 20 % 5):
            recorder.activation(f"h{layer}", np.full((2, 3), float(step)))
        recorder.log(loss=float(step))
        recorder.step()
        after(step)


def assert_holds(run: nndiag.Run, steps: int) -> None:
    """The first rows of `train`, `steps` or more, each as it was recorded."""
    for values in (run.train, run.series("activations", "mean", "h0")):
        assert len(values) >= steps
        assert values.index.tolist() == values.tolist() == list(range(len(values)))


@contextmanager
def warnings_of() -> Iterator[list[str]]:
    """What nndiag warns of meanwhile; for children, where pytest does not look."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("nndiag").addHandler(handler)
    yield said
    logging.getLogger("nndiag").removeHandler(handler)


# Killed


@pytest.mark.parametrize("seed", range(5))
def test_a_run_killed_at_any_moment_holds_everything_up_to_the_last_flush(seed: int, tmp_path: Path) -> None:
    moments = np.random.default_rng(seed).uniform(0.0, 0.06, 10)
    for number, moment in enumerate(moments):
        path, flushed = tmp_path / str(number), tmp_path / f"{number}.flushed"
        child = children.start(lambda path=path, flushed=flushed: record_for_ever(path, flushed))  # type: ignore[misc]
        time.sleep(moment)
        os.kill(child, signal.SIGKILL)

        assert children.wait(child) == -signal.SIGKILL
        steps = flushed.stat().st_size if flushed.exists() else 0
        if steps or (path / "run.json").exists():
            run = open_run(path)
            assert run.meta.ended == "killed"
            assert_holds(run, steps)


def record_for_ever(path: Path, flushed: Path) -> None:
    with flushed.open("ab", buffering=0) as file:
        train(Recorder(path, every=1, flush_seconds=0.0), 10**9, lambda step: file.write(b"."))


def test_a_child_of_the_writer_that_lives_on_does_not_keep_the_run_running(tmp_path: Path) -> None:
    def fork_and_die() -> None:
        recorder = Recorder(tmp_path / "run")
        children.start(lambda: time.sleep(20))
        os.kill(os.getpid(), signal.SIGKILL)
        recorder.close()  # never

    children.wait(children.start(fork_and_die))

    assert open_run(tmp_path / "run").meta.ended == "killed"
    Recorder(tmp_path / "run", resume=True).close()


def test_a_run_killed_on_another_host_was_killed_and_can_be_resumed(tmp_path: Path) -> None:
    def record_and_die() -> None:
        recorder = Recorder(tmp_path / "run", flush_seconds=0.0)
        train(recorder, 5)
        os.kill(os.getpid(), signal.SIGKILL)
        recorder.close()  # never

    children.wait(children.start(record_and_die))
    data = json.loads((tmp_path / "run/run.json").read_text())
    (tmp_path / "run/run.json").write_text(json.dumps(data | {"writer": {"pid": 1, "host": "elsewhere"}}))

    assert open_run(tmp_path / "run").meta.ended == "killed"
    with Recorder(tmp_path / "run", resume=True) as recorder:
        assert recorder.step_number == 5


def test_of_a_run_without_a_lock_the_process_says_whether_it_is_running(tmp_path: Path) -> None:
    Recorder(tmp_path / "run").close()
    (tmp_path / "run/.lock").unlink()
    data = json.loads((tmp_path / "run/run.json").read_text()) | {"format": 1, "ended": "running"}

    for pid, ended in ((os.getpid(), "running"), (2**22 + 1, "killed")):
        data["writer"] = {"pid": pid, "host": platform.node()}
        (tmp_path / "run/run.json").write_text(json.dumps(data))
        assert open_run(tmp_path / "run").meta.ended == ended
        (tmp_path / "run/.lock").unlink(missing_ok=True)


# A disk that is full, a folder that is gone


def test_a_full_disk_is_warned_of_once_and_nothing_is_lost(tmp_path: Path) -> None:
    def fill() -> dict[str, object]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY))
        with warnings_of() as said:
            recorder = Recorder(tmp_path / "run", every=1, flush_seconds=0.0)
            train(recorder, 300)
        assert_holds(recorder.run, 300)
        assert_holds(open_run(tmp_path / "run"), 60)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        recorder.close()
        return {"warnings": said, "faults": len(recorder.meta.faults)}

    said = children.result(fill)

    assert len(said["warnings"]) == 1
    assert "File too large" in said["warnings"][0]
    assert "kept in memory" in said["warnings"][0]
    assert said["faults"] == 0
    assert_holds(open_run(tmp_path / "run"), 300)


def test_a_file_system_that_is_full_is_warned_of_once_and_caught_up_with(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=160k", "nndiag", str(tmp_path)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small file system")
    try:
        (tmp_path / "ballast").write_bytes(bytes(104_000))
        recorder = Recorder(tmp_path / "run", every=1, flush_seconds=0.0)
        train(recorder, 150)
        assert caplog.text.count("No space left on device") == 1
        assert_holds(recorder.run, 150)

        (tmp_path / "ballast").unlink()
        train(recorder, 151)
        assert_holds(open_run(tmp_path / "run"), 151)
        recorder.close()
        assert len(caplog.records) == 1
    finally:
        subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda run: shutil.rmtree(run),
        lambda run: (shutil.rmtree(run), run.write_text("")),
        lambda run: (shutil.rmtree(run / "frames"), (run / "frames").write_text("")),
    ],
    ids=["removed", "replaced by a file", "frames replaced by a file"],
)
def test_a_folder_that_vanishes_is_warned_of_once_and_memory_holds_the_whole_run(
    spoil: Callable[[Path], object], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = Recorder(tmp_path / "run", every=1, flush_seconds=0.0)
    train(recorder, 30)
    spoil(tmp_path / "run")

    train(recorder, 70)
    recorder.close()

    assert len(caplog.records) == 1
    assert "kept in memory" in caplog.text
    assert_holds(recorder.run, 70)


def test_a_folder_made_read_only_is_warned_of_once_and_memory_holds_the_rest(tmp_path: Path) -> None:
    def record() -> list[str]:
        os.chdir(tmp_path)
        if os.geteuid() == 0:  # whom no permission binds
            os.chown(tmp_path, 65534, 65534)
            os.seteuid(65534)
        recorder = Recorder("run", every=1, flush_seconds=0.0)
        train(recorder, 30)
        for folder in ("run/frames", "run"):
            Path(folder).chmod(0o500)
        with warnings_of() as said:
            train(recorder, 110)
            recorder.close()
        assert_holds(recorder.run, 110)
        run = open_run("run")
        assert run.train.tolist() == list(range(110))  # that file was open
        assert run.meta.ended == "killed"
        return said

    said = children.result(record)

    assert len(said) == 1
    assert "Permission denied" in said[0]


def test_a_folder_that_is_moved_is_written_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder(tmp_path / "run", every=1, flush_seconds=0.0)
    train(recorder, 30)
    (tmp_path / "run").rename(tmp_path / "moved")
    other = Recorder(tmp_path / "run", every=1, flush_seconds=0.0)

    train(recorder, 70)
    recorder.close()
    other.close()

    assert not caplog.records
    assert_holds(open_run(tmp_path / "moved"), 70)
    assert not open_run(tmp_path / "run").tables


def test_a_write_that_stops_within_a_row_leaves_whole_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(tmp_path / "run", every=1, flush_seconds=0.0)
    train(recorder, 10)
    real = os.write

    def short(file: int, data: bytes) -> int:
        if len(data) < 40:
            raise OSError(28, "No space left on device")
        return real(file, data[:17])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", short)
        train(recorder, 15)
        sizes = [file.stat().st_size for file in (tmp_path / "run/frames").glob("losses-*.f64")]
        assert sizes == [10 * 4 * 8]
    train(recorder, 20)
    recorder.close()

    assert_holds(open_run(tmp_path / "run"), 20)


# Several processes


@pytest.mark.parametrize("there", [False, True], ids=["new", "an empty folder"])
def test_processes_that_start_at_once_never_share_a_folder(there: bool, tmp_path: Path) -> None:
    path, go = tmp_path / "run", tmp_path / "go"
    if there:
        path.mkdir()

    def race(number: int) -> None:
        while not go.exists():
            pass
        with Recorder(path, every=1) as recorder:
            recorder.describe(seeds={"mine": number})
            train(recorder, 3)

    racers = [children.start(lambda number=number: race(number)) for number in range(8)]  # type: ignore[misc]
    go.touch()

    assert [children.wait(racer) for racer in racers] == [0] * 8
    runs = [open_run(folder) for folder in tmp_path.iterdir() if folder.is_dir()]
    assert sorted(run.meta.seeds["mine"] for run in runs) == list(range(8))
    assert path in [run.path for run in runs]
    for run in runs:
        assert_holds(run, 3)


def test_of_two_that_resume_at_once_one_is_refused(tmp_path: Path) -> None:
    Recorder(tmp_path / "run").close()
    go, turns = tmp_path / "go", os.pipe()

    def resume() -> None:
        while not go.exists():
            pass
        try:
            recorder = Recorder(tmp_path / "run", resume=True)
            os.read(turns[0], 1)
            recorder.close()
        except RunError as fault:
            assert "still writing it" in str(fault)  # noqa: PT017
            os.write(turns[1], b".")
            os._exit(7)

    racers = [children.start(resume) for _ in range(2)]
    go.touch()

    assert sorted(children.wait(racer) for racer in racers) == [0, 7]
    for end in turns:
        os.close(end)


def test_a_reader_follows_a_live_run(tmp_path: Path) -> None:
    path = tmp_path / "run"
    child = children.start(
        lambda: train(Recorder(path, every=1, flush_seconds=0.0), 400, lambda step: time.sleep(0.001))
    )
    seen = [0]
    while seen[-1] < 350:
        try:
            run = open_run(path)
        except RunError:
            continue
        if run.meta.ended != "running":
            break
        assert_holds(run, seen[-1])
        seen.append(len(run.losses))

    assert children.wait(child) == 0
    assert len(set(seen)) > 5


# Resuming


def test_a_resumed_run_keeps_what_it_says_of_itself(tmp_path: Path) -> None:
    with Recorder(tmp_path / "run", every=1) as recorder:
        recorder.describe(layers=[{"name": "h0", "kind": "relu"}], seeds={"model": 3}, loss={"task": "classes"})
        train(recorder, 3)
    before = open_run(tmp_path / "run").meta

    with Recorder(tmp_path / "run", every=1, resume=True) as recorder:
        train(recorder, 5)

    run = open_run(tmp_path / "run")
    assert_holds(run, 5)
    assert run.meta.seeds == {"model": 3}
    assert run.meta == before


def test_many_resumptions_do_not_make_many_files(tmp_path: Path) -> None:
    for steps in range(100, 120):
        with Recorder(tmp_path / "run", every=1, resume=True) as recorder:
            train(recorder, steps)

    assert len(list((tmp_path / "run/frames").glob("activations-*.f64"))) <= 2
    assert_holds(open_run(tmp_path / "run"), 119)


def test_a_resumed_run_goes_on_at_the_updates_done_not_behind_the_last_validation(tmp_path: Path) -> None:
    with Recorder(tmp_path / "run", every=1) as recorder:
        train(recorder, 3)
        recorder.log(validation_loss=0.5, validation_accuracy=0.9)

    with Recorder(tmp_path / "run", every=1, resume=True) as recorder:
        train(recorder, 4)

    losses = open_run(tmp_path / "run").losses
    assert losses["train"].tolist() == [0, 1, 2, 3]
    assert losses["validation"].loc[3] == 0.5


@pytest.mark.parametrize("number", [{"validation_loss": 0.5, "epoch_seconds": 3.0}, {"epoch_seconds": 3.0}])
def test_numbers_behind_the_last_step_are_no_update(number: dict[str, float], tmp_path: Path) -> None:
    for _ in range(3):
        with Recorder(tmp_path / "run", every=1, resume=True) as recorder:
            train(recorder, recorder.step_number + 4)
            recorder.log(**number)

    run = open_run(tmp_path / "run")
    assert run.train.tolist() == list(range(12))
    assert run.metrics["epoch_seconds", "train"].dropna().index.tolist() == [4, 8, 12]


def test_steps_of_which_only_numbers_are_logged_are_updates(tmp_path: Path) -> None:
    with Recorder(tmp_path / "run", every=1) as recorder:
        for step in range(10):
            recorder.log(accuracy=0.5, **({"loss": 1.0} if step < 7 and step % 3 == 0 else {}))
            recorder.step()

    with Recorder(tmp_path / "run", resume=True) as recorder:
        assert recorder.step_number == 10


def test_a_run_that_goes_back_holds_the_later_attempt_and_says_so(tmp_path: Path) -> None:
    with Recorder(tmp_path / "run", every=1) as recorder:
        train(recorder, 50)
        recorder.log(loss=float("nan"))
        recorder.step()
    with Recorder(tmp_path / "run", every=1, resume=True) as recorder:
        recorder.start_at(30)
        train(recorder, 40)
        live = recorder.run

    for run in (live, open_run(tmp_path / "run")):
        assert_holds(run, 40)
        assert len(run.losses) == 40
        assert run.meta.went_back == ({"from": 51, "to": 30},)
        assert run.meta.first_nonfinite is None
    report = nndiag.Checklist(select="ND907").examine(live)
    assert "from step 51 to 30" in report.checks[0].reason


def test_a_validation_made_before_training_jumps_stays_where_it_was(tmp_path: Path) -> None:
    recorder = Recorder(every=1)
    train(recorder, 3)
    recorder.log(validation_loss=0.5)
    recorder.start_at(8)
    train(recorder, 10)

    assert recorder.run.validation.to_dict() == {3: 0.5}
    assert recorder.run.train.index.tolist() == [0, 1, 2, 8, 9]
    assert recorder.run.meta.went_back == ()
    with pytest.raises(ValueError, match="wanted a number of updates done"):
        recorder.start_at(-1)


def test_a_trainer_that_resumes_from_an_older_checkpoint_goes_back(
    trainer: nn.Trainer, data: tuple[Array, Array], tmp_path: Path
) -> None:
    with nndiag.watch(trainer, run=tmp_path / "run", every=1):
        trainer.fit(*data, epochs=2, batch_size=16)
        trainer.save(tmp_path / "checkpoint")
        trainer.fit(*data, epochs=1, batch_size=16)
    trainer.load(tmp_path / "checkpoint")
    with nndiag.watch(trainer, run=tmp_path / "run", every=1, resume=True):
        trainer.fit(*data, epochs=3, batch_size=16)

    run = open_run(tmp_path / "run")
    assert run.meta.went_back == ({"from": 18, "to": 12},)
    assert run.losses.index.tolist() == list(range(30))
    assert run.losses["epoch"].tolist() == [step // 6 for step in range(30)]


def test_a_trainer_that_goes_on_where_it_stopped_goes_nowhere_else(
    trainer: nn.Trainer, data: tuple[Array, Array], tmp_path: Path
) -> None:
    trainer.fit(*data, epochs=1, batch_size=16)
    with nndiag.watch(trainer, run=tmp_path / "run", every=1):
        trainer.fit(*data, epochs=1, batch_size=16)
        trainer.fit(*data, validation=data, epochs=1, batch_size=16)

    run = open_run(tmp_path / "run")
    assert run.meta.went_back == ()
    assert run.losses.index.tolist() == list(range(13))


@pytest.mark.parametrize("saved", [True, False])
def test_a_trainer_that_was_trained_before_the_run_resumes_it_where_it_was(
    trainer: nn.Trainer, data: tuple[Array, Array], saved: bool, tmp_path: Path
) -> None:
    trainer.fit(*data, epochs=1, batch_size=16)
    trainer.save(tmp_path / "checkpoint")
    with nndiag.watch(trainer, run=tmp_path / "run", every=1):
        trainer.fit(*data, epochs=2, batch_size=16)
        if saved:
            trainer.save(tmp_path / "checkpoint")
    trainer.load(tmp_path / "checkpoint")
    with nndiag.watch(trainer, run=tmp_path / "run", every=1, resume=True):
        trainer.fit(*data, epochs=1, batch_size=16)

    run = open_run(tmp_path / "run")
    assert run.losses["train"].notna().sum() == run.steps == (18 if saved else 6)
    assert run.meta.went_back == (() if saved else ({"from": 12, "to": 0},))
    assert run.meta.steps_before == 6


def test_a_run_killed_in_a_validation_holds_what_was_trained_before(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(96, 8)).astype(np.float32)

    def dies(*_: object) -> float:
        os.kill(os.getpid(), signal.SIGKILL)
        return 0.0

    def train_and_die() -> None:
        recorders.RECENT = 0.0  # as if training had taken long
        late = nn.Trainer(nn.MLP([8, 4, 3]), nn.SoftmaxCrossEntropy(), nn.SGD(0.1), metrics={"dies": dies})
        nndiag.watch(late, run=tmp_path / "run", every=1)
        late.fit(x, x[:, :3].argmax(axis=1), validation=(x, x[:, :3].argmax(axis=1)), epochs=1, batch_size=16)

    children.wait(children.start(train_and_die))
    assert open_run(tmp_path / "run").losses["train"].notna().sum() == 6


def test_a_trainer_that_loads_a_checkpoint_in_mid_run_goes_back(trainer: nn.Trainer, data: tuple[Array, Array]) -> None:
    with nndiag.watch(trainer, every=1) as recorder:
        trainer.fit(*data, epochs=2, batch_size=16)
        trainer.steps = 6
        trainer.fit(*data, epochs=1, batch_size=16)

    assert recorder.run.meta.went_back == ({"from": 12, "to": 6},)
    assert recorder.run.losses.index.tolist() == list(range(12))


def test_another_trainer_on_a_resumed_run_goes_on_behind_it(
    trainer: nn.Trainer, data: tuple[Array, Array], tmp_path: Path
) -> None:
    with Recorder(tmp_path / "run", every=1) as recorder:
        train(recorder, 10)
    with nndiag.watch(trainer, run=tmp_path / "run", every=1, resume=True):
        trainer.fit(*data, epochs=1, batch_size=16)

    assert open_run(tmp_path / "run").losses.index.tolist() == list(range(16))


# How it ended

SCRIPT = """
import signal, sys, time
import nndiag
recorder = nndiag.Recorder(sys.argv[1], every=1)
recorder.log(loss=1.0)
recorder.step()
"""


@pytest.mark.parametrize(
    ("rest", "ended"),
    [
        ("", "completed"),
        ("raise ValueError('no')", "crashed"),
        ("raise KeyboardInterrupt", "interrupted"),
        ("recorder.end('completed'); raise ValueError('after training')", "completed"),
        ("with recorder: sys.exit(3)", "interrupted"),
        ("with recorder: raise ValueError('no')", "crashed"),
        ("signal.raise_signal(signal.SIGTERM)", "killed"),
        (
            "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\nwith recorder: signal.raise_signal(signal.SIGTERM)",
            "interrupted",
        ),
    ],
)
def test_a_program_leaves_a_run_that_says_how_it_ended(rest: str, ended: str, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", SCRIPT + rest, str(tmp_path / "run")], capture_output=True, check=False)

    assert open_run(tmp_path / "run").meta.ended == ended


def test_sys_exit_within_training_is_an_interruption(
    trainer: nn.Trainer, data: tuple[Array, Array], tmp_path: Path
) -> None:
    class Enough(nndiag.Hook):
        def on_step_end(self) -> None:
            raise SystemExit

    recorder = nndiag.watch(trainer, run=tmp_path / "run", hooks=[nndiag.LossHook(), Enough()])
    with pytest.raises(SystemExit):
        trainer.fit(*data, batch_size=16)
    recorder.close()

    assert open_run(tmp_path / "run").meta.ended == "interrupted"


def test_a_recorder_that_is_dropped_has_written_what_it_had(tmp_path: Path) -> None:
    def forgetful() -> None:
        recorder = Recorder(tmp_path / "run")
        train(recorder, 5)

    forgetful()
    gc.collect()

    run = open_run(tmp_path / "run")
    assert (run.steps, run.meta.ended) == (5, "completed")


def test_a_watched_trainer_that_is_dropped_with_its_recorder_has_written_what_it_had(tmp_path: Path) -> None:
    def forgetful() -> None:
        rng = np.random.default_rng(0)
        trainer = nn.Trainer(nn.MLP([4, 8, 2]), nn.SoftmaxCrossEntropy(), nn.SGD(lr=0.1))
        nndiag.watch(trainer, run=tmp_path / "run", every=1)
        for _ in range(7):
            trainer.step(rng.standard_normal((8, 4)), rng.integers(2, size=8))

    forgetful()
    gc.collect()

    run = open_run(tmp_path / "run")
    assert (run.steps, run.meta.ended) == (7, "completed")


def test_a_run_that_has_lost_rows_goes_on_saying_how_many_it_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(file: store.Appended, data: memoryview) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    recorder = Recorder(tmp_path / "run", every=1, flush_seconds=0.0)
    recorder._journal._memory.most = 1 << 14
    with monkeypatch.context() as full:
        full.setattr(store.Appended, "_write", write)
        train(recorder, 2_000)
    recorder.close()
    before = open_run(tmp_path / "run")
    kept = len(before.losses)

    again = Recorder(tmp_path / "run", every=1, resume=True)
    train(again, 2_300)
    again.close()
    run = open_run(tmp_path / "run")

    assert before.losses.attrs["thinned"] == f"{kept:,} of 2,000 rows"
    assert run.losses.attrs["thinned"] == f"{kept + 300:,} of 2,300 rows"
