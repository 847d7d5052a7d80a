"""The losses: each is called for the number and then gives the gradient with respect to the outputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal

import numpy as np

from nndiag.nn.activations import sigmoid
from nndiag.nn.buffers import Buffers
from nndiag.nn.targets import distribution, matched
from nndiag.statistics import Array


class Loss(ABC):
    """A mean over the batch. `loss(outputs, targets)` is the number, `loss.backward()` the gradient at that call.

    `expects` says what the outputs must be, `task` what the targets are. The gradient is the loss's own buffer.
    """

    expects: ClassVar[Literal["logits", "probabilities", "real"]]
    task: ClassVar[Literal["classes", "binary", "real"]]
    label_smoothing: float = 0.0

    def __init__(self) -> None:
        self._buffers = Buffers()

    @property
    def name(self) -> str:
        """The name of the class."""
        return type(self).__name__

    @abstractmethod
    def __call__(self, outputs: Array, targets: Array) -> float:
        """Mean loss of `outputs` (batch, …); raises `ShapeError` or `TargetError` when the targets do not fit."""

    @abstractmethod
    def backward(self) -> Array:
        """Gradient with respect to the outputs of the latest call, of their shape."""

    def describe(self) -> dict[str, Any]:
        """Name, what outputs and targets must be, and label smoothing, fit for JSON."""
        return {
            "name": self.name,
            "expects": self.expects,
            "task": self.task,
            "label_smoothing": self.label_smoothing,
        }


class SoftmaxCrossEntropy(Loss):
    """−Σ q log softmax(z), mean over the batch, from logits; targets are class ids (N,) or probabilities (N, C).

    With label smoothing s, q = (1 − s) target + s / C (Szegedy et al. 2016, section 7). Raises ValueError unless
    0 ≤ s < 1.
    """

    expects = "logits"
    task = "classes"

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"SoftmaxCrossEntropy(label_smoothing={label_smoothing!r}): give 0 <= s < 1")
        self.label_smoothing = label_smoothing

    def __call__(self, outputs: Array, targets: Array) -> float:
        self._q = self._smoothed(distribution(outputs, targets, self.name))
        log_p = np.subtract(outputs, outputs.max(axis=1, keepdims=True), out=self._buffers.like("log_p", outputs))
        self._p = np.exp(log_p, out=self._buffers.like("p", outputs))
        total = self._p.sum(axis=1, keepdims=True)
        self._p /= total
        log_p -= np.log(total)
        return -_weighted_sum(self._q, log_p) / len(outputs)

    def backward(self) -> Array:
        mass = self._q.sum(axis=1, keepdims=True)
        gradient: Array = np.multiply(self._p, mass, out=self._buffers.like("gradient", self._p))
        gradient -= self._q
        gradient /= len(gradient)
        return gradient

    def _smoothed(self, q: Array) -> Array:
        if self.label_smoothing:
            q *= 1 - self.label_smoothing
            q += self.label_smoothing / q.shape[1]
        return q


class CrossEntropy(Loss):
    """−Σ q log p, mean over the batch, from probabilities (N, C), which are clipped at 1e-12 from below.

    The gradient −q / p uses the clipped p too, so that a class at 0 can still be learnt. Targets as for
    `SoftmaxCrossEntropy`, which is the more exact of the two.
    """

    expects = "probabilities"
    task = "classes"
    clip: ClassVar[float] = 1e-12

    def __call__(self, outputs: Array, targets: Array) -> float:
        self._q = distribution(outputs, targets, self.name)
        self._p = np.maximum(outputs, self.clip, out=self._buffers.like("p", outputs))
        return -_weighted_sum(self._q, np.log(self._p)) / len(outputs)

    def backward(self) -> Array:
        gradient = np.divide(self._q, self._p, out=self._buffers.like("gradient", self._p))
        gradient /= -len(gradient)
        return gradient


class BCEWithLogits(Loss):
    """Binary cross-entropy of logits (N, K), mean over all elements; targets (N, K) in 0 to 1, (N,) where K is 1."""

    expects = "logits"
    task = "binary"

    def __call__(self, outputs: Array, targets: Array) -> float:
        self._t = matched(outputs, targets, self.name)
        self._h = sigmoid(outputs, out=self._buffers.like("h", outputs))
        return float(np.mean(np.maximum(outputs, 0) - outputs * self._t + np.log1p(np.exp(-np.abs(outputs)))))

    def backward(self) -> Array:
        gradient = np.subtract(self._h, self._t, out=self._buffers.like("gradient", self._h))
        gradient /= gradient.size
        return gradient


class MSE(Loss):
    """(outputs − targets)², mean over all elements; targets of the shape of the outputs, (N,) for outputs (N, 1)."""

    expects = "real"
    task = "real"

    def __call__(self, outputs: Array, targets: Array) -> float:
        self._error = np.subtract(
            outputs, matched(outputs, targets, self.name), out=self._buffers.like("error", outputs)
        )
        return float(np.mean(np.square(self._error)))

    def backward(self) -> Array:
        return np.multiply(self._error, 2 / self._error.size, out=self._buffers.like("gradient", self._error))


def _weighted_sum(q: Array, log_p: Array) -> float:
    """Σ q log p, where a class of weight 0 counts 0 even at log p = −∞."""
    return float(np.multiply(q, log_p, out=np.zeros_like(q), where=q != 0).sum())
