"""The command line, as a user calls it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import nndiag
from nndiag import nn
from nndiag.catalogue import catalogue
from nndiag.cli import main
from nndiag.demo import FAULTS


@pytest.fixture
def sound(tmp_path: Path, trainer: nn.Trainer) -> Path:
    """The folder of a run without findings: as `data`, with enough samples not to be learned by heart."""
    y = np.arange(384) % 3
    x = np.random.default_rng(0).standard_normal((384, 8)) + 2.0 * np.eye(3, 8)[y]
    with nndiag.watch(trainer, run=tmp_path / "sound", every=1) as recorder:
        trainer.fit(x[96:], y[96:], validation=(x[:96], y[:96]), epochs=8, batch_size=16)
    assert recorder.path is not None
    return recorder.path


@pytest.fixture
def sick(tmp_path: Path, data: tuple) -> Path:  # type: ignore[type-arg]
    """The folder of a run that fails: a NaN among the inputs."""
    x, y = data[0].copy(), data[1]
    x[3, 3] = np.nan
    trainer = nn.Trainer(nn.MLP([8, 4, 3]), nn.SoftmaxCrossEntropy(), nn.SGD(0.1))
    with nndiag.watch(trainer, run=tmp_path / "sick", every=1) as recorder:
        trainer.fit(x, y, epochs=2)
    assert recorder.path is not None
    return recorder.path


@pytest.fixture
def warned(tmp_path: Path) -> Path:
    """The folder of a run that warns: ND002 with a loss that still falls."""
    rng = np.random.default_rng(0)
    with nndiag.Recorder(tmp_path / "warned", every=1) as recorder:
        for step in range(60):
            recorder.data(rng.normal(1000, 1, (32, 2)))
            recorder.log(loss=1 / (step + 1))
            recorder.step()
    return tmp_path / "warned"


def test_a_sound_run_exits_with_0(sound: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(sound)]) == 0
    assert capsys.readouterr().out.startswith("PASS  sound: 144 steps, completed")


def test_a_sick_run_exits_with_1(sick: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(sick)]) == 1
    assert "\nND001 nonfinite-input: " in capsys.readouterr().out


def test_a_warning_fails_only_on_request(warned: Path) -> None:
    assert main(["check", str(warned)]) == 0
    assert main(["check", str(warned), "--fail-on", "warn"]) == 1


def test_of_several_runs_the_worst_code_counts(
    sound: Path, sick: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(sound), str(sick)]) == 1
    assert main(["check", str(sick), str(tmp_path / "nowhere"), str(sound)]) == 2
    captured = capsys.readouterr()
    assert captured.out.count("The six points") == 4
    assert captured.err.count("\n") == 1


def test_json_of_one_run_is_a_report_and_of_two_a_list(
    sound: Path, sick: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["check", str(sick), "--format", "json"])
    assert json.loads(capsys.readouterr().out)["headlines"] == ["ND001"]

    main(["check", str(sound), str(sick), "--format", "json"])
    assert [report["verdict"] for report in json.loads(capsys.readouterr().out)] == ["pass", "fail"]


def test_brief_is_the_beginning_of_the_text(sound: Path, sick: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["check", str(sick)])
    whole = capsys.readouterr().out
    assert main(["check", str(sick), "--format", "brief"]) == 1
    brief = capsys.readouterr().out.rstrip("\n")

    assert whole.startswith(f"{brief}\n\n  ")
    assert "ND001 nonfinite-input" in brief
    assert "fix:" in brief
    assert "PASS " not in brief
    assert main(["check", str(sound), "--format", "brief"]) == 0
    assert capsys.readouterr().out.count("\n") == 1


def test_select_and_ignore(sick: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(sick), "--select", "ND2,overfitting", "--select", "ND001", "--ignore", "ND001"]) == 0

    out = capsys.readouterr().out
    assert "ND202" in out
    assert "nonfinite-input" not in out


def test_nothing_that_can_be_checked_exits_with_2(sound: Path) -> None:
    assert main(["check", str(sound), "--select", "NDP"]) == 2


def test_the_report_goes_into_a_file(sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(sound), "-o", str(tmp_path / "report.md")]) == 0

    assert (tmp_path / "report.md").read_text().startswith("# PASS: sound")
    assert capsys.readouterr().out == ""


def test_export_to_tensorboard_and_csv(sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(sound), "--tensorboard", str(tmp_path / "tb"), "--csv", str(tmp_path / "csv")]) == 0
    assert main(["export", str(sound), "--tensorboard", str(tmp_path / "tb")]) == 0

    assert sorted(path.name for path in (tmp_path / "tb").iterdir()) == ["sound", "sound-2"]
    assert len(list((tmp_path / "tb/sound/train").iterdir())) == 1
    assert (tmp_path / "csv/losses.csv").exists()
    assert "tensorboard --logdir" in capsys.readouterr().out


def test_checks_lists_the_whole_catalogue(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["checks"]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(catalogue())


@pytest.mark.parametrize("word", ["ND401", "vanishing-gradients"])
def test_explain_prints_the_page(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", word]) == 0

    out = capsys.readouterr().out
    assert out.startswith("ND401 vanishing-gradients (training)\n\nGradients shrink")
    assert "Thresholds: ratio = 0.001, window = 50" in out


def test_the_list_of_faults(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--fault", "list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(FAULTS)


def spoil_truncated(run: Path) -> None:
    (run / "run.json").write_text((run / "run.json").read_text()[:100])


def spoil_emptied(run: Path) -> None:
    for file in (run / "frames").iterdir():
        file.unlink()


BAD: dict[str, tuple[Callable[[Path], object], list[str], str]] = {
    "missing folder": (lambda run: None, ["check", "nowhere"], "no such folder"),
    "not a run": (lambda run: (run.parent / "x").mkdir(), ["check", "x"], "has no run.json"),
    "a file": (lambda run: (run.parent / "f").touch(), ["report", "f"], "it is a file"),
    "truncated": (spoil_truncated, ["check", "sound"], "no JSON"),
    "truncated for export": (spoil_truncated, ["export", "sound", "--csv", "c"], "no JSON"),
    "unknown code": (lambda run: None, ["explain", "ND999"], "no check is called 'ND999'"),
    "unknown selection": (lambda run: None, ["check", "sound", "--select", "XY"], "no check is called 'XY'"),
    "no destination": (lambda run: None, ["export", "sound"], "--tensorboard DIR, --parquet DIR or --csv DIR"),
    "unwritable output": (lambda run: None, ["report", "sound", "-o", "no/where/r.md"], "No such file or directory"),
    "output is a folder": (lambda run: (run.parent / "d").mkdir(), ["report", "sound", "-o", "d"], "Is a directory"),
    "unwritable csv": (lambda run: (run.parent / "f").touch(), ["export", "sound", "--csv", "f/c"], "cannot make"),
    "unwritable log": (
        lambda run: (run.parent / "f").touch(),
        ["export", "sound", "--tensorboard", "f/t"],
        "cannot make",
    ),
    "unwritable demo": (lambda run: (run.parent / "f").touch(), ["demo", "--out", "f/d"], "cannot make the folder"),
    "unknown fault": (
        lambda run: None,
        ["demo", "--fault", "gremlins"],
        "no fault is called 'gremlins'; there are lr-too",
    ),
}


@pytest.mark.parametrize(("spoil", "arguments", "words"), BAD.values(), ids=BAD)
def test_bad_input_gives_one_clear_line_and_2(
    spoil: Callable[[Path], object], arguments: list[str], words: str, sound: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(sound.parent)
    spoil(sound)

    assert main(arguments) == 2

    captured = capsys.readouterr()
    assert captured.err.startswith("nndiag: ")
    assert captured.err.count("\n") == 1
    assert words in captured.err
    assert captured.out == ""


def test_a_run_that_has_lost_rows_is_not_passed(sound: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(sound)]) == 0
    next((sound / "frames").glob("losses*.f64")).unlink()

    assert main(["check", str(sound)]) == 2
    assert "rows of this run are lost" in capsys.readouterr().out


def test_a_report_is_a_page_of_html_where_the_file_is_one(sick: Path, tmp_path: Path) -> None:
    assert main(["report", str(sick), "-o", str(tmp_path / "r.html")]) == 0
    assert main(["check", str(sick), "--format", "html", "-o", str(tmp_path / "c.html")]) == 1

    page = (tmp_path / "r.html").read_text()
    assert page == (tmp_path / "c.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "<li>fix: " in page
    assert "ND001 nonfinite-input" in page


def test_an_empty_run_cannot_be_judged(sound: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoil_emptied(sound)

    assert main(["check", str(sound)]) == 2
    assert main(["export", str(sound), "--tensorboard", str(sound.parent / "tb")]) == 0
    assert "not one check could be made" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [[], ["cure"], ["check"], ["demo", "--epochs", "0"], ["demo", "--seed", "-1"], ["demo", "--epochs", "many"],
     ["check", "x", "--format", "xml"], ["check", "x", "--fail-on", "pass"]],
)  # fmt: skip
def test_a_wrong_command_line_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        main(arguments)

    assert exit.value.code == 2
    assert "usage: nndiag" in capsys.readouterr().err


def nndiag_command(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    import os

    return subprocess.run([sys.executable, "-m", "nndiag", *arguments], cwd=cwd, capture_output=True, text=True, check=False,
                          env={**os.environ, **environment})  # fmt: skip


def test_the_demo_ends_without_findings_and_says_where_everything_lies(tmp_path: Path) -> None:
    result = nndiag_command("demo", cwd=tmp_path)

    assert result.returncode == 0
    assert result.stdout.startswith("PASS  demo: 460 steps, completed; healthy")
    assert "run folder           runs/demo " in result.stdout
    assert "tensorboard --logdir runs/demo/tensorboard" in result.stdout
    accuracy = float(result.stdout.split("validation accuracy")[1].split()[0])
    assert accuracy >= 0.95
    assert "460/460" in result.stderr
    assert "Traceback" not in result.stderr
    assert len(list((tmp_path / "runs/demo/tensorboard/train").iterdir())) == 1


def test_a_faulty_demo_exits_with_1_and_its_cause(tmp_path: Path) -> None:
    result = nndiag_command(
        "demo", "--fault", "nan-input", "--out", "x", "--no-probes", "--epochs", "3", "--seed", "5", cwd=tmp_path
    )

    assert result.returncode == 1
    assert "\nND001 nonfinite-input: " in result.stdout
    assert nndiag_command("check", "x", cwd=tmp_path).stdout.splitlines()[2].startswith("ND001")


def test_no_colour_in_a_pipe(sick: Path, tmp_path: Path) -> None:
    assert "\x1b" not in nndiag_command("check", str(sick), cwd=tmp_path).stdout


def test_a_closed_pipe_is_no_traceback(sound: Path, tmp_path: Path) -> None:
    script = f'"{sys.executable}" -m nndiag check "{sound}" "{sound}" | head -n 1'
    result = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)

    assert result.stdout.startswith("PASS")
    assert "Traceback" not in result.stderr


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        main(["--version"])

    assert exit.value.code == 0
    assert capsys.readouterr().out == f"nndiag {nndiag.__version__}\n"


def test_a_name_in_a_run_cannot_lead_out_of_the_log_directory(sound: Path, tmp_path: Path) -> None:
    meta = json.loads((sound / "run.json").read_text())
    (sound / "run.json").write_text(json.dumps(meta | {"name": str(tmp_path / "escaped")}))

    assert main(["export", str(sound), "--tensorboard", str(tmp_path / "tb")]) == 0

    assert not (tmp_path / "escaped").exists()
    assert (tmp_path / "tb/sound/train").is_dir()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_what_the_terminal_cannot_write_is_escaped(encoding: str) -> None:
    told = subprocess.run(
        [sys.executable, "-m", "nndiag", "explain", "ND401"], capture_output=True, check=False,
        env=os.environ | {"PYTHONIOENCODING": encoding},
    )  # fmt: skip

    assert told.returncode == 0
    assert b"\\u03b4" in told.stdout
    assert not told.stderr


@pytest.mark.parametrize(("command", "code"), [(["check"], 1), (["report"], 0)])
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_verdict_stands_with_nobody_to_read_it(command: list[str], code: int, closed: str, sick: Path) -> None:
    line = [sys.executable, "-m", "nndiag", *command, str(sick)]
    told = subprocess.run(["sh", "-c", f'"$@" {closed}', "sh", *line], capture_output=True, check=False)

    assert told.returncode == code
    assert not told.stderr
