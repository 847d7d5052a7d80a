"""A chain of layers as a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np

from nndiag.errors import UnknownName
from nndiag.nn.layers import Layer
from nndiag.nn.parameter import Parameter
from nndiag.statistics import Array

ObserveForward = Callable[[Layer, Array, Array], None]
ObserveBackward = Callable[[Layer, Array], None]


class Sequential:
    """Layers one after the other. Names those without a name, and lets those without a seed draw from its own.

    An affine layer is called `affine1`, `affine2`, …; what follows it `affine1.relu` and so on; what comes before the
    first `input.layer_norm`. Raises ValueError without layers, or when a layer comes twice.
    """

    def __init__(self, layers: Iterable[Layer], seed: int = 0) -> None:
        self.layers = list(layers)
        self.seed = seed
        if not self.layers or len({id(layer) for layer in self.layers}) < len(self.layers):
            raise ValueError(f"a model needs layers, each of them once, got {self.layers!r}")
        rngs = np.random.default_rng(seed).spawn(len(self.layers))
        for layer, name, rng in zip(self.layers, _names(self.layers), rngs, strict=True):
            layer.rename(name)
            layer.reseed(rng)
        self._passed: list[Array] = []
        self.parameters: list[Parameter] = [parameter for layer in self.layers for parameter in layer.parameters]

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """The type of the parameters, to which inputs are converted; float32 where there are none."""
        return self.parameters[0].value.dtype if self.parameters else np.dtype(np.float32)

    def forward(self, x: Array, training: bool = False, observe: ObserveForward | None = None) -> Array:
        """Output (batch, width) for `x` (batch, width); `observe(layer, x, output)` is called after each layer.

        Raises `ShapeError` when `x` does not fit. The output is a buffer, good until the next pass.
        """
        x = np.asarray(x, dtype=self.dtype)
        self._passed = [x]
        for layer in self.layers:
            output = layer.forward(x, training)
            self._passed.append(output)
            if observe is not None:
                observe(layer, x, output)
            x = output
        return x

    def revisit(self, observe: ObserveForward) -> None:
        """Call `observe(layer, x, output)` for every layer, with what the latest pass forward left in their buffers."""
        for layer, (x, output) in zip(self.layers, pairwise(self._passed), strict=True):
            observe(layer, x, output)

    def backward(self, gradient: Array, observe: ObserveBackward | None = None) -> None:
        """Set the gradient of every parameter, from `gradient` with respect to the latest output.

        `observe(layer, gradient)` is called before each layer, with the gradient with respect to its output.
        """
        for layer in reversed(self.layers[1:]):
            if observe is not None:
                observe(layer, gradient)
            gradient = layer.backward(gradient)
        if observe is not None:
            observe(self.layers[0], gradient)
        self.layers[0].backward_parameters(gradient)

    def layer(self, name: str) -> Layer:
        """The layer called `name`; raises `UnknownName` when there is none."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise UnknownName(f"no layer is called {name!r}; there are {', '.join(layer.name for layer in self.layers)}")

    @property
    def input_width(self) -> int | None:
        """Width of the inputs, as the first layer that has a fixed one says; None when there is no such layer."""
        return next((layer.input_width for layer in self.layers if layer.input_width), None)

    def output_widths(self, input_width: int) -> list[int]:
        """Width of the output of each layer; raises `ShapeError` naming the first layer that does not fit."""
        widths = [input_width]
        for layer in self.layers:
            widths.append(layer.output_width(widths[-1]))
        return widths[1:]

    def __repr__(self) -> str:
        lines = [f"  {layer.name:<20} {layer.kind:<12} {_shapes(layer)}".rstrip() for layer in self.layers]
        return "\n".join([f"{type(self).__name__}(", *lines, ")"])


def _names(layers: Sequence[Layer]) -> Iterator[str]:
    """A name for each layer: its own or one from its place, with a number where it is taken."""
    affines, group, taken = 0, "input", Counter[str]()
    for layer in layers:
        if layer.kind == "affine":
            affines += 1
            name = group = layer.name or f"affine{affines}"
        else:
            name = layer.name or f"{group}.{layer.kind}"
        taken[name] += 1
        yield name if taken[name] == 1 else f"{name}{taken[name]}"


def _shapes(layer: Layer) -> str:
    return ", ".join(f"{parameter.name.rpartition('.')[2]} {parameter.value.shape}" for parameter in layer.parameters)
