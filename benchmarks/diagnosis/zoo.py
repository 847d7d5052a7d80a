"""The healthy zoo: sound programs of every kind that makes a diagnosis cry wolf.

Each has a bound on its final error, and `examine` shows that it is kept and that the run does not overfit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from benchmarks.diagnosis import data
from benchmarks.diagnosis.bases import BASES, MOMENTUM, cosine, warm
from benchmarks.diagnosis.data import Data
from benchmarks.diagnosis.faults import all_inputs, all_targets, keep, training, with_wrong_labels
from benchmarks.diagnosis.programs import Program, final_error
from nndiag import nn
from nndiag.statistics import Array

SEEDS = range(3)
MOST_LOST = 0.1
"""Share of the fall of the validation loss that a sound run may have given back when it ends."""


@dataclass(frozen=True)
class Sound:
    """A sound program, its kind, and the largest final error that it may have."""

    program: Program
    kind: str
    most: float


@dataclass(frozen=True)
class Soundness:
    """How a sound program did: final error, and the share of the validation loss's fall that it lost again."""

    error: float
    lost: float


def examine(job: tuple[str, int]) -> Soundness:
    """Train a zoo program with a seed, unseen."""
    name, seed = job
    error, curve = final_error(ZOO[name].program, seed)
    losses = np.array([epoch.get("validation_loss", np.nan) for epoch in curve])
    if np.isnan(losses).any():
        return Soundness(error, 0.0)
    fall = losses.max() - losses.min()
    return Soundness(error, float((losses[-1] - losses.min()) / fall) if fall > 0 else 0.0)


# Initialisations and amendments


def lecun_normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Normal weights of standard deviation √(1 / fan_in) (LeCun et al. 1998)."""
    return rng.normal(scale=shape[1] ** -0.5, size=shape)


def pytorch_uniform(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Uniform within ±√(1 / fan_in), as torch.nn.Linear begins."""
    return rng.uniform(-(shape[1] ** -0.5), shape[1] ** -0.5, size=shape)


def pytorch_biases(model: nn.Sequential) -> None:
    """Biases uniform within ±√(1 / fan_in), too."""
    rng = np.random.default_rng(model.seed + 1000)
    for layer in model.layers:
        if isinstance(layer, nn.Affine):
            layer.bias.value[...] = pytorch_uniform(rng, layer.weight.value.shape)[:, 0]


def zero_head(model: nn.Sequential) -> None:
    """The last layer begins at zero."""
    model.parameters[-2].value[...] = 0


def pytorch(program: Program) -> Program:
    """With the weights and biases that PyTorch begins with."""
    return replace(program, init=pytorch_uniform).edit_model(pytorch_biases)


# The programs


CIRCLES = Program("circles-relu", "classes", data.circles, 2, (24, 24), optimizer=nn.Adam, lr=0.01, epochs=15)


def vary(base: str, kind: str, name: str, most: float, **changes: Any) -> Sound:
    """A base with changes, called after both; "circles-relu" is a base of the zoo alone."""
    program = BASES.get(base, CIRCLES)
    return Sound(replace(program, **{"name": f"{base}-{name}", **changes}), kind, most)


def amended(sound: Sound, program: Program) -> Sound:
    """The same with another program."""
    return replace(sound, program=program)


digits = partial(vary, "digits-relu")

INITS = {"he": "he_normal", "heuniform": "he_uniform", "glorot": "xavier_uniform", "lecun": lecun_normal}
RATES: dict[data.Pixels, dict[str, Any]] = {
    "unit": {"lr": 0.03},
    "signed": {"lr": 0.01},
    "standard": {"lr": 0.01, "settings": {**MOMENTUM, "weight_decay": 1e-3}},
    "raw": {"lr": 2e-3, "optimizer": nn.Adam, "settings": {}},
}
"""For inputs from 0 to 1, from −1 to 1, standardised, and from 0 to 16."""


def scales_and_inits() -> Iterator[Sound]:
    for pixels, rate in RATES.items():
        load = partial(data.digits, pixels=pixels)
        for name, init in INITS.items():
            yield digits("inputs and initialisations", f"{pixels}-{name}", 0.1, load=load, init=init, **rate)
        torch = digits("inputs and initialisations", f"{pixels}-pytorch", 0.12, load=load, **rate)
        yield amended(torch, pytorch(torch.program))


def optimizers() -> Iterator[Sound]:
    adam: dict[str, Any] = {"optimizer": nn.Adam, "settings": {}}
    yield digits("optimisers", "adam", 0.1, **adam, lr=2e-3)
    yield digits("optimisers", "adam-fast", 0.1, **adam, lr=6e-3)
    yield digits("optimisers", "adam-betas", 0.1, optimizer=nn.Adam, lr=2e-3, settings={"betas": (0.8, 0.99)})
    yield digits("optimisers", "adam-eps", 0.1, optimizer=nn.Adam, lr=2e-3, settings={"eps": 1e-6})
    yield digits("optimisers", "sgd", 0.1, lr=0.2, settings={})
    yield digits("optimisers", "momentum-95", 0.1, lr=0.015, settings={"momentum": 0.95})
    yield digits("optimisers", "momentum-50", 0.1, lr=0.12, settings={"momentum": 0.5})
    yield digits("weight decay", "decay", 0.1, settings={**MOMENTUM, "weight_decay": 1e-3})
    yield digits("weight decay", "decay-strong", 0.1, settings={**MOMENTUM, "weight_decay": 1e-2})
    yield digits("weight decay", "adamw", 0.1, optimizer=nn.Adam, lr=3e-3, settings={"weight_decay": 0.1}, epochs=20)
    yield digits("clipping", "clip-1", 0.1, clip_norm=1.0)
    yield digits("clipping", "clip-5", 0.1, clip_norm=5.0)


def schedules() -> Iterator[Sound]:
    yield digits("warm-up", "warm-up", 0.1, lr=0.1, schedule=warm)
    yield digits("warm-up", "warm-up-large", 0.1, lr=0.2, schedule=warm, settings={**MOMENTUM, "weight_decay": 1e-4})
    yield vary("digits-batchnorm", "warm-up", "warm-up", 0.1, lr=0.01, schedule=warm)
    yield vary("blobs-plain", "warm-up", "warm-up", 0.12, lr=0.5, schedule=warm)
    yield digits("cosine to zero", "cosine", 0.1, lr=0.06, schedule=cosine)
    yield vary("digits-tanh", "cosine to zero", "cosine", 0.1, lr=0.05, schedule=cosine)
    yield vary("blobs-plain", "cosine to zero", "cosine", 0.12, lr=0.2, schedule=cosine)
    yield vary("tags-relu", "cosine to zero", "cosine", 0.22, lr=6e-3, schedule=cosine)
    yield vary("cancer-relu", "cosine to zero", "cosine", 0.08, lr=6e-3, schedule=cosine)


def depths() -> Iterator[Sound]:
    for depth in (1, 3, 4, 5):
        yield digits("sparse ReLU nets", f"depth-{depth}", 0.1, hidden=(48,) * depth, lr=0.02)
    yield digits("sparse ReLU nets", "depth-8", 0.12, hidden=(48,) * 8, lr=0.01, epochs=16, schedule=warm)
    yield digits("sparse ReLU nets", "wide", 0.1, hidden=(192,))
    yield digits("sparse ReLU nets", "narrow", 0.15, hidden=(14,), lr=0.05)
    yield digits("sparse ReLU nets", "funnel", 0.1, hidden=(96, 48, 24))
    yield digits("sparse ReLU nets", "leaky", 0.1, activation="leaky_relu")
    yield vary("spirals-relu", "sparse ReLU nets", "deep", 0.05, hidden=(32,) * 4)
    yield vary("words-relu", "sparse ReLU nets", "wide", 0.1, hidden=(96,), lr=2e-3)
    yield vary("circles-relu", "sparse ReLU nets", "deep", 0.05, hidden=(24,) * 4, lr=5e-3)


def saturating() -> Iterator[Sound]:
    kind = "tanh and sigmoid nets"
    yield vary("digits-tanh", kind, "one", 0.1, hidden=(48,), lr=0.05)
    yield vary("digits-tanh", kind, "five", 0.1, hidden=(48,) * 5)
    yield vary("digits-tanh", kind, "adam", 0.1, optimizer=nn.Adam, lr=2e-3, settings={})
    yield vary("digits-tanh", kind, "glorot", 0.1, init="xavier_uniform")
    yield vary("digits-tanh", kind, "sigmoid", 0.12, hidden=(48,), activation="sigmoid", lr=0.3)
    yield vary("digits-tanh", kind, "sigmoid-adam", 0.12, hidden=(48,), activation="sigmoid", optimizer=nn.Adam,
               lr=0.01, settings={})  # fmt: skip
    yield vary("cancer-sigmoid", kind, "wide", 0.08, hidden=(48,))
    yield vary("iris-tanh", kind, "sigmoid", 0.15, activation="sigmoid", lr=0.1, epochs=30)
    yield vary("sine-tanh", kind, "sigmoid", 0.2, hidden=(48,), activation="sigmoid", lr=0.03, epochs=30)
    yield vary("sine-tanh", kind, "three", 0.15, hidden=(32,) * 3)
    yield vary("circles-relu", kind, "tanh", 0.05, activation="tanh", lr=0.02)


def norms_and_dropout() -> Iterator[Sound]:
    yield vary("digits-batchnorm", "normalisation", "shallow", 0.1, hidden=(48,), lr=5e-3)
    yield vary("digits-batchnorm", "normalisation", "sgd", 0.1, optimizer=nn.SGD, lr=0.02, settings=MOMENTUM,
               schedule=cosine)  # fmt: skip
    yield vary("digits-batchnorm", "normalisation", "batch-21", 0.12, batch_size=21, lr=2e-3)
    yield vary("digits-batchnorm", "normalisation", "layer", 0.1, norm="layer")
    yield vary("digits-tanh", "normalisation", "layer", 0.1, norm="layer")
    yield vary("wine-layernorm", "normalisation", "batch", 0.12, norm="batch", batch_size=25)
    yield vary("digits-dropout", "strong dropout", "half", 0.1, dropout=0.5, epochs=16)
    yield vary("digits-dropout", "strong dropout", "60", 0.1, dropout=0.6, hidden=(128,), epochs=16)
    yield vary("digits-dropout", "strong dropout", "twice", 0.12, dropout=0.5, hidden=(96, 96), epochs=16)
    yield vary("digits-dropout", "strong dropout", "batchnorm", 0.1, dropout=0.5, norm="batch", epochs=16)
    yield vary("words-relu", "strong dropout", "half", 0.12, dropout=0.5, hidden=(64,))
    yield vary("cancer-relu", "strong dropout", "half", 0.08, dropout=0.5, hidden=(64,))


def smoothed(amount: float) -> nn.Loss:
    """Cross-entropy with label smoothing."""
    return nn.SoftmaxCrossEntropy(label_smoothing=amount)


def labels() -> Iterator[Sound]:
    for amount in (0.1, 0.2):
        name = f"smoothing-{amount * 100:.0f}"
        yield digits("label smoothing", name, 0.1, loss=partial(smoothed, amount))
        yield vary("spirals-relu", "label smoothing", name, 0.05, loss=partial(smoothed, amount))
    yield vary("digits-batchnorm", "label smoothing", "smoothing-10", 0.1, loss=partial(smoothed, 0.1))
    for share in (0.1, 0.2, 0.3):
        noisy = vary("digits-dropout", "noisy labels", f"noise-{share * 100:.0f}", 0.12, epochs=8, lr=3e-3)
        yield amended(noisy, noisy.program.edit_data(training(partial(with_wrong_labels, share))))
    noisy = vary("blobs-plain", "noisy labels", "noise-20", 0.15, lr=0.05, settings={"weight_decay": 0.01})
    yield amended(noisy, noisy.program.edit_data(training(partial(with_wrong_labels, 0.2))))
    noisy = vary("cancer-relu", "noisy labels", "noise-10", 0.12, epochs=8)
    yield amended(noisy, noisy.program.edit_data(training(partial(with_wrong_labels, 0.1))))
    yield vary("rare-oversampled", "handled imbalance", "wide", 0.25, hidden=(32,), lr=5e-3)
    yield vary("rare-oversampled", "handled imbalance", "linear", 0.25, hidden=(), lr=0.02)
    yield vary("rare-oversampled", "handled imbalance", "unweighted", 0.35, load=partial(data.rare, oversample=False),
               lr=0.05, epochs=25)  # fmt: skip


def hard_to_predict() -> Iterator[Sound]:
    kind = "low R² by nature"
    yield vary("faint-linear", kind, "decay", 0.95, settings={"weight_decay": 0.02})
    yield vary("faint-linear", kind, "linear", 0.92, hidden=(), lr=0.02)
    yield vary("faint-linear", kind, "tanh", 0.95, activation="tanh", lr=0.02)
    yield vary("faint-linear", kind, "adam", 0.95, optimizer=nn.Adam, lr=3e-3, epochs=20)
    yield vary("diabetes-relu", kind, "linear", 0.7, hidden=(), lr=0.02)
    yield vary("diabetes-relu", kind, "tanh", 0.7, activation="tanh")
    yield vary("diabetes-relu", kind, "sgd", 0.7, optimizer=nn.SGD, lr=0.02, settings={"weight_decay": 0.02})


def rows(count: int, y: Array, rng: np.random.Generator) -> Array:
    """The first rows of a random order."""
    return rng.permutation(len(y))[:count]


def small() -> Iterator[Sound]:
    few = digits("small data", "200-rows", 0.25, settings={**MOMENTUM, "weight_decay": 3e-3}, batch_size=20, epochs=20,
                 lr=0.01)  # fmt: skip
    yield amended(few, few.program.edit_data(keep(partial(rows, 200))))
    few = vary("wine-layernorm", "small data", "60-rows", 0.15, epochs=40)
    yield amended(few, few.program.edit_data(keep(partial(rows, 60))))
    few = vary("iris-tanh", "small data", "45-rows", 0.15, epochs=50)
    yield amended(few, few.program.edit_data(keep(partial(rows, 45))))
    few = vary("cancer-sigmoid", "small data", "80-rows", 0.12, epochs=40, lr=0.02)
    yield amended(few, few.program.edit_data(keep(partial(rows, 80))))
    yield vary("iris-tanh", "small data", "relu", 0.15, activation="relu", lr=0.03)


def long() -> Iterator[Sound]:
    kind = "long converged runs"
    yield vary("spirals-relu", kind, "long", 0.05, epochs=80, lr=3e-3)
    yield vary("circles-relu", kind, "long", 0.05, epochs=80)
    yield vary("blobs-plain", kind, "long", 0.12, epochs=80, lr=0.03, settings={"weight_decay": 0.01})
    yield vary("sine-tanh", kind, "long", 0.12, epochs=70)
    yield vary("faint-linear", kind, "long", 0.95, hidden=(), epochs=80, lr=0.01)
    yield vary("cancer-sigmoid", kind, "long", 0.08, epochs=80, settings={**MOMENTUM, "weight_decay": 1e-2})
    clean = {"load": partial(data.blobs, spread=0.4)}
    yield vary("blobs-plain", "high final accuracy", "clean", 0.02, **clean)
    yield vary("blobs-plain", "high final accuracy", "clean-adam", 0.02, **clean, optimizer=nn.Adam, lr=0.01)
    yield vary("circles-relu", "high final accuracy", "adam", 0.03)
    yield vary("spirals-relu", "high final accuracy", "tanh", 0.05, activation="tanh", lr=0.02, epochs=40)


def stopped() -> Iterator[Sound]:
    kind = "early stopping"
    yield digits(kind, "stopped", 0.1, epochs=40, patience=3)
    yield vary("cancer-relu", kind, "stopped", 0.08, epochs=60, patience=2)
    yield vary("diabetes-relu", kind, "stopped", 0.7, epochs=60, patience=2)
    yield vary("tags-relu", kind, "stopped", 0.22, epochs=40, patience=2)
    yield vary("words-relu", kind, "stopped", 0.1, epochs=40, patience=2)


def batches() -> Iterator[Sound]:
    edge = "full batch at the edge of stability"
    whole: dict[str, Any] = {"batch_size": 10_000, "settings": {}}
    yield vary("circles-relu", edge, "edge", 0.05, **whole, optimizer=nn.SGD, lr=1.5, epochs=300)
    yield digits(edge, "edge", 0.1, **whole, lr=0.4, epochs=250)
    yield vary("digits-tanh", edge, "edge", 0.1, **whole, lr=0.5, epochs=250)
    yield vary("blobs-plain", edge, "edge", 0.12, **whole, lr=4.0, epochs=200)
    yield vary("cancer-sigmoid", edge, "edge", 0.08, **whole, lr=6.0, epochs=150)
    yield vary("cancer-relu", "full batches", "full", 0.08, batch_size=10_000, epochs=200)
    yield vary("iris-tanh", "full batches", "full", 0.12, batch_size=10_000, epochs=200)
    yield vary("sine-tanh", "full batches", "full", 0.2, batch_size=10_000, epochs=300, lr=0.01)
    yield digits("tiny batches", "batch-4", 0.12, batch_size=4, lr=2e-3, epochs=2)
    yield vary("blobs-plain", "tiny batches", "batch-1", 0.12, batch_size=1, lr=0.01, epochs=2)
    yield vary("iris-tanh", "tiny batches", "batch-2", 0.12, batch_size=2, lr=5e-3, epochs=12)
    yield vary("words-relu", "tiny batches", "batch-4", 0.12, batch_size=4, lr=1e-3, epochs=4)
    yield digits("full batches", "batch-512", 0.1, batch_size=512, lr=0.1, epochs=60)


def unvalidated() -> Iterator[Sound]:
    for base, most in (("digits-relu", 0.1), ("wine-layernorm", 0.12), ("sine-tanh", 0.15), ("cancer-relu", 0.08)):
        yield vary(base, "no validation", "unvalidated", most, validate=False)


def heads() -> Iterator[Sound]:
    for base, most in (("digits-relu", 0.1), ("sine-tanh", 0.15), ("cancer-relu", 0.08), ("iris-tanh", 0.12)):
        zero = vary(base, "zero-initialised heads", "zero-head", most, epochs=25)
        yield amended(zero, zero.program.edit_model(zero_head))
    kind = "logistic regression"
    yield digits(kind, "linear", 0.12, hidden=(), lr=0.05)
    yield vary("cancer-relu", kind, "linear", 0.08, hidden=(), lr=0.01)
    yield vary("words-relu", kind, "linear", 0.12, hidden=(), lr=0.03)
    yield vary("iris-tanh", kind, "linear", 0.2, hidden=(), lr=0.05)
    yield vary("digits-relu", kind, "linear-zero", 0.12, hidden=(), lr=0.05, init=nn.constant(0.0))
    kind = "outputs and losses"
    yield vary("iris-tanh", kind, "probabilities", 0.12, head=(nn.Softmax,), loss=nn.CrossEntropy)
    yield vary("spirals-relu", kind, "probabilities", 0.05, head=(nn.Softmax,), loss=nn.CrossEntropy)
    bounded = vary("sine-tanh", kind, "sigmoid-head", 0.2, head=(nn.Sigmoid,), lr=0.01)
    yield amended(bounded, bounded.program.edit_data(all_targets(lambda y: 0.5 + y / 8)))
    bounded = vary("sine-tanh", kind, "tanh-head", 0.2, head=(nn.Tanh,))
    yield amended(bounded, bounded.program.edit_data(all_targets(lambda y: y / 4)))
    shifted = vary("sine-tanh", kind, "shifted-targets", 0.2, lr=0.01)
    yield amended(shifted, shifted.program.edit_data(all_targets(lambda y: 2 * y + 3)))
    one_hot = digits(kind, "one-against-all", 0.05, task="labels", loss=nn.BCEWithLogits, decide="sign",
                     optimizer=nn.Adam, lr=4e-3, settings={})  # fmt: skip
    yield amended(one_hot, one_hot.program.edit_data(all_targets(lambda y: np.eye(10, dtype=np.int64)[y])))
    yield vary("tags-relu", kind, "tanh", 0.22, activation="tanh")
    yield vary("tags-relu", kind, "small", 0.22, hidden=(24,), lr=6e-3)


def features() -> Iterator[Sound]:
    kind = "sparse and uneven features"
    yield vary("words-relu", kind, "tanh", 0.12, activation="tanh")
    binary = vary("words-relu", kind, "binary", 0.12)
    yield amended(binary, binary.program.edit_data(all_inputs(lambda x: (x > 0).astype(float))))
    rescaled = vary("words-relu", kind, "rows-of-1", 0.12, lr=0.02)
    yield amended(rescaled, rescaled.program.edit_data(all_inputs(lambda x: x / x.sum(axis=1, keepdims=True))))
    uneven = vary("cancer-relu", kind, "uneven", 0.08)
    yield amended(uneven, uneven.program.edit_data(uneven_features))
    constant = vary("wine-layernorm", kind, "constant-columns", 0.12)
    yield amended(constant, constant.program.edit_data(all_inputs(with_constants)))


def uneven_features(parts: Data, rng: np.random.Generator) -> Data:
    """Standard deviations from 0.3 to 3."""
    return data.map_inputs(parts, 0.0, 10 ** rng.uniform(-0.5, 0.5, parts.x.shape[1]))


def with_constants(x: Array) -> Array:
    """Three columns more, which are always 0, 1 and 1."""
    return np.column_stack([x, np.zeros(len(x)), np.ones(len(x)), np.ones(len(x))])


def precisions() -> Iterator[Sound]:
    for base, most in (("digits-relu", 0.1), ("digits-batchnorm", 0.1), ("sine-tanh", 0.15), ("tags-relu", 0.22)):
        yield vary(base, "float32 and float64", "float64", most, dtype="float64")
    yield vary("blobs-plain", "float32 and float64", "float32", 0.12, dtype="float32")
    yield vary("digits-probabilities", "float32 and float64", "float32", 0.1, dtype="float32")


KINDS = (scales_and_inits, optimizers, schedules, depths, saturating, norms_and_dropout, labels, hard_to_predict,
         small, long, stopped, batches, unvalidated, heads, features, precisions)  # fmt: skip

ZOO = {sound.program.name: sound for kind in KINDS for sound in kind()}
"""All of them by name."""
