"""The report in all its forms."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser

import pytest

from nndiag import Checklist, Report, Verdict, synthetic
from nndiag.checks import DeadAtStart, VanishingGradients
from nndiag.report import POINTS, SCHEMA
from nndiag.run import Run
from nndiag.table import Table

EVIL = "<script>alert(1)</script> | `x` \x1b[31m \n [a](javascript:b) *b*"


@pytest.fixture
def sick() -> Report:
    return Checklist().examine(VanishingGradients.sick())


def evil() -> Report:
    run = DeadAtStart.sick()
    layers = [
        {"name": EVIL if layer.kind == "relu" else layer.name, "kind": layer.kind, "shape": layer.shape}
        for layer in run.meta.layers
    ]
    dead = {"h1": 0.0, EVIL: 1.0, "output": 0.0}
    return Checklist().examine(
        synthetic.run(steps=1, activations={"dead_fraction": dead, "mean": dead}, layers=layers, name=EVIL)
    )


def test_verdict_and_headline_come_first_and_the_six_points_last(sick: Report) -> None:
    lines = str(sick).splitlines()

    assert lines[0].startswith("WARN")
    assert lines[2].startswith("ND401 vanishing-gradients: ")
    assert lines[-7:][0] == "The six points"
    assert [line.split(".")[0].strip() for line in lines[-6:]] == list("123456")


def test_one_line_for_each_check(sick: Report) -> None:
    text = str(sick)

    for check in sick.checks:
        assert f"{check.code}" in text
        assert check.reason in text


def test_a_report_without_one_check_made_is_not_checked() -> None:
    report = Checklist(select="ND4").examine(Run())

    assert report.verdict is Verdict.NOT_CHECKED
    assert "not one check could be made" in str(report)


def test_every_point_names_checks_that_exist() -> None:
    codes = {check.code for check in Checklist().checks}

    assert all(set(answers) <= codes for answers in POINTS.values())
    assert len(POINTS) == 6


def test_json_keeps_the_schema(sick: Report) -> None:
    data = json.loads(sick.to_json())

    assert data["schema"] == SCHEMA == "nndiag.report/1"
    assert set(data) == {"schema", "run", "verdict", "headlines", "counts", "checks", "findings"}
    assert data["verdict"] == "warn"
    assert data["headlines"] == ["ND401"]
    assert data["counts"]["warn"] == 1
    assert set(data["checks"][0]) == {"code", "name", "kind", "verdict", "reason", "notes"}
    assert set(data["findings"][0]) == {"code", "name", "verdict", "layer", "parameter", "first_step", "last_step", "value",
                                        "threshold", "message", "causes", "fix", "confirm", "consequence_of"}  # fmt: skip


def test_json_has_no_nan() -> None:
    report = Checklist(select="ND801").examine(synthetic.run(train=1.0, first_nonfinite={"step": 3, "what": "loss"}))

    assert math.isnan(report.findings[0].value or 0.0)
    assert json.loads(report.to_json(), parse_constant=pytest.fail)["findings"][0]["value"] is None


def test_the_frame_has_a_row_for_each_check(sick: Report) -> None:
    frame = sick.to_frame()

    assert frame.loc["ND401", "verdict"] == "warn"
    assert len(frame) == len(sick.checks)


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.seen.add(tag)


def test_html_escapes_what_comes_from_the_run() -> None:
    parser = Tags()
    parser.feed(evil()._repr_html_())

    assert parser.seen <= {"h4", "p", "b", "ul", "li", "table", "thead", "tbody", "tr", "th", "td"}


def test_markdown_escapes_what_comes_from_the_run() -> None:
    text = evil().to_markdown()

    assert "<script" not in text
    assert not re.search(r"(?<!\\)[\[\]]", text)
    assert all(line.replace("\\|", "").count("|") in (0, 3) for line in text.splitlines())


@pytest.mark.parametrize("color", [False, True])
def test_text_from_the_run_cannot_steer_a_terminal(color: bool) -> None:
    text = evil().to_text(color=color)

    assert "\x1b[31m \\n" not in text
    assert "\\x1b[31m" in text


def test_color_changes_nothing_but_color(sick: Report) -> None:
    assert re.sub(r"\x1b\[\d+m", "", sick.to_text(color=True)) == sick.to_text()


def test_consequences_stand_under_their_cause() -> None:
    from nndiag.demo import demo

    report, _ = demo(fault="dead-relu", probes=False, epochs=5)

    assert "ND102 constant-output" in str(report).split("it explains ")[1].splitlines()[0]
    assert all("ND205" in finding.consequence_of for finding in report.findings if finding.code != "ND205")


def test_steps_that_were_not_read_are_told() -> None:
    run = synthetic.run(train=1.0, activations={"mean": {"h1": 0.0}})
    whole = run.tables["activations"]
    half = Run(run.meta, {**run.tables, "activations": Table(whole.columns, whole.steps[::4], whole.values[::4])})

    assert "100 steps (25 of them read)" in str(Checklist().examine(half))
    assert "of them read" not in str(Checklist().examine(run))


def test_a_part_of_nndiag_that_failed_is_told() -> None:
    report = Checklist().examine(
        synthetic.run(train=1.0, faults=[{"part": "Broken", "event": "on_loss", "error": "boom"}])
    )

    assert "a part of nndiag failed and was detached: Broken in on_loss: boom" in str(report)
    assert "Broken" in report.to_markdown()


def test_only_runs_are_examined() -> None:
    with pytest.raises(TypeError, match=r"a checklist examines a Run .*got a str"):
        Checklist().examine("runs/x")  # type: ignore[arg-type]
