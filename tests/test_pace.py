"""The cadence of reading."""

from __future__ import annotations

from typing import Any

import pytest

import nndiag
from nndiag import pace
from nndiag.pace import ALWAYS, SEEN, Pace


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that the test moves."""
    now = [0.0]
    monkeypatch.setattr(pace, "perf_counter", lambda: now[0])
    return now


def steps_read(
    pace: Pace, clock: list[float], steps: int, bare: float, own: float, always: float = 0.0, first: int = 0
) -> list[int]:
    """Steps read of `steps` from `first` on, when each takes `bare` seconds, `always` for nndiag and `own` more if read."""
    read, reading = [], True
    for step in range(first, first + steps):
        spent = always + (own if reading else 0.0)
        if reading:
            read.append(step)
        pace.spent += spent
        clock[0] += bare + spent
        reading = pace.next(step + 1)
    return read


def test_a_number_is_the_cadence(clock: list[float]) -> None:
    assert steps_read(Pace(3, 0.02), clock, 10, bare=1.0, own=1.0) == [0, 3, 6, 9]


def test_auto_reads_every_step_at_first_and_then_keeps_the_budget(clock: list[float]) -> None:
    read = steps_read(Pace("auto", 0.02), clock, 1000, bare=1.0, own=0.2)

    assert read[:ALWAYS] == list(range(ALWAYS))
    later = [step for step in read if step >= ALWAYS]
    assert 0.2 * len(later) / (1000 - ALWAYS) == pytest.approx(SEEN * 0.02, rel=0.1)


def test_auto_reads_every_step_where_that_is_cheap(clock: list[float]) -> None:
    assert len(steps_read(Pace("auto", 0.02), clock, 200, bare=1.0, own=0.01)) == 200


def test_one_long_pause_pays_for_no_reading(clock: list[float]) -> None:
    governed = Pace("auto", 0.02)
    steps_read(governed, clock, 200, bare=1.0, own=0.2)
    clock[0] += 1e6

    assert len(steps_read(governed, clock, 100, bare=1.0, own=0.2, first=200)) <= 12


def test_pauses_within_accounts_that_are_made_together_pay_for_no_reading(clock: list[float]) -> None:
    def read(pause: float) -> int:
        governed, number = Pace("auto", 0.02), 0
        for first in range(0, 3000, 60):
            number += len(steps_read(governed, clock, 60, bare=1.0, own=3.0, first=first))
            clock[0] += pause
        return number

    assert read(1e3) <= 1.25 * (read(0.0) - ALWAYS) + ALWAYS


@pytest.mark.parametrize(("before", "after"), [(1.0, 0.05), (0.05, 1.0)])
def test_the_cadence_follows_within_a_hundred_steps_when_steps_become_faster_or_slower(
    clock: list[float], before: float, after: float
) -> None:
    governed = Pace("auto", 0.02)
    steps_read(governed, clock, 500, bare=before, own=0.02, first=0)
    steps_read(governed, clock, 100, bare=after, own=0.02, first=500)

    read = steps_read(governed, clock, 1000, bare=after, own=0.02, first=600)

    wanted = min(1.0, SEEN * 0.02 * after / 0.02)
    assert len(read) / 1000 == pytest.approx(wanted, rel=0.15)


@pytest.mark.parametrize(
    ("bare", "own", "always"), [(1.0, 0.2137, 0.0), (1.0, 3.141, 0.002), (0.001, 0.5711, 0.0), (1.0, 0.02313, 0.0)]
)
def test_accounts_that_are_made_together_come_to_what_they_would_step_by_step(
    clock: list[float], monkeypatch: pytest.MonkeyPatch, bare: float, own: float, always: float
) -> None:
    together = steps_read(Pace("auto", 0.02), clock, 3000, bare=bare, own=own, always=always)
    monkeypatch.setattr(pace, "TOGETHER", 0)

    alone = steps_read(Pace("auto", 0.02), clock, 3000, bare=bare, own=own, always=always)

    assert len(together) == len(alone)
    assert max(abs(a - b) for a, b in zip(together, alone, strict=True)) <= 1  # where a debt is paid to the last digit


def test_what_every_step_costs_is_paid_from_the_budget_too(clock: list[float]) -> None:
    governed = Pace("auto", 0.02)
    steps_read(governed, clock, 50, bare=1.0, own=0.2, always=0.01)
    spent = governed.spent
    steps_read(governed, clock, 2000, bare=1.0, own=0.2, always=0.01, first=50)

    assert (governed.spent - spent) / 2000 == pytest.approx(SEEN * 0.02, rel=0.1)


def test_some_reading_is_left_where_the_guard_alone_breaks_the_budget(clock: list[float]) -> None:
    governed = Pace("auto", 0.02)

    assert len(steps_read(governed, clock, 5000, bare=1.0, own=0.2, always=0.05)) > 100


def test_an_expensive_read_is_paid_off_before_the_next(clock: list[float]) -> None:
    governed = Pace("auto", 0.02)
    steps_read(governed, clock, 1000, bare=1.0, own=0.01)
    governed.spent += 1.5  # histograms
    clock[0] += 1.5

    assert len(steps_read(governed, clock, 95, bare=1.0, own=0.01, first=1000)) == 1


def test_where_steps_are_too_short_to_pay_a_run_does_not_end_long_after_its_last_read(clock: list[float]) -> None:
    read = steps_read(Pace("auto", 0.02), clock, 460, bare=1.0, own=100.0)

    assert read[:ALWAYS] == list(range(ALWAYS))
    assert len(read) < ALWAYS + 12
    assert read[-1] > 0.8 * 460


def test_time_with_a_budget_of_its_own_is_no_debt_and_no_time_of_the_step(clock: list[float]) -> None:
    governed = Pace("auto", 0.02)
    steps_read(governed, clock, 500, bare=1.0, own=0.2)
    clock[0] += 30.0
    governed.aside(30.0)

    assert len(steps_read(governed, clock, 100, bare=1.0, own=0.2, first=500)) == pytest.approx(SEEN * 10, abs=2)
    assert governed.spent > 30


def test_the_cost_and_the_cadence_are_reported(clock: list[float]) -> None:
    governed = Pace("auto", 0.02)
    steps_read(governed, clock, 5050, bare=1.0, own=0.2)

    assert governed.cost["every"] == pytest.approx(0.2 / (SEEN * 0.02), abs=1)
    assert governed.cost["share"] == pytest.approx(SEEN * 0.02, rel=0.15)


def test_time_is_counted_once() -> None:
    recorder = nndiag.Recorder(every=1)
    with recorder.pace:
        recorder.log(loss=1.0)
        within = recorder.pace.spent

    assert within == 0
    assert recorder.pace.spent > 0


@pytest.mark.parametrize("every", [0, "often", 1.5, True, None])
def test_a_cadence_that_is_none_is_refused(every: Any) -> None:
    with pytest.raises(ValueError, match="every="):
        Pace(every, 0.02)


def test_without_a_clock_the_steps_are_those_of_any_process() -> None:
    pace = Pace("auto", 0.02)

    assert pace.without_clock(20)
    assert [step for step in range(130) if pace.next(step)] == [*range(50), 60, 80, 100, 120]
    assert not pace.adapts
    told = Pace(7, 0.02)
    assert not told.without_clock(20)
    assert [step for step in range(30) if told.next(step)] == [7, 14, 21, 28]
