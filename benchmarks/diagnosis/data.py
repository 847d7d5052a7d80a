"""The data of the programs: scikit-learn's bundled sets and synthetic ones, each split by seed into train and validation."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Literal, NamedTuple

import numpy as np

from nndiag import datasets
from nndiag.statistics import Array

Pixels = Literal["unit", "signed", "raw", "standard"]
"""Digits from 0 to 1, from −1 to 1, from 0 to 16, or standardised by feature."""


class Data(NamedTuple):
    """What a program trains on and validates with, and the task as it really is, by which its result is judged.

    `x_test` goes through whatever the program does to its inputs, and `y_test` has the program's scale, but neither what
    is wrong with the training or the validation labels nor a validation set of the wrong rows.
    """

    x: Array
    y: Array
    x_val: Array
    y_val: Array
    x_test: Array
    y_test: Array


def split(x: Array, y: Array, seed: int, validation: float = 0.3, standardise: bool = True) -> Data:
    """Rows shuffled by `seed`, a share of them for validation; features standardised by the training rows."""
    order = np.random.default_rng(seed).permutation(len(x))
    held_out = round(validation * len(x))
    train, val = order[held_out:], order[:held_out]
    if standardise:
        x = (x - x[train].mean(axis=0)) / (x[train].std(axis=0) + 1e-8)
    return Data(x[train], y[train], x[val], y[val], x[val], y[val])


def bundled(name: str, seed: int) -> Data:
    """One of scikit-learn's sets, standardised: breast_cancer, iris, wine, or diabetes with standardised targets."""
    x, y = _bundled(name)
    return split(x, y, seed)


@cache
def _bundled(name: str) -> tuple[Array, Array]:
    x, y = getattr(import_module("sklearn.datasets"), f"load_{name}")(return_X_y=True)
    return x, (y - y.mean()) / y.std() if name == "diabetes" else y.astype(np.int64)


def cancer(seed: int) -> Data:
    """569 tumours, 30 measurements, two classes; positive is the rarer, malignant one."""
    data = bundled("breast_cancer", seed)
    return data._replace(y=1 - data.y, y_val=1 - data.y_val, y_test=1 - data.y_test)


def iris(seed: int) -> Data:
    """150 flowers, 4 measurements, three classes."""
    return bundled("iris", seed)


def wine(seed: int) -> Data:
    """178 wines, 13 measurements, three classes."""
    return bundled("wine", seed)


def diabetes(seed: int) -> Data:
    """442 patients, 10 measurements, the course of a disease as a standardised number; R² of about 0.45 at best."""
    return bundled("diabetes", seed)


def digits(seed: int, pixels: Pixels = "unit", samples: int | None = None) -> Data:
    """1,797 images of 8 × 8 pixels, ten classes; `samples` of the training images, or all of them."""
    whole = datasets.digits(seed, 0.25)
    data = Data(whole.x[:samples], whole.y[:samples], whole.x_val, whole.y_val, whole.x_val, whole.y_val)
    mean, std = data.x.mean(axis=0), data.x.std(axis=0)
    shift, scale = {"unit": (0, 1), "signed": (0.5, 0.5), "raw": (0, 1 / 16), "standard": (mean, std + 1e-2)}[pixels]
    return map_inputs(data, shift, scale)


def map_inputs(data: Data, shift: Array | float, scale: Array | float) -> Data:
    """(x − shift) / scale for all inputs."""
    x, x_val, x_test = ((part - shift) / scale for part in (data.x, data.x_val, data.x_test))
    return data._replace(x=x, x_val=x_val, x_test=x_test)


def spirals(seed: int) -> Data:
    """Two interleaved spirals of 450 points each, which no straight line divides."""
    rng = np.random.default_rng(101)
    y = np.arange(900) % 2
    radius = np.sqrt(rng.uniform(0.02, 1, 900))
    angle = 1.25 * 2 * np.pi * radius + np.pi * y
    x = np.column_stack([radius * np.cos(angle), radius * np.sin(angle)]) + 0.02 * rng.normal(size=(900, 2))
    return split(x, y, seed)


def circles(seed: int) -> Data:
    """Two rings around each other, 400 points each."""
    rng = np.random.default_rng(102)
    y = np.arange(800) % 2
    radius, angle = 1 + y + 0.15 * rng.normal(size=800), rng.uniform(0, 2 * np.pi, 800)
    return split(np.column_stack([radius * np.cos(angle), radius * np.sin(angle)]), y, seed)


def blobs(seed: int, classes: int = 6, spread: float = 1.0) -> Data:
    """Normal clouds in eight dimensions, 150 points a class, overlapping a little."""
    rng = np.random.default_rng(103)
    y = np.arange(150 * classes) % classes
    x = 1.6 * rng.normal(size=(classes, 8))[y] + spread * rng.normal(size=(len(y), 8))
    return split(x, y, seed)


def sine(seed: int) -> Data:
    """1,000 points of a smooth wave over three inputs with a little noise: R² of about 0.97 at best."""
    rng = np.random.default_rng(104)
    x = rng.uniform(-1, 1, (1000, 3))
    y = np.sin(3 * x[:, 0]) + 0.5 * np.cos(4 * x[:, 1]) + x[:, 0] * x[:, 2] + 0.15 * rng.normal(size=1000)
    return split(x, (y - y.mean()) / y.std(), seed)


def faint(seed: int) -> Data:
    """1,600 points of a linear relation under much noise: R² of about 0.2 at best."""
    rng = np.random.default_rng(105)
    x = rng.normal(size=(1600, 8))
    signal = x @ rng.normal(size=8)
    y = signal / signal.std() + 2.0 * rng.normal(size=1600)
    return split(x, (y - y.mean()) / y.std(), seed)


def words(seed: int) -> Data:
    """Bags of words: 1,000 documents of about 12 words out of 150, in four topics; nine in ten counts are zero."""
    rng = np.random.default_rng(106)
    topics = rng.dirichlet(np.full(150, 0.1), 4) * 0.6 + rng.dirichlet(np.full(150, 1.0)) * 0.4
    y = np.arange(1000) % 4
    x = np.stack([rng.multinomial(rng.poisson(11) + 1, topics[topic]) for topic in y]).astype(float)
    return split(x, y, seed, standardise=False)


def tags(seed: int) -> Data:
    """900 items of 16 features with six labels each, of which any number is on."""
    rng = np.random.default_rng(107)
    x = rng.normal(size=(900, 16))
    scores = np.tanh(x @ rng.normal(size=(16, 12)) / 3) @ rng.normal(size=(12, 6)) + 0.3 * rng.normal(size=(900, 6))
    return split(x, (scores > 0.3).astype(np.int64), seed)


def rare(seed: int, oversample: bool = True) -> Data:
    """1,200 points of six features, one in ten positive; positives of the training part are repeated to one half."""
    rng = np.random.default_rng(108)
    y = (np.arange(1200) % 10 == 0).astype(np.int64)
    data = split(rng.normal(size=(1200, 6)) + 1.4 * y[:, None] * np.array([1, -1, 1, -1, 0, 0]), y, seed)
    positive = np.flatnonzero(data.y)
    rows = np.concatenate([np.flatnonzero(data.y == 0), np.tile(positive, 9)]) if oversample else np.arange(len(data.y))
    rare_rows, common_rows = np.flatnonzero(data.y_test), np.flatnonzero(data.y_test == 0)
    balanced = np.concatenate([rare_rows, common_rows[: len(rare_rows)]])
    return data._replace(x=data.x[rows], y=data.y[rows], x_test=data.x_test[balanced], y_test=data.y_test[balanced])
