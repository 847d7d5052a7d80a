"""Gradient clipping."""

from __future__ import annotations

import numpy as np
import pytest

from nndiag import nn


def parameters(*gradients: list[float], dtype: type = np.float64) -> list[nn.Parameter]:
    made = [nn.Parameter(str(number), "weight", np.zeros(len(g), dtype)) for number, g in enumerate(gradients)]
    for parameter, gradient in zip(made, gradients, strict=True):
        parameter.gradient[...] = gradient
    return made


def test_scales_all_gradients_to_the_norm_and_gives_the_old_one():
    clipped = parameters([3.0], [0.0, 4.0])

    assert nn.clip_by_global_norm(clipped, 1.0) == 5.0
    assert [parameter.gradient.tolist() for parameter in clipped] == [[pytest.approx(0.6)], [0.0, pytest.approx(0.8)]]


@pytest.mark.parametrize("max_norm", [5.0, 5.1])
def test_leaves_gradients_within_the_norm(max_norm):
    clipped = parameters([3.0, 4.0])

    assert nn.clip_by_global_norm(clipped, max_norm) == 5.0
    assert clipped[0].gradient.tolist() == [3.0, 4.0]


def test_frozen_parameters_do_not_count():
    clipped = parameters([3.0, 4.0], [100.0])
    clipped[1].frozen = True

    assert nn.clip_by_global_norm(clipped, 1.0) == 5.0
    assert clipped[1].gradient.tolist() == [100.0]


def test_norm_is_right_where_squares_overflow():
    clipped = parameters([3e30, 4e30], dtype=np.float32)

    assert nn.clip_by_global_norm(clipped, 1.0) == pytest.approx(5e30)
    np.testing.assert_allclose(clipped[0].gradient, [0.6, 0.8], rtol=1e-6)


@pytest.mark.parametrize("max_norm", [0.0, -1.0, np.nan])
def test_impossible_norm_is_refused(max_norm):
    with pytest.raises(ValueError, match="wanted a positive number"):
        nn.clip_by_global_norm([], max_norm)
