"""The three networks on which the cost is measured, from a large batch in a deep net to steps of half a millisecond."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nndiag import nn
from nndiag.statistics import Array

BATCHES = 64


@dataclass(frozen=True)
class Network:
    """A multilayer perceptron with ReLU, its batch size, and how many steps make one timing."""

    name: str
    batch: int
    sizes: tuple[int, ...]
    block: int

    def trainer(self, dtype: str) -> nn.Trainer:
        """A trainer of this network: SGD with momentum, class ids."""
        model = nn.MLP(list(self.sizes), dtype=dtype, seed=0)
        return nn.Trainer(model, nn.SoftmaxCrossEntropy(), nn.SGD(lr=0.01, momentum=0.9))

    def batches(self, dtype: str) -> list[tuple[Array, Array]]:
        """Standard normal inputs (batch, inputs), and class ids (batch,) at random, so that there is always more to learn."""
        rng = np.random.default_rng(0)
        x = rng.normal(size=(BATCHES * self.batch, self.sizes[0])).astype(dtype)
        y = rng.integers(self.sizes[-1], size=len(x))
        return list(zip(np.split(x, BATCHES), np.split(y, BATCHES), strict=True))


NETWORKS = {
    network.name: network
    for network in (
        Network("A", 512, (256,) * 21, block=25),
        Network("C", 128, (784, 1024, 1024, 10), block=50),
        Network("B", 64, (128,) * 5, block=200),
    )
}
"""20 layers of 256, batch 512; 784-1024-1024-10, batch 128; 4 layers of 128, batch 64."""
