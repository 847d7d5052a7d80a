"""ND307 bottleneck."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nndiag import progress, structure, synthetic
from nndiag.check import Check, Finding
from nndiag.meta import DENSE
from nndiag.objective import Objective
from nndiag.run import Run


@dataclass(frozen=True)
class Bottleneck(Check):
    """A hidden layer is too narrow for what has to pass through it.

    All that the outputs know of an input has gone through the narrowest layer. From a single unit C classes can only be cut
    out of a line, from two out of a plane; a few more units cost nothing and make the task easier by far.

    Decides on the widths of the hidden layers: fewer than both `units` and the number of independent outputs (C − 1 for C
    classes, all of them for labels and real targets), narrower than the input, and training that has come less than
    `learned` of its way; a network that learns all the same has no need of more. A single unit is too narrow for one output, too:
    of several inputs it sees one direction, and cannot tell x xor y; of a recurrent layer it is all the memory. An autoencoder,
    whose targets are as wide as its inputs, has a bottleneck on purpose: a remark.
    """

    code = "ND307"
    name = "bottleneck"
    kind = "training"
    needs = ("activations.mean", "losses.train")
    advice = "Give every hidden layer at least as many units as there are outputs."
    confirm = "print(model)"
    passed = "no hidden layer is too narrow for the outputs"

    units: int = 3
    learned: float = 0.9

    def not_checked(self, run: Run) -> str | None:
        if reason := super().not_checked(run):
            return reason
        layers = structure.hidden(run)
        return (
            None
            if layers and all(run.meta.layer(layer).shape for layer in layers)
            else "needs the widths of hidden layers"
        )

    def examine(self, run: Run) -> Iterator[Finding]:
        seen, made = Objective(run), progress.training(run)
        outputs, inputs = seen.width - 1 if seen.task == "classes" else seen.width, self._inputs(run)
        wanted = max(min(self.units, outputs, inputs or outputs), min(2, inputs))
        width, layer = min((self._width(run, layer), layer) for layer in structure.hidden(run))
        if structure.kind(run, layer) == "recurrent":
            wanted = max(wanted, 2)
        if width < wanted and (made is None or made.value < self.learned):
            steps = run.statistic("activations", "mean").index
            yield self.finding(
                f"{f'all {seen.width} outputs are' if seen.width > 1 else 'the output is'} computed from {width} unit"
                f"{'s' if width > 1 else ''} in {layer}",
                kind="note" if seen.task == "real" and seen.width == inputs else None, layer=layer,
                steps=steps, value=float(width), threshold=float(wanted),
                fix=f"Give {layer.partition('.')[0]} at least {max(8, 2 * seen.width)} units.",
            )  # fmt: skip

    def _width(self, run: Run, layer: str) -> int:
        """Units of a layer; of a recurrent one those of a single step, which are all that goes on to the next."""
        described = run.meta.layer(layer)
        return described.shape[-1] if described.kind == "recurrent" and described.shape else structure.units(run, layer)

    def _inputs(self, run: Run) -> int:
        """Number of input features; 0 where it is not known: recurrent layers and convolutions take them bit by bit."""
        first = next((p for p in run.meta.parameters if p.kind in ("weight", "embedding")), None)
        whole = first is not None and structure.kind(run, first.layer) in (*DENSE, "unknown")
        return structure.fans(run, first)[0] if first is not None and whole else 0

    @classmethod
    def _run(cls, units: int) -> Run:
        layers = [{"name": "h1", "kind": "affine", "shape": [units]}, {"name": "h1.relu", "kind": "relu", "shape": [units]},
                  {"name": "output", "kind": "affine", "shape": [10]}]  # fmt: skip
        activations = {"mean": dict.fromkeys(("h1", "h1.relu", "output"), 0.1)}
        return synthetic.run(
            train=synthetic.decay(end=1.5), activations=activations, outputs={"width": {"outputs": 10.0}}, layers=layers,
            **synthetic.CLASSES,
        )  # fmt: skip

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(3)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(2)
