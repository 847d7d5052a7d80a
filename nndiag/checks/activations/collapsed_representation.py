"""ND304 collapsed-representation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from nndiag import signals, structure, synthetic
from nndiag.check import Check, Finding
from nndiag.run import Run
from nndiag.statistics import Array


@dataclass(frozen=True)
class CollapsedRepresentation(Check):
    """A hidden layer puts out the same whatever goes in, though it is not silent.

    The inputs differ and so do the targets, but what tells them apart is lost on the way: later layers see a constant and
    can learn no more than the frequencies of the labels. Deep stacks of sigmoids do it from the start (each layer leaves a
    sixteenth of the variance, around a mean of ½), and so do biases that outgrow the weights or units all saturated.

    Decides on the variance over the inputs, averaged over units, of what a hidden layer puts out, over its mean square:
    below `share` on 3 reads in a row and on most of the last `window` reads with a batch of 2 or more, and of the last `last`:
    late in a run reads are far apart. A float32 layer
    resolves 1e-14, the recording about 1e-7. Names the first such layer. Layers behind one that is zero throughout are not
    read (its units are dead: ND205, ND301), nor outputs, whose classes may well draw together at the end of training
    (Papyan, Han & Donoho 2020).
    """

    code = "ND304"
    name = "collapsed-representation"
    kind = "training"
    needs = ("activations.batch_variance", "activations.mean", "activations.variance", "outputs.rows")
    advice = "Use fewer layers or ReLU instead of sigmoid, normalisation layers, and biases that start at 0."
    confirm = "(run.activations['batch_variance'] / run.activations['variance']).iloc[-1].plot(logy=True)"
    passed = "hidden layers tell the inputs apart"

    share: float = 1e-6
    window: int = 20
    last: int = 3

    def not_checked(self, run: Run) -> str | None:
        if reason := super().not_checked(run):
            return reason
        if not structure.hidden(run, "batch_variance"):
            return "needs a hidden layer"
        part = (("constant_fraction", "input", 1.0), ("total_variance", "target", 0.0))
        if any(run.latest("data", statistic, name) == value for statistic, name, value in part):
            return "inputs or targets do not vary"
        reads = len(self._steps(run))
        return None if reads >= self.min_reads else f"needs {self.min_reads} reads of batches of 2 or more, has {reads}"

    def examine(self, run: Run) -> Iterator[Finding]:
        steps, layers = self._steps(run), structure.hidden(run, "batch_variance")
        rows = run.activations.index.get_indexer(steps)
        spread = run.activations["batch_variance"][layers].to_numpy()[rows]
        square = structure.rms(run, layers)[rows] ** 2
        silent = np.maximum.accumulate(square == 0, axis=1)
        bad = (spread < self.share * square) & ~silent
        for column, layer in enumerate(layers):
            at = signals.onset(bad[:, column])
            lasts = bad[-self.window :, column].mean() > 0.5 and bad[-self.last :, column].mean() > 0.5
            if at is not None and lasts:
                yield self._finding(layer, steps, bad[:, column], at, spread[:, column] / square[:, column])
                return

    def _finding(self, layer: str, steps: pd.Index[int], bad: Array, at: int, share: Array) -> Finding:
        value = float(np.median(share[bad]))
        return self.finding(
            f"{layer} puts out the same for every input: {value:.1g} of its mean square varies with the input",
            layer=layer, steps=(steps[at], steps[np.flatnonzero(bad)[-1]]), value=value,
            threshold=self.share, causes=("ND203", "ND207", "ND302", "ND501", "too many sigmoid layers in a row"),
        )  # fmt: skip

    def _steps(self, run: Run) -> pd.Index[int]:
        """Steps that were read with a batch of two or more."""
        rows = run.series("outputs", "rows", "outputs")
        return run.activations.index.intersection(rows.index[rows >= 2])

    @classmethod
    def _run(cls, share: float) -> Run:
        names = ["h1", "h1.s", "h2", "h2.s", "output"]
        kinds = ["affine", "sigmoid", "affine", "sigmoid", "affine"]
        layers = [{"name": name, "kind": kind} for name, kind in zip(names, kinds, strict=True)]
        spread = {"h1": 1e-3, "h1.s": 1e-4, "h2": 0.26 * share, "h2.s": 0.26 * share, "output": 1e-9}
        activations = {
            "mean": dict.fromkeys(names, 0.5),
            "variance": dict.fromkeys(names, 0.01),
            "batch_variance": spread,
        }
        return synthetic.run(activations=activations, outputs={"rows": {"outputs": 64.0}}, layers=layers)

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(1.5e-6)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(0.6e-6)
