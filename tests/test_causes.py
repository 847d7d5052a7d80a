"""The causal order."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nndiag.catalogue import catalogue
from nndiag.causes import EXPLAINS, MEMORYLESS, ORDER, SLACK, UNMOVED, arrange, explains, rank
from nndiag.check import Finding, Verdict

EDGES = [(cause, effect) for cause, effects in EXPLAINS.items() for effect in effects]


def finding(code: str, first_step: int = 0, verdict: Verdict = Verdict.FAIL) -> Finding:
    return Finding(code, code.lower(), "", "training", verdict, first_step=first_step)


def member(prefix: str, cause: str) -> str:
    """A code that `prefix` stands for and that can follow `cause`."""
    return prefix if len(prefix) == 5 else {"ND": "ND601"}.get(prefix, f"{prefix}99")


@pytest.mark.parametrize(("cause", "effect"), EDGES)
def test_each_edge_makes_the_effect_a_consequence(cause: str, effect: str) -> None:
    arranged, headlines = arrange([finding(member(effect, cause)), finding(cause)])

    assert headlines == [cause]
    assert arranged[-1].consequence_of == (cause,)


def test_every_cause_comes_before_its_effects() -> None:
    assert all(rank(cause) < rank(member(effect, cause)) for cause, effect in EDGES)


def test_what_nothing_explains_is_a_second_headline() -> None:
    _, headlines = arrange([finding("ND009"), finding("ND301", verdict=Verdict.WARN)])

    assert headlines == ["ND009", "ND301"]


def test_a_recurrent_layer_without_memory_says_nothing_of_the_size_of_updates() -> None:
    memoryless, unmoved = replace(finding("ND403"), place=MEMORYLESS), replace(finding("ND502"), place=UNMOVED)
    _, headlines = arrange([memoryless, unmoved, finding("ND306"), finding("ND601")])

    assert headlines == ["ND403", "ND502"]


def test_a_cause_that_comes_long_after_explains_nothing() -> None:
    early = finding("ND401", first_step=10)

    assert explains(finding("ND501", first_step=10 + SLACK), early)
    assert not explains(finding("ND501", first_step=11 + SLACK), early)


def test_a_cause_counts_by_the_worst_that_it_explains() -> None:
    _, headlines = arrange(
        [finding("ND203", verdict=Verdict.WARN), finding("ND801"), finding("ND009", verdict=Verdict.WARN)]
    )

    assert headlines == ["ND203", "ND009"]


def test_ties_go_by_onset() -> None:
    _, headlines = arrange([finding("ND304", first_step=9), finding("ND303", first_step=20)])

    assert headlines == ["ND304", "ND303"]


def test_codes_of_third_parties_come_last() -> None:
    assert rank("XY001") == len(ORDER)
    assert arrange([finding("XY001"), finding("ND707")])[1] == ["ND707", "XY001"]


def test_no_findings_make_no_headlines() -> None:
    assert arrange([]) == ([], [])


def test_every_code_and_family_of_the_order_is_one_of_the_catalogue() -> None:
    codes = set(catalogue())
    named = {*ORDER, *EXPLAINS, *(effect for effects in EXPLAINS.values() for effect in effects)}
    plain = {name.rstrip("?") for name in named}

    assert {name for name in plain if not any(code.startswith(name) for code in codes)} == set()
