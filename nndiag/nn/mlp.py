"""The multilayer perceptron, built from its sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import DTypeLike

from nndiag.errors import UnknownName
from nndiag.nn.activations import LeakyReLU, ReLU, Sigmoid, Softmax, Tanh
from nndiag.nn.dropout import Dropout
from nndiag.nn.initializers import Initializer
from nndiag.nn.layers import Affine, Layer
from nndiag.nn.norms import BatchNorm, LayerNorm
from nndiag.nn.sequential import Sequential

_T = TypeVar("_T")

ACTIVATIONS: dict[str, Callable[[], Layer]] = {layer.kind: layer for layer in (ReLU, LeakyReLU, Tanh, Sigmoid, Softmax)}
NORMS: dict[str, type[LayerNorm] | type[BatchNorm]] = {"layer": LayerNorm, "batch": BatchNorm}


class MLP(Sequential):
    """`sizes` = [inputs, hidden…, outputs]; layers `hidden1`, `hidden1.norm`, `hidden1.relu`, `hidden1.dropout`, ….

    The last layer is `output`, plain affine. `init` is he_normal for relu and leaky_relu and xavier_normal otherwise.
    `seed` is that of weights and dropout. Raises `UnknownName` for an unknown activation, norm or initialiser and
    ValueError for sizes, dropout or dtype that make no network.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        activation: str | None = "relu",
        init: str | Initializer | None = None,
        dropout: float = 0.0,
        norm: Literal["layer", "batch"] | None = None,
        dtype: DTypeLike = np.float32,
        seed: int = 0,
    ) -> None:
        if len(sizes) < 2 or min(sizes) < 1:
            raise ValueError(f"MLP({list(sizes)}): give at least inputs and outputs, each of 1 or more")
        if np.dtype(dtype).kind != "f":
            raise ValueError(f"MLP(dtype={dtype!r}): give a floating-point type")
        rng = np.random.default_rng(seed)
        init = init or ("he_normal" if activation in ("relu", "leaky_relu") else "xavier_normal")
        layers: list[Layer] = []
        for number, (fan_in, fan_out) in enumerate(pairwise(sizes[:-1]), start=1):
            layers.append(_named(f"hidden{number}", Affine(fan_in, fan_out, init, dtype=dtype, seed=rng)))
            layers.extend(_after_affine(f"hidden{number}", fan_out, activation, dropout, norm, dtype, rng))
        layers.append(_named("output", Affine(sizes[-2], sizes[-1], init, dtype=dtype, seed=rng)))
        super().__init__(layers, seed)


def _after_affine(
    name: str,
    width: int,
    activation: str | None,
    dropout: float,
    norm: str | None,
    dtype: DTypeLike,
    rng: np.random.Generator,
) -> Iterator[Layer]:
    if norm is not None:
        yield _named(f"{name}.norm", _known(NORMS, norm, "norm")(width, dtype=dtype))
    if activation is not None:
        yield _named(f"{name}.{activation}", _known(ACTIVATIONS, activation, "activation function")())
    if dropout:
        yield _named(f"{name}.dropout", Dropout(dropout, seed=rng.spawn(1)[0]))


def _known(table: dict[str, _T], name: str, what: str) -> _T:
    if name not in table:
        raise UnknownName(f"no {what} is called {name!r}; there are {', '.join(table)}, or None")
    return table[name]


def _named(name: str, layer: Layer) -> Layer:
    layer.name = name
    return layer
