"""Selecting checks, judging severity, and the catalogue."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from nndiag import Check, Checklist, Finding, NndiagError, Recorder, UnknownName, Verdict, synthetic
from nndiag.catalogue import catalogue, collect, find
from nndiag.check import Kind
from nndiag.checks import VanishingGradients
from nndiag.demo import demo
from nndiag.run import Run

ND4 = {"ND401", "ND402", "ND403", "ND404", "ND408"}
ENTROPY = {"data": {"entropy": {"target": 2.3}}, **synthetic.CLASSES}
LEARNS = synthetic.run(train=synthetic.decay(), validation={10 * i: 2.0 / i for i in range(1, 10)}, **ENTROPY)
FAILS_TO_LEARN = synthetic.run(train=2.31, validation={10 * i: 2.4 for i in range(1, 10)}, **ENTROPY)
LOSES_HALF = synthetic.run(
    train=synthetic.decay(),
    validation={10 * i: v for i, v in enumerate([1.0, 0.5, 0.5, 0.5, 1.6, 1.6, 1.6], 1)},
    **ENTROPY,
)


@dataclass(frozen=True)
class Always(Check):
    """Finds something on every run."""

    code = "ND401"
    name = "always"
    kind = "training"
    advice = "nothing"
    passed = "never"

    as_kind: Kind = "training"

    def examine(self, run: Run) -> Iterator[Finding]:
        yield self.finding("found", kind=self.as_kind)


@pytest.mark.parametrize(
    ("kind", "run", "verdict"),
    [
        ("exact", LEARNS, Verdict.FAIL),
        ("training", LEARNS, Verdict.WARN),
        ("training", FAILS_TO_LEARN, Verdict.FAIL),
        ("training", Run(), Verdict.WARN),
        ("generalisation", LEARNS, Verdict.WARN),
        ("generalisation", FAILS_TO_LEARN, Verdict.FAIL),
        ("generalisation", LOSES_HALF, Verdict.FAIL),
        ("note", FAILS_TO_LEARN, Verdict.PASS),
    ],
)
def test_kind_and_progress_decide_the_severity(kind: Kind, run: Run, verdict: Verdict) -> None:
    report = Checklist(select="ND401", checks=[Always(as_kind=kind)]).examine(run)

    assert report.verdict is verdict


def test_a_note_leaves_the_pass_and_stands_beside_it() -> None:
    report = Checklist(select="ND401", checks=[Always(as_kind="note")]).examine(LEARNS)

    assert report.findings == ()
    assert report.checks[0].notes == ("found",)


@pytest.mark.parametrize(
    ("select", "ignore", "codes"),
    [
        ("ND4", None, ND4),
        ("ND401,overfitting", None, {"ND401", "ND701"}),
        (["ND4", "NDP03"], "exploding-gradients", {"ND401", "ND403", "ND404", "ND408", "NDP03"}),
        ("ND", "ND0,ND1,ND2,ND3,ND5,ND6,ND7,ND8,ND9,NDP", ND4),
    ],
)
def test_checks_are_chosen_by_code_prefix_and_name(
    select: str | list[str], ignore: str | None, codes: set[str]
) -> None:
    assert {check.code for check in Checklist(select, ignore).checks} == codes


@pytest.mark.parametrize("word", ["ND9X", "vanishing", ""])
def test_a_word_that_names_no_check_is_refused(word: str) -> None:
    with pytest.raises(UnknownName, match=f"no check is called '{word}'"):
        Checklist(select=word)


def test_an_instance_stands_in_for_the_check_of_its_code() -> None:
    checklist = Checklist(checks=[VanishingGradients(ratio=0.5)])

    assert [check for check in checklist.checks if check.code == "ND401"] == [VanishingGradients(ratio=0.5)]
    assert len(checklist.checks) == len(catalogue())


@dataclass(frozen=True)
class Broken(Always):
    """Fails."""

    def examine(self, run: Run) -> Iterator[Finding]:
        raise ZeroDivisionError("in a check")


def test_a_check_that_fails_is_not_checked(caplog: pytest.LogCaptureFixture) -> None:
    report = Checklist(checks=[Broken()]).examine(LEARNS)

    result = next(check for check in report.checks if check.code == "ND401")
    assert result.verdict is Verdict.NOT_CHECKED
    assert "ZeroDivisionError" in result.reason
    assert "Traceback" in caplog.text


def test_no_check_fails_on_a_million_steps() -> None:
    steps = 1_000_000
    noise = 1 + 0.1 * np.random.default_rng(0).standard_normal(steps)
    activations = {name: dict.fromkeys(("h1", "h2", "output"), noise) for name in ("mean", "variance", "gradient_rms")}
    run = synthetic.run(steps=steps, train=noise, validation={1000 * i: 1.0 for i in range(1, 1000)},
                        activations=activations, gradients={"norm": {"h1.weight": noise}}, **synthetic.CLASSES)  # fmt: skip

    report = Checklist().examine(run)

    assert [check.code for check in report.checks if "the check itself failed" in check.reason] == []


def test_too_few_reads_are_not_checked() -> None:
    run = synthetic.run(steps=7, activations={"gradient_rms": {"a": 1.0, "b": 1.0, "c": 1.0}})

    assert VanishingGradients().not_checked(run) == "needs 20 reads of activations.gradient_rms, has 7"


def test_two_checks_of_one_code_name_both_owners() -> None:
    with pytest.raises(NndiagError, match="two checks are called ND401: one of ours, one of theirs"):
        collect([("ours", lambda: [VanishingGradients]), ("theirs", lambda: [Always])])


def test_a_check_without_a_name_is_refused() -> None:
    class Nameless(Always):
        name = ""

    with pytest.raises(TypeError, match="Nameless has no name"):
        collect([("ours", lambda: [Nameless])])


def test_a_check_that_needs_what_no_frame_holds_is_refused() -> None:
    class Greedy(Always):
        needs = ("activations.sharpness",)

    with pytest.raises(TypeError, match=r"needs 'activations\.sharpness', which no frame holds"):
        collect([("ours", lambda: [Greedy])])


@pytest.mark.parametrize("word", ["ND401", "nd401", "vanishing-gradients"])
def test_a_check_is_found_by_code_and_name(word: str) -> None:
    assert find(word) is VanishingGradients


def test_an_infinite_threshold_never_warns() -> None:
    assert np.isinf(VanishingGradients(ratio=float("inf")).ratio)
    assert (
        Checklist(select="ND401", checks=[VanishingGradients(ratio=0.0)]).examine(VanishingGradients.sick()).findings
        == ()
    )


# What a PASS may say


def broken(at: int, steps: int = 60) -> Run:
    """A loop of one's own whose loss is NaN from step `at` on."""
    recorder = Recorder(every=1)
    for step in range(steps):
        recorder.log(loss=2.0 - 0.01 * step if step < at else np.nan)
        recorder.step()
    return recorder.run


def test_curves_that_end_in_nan_are_not_checked() -> None:
    report = Checklist().examine(broken(40))
    curves = [check for check in report.checks if check.code.startswith(("ND6", "ND7"))]

    assert report.verdict is Verdict.FAIL
    assert all(check.verdict is Verdict.NOT_CHECKED for check in curves if check.kind != "note")
    assert "the loss is not finite from step 40 on" in {check.reason for check in curves}


@pytest.mark.parametrize("at", [40, 0])
def test_steps_whose_loss_is_nan_are_steps(at: int) -> None:
    run = broken(at)

    assert (run.steps, run.until(50).steps) == (60, 50)


def test_a_pass_beside_a_failure_says_no_more_than_it_knows() -> None:
    report, _ = demo(fault="lr-too-high", probes=False, epochs=4)
    reasons = {check.code: check.reason for check in report.checks if check.verdict is Verdict.PASS}

    assert report.headlines[0] == "ND501"
    assert reasons["ND306"] == "nothing beyond what ND501 may bring about"
    assert not any(reason.startswith("nothing beyond") for reason in reasons_of(synthetic.run(train=synthetic.decay())))


def reasons_of(run: Run) -> list[str]:
    return [check.reason for check in Checklist().examine(run).checks]


def test_a_point_passes_where_half_of_its_checks_could_be_made() -> None:
    run = synthetic.run(train=synthetic.decay(), gradients={"norm": {"w": 1.0}, "nonfinite": {"w": 0.0}})
    points = {point: verdict for point, verdict, _ in Checklist(select="ND8,ND701").examine(run).points}

    assert set(points.values()) == {Verdict.NOT_CHECKED}


def test_a_selection_that_is_no_text_is_refused() -> None:
    with pytest.raises(TypeError, match="wanted codes, beginnings of codes or names of checks, got 5"):
        Checklist(select=5)  # type: ignore[arg-type]


def test_the_worst_verdict_is_found_by_severity_and_not_by_its_letters() -> None:
    assert Verdict.worst([Verdict.PASS, Verdict.FAIL, Verdict.WARN, Verdict.NOT_CHECKED]) is Verdict.FAIL
    assert Verdict.worst([Verdict.NOT_CHECKED, Verdict.PASS]) is Verdict.PASS
    assert Verdict.worst([]) is Verdict.NOT_CHECKED
