"""Layers, losses and optimisers that are wrong, written as a user would have written them."""

from __future__ import annotations

import numpy as np

from nndiag import nn
from nndiag.nn.activations import Activation
from nndiag.statistics import Array


class Exponential(Activation):
    """eᶻ as an activation function."""

    kind = "exponential"

    def forward(self, x: Array, training: bool = True) -> Array:
        return np.exp(x, out=self._new_output(x))

    def backward(self, gradient: Array) -> Array:
        return np.multiply(gradient, self._output, out=gradient)


class BatchSoftmax(Activation):
    """Softmax along the batch instead of along the classes."""

    kind = "softmax"

    def forward(self, x: Array, training: bool = True) -> Array:
        output = self._new_output(x)
        np.exp(x - x.max(axis=0), out=output)
        output /= output.sum(axis=0)
        return output

    def backward(self, gradient: Array) -> Array:
        gradient -= np.sum(gradient * self._output, axis=0)
        gradient *= self._output
        return gradient


class Detached(Activation):
    """The identity, through which no gradient comes back."""

    kind = "identity"

    def forward(self, x: Array, training: bool = True) -> Array:
        return x

    def backward(self, gradient: Array) -> Array:
        gradient *= 0
        return gradient


class AlwaysDropout(nn.Dropout):
    """Dropout that goes on dropping when the model is evaluated."""

    def forward(self, x: Array, training: bool = True) -> Array:
        return super().forward(x, training=True)


class AlwaysBatchNorm(nn.BatchNorm):
    """Batch norm that takes the moments of the batch when the model is evaluated, too."""

    def forward(self, x: Array, training: bool = True) -> Array:
        return super().forward(x, training=len(x) > 1)


class NeverDropout(nn.Dropout):
    """Dropout that is in evaluation mode while the model is trained."""

    def forward(self, x: Array, training: bool = True) -> Array:
        return super().forward(x, training=False)


class NeverBatchNorm(nn.BatchNorm):
    """Batch norm that is in evaluation mode while the model is trained: its running moments never move."""

    def forward(self, x: Array, training: bool = True) -> Array:
        return super().forward(x, training=False)


class AccumulatingAffine(nn.Affine):
    """An affine layer that adds to its gradients, which nobody clears."""

    def backward_parameters(self, gradient: Array) -> None:
        before = [parameter.gradient.copy() for parameter in self.parameters]
        super().backward_parameters(gradient)
        for parameter, kept in zip(self.parameters, before, strict=True):
            parameter.gradient += kept


class BinaryCrossEntropy(nn.Loss):
    """Binary cross-entropy of probabilities, clipped at 1e-7 at both ends, for whatever numbers the targets are."""

    expects = "probabilities"
    task = "binary"

    def __call__(self, outputs: Array, targets: Array) -> float:
        self._p = np.clip(outputs, 1e-7, 1 - 1e-7)
        self._t = targets.reshape(outputs.shape).astype(outputs.dtype)
        self._inside = (outputs > 1e-7) & (outputs < 1 - 1e-7)
        return float(-np.mean(self._t * np.log(self._p) + (1 - self._t) * np.log(1 - self._p)))

    def backward(self) -> Array:
        gradient: Array = (self._p - self._t) / (self._p * (1 - self._p)) * self._inside / self._p.size
        return gradient


class OneHotMSE(nn.MSE):
    """Squared error of the outputs against one-hot targets, made from class ids."""

    def __call__(self, outputs: Array, targets: Array) -> float:
        return super().__call__(outputs, np.eye(outputs.shape[1])[targets])


class BroadcastMSE(nn.MSE):
    """Squared error of outputs (N, 1) minus targets (N,): NumPy makes (N, N) of it."""

    def __call__(self, outputs: Array, targets: Array) -> float:
        self._difference = outputs - targets
        return float(np.mean(np.square(self._difference)))

    def backward(self) -> Array:
        gradient: Array = 2 * self._difference.sum(axis=1, keepdims=True) / self._difference.size
        return gradient.astype(self._difference.dtype)


def summed(loss: type[nn.Loss]) -> type[nn.Loss]:
    """`loss` summed over the batch, not averaged."""

    class Summed(loss):  # type: ignore[misc, valid-type]  # a class made from a class
        """A loss that grows with the batch."""

        def __call__(self, outputs: Array, targets: Array) -> float:
            self._rows = len(outputs)
            return float(super().__call__(outputs, targets) * self._rows)

        def backward(self) -> Array:
            gradient: Array = super().backward() * np.float32(self._rows)
            return gradient

    Summed.__name__ = f"Summed{loss.__name__}"
    return Summed


def ascending(loss: type[nn.Loss]) -> type[nn.Loss]:
    """`loss` with the sign of its gradient the wrong way round."""

    class Ascending(loss):  # type: ignore[misc, valid-type]  # a class made from a class
        """A loss whose gradient points downhill, so that descent climbs."""

        def backward(self) -> Array:
            gradient: Array = -super().backward()
            return gradient

    Ascending.__name__ = f"My{loss.__name__}"
    return Ascending


class ClimbingSGD(nn.SGD):
    """Stochastic gradient ascent."""

    def _update(self, parameter: nn.Parameter, lr: float, decay: float) -> None:
        super()._update(parameter, -lr, decay)


class ClimbingAdam(nn.Adam):
    """Adam that adds its step instead of taking it away."""

    def _move(self, first: Array, second: Array, lr: float, scratch: Array) -> Array:
        return -super()._move(first, second, lr, scratch)
