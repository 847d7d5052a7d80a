"""ND402 exploding-gradients."""

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
class ExplodingGradients(Check):
    """Gradients grow far beyond what this run is used to, or near the end of what the dtype can hold.

    One oversized gradient makes one oversized update, which can throw away everything learned so far (Pascanu, Mikolov &
    Bengio 2013). A single spike on a hard batch is normal; several in a row are a state.

    Decides on the norm of all gradients together, before clipping, in log10: more than `factor` times the median of the
    `window` reads before and of the first 20 reads, and more than `z` robust standard deviations above, on 3 reads in a
    row after the warm-up; or on any read within `headroom` of the largest number of the dtype. There is no absolute
    threshold besides: sound norms span many orders of magnitude. Nor are they oversized where the loss is below 0, and lower than
    on all reads before: a density has no highest value, and its gradients grow with its precision.
    """

    code = "ND402"
    name = "exploding-gradients"
    kind = "training"
    needs = ("gradients.norm",)
    advice = "Lower the learning rate, or clip: Trainer(clip_norm=1.0)."
    confirm = "run.gradients['norm'].plot(logy=True)"
    passed = "gradient norms stay in their usual range"

    z: float = 6.0
    factor: float = 10.0
    window: int = 50
    headroom: float = 1e-4

    def examine(self, run: Run) -> Iterator[Finding]:
        norms = run.statistic("gradients", "norm")
        total = norms.pow(2).sum(axis=1).pow(0.5)
        total = total[total > 0]
        limit = self.headroom * structure.largest(run)
        near = np.flatnonzero(norms.max(axis=1).to_numpy() > limit)
        if len(near):
            step = int(norms.index[near[0]])
            yield self._finding(norms, step, int(norms.index[near[-1]]), float(norms.max(axis=1).iloc[near[0]]), limit)
        elif len(total) >= self.min_reads and (at := signals.onset(self._bad(total))) is not None:
            bad = np.flatnonzero(self._bad(total))
            if self._sharpens(run, total.index[bad]):
                return
            usual = self.factor * float(total.iloc[:at].median())
            value = float(total.iloc[bad].max())
            yield self._finding(norms, int(total.index[at]), int(total.index[bad[-1]]), value, usual)

    def _sharpens(self, run: Run, steps: pd.Index[int]) -> bool:
        """Whether the loss at `steps` is negative and, for most of them, lower than ever before."""
        at, before = run.train.reindex(steps).dropna(), run.train[run.train.index < steps[0]].dropna()
        return len(at) > 0 and len(before) > 0 and float(at.median()) < min(0.0, float(before.min()))

    def _bad(self, total: pd.Series[float]) -> Array:
        size = pd.Series(np.log10(total.to_numpy()))
        usual = size.rolling(self.window, min_periods=10).median().shift(1)
        residual = (size - usual).dropna().to_numpy()
        noise = max(signals.spread(residual), 1e-3) if len(residual) else 1.0
        above = (size - usual.clip(lower=size.iloc[:20].median())).to_numpy()
        bad: Array = (above > np.log10(self.factor)) & (above > self.z * noise)
        bad[: signals.warm_up(len(total))] = False
        return bad

    def _finding(self, norms: pd.DataFrame, step: int, last: int, value: float, limit: float) -> Finding:
        before = norms.loc[:step].iloc[:-1].median().replace(0, np.nan) if len(norms.loc[:step]) > 1 else 1.0
        growth = (norms.loc[step] / before).fillna(0.0)
        parameter = str(growth.idxmax())
        return self.finding(
            f"the gradient norm reaches {value:.2g}; up to {limit:.2g} would be usual here",
            parameter=parameter, steps=(step, last), value=value, threshold=limit,
            causes=("ND501", "ND203", "a batch unlike the others"),
        )  # fmt: skip

    @classmethod
    def _run(cls, factor: float) -> Run:
        norm = 1.0 + 0.1 * np.random.default_rng(0).standard_normal(100)
        norm[60:66] *= factor
        return synthetic.run(gradients={"norm": {"h1.weight": norm, "output.weight": np.ones(100)}})

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(9.0)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(18.0)
