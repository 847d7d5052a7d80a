"""Which layers of a run carry its signal, which are linear, which is the output: read from the kinds that it describes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd

from nndiag.meta import DENSE, LayerMeta, ParameterMeta
from nndiag.nn.initializers import he_std
from nndiag.run import Run
from nndiag.statistics import Array

LINEAR = (*DENSE, "convolution", "embedding")
NORMS = ("layer_norm", "batch_norm", "group_norm", "rms_norm")
RECTIFIERS = ("relu",)
"""Activation functions that can fall silent: exactly zero over a half-line."""
SQUASHING = {"sigmoid": 4, "hard_sigmoid": 6}
"""Activation functions around ½ that pass on at most one part in so many of what varies with the input, and of a gradient:
one over their largest slope."""
NEITHER = (*NORMS, "dropout", "softmax", "pooling", "max_pooling", "average_pooling", "flatten", "identity")

ODD = ("relu", "leaky_relu", "prelu", "elu", "celu", "selu", "gelu", "silu", "mish", "tanh")
"""Activation functions that are 0 at 0."""

SCALE_FREE = ("ada", "rmsprop", "rprop", "lion")
"""Parts of the names of optimisers that divide each gradient by its own size, Adam and its relatives among them."""


def scale_free(optimizer: str) -> bool:
    """Whether an optimiser of this name divides gradients by their own size."""
    return any(word in optimizer.lower() for word in SCALE_FREE)


def kind(run: Run, layer: str) -> str:
    """Kind of `layer`, "unknown" where the run does not say."""
    return run.meta.layer(layer).kind


LARGEST = {"float16": 65504.0, "float32": 3.4e38, "float64": 1.8e308}
"""Largest finite number of each type."""


def largest(run: Run) -> float:
    """The largest finite number of the type that the run computes in, float32 where it does not say."""
    return LARGEST.get(run.meta.dtype or "", LARGEST["float32"])


def scaler_at_work(run: Run) -> bool:
    """Whether the loss is scaled for half precision, by a factor that a gradient scaler changes."""
    return bool((run.loop["loss_scale"].dropna() != 1).any() or (run.loop["skipped_updates"] > 0).any())


MODAL = ("dropout", "batch_norm")
"""Kinds of layers that do something else in evaluation."""

MODELESS = "no dropout or batch normalisation: the mode makes no difference"
"""What is said of a network that has none of them."""


def modal(layers: Iterable[LayerMeta]) -> set[str]:
    """Kinds of the `layers` that do something else in evaluation than in training; dropout with a rate of 0 does not."""
    return {layer.kind for layer in layers if layer.kind in MODAL and layer.rate != 0}


def recorded(run: Run, statistic: str) -> list[str]:
    """Layers that have `statistic`, in forward order."""
    return list(run.statistic("activations", statistic).columns)


def linear(run: Run, statistic: str = "mean") -> list[str]:
    """Layers with weights, in forward order; every recorded layer where no kinds are known."""
    layers = recorded(run, statistic)
    return [layer for layer in layers if kind(run, layer) in LINEAR] or [
        layer for layer in layers if kind(run, layer) == "unknown"
    ]


def hidden(run: Run, statistic: str = "mean") -> list[str]:
    """What each hidden block hands on: its activation function's output, or the layer itself where there is none.

    Neither norms and dropout nor what comes from the last layer with weights on. All but the last where no kinds are
    known.
    """
    layers = recorded(run, statistic)
    weighted = linear(run, statistic)
    before_output = layers[: layers.index(weighted[-1])] if weighted else []
    functions = [layer for layer in before_output if kind(run, layer) not in (*LINEAR, *NEITHER, "unknown")]
    return functions or [layer for layer in before_output if kind(run, layer) not in NEITHER]


def squashing(run: Run) -> dict[str, int]:
    """Hidden layers that are one of `SQUASHING`, in forward order, with its factor."""
    return {layer: SQUASHING[kind(run, layer)] for layer in hidden(run) if kind(run, layer) in SQUASHING}


def squashed_by(run: Run) -> tuple[str, str]:
    """What is said of `squashing` layers: as a cause, and how to mend it."""
    layers = squashing(run)
    names = " and ".join(dict.fromkeys(kind(run, layer) for layer in layers))
    shown = ", ".join(list(layers)[:3]) + (f" and {len(layers) - 3} more" if len(layers) > 3 else "")
    return (
        f"{names} in hidden layers ({shown}): each passes on a quarter of a signal and of a gradient at most",
        f"Use ReLU or tanh in place of {names} in {shown}, or put a normalisation layer before each.",
    )


def normalized(run: Run) -> bool:
    """Whether any layer normalises."""
    return any(layer.kind in NORMS for layer in run.meta.layers)


def weights(run: Run, frame: str, statistic: str) -> list[str]:
    """Parameters of kind weight that have `statistic`: biases and norm scales have no meaningful ratio."""
    return [name for name in run.statistic(frame, statistic).columns if run.meta.parameter(name).kind == "weight"]


def fans(run: Run, parameter: ParameterMeta) -> tuple[int, int]:
    """Fan-in and fan-out of a weight, which a layer of the user's own may keep as (in, out): its units then say so."""
    shape, units = parameter.shape, run.meta.layer(parameter.layer).shape[-1:]
    if len(shape) == 2 and shape[1:] == units != shape[:1]:
        return shape[0], shape[1]
    return parameter.fan_in, parameter.fan_out


def over_he(run: Run, weights: Iterable[str]) -> pd.Series[float]:
    """Standard deviation of each of `weights` at the first read over He's, √(2 / fan-in), of those where it is known.

    He et al. 2015, equation 10.
    """
    norms = run.statistic("updates", "weight_norm")
    known = [(p, fan) for p in map(run.meta.parameter, weights) if (fan := fans(run, p)[0]) and p.name in norms]
    return pd.Series(
        {p.name: float(norms[p.name].iloc[0]) / (math.sqrt(int(np.prod(p.shape))) * he_std(fan)) for p, fan in known},
        dtype=float,
    )


def without_gradient(run: Run, like: pd.DataFrame) -> pd.DataFrame:
    """Where parameters have no gradient, at the reads and in the columns of `like`: only momentum or decay still moves them."""
    return run.statistic("gradients", "norm").reindex(index=like.index, columns=like.columns) == 0


def rectified(run: Run) -> list[str]:
    """Hidden layers whose units can be exactly zero, and so fall silent; where no kinds are known, all hidden ones."""
    return [layer for layer in hidden(run, "dead_fraction") if kind(run, layer) in (*RECTIFIERS, "unknown")]


def training_samples(run: Run) -> int | None:
    """Size of the training set, as told, or the samples of the first of several epochs; None where not all of it was read.

    Where every step had the same batch, that is the training set.
    """
    if run.meta.samples:
        return run.meta.samples
    losses, seen = run.losses, run.series("data", "samples", "input")
    if has_one_batch(run) and len(seen) and seen.index[0] == 0 and np.isfinite(seen.iloc[0]):
        return int(seen.iloc[0])
    first = losses.index[losses["epoch"] == 0]
    if not len(first) or not len(seen) or not (losses["epoch"] > 0).any():
        return None
    read = seen[seen.index <= first[-1]]
    whole = len(read) == (losses["train"].loc[: first[-1]].notna()).sum() or _adds_up(read, int(first[-1]))
    return int(read.iloc[-1]) if len(read) and whole and np.isfinite(read.iloc[-1]) else None


LOOKS = 20
"""Looks at the data that all show the same where there is one batch."""


def has_one_batch(run: Run) -> bool:
    """Whether every step had the same batch: inputs, targets and labels of `LOOKS` or more are alike to the last digit."""
    data = run.data
    columns = [(name, part) for part in ("input", "target") for name in ("mean", "variance", "rms", "min", "max")]
    if any(column not in data for column in columns):
        return False
    statistics = data.columns.get_level_values(0)
    seen = data.loc[
        data[columns].notna().all(axis=1), statistics.isin(["count", "entropy", *(name for name, _ in columns)])
    ]
    seen = seen.dropna(axis=1, how="all")
    return len(seen) >= LOOKS and bool((seen["variance"].min() > 0).all() and (seen.min() == seen.max()).all())


def _adds_up(seen: pd.Series[float], last: int) -> bool:
    """Whether `seen`, the samples so far at steps of an epoch that ends at `last`, has a whole batch for each, nearly to its end.

    Of a long run this is all that is left of the epoch.
    """
    steps, batch = seen.index.to_numpy() + 1, float(seen.iloc[0]) if len(seen) else 0.0
    return bool(batch > 0 and (seen > batch * (steps - 1)).all() and steps[-1] > 0.9 * last)


def units(run: Run, layer: str) -> int:
    """Number of units of `layer`; 64 where the run does not describe it."""
    return math.prod(run.meta.layer(layer).shape) if run.meta.layer(layer).shape else 64


def weight_into(run: Run, layer: str) -> ParameterMeta | None:
    """The weight of the last layer with weights up to `layer`, of `layer` itself where its kind is not known.

    None where the run does not describe it.
    """
    names = [described.name for described in run.meta.layers]
    before = reversed(names[: names.index(layer) + 1] if layer in names else [])
    owner = next((name for name in before if kind(run, name) in LINEAR), layer)
    return next((p for p in run.meta.parameters if p.layer == owner and p.kind == "weight"), None)


def has_biases(run: Run) -> bool:
    """Whether anything may move what comes of an input of zero: a bias, a shift of a norm, a function that is not 0 at 0.

    A parameter that is none of a linear layer's may be a bias, and so may the weights of a feature that never varies. True,
    too, where the run does not describe its layers and parameters.
    """
    kinds = {layer.name: layer.kind for layer in run.meta.layers}
    fixed = (*LINEAR, *ODD, "dropout", "flatten", "identity", "pooling", "max_pooling", "average_pooling")
    plain = "embedding" not in kinds.values() and all(kind in fixed for kind in kinds.values())
    weights = [p.kind == "weight" and kinds.get(p.layer) in LINEAR for p in run.meta.parameters]
    still = run.series("data", "constant_fraction", "input")
    return not (plain and weights and all(weights)) or bool(len(still) and still.iloc[-1] > 0)


def class_shares(run: Run) -> pd.Series[float]:
    """Share of the samples that each class has, of those that were counted; empty without any."""
    counts = run.statistic("data", "count").sum()
    return counts[counts > 0] / counts.sum()


def accuracies(run: Run, least: int) -> Iterator[tuple[str, pd.Series[float]]]:
    """Every metric whose name says accuracy, of `least` values or more, with its split in front of its name."""
    for column in run.metrics.columns.to_list():
        metric, split = column[0], column[1]
        if str(metric).lower() == "acc" or "accuracy" in str(metric).lower():
            values = run.metrics[metric, split].dropna()
            if len(values) >= least:
                yield f"{split} {metric}", values


def by_hand(run: Run) -> bool:
    """Whether the gradients are of a loop's own making, and neither of nndiag's trainer nor of a framework."""
    return "trainer" not in run.meta.seeds and "torch" not in run.meta.versions


def describes_kinds(run: Run) -> bool:
    """Whether the run says of every layer of what kind it is."""
    return bool(run.meta.layers) and all(layer.kind != "unknown" for layer in run.meta.layers)


def rms(run: Run, layers: list[str]) -> Array:
    """Root mean square of what each of `layers` put out (rows of the activation frame, layers)."""
    mean, variance = run.activations["mean"], run.activations["variance"]
    values: Array = np.hypot(mean[layers].to_numpy(), np.sqrt(variance[layers].to_numpy()))
    return values
