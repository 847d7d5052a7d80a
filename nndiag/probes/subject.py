"""What probes experiment on: a Subject, which makes copies (each a Pupil) of a model with its loss, optimiser and samples."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from nndiag.frameworks import offered
from nndiag.statistics import Array

GROUP = "nndiag.subjects"
"""Entry points: top-level package of a framework → function (target, x, y, loss, optimizer) that gives a Subject."""

Form = tuple[int | None, ...]
"""A shape in which None stands for any number."""


@dataclass(frozen=True)
class Passed:
    """What one layer put out (rows, …), and δ, the gradient of the loss with respect to it, where one came back."""

    name: str
    kind: str
    output: Array
    gradient: Array | None = None


@dataclass(frozen=True)
class Shape:
    """Shape of what one layer, or the whole model (named ""), put out, and the one that it declares."""

    name: str
    got: tuple[int, ...]
    wanted: Form


class Pupil(Protocol):
    """A copy to experiment on. `rows` are indices of samples; arrays that go in and out are NumPy's, numbers are float64.

    Training mode is what the user's own training uses; a pass in evaluation mode learns nothing and has no batch statistics.
    """

    def outputs(self, rows: Array) -> Array:
        """Outputs (rows, values) in evaluation mode; raises NndiagError when the model gives none with a row per sample."""

    def loss(self, rows: Array, training: bool = True, targets: Array | None = None) -> float:
        """Loss of a batch, with the targets of other samples where those are given."""

    def gradients(self, rows: Array) -> Mapping[str, Array]:
        """Gradients of the loss of a batch in training mode, by parameter; without frozen parameters."""

    def read(self) -> dict[str, Array]:
        """Copies of the parameters that are not frozen, by name."""

    def write(self, name: str, value: Array) -> None:
        """Set a parameter."""

    def step(self, rows: Array, factor: float = 1.0) -> float:
        """Loss of a batch before its update, which is made at `factor` times the base learning rate."""

    def layers(self, rows: Array, training: bool) -> list[Passed]:
        """What every layer put out, in forward order; in training mode with the gradients that came back."""

    def shapes(self, rows: Array) -> list[Shape]:
        """Shapes of what every layer put out in evaluation mode, in forward order, and last of the whole model's outputs."""

    def floor(self, rows: Array) -> float:
        """Lowest loss that there is on these samples, 0 where it is not known."""


class Subject(Protocol):
    """The user's model, loss and optimiser, which stay as they are, and the samples that are finite."""

    samples: int
    positions: int
    """Classes to be told for one sample: 1, or as many as a sequence or an image has where each is told one."""
    lr: float | None
    """Base learning rate, warm-up aside; None without an optimiser."""
    lacks: tuple[str, ...]
    """Which of "loss" and "optimizer" were not given."""

    def copy(self, *, dropout: bool = True, decay: bool = True, double: bool = False, zeroed: bool = False) -> Pupil:
        """A copy: without dropout, without weight decay, in float64, with all inputs zero. One in float64 does not step."""

    def seeded(self, seed: int) -> AbstractContextManager[None]:
        """The framework's random numbers within come from `seed`; its generators are as before afterwards."""


def find_subject(target: Any, x: Any, y: Any, loss: Any = None, optimizer: Any = None) -> Subject:
    """The Subject of the framework that the target's class comes from.

    Raises UnknownName when there is none, NndiagError where the samples do not fit.
    """
    wanted = "a probe needs an nndiag.nn.Trainer or a model of a framework that it knows"
    made: Subject = offered(GROUP, target, wanted)(target, x, y, loss, optimizer)
    return made


@contextmanager
def seeded(subject: Subject, seed: int = 0) -> Iterator[None]:
    """All random numbers within come from `seed`: Python's, NumPy's and the framework's, which are as before afterwards."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - the user's model may draw from it
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    try:
        with subject.seeded(seed):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


def drawn(subject: Subject, size: int, seed: int = 0) -> Array:
    """At most `size` samples drawn without replacement, the same at every call."""
    return np.random.default_rng(seed).permutation(subject.samples)[:size]


def tiny(subject: Subject, size: int) -> Array:
    """Samples with about `size` things to be learned by heart: `size` of them, or 2 and more of sequences and images.

    A sequence is told a class at every position. Many sequences cannot be learned by heart: what follows on the same
    beginning differs between them.
    """
    return drawn(subject, max(2, size // subject.positions))


def entropy(q: Array) -> float:
    """−Σ q log q, mean over the rows of `q` (N, C): the lowest cross-entropy there is against the distributions `q`."""
    return float(-(q * np.log(np.where(q > 0, q, 1.0))).sum(axis=1).mean())


def binary_entropy(t: Array) -> float:
    """Mean entropy of targets 0 … 1 of any shape: the lowest binary cross-entropy there is against them."""
    flat = np.asarray(t, float).reshape(-1, 1)
    return entropy(np.concatenate([flat, 1 - flat], axis=1))
