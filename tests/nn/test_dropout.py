"""Dropout."""

from __future__ import annotations

import numpy as np
import pytest

from nndiag import nn

X = np.ones((200, 50), np.float32)


def test_evaluation_is_the_identity():
    assert nn.Dropout(0.5).forward(X, training=False) is X


def test_mean_is_kept_in_training():
    assert nn.Dropout(0.3).forward(X).mean() == pytest.approx(1.0, abs=0.03)


def test_gradient_flows_where_the_output_did():
    dropout = nn.Dropout(0.3)
    output = dropout.forward(X).copy()

    np.testing.assert_array_equal(dropout.backward(X.copy()), output)


def test_gradient_after_an_evaluation_is_untouched():
    dropout = nn.Dropout(0.3)
    dropout.forward(X)
    dropout.forward(X, training=False)

    assert dropout.backward(X) is X


def test_masks_follow_the_seed_and_differ_from_step_to_step():
    first, second = nn.Dropout(0.5, seed=1), nn.Dropout(0.5, seed=1)
    before = first.forward(X).copy()

    assert (second.forward(X) == before).all()
    assert (second.forward(X) != before).any()


@pytest.mark.parametrize("p", [-0.1, 1.0, np.nan])
def test_impossible_probability_is_refused(p):
    with pytest.raises(ValueError, match="give a probability, 0 <= p < 1"):
        nn.Dropout(p)
