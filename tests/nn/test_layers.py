"""What all layers promise, and the affine one."""

from __future__ import annotations

import copy
import re

import numpy as np
import pytest

from nndiag import errors, nn

LAYERS = {
    "affine": lambda: nn.Affine(5, 5),
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "softmax": nn.Softmax,
    "dropout": nn.Dropout,
    "layer_norm": lambda: nn.LayerNorm(5),
    "batch_norm": lambda: nn.BatchNorm(5),
}
FIXED_WIDTH = ("affine", "layer_norm", "batch_norm")


def batch(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, 5)).astype(np.float32)


@pytest.mark.parametrize("kind", LAYERS)
def test_input_is_left_as_it_was(kind):
    x = batch(4)
    before = x.copy()

    LAYERS[kind]().forward(x)

    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("kind", LAYERS)
def test_keeps_the_dtype(kind):
    layer = LAYERS[kind]()

    assert layer.forward(batch(4)).dtype == np.float32
    assert layer.backward(batch(4)).dtype == np.float32


@pytest.mark.parametrize("kind", LAYERS)
def test_smaller_batch_uses_the_memory_of_the_larger(kind):
    layer = LAYERS[kind]()
    large = layer.forward(batch(8))

    small = layer.forward(batch(3))

    assert small.shape == (3, 5)
    assert np.shares_memory(small, large)
    assert layer.backward(batch(3)).shape == (3, 5)


@pytest.mark.parametrize("kind", LAYERS)
def test_copy_shares_no_memory(kind):
    layer = LAYERS[kind]()
    output = layer.forward(batch(4))
    before = output.copy()

    copy.deepcopy(layer).forward(batch(4, seed=1))

    np.testing.assert_array_equal(output, before)


@pytest.mark.parametrize("kind", LAYERS)
def test_only_tanh_and_sigmoid_have_a_slope(kind):
    layer = LAYERS[kind]()
    layer.forward(batch(4))

    assert (layer.slope() is not None) == (kind in ("tanh", "sigmoid"))


@pytest.mark.parametrize("kind", [kind for kind in LAYERS if kind != "dropout"])
def test_empty_batch_is_refused(kind):
    with pytest.raises(errors.ShapeError, match=re.escape(f"{kind} got an input of shape (0, 5), wanted (batch, ")):
        LAYERS[kind]().forward(batch(0))


@pytest.mark.parametrize("kind", FIXED_WIDTH)
@pytest.mark.parametrize("shape", [(64, 63), (5,), (2, 3, 5)])
def test_wrong_shape_is_named_with_the_layer_and_the_shape_it_wants(kind, shape):
    layer = LAYERS[kind]()
    layer.rename("hidden2")

    with pytest.raises(
        errors.ShapeError, match=re.escape(f"hidden2 got an input of shape {shape}, wanted (batch, 5)") + "$"
    ):
        layer.forward(np.zeros(shape, np.float32))


@pytest.mark.parametrize("kind", FIXED_WIDTH)
def test_wrong_width_is_named_before_there_is_data(kind):
    with pytest.raises(errors.ShapeError, match="got an input of width 4, wanted 5"):
        LAYERS[kind]().output_width(4)


def test_affine_has_weights_out_by_in():
    layer = nn.Affine(3, 7, bias=0.5)

    assert [parameter.kind for parameter in layer.parameters] == ["weight", "bias"]
    assert [parameter.value.shape for parameter in layer.parameters] == [(7, 3), (7,)]
    assert layer.bias.value.tolist() == [0.5] * 7
    assert layer.output_width(3) == 7


def test_affine_gradients_are_set_and_not_added_to():
    layer = nn.Affine(5, 5)
    layer.forward(batch(4))
    layer.backward(batch(4))
    once = layer.weight.gradient.copy()

    layer.backward(batch(4))

    np.testing.assert_array_equal(layer.weight.gradient, once)


def test_affine_draws_from_its_seed():
    weights = [nn.Affine(5, 5, seed=seed).weight.value.tolist() for seed in (1, 1, 2)]

    assert weights[0] == weights[1] != weights[2]


def test_affine_without_units_is_refused():
    with pytest.raises(ValueError, match=re.escape("Affine(5, 0): give widths of 1 or more")):
        nn.Affine(5, 0)


def test_renaming_a_layer_renames_its_parameters():
    layer = nn.LayerNorm(5)

    layer.rename("a")
    layer.rename("hidden1.norm")

    assert [parameter.name for parameter in layer.parameters] == ["hidden1.norm.scale", "hidden1.norm.shift"]
