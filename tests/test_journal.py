"""The journal: rows in a folder, in memory, and from one to the other."""

from __future__ import annotations

import errno
from pathlib import Path

import children
import numpy as np
import pytest

from nndiag import open_run, store
from nndiag.journal import Journal
from nndiag.meta import Meta
from nndiag.table import Block, Table

LOSSES = (("epoch", ""), ("train", ""), ("validation", ""))


def rows(start: int, stop: int) -> dict[str, list[Block]]:
    return {"losses": [(LOSSES, np.column_stack([np.arange(start, stop), np.ones((stop - start, 3))]))]}


def steps(journal: Journal) -> list[int]:
    return Table.of(journal.blocks()["losses"]).steps.tolist()


def test_without_a_folder_rows_are_in_memory() -> None:
    journal = Journal()
    journal.append(rows(0, 3))
    journal.append(rows(3, 5))

    assert journal.path is None
    assert steps(journal) == [0, 1, 2, 3, 4]


class Disk:
    """Fails as it is told to, in place of a folder's appending."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full = False
        self._append = store.Appended.append
        monkeypatch.setattr(store.Appended, "append", lambda *arguments: self.append(*arguments))

    def append(self, file: store.Appended, *arguments: object) -> int:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self._append(file, *arguments)  # type: ignore[arg-type]


def test_what_could_not_be_written_is_written_when_it_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    disk, journal = Disk(monkeypatch), Journal(tmp_path / "run")
    for start in range(0, 40, 10):
        disk.full = start in (10, 20)
        journal.append(rows(start, start + 10))
        assert steps(journal) == list(range(start + 10))
    journal.write_meta(Meta(ended="completed"))

    assert open_run(tmp_path / "run").losses.index.tolist() == list(range(40))
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_each_outage_is_warned_of_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    disk, journal = Disk(monkeypatch), Journal(tmp_path / "run")
    for step, disk.full in enumerate([True, True, False, True, True]):
        journal.append(rows(step, step + 1))

    assert caplog.text.count("cannot write") == 2


def test_metadata_that_could_not_be_written_is_written_with_the_next_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(store, "_replace", refuse)
        journal.write_meta(Meta(name="told"))
    journal.append({})

    assert open_run(tmp_path / "run").meta.name == "told"


def test_an_error_of_nndiag_itself_costs_no_row_and_shows_where_it_comes_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(store.Appended, "append", lambda *arguments: 1 / 0)
        journal.append(rows(0, 3))
    journal.append(rows(3, 5))

    assert steps(journal) == [0, 1, 2, 3, 4]
    assert "ZeroDivisionError" in caplog.text
    assert "Traceback" in caplog.text


def test_more_columns_than_can_be_read_back_are_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("nndiag.stored.LARGEST", 40)
    journal = Journal(tmp_path / "run")
    journal.append(rows(0, 3))

    assert "3 columns in losses are more than can be read back" in caplog.text
    assert steps(journal) == [0, 1, 2]
    assert list((tmp_path / "run/frames").iterdir()) == []


def refuse(*arguments: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_forked_child_leaves_the_folder_to_its_parent(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "run")
    journal.append(rows(0, 3))

    def child() -> list[int]:
        journal.append(rows(3, 5))
        journal.write_meta(Meta(name="child", ended="completed"))
        return steps(journal)

    assert children.result(child) == [0, 1, 2, 3, 4]
    journal.append(rows(3, 4))
    journal.write_meta(Meta(name="parent"))
    run = open_run(tmp_path / "run")
    assert (run.meta.name, run.meta.ended) == ("parent", "running")
    assert run.losses.index.tolist() == [0, 1, 2, 3]
