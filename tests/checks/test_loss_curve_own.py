"""The curve of a loop whose backward pass is the user's own."""

from __future__ import annotations

import numpy as np
import pytest

from nndiag import Checklist, synthetic
from nndiag.causes import WRONG_SIGN


def climbing(end: float, scatter: float = 0.01) -> np.ndarray:
    train = np.linspace(1.0, end, 200) + scatter * np.random.default_rng(0).standard_normal(200)
    return np.asarray(train)


@pytest.mark.parametrize(("end", "verdict"), [(1.45, "PASS"), (1.7, "WARN")])
def test_a_loss_that_climbs_is_a_finding_of_a_backward_pass_of_ones_own(end: float, verdict: str) -> None:
    report = Checklist("ND601").examine(synthetic.run(steps=200, train=climbing(end)))

    assert report.verdict.name == verdict
    assert [finding.causes[0] for finding in report.findings] == [WRONG_SIGN] * (verdict == "WARN")


def test_of_a_framework_or_of_numbers_around_0_it_is_a_remark() -> None:
    of_torch = synthetic.run(steps=200, train=climbing(3.0), versions={"torch": "2.13"})
    surrogate = synthetic.run(steps=200, train=np.abs(climbing(3.0, scatter=4.0)))

    assert Checklist("ND601").examine(of_torch).verdict.name == "PASS"
    assert Checklist("ND601").examine(surrogate).verdict.name == "PASS"
