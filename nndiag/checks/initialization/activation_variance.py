"""ND203 activation-variance."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from nndiag import progress, structure, synthetic
from nndiag.check import Check, Finding
from nndiag.nn.initializers import he_std, xavier_std
from nndiag.objective import LEARNED
from nndiag.run import Run


@dataclass(frozen=True)
class ActivationVariance(Check):
    """The signal shrinks or grows from layer to layer, before any learning.

    Weights whose standard deviation does not fit the number of inputs multiply the signal by the same factor in every
    layer. With the lesson's 20 layers of 256 units, a standard deviation of 0.02 leaves a variance of 1.5e-26 and 0.2
    one of 1.9e14, where He's 0.088 keeps it near 1 (He et al. 2015, equation 10). Gradients suffer the same way back.

    Decides on what varies with the input at the first read: the standard deviation over the inputs of what each hidden block
    hands on (around a mean, as a sigmoid's ½, nothing is told), over that of the input, or of embeddings that come first.
    Outside 1/`total` … `total` end to end, or more than `per_layer` times up or down a layer, in the geometric mean over at
    least `depth` layers. A recurrent layer that keeps all it sees adds up as many inputs as it has steps (Le, Jaitly & Hinton
    2015 begin with the identity); one that grows the signal more than `sums` times that multiplies from step to step. Xavier
    with ReLU shrinks 1.44 times a layer and PyTorch's default between 2.4 and 3 times (√3 for its weights, and √2 or √(2π /
    (π − 1)) for a ReLU as it sees a large mean or none): sound; a sigmoid shrinks it 4 times, and is named where the signal
    would have kept its size without that. Or on the weights of a single layer: a standard deviation of more than `large`
    times He's, √(2 / fan-in), over `size` weights or more, where every scheme in use is at He's or below; recurrent layers,
    which go by the number of their units, and what is no layer's, are left out. Weights of a hidden layer below `small` times
    He's, if not zero, count where the loss then still falls at the end with more than `left` of its way left, and beside
    Glorot's, which few inputs make small, where it has not come down from what a guess costs. A signal that is lost in fewer
    than `shallow` layers is a remark where training comes more than half of its way, as a few updates mend it there, and so
    is one within 1/`total` … `total` where it comes `arrived` of it. Networks with normalisation are exempt. From the first
    layer on with 90 % of its units silent the signal is not followed: that is ND205's.
    """

    code = "ND203"
    name = "activation-variance"
    kind = "training"
    needs = ("activations.mean", "activations.variance")
    min_reads = 1
    advice = "Use init='he_normal' for ReLU or 'xavier_normal' for tanh, or add normalisation layers."
    confirm = "run.activations['variance'].iloc[0].plot(logy=True)"
    passed = "the signal keeps its size through the layers"

    total: float = 1e3
    per_layer: float = 3.5
    depth: int = 4
    shallow: int = 3
    silent: float = 0.9
    sums: float = 10
    large: float = 2.5
    small: float = 0.15
    size: int = 32
    left: float = 0.25
    arrived: float = 0.95

    def not_checked(self, run: Run) -> str | None:
        if reason := super().not_checked(run):
            return reason
        if structure.normalized(run):
            return "the network has normalisation layers, which reset the scale"
        if not self._followed(self._signal(run)) and len(self._weights(run)) < 2:
            return "needs a hidden layer with living units and an input that is not all zero"
        return None

    def examine(self, run: Run) -> Iterator[Finding]:
        weights = self._weights(run)
        if len(weights) and weights.max() > self.large:
            yield self._of_weight(run, weights[weights > self.large].sort_values(ascending=False), self.large)
        elif (found := self._steep(run)) is not None:
            yield found
        elif len(hidden := self._too_small(run, weights.iloc[:-1])):
            yield self._of_weight(run, hidden.sort_values(), self.small)

    def _followed(self, signal: pd.Series[float]) -> bool:
        """Whether there is a signal, and a hidden layer that it reaches."""
        return len(signal) > 1 and bool(signal.iloc[0] > 0)

    def _steep(self, run: Run) -> Finding | None:
        signal = self._signal(run)
        if not self._followed(signal):
            return None
        layers = len(signal) - 1
        end_to_end = float(signal.iloc[-1] / signal.iloc[0])
        per_layer = end_to_end ** (1 / layers) if end_to_end else 0.0
        steep = layers >= self.depth and not 1 / self.per_layer <= per_layer <= self.per_layer
        most = self._most(run, list(signal.index))
        if not steep and 1 / self.total <= end_to_end <= most:
            return None
        with np.errstate(all="ignore"):
            steepness = np.abs(np.diff(np.log(signal.to_numpy())))
        steepness = np.where(np.isnan(steepness), 0.0, steepness)
        layer = str(signal.index[1 + int(np.argmax(steepness >= 0.5 * steepness.max()))])
        word = "shrinks" if end_to_end < 1 else "grows"
        factor = 1 / per_layer if 0 < per_layer < 1 else per_layer
        change = (
            f"{word} {factor:.2g} times a layer, to {end_to_end:.1e} of its size" if factor else "is lost altogether"
        )
        causes, fix = self._blamed(run, layer, signal)
        mild = 1 / self.total <= end_to_end <= most
        mended = (layers < self.shallow and progress.has_come(run, LEARNED)) or (
            mild and progress.has_come(run, self.arrived)
        )
        return self.finding(
            f"the signal {change} after {layers} layers", kind="note" if mended else None,
            layer=layer, steps=self._step(run),
            value=end_to_end if not steep else per_layer,
            threshold=self.per_layer if steep else most if end_to_end > 1 else self.total,
            causes=causes, fix=fix,
        )  # fmt: skip

    def _blamed(self, run: Run, layer: str, signal: pd.Series[float]) -> tuple[tuple[str, ...], str]:
        """Causes and fix: weights, or the activation functions without which the signal would have kept its size."""
        if (end_to_end := float(signal.iloc[-1] / signal.iloc[0])) > 1:
            return ("weights initialised too large",), self._fix(run, layer)
        factors = [factor for name, factor in structure.squashing(run).items() if name in signal.index]
        kept = end_to_end * math.prod(factors)
        if factors and kept > max(1 / self.total, self.per_layer ** (1 - len(signal))):
            cause, fix = structure.squashed_by(run)
            return (cause,), fix
        return ("weights initialised too small", "a stack of saturating activation functions"), self._fix(run, layer)

    def _most(self, run: Run, layers: list[str]) -> float:
        """How much the signal may grow end to end: `total`, or `sums` times as much as a recurrent layer's steps add up to."""
        shapes = [run.meta.layer(name).shape for name in layers if structure.kind(run, name) == "recurrent"]
        return min([self.total, *(self.sums * shape[0] for shape in shapes if len(shape) > 1)])

    def _of_weight(self, run: Run, bad: pd.Series[float], threshold: float) -> Finding:
        """What is said of weights whose standard deviation is off, worst first, in multiples of He's."""
        worst, ratio = run.meta.parameter(str(bad.index[0])), float(bad.iloc[0])
        std = ratio * he_std(structure.fans(run, worst)[0])
        others = f", and {len(bad) - 1} more are like it" if len(bad) > 1 else ""
        return self.finding(
            f"{worst.name} starts with a standard deviation of {std:.2g}, {ratio:.2g} times that of He's initialisation{others}",
            layer=worst.layer or None, parameter=None if worst.layer else worst.name, steps=self._step(run), value=ratio,
            threshold=threshold, causes=(f"weights initialised too {'large' if ratio > 1 else 'small'}",),
            fix=self._fix(run, worst.layer or worst.name),
        )  # fmt: skip

    def _weights(self, run: Run) -> pd.Series[float]:
        """Standard deviation of each weight before the first update over He's; empty where it is not known."""
        norms = run.statistic("updates", "weight_norm")
        if not len(norms) or norms.index[0] != 0 or self._trained(run):
            return pd.Series(dtype=float)
        # What a model holds beside its layers, such as prototypes, is not multiplied as weights are.
        layers = {layer.name for layer in run.meta.layers}
        multiplied = (p.name for p in run.meta.parameters if p.kind == "weight" and (p.layer in layers or not layers)
                      and int(np.prod(p.shape)) >= self.size and structure.kind(run, p.layer) != "recurrent")  # fmt: skip
        return structure.over_he(run, multiplied)

    def _trained(self, run: Run) -> bool:
        """Whether the network knows something before the first update: its weights are no initialisation."""
        trivial = progress.trivial(run)
        return trivial is not None and len(run.train) > 0 and run.train.iloc[0] < trivial / 2

    def _too_small(self, run: Run, weights: pd.Series[float]) -> pd.Series[float]:
        """Those of `weights`, in multiples of He's, that hold training back: where nothing is learned, by Glorot's, too."""
        small = weights[(weights > 0) & (weights < self.small)]
        left = progress.unfinished(run)
        if left is not None and left > self.left:
            return small
        if not progress.is_poor(run) or run.meta.ended == "running":
            return small.iloc[:0]
        fans = [structure.fans(run, run.meta.parameter(str(name))) for name in small.index]
        glorot = np.array([xavier_std(*of) / he_std(of[0]) for of in fans])
        return small[small.to_numpy() < self.small * glorot]

    def _step(self, run: Run) -> int:
        return int(run.activations.index[0])

    def _signal(self, run: Run) -> pd.Series[float]:
        """What varies at the first read: of the input, then of every hidden block known there, up to the first silent layer."""
        now = run.activations.iloc[0]
        layers = [name for name in structure.hidden(run) if np.isfinite(now.get(("mean", name), np.nan))]
        alone = run.first("outputs", "rows", "outputs") == 1
        signal = pd.Series({name: self._varying(now, name, alone) for name in layers}, dtype=float)
        if "dead_fraction" in now.index:
            silent = [i for i, name in enumerate(layers) if now.get(("dead_fraction", name), 0.0) >= self.silent]
            signal = signal.iloc[: silent[0]] if silent else signal
        entrance = self._entrance(run, now, alone)
        return pd.concat([pd.Series({"input": entrance}), signal]) if entrance > 0 else signal

    def _entrance(self, run: Run, now: pd.Series[float], alone: bool) -> float:
        """Size of the input; of ids, which are no signal, that of the embeddings that stand for them."""
        begin = next(iter(structure.recorded(run, "mean")), "")
        if structure.kind(run, begin) == "embedding" and np.isfinite(now.get(("mean", begin), np.nan)):
            return self._varying(now, begin, alone)
        variance, rms = (run.first("data", statistic, "input") or 0.0 for statistic in ("variance", "rms"))
        return float(np.sqrt(variance)) or rms

    def _varying(self, now: pd.Series[float], layer: str, alone: bool) -> float:
        """Standard deviation over the inputs; the root mean square where that is not known, as for one that comes `alone`."""
        spread = 0.0 if alone else float(now.get(("batch_variance", layer), 0.0))
        whole = np.hypot(now["mean", layer], np.sqrt(now["variance", layer]))
        return float(np.sqrt(spread) if spread > 0 else whole)

    def _fix(self, run: Run, layer: str) -> str:
        weight = structure.weight_into(run, layer)
        if weight is None or not (fans := structure.fans(run, weight))[0]:
            return self.advice
        return (
            f"Initialise every layer by its number of inputs: for {weight.name} std = {he_std(fans[0]):.2g} (He, for ReLU) or "
            f"{xavier_std(*fans):.2g} (Xavier, for tanh)."
        )

    @classmethod
    def _run(cls, gain: float) -> Run:
        rms = gain ** np.arange(1, 7)
        activations = {
            "mean": {f"h{i}": 0.0 for i in range(6)} | {"output": 0.0},
            "variance": {f"h{i}": rms[i] ** 2 for i in range(6)} | {"output": 1.0},
        }
        return synthetic.run(steps=1, activations=activations, data={"rms": {"input": 1.0}})

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(1 / 3.1)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(1 / 3.7)
