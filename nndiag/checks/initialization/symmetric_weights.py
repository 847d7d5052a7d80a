"""ND202 symmetric-weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nndiag import structure, synthetic
from nndiag.check import Check, Finding
from nndiag.nn.initializers import he_std
from nndiag.run import Run


@dataclass(frozen=True)
class SymmetricWeights(Check):
    """All units of a layer start with the same weights and get the same gradient, so they stay copies of one unit.

    Units that start equal and are treated equally compute the same function for ever: however wide it is, the layer
    works like a single unit (Goodfellow, Bengio & Courville 2016, section 8.4). Initialising everything with zeros, or
    any constant, does it.

    Decides on the first read of each weight: rows equal to 1e-6 and their gradients equal to 1e-4, relative to the
    largest value: equal up to float32's rounding. Both are needed: a last layer of zeros gets different gradients for
    its units and is sound, as is logistic regression from zero. Beside equal weights a gradient below `noise` times that of
    another parameter may differ: it is the rounding that is left where units that are alike are normalised. The first read is
    enough, no update is needed; but where nothing comes back, as from a branch or a head that starts at zero (Zhang, Dauphin & Ma
    2019), the first with a gradient.
    """

    code = "ND202"
    name = "symmetric-weights"
    kind = "exact"
    needs = ("gradients.identical_rows",)
    min_reads = 1
    advice = "Draw the weights at random: init='he_normal' for ReLU, 'xavier_normal' for tanh and sigmoid."
    confirm = "print(np.ptp(model.layer('hidden1').weight.value, axis=0).max())  # 0: all units are the same"
    passed = "units start from different weights"

    noise: float = 1e-5

    def examine(self, run: Run) -> Iterator[Finding]:
        first = run.statistic("gradients", "identical_rows")
        for name in map(str, first):
            same, norm = first[name].dropna(), run.series("gradients", "norm", name)
            reached = same[~same.index.isin(norm.index[norm == 0])]
            same = reached if len(reached) else same
            if len(same) and (same.iloc[0] == 1 or (same.iloc[0] > 0 and self._is_noise(run, name, same.index[0]))):
                parameter = run.meta.parameter(name)
                units = f"all {parameter.shape[0]} units" if parameter.shape else "all units"
                norms = run.series("updates", "weight_norm", name), norm
                both = all(series.get(same.index[0]) == 0 for series in norms)
                zero = ", 0 both of them: what they are multiplied with is 0, too" if both else ""
                yield self.finding(
                    f"{units} of {parameter.layer or name} have the same weights and the same gradient{zero}",
                    layer=parameter.layer or None, parameter=name, value=1.0, threshold=1.0,
                    steps=(same.index[0], same[same > 0].index[-1]),
                    fix=self._fix(run, name),
                )  # fmt: skip

    def _is_noise(self, run: Run, name: str, step: int) -> bool:
        """Whether the gradient of a weight is nothing but rounding beside that of others."""
        norms = run.statistic("gradients", "norm").reindex([step]).max()
        return bool(norms.get(name, np.nan) < self.noise * norms.max())

    def _fix(self, run: Run, name: str) -> str:
        fan_in, _ = structure.fans(run, run.meta.parameter(name))
        return f"{self.advice} For this layer He gives std = {he_std(fan_in):.2g}." if fan_in else self.advice

    @classmethod
    def _run(cls, same: float) -> Run:
        return synthetic.run(steps=1, gradients={"identical_rows": {"hidden1.weight": same, "output.weight": 0.0}})

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(0.0)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(1.0)
