"""Statistics of tensors, computed where they lie: tensors in, a small vector out, and no look at any value on the way.

Each measure has a half on the device, which needs no synchronisation and can be traced by `torch.compile`, and a half on the
host, which makes numbers in float64 of the vector that has arrived there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import reduce
from operator import or_

import numpy as np
import torch
from torch.linalg import vector_norm

from nndiag import frames, measured
from nndiag.statistics import EMPTY, HUGE, Array, Summary

CHUNK = 1 << 24
"""Values that are gone through at once: so many zeros and ones float32 still counts exactly, and a copy of them is small."""

SIZES = 4
"""Values of `magnitude`: largest, norm over the largest, values that are not 0, and finite values that are not 0."""


def exact(tensor: torch.Tensor) -> torch.dtype:
    """The type in which statistics of `tensor` are computed: float32, which every device has, or its own float64."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def chunks(rows: torch.Tensor) -> Sequence[torch.Tensor]:
    """`rows` (n, …) in parts of at most `CHUNK` values, but of one row at least."""
    per_row = max(1, rows.numel() // max(1, len(rows)))
    parts: Sequence[torch.Tensor] = rows.split(max(1, CHUNK // per_row))
    return parts


def unit_rows(output: torch.Tensor, *, channels: bool) -> torch.Tensor:
    """An output (batch, …, units), or (batch, units, …) with `channels`, as rows (samples, units)."""
    if output.ndim < 2:
        return output.reshape(-1, 1)
    if output.ndim == 2:
        return output
    return (output.movedim(1, -1) if channels else output).flatten(0, -2)


# Outputs


def output_size(units: int) -> int:
    """Values of `output`."""
    return 2 + 4 * units


def output(rows: torch.Tensor) -> torch.Tensor:
    """Of one chunk of an output (n, units): extremes, and by unit mean, variance, values that are not 0, finite ones among them.

    Where a value is not finite, 0 stands for it.
    """
    clean = torch.nan_to_num(rows, 0.0, 0.0, 0.0).to(exact(rows))
    variance, mean = torch.var_mean(clean, 0, correction=0)
    spoke = vector_norm(rows, 0, dim=0, dtype=clean.dtype)
    finite = vector_norm(clean, 0, dim=0)
    low, high = torch.aminmax(clean)
    return torch.cat((torch.stack((low, high)), mean, variance, spoke, finite))


def as_output(vectors: Iterable[tuple[int, Array]], kind: str, sample: Array | None = None) -> measured.Output:
    """What the chunks (samples, values of `output`) of one pass through a layer of this `kind` say of it."""
    parts = [(samples, vector[:2].tolist(), *_by_unit(vector)) for samples, vector in vectors if samples]
    total = sum(samples for samples, *_ in parts)
    units = len(parts[0][2]) if parts else 1
    sums, squares, spoke = np.zeros(units), np.zeros(units), np.zeros(units)
    summaries = []
    for samples, (low, high), mean, variance, speaking, finite in parts:
        sums += samples * mean
        squares += samples * (variance + mean * mean)
        spoke += speaking
        summaries.append(_summary(samples, low, high, mean, variance, speaking, finite))
    summary = reduce(or_, summaries, EMPTY)
    within = math.nan
    if summary.count:
        within = max(0.0, (summary.m2 - _between(sums, summary)) / summary.count)
        if len(parts) == 1 and not summary.nonfinite:
            within = float(parts[0][3].mean())
    saturated = _saturated(kind, sums / total, squares / total) if total else math.nan
    return measured.Output(summary, sums, within, spoke == 0, total, saturated, sample)


def _by_unit(vector: Array) -> tuple[Array, Array, Array, Array]:
    mean, variance, spoke, finite = np.asarray(vector[2:], np.float64).reshape(4, -1)
    return mean, variance, spoke, finite


def _between(sums: Array, summary: Summary) -> float:
    deviation = sums - sums.mean()
    return float(deviation.dot(deviation)) * len(sums) / summary.count


def _summary(
    samples: int, low: float, high: float, mean: Array, variance: Array, spoke: Array, finite: Array
) -> Summary:
    """Summary of the finite values of a chunk, from statistics in which 0 stands for those that are not finite."""
    size, nonzero = samples * len(mean), float(finite.sum())
    bad = round(float(spoke.sum()) - nonzero)
    count, zeros = size - bad, size - bad - round(nonzero)
    if not count:
        return EMPTY._replace(nonfinite=bad)
    middle = float(mean.mean())
    apart = mean - middle
    m2 = samples * (float(variance.sum()) + float(apart.dot(apart)))
    if bad:  # the zeros that stand for them are taken out (Chan, Golub, LeVeque 1983, eq. 2.1, backwards)
        middle = middle * size / count
        m2 = max(0.0, m2 - middle * middle * count * bad / size)
        if not zeros:  # an extreme of 0 is theirs
            low, high = low or math.nan, high or math.nan
    return Summary(count, middle, m2, low, high, zeros, bad)


def _saturated(kind: str, mean: Array, square: Array) -> float:
    """Share of units whose slope, over its largest possible value and averaged over inputs, is small (`frames.SATURATED`)."""
    if kind == "tanh":
        slope = 1 - square
    elif kind == "sigmoid":
        slope = 4 * (mean - square)
    else:
        return math.nan
    return float(np.mean(slope < frames.SATURATED))


# Gradients


def magnitude(part: torch.Tensor) -> torch.Tensor:
    """`SIZES` values of one chunk of any tensor; scaled by its largest value, no square of it over- or underflows."""
    clean = torch.nan_to_num(part, 0.0, 0.0, 0.0).to(exact(part))
    largest = vector_norm(clean, math.inf)
    counts = vector_norm(part, 0, dtype=clean.dtype), vector_norm(clean, 0)
    return torch.stack((largest, vector_norm(clean / largest), *counts))


def as_magnitude(
    vectors: Array, size: int, scale: float = 1.0, *, same: bool = False, sample: Array | None = None
) -> measured.Magnitude:
    """What the chunks (chunks, `SIZES`) of a tensor of `size` values say of it, all divided by `scale`."""
    vectors = np.asarray(vectors, np.float64).reshape(-1, SIZES)
    largest, unit, nonzero, finite = vectors.T
    norms = np.where(largest > 0, largest * unit, 0.0)
    bad = round(float(nonzero.sum() - finite.sum()))
    count = size - bad
    most = float(largest.max(initial=0.0)) / scale if count else math.nan
    norm = math.hypot(*norms.tolist()) / scale
    zeros = count - round(float(finite.sum()))
    return measured.Magnitude(norm, count, bad, most, zeros, same, sample)


def rows_apart(matrix: torch.Tensor) -> torch.Tensor:
    """Smallest and largest value of each column of a matrix (n, …), and its first row, one behind the other."""
    flat = matrix.flatten(1)
    low, high = torch.aminmax(flat, dim=0)
    return torch.cat((low, high, flat[0]))


def same_rows(vector: Array | None, tolerance: float) -> bool:
    """Whether, by `rows_apart`, all rows agree with the first to `tolerance` times its largest magnitude."""
    if vector is None:
        return False
    low, high, first = np.asarray(vector, np.float64).reshape(3, -1)
    return bool(max((high - first).max(), (first - low).max()) <= tolerance * np.abs(first).max())


# Updates


def norms(tensors: Sequence[torch.Tensor], order: float) -> list[torch.Tensor]:
    """The norm of each, in few kernels."""
    found: dict[int, torch.Tensor] = {}
    for dtype in dict.fromkeys(map(exact, tensors)):
        of_type = {i: tensor for i, tensor in enumerate(tensors) if exact(tensor) == dtype}
        found |= zip(of_type, torch._foreach_norm(list(of_type.values()), order, dtype=dtype), strict=True)
    return [found[i] for i in range(len(tensors))]


def as_update(values: Sequence[float], share: float) -> measured.Update:
    """An update of which this `share` of the values was measured: norms of weight and change, its largest value, and Δw·g.

    Where squares have left the range of float32, the norm of the update is not known (NaN).
    """
    weight, change, largest, uphill = values
    if largest and not 1 / HUGE < change * change < HUGE:
        change = math.nan
    grown = math.sqrt(1 / share)
    return measured.Update(weight * grown, change * grown, uphill)


# Samples


def every(tensor: torch.Tensor, least: int) -> torch.Tensor:
    """Every k-th value of a tensor in one axis, k at least `least` and prime to the last axis, so that all columns are met."""
    flat = tensor.reshape(-1)
    return flat if least <= 1 or tensor.ndim < 1 else flat[:: frames.stride(least, tensor.shape[-1])]


def spaced(tensor: torch.Tensor, most: int) -> torch.Tensor:
    """At most `most` values of a tensor, evenly spaced: a picture of all."""
    return every(tensor, -(-tensor.numel() // most)).clone()


def thinned(tensor: torch.Tensor, most: int, *, channels: bool = False) -> tuple[slice, ...]:
    """Which evenly spaced places of `tensor`, with all of their units, make a sample of at most `most` bytes.

    The batch is thinned first, though not below two inputs, then the axes behind it. More bytes than that has only a sample
    whose two inputs, or whose units, are larger.
    """
    shape, size = tensor.shape, tensor.numel() * tensor.element_size()
    places = [slice(None)] * len(shape)
    units = (1 if channels else len(shape) - 1) if len(shape) > 1 else None
    for axis in range(len(shape)):
        if axis != units and size > most and shape[axis] > 2:
            step = min(-(-size // most), shape[axis] // 2)
            size = size // shape[axis] * -(-shape[axis] // step)
            places[axis] = slice(None, None, step)
    return tuple(places)
