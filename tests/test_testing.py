"""The contract that nndiag.testing holds checks to: kept by a sound one, and each breach has its sentence."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest

from nndiag import Check, Finding, Run, synthetic
from nndiag.checks import VanishingGradients
from nndiag.testing import assert_contract

TICKS = count()


@dataclass(frozen=True)
class HighLoss(Check):
    """The loss ends high."""

    code = "XY001"
    name = "high-loss"
    kind = "training"
    needs = ("losses.train",)
    advice = "Train on."
    confirm = "run.train.plot()"
    passed = "the loss ends low"

    limit: float = 1.0

    def examine(self, run: Run) -> Iterator[Finding]:
        if run.train.iloc[-1] > self.limit:
            yield self.finding(f"the loss ends at {run.train.iloc[-1]:.2g}", steps=0)

    @classmethod
    def healthy(cls) -> Run:
        return synthetic.run(train=0.6)

    @classmethod
    def sick(cls) -> Run:
        return synthetic.run(train=1.8)


def without(**attributes: Any) -> type[Check]:
    """HighLoss with other attributes, as a dataclass of its own."""
    return dataclass(frozen=True)(type("Other", (HighLoss,), {"__doc__": "The loss ends high.", **attributes}))


def silent(self: Check, run: Run) -> Iterator[Finding]:
    yield from ()


def raising(self: Check, run: Run) -> Iterator[Finding]:
    yield self.finding(f"{1 / int(run.train.iloc[-1] * 10):.2g}", steps=0)


def unplaced(self: Check, run: Run) -> Iterator[Finding]:
    if run.train.iloc[-1] > 1:
        yield self.finding("the loss ends high")


def moody(self: Check, run: Run) -> Iterator[Finding]:
    if run.train.iloc[-1] > 1:
        yield self.finding(f"for the {next(TICKS)}th time", steps=0)


def always(self: Check, run: Run) -> None:
    return None


BREACHES: dict[str, tuple[Callable[[], type[Check]], str]] = {
    "no dataclass": (lambda: type("Bare", (HighLoss,), {"__doc__": "Bare."}), "is no frozen dataclass"),
    "code": (lambda: without(code="ND401"), "two checks are called ND401: one of the installed checks"),
    "name": (lambda: without(name="vanishing-gradients"), "two checks are called vanishing-gradients"),
    "page": (lambda: without(__doc__="High"), "needs a docstring that begins with one sentence .* has 'High'"),
    "healthy": (lambda: without(healthy=HighLoss.sick), "does not pass its healthy run: .*the loss ends at 1.8"),
    "sick": (lambda: without(examine=silent), "does not flag its sick run: PASS, the loss ends low"),
    "finding": (lambda: without(examine=unplaced, confirm=""), "has a finding without confirm, first_step"),
    "fault": (lambda: without(examine=raising), r"fails on a run that is all zero: .*ZeroDivisionError"),
    "mood": (lambda: without(examine=moody), "says something else of the same run"),
    "few reads": (
        lambda: without(not_checked=lambda self, run: None if len(run.train) else "needs losses"),
        "says PASS of 19 reads, wanted NOT CHECKED",
    ),
    "empty run": (lambda: without(not_checked=always, examine=silent), "says PASS of an empty run"),
}


@pytest.mark.parametrize("check", [HighLoss, VanishingGradients])
def test_a_sound_check_keeps_it_installed_or_not(check: type[Check]) -> None:
    assert_contract(check)


@pytest.mark.parametrize(("check", "sentence"), BREACHES.values(), ids=BREACHES)
def test_each_breach_has_its_sentence(check: Callable[[], type[Check]], sentence: str) -> None:
    with pytest.raises(AssertionError, match=sentence):
        assert_contract(check())


def test_all_breaches_are_told_at_once() -> None:
    with pytest.raises(AssertionError) as told:
        assert_contract(without(code="ND401", __doc__="High"))

    assert [line.partition(" high-loss ")[0] for line in str(told.value).splitlines()] == ["ND401", "ND401"]


def test_thresholds_need_defaults() -> None:
    @dataclass(frozen=True)
    class Bare(HighLoss):
        """The loss ends high."""

        limit: float = field()

    with pytest.raises(AssertionError, match="has thresholds without a default: limit"):
        assert_contract(Bare)


def test_what_is_no_check_at_all_is_refused() -> None:
    with pytest.raises(TypeError, match="Other has no advice"):
        assert_contract(without(advice=""))
