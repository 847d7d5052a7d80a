"""The activation functions at and beyond their ends."""

from __future__ import annotations

import numpy as np
import pytest

from nndiag import nn

ENDS = np.array([[-np.inf, -1e4, 0.0, 1e4, np.inf]], np.float32)


def test_sigmoid_is_exact_where_e_to_the_z_overflows():
    assert nn.Sigmoid().forward(ENDS).tolist() == [[0.0, 0.0, 0.5, 1.0, 1.0]]


def test_sigmoid_keeps_its_digits_near_zero():
    assert nn.Sigmoid().forward(np.array([[-50.0]]))[0, 0] == pytest.approx(np.exp(-50.0), rel=1e-12)


def test_softmax_does_not_overflow():
    assert nn.Softmax().forward(np.array([[1e4, 0.0], [-1e4, -1e4]])).tolist() == [[1.0, 0.0], [0.5, 0.5]]


@pytest.mark.parametrize("layer", [nn.ReLU(), nn.LeakyReLU(), nn.Tanh(), nn.Sigmoid()])
def test_nan_goes_through_unnoticed_by_numpy(layer):
    output = layer.forward(np.array([[np.nan, 1.0]]))

    assert np.isnan(output).tolist() == [[True, False]]


@pytest.mark.parametrize(("layer", "steepest"), [(nn.Tanh(), 1.0), (nn.Sigmoid(), 0.25)])
def test_slope_is_the_derivative_over_its_largest_value(layer, steepest):
    x = np.linspace(-4, 4, 9)[None]
    layer.forward(x)

    slope = layer.slope().copy()

    np.testing.assert_allclose(slope, layer.backward(np.ones_like(x)) / steepest)
    assert slope[0, 4] == 1.0
    assert slope.max() == 1.0


def test_leaky_relu_leaks_at_and_below_zero():
    layer = nn.LeakyReLU(0.25)

    assert layer.forward(np.array([-4.0, 0.0, 4.0])).tolist() == [-1.0, 0.0, 4.0]
    assert layer.backward(np.ones(3)).tolist() == [0.25, 0.25, 1.0]


@pytest.mark.parametrize("slope", [-0.1, 1.0, np.nan])
def test_leaky_relu_refuses_a_slope_out_of_range(slope):
    with pytest.raises(ValueError, match="give 0 <= slope < 1"):
        nn.LeakyReLU(slope)
