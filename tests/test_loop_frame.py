"""The loop frame on its way: from the row through the folder, thinning, resuming and exporters to the frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import nndiag
from nndiag import Recorder, Run, open_run
from nndiag.frames import EVALUATION, FRAMES, LOOP


def record(path: Path | None, steps: int = 6, scale: float = 1.0) -> Run:
    """A loop of two backward passes a step, with a validation after every other one and after the last."""
    with Recorder(path, every=1, strict=True) as recorder:
        for step in range(steps):
            if step and step % 2 == 0:
                validate(recorder)
            recorder.log(loss=1.0)
            recorder.row.buffers["loop"].put("", LOOP, (2, 1, 0, float("nan"), 0, scale / 2**step))
            recorder.step()
        validate(recorder)
    return recorder.run


def validate(recorder: Recorder) -> None:
    recorder.log(validation_loss=2.0)
    recorder.row.buffers["loop"].put("", EVALUATION, (1.0,))


def test_what_is_put_comes_back_by_its_name(tmp_path: Path) -> None:
    record(tmp_path / "run")

    loop = open_run(tmp_path / "run").loop
    assert tuple(loop.columns) == FRAMES["loop"]
    assert loop["backward_passes"].dropna().to_dict() == dict.fromkeys(range(6), 2.0)
    assert loop["training_mode"].dropna().to_dict() == {2: 1.0, 4: 1.0, 6: 1.0}
    assert loop["gradients_kept"].isna().all()
    assert loop.index.name == "step"


def test_the_folder_and_the_memory_hold_the_same(tmp_path: Path) -> None:
    kept = record(tmp_path / "run")

    pd.testing.assert_frame_equal(open_run(tmp_path / "run").loop, record(None).loop)
    pd.testing.assert_frame_equal(kept.loop, record(None).loop)


def test_a_run_without_it_has_its_columns_and_no_rows() -> None:
    assert Run().loop.empty
    assert tuple(Run().loop.columns) == FRAMES["loop"]
    assert Run().statistic("loop", "updates").empty


def test_a_validation_after_the_last_update_is_no_step(tmp_path: Path) -> None:
    assert record(tmp_path / "run").steps == 6

    with Recorder(tmp_path / "run", every=1, resume=True) as recorder:
        assert recorder.step_number == 6


def test_rows_of_the_loop_are_no_reads() -> None:
    recorder = Recorder(every=1)
    for step in range(4):
        if step == 0:
            recorder.gradient("w", np.ones(3))
        recorder.row.buffers["loop"].put("", LOOP, (1, 1, 0, 0, 0, 1))
        recorder.step()

    assert (recorder.run.reads, len(recorder.run.loop)) == (1, 4)


def test_until_keeps_the_validation_made_then() -> None:
    early = record(None).until(4).loop

    assert early.loc[4].dropna().to_dict() == {"training_mode": 1.0}
    assert early["updates"].dropna().index.tolist() == [0, 1, 2, 3]


def test_a_long_one_is_thinned_with_its_evaluations(tmp_path: Path) -> None:
    with Recorder(tmp_path / "run", every=1) as recorder:
        for step in range(6000):
            if step % 1000 == 500:
                validate(recorder)
            recorder.gradient("w", np.full(2, 1.0 + step % 7))
            recorder.log(loss=1.0 + step % 5)
            recorder.row.buffers["loop"].put("", LOOP, (1, step % 3 > 0, step % 3 == 0, 0, 0, 1))
            recorder.step()

    run = open_run(tmp_path / "run")
    thin = run.thinned()
    assert len(run.loop) == 6000
    assert len(thin.loop) <= 2000
    assert thin.loop["training_mode"].dropna().index.tolist() == [500, 1500, 2500, 3500, 4500, 5500]
    assert len(thin.loop.index.intersection(thin.gradients.index)) > 500


def test_its_long_form_names_the_statistic(tmp_path: Path) -> None:
    run = record(None)
    long = run.tidy("loop")
    run.to_csv(tmp_path)

    assert list(long) == ["step", "epoch", "statistic", "value"]
    assert len(long) == run.loop.notna().sum().sum()
    assert long.query("statistic == 'loss_scale'")["value"].tolist() == [1, 0.5, 0.25, 0.125, 0.0625, 0.03125]
    assert len(pd.read_csv(tmp_path / "loop.csv")) == len(long)


def test_parquet_holds_it(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    from nndiag.exporters.parquet import to_parquet

    run = record(None)
    to_parquet(run, tmp_path)

    assert parquet.read_table(tmp_path / "loop.parquet").column_names == ["step", "epoch", "statistic", "value"]


def test_a_parameter_says_what_is_known_of_it(tmp_path: Path) -> None:
    with Recorder(tmp_path / "run") as recorder:
        recorder.describe(parameters=[{"name": "a", "optimized": False, "reached": False}, {"name": "b"}])

    a, b = open_run(tmp_path / "run").meta.parameters
    assert (a.optimized, a.reached, b.optimized, b.reached) == (False, False, True, None)
    with pytest.raises(TypeError, match=r"reached=1 of 'a'"):
        nndiag.Recorder().describe(parameters=[{"name": "a", "reached": 1}])
