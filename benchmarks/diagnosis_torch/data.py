"""The data of the programs: images, sequences, text and tables that are bundled with scikit-learn or made by a seed.

Each function takes the seed of the split and gives the `Data` of the NumPy half: arrays, of which the program makes
tensors (numbers float32, ids int64). What is learned is the same for every seed; who is in training and who is in
validation is not.
"""

from __future__ import annotations

import numpy as np

from benchmarks.diagnosis import data as tables
from benchmarks.diagnosis.data import Data, split
from nndiag.statistics import Array

PADDING = -100
"""Tag of the places that hold no token; cross_entropy leaves it out by default."""


def images(seed: int) -> Data:
    """1,797 digits of 8 × 8 pixels as (N, 1, 8, 8) from −1 to 1."""
    data = tables.digits(seed, "signed")
    return data._replace(x=_image(data.x), x_val=_image(data.x_val), x_test=_image(data.x_test))


def _image(x: Array) -> Array:
    return x.reshape(-1, 1, 8, 8)


def of_digits(data: Data, wanted: range) -> Data:
    """The images of some digits alone, numbered from 0."""
    first = wanted.start
    rows, val = (np.isin(y, wanted) for y in (data.y, data.y_val))
    y_val = data.y_val[val] - first
    return Data(data.x[rows], data.y[rows] - first, data.x_val[val], y_val, data.x_test[val], y_val)


def low_digits(seed: int) -> Data:
    """The digits 0 to 4."""
    return of_digits(images(seed), range(5))


def high_digits(seed: int) -> Data:
    """300 images of the digits 5 to 9 to train on, and all of them to validate."""
    data = of_digits(images(seed), range(5, 10))
    return data._replace(x=data.x[:300], y=data.y[:300])


def pixels(seed: int) -> Data:
    """Digits as 64 pixels from 0 to 1, which are their own targets."""
    data = tables.digits(seed)
    return data._replace(y=data.x, y_val=data.x_val, y_test=data.x_test)


def couples(seed: int) -> Data:
    """Pairs of digits as (N, 2, 64); 1 where both are the same digit, half of the time."""
    data = tables.digits(seed, "signed")
    rng = np.random.default_rng(200)
    (x, y), (x_val, y_val) = (_couples(*part, rng) for part in ((data.x, data.y), (data.x_val, data.y_val)))
    return Data(x, y, x_val, y_val, x_val, y_val)


def _couples(x: Array, digit: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    other = rng.permutation(len(x))
    alike = np.arange(len(x)) % 2 == 0
    for row in np.flatnonzero(alike):
        other[row] = rng.choice(np.flatnonzero(digit == digit[row]))
    return np.stack([x, x[other]], axis=1), (digit == digit[other]).astype(np.int64)


def waves(seed: int) -> Data:
    """800 noisy waves of 24 steps as (N, 24, 1): sine, square, sawtooth or two tones, of any phase."""
    rng = np.random.default_rng(201)
    y = np.arange(800) % 4
    turns = rng.uniform(1.5, 3, (800, 1)) * np.linspace(0, 1, 24) + rng.uniform(0, 1, (800, 1))
    sine, tones = np.sin(2 * np.pi * turns), np.sin(2 * np.pi * turns) + np.sin(6 * np.pi * turns)
    shapes = np.stack([sine, np.sign(sine), 2 * (turns % 1) - 1, tones])
    x = shapes[y, np.arange(800)] + 0.15 * rng.normal(size=(800, 24))
    return split(x[:, :, None], y, seed, standardise=False)


def echoes(seed: int) -> Data:
    """1,000 sequences of 20 numbers as (N, 20, 1), and their sum with weights that fade into the past."""
    rng = np.random.default_rng(202)
    x = rng.normal(size=(1000, 20))
    y = np.tanh(x @ 0.8 ** np.arange(20)[::-1]) + 0.05 * rng.normal(size=1000)
    return split(x[:, :, None], (y - y.mean()) / y.std(), seed, standardise=False)


def _documents(length: int, seed: int) -> tuple[Array, Array]:
    """1,000 documents of this many words out of 1 to 60, in four topics."""
    rng = np.random.default_rng(seed)
    topics = 0.5 * rng.dirichlet(np.full(60, 0.1), 4) + 0.5 * rng.dirichlet(np.full(60, 1.0))
    y = np.arange(1000) % 4
    return np.stack([1 + rng.choice(60, length, p=topics[topic]) for topic in y]), y


def bags(seed: int) -> Data:
    """1,000 documents of 15 words, in four topics."""
    return split(*_documents(15, 203), seed, standardise=False)


def reviews(seed: int) -> Data:
    """1,000 documents of 8 to 16 words in four topics, filled up with 0."""
    x, y = _documents(16, 204)
    lengths = np.random.default_rng(205).integers(8, 17, (1000, 1))
    return split(np.where(np.arange(16) < lengths, x, 0), y, seed, standardise=False)


def phrases(seed: int) -> Data:
    """700 sequences of 5 to 10 words with a tag for each: one of five, by the word and by the word after it."""
    rng = np.random.default_rng(206)
    x, lengths = rng.integers(1, 31, (700, 11)), rng.integers(5, 11, (700, 1))
    tags = np.where(x[:, 1:] > 20, (x[:, :-1] + 2) % 5, x[:, :-1] % 5)
    inside = np.arange(10) < lengths
    return split(np.where(inside, x[:, :-1], 0), np.where(inside, tags, PADDING), seed, standardise=False)


NOUNS = ("cat", "dog", "bird", "child", "farmer", "king")
VERBS = ("sees", "likes", "follows", "hears")
LETTERS = ".abcdefghijklmnopqrstuvwxyz "


def text(seed: int) -> Data:
    """700 windows of 24 letters out of made sentences, and the letters after them."""
    rng = np.random.default_rng(207)
    words = [(rng.choice(NOUNS), rng.choice(VERBS), rng.choice(NOUNS)) for _ in range(1100)]
    letters = np.array([LETTERS.index(c) for c in " ".join(f"the {a} {b} the {c}." for a, b, c in words)])
    starts = np.arange(700) * 36
    return split(letters[starts[:, None] + np.arange(24)], letters[starts[:, None] + np.arange(1, 25)], seed,
                 standardise=False)  # fmt: skip


def friedman(seed: int) -> Data:
    """1,000 points of ten inputs, of which five matter, and a standardised number (Friedman 1991)."""
    rng = np.random.default_rng(208)
    x = rng.uniform(0, 1, (1000, 10))
    y = 10 * np.sin(np.pi * x[:, 0] * x[:, 1]) + 20 * (x[:, 2] - 0.5) ** 2 + 10 * x[:, 3] + 5 * x[:, 4]
    y += rng.normal(size=1000)
    return split(x, (y - y.mean()) / y.std(), seed)


def ratings(seed: int) -> Data:
    """2,400 ratings of 60 items by 50 users as (N, 2) of ids, and a standardised number that three traits decide."""
    rng = np.random.default_rng(209)
    users, items = rng.normal(size=(50, 3)), rng.normal(size=(60, 3))
    chosen = rng.permutation(3000)[:2400]
    x = np.stack([chosen // 60, chosen % 60], axis=1)
    y = np.sum(users[x[:, 0]] * items[x[:, 1]], axis=1) + 0.4 * rng.normal(size=2400)
    return split(x, (y - y.mean()) / y.std(), seed, standardise=False)


def masks(seed: int) -> Data:
    """700 images (N, 1, 8, 8) with a bright rectangle in noise, and where it lies."""
    rng = np.random.default_rng(210)
    top, left = rng.integers(0, 5, (2, 700, 1, 1))
    height, width = rng.integers(2, 5, (2, 700, 1, 1))
    row, column = np.arange(8)[:, None], np.arange(8)
    y = (row >= top) & (row < top + height) & (column >= left) & (column < left + width)
    x = y + 0.5 * rng.normal(size=y.shape)
    return split(x[:, None], y[:, None].astype(np.int64), seed, standardise=False)


def skewed(seed: int) -> Data:
    """1,200 points of six features, one in ten positive, which nobody repeats."""
    return tables.rare(seed, oversample=False)
