"""The multilayer perceptron: names, initialisation, seeds."""

from __future__ import annotations

import copy
import re

import numpy as np
import pytest

from nndiag import errors, nn

X = np.random.default_rng(0).normal(size=(4, 6))


def test_layers_and_parameters_have_the_promised_names():
    model = nn.MLP([6, 5, 3], "tanh", dropout=0.5, norm="layer")

    assert [layer.name for layer in model.layers] == [
        "hidden1",
        "hidden1.norm",
        "hidden1.tanh",
        "hidden1.dropout",
        "output",
    ]
    assert [(parameter.name, parameter.kind) for parameter in model.parameters] == [
        ("hidden1.weight", "weight"),
        ("hidden1.bias", "bias"),
        ("hidden1.norm.scale", "norm"),
        ("hidden1.norm.shift", "norm"),
        ("output.weight", "weight"),
        ("output.bias", "bias"),
    ]


def test_without_activation_it_is_affine_throughout():
    assert [layer.kind for layer in nn.MLP([6, 5, 5, 3], activation=None).layers] == ["affine"] * 3


@pytest.mark.parametrize(
    ("activation", "std"),
    [("relu", nn.he_std(200)), ("leaky_relu", nn.he_std(200)), ("tanh", nn.xavier_std(200, 300))],
)
def test_initialisation_suits_the_activation(activation, std):
    weight = nn.MLP([200, 300, 2], activation).parameters[0]

    assert weight.value.std() == pytest.approx(std, rel=0.02)


def test_one_seed_seeds_weights_and_dropout():
    def outputs(seed: int) -> list[list[float]]:
        return nn.MLP([6, 5, 5, 3], dropout=0.5, seed=seed).forward(X, training=True).tolist()

    assert outputs(1) == outputs(1) != outputs(2)


def test_dropout_leaves_the_weights_of_the_seed():
    plain, dropped = nn.MLP([6, 5, 5, 3]), nn.MLP([6, 5, 5, 3], dropout=0.5)

    for ours, theirs in zip(plain.parameters, dropped.parameters, strict=True):
        np.testing.assert_array_equal(ours.value, theirs.value)


def test_dropouts_draw_apart():
    model = nn.MLP([6, 50, 50, 3], dropout=0.5)
    first, second = (model.layer(f"hidden{number}.dropout") for number in (1, 2))

    assert (first.forward(np.ones((1, 50))) != second.forward(np.ones((1, 50)))).any()


def test_copy_goes_its_own_way():
    model = nn.MLP([6, 5, 3], norm="batch", dropout=0.5)
    twin = copy.deepcopy(model)
    before = model.forward(X).copy()

    twin.forward(X, training=True)
    twin.parameters[0].value += 1

    np.testing.assert_array_equal(model.forward(X), before)
    assert twin.parameters[0] is twin.layers[0].parameters[0]


def test_shows_its_layers():
    assert re.sub(" +", " ", repr(nn.MLP([6, 5, 3]))) == (
        "MLP(\n hidden1 affine weight (5, 6), bias (5,)\n hidden1.relu relu\n output affine weight (3, 5), bias (3,)\n)"
    )


def test_misfit_names_the_layer():
    with pytest.raises(errors.ShapeError, match=re.escape("hidden1 got an input of shape (4, 6), wanted (batch, 7)")):
        nn.MLP([7, 5, 3]).forward(X)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"activation": "swish"}, "no activation function is called 'swish'; there are relu, leaky_relu, tanh"),
        ({"norm": "group"}, "no norm is called 'group'; there are layer, batch, or None"),
        ({"init": "magic"}, "no initialiser is called 'magic'"),
    ],
)
def test_unknown_names_list_the_known_ones(settings, text):
    with pytest.raises(errors.UnknownName, match=text):
        nn.MLP([6, 5, 3], **settings)


@pytest.mark.parametrize("settings", [{"sizes": [6]}, {"sizes": [6, 0, 3]}, {"sizes": [6, 3], "dtype": int}])
def test_settings_that_make_no_network_are_refused(settings):
    with pytest.raises(ValueError, match=r"MLP\("):
        nn.MLP(**settings)
