"""ND012 input-drift."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nndiag import synthetic
from nndiag.check import Check, Finding
from nndiag.run import Run
from nndiag.statistics import Array


@dataclass(frozen=True)
class InputDrift(Check):
    """The inputs vary more and more, or less and less, from epoch to epoch.

    An augmentation or a normalisation that writes into the stored samples, and not into a copy, is applied once more each time
    they are drawn: noise is added to noise (its variance grows in a straight line) or a factor is multiplied by itself (the
    variance grows or falls by the same share each time). The data rot away, and validation, on data that nobody has touched, gets
    worse.

    Decides on the variance of the batches, in the median over each of `parts` equal parts of the run, of `looked_at` at least: a
    straight line through these, or through their logarithms, leaves less than `bent` of their variance, and from its beginning
    to its end they grow, or fall, to more than `growth` times. What merely settles, as samples of a generator that learns, bends.
    Only where the data have been gone through more than once, by `passes` epochs or validations; in a single pass a series may
    drift by itself. Inputs of an embedding are no measurements, and exempt.
    """

    code = "ND012"
    name = "input-drift"
    kind = "generalisation"
    needs = ("data.variance",)
    min_reads = 20
    advice = "Augment and normalise a copy of each sample: x = x + noise, not x += noise; in a data set x = self.x[i].clone()."
    confirm = "print(x_train.std())  # before and after an epoch"
    passed = "inputs vary as much at the end as at the beginning"

    parts: int = 8
    looked_at: int = 6
    bent: float = 0.05
    growth: float = 1.5
    passes: int = 3

    def not_checked(self, run: Run) -> str | None:
        if run.meta.layers and run.meta.layers[0].kind == "embedding":
            return "the inputs are those of an embedding"
        if reason := super().not_checked(run):
            return reason
        passes = max(len(run.validation), run.losses["epoch"].nunique())
        if passes < self.passes:
            return f"needs {self.passes} epochs or validations, has {passes}: in a single pass data may drift by themselves"
        return (
            None
            if self._parts(run) is not None
            else f"needs reads in {self.looked_at} of {self.parts} equal parts of the run"
        )

    def examine(self, run: Run) -> Iterator[Finding]:
        if (parts := self._parts(run)) is None or not parts[1].min() > 0:
            return
        at, medians = parts
        for values, end in ((medians, _grown), (np.log(medians), _multiplied)):
            line = np.polyval(np.polyfit(at, values, 1), at)
            grown = end(line)
            if np.var(values - line) < self.bent * np.var(values) and not 1 / self.growth <= grown <= self.growth:
                steps = run.series("data", "variance", "input").index
                yield self.finding(
                    f"the inputs' variance goes from {medians[0]:.3g} to {medians[-1]:.3g} in a straight line, epoch after epoch",
                    steps=steps, value=grown, threshold=self.growth,
                    causes=("an augmentation or a normalisation that writes into the stored samples",),
                )  # fmt: skip
                return

    def _parts(self, run: Run) -> tuple[Array, Array] | None:
        """Where in the run batches of equal parts lie, and their median variance; None where there are too few."""
        variance = run.series("data", "variance", "input").dropna()
        steps = variance.index.to_numpy()
        if not len(steps):
            return None
        part = (steps - steps[0]) * self.parts // (steps[-1] - steps[0] + 1)
        medians = variance.groupby(part).median().to_numpy()
        at = variance.index.to_series().groupby(part).mean().to_numpy()
        return (at, medians) if len(medians) >= self.looked_at else None

    @classmethod
    def _run(cls, last: float) -> Run:
        variance = np.linspace(1.0, last, 100)
        data: synthetic.Statistics = {"variance": {"input": variance}}
        return synthetic.run(train=synthetic.decay(), epoch=np.arange(100) // 10, data=data)

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(1.5)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(1.65)


def _grown(line: Array) -> float:
    """The last value of a line over its first; NaN where that is not positive."""
    return float(line[-1] / line[0]) if line[0] > 0 and line[-1] > 0 else float("nan")


def _multiplied(line: Array) -> float:
    """The same, of a line through logarithms."""
    return float(np.exp(line[-1] - line[0]))
