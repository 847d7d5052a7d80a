"""Dropout: a share of the units is set to 0 at random in training (Srivastava et al. 2014)."""

from __future__ import annotations

import numpy as np

from nndiag.nn.layers import Layer, Seed
from nndiag.statistics import Array


class Dropout(Layer):
    """Each value is dropped with probability `p` in training and the rest scaled by 1 / (1 − p); else the identity.

    Inverted dropout (Srivastava et al. 2014). A value stays where `rng.random(shape) > p`. Raises ValueError unless
    0 ≤ p < 1.
    """

    kind = "dropout"

    random: np.random.Generator

    def __init__(self, p: float = 0.5, seed: Seed | None = None) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"Dropout(p={p!r}): give a probability, 0 <= p < 1")
        self.p = p
        self._kept: Array | None = None
        self.random, self._seeded = np.random.default_rng(seed or 0), seed is not None

    def forward(self, x: Array, training: bool = True) -> Array:
        self._kept = None
        if not training or self.p == 0:
            return x
        draws = self.random.random(out=self._buffers.get("draws", x.shape, np.float64))
        self._kept = np.greater(draws, self.p, out=self._buffers.get("kept", x.shape, bool))
        return self._drop(x, self._kept, self._buffers.like("output", x))

    def backward(self, gradient: Array) -> Array:
        return gradient if self._kept is None else self._drop(gradient, self._kept, gradient)

    def reseed(self, rng: np.random.Generator) -> None:
        if not self._seeded:
            self.random = rng

    def _drop(self, x: Array, kept: Array, out: Array) -> Array:
        np.multiply(x, kept, out=out)
        out /= 1 - self.p
        return out
