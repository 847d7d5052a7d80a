"""Parquet files of a run, read back by those who will read them; each is skipped where it is not installed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nndiag import Recorder, Run, RunError, open_run, synthetic
from nndiag.cli import main
from nndiag.exporters.parquet import to_parquet
from nndiag.frames import FRAMES

NAMES = [
    "h1.relu",
    "H1.relu",
    "a/b",
    'with "quotes"',
    "it's",
    "net[0].weight",
    "a b",
    "",
    "\ud800",
    "é",
    "value",
    "step",
]


@pytest.fixture
def odd() -> Run:
    """A run whose layers have names that columns could not have."""
    recorder = Recorder(every=1)
    for step in range(3):
        for number, name in enumerate(NAMES):
            recorder.activation(name, np.full((2, 2), float(number)))
        recorder.log(loss=float(step))
        recorder.step()
    return recorder.run


@pytest.mark.parametrize("name", FRAMES)
def test_a_file_holds_what_the_long_form_holds(name: str, whole_run: Run, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")

    files = to_parquet(whole_run, tmp_path)

    assert tmp_path / f"{name}.parquet" in files
    table = parquet.read_table(tmp_path / f"{name}.parquet")
    long = whole_run.tidy(name)
    assert table.column_names == list(long)
    assert [str(kind) for kind in table.schema.types] == [
        "int64",
        "int64",
        *["string"] * (len(long.columns) - 3),
        "double",
    ]
    pd.testing.assert_frame_equal(table.to_pandas(), long, check_dtype=False)
    assert json.loads(table.schema.metadata[b"nndiag"])["layers"][0]["name"] == "hidden1"


def test_a_long_run_is_written_in_parts(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    steps = 300_000
    run = synthetic.run(steps=steps, gradients={"norm": {f"p{i}": np.arange(steps) for i in range(5)}})

    to_parquet(run, tmp_path)

    file = parquet.ParquetFile(tmp_path / "gradients.parquet")
    assert file.num_row_groups == 2
    assert file.metadata.num_rows == 5 * steps
    frame = file.read().to_pandas().pivot_table(index="step", columns="parameter", values="value")
    assert (frame["p3"] == np.arange(steps)).all()


def test_a_csv_in_parts_is_one_csv(tmp_path: Path) -> None:
    run = synthetic.run(steps=90, gradients={"norm": {"p0": np.arange(90.0), "p1": np.arange(90.0)}})

    parts = pd.concat(run.tidied("gradients", cells=20), ignore_index=True)

    assert len(list(run.tidied("gradients", cells=20))) == 9
    merged = parts.sort_values(["parameter", "step"], ignore_index=True).astype({"statistic": str, "parameter": str})
    pd.testing.assert_frame_equal(merged, run.tidy("gradients"), check_dtype=False)


def read_by_duckdb(file: Path) -> list[tuple[Any, ...]]:
    duckdb = pytest.importorskip("duckdb")
    query = f"SELECT layer, avg(value) FROM '{file}' WHERE statistic = 'mean' AND step >= 1 GROUP BY layer"
    return duckdb.sql(query).fetchall()  # type: ignore[no-any-return]


def read_by_polars(file: Path) -> list[tuple[Any, ...]]:
    pl = pytest.importorskip("polars")
    wanted = pl.scan_parquet(file).filter((pl.col("statistic") == "mean") & (pl.col("step") >= 1))
    return wanted.group_by("layer").agg(pl.col("value").mean()).collect().rows()  # type: ignore[no-any-return]


@pytest.mark.parametrize("read", [read_by_duckdb, read_by_polars])
def test_engines_read_plain_columns_whatever_the_layers_are_called(read: Any, odd: Run, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    to_parquet(odd, tmp_path)

    rows = read(tmp_path / "activations.parquet")

    shown = {name.encode("utf-8", "backslashreplace").decode(): float(number) for number, name in enumerate(NAMES)}
    assert dict(rows) == shown


def test_the_command_line_exports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pyarrow")
    with Recorder(tmp_path / "run") as recorder:
        recorder.log(loss=1.0)
        recorder.step()

    assert (
        main(["export", str(tmp_path / "run"), "--parquet", str(tmp_path / "out"), "--csv", str(tmp_path / "csv")]) == 0
    )

    assert str(tmp_path / "out/losses.parquet") in capsys.readouterr().out
    assert open_run(tmp_path / "run").steps == 1


def test_without_pyarrow_the_error_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Recorder(tmp_path / "run").close()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)

    assert main(["export", str(tmp_path / "run"), "--parquet", str(tmp_path / "out")]) == 2

    assert "pip install '.[parquet]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_made_is_refused(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "file").write_text("")

    with pytest.raises(RunError, match="cannot write to"):
        to_parquet(run, tmp_path / "file" / "out")
