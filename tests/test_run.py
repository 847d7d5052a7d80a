"""Run: frames, long form, CSV, thinning."""

from __future__ import annotations

import csv
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import nndiag
from nndiag import Run, RunError, UnknownName, open_run, synthetic
from nndiag.frames import FRAMES


def test_tidy_and_wide_hold_the_same(run: Run) -> None:
    long = run.tidy("activations")

    back = long.pivot_table(index="step", columns=["statistic", "layer"], values="value")
    wide = run.activations.dropna(axis=1, how="all")
    pd.testing.assert_frame_equal(back[wide.columns], wide, check_names=False)
    assert long["epoch"].tolist() == [step // 6 for step in long["step"]]


def test_first_and_latest_are_those_that_were_recorded() -> None:
    run = synthetic.run(steps=4, data={"rms": {"input": [np.nan, 1.0, 2.0, np.nan]}})

    assert (run.first("data", "rms", "input"), run.latest("data", "rms", "input")) == (1.0, 2.0)
    assert run.first("data", "rms", "target") is run.latest("outputs", "width", "outputs") is None


@pytest.mark.parametrize("name", FRAMES)
def test_csv_holds_every_value(name: str, whole_run: Run, tmp_path: Path) -> None:
    files = whole_run.to_csv(tmp_path / "csv")

    read = pd.read_csv(tmp_path / "csv" / f"{name}.csv")
    assert tmp_path / "csv" / f"{name}.csv" in files
    assert len(read) == whole_run.frame(name).drop(columns="epoch", errors="ignore").notna().sum().sum()
    assert {"step", "epoch", "value"} <= set(read)


@pytest.mark.parametrize("name", ["two\rlines", "two\nlines", 'a "name", quoted'])
def test_csv_holds_names_as_they_are(name: str, tmp_path: Path) -> None:
    run = synthetic.run(steps=2, gradients={"norm": {name: [1.0, 2.0], "w": 3.0}})
    run.to_csv(tmp_path)

    with (tmp_path / "gradients.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))

    assert [(row["parameter"], float(row["value"])) for row in rows] == [
        (name, 1.0),
        (name, 2.0),
        ("w", 3.0),
        ("w", 3.0),
    ]


def test_csv_into_what_is_no_folder_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(RunError, match="cannot write to"):
        run.to_csv(tmp_path / "file" / "csv")


def test_an_unknown_frame_is_refused(run: Run) -> None:
    with pytest.raises(UnknownName, match="no frame 'activation'; there are activations"):
        run.frame("activation")


def test_a_short_run_is_not_thinned(run: Run) -> None:
    assert run.thinned().activations.equals(run.activations)


def test_thinning_keeps_ends_and_spikes() -> None:
    norm = np.ones(50_000)
    norm[31_234] = 100.0
    thin = synthetic.run(steps=50_000, gradients={"norm": {"w": norm}}).thinned(500)

    assert len(thin.gradients) <= 500
    assert {0, 31_234, 49_999} <= set(thin.gradients.index)


def test_a_statistic_that_was_not_recorded_is_empty(run: Run) -> None:
    assert run.statistic("activations", "sharpness").empty
    assert run.series("activations", "mean", "hidden9").empty


def test_rows_go_through_all_steps_in_order(run: Run) -> None:
    steps = [step for step, _ in run.rows()]

    assert steps == list(range(61))
    _, last = list(run.rows())[-1]
    assert set(last) == {"losses", "metrics"}


def test_another_process_opens_the_same_run(tmp_path: Path, trainer: nndiag.nn.Trainer, data: tuple) -> None:  # type: ignore[type-arg]
    import subprocess
    import sys

    with nndiag.watch(trainer, run=tmp_path / "run", every=1) as recorder:
        trainer.fit(*data, epochs=3)
    code = "import nndiag, sys; print(nndiag.open_run(sys.argv[1]).activations['mean'].to_json(double_precision=15))"
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "run")], capture_output=True, text=True, check=True
    )

    assert result.stdout.strip() == recorder.run.activations["mean"].to_json(double_precision=15)
    assert open_run(tmp_path / "run").meta.layers[1].kind == "relu"


def test_series_must_be_as_long_as_the_run() -> None:
    with pytest.raises(ValueError, match=r"mean of h1: wanted one number or 100 of them, got shape \(3,\)"):
        synthetic.run(activations={"mean": {"h1": [1, 2, 3]}})


@pytest.mark.parametrize("thinned", [False, True])
def test_a_run_travels_between_processes(
    thinned: bool,
    tmp_path: Path,
    trainer: nndiag.nn.Trainer,
    data: tuple,  # type: ignore[type-arg]
) -> None:
    with nndiag.watch(trainer, run=tmp_path / "run", every=1) as recorder:
        trainer.fit(*data, epochs=3, batch_size=16)
    for run in (recorder.run, open_run(tmp_path / "run")):
        there = pickle.loads(pickle.dumps(run.thinned() if thinned else run))

        assert (there.meta, there.path, there.steps) == (run.meta, run.path, run.steps)
        assert nndiag.Checklist().examine(there).to_text() == nndiag.Checklist().examine(run).to_text()
        for name in run.tables:
            pd.testing.assert_frame_equal(there.frame(name), run.frame(name))


def test_what_is_written_to_a_statistic_changes_no_other(run: Run) -> None:
    first = run.statistic("activations", "mean")
    before = first.to_numpy().copy()
    first.iloc[:, :] = 7.0

    np.testing.assert_array_equal(run.statistic("activations", "mean").to_numpy(), before)
    np.testing.assert_array_equal(run.activations["mean"].to_numpy(), before)
