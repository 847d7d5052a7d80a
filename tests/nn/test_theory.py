"""The theory notebook's sections 1 to 11, reproduced through nndiag.nn's own interface."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nndiag import nn

REFERENCE: dict[str, Any] = json.loads((Path(__file__).parent / "theory_reference.json").read_text())


def arrays(section: str) -> dict[str, Any]:
    return {key: np.array(value, dtype=float) for key, value in REFERENCE[section].items()}


def affine(weight: np.ndarray, bias: Any = 0.0) -> nn.Affine:
    layer = nn.Affine(weight.shape[1], weight.shape[0], dtype=np.float64)
    layer.weight.value[...] = weight
    layer.bias.value[...] = bias
    return layer


def test_section_1_affine_layer_and_relu():
    section = arrays("1_affine_relu")

    z = affine(section["W"], section["b"]).forward(section["X"])

    np.testing.assert_allclose(z, section["Z"], rtol=1e-14)
    np.testing.assert_allclose(nn.ReLU().forward(z), section["relu"], rtol=1e-14)


def test_section_2_two_layer_forward_pass():
    section = arrays("2_two_layer_forward")
    model = nn.Sequential([affine(section["W1"]), nn.ReLU(), affine(section["W2"])])
    seen = {}

    logits = model.forward(section["X"], observe=lambda layer, x, output: seen.update({layer.name: output.copy()}))

    np.testing.assert_allclose(seen["affine1.relu"], section["hidden"], rtol=1e-12)
    np.testing.assert_allclose(logits, section["logits"], rtol=1e-12)


def test_section_3_softmax_cross_entropy():
    section = arrays("3_softmax_cross_entropy")
    targets = np.array(REFERENCE["3_softmax_cross_entropy"]["targets"])

    probabilities = nn.Softmax().forward(section["logits"])

    np.testing.assert_allclose(probabilities, section["probabilities"], rtol=1e-14)
    assert nn.SoftmaxCrossEntropy()(section["logits"], targets) == pytest.approx(section["loss"], rel=1e-14)
    assert nn.CrossEntropy()(probabilities, targets) == pytest.approx(section["loss"], rel=1e-14)


def test_section_4_backprop_through_an_affine_layer():
    section = arrays("4_affine_backward")
    layer = affine(section["W"])
    layer.forward(section["X"])

    dX = layer.backward(section["dZ"])

    np.testing.assert_allclose(layer.weight.gradient, section["dW"], rtol=1e-12)
    np.testing.assert_allclose(layer.bias.gradient, section["db"], rtol=1e-12)
    np.testing.assert_allclose(dX, section["dX"], rtol=1e-12)


def test_section_5_relu_has_derivative_0_at_0():
    section = arrays("5_relu_derivative")
    relu = nn.ReLU()

    assert relu.forward(section["z"]).tolist() == section["relu"].tolist()
    assert relu.backward(np.ones(3)).tolist() == section["derivative"].tolist()


def test_section_6_finite_differences_agree_with_the_gradient():
    section = arrays("6_gradient_check")
    model, loss = nn.Sequential([affine(section["w"][None])]), nn.MSE()
    weight = model.parameters[0]

    def half_squared_error(w: np.ndarray) -> float:
        weight.value[...] = w
        return loss(model.forward(section["x"][None]), section["y"][None]) / 2

    half_squared_error(section["w"])
    model.backward(loss.backward())
    analytic = weight.gradient[0] / 2
    steps = section["eps"] * np.eye(2)
    numeric = [
        (half_squared_error(section["w"] + e) - half_squared_error(section["w"] - e)) / (2 * section["eps"])
        for e in steps
    ]

    np.testing.assert_allclose(analytic, section["analytic"], rtol=1e-14)
    assert np.abs(analytic - numeric).max() < section["max_error_below"]


def test_section_7_initialization_scale():
    section = REFERENCE["7_initialization"]

    assert nn.xavier_std(section["fan_in"], section["fan_out"]) == pytest.approx(section["xavier_std"], rel=1e-15)
    assert nn.he_std(section["fan_in"]) == pytest.approx(section["he_std"], rel=1e-15)


def test_section_8_activation_variance_through_depth():
    section = REFERENCE["8_variance_through_depth"]
    width, depth = section["width"], section["depth"]
    model = nn.Sequential(
        layer for _ in range(depth) for layer in (nn.Affine(width, width, dtype=np.float64), nn.ReLU())
    )
    rng = np.random.default_rng(section["seed"])

    for name, std in (("too small", 0.02), ("He", nn.he_std(width)), ("too large", 0.2)):
        h = rng.normal(size=(section["batch"], width))
        for parameter in model.parameters[::2]:
            parameter.value[...] = nn.normal(std)(rng, (width, width))
        variances = {}
        model.forward(h, observe=lambda layer, x, output, seen=variances: seen.update({layer.name: output.var()}))

        assert variances["affine1.relu"] == pytest.approx(section["final_variance"][name]["first"], rel=1e-10)
        assert variances[f"affine{depth}.relu"] == pytest.approx(section["final_variance"][name]["final"], rel=1e-10)


def test_section_9_sgd_with_momentum():
    section = arrays("9_sgd_momentum")
    theta = nn.Parameter("theta", "weight", section["theta0"].copy())
    optimizer = nn.SGD(lr=float(section["lr"]), momentum=float(section["beta"]))

    for expected in section["theta_after_each_step"]:
        theta.gradient[...] = theta.value
        optimizer.step([theta])
        np.testing.assert_allclose(theta.value, expected, rtol=1e-13)


def test_section_10_dropout_with_inverted_scaling():
    section = REFERENCE["10_inverted_dropout"]
    dropout = nn.Dropout(section["p_drop"], seed=section["seed"])

    dropped = dropout.forward(np.ones(10))

    assert (dropped > 0).astype(int).tolist() == section["mask"]
    assert dropped.mean() == pytest.approx(section["mean"], rel=1e-14)


def test_section_11_layer_norm():
    section = arrays("11_layer_norm")

    y = nn.LayerNorm(3, eps=float(section["eps"]), dtype=np.float64).forward(section["x"])

    np.testing.assert_allclose(y, section["y"], rtol=1e-13)
