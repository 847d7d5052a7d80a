"""The run folder."""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nndiag import Checklist, Recorder, RunError, open_run, store, stored
from nndiag.cli import main
from nndiag.meta import Meta, ParameterMeta
from nndiag.table import Table


def record(path: Path, steps: int = 5) -> Recorder:
    with Recorder(path, every=1) as recorder:
        for step in range(steps):
            recorder.activation("h1", np.full((4, 2), float(step)))
            recorder.log(loss=1.0 / (step + 1))
            recorder.step()
    return recorder


def test_an_opened_run_equals_the_recorded_one(tmp_path: Path) -> None:
    recorder = record(tmp_path / "run")

    opened = open_run(tmp_path / "run")

    assert opened.meta == recorder.run.meta
    assert opened.activations.equals(recorder.run.activations)
    assert opened.losses["train"].tolist() == [1.0, 1 / 2, 1 / 3, 1 / 4, 1 / 5]
    assert opened.meta.ended == "completed"


def test_numpy_and_json_alone_can_read_it(tmp_path: Path) -> None:
    record(tmp_path / "run")

    columns = json.loads((tmp_path / "run/frames/losses-0.json").read_text())["columns"]
    rows = np.memmap(tmp_path / "run/frames/losses-0.f64", "<f8", "r").reshape(-1, 1 + len(columns))

    assert columns == [["epoch", ""], ["train", ""], ["validation", ""]]
    assert rows[:, 0].tolist() == [0, 1, 2, 3, 4]


def test_a_folder_in_use_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    record(tmp_path / "run", steps=5)

    other = record(tmp_path / "run", steps=2)

    assert other.path == tmp_path / "run-2"
    assert "run-2" in caplog.text
    assert open_run(tmp_path / "run").steps == 5
    assert open_run(tmp_path / "run-2").steps == 2


def test_an_empty_folder_is_used(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()

    assert record(tmp_path / "run").path == tmp_path / "run"


def test_resume_goes_on_where_the_run_stopped(tmp_path: Path) -> None:
    record(tmp_path / "run", steps=3)

    with Recorder(tmp_path / "run", every=1, resume=True) as recorder:
        recorder.log(loss=9.0)
        recorder.step()

    assert open_run(tmp_path / "run").losses["train"].to_dict() == {0: 1.0, 1: 1 / 2, 2: 1 / 3, 3: 9.0}


def test_a_torn_tail_is_dropped(tmp_path: Path) -> None:
    record(tmp_path / "run")
    file = tmp_path / "run/frames/losses-0.f64"
    file.write_bytes(file.read_bytes()[:-3])

    assert len(open_run(tmp_path / "run").losses) == 4


def test_a_run_whose_writer_is_gone_was_killed(tmp_path: Path) -> None:
    record(tmp_path / "run")
    meta = json.loads((tmp_path / "run/run.json").read_text())
    meta |= {"ended": "running", "writer": {"pid": 2**22 + 1, "host": platform.node()}}
    (tmp_path / "run/run.json").write_text(json.dumps(meta))

    assert open_run(tmp_path / "run").meta.ended == "killed"


def test_a_run_being_written_is_running(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "run")

    assert open_run(tmp_path / "run").meta.ended == "running"
    recorder.close()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda run: run.rename(run.with_name("gone")), "no such folder"),
        (lambda run: (run / "run.json").unlink(), "no run.json"),
        (lambda run: (run / "run.json").write_text("{"), "no JSON"),
        (lambda run: (run / "run.json").write_text("[1]"), "wanted a JSON object"),
        (lambda run: (run / "run.json").write_text('{"format": 99}'), "upgrade nndiag"),
        (lambda run: (run / "run.json").write_text('{"format": 1, "layers": 3}'), "does not describe a run"),
        (lambda run: (run / "run.json").write_text('{"format": 1, "name": 3}'), "wrong type"),
        (lambda run: (run / "run.json").write_bytes(b"\xff\xfe\x00"), "no JSON"),
        (lambda run: (run / "frames/losses-0.json").write_text('{"columns": [1]}'), "is no column"),
        (lambda run: (run / "frames/losses-0.json").write_text("{}"), "names no columns"),
        (lambda run: (run / "frames/losses-0.f64").write_bytes(b"\xff" * 64), "does not begin with a step"),
    ],
)
def test_a_damaged_folder_gives_a_clear_error(tmp_path: Path, spoil: object, words: str) -> None:
    record(tmp_path / "run")
    spoil(tmp_path / "run")  # type: ignore[operator]

    with pytest.raises(RunError, match=words):
        open_run(tmp_path / "run")


@pytest.mark.parametrize(
    "use", [open_run, lambda path: Recorder(run=path), lambda path: Recorder(run=path, resume=True)]
)
def test_a_path_that_no_folder_can_have_is_refused(tmp_path: Path, use: Callable[[Path], object]) -> None:
    with pytest.raises(RunError, match=r"'.*a\\x00b' names no folder"):
        use(tmp_path / "a\0b")


def test_a_file_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(RunError, match="it is a file"):
        open_run(tmp_path / "file")


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(RunError, match="cannot make the folder"):
        Recorder(tmp_path / "file" / "run")


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A run whose rows are mapped rather than read at once."""
    folder = store.Folder.claim(tmp_path / "large")
    rows = np.column_stack([np.arange(60_000), np.ones((60_000, 3))])
    folder.append("losses", [(LOSSES, rows)])
    folder.write_meta(Meta(name="large", ended="completed"))
    return tmp_path / "large"


LOSSES = (("epoch", ""), ("train", ""), ("validation", ""))


def spoilt(path: Path, row: int, step: float) -> None:
    rows = np.memmap(path / "frames/losses-0.f64", "<f8", "r+").reshape(-1, 4)
    rows[row, 0] = step
    rows.flush()


def test_a_row_that_is_spoilt_in_the_middle_costs_the_rows_from_there(large: Path) -> None:
    spoilt(large, 30_000, np.nan)

    run = open_run(large)

    assert "steps" not in vars(run.tables["losses"])
    assert len(run.losses) == 30_000


def test_a_large_frame_shares_the_memory_of_the_file(tmp_path: Path) -> None:
    columns = tuple(("norm", f"p{i}") for i in range(30))
    for name, order in (("one", columns), ("other", columns[::-1])):
        folder = store.Folder.claim(tmp_path / name)
        folder.append("gradients", [(order, np.column_stack([np.arange(40_000), np.ones((40_000, 30))]))])
        folder.write_meta(Meta(ended="completed", parameters=tuple(ParameterMeta(f"p{i}") for i in range(30))))
        run = open_run(tmp_path / name)

        assert run.gradients.columns.tolist() == list(columns)
        assert np.shares_memory(run.gradients["norm", "p3"].to_numpy(), run.tables["gradients"].values)


def test_a_last_row_that_is_spoilt_costs_the_rows_from_there_only(
    large: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spoilt(large, 59_999, 0.0)

    run = open_run(large)

    assert len(run.losses) == 59_999
    assert "row 59999 does not begin with the next step" in caplog.text
    assert "losses-0 holds 59999 of 60000 rows" in run.meta.faults[0]["error"]


def test_a_torn_tail_is_dropped_with_a_warning_that_says_how_much(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    record(tmp_path / "run")
    with (tmp_path / "run/frames/losses-0.f64").open("ab") as file:
        file.write(b"123456789")

    assert len(open_run(tmp_path / "run").losses) == 5
    assert "losses-0.f64 ends within a row: the last 9 bytes are left out" in caplog.text
    assert not open_run(tmp_path / "run").meta.faults


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda frames: os.truncate(frames / "losses-0.f64", 3 * 32), "losses-0 holds 3 of 5 rows"),
        (lambda frames: (frames / "losses-0.f64").unlink(), "losses-0 holds 0 of 5 rows"),
        (lambda frames: (frames / "losses-0.json").unlink(), "losses-0 holds 0 of 5 rows"),
        (lambda frames: shutil.rmtree(frames), "holds 0 of 5 rows"),
        (lambda frames: (frames / "losses-9.f64").write_bytes(b"x"), "losses-9.f64 lies there without losses-9.json"),
    ],
)
def test_a_run_that_has_lost_rows_says_so(
    spoil: Callable[[Path], object], words: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    record(tmp_path / "run")
    spoil(tmp_path / "run/frames")

    run = open_run(tmp_path / "run")

    assert len(caplog.records) == 1
    assert words in caplog.text
    assert words in run.meta.faults[0]["error"]
    report = Checklist(select="ND010").examine(run)
    assert "rows of this run are lost: " in str(report)
    assert "rows of this run are lost: " in report.to_markdown()


def test_rows_that_were_lost_are_said_once_however_often_the_run_goes_on(tmp_path: Path) -> None:
    record(tmp_path / "run")
    (tmp_path / "run/frames/losses-0.f64").unlink()
    for _ in range(2):
        with Recorder(tmp_path / "run", every=1, resume=True) as recorder:
            recorder.log(loss=1.0)
            recorder.step()

    run = open_run(tmp_path / "run")

    assert len(run.meta.faults) == 1
    assert run.train.tolist() == [1.0, 1.0]


def test_the_first_version_of_the_folder_is_read(tmp_path: Path) -> None:
    record(tmp_path / "run")
    meta = json.loads((tmp_path / "run/run.json").read_text())
    del meta["rows"], meta["went_back"]
    (tmp_path / "run/run.json").write_text(json.dumps(meta | {"format": 1}))
    (tmp_path / "run/.lock").unlink()

    assert open_run(tmp_path / "run").steps == 5


def test_columns_that_come_within_one_flush_share_a_file(tmp_path: Path) -> None:
    folder = store.Folder.claim(tmp_path / "run")
    one, two = LOSSES[:1], LOSSES[:2]
    folder.append("losses", [(one, np.array([[0.0, 1.0]])), (two, np.array([[1.0, 1.0, 2.0]]))])
    folder.append("losses", [(one, np.array([[2.0, 1.0]]))])
    folder.append("losses", [(LOSSES, np.array([[3.0, 1.0, 2.0, 3.0]]))])
    folder.write_meta(Meta(ended="completed"))

    assert sorted(file.name for file in (tmp_path / "run/frames").glob("*.f64")) == ["losses-0.f64", "losses-1.f64"]
    losses = open_run(tmp_path / "run").losses
    np.testing.assert_array_equal(losses["train"], [np.nan, 2.0, np.nan, 2.0])


def test_a_step_that_goes_back_opens_a_file_of_its_own(tmp_path: Path) -> None:
    folder = store.Folder.claim(tmp_path / "run")
    folder.append(
        "losses", [(LOSSES, np.array([[0.0, 0, 1, 1], [1.0, 0, 1, 1]])), (LOSSES, np.array([[1.0, 0, 2, 2]]))]
    )
    folder.write_meta(Meta(ended="completed"))

    assert open_run(tmp_path / "run").train.tolist() == [1.0, 2.0]
    assert (tmp_path / "run/frames/losses-1.f64").stat().st_size == 32


def test_schema_files_with_odd_names_are_passed_over(tmp_path: Path) -> None:
    record(tmp_path / "run")
    (tmp_path / "run/frames/..json").write_text("{}")
    (tmp_path / "run/frames/losses-x.json").write_text("{}")

    tables = stored.read(tmp_path / "run").tables

    assert isinstance(tables["losses"], Table)
    assert set(tables) == {"activations", "losses", "metrics"}


@pytest.mark.parametrize("steps", [60_000, 2_000_000], ids=["looked through", "looked into"])
def test_a_page_that_is_lost_in_the_middle_is_a_loss(steps: int, tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "run", every=1)
    recorder.log(loss=1.0, epoch=0)
    recorder.step()
    recorder.close()
    file = tmp_path / "run" / "frames" / "losses-0.f64"
    rows = np.tile(np.fromfile(file).reshape(1, -1), (steps, 1))
    rows[:, 0] = np.arange(steps)
    pages = 1 + (2 << 20) * (steps > 60_000) // 4096  # of a very large file a part as large as a write
    rows.reshape(-1)[512 * 300 : 512 * (300 + pages)] = 0
    rows.tofile(file)
    meta = tmp_path / "run" / "run.json"
    described = json.loads(meta.read_text())
    described["rows"]["losses-0"] = steps
    meta.write_text(json.dumps(described))

    run = open_run(tmp_path / "run")
    whole = 512 * 300 // 4

    assert "losses-0 holds" in run.meta.faults[0]["error"]
    assert len(run.losses) == whole
    assert len(run.tidy("losses")) > 0
    assert Checklist().examine(run).lost
    assert Recorder(tmp_path / "run", resume=True).step_number == whole


def test_of_many_files_few_are_held_open(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "run", every=1)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for at in range(60):
        recorder.log(loss=1.0, **{f"metric{at}": float(at)})
        recorder.step()
        recorder.flush()

    assert recorder.run.metrics.shape == (60, 61)
    assert len(list(Path("/proc/self/fd").iterdir())) < before + 20
    recorder.close()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before
    assert recorder.run.metrics.equals(open_run(tmp_path / "run").metrics)


def test_a_frame_that_nobody_knows_is_passed_over(tmp_path: Path) -> None:
    record(tmp_path / "run").close()
    for extension in ("json", "f64"):
        frames = tmp_path / "run" / "frames"
        shutil.copy(frames / f"losses-0.{extension}", frames / f"others-0.{extension}")

    assert not open_run(tmp_path / "run").meta.faults
    assert main(["check", str(tmp_path / "run")]) == 0


def test_rows_of_files_that_are_gone_are_missed_aloud(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder(tmp_path / "run", flush_seconds=0.0, every=1)
    for number in range(30):
        recorder.log(loss=1.0, **{f"metric {number}": 1.0})
        recorder.step()
    shutil.rmtree(tmp_path / "run")
    assert len(recorder.run.metrics) < 30
    assert len(recorder.run.metrics) < 30

    said = [record.message for record in caplog.records if "are lost" in record.message]
    assert len(said) == len(set(said)) > 0
    assert "rows of metrics-0 are lost" in said[0]


def test_the_home_folder_is_found_on_both_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    record(Path("~/run"), steps=3)

    assert open_run("~/run").steps == 3
    with pytest.raises(RunError, match="names no folder"):
        open_run("~nobody-of-this-name/run")
