"""The frames of a PyTorch loop are those of the NumPy trainer on the same seeded network with the same names."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import nndiag
from nndiag import nn as plain
from nndiag.meta import KINDS
from nndiag.run import Run

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.frameworks

SIZES = (12, 16, 8, 3)
STEPS = 60


def twin(model, activation):
    """A module with the names and weights of a NumPy MLP."""
    net = torch.nn.Module()
    names = [layer.name for layer in model.layers if layer.parameters]
    functions = {"relu": torch.nn.ReLU, "tanh": torch.nn.Tanh, "sigmoid": torch.nn.Sigmoid}
    for layer in model.layers:
        if not layer.parameters:
            continue
        weight, bias = layer.parameters
        linear = torch.nn.Linear(weight.value.shape[1], weight.value.shape[0], dtype=torch.float64)
        with torch.no_grad():
            linear.weight.copy_(torch.tensor(weight.value))
            linear.bias.copy_(torch.tensor(bias.value))
        if layer.name != names[-1]:
            linear.add_module(activation, functions[activation]())
        net.add_module(layer.name, linear)

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            for name, child in net.named_children():
                self.add_module(name, child)

        def forward(self, x):
            for child in self.children():
                x = child(x)
                for function in child.children():
                    x = function(x)
            return x

    return Net()


def data(task):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(STEPS, 32, SIZES[0]))
    y = rng.integers(0, SIZES[-1], (STEPS, 32)) if task == "classes" else rng.normal(size=(STEPS, 32, SIZES[-1]))
    return x, y


def numpy_run(activation, task, momentum) -> tuple[Run, plain.Sequential]:
    model = plain.MLP(list(SIZES), activation, dtype="float64", seed=0)
    loss = plain.SoftmaxCrossEntropy() if task == "classes" else plain.MSE()
    trainer = plain.Trainer(model, loss, plain.SGD(lr=0.05, momentum=momentum), seed=0)
    with nndiag.watch(trainer, every=1) as recorder:
        for x, y in zip(*data(task), strict=True):
            trainer.step(x, y)
    return recorder.run, model


def torch_run(activation, task, momentum) -> Run:
    model = twin(plain.MLP(list(SIZES), activation, dtype="float64", seed=0), activation)
    loss_fn = torch.nn.CrossEntropyLoss() if task == "classes" else torch.nn.MSELoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=momentum)
    with nndiag.watch(model, optimizer, every=1) as recorder:
        for x, y in zip(*data(task), strict=True):
            loss = loss_fn(model(torch.tensor(x)), torch.tensor(y))
            recorder.log(loss=loss)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    return recorder.run


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize(("activation", "task"), [("relu", "classes"), ("tanh", "real"), ("sigmoid", "classes")])
def test_the_frames_are_those_of_the_numpy_trainer(activation, task, momentum):
    wanted, _ = numpy_run(activation, task, momentum)
    seen = torch_run(activation, task, momentum)
    for name in ("activations", "gradients", "updates", "losses", "data", "outputs"):
        one, other = getattr(wanted, name), getattr(seen, name)
        assert set(one.columns) == set(other.columns), name
        pd.testing.assert_frame_equal(one, other[one.columns], rtol=1e-6, atol=1e-9, obj=name)
    assert [layer.name for layer in seen.meta.layers] == [layer.name for layer in wanted.meta.layers]
    assert [layer.kind for layer in seen.meta.layers] == [layer.kind for layer in wanted.meta.layers]
    assert [p.name for p in seen.meta.parameters] == [p.name for p in wanted.meta.parameters]
    assert [p.kind for p in seen.meta.parameters] == [p.kind for p in wanted.meta.parameters]


def test_the_verdicts_are_those_of_the_numpy_trainer():
    one = nndiag.Checklist().examine(numpy_run("relu", "classes", 0.9)[0])
    other = nndiag.Checklist().examine(torch_run("relu", "classes", 0.9))
    loop = ("ND9", "ND403", "ND504")  # of the loop itself more is known in PyTorch
    pairs = zip(one.checks, other.checks, strict=True)
    assert [a.code for a, b in pairs if a.verdict is not b.verdict and not a.code.startswith(loop)] == []


def test_kinds_of_modules_and_functions_are_known():
    from nndiag_torch import layers

    assert {*layers.KINDS.values(), *layers.FUNCTIONS.values()} <= set(KINDS)
