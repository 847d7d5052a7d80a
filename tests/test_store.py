"""The run folder."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import numpy as np
import pytest

from nndiag import Recorder, RunError, open_run, stored
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


def test_a_file_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(RunError, match="it is a file"):
        open_run(tmp_path / "file")


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(RunError, match="cannot make the run folder"):
        Recorder(tmp_path / "file" / "run")


def test_schema_files_with_odd_names_are_passed_over(tmp_path: Path) -> None:
    record(tmp_path / "run")
    (tmp_path / "run/frames/..json").write_text("{}")
    (tmp_path / "run/frames/losses-x.json").write_text("{}")

    tables = stored.read(tmp_path / "run").tables

    assert isinstance(tables["losses"], Table)
    assert set(tables) == {"activations", "losses", "metrics"}
