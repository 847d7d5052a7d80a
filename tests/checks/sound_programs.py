"""Small real trainings that several test modules judge: sound ones of every kind, each trained once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

import nndiag
from nndiag import demo, nn
from nndiag.datasets import digits
from nndiag.nn.optimizers import Optimizer
from nndiag.run import Run
from nndiag.statistics import Array

Data = tuple[Array, Array, Array, Array]


def some_digits(rows: int = 600) -> Data:
    """Training inputs and labels, and 200 of each to validate with."""
    split = digits()
    return split.x[:rows], split.y[:rows], split.x_val[:200], split.y_val[:200]


def noisy_digits() -> Data:
    """40 % of the training labels drawn anew."""
    x, y, x_val, y_val = some_digits()
    rng = np.random.default_rng(0)
    return x, np.where(rng.random(len(y)) < 0.4, rng.integers(0, 10, len(y)), y), x_val, y_val


def weak_signal() -> Data:
    """A regression whose inputs explain 8 % of the targets' variance."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((800, 10)).astype(np.float32)
    y = (0.3 * x[:, :1] + rng.standard_normal((800, 1))).astype(np.float32)
    return x[:600], y[:600], x[600:], y[600:]


def train(
    data: Data,
    hidden: list[int],
    optimizer: Optimizer,
    epochs: int,
    batch_size: int = 64,
    *,
    loss: nn.Loss | None = None,
    change: Callable[[nn.MLP], object] | None = None,
    shuffle: bool = True,
    **options: Any,
) -> Run:
    """The record, every step of it, of an MLP on `data`, after `change` has had its way with the model."""
    x, y, x_val, y_val = data
    model = nn.MLP([x.shape[1], *hidden, 1 if y.ndim > 1 else int(y.max()) + 1], **options)
    if change is not None:
        change(model)
    trainer = nn.Trainer(model, loss or (nn.MSE() if y.ndim > 1 else nn.SoftmaxCrossEntropy()), optimizer)
    with nndiag.watch(trainer, every=1, strict=True) as recorder:
        trainer.fit(x, y, validation=(x_val, y_val), epochs=epochs, batch_size=batch_size, shuffle=shuffle)
    return recorder.run


def the_demo() -> Run:
    """What the demo trains when nothing is broken."""
    return demo.demo(probes=False, epochs=10)[1].run


SOUND: dict[str, Callable[[], Run]] = {
    "the demo": the_demo,
    "sigmoid": lambda: train(some_digits(), [32, 32], nn.SGD(0.5, momentum=0.9), 40, activation="sigmoid"),
    "deep sigmoid that passes through a plateau": lambda: train(
        some_digits(), [32] * 3, nn.Adam(1e-2), 40, activation="sigmoid"
    ),
    "tanh": lambda: train(some_digits(), [32, 32], nn.SGD(0.05, momentum=0.9), 30, activation="tanh"),
    "full batch": lambda: train(some_digits(), [32], nn.SGD(0.5, momentum=0.9), 200, 600),
    "full batch at the edge of stability": lambda: train(some_digits(), [32], nn.SGD(1.0), 200, 600),
    "batches of one": lambda: train(some_digits(400), [16], nn.SGD(0.05), 2, 1),
    "cosine to zero": lambda: train(some_digits(), [32], nn.SGD(nn.Cosine(0.1, 200), momentum=0.9), 20),
    "warm-up": lambda: train(some_digits(), [32], nn.SGD(nn.WarmUp(nn.Cosine(0.2, 180), 20), momentum=0.9), 20),
    "steps of a tenth": lambda: train(
        some_digits(), [32], nn.SGD(lambda step: 0.1 * 0.1 ** (step // 60), momentum=0.9), 20
    ),
    "label noise": lambda: train(noisy_digits(), [32], nn.SGD(0.05, momentum=0.9), 20),
    "weak signal": lambda: train(weak_signal(), [16], nn.SGD(0.01, momentum=0.9), 15),
    "dropout": lambda: train(some_digits(), [64], nn.SGD(0.05, momentum=0.9), 20, dropout=0.5),
    "Adam with decay": lambda: train(some_digits(), [32, 32], nn.Adam(3e-3, weight_decay=0.1), 20),
    "weight decay": lambda: train(some_digits(), [32], nn.SGD(0.1, momentum=0.9, weight_decay=1e-3), 30),
    "batch norm": lambda: train(some_digits(), [32], nn.SGD(0.1), 10, 16, norm="batch"),
    "label smoothing": lambda: train(some_digits(), [32], nn.Adam(5e-3), 20, loss=nn.SoftmaxCrossEntropy(0.1)),
    "three epochs": lambda: train(some_digits(), [64], nn.SGD(0.1, momentum=0.9), 3, 16),
    "logistic regression": lambda: train(some_digits(), [], nn.SGD(0.1, momentum=0.9), 20),
}  # fmt: skip
"""Programs that train as they should, by what is special about them."""


@cache
def sound(name: str) -> Run:
    """The record of a sound program."""
    return SOUND[name]()
