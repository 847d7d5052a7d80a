"""The three networks on which the cost is measured, from a large batch in a deep net to steps of half a millisecond."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle

import numpy as np

from nndiag import nn
from nndiag.statistics import Array

SAMPLES = 32_768


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

    def batches(self, dtype: str) -> Iterator[tuple[Array, Array]]:
        """Standard normal inputs (batch, inputs), and the class ids (batch,) that a linear map gives them."""
        rng = np.random.default_rng(0)
        x = rng.normal(size=(SAMPLES // self.batch, self.batch, self.sizes[0])).astype(dtype)
        y = (x @ rng.normal(size=(self.sizes[0], self.sizes[-1])).astype(dtype)).argmax(axis=2)
        return cycle(zip(x, y, strict=True))


NETWORKS = {
    network.name: network
    for network in (
        Network("A", 512, (256,) * 21, block=25),
        Network("C", 128, (784, 1024, 1024, 10), block=50),
        Network("B", 64, (128,) * 5, block=200),
    )
}
"""20 layers of 256, batch 512; 784-1024-1024-10, batch 128; 4 layers of 128, batch 64."""
