"""Values that go into a loss: found behind views of what the model returned, or in what functions save; and their head."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nndiag_torch.graph.nodes import DEPTH, Edge, Node, inputs_of, name_of, number_in, saved_by, shape_of, signed

Step = Callable[[Tensor], Tensor]
"""What a view does to a tensor."""

CANDIDATES = 16
"""Tensors looked for among what a model returned."""


def _reshaped(node: Node, at: int) -> Step:
    shape = shape_of((node, at))
    return lambda t: t.reshape(shape)


def _transposed(node: Node, at: int) -> Step:
    first, second = signed(node._saved_dim0), signed(node._saved_dim1)
    return lambda t: t.transpose(first, second)


def _permuted(node: Node, at: int) -> Step:
    dims = [signed(dim) for dim in node._saved_dims]
    return lambda t: t.permute(dims)


def _sliced(node: Node, at: int) -> Step:
    dim = signed(node._saved_dim)
    start, end = (bound if bound is None else signed(bound) for bound in (node._saved_start, node._saved_end))
    part = slice(start, end, node._saved_step)
    return lambda t: t[(slice(None),) * (dim % t.ndim) + (part,)]


def _selected(node: Node, at: int) -> Step:
    dim, index = signed(node._saved_dim), signed(node._saved_index)
    return lambda t: t.select(dim, index)


def _unbound(node: Node, at: int) -> Step:
    dim = signed(node._saved_dim)
    return lambda t: t.unbind(dim)[at]


def _split(node: Node, at: int) -> Step:
    dim = signed(node._saved_dim)
    sizes = node._saved_split_sizes if node.name() == "SplitWithSizesBackward0" else node._saved_split_size
    return lambda t: t.split(sizes, dim)[at]


def _indexed(node: Node, at: int) -> Step:
    places = tuple(slice(None) if index is None else index for index in node._saved_indices)
    return lambda t: t[places]


RESHAPES = ("ViewBackward0", "UnsafeViewBackward0", "ReshapeAliasBackward0", "AliasBackward0", "CloneBackward0",
            "SqueezeBackward0", "SqueezeBackward1", "SqueezeBackward2", "UnsqueezeBackward0")  # fmt: skip
VIEWS: dict[str, Callable[[Node, int], Step]] = {
    **dict.fromkeys(RESHAPES, _reshaped),
    "ToCopyBackward0": lambda node, at: Tensor.detach,
    "TransposeBackward0": _transposed,
    "PermuteBackward0": _permuted,
    "TBackward0": lambda node, at: Tensor.t,
    "SliceBackward0": _sliced,
    "SelectBackward0": _selected,
    "UnbindBackward0": _unbound,
    "SplitBackward0": _split,
    "SplitWithSizesBackward0": _split,
    "IndexBackward0": _indexed,
}
"""Nodes that hand values on as they are, in another shape, and how to do what they did."""

FUNCTIONS = {
    "SoftmaxBackward0": "softmax",
    "LogSoftmaxBackward0": "log_softmax",
    "SigmoidBackward0": "sigmoid",
    "LogSigmoidBackward0": "log_sigmoid",
    "TanhBackward0": "tanh",
    "ReluBackward0": "relu",
    "ExpBackward0": "exponential",
    "SoftplusBackward0": "softplus",
    "LeakyReluBackward0": "leaky_relu",
    "EluBackward0": "elu",
    "CeluBackward0": "celu",
    "GeluBackward0": "gelu",
    "SiluBackward0": "silu",
    "MishBackward0": "mish",
    "HardsigmoidBackward0": "hard_sigmoid",
    "HardswishBackward0": "hard_swish",
    "HardtanhBackward0": "hard_tanh",
    "PreluKernelBackward0": "prelu",
}
"""Elementwise functions by their nodes; those that save their result give it."""


def view(edge: Edge) -> Step | None:
    """What the node at `edge` has done to hand values on; None where it is no view, or has forgotten which."""
    build = VIEWS.get(name_of(edge))
    try:
        return None if build is None else build(*edge)
    except RuntimeError:  # indices are freed by backward
        return None


ARITHMETIC = frozenset(
    f"{name}Backward{i}" for name in ("Add", "Sub", "Rsub", "Mul", "Div", "Neg", "Pow", "Clamp") for i in range(2)
)


@dataclass(frozen=True)
class Value:
    """What goes into a loss along `edge`, of `shape`: a tensor of the graph and the views taken of it since.

    `source` is None where none can be read; `matched` says that it is what the model returned, or an elementwise function of it.
    """

    edge: Edge
    shape: tuple[int, ...]
    source: Tensor | None = None
    steps: tuple[Step, ...] = ()
    matched: bool = False

    @property
    def dtype(self) -> torch.dtype:
        """What it is cast to, if it is."""
        node, at = self.edge
        dtype: torch.dtype = node._input_metadata[at].dtype
        return dtype

    @property
    def tensor(self) -> Tensor | None:
        """The values, detached, not yet cast: a cast copies, and may come after most are left out."""
        return None if self.source is None else applied(self.steps, self.source.detach())


def applied(steps: Iterable[Step], tensor: Tensor) -> Tensor:
    for step in steps:
        tensor = step(tensor)
    return tensor


def candidates(output: Any, loss: Tensor) -> Iterator[Tensor]:
    """Tensors with a graph among what the model returned, two levels deep."""
    stack = [(output, 0)]
    while stack:
        item, depth = stack.pop()
        if isinstance(item, Tensor):
            if item.grad_fn is not None and item.ndim and item is not loss:
                yield item
        elif depth < 2 and isinstance(item, Mapping | tuple | list):
            parts = item.values() if isinstance(item, Mapping) else item
            stack.extend((part, depth + 1) for part in reversed(list(parts)[:CANDIDATES]))


def head_of(edge: Edge) -> str:
    """Kind of the elementwise function that `edge` comes from; "unknown" behind arithmetic on one."""
    changed = False
    for _ in range(DEPTH):
        name = name_of(edge)
        if kind := _function(edge[0], name):
            return "unknown" if changed else kind
        changed = changed or name in ARITHMETIC
        inputs = inputs_of(edge[0]) if name in VIEWS or name in ARITHMETIC or name == "ExpandBackward0" else []
        if len(inputs) != 1:
            break
        edge = inputs[0][1]
    return ""


def _function(node: Node, name: str) -> str:
    """Kind of an elementwise function; a clamp at 0 from below is a ReLU, a product of unit vectors their cosines."""
    if name == "MmBackward0" and all(_of_unit_length(edge) for edge in node.next_functions):
        return "cosine"
    if name in ("ClampBackward1", "ClampMinBackward0"):
        low, high = saved_by(node, "min"), saved_by(node, "max") if name == "ClampBackward1" else None
        return "relu" if high is None and number_in(low) == 0 else ""
    return FUNCTIONS.get(name, "")


def _of_unit_length(edge: Edge) -> bool:
    """Whether vectors come along `edge` that were divided by their norms."""
    if name_of(edge) in ("TBackward0", "TransposeBackward0", "PermuteBackward0"):
        edge = edge[0].next_functions[0]
    if name_of(edge) != "DivBackward0":
        return False
    vectors, norm = edge[0].next_functions
    while name_of(norm).startswith(("Expand", "Clamp", "Clone", "Add")):
        norm = norm[0].next_functions[0]
    return name_of(norm).startswith("LinalgVectorNorm") and norm[0].next_functions[0][0] is vectors[0] is not None


class Values:
    """Finds the values in the graph of one loss; lives as long as one call."""

    def __init__(self, output: Any, loss: Tensor) -> None:
        # The nodes themselves are held: a node's Python object is the same one only as long as somebody holds it
        tensors = [t for t, _ in zip(candidates(output, loss), range(CANDIDATES), strict=False)]
        self.outputs = [(t.grad_fn, t.output_nr, t) for t in tensors]

    def returned(self, edge: Edge) -> Tensor | None:
        """The tensor that the model returned at `edge`."""
        return next((t for node, at, t in self.outputs if node is edge[0] and at == edge[1]), None)

    def value(self, edge: Edge, saved: Tensor | None = None) -> Value:
        """What goes along `edge`, by what the model returned, by what functions save, or else as the loss has `saved` it."""
        start, shape = edge, shape_of(edge)
        steps: list[Step] = []
        for _ in range(DEPTH):
            if (tensor := self.returned(edge)) is not None:
                return Value(start, shape, tensor, tuple(reversed(steps)), True)
            if name_of(edge) in FUNCTIONS and saved is None and (result := saved_by(edge[0], "result")) is not None:
                return Value(start, shape, result, tuple(reversed(steps)), self._made_of_returned(edge))
            if (step := view(edge)) is None:
                break
            steps.append(step)
            edge = edge[0].next_functions[0]
        return Value(start, shape, saved)

    def _made_of_returned(self, edge: Edge) -> bool:
        """Whether between `edge` and what the model returned there are only functions such as the softmax of a user's loss."""
        for _ in range(DEPTH):
            if self.returned(edge) is not None:
                return True
            inputs = inputs_of(edge[0]) if name_of(edge) in FUNCTIONS or name_of(edge) in VIEWS else []
            if len(inputs) != 1:
                return False
            edge = inputs[0][1]
        return False

    def side(self, node: Node) -> tuple[int, Value] | None:
        """Which input of a loss of two is the output, and its value: the one that the model returned, or else the first.

        None where both are what the model returned: they are compared with each other.
        """
        found = [(place, self.unexpanded(edge, saved_by(node, ("self", "target")[place])))
                 for place, edge in inputs_of(node)[:2]]  # fmt: skip
        matched = [pair for pair in found if pair[1].matched]
        return None if not found or len(matched) == 2 else (matched or found)[0]

    def unexpanded(self, edge: Edge, saved: Tensor | None = None) -> Value:
        """What goes along `edge`, as it was before PyTorch expanded it to the shape of something else."""
        if name_of(edge) != "ExpandBackward0":
            return self.value(edge, saved)
        shape = tuple(edge[0]._saved_self_sym_sizes)
        return self.value(edge[0].next_functions[0], None if saved is None else _shrunk(saved, shape))


def _shrunk(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """What was expanded from `shape`, taken from the first place of each expanded dimension."""
    tensor = tensor[(0,) * (tensor.ndim - len(shape))] if tensor.ndim > len(shape) else tensor
    for dim, size in enumerate(shape):
        tensor = tensor.narrow(dim, 0, size) if size == 1 else tensor
    return tensor
