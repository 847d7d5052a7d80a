"""Layers, losses and optimisers that compute what Keras computes, its clipping and its broadcasting included."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from nndiag import nn
from nndiag.nn.activations import Activation
from nndiag.nn.initializers import Initializer
from nndiag.statistics import Array

EPSILON = 1e-7
"""What Keras keeps probabilities away from 0 and 1 by."""


# Initialisers


def uniform(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Uniform weights within ±0.05, Keras' "uniform"."""
    return rng.uniform(-0.05, 0.05, shape)


INITIALIZERS: dict[str, Initializer] = {
    "glorot_uniform": nn.xavier_uniform,
    "glorot_normal": nn.xavier_normal,
    "he_uniform": nn.he_uniform,
    "he_normal": nn.he_normal,
    "uniform": uniform,
    "normal": nn.normal(0.05),
    "normal1": nn.normal(1.0),
    "zeros": nn.constant(0.0),
    "ones": nn.constant(1.0),
}
"""Keras' names for initialisers; "normal1" is a standard normal."""


# Layers


class Elementwise(Activation):
    """An activation function given by itself and by its derivative, from input and output."""

    def forward(self, x: Array, training: bool = True) -> Array:
        self._x, output = x, self._new_output(x)
        output[...] = self.function(x)
        return output

    def backward(self, gradient: Array) -> Array:
        gradient *= self.derivative(self._x, self._output)
        return gradient

    @abstractmethod
    def function(self, z: Array) -> Array:
        """Its value at `z`."""

    @abstractmethod
    def derivative(self, z: Array, h: Array) -> Array:
        """Its derivative at `z`, where its value is `h`."""


class ELU(Elementwise):
    """z where positive, else eᶻ − 1 (Clevert et al. 2016)."""

    kind = "elu"

    def function(self, z: Array) -> Array:
        return np.where(z > 0, z, np.expm1(np.minimum(z, 0)))

    def derivative(self, z: Array, h: Array) -> Array:
        return np.where(z > 0, 1, h + 1)


class Exponential(Elementwise):
    """eᶻ."""

    kind = "exponential"

    def function(self, z: Array) -> Array:
        return np.asarray(np.exp(z))

    def derivative(self, z: Array, h: Array) -> Array:
        return h


class Softplus(Elementwise):
    """log(1 + eᶻ)."""

    kind = "softplus"

    def function(self, z: Array) -> Array:
        return np.asarray(np.logaddexp(z, 0))

    def derivative(self, z: Array, h: Array) -> Array:
        return np.asarray(1 - np.exp(-h))


class HardSigmoid(Elementwise):
    """0.2 z + 0.5 between 0 and 1."""

    kind = "hard_sigmoid"

    def function(self, z: Array) -> Array:
        return np.clip(0.2 * z + 0.5, 0, 1)

    def derivative(self, z: Array, h: Array) -> Array:
        return 0.2 * self.slope()

    def slope(self) -> Array:
        return ((self._output > 0) & (self._output < 1)).astype(self._output.dtype)


ACTIVATIONS: dict[str, Callable[[], nn.Layer]] = {
    "relu": nn.ReLU,
    "leaky_relu": lambda: nn.LeakyReLU(0.3),
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "softmax": nn.Softmax,
    "elu": ELU,
    "exponential": Exponential,
    "softplus": Softplus,
    "hard_sigmoid": HardSigmoid,
}


class SharedAffine(nn.Layer):
    """One affine layer over each of `places` equal parts of a row, as Keras' Dense does along the last axis."""

    kind = "affine"

    def __init__(self, fan_in: int, fan_out: int, places: int, init: Initializer) -> None:
        super().__init__()
        self.inner, self.input_width = nn.Affine(fan_in, fan_out, init), fan_in * places
        self.parameters = self.inner.parameters

    def forward(self, x: Array, training: bool = True) -> Array:
        self.check_input(x)
        return self.inner.forward(x.reshape(-1, self.inner.weight.value.shape[1]), training).reshape(len(x), -1)

    def backward(self, gradient: Array) -> Array:
        return self.inner.backward(gradient.reshape(-1, self.inner.width)).reshape(len(gradient), -1)

    def output_width(self, input_width: int) -> int:
        places: int = super().output_width(input_width) // self.inner.weight.value.shape[1]
        return places * self.inner.width

    def reseed(self, rng: np.random.Generator) -> None:
        self.inner.reseed(rng)


class StuckDropout(nn.Dropout):
    """Dropout that drops in evaluation too."""

    def forward(self, x: Array, training: bool = True) -> Array:
        return super().forward(x, True)


# Losses


class KerasLoss(nn.Loss):
    """A loss in float64; targets (N,) become (N, 1), and are broadcast to the outputs without a word."""

    def __call__(self, outputs: Array, targets: Array) -> float:
        o, self._dtype = outputs.astype(np.float64), outputs.dtype
        loss, self._gradient = self.both(o, np.broadcast_to(column(targets), o.shape))
        return loss

    def backward(self) -> Array:
        return self._gradient.astype(self._dtype)

    @abstractmethod
    def both(self, o: Array, t: Array) -> tuple[float, Array]:
        """Loss and gradient for outputs (N, K) and targets of the same shape."""


def column(targets: Array) -> Array:
    """Targets in float64, (N,) as (N, 1)."""
    return np.asarray(targets, np.float64).reshape(len(targets), -1)


class MeanSquaredError(KerasLoss):
    """Mean of the squared error over all elements."""

    expects = "real"
    task = "real"

    def both(self, o: Array, t: Array) -> tuple[float, Array]:
        return float(np.mean((o - t) ** 2)), 2 * (o - t) / o.size


class MeanAbsoluteError(KerasLoss):
    """Mean of the absolute error over all elements."""

    expects = "real"
    task = "real"

    def both(self, o: Array, t: Array) -> tuple[float, Array]:
        return float(np.mean(np.abs(o - t))), np.sign(o - t) / o.size


class SumSquaredError(MeanSquaredError):
    """Sum of the squared error over the batch."""

    def both(self, o: Array, t: Array) -> tuple[float, Array]:
        mean, gradient = super().both(o, t)
        return mean * o.size, gradient * o.size


class BinaryCrossentropy(KerasLoss):
    """Binary cross-entropy of probabilities, clipped and then shifted by 1e-7, mean over all elements."""

    expects = "probabilities"
    task = "binary"

    def both(self, o: Array, t: Array) -> tuple[float, Array]:
        p, inside = clipped(o)
        loss = -np.mean(t * np.log(p + EPSILON) + (1 - t) * np.log(1 - p + EPSILON))
        return float(loss), inside * ((1 - t) / (1 - p + EPSILON) - t / (p + EPSILON)) / o.size


class CategoricalCrossentropy(KerasLoss):
    """−Σ t log p, mean over rows; p is the output over its row's sum, clipped: a row that sums to 0 gives NaN."""

    expects = "probabilities"
    task = "classes"

    def both(self, o: Array, t: Array) -> tuple[float, Array]:
        total = o.sum(axis=1, keepdims=True)
        share = o / total
        p, inside = clipped(share)
        dp = inside * -t / p / len(o)
        return float(-np.sum(t * np.log(p)) / len(o)), (dp - np.sum(dp * share, axis=1, keepdims=True)) / total


class CategoricalCrossentropyFromLogits(KerasLoss):
    """−Σ t log softmax(z), mean over rows, for targets that need not sum to 1."""

    expects = "logits"
    task = "classes"

    def both(self, o: Array, t: Array) -> tuple[float, Array]:
        return softmax_cross_entropy(o, t)


class SparseCategoricalCrossentropy(KerasLoss):
    """Cross-entropy of class ids against probabilities, by way of the softmax of the logs of the clipped outputs."""

    expects = "probabilities"
    task = "classes"

    def __call__(self, outputs: Array, targets: Array) -> float:
        return super().__call__(outputs, one_hot(targets, outputs.shape[1]))

    def both(self, o: Array, t: Array) -> tuple[float, Array]:
        p, inside = clipped(o)
        loss, gradient = softmax_cross_entropy(np.log(p), t)
        return loss, inside * gradient / p


class SparseCategoricalCrossentropyFromLogits(CategoricalCrossentropyFromLogits):
    """−log softmax(z) of the class id, mean over rows."""

    def __call__(self, outputs: Array, targets: Array) -> float:
        return super().__call__(outputs, one_hot(targets, outputs.shape[1]))


class UnclippedCrossEntropy(KerasLoss):
    """−Σ t log p by hand, mean over rows: 0 · log 0 is NaN."""

    expects = "probabilities"
    task = "classes"

    def both(self, o: Array, t: Array) -> tuple[float, Array]:
        return float(-np.sum(t * np.log(o)) / len(o)), -t / o / len(o)


class ClippedCrossEntropy(KerasLoss):
    """−Σ t log p by hand, with p clipped to 1e-10 … 1, mean over rows."""

    expects = "probabilities"
    task = "classes"

    def both(self, o: Array, t: Array) -> tuple[float, Array]:
        p = np.clip(o, 1e-10, 1)
        return float(-np.sum(t * np.log(p)) / len(o)), (p == o) * -t / p / len(o)


class SumSoftmaxCrossEntropy(nn.SoftmaxCrossEntropy):
    """Cross-entropy of logits, summed over the batch."""

    def __call__(self, outputs: Array, targets: Array) -> float:
        return super().__call__(outputs, targets) * len(outputs)

    def backward(self) -> Array:
        gradient = super().backward()
        gradient *= len(gradient)
        return gradient


def clipped(p: Array) -> tuple[Array, Array]:
    """`p` within 1e-7 … 1 − 1e-7, and where it was there already: elsewhere clipping lets no gradient through."""
    kept = np.clip(p, EPSILON, 1 - EPSILON)
    return kept, kept == p


def softmax_cross_entropy(z: Array, t: Array) -> tuple[float, Array]:
    """−Σ t log softmax(z), mean over rows, and its gradient."""
    z = z - z.max(axis=1, keepdims=True)
    log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    return float(-np.sum(t * log_p) / len(z)), (np.exp(log_p) * t.sum(axis=1, keepdims=True) - t) / len(z)


def one_hot(ids: Array, classes: int) -> Array:
    """Rows of 0 and one 1, in float32."""
    return np.asarray(np.eye(classes, dtype=np.float32)[np.asarray(ids).astype(int)])


# Metrics


def accuracy(outputs: Array, targets: Array) -> float:
    """Keras' "accuracy": one unit is held against 0.5, several by the largest, one-hot targets too."""
    if outputs.shape[1] == 1:
        return float(np.mean((outputs > 0.5) == column(targets)))
    ids = targets if targets.ndim == 1 else targets.argmax(axis=1)
    return float(np.mean(outputs.argmax(axis=1) == ids))


def elementwise_accuracy(outputs: Array, targets: Array) -> float:
    """Keras' "accuracy" under binary cross-entropy: every element is held against 0.5."""
    return float(np.mean((outputs > 0.5) == column(targets)))


def exact_accuracy(outputs: Array, targets: Array) -> float:
    """Keras' `Accuracy()`: share of outputs that equal their target to the last bit."""
    return float(np.mean(outputs == column(targets)))


# Optimisers


@dataclass(frozen=True)
class InverseTimeDecay:
    """lr / (1 + decay · updates)."""

    lr: float
    decay: float

    def __call__(self, step: int) -> float:
        return self.lr / (1 + self.decay * step)


class KerasOptimizer(nn.Optimizer):
    """An optimiser with Keras' `decay` of the learning rate, and an L2 penalty λ Σ w² on the weights."""

    def __init__(self, lr: float, decay: float = 0.0, l2: float = 0.0) -> None:
        super().__init__(InverseTimeDecay(lr, decay) if decay else lr, 0.0)
        self.l2 = l2

    def _update(self, parameter: nn.Parameter, lr: float, decay: float) -> None:
        penalty = 2 * self.l2 * parameter.value if parameter.kind == "weight" else 0.0
        parameter.value -= self.move(parameter, parameter.gradient + penalty, lr)

    @abstractmethod
    def move(self, parameter: nn.Parameter, g: Array, lr: float) -> Array:
        """What is taken from the parameter for gradient `g`."""

    def _average(self, what: str, parameter: nn.Parameter, value: Array, beta: float) -> Array:
        kept = self._kept(what, parameter)
        kept *= beta
        kept += (1 - beta) * value
        return kept

    def _settings(self) -> dict[str, Any]:
        return {"l2": self.l2}


class SGD(KerasOptimizer):
    """v ← m v + lr g, θ ← θ − v, or θ − (m v + lr g) with Nesterov's momentum."""

    def __init__(
        self, lr: float = 0.01, momentum: float = 0.0, nesterov: bool = False, decay: float = 0.0, l2: float = 0.0
    ) -> None:
        super().__init__(lr, decay, l2)
        self.momentum, self.nesterov = momentum, nesterov

    def move(self, parameter: nn.Parameter, g: Array, lr: float) -> Array:
        v = self._kept("velocity", parameter)
        v *= self.momentum
        v += lr * g
        return self.momentum * v + lr * g if self.nesterov else v

    def _settings(self) -> dict[str, Any]:
        return {"momentum": self.momentum, "nesterov": self.nesterov, "l2": self.l2}


class RMSprop(KerasOptimizer):
    """lr g / (√E[g²] + eps) (Tieleman & Hinton 2012)."""

    def __init__(self, lr: float = 0.001, rho: float = 0.9, eps: float = EPSILON, l2: float = 0.0) -> None:
        super().__init__(lr, l2=l2)
        self.rho, self.eps = rho, eps

    def move(self, parameter: nn.Parameter, g: Array, lr: float) -> Array:
        return np.asarray(lr * g / (np.sqrt(self._average("square", parameter, g * g, self.rho)) + self.eps))

    def _settings(self) -> dict[str, Any]:
        return {"rho": self.rho, "eps": self.eps, "l2": self.l2}


class Adam(KerasOptimizer):
    """Adam (Kingma & Ba 2015) with Keras' eps of 1e-7."""

    def __init__(self, lr: float = 0.001, eps: float = EPSILON, l2: float = 0.0) -> None:
        super().__init__(lr, l2=l2)
        self.betas, self.eps = (0.9, 0.999), eps

    def move(self, parameter: nn.Parameter, g: Array, lr: float) -> Array:
        v = self._average("second", parameter, g * g, self.betas[1]) / (1 - self.betas[1] ** (self.updates + 1))
        return np.asarray(lr * self._direction(parameter, g) / (np.sqrt(v) + self.eps))

    def _direction(self, parameter: nn.Parameter, g: Array) -> Array:
        m = self._average("first", parameter, g, self.betas[0])
        return np.asarray(m / (1 - self.betas[0] ** (self.updates + 1)))

    def _settings(self) -> dict[str, Any]:
        return {"betas": list(self.betas), "eps": self.eps, "l2": self.l2}


class Nadam(Adam):
    """Adam that looks one step ahead (Dozat 2016), without the schedule of the momentum."""

    def _direction(self, parameter: nn.Parameter, g: Array) -> Array:
        beta, done = self.betas[0], self.updates + 1
        m = self._average("first", parameter, g, beta)
        return np.asarray(beta * m / (1 - beta ** (done + 1)) + (1 - beta) * g / (1 - beta**done))


class Ascent(Adam):
    """Adam that is handed every gradient with its sign flipped."""

    def move(self, parameter: nn.Parameter, g: Array, lr: float) -> Array:
        return super().move(parameter, -g, lr)


# Networks


@dataclass(frozen=True)
class Dense:
    """A fully connected layer; with `places` one that is shared by as many parts of a row."""

    units: int
    activation: str = "linear"
    init: str | Initializer = "glorot_uniform"
    bias: str = "zeros"
    places: int = 1

    def build(self, width: int, seed: int) -> list[nn.Layer]:
        """The layers for an input of `width`."""
        init = INITIALIZERS[self.init] if isinstance(self.init, str) else self.init
        affine = self._affine(width, init)
        bias = affine.parameters[1].value
        bias[...] = INITIALIZERS[self.bias](np.random.default_rng(seed), bias.shape)
        return [affine, *([] if self.activation == "linear" else [ACTIVATIONS[self.activation]()])]

    def width(self, width: int) -> int:
        """How wide its output is."""
        return self.units * self.places

    def _affine(self, width: int, init: Initializer) -> nn.Layer:
        if self.places == 1:
            return nn.Affine(width, self.units, init)
        return SharedAffine(width // self.places, self.units, self.places, init)


@dataclass(frozen=True)
class Plain:
    """A layer that keeps the width of its input, made by `make(width)`."""

    make: Callable[[int], nn.Layer]

    def build(self, width: int, seed: int) -> list[nn.Layer]:
        """The layer for an input of `width`."""
        return [self.make(width)]

    def width(self, width: int) -> int:
        """That of the input."""
        return width


def drop(rate: float, stuck: bool = False) -> Plain:
    """Dropout; `stuck` keeps it on in evaluation."""
    return Plain(lambda width: (StuckDropout if stuck else nn.Dropout)(rate))


NORM = Plain(lambda width: nn.BatchNorm(width, eps=1e-3, momentum=0.01))
"""Batch normalisation with Keras' settings."""

Spec = Dense | Plain


def network(specs: tuple[Spec, ...], width: int, seed: int) -> nn.Sequential:
    """A model for inputs of `width`."""
    layers: list[nn.Layer] = []
    for number, spec in enumerate(specs):
        layers += spec.build(width, seed + number)
        width = spec.width(width)
    return nn.Sequential(layers, seed=seed)
