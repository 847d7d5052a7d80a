"""The activation functions, elementwise on arrays of any shape; softmax along the last axis."""

from __future__ import annotations

import numpy as np

from nndiag.errors import ShapeError
from nndiag.nn.layers import Layer
from nndiag.statistics import Array


def sigmoid(z: Array, out: Array) -> Array:
    """1 / (1 + e⁻ᶻ) written into `out` without overflow; `out` must not be `z`."""
    np.exp(-np.abs(z), out=out)
    numerator = np.where(z >= 0, out.dtype.type(1), out)
    out += 1
    return np.divide(numerator, out, out=out)


class Activation(Layer):
    """A layer without parameters whose way back needs its latest output only."""

    _output: Array

    def check_input(self, x: Array) -> None:
        if not x.size or not x.ndim:
            raise ShapeError(f"{self.label} got an input of shape {x.shape}, wanted (batch, width) with 1 row or more")

    def _new_output(self, x: Array) -> Array:
        self.check_input(x)
        self._output = self._buffers.like("output", x)
        return self._output


class ReLU(Activation):
    """max(0, z); its derivative at 0 is 0 (Nair & Hinton 2010)."""

    kind = "relu"

    def forward(self, x: Array, training: bool = True) -> Array:
        return np.maximum(x, 0, out=self._new_output(x))

    def backward(self, gradient: Array) -> Array:
        # A boolean mask is the fastest of nine ways tried at 512 x 256 float32: 34 us against 36 (float mask),
        # 47 (mask cast first), 52 (integer bits), 67 (np.sign) and 550 (boolean indexing, copyto, putmask).
        positive = self._buffers.get("positive", self._output.shape, bool)
        np.greater(self._output, 0, out=positive)
        return np.multiply(gradient, positive, out=gradient)


class LeakyReLU(Activation):
    """z where positive, else `slope` · z (Maas et al. 2013). Raises ValueError unless 0 ≤ slope < 1."""

    kind = "leaky_relu"

    def __init__(self, slope: float = 0.01) -> None:
        super().__init__()
        if not 0 <= slope < 1:
            raise ValueError(f"LeakyReLU(slope={slope!r}): give 0 <= slope < 1")
        self.leak = slope

    def forward(self, x: Array, training: bool = True) -> Array:
        output = np.multiply(x, self.leak, out=self._new_output(x))
        self._positive = np.greater(x, 0, out=self._buffers.get("positive", x.shape, bool))
        return np.maximum(x, output, out=output)

    def backward(self, gradient: Array) -> Array:
        gradient *= np.where(self._positive, gradient.dtype.type(1), gradient.dtype.type(self.leak))
        return gradient


class Saturating(Activation):
    """An activation function that flattens out at both ends."""

    def backward(self, gradient: Array) -> Array:
        return np.multiply(gradient, self._derivative(), out=gradient)

    def _derivative(self) -> Array:
        raise NotImplementedError


class Tanh(Saturating):
    """tanh(z); derivative 1 − h², at most 1."""

    kind = "tanh"

    def forward(self, x: Array, training: bool = True) -> Array:
        return np.tanh(x, out=self._new_output(x))

    def slope(self) -> Array:
        return self._derivative()

    def _derivative(self) -> Array:
        derivative = np.square(self._output, out=self._buffers.like("derivative", self._output))
        return np.subtract(1, derivative, out=derivative)


class Sigmoid(Saturating):
    """1 / (1 + e⁻ᶻ); derivative h (1 − h), at most 1/4."""

    kind = "sigmoid"

    def forward(self, x: Array, training: bool = True) -> Array:
        return sigmoid(x, out=self._new_output(x))

    def slope(self) -> Array:
        derivative = self._derivative()
        derivative *= 4
        return derivative

    def _derivative(self) -> Array:
        derivative = np.subtract(1, self._output, out=self._buffers.like("derivative", self._output))
        return np.multiply(derivative, self._output, out=derivative)


class Softmax(Activation):
    """eᶻ over its sum along the last axis; for `CrossEntropy`, as `SoftmaxCrossEntropy` has its own."""

    kind = "softmax"

    def forward(self, x: Array, training: bool = True) -> Array:
        output = self._new_output(x)
        np.subtract(x, x.max(axis=-1, keepdims=True), out=output)
        np.exp(output, out=output)
        output /= output.sum(axis=-1, keepdims=True)
        return output

    def backward(self, gradient: Array) -> Array:
        gradient -= np.sum(gradient * self._output, axis=-1, keepdims=True)
        gradient *= self._output
        return gradient
