"""A chain of layers: names, seeds, observers."""

from __future__ import annotations

import numpy as np
import pytest

from nndiag import errors, nn

X = np.random.default_rng(0).normal(size=(4, 5))


def names(model: nn.Sequential) -> list[str]:
    return [layer.name for layer in model.layers]


def test_layers_are_named_by_their_place():
    layers = [nn.LayerNorm(5), nn.Affine(5, 5), nn.Tanh(), nn.Affine(5, 5), nn.ReLU(), nn.Tanh()]

    assert names(nn.Sequential(layers)) == [
        "input.layer_norm",
        "affine1",
        "affine1.tanh",
        "affine2",
        "affine2.relu",
        "affine2.tanh",
    ]


def test_name_that_is_taken_gets_a_number():
    model = nn.Sequential([nn.Affine(5, 5), nn.ReLU(), nn.ReLU(), nn.ReLU()])

    assert names(model) == ["affine1", "affine1.relu", "affine1.relu2", "affine1.relu3"]


def test_given_name_is_kept_and_names_what_follows():
    first = nn.Affine(5, 5)
    first.name = "stem"

    model = nn.Sequential([first, nn.ReLU()])

    assert names(model) == ["stem", "stem.relu"]
    assert [parameter.name for parameter in model.parameters] == ["stem.weight", "stem.bias"]


def test_layers_without_a_seed_draw_from_the_models():
    def weights(seed: int) -> list[list[float]]:
        model = nn.Sequential([nn.Affine(5, 5), nn.Affine(5, 5)], seed=seed)
        return [layer.parameters[0].value.ravel().tolist() for layer in model.layers]

    first, second = weights(seed=0)

    assert first != second
    assert weights(seed=0) == [first, second]
    assert weights(seed=1) != [first, second]


def test_weights_that_were_seeded_or_set_stay():
    seeded, changed = nn.Affine(5, 5, seed=3), nn.Affine(5, 5)
    changed.weight.value[...] = 0.5
    before = seeded.weight.value.copy()

    nn.Sequential([seeded, changed])

    np.testing.assert_array_equal(seeded.weight.value, before)
    assert (changed.weight.value == 0.5).all()


def test_observers_see_outputs_going_forward_and_their_gradients_going_back():
    model = nn.Sequential([nn.Affine(5, 5, dtype=np.float64), nn.ReLU()])
    forward, backward = [], []

    output = model.forward(X, training=True, observe=lambda layer, x, y: forward.append((layer.name, y.copy())))
    model.backward(np.ones((4, 5)), observe=lambda layer, gradient: backward.append((layer.name, gradient.copy())))

    assert [name for name, _ in forward] == ["affine1", "affine1.relu"]
    np.testing.assert_array_equal(forward[1][1], output)
    assert [name for name, _ in backward] == ["affine1.relu", "affine1"]
    np.testing.assert_array_equal(backward[0][1], np.ones((4, 5)))
    np.testing.assert_array_equal(backward[1][1], forward[0][1] > 0)


def test_inputs_are_converted_to_the_dtype_of_the_model():
    model = nn.Sequential([nn.Affine(5, 5)])

    assert model.forward(X.tolist()).dtype == model.dtype == np.float32


def test_unknown_layer_lists_the_known_ones():
    model = nn.Sequential([nn.Affine(5, 5), nn.ReLU()])

    assert model.layer("affine1.relu") is model.layers[1]
    with pytest.raises(errors.UnknownName, match=r"'hidden9'; there are affine1, affine1\.relu"):
        model.layer("hidden9")


def test_layers_that_do_not_fit_are_named():
    model = nn.Sequential([nn.Affine(5, 4), nn.ReLU(), nn.Affine(5, 2)])

    with pytest.raises(errors.ShapeError, match="affine2 got an input of width 4, wanted 5"):
        model.output_widths(5)


def test_model_without_layers_or_with_one_twice_is_refused():
    layer = nn.ReLU()

    for layers in ([], [layer, layer]):
        with pytest.raises(ValueError, match="a model needs layers, each of them once"):
            nn.Sequential(layers)
