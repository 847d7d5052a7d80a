"""The data that the programs train on: real ones from scikit-learn and the digits, and stand-ins made by rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn import datasets as sk

from benchmarks.faultbench.keras import one_hot
from nndiag import datasets
from nndiag.statistics import Array

Data = tuple[Array, Array]
Recipe = Callable[[int], Data]
"""From a seed to inputs (N, features) and targets."""


# Real data


def digits(seed: int) -> Data:
    """Handwritten digits (1438, 64) within 0 … 1, and ids: in place of MNIST."""
    return datasets.digits(seed)[:2]


def breast_cancer(seed: int) -> Data:
    """Tumours (569, 30), raw, and 0 or 1."""
    return shuffled(sk.load_breast_cancer(return_X_y=True), seed)


def iris(seed: int) -> Data:
    """Flowers (105, 4), raw, one-hot: 70 % of them."""
    x, y = shuffled(sk.load_iris(return_X_y=True), seed)
    return x[:105], one_hot(y[:105], 3)


def diabetes(seed: int) -> Data:
    """Patients (442, 10), and how the disease went on, both within 0 … 1: in place of the miles per gallon of cars."""
    x, y = shuffled(sk.load_diabetes(return_X_y=True), seed)
    return unit(x), unit(y)


def shuffled(data: Data, seed: int) -> Data:
    """The same rows in another order."""
    x, y = data
    order = np.random.default_rng(seed).permutation(len(x))
    return x[order], y[order]


# What is done to data


def unit(x: Array) -> Array:
    """Columns scaled to 0 … 1."""
    return np.asarray((x - x.min(axis=0)) / np.ptp(x, axis=0))


def standard(x: Array) -> Array:
    """Columns with mean 0 and standard deviation 1, constant ones 0."""
    std = x.std(axis=0)
    return np.asarray((x - x.mean(axis=0)) / np.where(std > 0, std, 1))


def scaled(recipe: Recipe, inputs: bool = True, targets: bool = False) -> Recipe:
    """`recipe` with standardised inputs, targets or both."""

    def standardised(seed: int) -> Data:
        x, y = recipe(seed)
        return standard(x) if inputs else x, standard(y) if targets else y

    return standardised


def encoded(recipe: Recipe, classes: int) -> Recipe:
    """`recipe` with one-hot targets."""

    def with_one_hot(seed: int) -> Data:
        x, y = recipe(seed)
        return x, one_hot(y, classes)

    return with_one_hot


def rows(recipe: Recipe, count: int) -> Recipe:
    """The first `count` rows of `recipe`."""

    def first(seed: int) -> Data:
        x, y = recipe(seed)
        return x[:count], y[:count]

    return first


# Made by scikit-learn


def classification(samples: int, features: int, **settings: Any) -> Recipe:
    """Clusters at ±1 with noise, in features of unit scale and up."""
    return lambda seed: sk.make_classification(samples, features, random_state=seed, **settings)


def diluted(samples: int, features: int, classes: int) -> Recipe:
    """The same with unlike, uncentred features: 1 to 300 times as large, and shifted by as much."""

    def far_off(seed: int) -> Data:
        x, y = classification(samples, features, n_classes=classes, n_informative=8)(seed)
        sizes = np.geomspace(1, 300, features)
        return sizes * (x + 1), y

    return far_off


def regression(samples: int, features: int) -> Recipe:
    """A linear function of normal features, its values scaled to −1 … 1."""

    def made(seed: int) -> Data:
        x, y = sk.make_regression(samples, features, random_state=seed)
        return x, 2 * unit(y) - 1

    return made


def halved(recipe: Recipe) -> Recipe:
    """Targets of −1 … 1 relabelled to 0 … 1."""

    def relabelled(seed: int) -> Data:
        x, y = recipe(seed)
        return x, (y + 1) / 2

    return relabelled


def blobs(seed: int) -> Data:
    """Three clouds of points (700, 2) of standard deviation 2 within about ±12, one-hot."""
    x, y = shuffled(sk.make_blobs(1000, n_features=2, centers=3, cluster_std=2, random_state=2), seed)
    return x[:700], one_hot(y[:700], 3)


def circles(seed: int) -> Data:
    """Two noisy circles (700, 2), one within the other."""
    x, y = sk.make_circles(1000, noise=0.1, random_state=1 + seed)
    return x[:700], y[:700]


# Made by rule


def xor(seed: int) -> Data:
    """The four rows of the exclusive or."""
    return np.array([[0, 0], [0, 1], [1, 0], [1, 1]]), np.array([0, 1, 1, 0])


def xor_of_six(seed: int) -> Data:
    """The exclusive or with two of its rows twice."""
    return np.array([[1, 1], [0, 0], [1, 0], [0, 1], [1, 1], [0, 0]]), np.array([0, 0, 1, 1, 0, 0])


def few_integers(seed: int) -> Data:
    """Five rows of five integers 1 … 10, and four targets 0 … 4 each."""
    rng = np.random.default_rng(seed)
    return rng.integers(1, 11, (5, 5)), rng.integers(0, 5, (5, 4)).astype(float)


def unrelated_integers(seed: int) -> Data:
    """Fifty rows of integers 50 … 2000, and targets 600 … 4000 that have nothing to do with them."""
    rng = np.random.default_rng(seed)
    return rng.integers(50, 2001, (50, 10)), rng.integers(600, 4001, 50).astype(float)


def two_patterns(seed: int) -> Data:
    """21 rows of (65, 66, 67) for 0 and (68, 69, 70) for 1."""
    y = np.random.default_rng(seed).permutation(np.arange(21) % 2)
    return np.array([65, 66, 67]) + 3 * y[:, None], y


def one_class(seed: int) -> Data:
    """150 points whose label is 1, all of them."""
    rng = np.random.default_rng(seed)
    return np.column_stack([rng.uniform(0, 0.84, 150), rng.uniform(-2.5, 0.77, 150)]), np.ones(150, int)


def fourth_power(seed: int) -> Data:
    """x from −100 to 100, and x⁴."""
    x = np.arange(-100, 100, 0.5)[:, None]
    return x, x[:, 0] ** 4


def hundred_times(seed: int) -> Data:
    """x from 0 to 1, and 100 x + 0.01."""
    x = np.linspace(0, 1, 1000)[:, None]
    return x, 100 * x[:, 0] + 0.01


def hundred_times_scaled(seed: int) -> Data:
    """The same, both within 0 … 1."""
    x, y = hundred_times(seed)
    return x, unit(y)


def straight_line(seed: int) -> Data:
    """x from 0 to 200, and 2 x + 1."""
    x = np.linspace(0, 200, 200)[:, None]
    return x, 2 * x[:, 0] + 1


def eight_points(seed: int) -> Data:
    """Eight points within ±8, and 2 x + 1."""
    x = np.random.default_rng(seed).uniform(-8, 8, (8, 1))
    return x, 2 * x[:, 0] + 1


def sign_of_sum(samples: int) -> Recipe:
    """Twelve normal features, and whether their sum is positive."""

    def made(seed: int) -> Data:
        x = np.random.default_rng(seed).standard_normal((samples, 12))
        return x, (x.sum(axis=1) > 0).astype(int)

    return made


def passengers(seed: int) -> Data:
    """600 passengers of a ship: running numbers and codes up to 890, ages, fares up to 512; who survived, one-hot."""
    rng, n = np.random.default_rng(seed), 600
    cls, sex, age = rng.integers(1, 4, n), rng.integers(0, 2, n), rng.uniform(1, 80, n)
    fare = np.minimum(512, rng.lognormal(5 - cls, 0.7))
    codes = [rng.permutation(891)[:n], rng.permutation(891)[:n], rng.integers(0, 681, n), rng.integers(0, 148, n)]
    x = np.column_stack(
        [*codes, cls, sex, age, rng.integers(0, 6, n), rng.integers(0, 5, n), fare, rng.integers(0, 4, n)]
    )
    survives = 1 / (1 + np.exp(-(2.5 * (1 - sex) - 1.0 * (cls - 2) - 0.02 * (age - 40) - 1.5)))
    return x, one_hot(rng.random(n) < survives, 2)


def patients(seed: int) -> Data:
    """384 patients, eight standardised measurements each; 35 % are ill."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((384, 8))
    ill = x @ rng.normal(0, 0.6, 8) + rng.logistic(0, 1, 384)
    return x, (ill > np.quantile(ill, 0.65)).astype(int)


def houses(seed: int) -> Data:
    """1000 houses, twelve standardised features, and prices near a million."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((1000, 12))
    return x, 1e6 * np.exp(0.15 * x @ rng.standard_normal(12) + rng.normal(0, 0.2, 1000))


def news(seed: int) -> Data:
    """2000 texts on 46 topics, some of them rare, as counts of 300 words; one-hot."""
    rng = np.random.default_rng(seed)
    shares = 1 / np.arange(1, 47)
    y = rng.choice(46, 2000, p=shares / shares.sum())
    topics = rng.dirichlet(np.full(300, 0.05), 46)
    return rng.poisson(30 * (0.7 * topics[y] + 0.3 / 300)).clip(0, 1), one_hot(y, 46)
