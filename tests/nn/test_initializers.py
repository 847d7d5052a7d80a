"""The scales of the initialisers, and how they are found."""

from __future__ import annotations

import numpy as np
import pytest

from nndiag import errors, nn

SHAPE = (300, 200)


@pytest.mark.parametrize(
    ("init", "std"),
    [
        (nn.xavier_normal, nn.xavier_std(200, 300)),
        (nn.xavier_uniform, nn.xavier_std(200, 300)),
        (nn.he_normal, nn.he_std(200)),
        (nn.he_uniform, nn.he_std(200)),
        (nn.normal(0.5), 0.5),
    ],
)
def test_weights_have_the_std_of_the_paper(init, std):
    weights = init(np.random.default_rng(0), SHAPE)

    assert (weights.shape, weights.dtype) == (SHAPE, np.float64)
    assert weights.std() == pytest.approx(std, rel=0.01)
    assert weights.mean() == pytest.approx(0, abs=0.01 * std)


@pytest.mark.parametrize("init", [nn.xavier_uniform, nn.he_uniform])
def test_uniform_weights_stay_within_root_three_stds(init):
    weights = init(np.random.default_rng(0), SHAPE)

    assert np.abs(weights).max() <= np.sqrt(3) * weights.std() * 1.02


def test_constant_is_the_same_everywhere():
    assert nn.constant(2)(np.random.default_rng(0), (2, 2)).tolist() == [[2.0, 2.0], [2.0, 2.0]]


def test_found_by_name_or_passed_through():
    assert nn.initializer("he_normal") is nn.he_normal
    assert nn.initializer(nn.he_normal) is nn.he_normal


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(errors.UnknownName, match="'kaiming'; there are xavier_uniform, xavier_normal, he_uni"):
        nn.initializer("kaiming")
