"""Normalisation over the units of an input (layer norm) and over the inputs of a batch (batch norm)."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from nndiag.errors import ShapeError
from nndiag.nn.layers import Layer
from nndiag.nn.parameter import Parameter
from nndiag.statistics import Array


class Norm(Layer):
    """y = scale · (x − μ) / √(var + eps) + shift, where μ and var are moments of the batch along one axis, or given.

    Raises ValueError for a width below 1 or an eps that is not positive.
    """

    axis: int

    def __init__(self, width: int, eps: float = 1e-5, dtype: DTypeLike = np.float32) -> None:
        super().__init__()
        if width < 1 or not eps > 0:
            raise ValueError(
                f"{type(self).__name__}({width}, eps={eps!r}): give a width of 1 or more and a positive eps"
            )
        self.input_width, self.eps = width, eps
        self.scale = Parameter("scale", "norm", np.ones(width, dtype))
        self.shift = Parameter("shift", "norm", np.zeros(width, dtype))
        self.parameters = (self.scale, self.shift)

    def backward(self, gradient: Array) -> Array:
        products = np.multiply(gradient, self._x_hat, out=self._buffers.like("products", gradient))
        np.sum(products, axis=0, out=self.scale.gradient)
        np.sum(gradient, axis=0, out=self.shift.gradient)
        gradient *= self.scale.value
        if self._of_batch:
            self._through_moments(gradient, products)
        gradient *= self._inverse_std
        return gradient

    def _normalise(self, x: Array, mu: Array, var: Array, of_batch: bool) -> Array:
        self._of_batch = of_batch
        self._inverse_std = 1 / np.sqrt(var + self.eps)
        self._x_hat = np.subtract(x, mu, out=self._buffers.like("x_hat", x))
        self._x_hat *= self._inverse_std
        output = np.multiply(self._x_hat, self.scale.value, out=self._buffers.like("output", x))
        output += self.shift.value
        return output

    def _through_moments(self, gradient: Array, scratch: Array) -> None:
        """Take from `gradient` what flows through μ and var (Ioffe & Szegedy 2015, section 3)."""
        np.multiply(gradient, self._x_hat, out=scratch)
        along_x_hat = scratch.mean(axis=self.axis, keepdims=True)
        gradient -= gradient.mean(axis=self.axis, keepdims=True)
        gradient -= np.multiply(self._x_hat, along_x_hat, out=scratch)


class LayerNorm(Norm):
    """Each input (a row) gets mean 0 and variance 1, then scale and shift (Ba et al. 2016)."""

    kind = "layer_norm"
    axis = 1

    def forward(self, x: Array, training: bool = True) -> Array:
        self.check_input(x)
        return self._normalise(x, x.mean(axis=1, keepdims=True), x.var(axis=1, keepdims=True), of_batch=True)


class BatchNorm(Norm):
    """Each unit (a column) gets mean 0 and variance 1 over the batch, then scale and shift (Ioffe & Szegedy 2015).

    Running moments (the variance unbiased) move by `momentum` at every training pass; evaluation uses them. Raises
    `ShapeError` for a training batch of 1, which has no variance.
    """

    kind = "batch_norm"
    axis = 0

    def __init__(self, width: int, eps: float = 1e-5, momentum: float = 0.1, dtype: DTypeLike = np.float32) -> None:
        super().__init__(width, eps, dtype)
        if not 0 <= momentum <= 1:
            raise ValueError(f"BatchNorm(momentum={momentum!r}): give 0 <= momentum <= 1")
        self.momentum = momentum
        self.running_mean = np.zeros(width, dtype)
        self.running_variance = np.ones(width, dtype)

    def forward(self, x: Array, training: bool = True) -> Array:
        self.check_input(x)
        if not training:
            return self._normalise(x, self.running_mean, self.running_variance, of_batch=False)
        if len(x) == 1:
            raise ShapeError(f"{self.label} got a training batch of 1, which has no variance; give 2 rows or more")
        mu, var = x.mean(axis=0), x.var(axis=0)
        self._move(self.running_mean, mu)
        self._move(self.running_variance, var * (len(x) / (len(x) - 1)))
        return self._normalise(x, mu, var, of_batch=True)

    def state(self) -> dict[str, Array]:
        return {"running_mean": self.running_mean, "running_variance": self.running_variance}

    def _move(self, running: Array, latest: Array) -> None:
        running *= 1 - self.momentum
        running += self.momentum * latest
