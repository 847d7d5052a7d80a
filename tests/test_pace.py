"""The cadence of reading."""

from __future__ import annotations

import pytest

from nndiag import pace
from nndiag.pace import ALWAYS, Pace


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that the test moves."""
    now = [0.0]
    monkeypatch.setattr(pace, "perf_counter", lambda: now[0])
    return now


def steps_read(pace: Pace, clock: list[float], steps: int, bare: float, own: float) -> list[int]:
    """Steps read when a step takes `bare` seconds and reading it `own` more."""
    read, reading = [], True
    for step in range(steps):
        if reading:
            read.append(step)
            pace.spent += own
            clock[0] += own
        clock[0] += bare
        reading = pace.next(step + 1)
    return read


def test_a_number_is_the_cadence(clock: list[float]) -> None:
    assert steps_read(Pace(3, 0.02), clock, 10, bare=1.0, own=1.0) == [0, 3, 6, 9]


def test_auto_reads_every_step_at_first_and_then_keeps_the_budget(clock: list[float]) -> None:
    read = steps_read(Pace("auto", 0.02), clock, 1000, bare=1.0, own=0.2)

    assert read[:ALWAYS] == list(range(ALWAYS))
    later = [step for step in read if step >= ALWAYS]
    assert 0.2 * len(later) / (1000 - ALWAYS) == pytest.approx(0.02, rel=0.1)


def test_auto_reads_every_step_where_that_is_cheap(clock: list[float]) -> None:
    assert len(steps_read(Pace("auto", 0.02), clock, 200, bare=1.0, own=0.01)) == 200


def test_one_long_pause_does_not_change_the_cadence(clock: list[float]) -> None:
    governed = Pace("auto", 0.02)
    steps_read(governed, clock, 200, bare=1.0, own=0.2)
    before = governed.every
    clock[0] += 1e6
    governed.next(201)

    assert governed.every == before
