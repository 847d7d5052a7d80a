"""A run folder that somebody has made to do harm: a clear error or an escaped string; no code, no hang, no gigabytes."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import children
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import nndiag
from nndiag import Checklist, Recorder, Run, RunError, open_run
from nndiag.cli import main
from nndiag.frames import FRAMES

MEMORY = 700 * 2**20
"""Bytes that opening and judging a folder may take beyond what the process has."""

Spoil = Callable[[Path], object]


@pytest.fixture
def folder(run_files: dict[str, bytes], tmp_path: Path) -> Path:
    """A run folder of a few steps, with every frame."""
    return put(run_files, tmp_path / "run")


@pytest.fixture(scope="module")
def run_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of `folder`, by name."""
    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("valid") / "run"
    y = np.arange(48) % 3
    x = (rng.standard_normal((48, 8)) + 2.0 * np.eye(3, 8)[y]).astype(np.float32)
    trainer = nndiag.nn.Trainer(nndiag.nn.MLP([8, 6, 3]), nndiag.nn.SoftmaxCrossEntropy(), nndiag.nn.SGD(0.1))
    with nndiag.watch(trainer, run=path, every=1):
        trainer.fit(x, y, validation=(x[:20], y[:20]), epochs=10, batch_size=16)
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def put(files: dict[str, bytes], path: Path) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def judged(path: Path) -> str:
    """The report on the run in the folder `path`, in all its forms, or the error."""
    try:
        run = open_run(path)
    except RunError as fault:
        return f"RunError: {fault}"
    report = Checklist().examine(run)
    assert not [check for check in report.checks if "the check itself failed" in check.reason]
    for frame in FRAMES:
        run.tidy(frame)
    return "\n".join([str(report), report.to_markdown(), report.to_json(), report._repr_html_(), repr(run)])


def told(path: Path, **changes: Any) -> None:
    """Make run.json say `changes`."""
    data = json.loads((path / "run.json").read_text())
    (path / "run.json").write_text(json.dumps(data | changes))


def columns(path: Path, names: list[Any]) -> None:
    (path / "frames/losses-0.json").write_text(json.dumps({"columns": names}))


def rows(path: Path, values: Any) -> None:
    np.asarray(values, "<f8").tofile(path / "frames/losses-0.f64")
    told(path, rows={})


def sparse(path: Path) -> None:
    """Ten gigabytes that take no room on the disk, and whose last row looks right."""
    with (path / "frames/losses-0.f64").open("r+b") as file:
        file.truncate(10**10)
        file.seek(10**10 - 32)
        file.write(np.float64(2**40).tobytes())


def replaced(name: str, by: Callable[[Path], object]) -> Spoil:
    def spoil(path: Path) -> None:
        file = path / name
        shutil.rmtree(file) if file.is_dir() else file.unlink()
        by(file)

    return spoil


ERRORS: dict[str, tuple[Spoil, str]] = {
    "format true": (lambda path: told(path, format=True), "run format True"),
    "format 0": (lambda path: told(path, format=0), "run format 0"),
    "huge format": (lambda path: told(path, format=10**4000), "upgrade nndiag"),
    "format text": (lambda path: told(path, format="2"), "run format '2'"),
    "deep JSON": (lambda path: (path / "run.json").write_text('{"format":2,"loss":' + "[" * 10**6), "recursion"),
    "nested JSON": (lambda path: told(path, format=2, loss=json.loads("[" * 100 + "]" * 100)), "32 levels deep"),
    "large JSON": (lambda path: os.truncate(path / "run.json", 10**10), "10000000000 bytes"),
    "large schema": (lambda path: os.truncate(path / "frames/losses-0.json", 10**10), "10000000000 bytes"),
    "rows of another folder": (lambda path: told(path, rows={"../../etc/passwd-0": 3}), "wanted numbers by file"),
    "negative rows": (lambda path: told(path, rows={"losses-0": -3}), "wanted numbers by file"),
    "rows that are a list": (lambda path: told(path, rows=[1]), "wanted numbers by file"),
    "infinite shape": (lambda path: told(path, layers=[{"name": "a", "shape": [float("inf")]}]), "not describe a run"),
    "shape of text": (lambda path: told(path, layers=[{"name": "a", "shape": "abc"}]), "not describe a run"),
    "kind of a number": (lambda path: told(path, layers=[{"name": "a", "kind": 3}]), "wrong type"),
    "batch size of text": (lambda path: told(path, batch_size="many"), "'batch_size' has the wrong type"),
    "faults of numbers": (lambda path: told(path, faults=[3]), "'faults' has the wrong type"),
    "first_nonfinite": (lambda path: told(path, first_nonfinite={"step": "x"}), "'first_nonfinite' has the wrong"),
    "probes": (lambda path: told(path, probes={"NDP01": 3}), "'probes' has the wrong type"),
    "went_back": (lambda path: told(path, went_back=[{"from": 3}]), "'went_back' has the wrong type"),
    "a column of numbers": (lambda path: columns(path, [[1, 2]]), "is no column"),
    "a long column": (lambda path: columns(path, ["x" * 10**6]), "is no column"),
    "steps NaN": (lambda path: rows(path, np.full((9, 4), np.nan)), "does not begin with a step"),
    "steps negative": (lambda path: rows(path, np.full((9, 4), -1.0)), "does not begin with a step"),
    "steps infinite": (lambda path: rows(path, np.full((9, 4), np.inf)), "does not begin with a step"),
    "a pipe for run.json": (replaced("run.json", os.mkfifo), "is no regular file"),
    "a pipe for columns": (replaced("frames/losses-0.json", os.mkfifo), "is no regular file"),
    "a pipe for rows": (replaced("frames/losses-0.f64", os.mkfifo), "is no regular file"),
    "a folder for run.json": (replaced("run.json", Path.mkdir), "Is a directory"),
    "a folder for rows": (replaced("frames/losses-0.f64", Path.mkdir), "Is a directory"),
    "a device for rows": (replaced("frames/losses-0.f64", lambda file: file.symlink_to("/dev/zero")), "no regular file"),
    "a link to itself": (replaced("frames/losses-0.f64", lambda file: file.symlink_to(file)), "cannot read"),
    "frames that link to themselves": (replaced("frames", lambda file: file.symlink_to(file)), "cannot read"),
}  # fmt: skip
"""What is refused, and a word of the error."""

ODD: dict[str, Spoil] = {
    "ten gigabytes": sparse,
    "a pipe for the lock": lambda path: (replaced(".lock", os.mkfifo)(path), told(path, ended="running")),
    "a pipe for frames": replaced("frames", os.mkfifo),
    "a file for frames": replaced("frames", Path.touch),
    "steps that fall": lambda path: rows(path, np.arange(40)[::-1].reshape(10, 4)),
    "steps that stand": lambda path: rows(path, np.ones((10, 4))),
    "steps of half": lambda path: rows(path, np.arange(40).reshape(10, 4) / 8),
    "a last step beyond all bounds": lambda path: rows(path, [[0, 0, 1, 1], [2**52, 0, 1, 1]]),
    "values beyond all bounds": lambda path: rows(path, [[step, 1e300, np.inf, -1e300] for step in range(50)]),
    "a column twice": lambda path: columns(path, [["train", ""]] * 3),
    "another frame's columns": lambda path: columns(path, [["train", ""], ["train", "h1"], ["mean", "h1"]]),
    "an empty name": lambda path: columns(path, [["", ""], ["", "\0"], ["train", ""]]),
    "two thousand columns": lambda path: (
        columns(path, [["train", str(i)] for i in range(2000)]),
        rows(path, np.arange(30)[:, None] * np.ones((30, 2001))),
    ),
    "a hundred thousand columns and no row": lambda path: columns(path, [["train", str(i)] for i in range(100_000)]),
    "ten thousand layers": lambda path: told(path, layers=[{"name": f"h{i}"} for i in range(10_000)]),
    "ten thousand lost files": lambda path: told(path, rows={f"losses-{i}": 10 for i in range(10_000)}),
    "a million lists": lambda path: told(path, extra=[[]] * 10**6),
    "a name that is a path": lambda path: told(path, name="../../../etc/passwd"),
    "rows without columns": lambda path: (path / "frames/losses-0.json").unlink(),
    "columns without rows": lambda path: (path / "frames/losses-0.f64").unlink(),
}
"""What opens all the same, at worst with less in it."""


@pytest.mark.parametrize("name", ERRORS)
def test_is_refused_with_a_short_reason(name: str, folder: Path) -> None:
    spoil, words = ERRORS[name]
    spoil(folder)

    with pytest.raises(RunError, match=words) as fault:
        open_run(folder)

    assert len(str(fault.value)) < 500


@pytest.mark.parametrize("name", ODD)
def test_gives_a_report_in_bounded_memory(name: str, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ODD[name](folder)

    def judge() -> str:
        with Path("/proc/self/statm").open() as file:
            held = int(file.read().split()[5]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_DATA, (held + MEMORY, held + MEMORY))
        return judged(folder)[:300]

    assert not children.result(judge).startswith("RunError")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    | st.sampled_from([10**400, "<script>", "\x1b[31m", "\ud800", "../../x", 2**63, -1]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)  # fmt: skip
FLOATS = st.floats() | st.sampled_from([2.0**53, 2.0**52, 1e300, -1.0, 0.5])


def mutated(draw: st.DrawFn, files: dict[str, bytes], path: Path) -> None:
    """Change, cut, remove or replace one file below `path`, within what it means or without regard to it."""
    name = draw(st.sampled_from(sorted(files)))
    file, kind = (
        path / name,
        draw(st.sampled_from(["value", "value", "value", "bytes", "cut", "gone", "pipe", "folder"])),
    )
    shutil.rmtree(file) if file.is_dir() else file.unlink(missing_ok=True)
    if kind == "value" and name.endswith(".json"):
        file.write_text(json.dumps(altered(draw, json.loads(files[name]))))
    elif kind == "value" and name.endswith(".f64"):
        values = np.frombuffer(files[name]).copy()
        for place in draw(st.lists(st.integers(0, len(values) - 1), min_size=1, max_size=5)):
            values[place] = draw(FLOATS)
        file.write_bytes(values.tobytes())
    elif kind == "bytes":
        place = draw(st.integers(0, len(files[name])))
        file.write_bytes(files[name][:place] + draw(st.binary(max_size=20)) + files[name][place:])
    elif kind == "cut":
        file.write_bytes(files[name][: draw(st.integers(0, len(files[name])))])
    elif kind != "gone":
        {"pipe": os.mkfifo, "folder": Path.mkdir}.get(kind, Path.touch)(file)


def altered(draw: st.DrawFn, data: Any) -> Any:
    """`data` with something else in one place."""
    if not isinstance(data, dict | list) or not data or draw(st.integers(0, 5)) == 0:
        return draw(JSON)
    place = draw(st.sampled_from(sorted(data) if isinstance(data, dict) else range(len(data))))
    data[place] = altered(draw, data[place])
    return data


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(source=st.data())
def test_any_change_gives_a_report_or_an_error(
    source: st.DataObject, run_files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = put(run_files, tmp_path_factory.mktemp("fuzz") / "run")
    for _ in range(source.draw(st.sampled_from([1, 1, 1, 3]))):
        source.draw(st.composite(lambda draw: mutated(draw, run_files, path))())

    assert judged(path)
    shutil.rmtree(path)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(source=st.data())
def test_any_change_opens_or_is_refused_and_resumes_or_is_refused(
    source: st.DataObject, run_files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = put(run_files, tmp_path_factory.mktemp("fuzz") / "run")
    source.draw(st.composite(lambda draw: mutated(draw, run_files, path))())

    try:
        assert isinstance(open_run(path), Run)
        with Recorder(path, resume=True) as recorder:
            recorder.log(loss=1.0)
            recorder.step()
        assert open_run(recorder.path or path).train.iloc[-1] == 1.0
    except RunError:
        pass
    shutil.rmtree(path)


def test_resuming_writes_nowhere_outside(folder: Path, tmp_path: Path) -> None:
    (folder / "frames").rename(tmp_path / "elsewhere")
    (folder / "frames").symlink_to(tmp_path / "elsewhere")
    before = {file: file.read_bytes() for file in (tmp_path / "elsewhere").iterdir()}

    with pytest.raises(RunError, match="cannot resume"):
        Recorder(folder, resume=True)

    assert {file: file.read_bytes() for file in (tmp_path / "elsewhere").iterdir()} == before


def test_resuming_leaves_what_a_link_leads_to_alone(folder: Path, tmp_path: Path) -> None:
    file = folder / "frames/losses-0.f64"
    file.rename(tmp_path / "theirs")
    file.symlink_to(tmp_path / "theirs")
    before = (tmp_path / "theirs").read_bytes()

    with Recorder(folder, every=1, resume=True) as recorder:
        recorder.log(loss=7.0)
        recorder.step()

    assert (tmp_path / "theirs").read_bytes() == before
    assert open_run(folder).train.tolist()[-1] == 7.0


NAMES = [
    "<script>alert(1)</script>",
    "\x1b[31mred",
    "a\nb",
    "| a | b |",
    "$\\frac{x",
    "../../x",
    "=1+1",
    "\ud800",
    "`x` *y*",
    "&amp;",
]


@pytest.fixture
def named(tmp_path: Path) -> Path:
    """A run whose layers have names that mean something elsewhere, with findings that name them."""
    with Recorder(tmp_path / "named", every=1) as recorder:
        recorder.describe(layers=[{"name": name, "kind": "relu"} for name in NAMES])
        for _ in range(60):
            for name in NAMES:
                recorder.activation(name, np.zeros((4, 3)))
                recorder.activation_gradient(name, np.full((4, 3), np.nan))
                recorder.gradient(f"{name}.weight", np.full((3, 3), np.nan))
            recorder.log(loss=1.0)
            recorder.step()
    told(
        tmp_path / "named", name="<b>\x1b[31mrun", faults=[{"part": "<i>\x1b", "event": "<i>\x1b", "error": "<i>\x1b"}]
    )
    return tmp_path / "named"


def test_names_are_escaped_wherever_they_are_shown(named: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = Checklist().examine(open_run(named))
    shown = {"text": str(report), "markdown": report.to_markdown(), "html": report._repr_html_(), "repr": repr(report)}

    assert "<script>" in report.to_json()
    assert "script" in shown["text"]
    assert not [style for style, text in shown.items() if any(c in text for c in "\x1b\ud800")]
    assert not [s for s in ("<script>", "<b>\\x1b", "<i>") if s in shown["markdown"] or s in shown["html"]]
    assert main(["check", str(named)]) == 1
    assert "\x1b" not in capsys.readouterr().out


def test_names_do_no_harm_in_plots_and_exports(named: Path, tmp_path: Path) -> None:
    run = open_run(named)
    axes = [nndiag.plots.layers(run, "activations", "mean"), nndiag.plots.heatmap(run, "activations", "mean")]
    for ax in axes:
        ax.figure.canvas.draw()  # type: ignore[union-attr]

    run.to_csv(tmp_path / "csv")
    assert main(["export", str(named), "--tensorboard", str(tmp_path / "tb")]) == 0

    assert {file.name for file in tmp_path.iterdir()} == {"named", "csv", "tb"}
    assert "\\ud800" in (tmp_path / "csv/activations.csv").read_text()


def test_an_error_that_names_a_hostile_path_is_escaped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path / "\x1b[31m")]) == 2
    assert "\x1b" not in capsys.readouterr().err


def test_nothing_is_unpickled_or_evaluated(folder: Path) -> None:
    (folder / "frames/histograms-0.json").write_text("cos\nsystem\n(S'echo'\ntR.")
    with pytest.raises(RunError, match="no JSON"):
        open_run(folder)
    sources = [file.read_text() for file in Path(nndiag.__file__).parent.rglob("*.py")]
    assert not [text for text in sources if "pickle.load" in text or re.search(r"(?<![\w.])(eval|exec)\(", text)]
