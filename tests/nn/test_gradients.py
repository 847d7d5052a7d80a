"""Every layer, loss and combination of them against central differences in float64."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest

from nndiag import nn

rng = np.random.default_rng(0)
CLASSES = rng.integers(4, size=6)
MIXTURE = rng.dirichlet(np.ones(4), size=6)

LAYERS = {
    "affine": lambda: nn.Affine(5, 3, bias=0.1, dtype=np.float64),
    "relu": nn.ReLU,
    "leaky_relu": lambda: nn.LeakyReLU(0.1),
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "softmax": nn.Softmax,
    "dropout": lambda: nn.Dropout(0.4),
    "layer_norm": lambda: nn.LayerNorm(5, dtype=np.float64),
    "batch_norm": lambda: nn.BatchNorm(5, dtype=np.float64),
}
LOSSES = {
    "softmax cross-entropy": (nn.SoftmaxCrossEntropy, CLASSES),
    "softmax cross-entropy on a mixture": (nn.SoftmaxCrossEntropy, MIXTURE),
    "softmax cross-entropy on any weights": (nn.SoftmaxCrossEntropy, 3 * MIXTURE),
    "smoothed softmax cross-entropy": (lambda: nn.SoftmaxCrossEntropy(0.1), CLASSES),
    "BCE with logits": (nn.BCEWithLogits, rng.integers(2, size=(6, 4))),
    "MSE": (nn.MSE, rng.normal(size=(6, 4))),
}


def central_differences(f: Callable[[], float], array: np.ndarray, eps: float = 1e-6) -> np.ndarray:
    """Gradient of f() with respect to `array`, which f reads."""
    gradient = np.empty_like(array)
    for index in np.ndindex(array.shape):
        kept = array[index]
        array[index] = kept + eps
        above = f()
        array[index] = kept - eps
        below = f()
        array[index] = kept
        gradient[index] = (above - below) / (2 * eps)
    return gradient


def shaken(parameters) -> None:
    """Move parameters off their round starting values, so that no factor hides behind a 0 or a 1."""
    shake = np.random.default_rng(7)
    for parameter in parameters:
        parameter.value += shake.normal(scale=0.3, size=parameter.value.shape)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", LAYERS)
def test_layer_agrees_with_central_differences(kind, training):
    layer = LAYERS[kind]()
    shaken(layer.parameters)
    x = np.random.default_rng(1).normal(size=(6, 5))
    direction = np.random.default_rng(2).normal(size=(6, layer.output_width(5)))

    def along_direction() -> float:
        return float(np.sum(copy.deepcopy(layer).forward(x, training) * direction))

    numeric = [central_differences(along_direction, array) for array in (x, *(p.value for p in layer.parameters))]
    layer.forward(x, training)
    analytic = [layer.backward(direction.copy()), *(parameter.gradient for parameter in layer.parameters)]

    assert layer.kind == kind
    for ours, theirs in zip(analytic, numeric, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("name", LOSSES)
def test_loss_agrees_with_central_differences(name):
    make, targets = LOSSES[name]
    loss, outputs = make(), np.random.default_rng(3).normal(size=(6, 4))

    numeric = central_differences(lambda: loss(outputs, targets), outputs)
    loss(outputs, targets)

    np.testing.assert_allclose(loss.backward(), numeric, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(loss.backward(), numeric, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("targets", [CLASSES, MIXTURE])
def test_cross_entropy_on_probabilities_agrees_with_central_differences(targets):
    loss, outputs = nn.CrossEntropy(), np.random.default_rng(3).dirichlet(np.ones(4), size=6)

    numeric = central_differences(lambda: loss(outputs, targets), outputs, eps=1e-7)
    loss(outputs, targets)

    np.testing.assert_allclose(loss.backward(), numeric, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("activation", "norm", "name"),
    list(product(["relu", "leaky_relu", "tanh", "sigmoid", None], [None, "layer", "batch"], LOSSES)),
)
def test_network_agrees_with_central_differences(activation, norm, name):
    make, targets = LOSSES[name]
    model, loss = nn.MLP([3, 5, 5, 4], activation, norm=norm, dtype=np.float64, seed=4), make()
    shaken(model.parameters)
    x = np.random.default_rng(5).normal(size=(6, 3))

    numeric = [
        central_differences(lambda: loss(model.forward(x, training=True), targets), parameter.value)
        for parameter in model.parameters
    ]
    loss(model.forward(x, training=True), targets)
    model.backward(loss.backward())

    for parameter, gradient in zip(model.parameters, numeric, strict=True):
        np.testing.assert_allclose(parameter.gradient, gradient, rtol=1e-6, atol=1e-8, err_msg=parameter.name)


def test_softmax_and_cross_entropy_give_the_gradient_of_both_in_one():
    x = np.random.default_rng(5).normal(size=(6, 3))
    apart = nn.Sequential([nn.Affine(3, 4, dtype=np.float64), nn.Softmax()])
    together = nn.Sequential([nn.Affine(3, 4, dtype=np.float64)])
    together.parameters[0].value[...] = apart.parameters[0].value

    for model, loss in ((apart, nn.CrossEntropy()), (together, nn.SoftmaxCrossEntropy())):
        loss(model.forward(x, training=True), CLASSES)
        model.backward(loss.backward())

    np.testing.assert_allclose(apart.parameters[0].gradient, together.parameters[0].gradient, rtol=1e-12, atol=1e-15)
