"""What a run says of itself beside its frames: layers, parameters, settings, versions and how it ended."""

from __future__ import annotations

import dataclasses
import math
import platform
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from reprlib import repr as short
from typing import Any, TypeVar, get_origin, get_type_hints

import numpy as np

from nndiag.errors import RunError

WORDS = {
    "task": ("classes", "binary", "real"),
    "expects": ("logits", "probabilities", "log_probabilities", "real"),
}
"""What a loss can say of its targets and of the outputs that it takes; other words would switch checks off unseen."""

LOSS = {
    "name": "what the field calls it: cross-entropy, BinaryCrossEntropy, MSE, …",
    "task": "what its targets are: classes, binary or real",
    "expects": "what it takes as outputs: logits, probabilities, log_probabilities or real",
    "reduction": "mean, sum or none",
    "scale": "constant factor on the loss; null where factors differ, as in a focal loss",
    "label_smoothing": "share of a target that is spread over all classes",
    "ignore_index": "class whose samples do not count",
    "ignored": "share of the targets of that class, where the first batches had any",
    "weight": "weights of the classes, as given",
    "pos_weight": "weights of the positives, as given",
    "weights": "as weight",
    "class_weight": "as weight",
    "sample_weight": "weights of samples, as given",
    "class_weights": "weights of the classes, as measured on the gradients of the outputs",
    "signed_weights": "true where samples are weighed by numbers of either sign, as by advantages",
    "adversarial": "true where it is at odds with the loss of another optimiser",
    "since": "step from which on it is the loss, where another one was before",
    "trivial": "what outputs cost that say nothing of their inputs, where that is known",
    "floor": "the lowest value it can have, where that is known and not 0",
    "unguarded": "true where a logarithm or a quotient in it is not kept from 0",
    "normalizes": "true where it divides outputs by their sum itself",
    "log_rates": "true where it takes outputs for logarithms of rates",
    "ids_for_each": "true where ids of classes stand beside the probabilities of all of them",
    "ids_multiply": "number of classes, where ids of classes multiply the logarithms of outputs",
    "broadcast": "shapes of outputs and targets, where one of both was repeated to fit the other",
    "softmax_axis": "axis of its softmax, where that is not the axis of the classes",
    "over_samples": "softmax or logsumexp, where that runs over the samples of a batch",
    "axes_crossed": "shapes of outputs and targets that were both flattened, one with its axes the other way round",
    "axes_mixed": "shapes of outputs before and after a reshape that mixes up places and classes",
    "scrambled": "shapes before and after a reshape that takes one axis for another",
    "copies_input": "true where the targets are the ids that went in, at the same places",
    "looks_ahead": "true where the targets are the next ids, and the network sees them",
    "padding": "shown where attention sees padding alone; read last where a state is taken behind it",
    "padding_counted": "share of the targets that are padding and count",
}
"""What a run can say of its loss and checks read: most of it an adapter finds out."""

OPTIMIZER = {
    "name": "its class: SGD, Adam, …",
    "lr": "learning rate at the start",
    "momentum": "of SGD",
    "betas": "of Adam and its like",
    "eps": "added to the denominator of Adam and its like",
    "weight_decay": "share of the weights that is taken off, by the gradient or decoupled",
    "decoupled_weight_decay": "true where the weights lose it directly, times the learning rate, as in AdamW",
    "maximize": "true where it climbs",
    "in_turn": "true where not every optimiser steps in each iteration",
    "scaled": "true where it steps on gradients that are still multiplied by the loss scale",
}
"""What a run can say of its optimiser and checks read."""

CLIPPING = {
    "max_norm": "largest norm that gradients keep",
    "value": "largest magnitude that a value of a gradient keeps",
    "gradients": "which are clipped: before (the step), cleared or used by then; unknown where nobody can tell",
    "scaled": "true where they are clipped while they are multiplied by the loss scale",
}
"""What a run can say of clipping and checks read."""

KINDS = (
    "affine", "linear", "dense", "convolution", "embedding", "recurrent", "attention",
    "layer_norm", "batch_norm", "group_norm", "rms_norm", "dropout", "pooling", "max_pooling", "average_pooling", "flatten",
    "identity", "relu", "relu6", "leaky_relu", "prelu", "elu", "celu", "selu", "gelu", "silu", "mish", "softplus", "softsign",
    "hard_swish", "hard_sigmoid", "hard_tanh", "sigmoid", "log_sigmoid", "tanh", "softmax", "log_softmax", "unknown",
)  # fmt: skip
"""Kinds of layers that checks tell apart; of any other they say nothing."""

DENSE = ("affine", "linear", "dense")
"""Kinds of layers whose weights are (units, inputs)."""

_SPELLED = {kind.replace("_", ""): kind for kind in KINDS}
"""The kinds by their letters alone."""

BIAS = re.compile(r"bias|(^|[._])b[a-z]?\d*$", re.IGNORECASE)
"""What biases are called: bias, output.bias, bias0, b, b1, B2, b_h, by."""

FORMAT = 2
"""Version of the run folder; a reader refuses a later one."""


@dataclass(frozen=True)
class LayerMeta:
    """One column of the activation frame: `shape` is that of an output without its batch axis.

    `rate` is the share that a dropout drops, or that each batch has in the running statistics of a batch normalisation.
    `after` is the layer whose output is the input, untouched; "" where something else lies between, None where not told.
    `sequence` is told of a layer over sequences that takes their steps along the first axis and the batch along the second:
    the sizes of both in the first pass.
    """

    name: str
    kind: str = "unknown"
    shape: tuple[int, ...] = ()
    rate: float | None = None
    after: str | None = None
    sequence: tuple[int, ...] = ()


@dataclass(frozen=True)
class ParameterMeta:
    """One column of the gradient and update frames; `kind` is weight, bias, norm or embedding; `std` and `mean` are those at
    the start.

    `optimized` is False for a trainable one that no optimiser seen holds; `reached` says whether the graph of the loss leads
    to it, None where nobody looked. One that is not `registered` is used by the model and none of its parameters. A frozen one
    that is `written` has got other values since it was first seen, as the moving average of another network does.
    """

    name: str
    kind: str = "weight"
    shape: tuple[int, ...] = ()
    frozen: bool = False
    layer: str = ""
    std: float | None = None
    mean: float | None = None
    optimized: bool = True
    reached: bool | None = None
    registered: bool = True
    written: bool = False

    @property
    def fan_in(self) -> int:
        """Inputs of one unit of a weight (out, in, …); 0 where the shape is not known."""
        return int(np.prod(self.shape[1:])) if len(self.shape) > 1 else 0

    @property
    def fan_out(self) -> int:
        """Units that one input of a weight (out, in, …) reaches, of a convolution at every place of its kernel; 0 likewise."""
        return int(np.prod((self.shape[0], *self.shape[2:]))) if len(self.shape) > 1 else 0


@dataclass(frozen=True)
class Meta:
    """Metadata of a run; everything in it is plain JSON. What the recorder was not told stays empty.

    What checks read of `loss`, `optimizer` and `clipping` stands in `LOSS`, `OPTIMIZER` and `CLIPPING`; other keys are kept, and
    nobody reads them. Layers are `LayerMeta`, parameters `ParameterMeta`, or mappings of the same fields.
    `thinned` names frames of whose past only a part is left, for want of memory, with how many rows they have had. A trainer had
    made `steps_before` updates when the run began.
    """

    name: str = "run"
    created: str = ""
    layers: tuple[LayerMeta, ...] = ()
    parameters: tuple[ParameterMeta, ...] = ()
    loss: Mapping[str, Any] = field(default_factory=dict)
    optimizer: Mapping[str, Any] = field(default_factory=dict)
    clipping: Mapping[str, Any] | None = None
    batch_size: int | None = None
    samples: int | None = None
    seeds: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    dtype: str = ""
    ended: str = "running"
    stopped_by: str = ""
    writer: Mapping[str, Any] = field(default_factory=dict)
    first_nonfinite: Mapping[str, Any] | None = None
    faults: tuple[Mapping[str, str], ...] = ()
    probes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    went_back: tuple[Mapping[str, int], ...] = ()
    thinned: Mapping[str, int] = field(default_factory=dict)
    steps_before: int = 0

    @property
    def broken_at(self) -> int | None:
        """The step whose loss is the first that is not finite; None where all are."""
        return None if self.first_nonfinite is None else int(self.first_nonfinite["step"])

    @property
    def loss_since(self) -> int | None:
        """The step from which on the loss is the one that is described; None where no other came before."""
        since = self.loss.get("since")
        return int(since) if isinstance(since, int | float) and math.isfinite(since) and since > 0 else None

    def layer(self, name: str) -> LayerMeta:
        """The layer called `name`, of unknown kind where the run does not describe it."""
        return next((layer for layer in self.layers if layer.name == name), LayerMeta(name))

    def parameter(self, name: str) -> ParameterMeta:
        """The parameter called `name`; one that the run does not describe counts as a weight unless its name says bias."""
        guess = ParameterMeta(name, "bias" if BIAS.search(name) else "weight")
        return next((parameter for parameter in self.parameters if parameter.name == name), guess)

    def may_be_of(self, network: Meta) -> bool:
        """Whether this may describe the same network: no other layers than those of `network`, and the same parameters.

        Layers that have put out nothing so far may be missing, and shapes may not be known yet.
        """
        kinds = {layer.name: layer.kind for layer in network.layers}
        before = {parameter.name: parameter.shape for parameter in network.parameters if parameter.registered}
        now = {parameter.name: parameter.shape for parameter in self.parameters if parameter.registered}
        if kinds and any(kinds.get(layer.name) != layer.kind for layer in self.layers):
            return False
        if not before or not now:
            return True
        return before.keys() == now.keys() and all(
            shape in (before[name], ()) or not before[name] for name, shape in now.items()
        )

    def describe(self, changes: Mapping[str, Any]) -> Meta:
        """This with `changes`, whose layers and parameters may be plain mappings. Raises TypeError for what does not fit.

        One of `KINDS` may be in other letters, such as "ReLU". Raises ValueError for a task or an expectation of the loss that no
        check knows.
        """
        if unknown := changes.keys() - {f.name for f in dataclasses.fields(self)}:
            known = ", ".join(f.name for f in dataclasses.fields(self))
            raise TypeError(f"describe() got {', '.join(sorted(unknown))}; a run can be told {known}")
        for name in ("loss", "optimizer", "seeds", "versions", "probes", "writer"):
            if name in changes and not isinstance(changes[name], Mapping):
                raise TypeError(f'{name}={short(changes[name])}: wanted a mapping such as {{"name": "SGD"}}')
            told, deep = _extent(changes.get(name, {}))
            if told > MOST_TOLD or deep > DEEPEST_TOLD:
                raise ValueError(f"describe({name}=…) tells {told:,} values in {deep} levels, wanted {MOST_TOLD:,} in "
                                 f"{DEEPEST_TOLD} at most: give a summary of them")  # fmt: skip
        for key, words in WORDS.items():
            if (word := changes.get("loss", {}).get(key)) is not None and word not in words:
                raise ValueError(f"describe(loss={{{key!r}: {word!r}}}): wanted one of {', '.join(words)}")
        for key, parse in MADE.items():
            for item in changes.get(key, ()):
                can = [f.name for f in dataclasses.fields(parse)]
                if isinstance(item, Mapping) and (other := item.keys() - set(can)):
                    got = f"{', '.join(map(str, other))} in {short(item)}"
                    raise TypeError(f"describe({key}=…) got {got}; each can be told {', '.join(can)}")
        parsed = _parsed(changes) | {key: _whole(changes[key]) for key in WHOLE if key in changes}
        for name, (wanted, fits) in SHAPES.items():
            if name in parsed and not fits(parsed[name]):  # no reader would take it
                raise TypeError(f"describe({name}={short(changes[name])}): wanted {wanted}")
        if "learning_rate" in changes.get("optimizer", {}):
            parsed["optimizer"] = {"lr": changes["optimizer"]["learning_rate"], **changes["optimizer"]}
        if "layers" in parsed:
            parsed["layers"] = tuple(
                dataclasses.replace(layer, kind=_SPELLED.get(layer.kind.lower().replace("_", ""), layer.kind))
                for layer in parsed["layers"]
            )
        return dataclasses.replace(self, **parsed)

    @property
    def turned(self) -> tuple[str, ...]:
        """Weights that by the units of their layers are (in, out): checks take them for (out, in)."""
        widths = {layer.name: layer.shape[-1] for layer in self.layers if layer.kind in DENSE and layer.shape}
        return tuple(
            parameter.name
            for parameter in self.parameters
            if len(parameter.shape) == 2 and parameter.shape[0] != widths.get(parameter.layer) == parameter.shape[1]
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Meta:
        """The inverse of `to_dict`; later versions' extra keys are ignored. Raises RunError on the wrong types."""
        known = {f.name for f in dataclasses.fields(cls)}
        try:
            meta = cls(**_parsed({key: value for key, value in data.items() if key in known}))
        except (TypeError, ValueError, AttributeError, OverflowError) as fault:
            raise RunError(f"run.json does not describe a run: {short(str(fault))}") from fault
        for name, (wanted, fits) in SHAPES.items():
            if not fits(value := getattr(meta, name)):
                raise RunError(f"run.json: {name!r} has the wrong type: wanted {wanted}, got {short(value)}")
        return meta


def _plain(value: Any) -> Any:
    """`value` as JSON takes it: NumPy's numbers are numbers, arrays and sets are lists, what is no data is its text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist()) if value.dtype.kind in "biuSU" or value.ndim else float(value)
    return value if value is None or isinstance(value, bool | int | float | str) else repr(value)


WHOLE = ("batch_size", "samples", "steps_before")
"""Whole numbers."""

MOST_TOLD, DEEPEST_TOLD = 100_000, 16
"""Values of a mapping that a run is told at most, so that a reader takes its run.json, and levels that they are nested."""


def _extent(value: Any) -> tuple[int, int]:
    """How many values there are in mappings and sequences within each other, and how many levels they are nested."""
    told, deep, level = 0, 0, [value]
    while level and deep <= DEEPEST_TOLD:
        inner: list[Any] = []
        for one in level:
            if isinstance(one, Mapping):
                inner += one.values()
            elif isinstance(one, list | tuple | set):
                inner += one
            else:
                told += one.size if isinstance(one, np.ndarray) else 1
        level, deep = inner, deep + 1
    return told, deep


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _count(value: Any) -> bool:
    return value is None or (type(value) is int and 0 <= value < 2**63)


def _mapping(value: Any) -> bool:
    return isinstance(value, Mapping)


def _numbers(value: Any, *names: str) -> bool:
    """Whether `value` maps each of `names` to a step."""
    return isinstance(value, Mapping) and all(_count(value.get(name, -1)) for name in names)


SHAPES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    **dict.fromkeys(("name", "created", "dtype", "ended", "stopped_by"), ("text", _text)),
    **dict.fromkeys(("loss", "optimizer", "seeds", "versions", "writer"), ("a mapping", _mapping)),
    **dict.fromkeys(("batch_size", "samples"), ("a number of samples", _count)),
    "steps_before": ("a number of steps", lambda value: value is not None and _count(value)),
    "clipping": ("a mapping", lambda value: value is None or _mapping(value)),
    "first_nonfinite": ("a step and what", lambda value: value is None or _numbers(value, "step")),
    "faults": ("mappings", lambda value: all(map(_mapping, value))),
    "probes": ("mappings by code", lambda value: _mapping(value) and all(map(_mapping, value.values()))),
    "thinned": (
        "numbers of rows by frame",
        lambda value: _mapping(value) and all(type(n) is int for n in value.values()),
    ),
    "went_back": ("pairs of steps", lambda value: all(_numbers(item, "from", "to") for item in value)),
}
"""What each field of a run.json has to be, in words and as a test; layers and parameters are tested as they are made."""


MADE: dict[str, type[LayerMeta] | type[ParameterMeta]] = {"layers": LayerMeta, "parameters": ParameterMeta}
"""Fields whose items may be told as mappings."""


def _parsed(data: Mapping[str, Any]) -> dict[str, Any]:
    parsed = dict(data)
    for key, parse in MADE.items():
        if key in parsed:
            parsed[key] = tuple(_named(parse, item) for item in parsed[key])
    return parsed | {key: tuple(parsed[key]) for key in ("faults", "went_back") if key in parsed}


def _number(value: Any) -> Any:
    """A NumPy number as Python's."""
    return value.item() if isinstance(value, np.generic) else value


def _whole(value: Any) -> Any:
    """A whole number of any type as Python's, such as 1e3."""
    value = _number(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


_T = TypeVar("_T", LayerMeta, ParameterMeta)


def _named(parse: type[_T], item: _T | Mapping[str, Any]) -> _T:
    if isinstance(item, parse):
        return item
    if not isinstance(item, Mapping):
        raise TypeError(f'wanted a mapping such as {{"name": "h1", "kind": "relu"}}, got {short(item)}')
    known = {f.name for f in dataclasses.fields(parse)}
    fields = {key: _number(value) for key, value in item.items() if key in known}
    if not isinstance(fields.get("name"), str):
        raise TypeError(f"a layer or parameter needs a name, got {short(item)}")
    fields |= {key: tuple(int(n) for n in fields.get(key) or ()) for key in ("shape", "sequence") if key in known}
    for key, value in fields.items():
        if (wanted := TYPES.get(key)) and not isinstance(value, wanted):
            raise TypeError(f"{key}={short(value)} of {short(fields['name'])} has the wrong type")
    return parse(**fields)


TYPES = {
    name: kind | int if kind == float | None else kind
    for parse in (LayerMeta, ParameterMeta)
    for name, kind in get_type_hints(parse).items()
    if get_origin(kind) is not tuple
}
"""What the fields of a layer or parameter have to be: their annotations, where shapes are made to fit."""


def versions() -> dict[str, str]:
    """Versions that a reader of the run may want to know."""
    from nndiag import __version__

    return {"nndiag": __version__, "python": platform.python_version(), "numpy": np.__version__}
