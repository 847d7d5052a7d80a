"""The same numbers as PyTorch, to 1e-10 in float64: outputs, gradients, trajectories."""

from __future__ import annotations

import numpy as np
import pytest

from nndiag import nn

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.frameworks

ACTIVATIONS = {
    "relu": torch.nn.ReLU,
    "leaky_relu": torch.nn.LeakyReLU,
    "tanh": torch.nn.Tanh,
    "sigmoid": torch.nn.Sigmoid,
}
NORMS = {"layer": torch.nn.LayerNorm, "batch": torch.nn.BatchNorm1d}
rng = np.random.default_rng(0)
X = rng.normal(size=(7, 6))
LOSSES = {
    "classes": (nn.SoftmaxCrossEntropy(), torch.nn.CrossEntropyLoss(), rng.integers(4, size=7)),
    "smoothed": (nn.SoftmaxCrossEntropy(0.2), torch.nn.CrossEntropyLoss(label_smoothing=0.2), rng.integers(4, size=7)),
    "mixture": (nn.SoftmaxCrossEntropy(0.2), torch.nn.CrossEntropyLoss(label_smoothing=0.2), rng.random((7, 4))),
    "binary": (nn.BCEWithLogits(), torch.nn.BCEWithLogitsLoss(), rng.integers(2, size=(7, 4)).astype(float)),
    "real": (nn.MSE(), torch.nn.MSELoss(), rng.normal(size=(7, 4))),
}


def twins(activation="relu", norm=None):
    """The same network twice: nndiag's and PyTorch's."""
    ours = nn.MLP([6, 8, 8, 4], activation, norm=norm, dtype=np.float64)
    modules = []
    for fan_in, fan_out in ((6, 8), (8, 8)):
        modules.append(torch.nn.Linear(fan_in, fan_out))
        modules.extend([NORMS[norm](fan_out)] if norm else [])
        modules.append(ACTIVATIONS[activation]())
    theirs = torch.nn.Sequential(*modules, torch.nn.Linear(8, 4)).double()
    with torch.no_grad():
        for parameter, other in zip(ours.parameters, theirs.parameters(), strict=True):
            other.copy_(torch.from_numpy(parameter.value))
    return ours, theirs


def close(ours, theirs) -> None:
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("norm", [None, "layer", "batch"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_outputs_and_gradients_are_those_of_pytorch(activation, norm):
    ours, theirs = twins(activation, norm)
    loss, other_loss, y = LOSSES["classes"]

    outputs, other_outputs = ours.forward(X, training=True), theirs(torch.from_numpy(X))
    loss(outputs, y)
    ours.backward(loss.backward())
    other_loss(other_outputs, torch.from_numpy(y)).backward()

    close(outputs, other_outputs)
    for parameter, other in zip(ours.parameters, theirs.parameters(), strict=True):
        close(parameter.gradient, other.grad)


def test_batch_norm_evaluates_as_pytorch():
    ours, theirs = twins(norm="batch")
    for _ in range(3):
        ours.forward(X, training=True)
        theirs(torch.from_numpy(X))

    close(ours.forward(X), theirs.eval()(torch.from_numpy(X)))


@pytest.mark.parametrize("name", LOSSES)
def test_loss_and_its_gradient_are_those_of_pytorch(name):
    loss, other_loss, y = LOSSES[name]
    outputs = np.random.default_rng(1).normal(scale=5, size=(7, 4))
    other_outputs = torch.tensor(outputs, requires_grad=True)

    value, other_value = loss(outputs, y), other_loss(other_outputs, torch.from_numpy(y))
    other_value.backward()

    assert value == pytest.approx(other_value.item(), rel=1e-12)
    close(loss.backward(), other_outputs.grad)


@pytest.mark.parametrize(
    ("optimizer", "make_other"),
    [
        (nn.SGD(0.1), lambda p: torch.optim.SGD(p, 0.1)),
        (nn.SGD(0.1, momentum=0.9), lambda p: torch.optim.SGD(p, 0.1, momentum=0.9)),
        (nn.Adam(0.01), lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.0)),
        (nn.Adam(0.01, (0.8, 0.95), 1e-6), lambda p: torch.optim.AdamW(p, 0.01, (0.8, 0.95), 1e-6, weight_decay=0)),
    ],
    ids=["SGD", "momentum", "Adam", "Adam with other betas"],
)
def test_trajectory_is_that_of_pytorch(optimizer, make_other):
    ours, theirs = twins("tanh")
    follow_both(ours, theirs, optimizer, make_other(theirs.parameters()))


@pytest.mark.parametrize(
    ("optimizer", "make_other"),
    [
        (nn.SGD(0.1, 0.9, weight_decay=0.05), lambda groups: torch.optim.SGD(groups, 0.1, momentum=0.9)),
        (nn.Adam(0.01, weight_decay=0.05), lambda groups: torch.optim.AdamW(groups, 0.01)),
    ],
    ids=["SGD", "AdamW"],
)
def test_weight_decay_is_that_of_pytorch_on_the_weights_alone(optimizer, make_other):
    ours, theirs = twins("tanh", norm="layer")
    weights = [other for other in theirs.parameters() if other.ndim == 2]
    rest = [other for other in theirs.parameters() if other.ndim == 1]
    groups = [{"params": weights, "weight_decay": 0.05}, {"params": rest, "weight_decay": 0.0}]

    follow_both(ours, theirs, optimizer, make_other(groups))


def follow_both(ours, theirs, optimizer, other_optimizer) -> None:
    loss, other_loss, y = LOSSES["classes"]
    trainer = nn.Trainer(ours, loss, optimizer)
    for _ in range(20):
        value = trainer.step(X, y)
        other_value = other_loss(theirs(torch.from_numpy(X)), torch.from_numpy(y))
        other_optimizer.zero_grad()
        other_value.backward()
        other_optimizer.step()
        assert value == pytest.approx(other_value.item(), rel=1e-10)
    for parameter, other in zip(ours.parameters, theirs.parameters(), strict=True):
        close(parameter.value, other)


def test_clipping_is_that_of_pytorch():
    parameters = [nn.Parameter(f"p{size}", "weight", np.zeros(size)) for size in (3, 5)]
    others = [torch.zeros(size, dtype=torch.float64) for size in (3, 5)]
    for parameter, other in zip(parameters, others, strict=True):
        parameter.gradient[...] = np.arange(len(parameter.value)) + 1
        other.grad = torch.from_numpy(parameter.gradient.copy())

    norm = nn.clip_by_global_norm(parameters, 1.5)

    assert norm == pytest.approx(torch.nn.utils.clip_grad_norm_(others, 1.5).item(), rel=1e-12)
    for parameter, other in zip(parameters, others, strict=True):  # PyTorch adds 1e-6 to the norm
        np.testing.assert_allclose(parameter.gradient, other.grad.numpy(), rtol=1e-6)
