"""Robust readings of series."""

from __future__ import annotations

import numpy as np
import pytest

from nndiag import signals


@pytest.mark.parametrize(
    ("bad", "at"), [([0, 1, 1, 0, 1, 1, 1], 4), ([1, 1, 1], 0), ([1, 1], None), ([], None), ([0] * 9, None)]
)
def test_an_onset_is_three_in_a_row(bad: list[int], at: int | None) -> None:
    assert signals.onset(np.array(bad, bool)) == at


@pytest.mark.parametrize(("bad", "at"), [([0, 1, 0, 1, 1], 3), ([1, 1], 0), ([1, 0], None), ([], None)])
def test_a_lasting_onset_reaches_the_end(bad: list[int], at: int | None) -> None:
    assert signals.lasting_onset(np.array(bad, bool)) == at


@pytest.mark.parametrize(("reads", "left_out"), [(10, 5), (400, 20), (10_000, 50)])
def test_the_warm_up_is_a_twentieth_between_five_and_fifty(reads: int, left_out: int) -> None:
    assert signals.warm_up(reads) == left_out


def test_theil_sen_ignores_a_quarter_of_outliers() -> None:
    x = np.arange(100.0)
    y = 3 * x + 1
    y[::4] += 1e6

    assert signals.theil_sen(x, y) == pytest.approx(3.0, rel=0.05)


def test_spread_is_the_standard_deviation_of_clean_noise() -> None:
    assert signals.spread(np.random.default_rng(0).normal(0, 2, 10_000)) == pytest.approx(2.0, rel=0.05)
