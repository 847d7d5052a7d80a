"""Thinning: what stands for a long run, while it is recorded, in its folder, and when it is read."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

import nndiag
from nndiag import Checklist, NndiagError, Recorder, Run, kept, open_run, signals, synthetic
from nndiag.journal import Journal
from nndiag.memory import Memory
from nndiag.statistics import Array
from nndiag.table import Block, Table
from nndiag.thinning import HEAD, Thinner, Thinning, thin

COLUMNS = (("mean", "a"), ("nonfinite", "a"), ("mean", "b"), ("max", "b"), ("train", ""))


def noisy(rows: int, seed: int = 0) -> Array:
    """A row for each step: a step, noise of unlike scale, a count that is zero, holes, a column that begins late."""
    rng = np.random.default_rng(seed)
    values = np.abs(rng.standard_normal((rows, 1 + len(COLUMNS)))) * [1, 1, 0, 100, 1e-3, 2]
    values[:, 0] = np.arange(rows)
    values[np.arange(rows) % 97 != 96, 4] = np.nan
    values[: rows // 3, 5] = np.nan
    return values


def thinned(rows: Array, limit: int, cuts: list[int] | None = None) -> Table:
    """What a thinner makes of `rows` that come cut at `cuts`."""
    thinner = Thinner(limit)
    for part in np.split(rows, sorted(cuts or [])):
        thinner.add(COLUMNS, part[:, 0], part[:, 1:])
    return thinner.table()


@given(some.integers(1, 6000), some.sampled_from([25, 100, 700]), some.lists(some.integers(0, 6000), max_size=30))
def test_pieces_come_to_the_same_as_the_whole(rows: int, limit: int, cuts: list[int]) -> None:
    values = noisy(rows)

    whole, parts = thinned(values, limit), thinned(values, limit, [min(cut, rows) for cut in cuts])

    np.testing.assert_array_equal(parts.steps, whole.steps)
    np.testing.assert_array_equal(parts.values, whole.values)
    assert len(whole) <= limit


@pytest.mark.parametrize("limit", [50, 500])
def test_columns_that_come_later_come_to_the_same_as_columns_that_were_empty(limit: int) -> None:
    rng = np.random.default_rng(limit)
    blocks: list[Block] = []
    columns: tuple[tuple[str, str], ...] = ()
    for part in range(5):
        columns += tuple((f"s{i % 5}", f"layer {part}.{i}") for i in range(rng.integers(1, 40)))
        rows = rng.standard_normal((1000, 1 + len(columns))) * 10.0 ** rng.integers(-5, 5)
        rows[:, 0] = np.arange(1000 * part, 1000 * part + 1000)
        blocks.append((columns, rows))
    whole = Table.of(blocks)
    live = Thinning(limit)
    for names, rows in blocks:
        for piece in np.array_split(rows, 7):
            live.add({"activations": [(names, piece)]})

    one = live.tables()["activations"]

    for table in (whole, Table(whole.columns, whole.steps, whole.values)):
        other = thin({"activations": table}, limit)["activations"]
        assert other.columns == one.columns
        np.testing.assert_array_equal(other.steps, one.steps)
        np.testing.assert_array_equal(other.values, one.values)


def test_kept_rows_are_rows_as_they_were_recorded() -> None:
    values = noisy(20_000)

    table = thinned(values, 500)

    np.testing.assert_array_equal(table.values, values[table.steps, 1:])


def test_the_beginning_the_end_and_the_extremes_of_every_column_are_kept() -> None:
    values = noisy(20_000)

    table = thinned(values, 1000)

    assert {*range(HEAD), 19_999} <= set(table.steps.tolist())
    np.testing.assert_array_equal(np.nanmax(table.values, axis=0), np.nanmax(values[:, 1:], axis=0))
    np.testing.assert_array_equal(np.nanmin(table.values, axis=0), np.nanmin(values[:, 1:], axis=0))


def test_rows_that_hold_what_is_not_finite_are_kept() -> None:
    values = noisy(50_000)
    values[[7001, 7002, 31_234], 2] = [1, 3, 1]
    values[[12_345, 40_001], 1] = np.inf, -np.inf

    table = thinned(values, 500)

    assert {7001, 7002, 31_234, 12_345, 40_001} <= set(table.steps.tolist())


def test_rows_that_hold_what_few_hold_are_not_lost_among_the_others() -> None:
    values = noisy(100_000)
    values[:, 4] = np.where(np.arange(len(values)) % 1000 == 999, 1.0, np.nan)

    table = thinned(values, 1000)

    assert np.count_nonzero(~np.isnan(table.values[:, 3])) >= 50


def test_a_thinned_series_has_the_middle_the_scatter_and_the_spread_in_time_of_the_whole() -> None:
    line, noise = np.linspace(2.0, 1.0, 200_000), np.random.default_rng(0).standard_normal(200_000)
    train = line + 0.1 * noise
    thinner = Thinner()
    thinner.add((("train", ""),), np.arange(len(train)), train[:, None])

    table = thinner.table()

    off = table.values[:, 0] - line[table.steps]
    assert abs(np.median(off)) < 0.01
    assert signals.spread(off) == pytest.approx(0.1, rel=0.3)
    assert abs(np.median(table.steps[HEAD:]) - 100_000) < 5_000


def test_frames_of_the_same_steps_keep_the_same_ones_and_losses_keep_those_beside_them() -> None:
    steps = 60_000
    noise = np.random.default_rng(0).random((4, steps))
    run = synthetic.run(steps=steps, train=noise[0], metrics={"lr": {"train": noise[1]}},
                        gradients={"norm": {"w": noise[2]}}, updates={"ratio": {"w": noise[3]}})  # fmt: skip

    thin = run.thinned()

    shared = thin.gradients.index.intersection(thin.updates.index)
    assert len(shared) > len(thin.gradients) / 2
    assert len(shared.intersection(thin.losses.index).intersection(thin.metrics.index)) > len(shared) * 0.9


def test_few_reads_beside_many_losses_keep_their_losses() -> None:
    read = Table((("norm", "w"),), np.arange(0, 100_000, 100), np.random.default_rng(0).random((1000, 1)))
    losses = synthetic.run(steps=100_000, train=np.random.default_rng(1).random(100_000)).tables["losses"]

    tables = thin({"losses": losses, "gradients": read})

    assert len(np.intersect1d(tables["losses"].steps, read.steps)) > 600
    assert len(tables["losses"]) <= 2000


def test_fewer_rows_than_it_takes_are_refused() -> None:
    with pytest.raises(NndiagError, match=r"thinned\(rows=3\): give 25 rows or more"):
        synthetic.run(steps=100, train=1.0).thinned(3)


def test_a_run_is_thinned_once() -> None:
    run = synthetic.run(steps=5000, train=1.0)

    assert run.thinned() is run.thinned()
    assert run.thinned().thinned() is run.thinned()


def test_training_that_goes_back_supersedes_what_it_had_done() -> None:
    first, again = noisy(5000), noisy(4000, seed=1)
    thinner = Thinner(500)
    thinner.add(COLUMNS, first[:, 0], first[:, 1:])
    thinner.add(COLUMNS, again[2000:, 0], again[2000:, 1:])

    table = thinner.table()

    early = table.steps < 2000
    assert (np.diff(table.steps) > 0).all()
    np.testing.assert_array_equal(table.values[early], first[table.steps[early], 1:])
    np.testing.assert_array_equal(table.values[~early], again[table.steps[~early], 1:])


# In memory


def blocks_of(rows: Array, few: int = 50) -> list[Block]:
    return [(COLUMNS, rows[at : at + few]) for at in range(0, len(rows), few)]


def filled(journal: Journal, rows: Array) -> Journal:
    """`journal` with an activation frame of `rows`, and losses of the same."""
    for block in blocks_of(rows):
        journal.append({"activations": [block], "losses": [((("train", ""),), block[1][:, [0, 1]])]})
    return journal


def test_a_memory_that_overflows_lets_go_of_the_past_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder(every=1)
    recorder._journal._memory = Memory(1 << 20)
    rows = noisy(60_000)

    filled(recorder._journal, rows)
    run = recorder.run

    assert caplog.text.count("of older ones only a part is kept from now on; a run folder keeps all") == 1
    assert run.meta.thinned == {"activations": 60_000, "losses": 60_000}
    assert run.reads == run.steps == 60_000
    assert "activations" in repr(run)
    assert f"{len(run.activations):,} of 60,000 rows" == run.activations.attrs["thinned"]
    assert f"{len(run.activations):,} of 60,000 rows" in repr(run)
    late = run.activations.index >= 55_000
    assert late.sum() == 5000
    assert 500 < (~late).sum() < 20_000
    np.testing.assert_array_equal(run.activations["mean"]["a"], rows[run.activations.index, 1])


def test_a_run_in_memory_thins_to_the_same_whatever_its_memory() -> None:
    rows = noisy(30_000)
    small, large = Recorder(every=1), Recorder(every=1)
    small._journal._memory = Memory(1 << 20)

    runs = [recorder.run.thinned() for recorder in (small, large) if filled(recorder._journal, rows)]

    assert runs[0].activations.equals(runs[1].activations)
    assert runs[0].losses.equals(runs[1].losses)


def test_a_run_that_is_looked_at_stays_as_it_was() -> None:
    recorder = Recorder(every=1)
    rows = noisy(9000)
    filled(recorder._journal, rows[:6000])
    run = recorder.run
    filled(recorder._journal, rows[6000:])

    assert len(run.activations) == 6000
    assert run.thinned().activations.index[-1] == 5999
    assert recorder.run.thinned().activations.index[-1] == 8999


# In a folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of 30,000 steps with what stands for it."""
    monkeypatch.setattr("nndiag.journal.LITTLE", 0)
    recorder = Recorder(tmp_path / "run", every=1)
    filled(recorder._journal, noisy(30_000))
    recorder.close()
    return tmp_path / "run"


def through_all(path: Path) -> Run:
    """The thinned run, without what is kept of it."""
    other = path.with_name("bare")
    shutil.copytree(path, other, ignore=shutil.ignore_patterns("thinned"), dirs_exist_ok=True)
    return open_run(other).thinned()


def test_what_is_kept_is_what_the_frames_come_to(folder: Path) -> None:
    assert kept._kept(folder, blocks(folder)).of["activations"].count == 30_000
    assert open_run(folder).thinned().activations.equals(through_all(folder).activations)
    assert open_run(folder).thinned().losses.equals(through_all(folder).losses)


def blocks(folder: Path) -> dict[str, list[Block]]:
    return nndiag.stored.read(folder).blocks


def test_a_reader_goes_on_from_what_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nndiag.journal.OFTEN", 1 << 20)
    recorder = Recorder(tmp_path / "run", every=1)
    filled(recorder._journal, noisy(30_000))

    before = kept._kept(tmp_path / "run", blocks(tmp_path / "run")).of["activations"].count
    run = open_run(tmp_path / "run")

    assert 10_000 < before < 30_000
    assert run.thinned().activations.equals(through_all(tmp_path / "run").activations)
    assert run.thinned().activations.equals(recorder.run.thinned().activations)
    recorder.close()


def test_a_resumed_run_goes_on_from_what_is_kept(folder: Path) -> None:
    recorder = Recorder(folder, every=1, resume=True)
    more = noisy(5000, seed=1)
    more[:, 0] += 30_000
    filled(recorder._journal, more)

    live = recorder.run.thinned()
    recorder.close()

    assert recorder.step_number == 30_000
    assert live.activations.equals(open_run(folder).thinned().activations)
    assert live.activations.equals(through_all(folder).activations)


def rewritten(change: Callable[[dict], None]) -> Callable[[Path], None]:  # type: ignore[type-arg]
    def rewrite(folder: Path) -> None:
        file = folder / "thinned/state.json"
        state = json.loads(file.read_text())
        change(state)
        file.write_text(json.dumps(state))

    return rewrite


def other_rows(folder: Path) -> None:
    rows = np.fromfile(folder / "frames/activations-0.f64").reshape(-1, 1 + len(COLUMNS))
    rows[:, 1] *= 1.5
    rows.tofile(folder / "frames/activations-0.f64")


def fewer_rows(folder: Path) -> None:
    file = folder / "frames/activations-0.f64"
    file.write_bytes(file.read_bytes()[: 20_000 * 8 * (1 + len(COLUMNS))])


def garbage(folder: Path) -> None:
    for file in (folder / "thinned").glob("activations-*.f64"):
        file.write_bytes(b"\xff" * file.stat().st_size)


def pipe(folder: Path) -> None:
    (folder / "thinned/state.json").unlink()
    os.mkfifo(folder / "thinned/state.json")


@pytest.mark.parametrize(
    "spoil",
    [
        other_rows,
        pipe,
        fewer_rows,
        garbage,
        lambda folder: (folder / "thinned/state.json").write_text("{"),
        lambda folder: (folder / "thinned/state.json").write_text("[" * 100_000),
        lambda folder: [file.unlink() for file in (folder / "thinned").glob("*.f64")],
        lambda folder: [file.write_bytes(file.read_bytes()[:-8]) for file in (folder / "thinned").glob("*.f64")],
        rewritten(lambda state: state.update(format=99)),
        rewritten(lambda state: state["frames"].update(elsewhere=state["frames"]["losses"])),
        rewritten(lambda state: state["frames"]["losses"].update(count=-1)),
        rewritten(lambda state: state["frames"]["losses"].update(count=10**30)),
        rewritten(lambda state: state["frames"]["activations"].update(level=10**9)),
        rewritten(lambda state: state["frames"]["activations"].update(ends=[[0]])),
        rewritten(lambda state: state["frames"]["activations"].update(kinds=["../x"])),
        rewritten(lambda state: state["frames"]["activations"].update(weights=[None])),
        rewritten(lambda state: state["frames"]["activations"]["columns"].reverse()),
    ],
)
def test_what_does_not_fit_the_frames_is_passed_over(folder: Path, spoil: Callable[[Path], object]) -> None:
    spoil(folder)

    run = open_run(folder).thinned()

    assert run.activations.equals(through_all(folder).activations)
    assert run.losses.equals(through_all(folder).losses)


def test_a_reader_writes_nothing(folder: Path) -> None:
    shutil.rmtree(folder / "thinned")

    Checklist().examine(open_run(folder))

    assert not (folder / "thinned").exists()


def test_a_short_run_keeps_nothing_beside_its_frames(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "run", every=1)
    filled(recorder._journal, noisy(3000))
    recorder.close()

    assert not (tmp_path / "run/thinned").exists()


def test_nothing_is_kept_in_a_folder_that_stands_where_the_run_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nndiag.journal.LITTLE", 0)
    recorder = Recorder(tmp_path / "run", every=1)
    filled(recorder._journal, noisy(3000))
    (tmp_path / "run").rename(tmp_path / "moved")
    (tmp_path / "run").mkdir()

    recorder.close()

    assert list((tmp_path / "run").iterdir()) == []
    assert len(open_run(tmp_path / "moved").activations) == 3000


def test_a_fault_in_thinning_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object) -> None:
        raise ZeroDivisionError

    recorder = Recorder(tmp_path / "run", every=1)
    filled(recorder._journal, noisy(3000))
    monkeypatch.setattr(Thinning, "add", fails)
    more = noisy(6000)
    more[:, 0] += 3000
    filled(recorder._journal, more)

    assert caplog.text.count("rows are no longer thinned as they come; training goes on") == 1
    assert len(recorder.run.activations) == 9000
    assert recorder.run.thinned().activations.index[-1] == 8999
    recorder.close()
    assert len(open_run(tmp_path / "run").activations) == 9000


def test_a_strict_recorder_lets_a_fault_in_thinning_through(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Thinning, "add", fails)

    with pytest.raises(ZeroDivisionError):
        filled(Recorder(every=1, strict=True)._journal, noisy(100))


def test_what_cannot_be_kept_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nndiag.journal.LITTLE", 0)
    monkeypatch.setattr("nndiag.kept.save", full)
    recorder = Recorder(tmp_path / "run", every=1)
    filled(recorder._journal, noisy(9000))
    recorder.close()

    assert len(open_run(tmp_path / "run").activations) == 9000


# Verdicts


def test_live_and_offline_verdicts_on_the_same_reads_agree(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    recorder = Recorder(tmp_path / "run", every=1)
    live = {}
    for step in range(7001):
        if step % 500 == 0:
            recorder.log(validation_loss=float(rng.random()))
        if step % 2000 == 1000:
            live[step] = recorder.check()
        recorder.activation("h1", rng.standard_normal((4, 2)))
        recorder.gradient("h1.weight", rng.standard_normal((2, 2)) * (100 if step == 4321 else 1))
        recorder.log(loss=float(2.3 * np.exp(-step / 2000) + 0.1 * rng.random()), lr=0.1)
        recorder.step()
    recorder.close()
    live[7001] = recorder.check()

    offline = {step: Checklist().examine(open_run(tmp_path / "run").until(step)) for step in live}

    for step, report in live.items():
        assert report.checks == offline[step].checks
        assert report.findings == offline[step].findings
        assert (report.steps, report.reads) == (offline[step].steps, offline[step].reads)


def test_the_verdict_of_a_long_run_is_that_of_a_short_one() -> None:
    def verdicts(steps: int) -> dict[str, str]:
        rng = np.random.default_rng(0)
        t = np.arange(steps) / steps
        norm = np.exp(0.2 * rng.standard_normal(steps)) * np.where((t > 0.5) & (t < 0.52), 200, 1)
        train = (0.2 + 2.1 * np.exp(-5 * t)) * (1 + 0.02 * rng.standard_normal(steps))
        evaluations = {i * steps // 100: 0.4 + max(0.0, i / 100 - 0.3) for i in range(1, 100)}
        run = synthetic.run(steps=steps, train=train, validation=evaluations, gradients={"norm": {"w": norm}},
                            data={"entropy": {"target": 2.3}}, epoch=np.arange(steps) * 10 // steps,
                            **synthetic.CLASSES)  # fmt: skip
        return {check.code: check.verdict for check in Checklist(ignore="ND604").examine(run).checks}

    assert verdicts(2000) == verdicts(40_000)
    assert verdicts(2000)["ND402"] == verdicts(2000)["ND701"] == "warn"


def test_a_thinning_goes_on_by_itself_after_a_copy() -> None:
    rows = noisy(9000)
    thinning = Thinning()
    thinning.add({"activations": blocks_of(rows[:6000])})
    other = thinning.copy()
    thinning.add({"activations": blocks_of(rows[6000:])})

    assert other.tables()["activations"].last == 5999
    assert thinning.tables()["activations"].last == 8999


class Name(str):
    """A name that counts how often it is looked up."""

    looked_up = 0

    def __hash__(self) -> int:
        Name.looked_up += 1
        return super().__hash__()


@pytest.mark.parametrize("columns", [100, 1_000])
def test_a_column_that_comes_late_costs_as_many_lookups_as_there_are_columns(columns: int) -> None:
    first = tuple((Name("mean"), Name(f"layer{i}")) for i in range(columns))
    thinner = Thinner(100)
    thinner.add(first, np.arange(3), np.ones((3, columns)))
    late = (*first, (Name("mean"), Name("late")))
    Name.looked_up = 0
    thinner.add(late, np.array([3]), np.ones((1, columns + 1)))

    assert thinner.columns == late
    assert Name.looked_up < 50 * columns
