"""What every check promises, over all that are installed."""

from __future__ import annotations

import pytest

from nndiag import Run
from nndiag.catalogue import catalogue
from nndiag.check import Check
from nndiag.probes import PROBES
from nndiag.testing import CONDUCT, FORM, Promise, judged

CHECKS = list(catalogue().values())


@pytest.mark.parametrize("promise", FORM + CONDUCT, ids=lambda promise: promise.__name__)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.code)
def test_every_check_keeps(promise: Promise, check: type[Check]) -> None:
    assert list(promise(check)) == []


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.code)
def test_is_not_checked_on_an_empty_run_for_want_of_data(check: type[Check]) -> None:
    result, _ = judged(check, Run())

    assert "needs" in result.reason or "not run" in result.reason


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.code)
def test_has_a_page_a_newcomer_can_read(check: type[Check]) -> None:
    assert "Decides on" in check.page() or check in PROBES
    assert check.name.replace("-", "").isalpha()


def test_codes_and_names_are_those_of_the_files() -> None:
    for check in CHECKS:
        file = check.__module__.rpartition(".")[2]
        american = (
            check.name.replace("generalisation", "generalization")
            .replace("non-finite", "nonfinite")
            .replace("optimised", "optimized")
        )
        assert file.replace("_", "-") == american
