"""Sick and sound runs of real trainings, through the demo's programs."""

from __future__ import annotations

import pytest

from nndiag import Verdict
from nndiag.demo import FAULTS, demo

EXPECTED = {
    "lr-too-high": {"ND501"},
    "lr-too-low": {"ND502"},
    "dead-relu": {"ND301", "ND205"},
    "vanishing-gradients": {"ND203", "ND401"},
    "exploding-gradients": {"ND203", "ND402"},
    "zero-init": {"ND202"},
    "unscaled-input": {"ND002"},
    "overfitting": {"ND701"},
    "nan-input": {"ND001"},
    "double-softmax": {"ND101"},
    "shuffled-labels": {"ND707"},
}


def test_every_fault_has_an_expected_headline() -> None:
    assert set(EXPECTED) == set(FAULTS)


@pytest.mark.parametrize(("seed", "probes"), [(0, True), (1, True), (2, False)])
@pytest.mark.parametrize("fault", EXPECTED)
def test_a_fault_fails_with_the_right_cause_first(fault: str, seed: int, probes: bool) -> None:
    report, _ = demo(fault=fault, seed=seed, probes=probes)

    assert report.verdict is Verdict.FAIL
    assert report.headlines[0] in EXPECTED[fault]


@pytest.mark.parametrize("seed", range(5))
def test_the_sound_program_has_no_finding(seed: int) -> None:
    report, recorder = demo(seed=seed)

    assert report.verdict is Verdict.PASS
    assert report.findings == ()
    assert recorder.run.metrics["accuracy"]["validation"].dropna().iloc[-1] >= 0.95


def test_the_layer_of_a_dead_start_is_named() -> None:
    report, _ = demo(fault="dead-relu", probes=False, epochs=3)

    assert report.headline is not None
    assert report.headline.layer == "hidden1.relu"
