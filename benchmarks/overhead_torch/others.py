"""Other tools that watch the training of a PyTorch model, each as its documentation says, on the same loop.

Installed into an environment that has PyTorch they need, and with it Graphviz's `dot` for torchexplorer:

    pip install tensorboard==2.21.0 wandb==0.31.0 monitorch==0.1.0.7 nndiagnostics==0.1.9 torchexplorer==1.1.2
    pip install --no-deps fastai==2.8.12 fasttransform==0.0.5 fastdownload==0.0.8 fastprogress==1.1.6 plum-dispatch==2.9.0
    pip install python-fasthtml==0.14.14 scikit-learn beartype rich

fastai comes without its dependencies, which ask for torchvision and spaCy: its callbacks need neither.
"""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Iterator
from functools import partial
from itertools import count
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from benchmarks.overhead_torch.loop import Attach, Tool, Training


def tensorboard(training: Training) -> Tool:
    """`add_histogram` of every activation, gradient and weight at every step, as tutorials do."""
    writer = importlib.import_module("torch.utils.tensorboard").SummaryWriter(tempfile.mkdtemp(prefix="overhead-"))
    steps = count()
    step = next(steps)

    def activation(module: nn.Module, inputs: Any, output: torch.Tensor, *, name: str) -> None:
        writer.add_histogram(f"activations/{name}", output, step)

    def loss(value: torch.Tensor) -> None:
        writer.add_scalar("loss", value.item(), step)

    def gradients() -> None:
        nonlocal step
        for name, parameter in training.model.named_parameters():
            writer.add_histogram(f"gradients/{name}", parameter.grad, step)
            writer.add_histogram(f"weights/{name}", parameter, step)
        step = next(steps)

    for name, module in _leaves(training.model):
        module.register_forward_hook(partial(activation, name=name))
    return Tool(on_loss=loss, on_gradients=gradients, close=writer.close)


def wandb(training: Training, *, log: str, log_freq: int) -> Tool:
    """`run.watch(model, log, log_freq=…)` and `run.log` of the loss at every step, offline: the run stays on the disk.

    Offline the histograms are taken as online; with `mode="disabled"` none is. What wandb's own process does with them,
    beside the training, is not counted.
    """
    module = importlib.import_module("wandb")
    run = module.run or module.init(project="overhead", mode="offline", dir=tempfile.mkdtemp(prefix="overhead-"))
    run.watch(training.model, log=log, log_freq=log_freq)
    values: dict[str, float] = {}

    def loss(value: torch.Tensor) -> None:
        values["loss"] = value.item()

    def close() -> None:
        run.unwatch(training.model)

    return Tool(on_loss=loss, on_step=lambda: run.log(values), close=close)


def monitorch(training: Training) -> Tool:
    """Every lens of Monitorch with its defaults; what it draws at the end of an epoch is not counted."""
    lens = importlib.import_module("monitorch.lens")
    inspector = importlib.import_module("monitorch.inspector").PyTorchInspector(
        lenses=[
            lens.LossMetrics(),
            lens.OutputActivation(),
            lens.OutputNorm(),
            lens.OutputGradientGeometry(),
            lens.ParameterGradientActivation(),
            lens.ParameterGradientGeometry(),
            lens.ParameterNorm(),
            lens.ParameterUpdateGeometry(optimizer=training.optimizer),
        ],
        module=training.model,
        visualizer=importlib.import_module("monitorch.visualizer").DummyVisualizer(),
    )

    def loss(value: torch.Tensor) -> None:
        inspector.push_loss(value.item(), train=True)

    return Tool(on_loss=loss, close=inspector.detach)


def fastai(training: Training) -> Tool:
    """`ActivationStats(with_hist=True)`, on every module with parameters and every batch, without fastai's own loop."""
    stats = importlib.import_module("fastai.callback.hook").ActivationStats(with_hist=True)
    stats.learn = SimpleNamespace(model=training.model, training=True)
    stats.before_fit()
    return Tool(on_step=stats.after_batch, close=stats.after_fit)


def torchexplorer(training: Training) -> Tool:
    """`watch(model, log_freq=1)`: samples of 1000 values of inputs, outputs, their gradients, and parameters; nothing shown."""
    importlib.import_module("torchexplorer").watch(training.model, log_freq=1, backend="none", verbose=False)
    return Tool()


def nndiagnostics(training: Training) -> Tool:
    """`attach_diagnostics(model)`: sums over every dimension of every output, gradient and parameter, and covariances."""
    importlib.import_module("diagnostics").attach_diagnostics(training.model)
    return Tool()


def nndiagnostics_infinite(training: Training) -> Tool:
    """`register_inf_check_hooks(model)`: whether sums of outputs and gradients are finite."""
    importlib.import_module("diagnostics").register_inf_check_hooks(training.model)
    return Tool()


OTHERS: dict[str, Attach] = {
    "TensorBoard histograms of activations, gradients and weights": tensorboard,
    'wandb.watch(log="gradients", log_freq=1), offline': partial(wandb, log="gradients", log_freq=1),
    'wandb.watch(log="all", log_freq=1), offline': partial(wandb, log="all", log_freq=1),
    'wandb.watch(log="gradients"), in the 999 of 1000 steps without histograms': partial(
        wandb, log="gradients", log_freq=1000
    ),
    "Monitorch, all lenses": monitorch,
    "fastai's ActivationStats(with_hist=True)": fastai,
    "torchexplorer.watch(log_freq=1)": torchexplorer,
    "nndiagnostics' attach_diagnostics": nndiagnostics,
    "nndiagnostics' register_inf_check_hooks": nndiagnostics_infinite,
}
"""What is measured at every step, unless it says otherwise."""


def quiet() -> None:
    """Have no tool talk to a network or fill the screen."""
    os.environ |= {
        "WANDB_MODE": "offline",
        "WANDB_SILENT": "true",
        "WANDB_CONSOLE": "off",
        "WANDB_ERROR_REPORTING": "false",
    }


def _leaves(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    return ((name, module) for name, module in model.named_modules() if not list(module.children()))
