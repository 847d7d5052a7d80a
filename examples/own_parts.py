"""Parts of your own for the NumPy trainer: a Huber loss, a swish layer and a schedule in steps, checked like the built-in ones.

A loss says what it expects and what its targets are, so that the checks know what they look at; a layer says of what kind it is.
Before training, probe NDP01 compares the backward passes of both with central differences.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import nndiag
from nndiag import nn
from nndiag.nn.targets import matched
from nndiag.statistics import Array


class Huber(nn.Loss):
    """Half the square of errors up to `delta`, and straight on beyond it, mean over all elements (Huber 1964)."""

    expects = "real"
    task = "real"

    def __init__(self, delta: float = 1.0) -> None:
        super().__init__()
        self.delta = delta

    def __call__(self, outputs: Array, targets: Array) -> float:
        self._error = outputs - matched(outputs, targets, self.name)  # raises ShapeError where they do not fit
        size = np.abs(self._error)
        small = np.minimum(size, self.delta)
        return float(np.mean(small * (size - small / 2)))

    def backward(self) -> Array:
        gradient: Array = np.clip(self._error, -self.delta, self.delta) / self._error.size
        return gradient

    def describe(self) -> dict[str, Any]:
        return super().describe() | {"delta": self.delta}


class Swish(nn.Layer):
    """x σ(x) (Ramachandran et al. 2017)."""

    kind = "swish"

    def forward(self, x: Array, training: bool = True) -> Array:
        self._x, self._sigmoid = x, 1 / (1 + np.exp(-x))
        return x * self._sigmoid

    def backward(self, gradient: Array) -> Array:
        return gradient * self._sigmoid * (1 + self._x * (1 - self._sigmoid))


def halved(step: int) -> float:
    """A schedule is any function from updates done to a learning rate: here half of it after each 400."""
    return 0.02 * 0.5 ** (step // 400)


def data(rng: np.random.Generator) -> tuple[Array, Array]:
    """A smooth function of four inputs, one target in fifty far off: what a Huber loss is for."""
    x = rng.standard_normal((1200, 4)).astype(np.float32)
    y = np.sin(2 * x[:, 0]) + x[:, 1] * x[:, 2]
    y[rng.choice(len(y), len(y) // 50, replace=False)] += 20
    return x, y[:, None].astype(np.float32)


def main() -> None:
    x, y = data(np.random.default_rng(0))
    model = nn.Sequential([nn.Affine(4, 64), Swish(), nn.Affine(64, 64), Swish(), nn.Affine(64, 1)], seed=0)
    trainer = nn.Trainer(model, Huber(delta=1.0), nn.Adam(lr=halved))
    with nndiag.watch(trainer, every=1) as recorder:
        nndiag.probes.run_all(trainer, x[:64], y[:64], recorder)
        trainer.fit(x[:1000], y[:1000], validation=(x[1000:], y[1000:]), epochs=60, batch_size=50)
    report = nndiag.Checklist().examine(recorder.run)
    print(report.to_text(brief=True))
    print(
        "\ngradients:", next(check.reason for check in report.checks if check.code == nndiag.probes.gradient_check.code)
    )


if __name__ == "__main__":
    main()
