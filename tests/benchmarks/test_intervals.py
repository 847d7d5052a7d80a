"""The interval that stands beside every measured ratio."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.trainer import median


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_a_few_rounds_have_all_of_them_for_their_interval(rounds: int) -> None:
    values = np.arange(rounds, dtype=float)

    assert median(values) == (float(np.median(values)), values.min(), values.max())


def test_the_interval_of_many_is_the_binomials() -> None:
    assert median(np.arange(101.0)) == pytest.approx((50.0, 40.25, 59.75), abs=0.2)
