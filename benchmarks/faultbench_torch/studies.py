"""Programs from the studies of other tools: UMLAUT, TDC TheDeepChecker, C mutants of DeepCrime."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import nn
from torch.optim import SGD, Adam

from benchmarks.faultbench.program import Case
from benchmarks.faultbench_torch import layers
from benchmarks.faultbench_torch.data import Data, digits, one_hot, scaled
from benchmarks.faultbench_torch.layers import he, initialised
from benchmarks.faultbench_torch.program import Program, hold_out, shuffled
from benchmarks.faultbench_torch.questions import conv, net

Activation = type[nn.Module] | partial[nn.Module]
HIDDEN_SOFTMAX = partial(nn.Softmax, dim=1)


# Networks


def umlaut_net(activation: type[nn.Module]) -> nn.Module:
    """Four convolutions and three linear layers, each but the last with this activation."""
    return net(
        nn.Conv2d(1, 8, 3, padding=1), activation(), nn.Conv2d(8, 8, 3, padding=1), activation(), nn.MaxPool2d(2),
        nn.Dropout(0.2),
        nn.Conv2d(8, 16, 3, padding=1), activation(), nn.Conv2d(16, 16, 3, padding=1), activation(), nn.MaxPool2d(2),
        nn.Dropout(0.2),
        nn.Flatten(), nn.Linear(64, 32), activation(), nn.Linear(32, 32), activation(), nn.Dropout(0.2),
        nn.Linear(32, 10),
    )  # fmt: skip


def tutorial_net(head: tuple[nn.Module, ...]) -> nn.Module:
    """The convolutional network of a well-known tutorial, weights of 0.1 and biases of 0.1 included."""
    model = net(
        conv(1, 8, 5, 2), nn.MaxPool2d(2), conv(8, 16, 5, 2), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 10), head,
    )  # fmt: skip
    return initialised(model, partial(nn.init.trunc_normal_, std=0.1, a=-0.2, b=0.2), bias=0.1)


def base_net(activation: Activation = nn.ReLU) -> nn.Module:
    """Two convolutions and two linear layers."""
    return he(net(
        nn.Conv2d(1, 8, 5, padding=2), activation(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1), activation(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(64, 64), activation(), nn.Linear(64, 10),
    ))  # fmt: skip


def block(inputs: int, filters: int, rate: float) -> tuple[nn.Module, ...]:
    """Two convolutions, each with batch normalisation behind its ReLU, pooling and dropout."""
    return (
        *conv(inputs, filters, padding=1), nn.BatchNorm2d(filters),
        *conv(filters, filters, padding=1), nn.BatchNorm2d(filters), nn.MaxPool2d(2), nn.Dropout(rate),
    )  # fmt: skip


def deep_net(head: tuple[nn.Module, ...] = ()) -> nn.Module:
    """Six convolutions and two linear layers."""
    return he(net(
        block(1, 8, 0.2), block(8, 16, 0.3), block(16, 32, 0.4), nn.Flatten(),
        nn.Linear(32, 32), nn.ReLU(), nn.BatchNorm1d(32), nn.Dropout(0.5), nn.Linear(32, 10), head,
    ))  # fmt: skip


def cifar_net(second: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Four convolutions and two linear layers; `second` is the activation of the second convolution."""
    return net(
        conv(1, 8, padding=1), nn.Conv2d(8, 8, 3, padding=1), second(), nn.MaxPool2d(2), nn.Dropout(0.25),
        conv(8, 16, padding=1), conv(16, 16, padding=1), nn.MaxPool2d(2), nn.Dropout(0.25), nn.Flatten(),
        nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 10),
    )  # fmt: skip


def with_ones() -> nn.Module:
    """The same with the weights of the second convolution all 1."""
    model = cifar_net()
    second: nn.Conv2d = model[2]
    nn.init.ones_(second.weight)
    return model


# What is done to data


def first_hundred(data: Data) -> tuple[Data, Data]:
    """All rows for training, and the first hundred of them for validation."""
    return data, (data[0][:100], data[1][:100])


def misaligned(data: Data, size: int, order: torch.Generator) -> Iterator[Data]:
    """Batches whose inputs are shuffled and whose labels are not."""
    x, y = data
    yield from zip(x[torch.randperm(len(x), generator=order)].split(size), y.split(size), strict=True)


def spoilt(data: Data, size: int, order: torch.Generator) -> Iterator[Data]:
    """Shuffled batches, half of whose pixels are off by up to a half, and a quarter of each picture erased."""
    for x, y in shuffled(data, size, order):
        noise, hit = torch.rand(x.shape, generator=order) - 0.5, torch.rand(x.shape, generator=order) < 0.5
        x = x + noise * hit
        row, column = torch.randint(0, 5, (2,), generator=order).tolist()
        x[:, :, row : row + 4, column : column + 4] = 0
        yield x, y


# Programs

BASE = Program(digits(), base_net, nn.CrossEntropyLoss(), partial(SGD, lr=0.1, weight_decay=1e-5), 6,
               split=hold_out(0.2))  # fmt: skip
"""The sound small network that TheDeepChecker plants faults into."""

DEEP = Program(digits(), deep_net, nn.CrossEntropyLoss(), partial(SGD, lr=0.01, momentum=0.9), 6,
               split=hold_out(0.2))  # fmt: skip
"""Its sound deep network; the rate suits 216 updates where the original's, a tenth of it, suits 15,000."""

MUTANT = Program(digits(), cifar_net, nn.CrossEntropyLoss(), Adam, 8, split=hold_out(0.2))
"""The sound program that DeepCrime makes mutants of."""


def planted(name: str, fault: str, program: Program) -> Case:
    """A fault in a sound program, which is a case of its own."""
    return Case(name, (fault,), "B", "classes", program)


def clean(name: str, program: Program) -> Case:
    """A sound program that others are made from."""
    return Case(name, ("CLEAN",), "B", "classes", program, role="control")


CASES = (
    Case(
        "UMLAUT-B", ("LR_HIGH", "ACT_LINEAR_HIDDEN", "DATA_LEAK_VAL"), "I", "classes",
        Program(digits(), lambda: umlaut_net(nn.Identity), nn.CrossEntropyLoss(), partial(Adam, lr=1e3), 10, 128,
                first_hundred),
        {"model": lambda: umlaut_net(nn.ReLU), "optimizer": Adam, "split": hold_out(0.2), "epochs": 15},
    ),  # CIFAR-10, eight times as many filters, a rate of -1000, which PyTorch refuses
    Case(
        "TDC-IPS_1", ("LOSS_IMPL",), "I", "classes",
        Program(one_hot(digits(), 10), lambda: tutorial_net((nn.Softmax(dim=1),)), layers.sum_of_logs, Adam, 3),
        {"data": digits(), "model": lambda: tutorial_net(()), "loss": nn.CrossEntropyLoss()},
    ),  # MNIST, four times as many filters, 10 epochs at a rate of 1e-4
    planted("TDC-deep-double_normalization", "DATA_DOUBLE_NORM", replace(DEEP, data=scaled(digits(), 1 / 255))),
    planted("TDC-base-low_lr", "LR_LOW", replace(BASE, optimizer=partial(SGD, lr=0.001, weight_decay=1e-5))),
    planted("TDC-deep-low_lr", "LR_LOW", replace(DEEP, optimizer=partial(SGD, lr=1e-4, momentum=0.9))),
    planted("TDC-deep-low_adam_epsilon", "OPT_EPS", replace(DEEP, optimizer=partial(Adam, lr=0.01, eps=1e-16))),
    planted("TDC-deep-flipped_sign", "GRAD_SIGN",
            replace(DEEP, optimizer=partial(SGD, lr=0.01, momentum=0.9, maximize=True))),
    planted("TDC-deep-wrong_labels", "DATA_LABELS", replace(DEEP, batches=misaligned)),
    planted("TDC-base-wrong_activation", "ACT_HIDDEN_WRONG", replace(BASE, model=lambda: base_net(HIDDEN_SOFTMAX))),
    planted("TDC-deep-missing_softmax", "OUT_MISSING_ACT",
            replace(DEEP, data=one_hot(digits(), 10), loss=layers.clamped_cross_entropy)),
    planted("TDC-base-wrong_softmax_axis", "LOSS_IMPL", replace(BASE, loss=layers.softmax_over_the_batch)),
    planted("TDC-deep-wrong_softmax_axis", "LOSS_IMPL",
            replace(DEEP, model=lambda: deep_net((nn.Softmax(dim=0),)), loss=layers.nll_of_probabilities)),
    planted("TDC-base-wrong_augmentation", "DATA_AUG", replace(BASE, batches=spoilt)),
    clean("TDC-base-CLEAN", BASE),
    clean("TDC-deep-CLEAN", DEEP),
    planted("C1", "ACT_HIDDEN_WRONG", replace(MUTANT, model=lambda: cifar_net(nn.Hardsigmoid))),
    planted("C2", "EPOCHS_LOW", replace(MUTANT, epochs=1)),
    planted("C3", "INIT_BAD", replace(MUTANT, model=with_ones)),
    clean("C-CLEAN", MUTANT),
)  # fmt: skip
"""What was made smaller, or written otherwise, stands behind a program; MNIST and CIFAR-10 are digits throughout, the
networks of TheDeepChecker have a quarter of its filters, and those of DeepCrime too."""
