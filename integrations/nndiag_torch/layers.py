"""Which modules are layers, what they are called and of what kind they are, and the parameters beside them."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import count
from typing import Any

import numpy as np
import torch
from torch import nn

from nndiag.statistics import Array
from nndiag_torch.arrays import View, as_array, has_values, version_of

KINDS: dict[str, str] = {
    **dict.fromkeys(("Linear", "Bilinear", "LazyLinear"), "affine"),
    **dict.fromkeys(("_ConvNd", "Conv1D"), "convolution"),  # Conv1D: what some language models call a linear layer
    **dict.fromkeys(("Embedding", "EmbeddingBag"), "embedding"),
    **dict.fromkeys(("RNNBase", "RNNCellBase"), "recurrent"),
    "MultiheadAttention": "attention",
    "LayerNorm": "layer_norm",
    "RMSNorm": "rms_norm",
    "GroupNorm": "group_norm",
    **dict.fromkeys(("_BatchNorm", "SyncBatchNorm", "_InstanceNorm"), "batch_norm"),
    "_DropoutNd": "dropout",
    **dict.fromkeys(("_MaxPoolNd", "_AdaptiveMaxPoolNd", "_LPPoolNd"), "max_pooling"),
    **dict.fromkeys(("_AvgPoolNd", "_AdaptiveAvgPoolNd"), "average_pooling"),
    "Flatten": "flatten",
    "Unflatten": "flatten",
    "Identity": "identity",
    "ReLU": "relu",
    "ReLU6": "relu6",
    "LeakyReLU": "leaky_relu",
    "PReLU": "prelu",
    "RReLU": "leaky_relu",
    "ELU": "elu",
    "SELU": "selu",
    "CELU": "celu",
    "GELU": "gelu",
    "SiLU": "silu",
    "Mish": "mish",
    "Softplus": "softplus",
    "Softsign": "softsign",
    "Hardswish": "hard_swish",
    "Hardsigmoid": "hard_sigmoid",
    "Hardtanh": "hard_tanh",
    "Sigmoid": "sigmoid",
    "LogSigmoid": "log_sigmoid",
    "Tanh": "tanh",
    "Softmax": "softmax",
    "Softmax2d": "softmax",
    "LogSoftmax": "log_softmax",
}
"""Kind of layer by the class of torch.nn that a module is or descends from."""

FUNCTIONS: dict[str, str] = {
    "ReluBackward0": "relu",
    "LeakyReluBackward0": "leaky_relu",
    "EluBackward0": "elu",
    "GeluBackward0": "gelu",
    "SiluBackward0": "silu",
    "MishBackward0": "mish",
    "SoftplusBackward0": "softplus",
    "HardtanhBackward0": "hard_tanh",
    "HardswishBackward0": "hard_swish",
    "HardsigmoidBackward0": "hard_sigmoid",
    "SigmoidBackward0": "sigmoid",
    "TanhBackward0": "tanh",
    "SoftmaxBackward0": "softmax",
    "LogSoftmaxBackward0": "log_softmax",
}
"""Kind of a function that no module stands for, by the node that it leaves in the autograd graph."""

RESHAPING = frozenset(
    {"ViewBackward0", "ReshapeAliasBackward0", "UnsafeViewBackward0", "TransposeBackward0", "PermuteBackward0",
     "SqueezeBackward0", "SqueezeBackward1", "UnsqueezeBackward0", "CloneBackward0", "ExpandBackward0",
     "MaxPool2DWithIndicesBackward0", "ToCopyBackward0"}
)  # fmt: skip
"""Nodes that hand their input's values on, all or some of them."""

PASSING = ("max_pooling", "average_pooling", "flatten", "identity", "dropout")
"""Kinds that hand on what comes in, all or some of it."""

CHANNELS_FIRST = ("convolution", "batch_norm", "group_norm", "max_pooling", "average_pooling")
"""Kinds whose units are the channels, in the second axis of outputs with more than two."""

ALIKE = {"relu6": "hard_tanh", "selu": "elu"}
"""Kinds of modules whose node is that of another kind."""


class Layer:
    """A module, or a function between two, as events speak of it."""

    def __init__(self, name: str, kind: str, module: nn.Module | None) -> None:
        self.name, self.kind, self.module = name, kind, module
        self.shape: tuple[int, ...] | None = None
        self.sequence: tuple[int, ...] = ()
        self.after: str | None = None
        self.latest: Array | None = None
        self.slots: Any = None
        self.goes_back: Callable[[torch.Tensor], None] | None = None

    @property
    def rate(self) -> float | None:
        """Share that a dropout drops, or that each batch has in the running statistics of a batch normalisation."""
        if self.kind == "dropout":
            return float(getattr(self.module, "p", 0.0))
        running = self.kind == "batch_norm" and getattr(self.module, "track_running_stats", False)
        momentum = getattr(self.module, "momentum", None) if running else None
        return None if momentum is None else float(momentum)

    def shaped(self, x: torch.Tensor | None, output: torch.Tensor) -> None:
        """The first pass has come through: what of its shapes is told of the layer."""
        self.shape = tuple(output.shape[1:])
        if x is not None and x.ndim == 3 and getattr(self.module, "batch_first", True) is False:
            self.sequence = tuple(x.shape[:2])

    def channels_first(self, axes: int) -> bool:
        """Whether the units of an output with so many `axes` are in the second: those of images and convolutions are."""
        return axes > 3 or (axes == 3 and self.kind in CHANNELS_FIRST)

    def slope(self) -> Array | None:
        """Derivative of the latest output over its largest possible value, for functions that flatten out at both ends."""
        y = self.latest
        if y is None:
            return None
        if self.kind == "tanh":
            return np.asarray(1 - y * y)
        return np.asarray(4 * y * (1 - y)) if self.kind == "sigmoid" else None


class Parameter:
    """A parameter as events speak of it; `value` and `gradient` are views of what is there now."""

    def __init__(self, name: str, tensor: nn.Parameter, owner: nn.Module, layer: str) -> None:
        self.name, self.tensor, self.layer = name, tensor, layer
        self.kind = parameter_kind(owner, name, tensor)
        self.registered = True
        self.scale: Any = 1.0
        self.std, self.mean = _spread(tensor)
        self._mark = _mark(tensor)
        self._nothing: Array | None = None
        self._values = View()
        self.momentum = View()

    @property
    def frozen(self) -> bool:
        """Whether it takes no gradient."""
        return not self.tensor.requires_grad

    @property
    def written(self) -> bool:
        """Whether it is frozen, and other values have come into it."""
        return self.frozen and self._mark != _mark(self.tensor)

    @property
    def value(self) -> Array:
        """Its values."""
        return self._values.of(self.tensor)

    @property
    def gradient(self) -> Array:
        """Its gradient, without the scale of mixed precision; zeros where there is none."""
        gradient = self.tensor.grad
        if gradient is None:
            if self._nothing is None:
                self._nothing = np.zeros(tuple(self.tensor.shape), np.float32)
            return self._nothing
        return as_array(gradient) if self.scale == 1.0 else as_array(gradient) / self.scale

    def describe(self) -> dict[str, Any]:
        """Name, kind, shape, whether frozen, its layer, what its values began with, and whether the model has it."""
        there = is_there(self.tensor)
        if there and self.std is None:  # it was a lazy module's
            self.std, self.mean = _spread(self.tensor)
        return {
            "name": self.name,
            "kind": self.kind,
            "shape": list(self.tensor.shape) if there else [],
            "frozen": self.frozen,
            "layer": self.layer,
            "std": self.std,
            "mean": self.mean,
            "registered": self.registered,
            "written": self.written,
        }


def _mark(tensor: torch.Tensor) -> tuple[Any, ...]:
    """What changes where a parameter is written to: its version, its place and, where to look waits for no device, a value.

    What is written to its `data` has a version of its own.
    """
    if not is_there(tensor) or type(tensor) is not nn.Parameter or tensor.layout is not torch.strided:
        return ()  # a distributed one among them
    value = tensor.detach().reshape(-1)[:1].item() if tensor.is_cpu and tensor.numel() else None
    return version_of(tensor), tensor.data_ptr(), value


def is_there(tensor: torch.Tensor) -> bool:
    """Whether a parameter has values: that of a lazy module has none before its first call."""
    return not isinstance(tensor, nn.parameter.UninitializedTensorMixin) and has_values(tensor)


def kind_of(module: nn.Module) -> str:
    """Kind of a module, "unknown" where it descends from no class that has one; a LeakyReLU of slope 1 is the identity."""
    if getattr(module, "negative_slope", None) == 1:
        return "identity"
    return next((KINDS[cls.__name__] for cls in type(module).__mro__ if cls.__name__ in KINDS), "unknown")


def parameter_kind(owner: nn.Module, name: str, tensor: torch.Tensor) -> str:
    """weight, bias, norm or embedding."""
    kind = kind_of(owner)
    if kind.endswith("_norm"):
        return "norm"
    if kind == "embedding" or (kind == "unknown" and tensor.ndim > 2):
        return "embedding"  # such as positions and class tokens, which a module of the user's own holds
    matrix = tensor.ndim > 1 or not is_there(tensor)
    return "weight" if matrix and not name.rpartition(".")[2].startswith("bias") else "bias"


def layers_of(model: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """The modules whose outputs are recorded, with their paths: those without children, and others of a known kind."""
    for path, module in model.named_modules():
        name = _uncompiled(path)
        leaf = next(module.children(), None) is None
        if (leaf or kind_of(module) != "unknown") and "parametrizations" not in name:
            yield module, name or type(module).__name__.lower()


def parameters_of(model: nn.Module, layers: Mapping[int, Layer], known: Mapping[int, Parameter]) -> Iterator[Parameter]:
    """Every parameter once, by its first name, with the module and layer that own it; of `known` ones by id what is there."""
    seen: set[int] = set()
    for place, module in model.named_modules():
        path = layers[id(module)].name if place and id(module) in layers else _uncompiled(place)
        for name, tensor in module.named_parameters(recurse=False):
            if id(tensor) not in seen:
                seen.add(id(tensor))
                whole = f"{path}.{name}" if path else name
                yield known.get(id(tensor)) or Parameter(whole, tensor, module, path or type(model).__name__.lower())


def free(name: str, taken: Collection[str]) -> str:
    """`name`, or with the first number behind it that is not taken: a module that was put in may have the path of another."""
    return name if name not in taken else next(n for i in count(2) if (n := f"{name} ({i})") not in taken)


def _uncompiled(path: str) -> str:
    """Path of a module without what torch.compile puts between it and its name."""
    return path.removesuffix("._orig_mod").replace("_orig_mod.", "")


def function_before(tensor: torch.Tensor) -> str:
    """Kind of the activation function that `tensor` comes from, possibly reshaped; "" where it comes from anything else."""
    node = tensor.grad_fn
    for _ in range(4):
        if node is None:
            return ""
        name = node.name()
        if name not in RESHAPING:
            return "" if getattr(node, "_saved_negative_slope", 0.0) == 1 else FUNCTIONS.get(name, "")
        node = node.next_functions[0][0] if node.next_functions else None
    return ""


def reshapes(x: torch.Tensor | None, output: torch.Tensor) -> bool:
    """Whether `output` is `x`, possibly reshaped, and nothing else has come to it."""
    if x is None or x.grad_fn is None:
        return False
    node = output.grad_fn
    for _ in range(4):
        if node is None or node is x.grad_fn:
            break
        node = node.next_functions[0][0] if node.name() in RESHAPING and node.next_functions else None
    return node is x.grad_fn


def _spread(tensor: torch.Tensor) -> tuple[float | None, float | None]:
    """Standard deviation and mean of the values; None where there are none, or one is not finite."""
    if not is_there(tensor) or not tensor.numel() or not tensor.is_floating_point():
        return None, None
    spread, mean = (float(one) for one in torch.std_mean(tensor.detach().float(), correction=0))
    return (spread, mean) if math.isfinite(spread) else (None, None)
