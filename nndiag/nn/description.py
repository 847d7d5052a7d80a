"""What a trainer consists of, in values fit for JSON."""

from __future__ import annotations

from typing import Any

import numpy as np

from nndiag.nn.dropout import Dropout
from nndiag.nn.layers import Layer
from nndiag.nn.norms import BatchNorm
from nndiag.nn.parameter import Parameter
from nndiag.nn.sequential import Sequential


def layers(model: Sequential) -> list[dict[str, Any]]:
    """Name, kind, shape of the output (without the batch; [] where the width is not known) and rate of layers."""
    width = model.input_width
    shapes = [[] for _ in model.layers] if width is None else [[out] for out in model.output_widths(width)]
    return [
        {"name": layer.name, "kind": layer.kind, "shape": shape}
        | ({"rate": layer.p} if isinstance(layer, Dropout) else {})
        | ({"rate": layer.momentum} if isinstance(layer, BatchNorm) else {})
        for layer, shape in zip(model.layers, shapes, strict=True)
    ]


def parameters(model: Sequential) -> list[dict[str, Any]]:
    """Name, kind, shape, frozen, layer and standard deviation of each parameter."""
    return [_parameter(parameter, layer) for layer in model.layers for parameter in layer.parameters]


def _parameter(parameter: Parameter, layer: Layer) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "kind": parameter.kind,
        "shape": list(parameter.value.shape),
        "frozen": parameter.frozen,
        "layer": layer.name,
        "std": float(np.std(parameter.value, dtype=np.float64)),
        "mean": float(np.mean(parameter.value, dtype=np.float64)),
    }
