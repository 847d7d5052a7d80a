"""NDP09 signal-propagation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nndiag import structure
from nndiag.check import Finding
from nndiag.probes.probe import Probe
from nndiag.probes.subject import Passed, Subject, drawn
from nndiag.run import Run
from nndiag.statistics import Array


@dataclass(frozen=True)
class SignalPropagation(Probe):
    """Signals keep their size on the way forward through the network, and gradients on the way back.

    Every layer multiplies what passes by a factor that its weights decide, and twenty of them to its twentieth power: with
    the lesson's 20 layers of 256 units (section 8) a standard deviation of 0.02 leaves a variance of 1.5e-26 and 0.2 one of
    1.9e14, where He's 0.088 keeps it (He et al. 2015, equations 10 and 14, forward and backward).

    Sends `samples` samples through a copy, without dropout, and their gradients back. Forward it takes the standard
    deviation over the samples of what each hidden block hands on, backward the root mean square of the gradient there. From
    the first hidden block to the last either may shrink or grow by `total`, and over `depth` blocks or more by `per_layer`
    for each, in the geometric mean (ND203's thresholds: Xavier with ReLU makes 1.44 a layer, PyTorch's default 2.2, a sigmoid
    4). Networks with normalisation, which sets the scale anew, are exempt.
    """

    code = "NDP09"
    name = "signal-propagation"
    kind = "training"
    advice = "Use He initialisation with ReLU or Xavier with tanh, add normalisation or skip connections."
    confirm = "print(nndiag.probes.signal_propagation(trainer, x, y))"
    passed = "signals and gradients keep their size through the layers"

    total: float = 1e3
    per_layer: float = 3.0
    depth: int = 4
    samples: int = 64

    def measure(self, subject: Subject) -> dict[str, Any]:
        rows = drawn(subject, self.samples)
        passed = subject.copy(dropout=False).layers(rows, training=True)
        hidden = _hidden(passed)
        forward = {layer.name: _spread(layer.output, len(rows)) for layer in hidden}
        if passed and _spread(passed[-1].output, len(rows)):  # a branch that adds nothing yet keeps nothing back
            forward = {name: size for name, size in forward.items() if size != 0}
        return {
            "normalized": any(layer.kind in structure.NORMS for layer in passed),
            "forward": forward,
            "backward": {layer.name: _rms(layer.gradient) for layer in reversed(hidden) if layer.gradient is not None},
        }

    def not_checked(self, run: Run) -> str | None:
        if reason := super().not_checked(run):
            return reason
        m = self.measured(run)
        if m["normalized"]:
            return "the network has normalisation layers, which reset the scale"
        if len(m["forward"]) < 2:
            return "needs two hidden layers"
        return None if any(m["forward"].values()) else "no signal passes the first hidden layer: see ND205"

    def examine(self, run: Run) -> Iterator[Finding]:
        m = self.measured(run)
        for what, way, sizes in (("signal", "forward", m["forward"]), ("gradient", "back", m["backward"])):
            if any(sizes.values()):
                yield from self._judge(f"the {what}", way, sizes)
            else:
                yield self.note(f"no {what} to follow on its way {way}: it is 0 in every hidden layer")

    def _judge(self, what: str, way: str, sizes: Mapping[str, float]) -> Iterator[Finding]:
        names, values, layers = list(sizes), list(sizes.values()), len(sizes) - 1
        if layers < 1 or not values[0]:
            return
        change = values[-1] / values[0]
        per_layer = change ** (1 / layers)
        steep = layers >= self.depth and not 1 / self.per_layer <= per_layer <= self.per_layer
        if not steep and 1 / self.total <= change <= self.total:
            return
        verb = "grows" if change > 1 else "shrinks"
        rate = f"{max(per_layer, 1 / per_layer):.2g} times a layer, " if per_layer else ""
        yield self.finding(
            f"{what} {verb} {rate}to {change:.1e} of its size on its way {way} from {names[0]} to {names[-1]}",
            layer=names[-1], steps=0, value=per_layer if steep else change,
            threshold=self.per_layer if steep else self.total,
            causes=("ND203", "weights on the wrong scale", "a stack of saturating activation functions"),
        )  # fmt: skip

    @classmethod
    def _run(cls, gain: float) -> Run:
        sizes = {f"h{i}": gain**i for i in range(6)}
        return cls.example(normalized=False, forward=sizes, backward=dict.fromkeys(sizes, 1e-3))

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(1 / 2.9)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(1 / 3.2)


def _hidden(passed: Sequence[Passed]) -> list[Passed]:
    """What hidden blocks hand on: outputs of activation functions before the last layer with weights, or of such layers."""
    weighted = [i for i, layer in enumerate(passed) if layer.kind in structure.LINEAR]
    before = passed[: weighted[-1]] if weighted else passed[:-1]
    outside = (*structure.LINEAR, *structure.NEITHER, "recurrent", "attention", "unknown")
    functions = [layer for layer in before if layer.kind not in outside]
    return functions or [layer for layer in before if layer.kind in structure.LINEAR]


def _spread(output: Array, batch: int) -> float:
    """Standard deviation over the samples, root mean square over the units; over all elements where no axis is the batch."""
    over = 0 if output.shape[:1] == (batch,) and batch > 1 else None
    return _finite(np.sqrt(np.mean(output.var(axis=over))))


def _rms(gradient: Array) -> float:
    return _finite(np.sqrt(np.mean(gradient**2)))


def _finite(size: Any) -> float:
    """`size`, or the largest number where it is none: the measurement is plain JSON."""
    return float(size) if np.isfinite(size) else float(np.finfo(np.float64).max)
