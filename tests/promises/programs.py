"""Trainings of every layer, loss, optimiser and dtype there is, and all of one that must stay the same bit for bit."""

from __future__ import annotations

import inspect
import logging
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from nndiag import nn
from nndiag.statistics import Array

Program = Callable[[], nn.Trainer]

SAMPLES, WIDTH, CLASSES, BATCH = 50, 6, 3, 16


def concrete(base: type) -> list[type]:
    """The classes of `nndiag.nn` that derive from `base` and can be made."""
    public = [getattr(nn, name) for name in nn.__all__]
    return [cls for cls in public if inspect.isclass(cls) and issubclass(cls, base) and not inspect.isabstract(cls)]


LAYERS, LOSSES, OPTIMIZERS = concrete(nn.Layer), concrete(nn.Loss), concrete(nn.Optimizer)
DTYPES = (np.float16, np.float32, np.float64, np.longdouble)
SCHEDULES: dict[str, Any] = {
    "constant": nn.Constant(0.05),
    "cosine": nn.Cosine(0.05, steps=8, floor=1e-3),
    "warm-up": nn.WarmUp(0.05, steps=3),
    "warm-up cosine": nn.WarmUp(nn.Cosine(0.05, steps=6), steps=2),
    "own": lambda step: 0.05 / (1 + step),
}


def drawn(seed: int = 0) -> Callable[[int], float]:
    """A schedule with a state of its own: whoever calls it once more changes all that follows."""
    random = np.random.default_rng(seed)
    return lambda step: 0.05 * random.random()


SETTINGS: dict[str, Any] = {"momentum": 0.9, "weight_decay": 0.01, "label_smoothing": 0.1}
"""What is given to a class whose constructor takes it."""


def made(cls: type, dtype: DTypeLike = np.float32, **given: Any) -> Any:
    """An object of `cls`: every parameter without a default is a width."""
    parameters = inspect.signature(cls).parameters
    known = {name: WIDTH for name, parameter in parameters.items() if parameter.default is parameter.empty}
    known |= {"dtype": dtype} | given
    return cls(**{name: value for name, value in known.items() if name in parameters})


def trainer(
    layers: tuple[type, ...] = (nn.ReLU,),
    loss: type[nn.Loss] = nn.SoftmaxCrossEntropy,
    optimizer: Callable[[], nn.Optimizer] = lambda: nn.SGD(0.05, momentum=0.9),
    dtype: DTypeLike = np.float32,
    **settings: Any,
) -> nn.Trainer:
    """A network of `layers` between two affine ones, on `loss`; its outputs are what the loss expects."""
    last: dict[str, Any] = {
        "logits": None,
        "real": None,
        "probabilities": nn.Softmax if loss.task == "classes" else nn.Sigmoid,
    }
    end = last[loss.expects]
    model = nn.Sequential(
        [
            nn.Affine(WIDTH, WIDTH, dtype=dtype),
            *(made(layer, dtype) for layer in layers),
            nn.Affine(WIDTH, CLASSES, dtype=dtype),
            *([end()] if end else []),
        ],
        seed=3,
    )
    return nn.Trainer(model, made(loss, **SETTINGS), optimizer(), **settings)


def every_layer(dtype: DTypeLike = np.float32) -> nn.Trainer:
    """A network with one layer of every kind, clipped."""
    return trainer(tuple(LAYERS), dtype=dtype, clip_norm=0.5)


def _programs() -> Iterator[tuple[str, Program]]:
    for dtype in DTYPES:
        for layer in LAYERS:
            yield f"{layer.__name__} {np.dtype(dtype)}", partial(trainer, (layer,), dtype=dtype)
        for loss in LOSSES:
            yield f"{loss.__name__} {np.dtype(dtype)}", partial(trainer, loss=loss, dtype=dtype)
        yield f"clipped {np.dtype(dtype)}", partial(every_layer, dtype)
    for cls in OPTIMIZERS:
        for name, schedule in SCHEDULES.items():
            optimizer = partial(made, cls, lr=schedule, **SETTINGS)
            yield f"{cls.__name__} {name}", partial(trainer, optimizer=optimizer)
        yield f"{cls.__name__} drawn", lambda cls=cls: trainer(optimizer=partial(made, cls, lr=drawn(), **SETTINGS))
        yield f"{cls.__name__} plain float64", partial(trainer, optimizer=partial(cls, 0.05), dtype=np.float64)
    yield "frozen", _frozen
    yield "a user's layer", partial(trainer, (Odd, nn.Tanh))
    for dtype in (np.float16, np.float32, np.float64):
        for lr in (3.0, 1e4, 1e30):
            yield f"diverging {lr:g} {np.dtype(dtype)}", partial(_diverging, lr, dtype)


def _frozen() -> nn.Trainer:
    frozen = every_layer()
    for parameter in frozen.model.parameters[::2]:
        parameter.frozen = True
    return frozen


def _diverging(lr: float, dtype: DTypeLike) -> nn.Trainer:
    """Weights, activations and losses overflow and turn into NaN."""
    return trainer((nn.ReLU,), loss=nn.MSE, optimizer=partial(nn.SGD, lr), dtype=dtype)


class Odd(nn.Layer):
    """A layer of a user: its output is no buffer, in Fortran order, and of another type."""

    kind = "odd"

    def forward(self, x: Array, training: bool = True) -> Array:
        return np.asfortranarray(x.astype(np.float64))[::-1][::-1]

    def backward(self, gradient: Array) -> Array:
        return gradient.copy()


PROGRAMS: dict[str, Program] = dict(_programs())


def data(task: str, seed: int = 0) -> tuple[Array, Array]:
    """Inputs (50, 6) and targets for a loss of that task; the last batch of 16 is a small one."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((SAMPLES, WIDTH))
    ids = np.arange(SAMPLES) % CLASSES
    x[:, :CLASSES] += 2 * np.eye(CLASSES)[ids]
    return x, {"classes": ids, "binary": np.eye(CLASSES)[ids], "real": x[:, :CLASSES] @ np.ones((CLASSES, CLASSES))}[
        task
    ]


def fit(trainer: nn.Trainer, epochs: int = 2, **options: Any) -> list[dict[str, float]]:
    """Train for `epochs` of 4 steps, with validation, and give back the history."""
    task = trainer.loss.task
    return trainer.fit(*data(task), validation=data(task, seed=1), epochs=epochs, batch_size=BATCH, **options)


def state(trainer: nn.Trainer) -> dict[str, object]:
    """All that further training depends on, as bytes and plain values."""
    arrays = {parameter.name: parameter.value for parameter in trainer.model.parameters}
    arrays |= {f"{parameter.name}.gradient": parameter.gradient for parameter in trainer.model.parameters}
    arrays |= {f"{layer.name}.{key}": kept for layer in trainer.model.layers for key, kept in layer.state().items()}
    arrays |= {f"optimizer.{key}": kept for key, kept in trainer.optimizer.state().items()}
    randoms = [trainer.random, *(layer.random for layer in trainer.model.layers if layer.random is not None)]
    return {
        **{name: (str(array.dtype), array.shape, value_bytes(array)) for name, array in arrays.items()},
        "random": [repr(generator.bit_generator.state) for generator in randoms],
        "counts": (trainer.steps, trainer.epochs),
    }


def value_bytes(array: Array) -> bytes:
    """The bytes of an array without those that an extended-precision number of 80 bits is padded with."""
    raw = np.ascontiguousarray(array).reshape(-1, 1).view(np.uint8)
    return raw[:, :10].tobytes() if array.dtype == np.longdouble else raw.tobytes()


def bits(history: list[dict[str, float]]) -> list[dict[str, str]]:
    """A history that compares by bits, NaN included."""
    return [{name: float(value).hex() for name, value in epoch.items()} for epoch in history]


def environment() -> dict[str, object]:
    """What belongs to the process and not to nndiag."""
    return {
        "numpy.random": repr(np.random.get_state()),  # noqa: NPY002 - the global generator is what is looked at
        "random": random.getstate(),
        "geterr": np.geterr(),
        "geterrcall": np.geterrcall(),
        "printoptions": repr(np.get_printoptions()),
        "warnings": list(warnings.filters),
        "showwarning": warnings.showwarning,
        "root handlers": list(logging.getLogger().handlers),
        "root level": logging.getLogger().level,
        "handlers": list(logging.getLogger("nndiag").handlers),
        "level": logging.getLogger("nndiag").level,
        "propagate": logging.getLogger("nndiag").propagate,
        "logging.disable": logging.root.manager.disable,
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "excepthook": sys.excepthook,
        "thread excepthook": threading.excepthook,
        "unraisablehook": sys.unraisablehook,
        "trace": (sys.gettrace(), sys.getprofile()),
        "recursion": sys.getrecursionlimit(),
        "threads": {thread.name for thread in threading.enumerate()},
        "directory": Path.cwd(),
        "environ": dict(os.environ),
        "path": list(sys.path),
        "umask": _umask(),
    }


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
