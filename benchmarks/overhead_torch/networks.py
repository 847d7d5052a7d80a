"""The networks on which the cost is measured, each with its loss, optimiser and batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle, pairwise

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD, AdamW, Optimizer

SAMPLES = 32_768
"""Rows of the data of a perceptron."""

BATCHES = 64
"""Batches of the data of a language model."""


class LanguageModel(nn.Module):  # type: ignore[misc]  # PyTorch's types are not followed
    """A small transformer that predicts the next of 256 symbols: (batch, length) ids to (batch, length, symbols) logits."""

    def __init__(self, symbols: int, width: int, layers: int, heads: int, length: int) -> None:
        super().__init__()
        self.symbols = nn.Embedding(symbols, width)
        self.places = nn.Embedding(length, width)
        layer = nn.TransformerEncoderLayer(width, heads, 4 * width, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, symbols)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(length))
        self.register_buffer("numbers", torch.arange(length))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Logits of the symbol behind each."""
        x = self.symbols(ids) + self.places(self.numbers)
        return self.head(self.encoder(x, mask=self.mask, is_causal=True))


@dataclass(frozen=True)
class Network:
    """How a model and its batches are made, its optimiser, and how many steps make one timing."""

    name: str
    model: Callable[[], nn.Module]
    optimizer: Callable[[Iterator[torch.Tensor]], Optimizer]
    data: Callable[[], list[tuple[torch.Tensor, torch.Tensor]]]
    block: int

    def batches(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Inputs and class ids, over and over."""
        return cycle(self.data())


def loss_of(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of logits (batch, …, classes) with ids (batch, …)."""
    return F.cross_entropy(outputs.flatten(0, -2), targets.flatten())


def perceptron(*sizes: int) -> nn.Module:
    """Linear layers of these sizes with ReLU between them, initialised as He's scheme has it: deep ones train at all."""
    layers = [nn.Linear(fan_in, fan_out) for fan_in, fan_out in pairwise(sizes)]
    for layer in layers:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)
    return nn.Sequential(*[module for layer in layers for module in (layer, nn.ReLU())][:-1])


def samples(batch: int, inputs: int, classes: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Standard normal inputs (batch, inputs), and the class ids (batch,) that a linear map gives them."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(SAMPLES // batch, batch, inputs, generator=generator)
    y = (x @ torch.randn(inputs, classes, generator=generator)).argmax(dim=2)
    return list(zip(x, y, strict=True))


def sequences(batch: int, length: int, symbols: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Ids (batch, length) of which each is 5 times the last plus 1 or 2, and those behind them."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(symbols, (BATCHES, batch, length + 1), generator=generator)
    for place in range(1, length + 1):
        ids[:, :, place] = (5 * ids[:, :, place - 1] + 1 + ids[:, :, place] % 2) % symbols
    return [(each[:, :-1].contiguous(), each[:, 1:].contiguous()) for each in ids]


def sgd(parameters: Iterator[torch.Tensor]) -> Optimizer:
    """SGD with momentum 0.9."""
    return SGD(parameters, lr=0.01, momentum=0.9)


def adamw(parameters: Iterator[torch.Tensor]) -> Optimizer:
    """AdamW with PyTorch's defaults and a learning rate of 0.0003."""
    return AdamW(parameters, lr=3e-4)


def _deep() -> nn.Module:
    return perceptron(*[256] * 21)


def _wide() -> nn.Module:
    return perceptron(784, 1024, 1024, 10)


NETWORKS = {
    network.name: network
    for network in (
        Network("A", _deep, sgd, lambda: samples(512, 256, 256), block=25),
        Network("C", _wide, sgd, lambda: samples(128, 784, 10), block=50),
        Network("B", lambda: perceptron(*[128] * 5), sgd, lambda: samples(64, 128, 128), block=200),
        Network("T", lambda: LanguageModel(256, 256, 4, 4, 64), adamw, lambda: sequences(16, 64, 256), block=5),
        Network("A-AdamW", _deep, adamw, lambda: samples(512, 256, 256), block=25),
        Network("C-AdamW", _wide, adamw, lambda: samples(128, 784, 10), block=50),
    )
}
"""A: 20 layers of 256, batch 512; C: 784-1024-1024-10, batch 128; both with SGD, and again with AdamW. B: 4 layers of 128, batch
64, SGD, whose step is short. T: a transformer of four layers of 256 with four heads, 16 sequences of 64, AdamW."""
