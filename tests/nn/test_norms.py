"""Layer norm and batch norm."""

from __future__ import annotations

import numpy as np
import pytest

from nndiag import errors, nn

X = np.random.default_rng(0).normal(3.0, 2.0, size=(50, 4))


@pytest.mark.parametrize(("layer", "axis"), [(nn.LayerNorm(4), 1), (nn.BatchNorm(4), 0)])
def test_moments_are_0_and_1_along_its_axis(layer, axis):
    y = layer.forward(X)

    np.testing.assert_allclose(y.mean(axis=axis), 0, atol=1e-7)
    np.testing.assert_allclose(y.var(axis=axis), 1, rtol=1e-2)


def test_parameters_are_of_kind_norm():
    assert [(p.name, p.kind) for p in nn.BatchNorm(4).parameters] == [("scale", "norm"), ("shift", "norm")]


def test_running_moments_move_by_momentum_in_training_only():
    layer = nn.BatchNorm(4, momentum=0.25, dtype=np.float64)

    layer.forward(X)
    layer.forward(X + 100, training=False)

    np.testing.assert_allclose(layer.running_mean, 0.25 * X.mean(axis=0))
    np.testing.assert_allclose(layer.running_variance, 0.75 + 0.25 * X.var(axis=0, ddof=1))


def test_batch_norm_evaluates_one_row_by_the_running_moments():
    layer = nn.BatchNorm(4, dtype=np.float64)

    np.testing.assert_allclose(layer.forward(X[:1], training=False), X[:1], rtol=1e-5)


def test_training_batch_of_one_is_refused():
    with pytest.raises(errors.ShapeError, match="batch_norm got a training batch of 1, which has no variance"):
        nn.BatchNorm(4).forward(X[:1])


@pytest.mark.parametrize("eps", [0.0, -1.0, np.nan])
@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.BatchNorm])
def test_eps_must_be_positive(norm, eps):
    with pytest.raises(ValueError, match="give a width of 1 or more and a positive eps"):
        norm(4, eps=eps)


def test_momentum_out_of_range_is_refused():
    with pytest.raises(ValueError, match="give 0 <= momentum <= 1"):
        nn.BatchNorm(4, momentum=1.1)
