"""`nndiag explain` prints the whole page of a check."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import pytest

from nndiag import Check, Finding, pages
from nndiag.catalogue import catalogue, find
from nndiag.causes import EXPLAINS, rank
from nndiag.cli import main
from nndiag.run import Run

CHECKS = list(catalogue().values())


@dataclass(frozen=True)
class Foreign(Check):
    """A check of another package."""

    code = "XY001"
    name = "foreign"
    kind = "note"
    needs = ("losses.train",)
    min_reads = 1
    advice = "None."
    confirm = "look at it"

    limit: float = 1 / 3

    def examine(self, run: Run) -> Iterator[Finding]:
        yield from ()


def explain(word: str, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """The labelled lines that follow the page."""
    assert main(["explain", word]) == 0
    tail = capsys.readouterr().out.rpartition("\n\n")[2]
    return dict(line.split(": ", 1) for line in tail.splitlines())


def test_all_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    check = find("ND401")

    assert main(["explain", "nd401"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"ND401 vanishing-gradients (training)\n\n{check.page()}\n\nFix: {check.advice}\n")
    assert f"\nConfirm: {check.confirm}\n" in out
    assert "\nReads: activations.gradient_rms; 20 reads or more\n" in out
    assert "\nThresholds: ratio = 0.001, window = 50, per_layer = 0.35, unsquashed = 0.28\n" in out


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.code)
def test_every_check_shows_its_thresholds_and_neighbours(
    check: type[Check], capsys: pytest.CaptureFixture[str]
) -> None:
    said = explain(check.code, capsys)

    assert list(said) == ["Fix", "Confirm", "Reads", "Thresholds", "Explains", "Explained by"]
    assert all(f"{field.name} = " in said["Thresholds"] for field in fields(check))


def test_causes_and_consequences_are_those_of_the_causal_order(capsys: pytest.CaptureFixture[str]) -> None:
    said = explain("ND203", capsys)

    assert "ND201 initial-loss" in said["Explains"].split(", ")
    assert "ND202 symmetric-weights" in said["Explained by"].split(", ")


def test_a_family_that_is_explained_as_a_whole_goes_by_its_code(capsys: pytest.CaptureFixture[str]) -> None:
    said = explain("ND501", capsys)

    assert "all of ND6" in said["Explains"].split(", ")
    assert "ND601" not in said["Explains"]
    assert "ND7" not in explain("ND601", capsys)["Explains"].split(", ")


def test_neighbours_agree_with_each_other_and_with_the_edges() -> None:
    for check in CHECKS:
        wanted = [other for other in CHECKS if other.code.startswith(EXPLAINS.get(check.code, ()) or "\0")]
        assert pages.explained(check, CHECKS) == [other for other in wanted if rank(check.code) < rank(other.code)]
        assert all(check in pages.causes_of(other, CHECKS) for other in pages.explained(check, CHECKS))


def test_a_probe_reads_its_own_measurement(capsys: pytest.CaptureFixture[str]) -> None:
    assert explain("NDP02", capsys)["Reads"] == "its own measurement"


def test_a_foreign_check_stands_outside_the_causal_order() -> None:
    assert pages.plain(Foreign, [*CHECKS, Foreign]) == (
        "XY001 foreign (note)\n\nA check of another package.\n\nFix: None.\nConfirm: look at it\n"
        "Reads: losses.train; 1 read or more\nThresholds: limit = 0.333333\n"
        "Explains: no other check\nExplained by: no other check"
    )


def test_an_instruction_that_is_no_code_is_set_as_prose() -> None:
    assert "- **Confirm**: look at it\n" in pages.markdown(Foreign, [Foreign])


def test_an_unknown_check_is_refused_with_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "vanishing-gradient"]) == 2
    assert "did you mean vanishing-gradients" in capsys.readouterr().err
