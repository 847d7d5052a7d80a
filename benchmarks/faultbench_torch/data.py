"""The data that the programs train on: the digits as pictures, and stand-ins for pictures, sequences and texts."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from sklearn.datasets import make_regression
from torch import Tensor

from benchmarks.faultbench import data
from nndiag.statistics import Array

Data = tuple[Tensor, Tensor]
Recipe = Callable[[int], Data]
"""From a seed to inputs (N, …) and targets."""


# Targets


def ids(y: Array) -> Tensor:
    """Class ids (N,), for CrossEntropyLoss."""
    return torch.from_numpy(np.asarray(y)).long()


def column(y: Array) -> Tensor:
    """Numbers (N, 1), for BCELoss and MSELoss."""
    return torch.from_numpy(np.asarray(y, np.float32)).reshape(-1, 1)


def tensors(recipe: data.Recipe, *shape: int, targets: Callable[[Array], Tensor] = ids) -> Recipe:
    """`recipe` in PyTorch, each row of its inputs in this shape."""

    def shaped(seed: int) -> Data:
        x, y = recipe(seed)
        return torch.from_numpy(np.asarray(x, np.float32)).reshape(-1, *shape), targets(y)

    return shaped


def one_hot(recipe: Recipe, classes: int) -> Recipe:
    """`recipe` with ids as rows of 0 and one 1."""

    def encoded(seed: int) -> Data:
        x, y = recipe(seed)
        return x, torch.nn.functional.one_hot(y, classes).float()

    return encoded


def scaled(recipe: Recipe, inputs: float, targets: float = 1.0) -> Recipe:
    """`recipe` with inputs and targets times as large."""

    def times(seed: int) -> Data:
        x, y = recipe(seed)
        return inputs * x, y if targets == 1 else targets * y

    return times


# Pictures


def digits(targets: Callable[[Array], Tensor] = ids) -> Recipe:
    """Handwritten digits (1438, 1, 8, 8) within 0 … 1: in place of MNIST and CIFAR-10."""
    return tensors(data.digits, 1, 8, 8, targets=targets)


def images(samples: int, *shape: int, classes: int, targets: Callable[[Array], Tensor] = ids) -> Recipe:
    """Normal noise (N, channels, height, width) around one coarse normal pattern a class, 4 × 4 patches a picture."""

    def made(seed: int) -> Data:
        rng = np.random.default_rng(seed)
        channels, height, width = shape
        patterns = rng.standard_normal((classes, channels, 4, 4)).repeat(height // 4, axis=2).repeat(width // 4, axis=3)
        y = rng.integers(0, classes, samples)
        x = patterns[y] + rng.standard_normal((samples, *shape))
        return torch.from_numpy(x.astype(np.float32)), targets(y)

    return made


def colours(seed: int) -> Data:
    """300 grey pictures (1, 16, 16) of soft waves, and colours (2, 8, 8) within ±1 that follow their brightness."""
    rng = np.random.default_rng(seed)
    u, v = np.meshgrid(np.arange(16), np.arange(16))
    waves = rng.uniform(0.1, 0.6, (300, 2, 1, 1))
    grey = 0.5 + 0.5 * np.sin(waves[:, :1] * u + waves[:, 1:] * v + rng.uniform(0, 2 * math.pi, (300, 1, 1, 1)))
    small = grey.reshape(300, 1, 8, 2, 8, 2).mean(axis=(3, 5))
    both = np.concatenate([np.sin(3 * small), np.cos(3 * small)], axis=1)
    return torch.from_numpy(grey.astype(np.float32)), torch.from_numpy(both.astype(np.float32))


# Sequences


def sequences_of_integers(seed: int) -> Data:
    """Two sequences (3, 4) of integers 0 … 31, and a target 7 … 12 at every step."""
    rng = np.random.default_rng(seed)
    return (torch.from_numpy(rng.integers(0, 32, (2, 3, 4)).astype(np.float32)),
            torch.from_numpy(rng.integers(7, 13, (2, 3, 1)).astype(np.float32)))  # fmt: skip


def scaled_sequences(seed: int) -> Data:
    """The same, both standardised."""
    x, y = sequences_of_integers(seed)
    return (x - x.mean()) / x.std(), (y - y.mean()) / y.std()


def noise_with_rare_ones(seed: int) -> Data:
    """3200 sequences (12, 16) of normal noise; 5 in 32, drawn at random, are 1."""
    rng = np.random.default_rng(seed)
    y = (rng.permutation(3200) < 500).astype(np.float32)
    return torch.from_numpy(rng.standard_normal((3200, 12, 16)).astype(np.float32)), column(y)


MASK = -100.0
"""What stands where a sequence has ended."""


def masked_sequences(seed: int) -> Data:
    """100 sequences (6, 1) within 0 … 1 whose ends are masked by -100, and three classes at random."""
    rng = np.random.default_rng(seed)
    x = rng.random((100, 6, 1)).astype(np.float32)
    x[np.arange(6) >= rng.integers(2, 7, (100, 1))] = MASK
    return torch.from_numpy(x), ids(rng.integers(0, 3, 100))


def waves(samples: int, steps: int, ahead: int, targets: int) -> Recipe:
    """Standardised sums of three sines and noise (N, steps, 1), and what comes `ahead` steps later (N, `targets`)."""

    def made(seed: int) -> Data:
        rng = np.random.default_rng(seed)
        t = np.arange(steps + ahead + targets)
        rates, phases = rng.uniform(0.05, 0.6, (samples, 3, 1)), rng.uniform(0, 2 * math.pi, (samples, 3, 1))
        series = np.sin(rates * t + phases).sum(axis=1) / math.sqrt(1.5)
        x = series[:, :steps] + 0.1 * rng.standard_normal((samples, steps))
        y = series[:, steps + ahead - 1 :][:, :targets]
        return torch.from_numpy(x[:, :, None].astype(np.float32)), torch.from_numpy(y.astype(np.float32))

    return made


def songs(seed: int) -> Data:
    """100 sequences (1, 1000) of normal noise, and real numbers of some hundreds that are called labels."""
    x, y = make_regression(100, 1000, random_state=seed)
    return torch.from_numpy(x.astype(np.float32)).unsqueeze(1), column(y)


def wave_steps(seed: int) -> Data:
    """57 sums of three sines (50, 1), and at every step the value five steps later (50, 1)."""
    x, _ = waves(57, 55, 1, 1)(seed)
    return x[:, :50], x[:, 5:]


def uniform_sequences(seed: int) -> Data:
    """256 sequences (10, 5) of uniform noise, which are their own targets."""
    x = torch.from_numpy(np.random.default_rng(seed).random((256, 10, 5)).astype(np.float32))
    return x, x


# Texts


def texts(seed: int) -> Data:
    """Nine texts of up to ten of 100 words, padded by 0, of two classes with three words each of their own."""
    rng = np.random.default_rng(seed)
    y = np.arange(9) % 2
    x = np.zeros((9, 10), int)
    for row, label in zip(x, y, strict=True):
        length = rng.integers(4, 11)
        own, common = rng.integers(1 + 3 * label, 4 + 3 * label, 2), rng.integers(10, 100, length - 2)
        row[:length] = rng.permutation([*own, *common])
    return torch.from_numpy(x), column(y)
