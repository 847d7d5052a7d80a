"""ND408 gradient-sign."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from nndiag import structure, synthetic
from nndiag.check import Check, Finding
from nndiag.run import Run


@dataclass(frozen=True)
class GradientSign(Check):
    """The training goes uphill: the loss is maximised.

    A minus sign too many, in the loss, its gradient or the update, turns descent into ascent.

    Decides on two facts. δ of the outputs points towards the targets instead of away from them: the cosine between −δ and a
    direction in which the outputs approach their targets is below −`against` on `most` of the reads; at a minimum it is 0,
    in descent positive. Or updates go along the gradient instead of against it, Δw · g > 0, on `most` of the first `early`
    reads in most weights: later, momentum overshoots on up to half of the steps. Reads do not count where weight decay
    moves the weights about as much as the gradient does (ND506). Where the optimiser is told to maximise, δ is to point the
    other way, and that updates go uphill is a remark.
    """

    code = "ND408"
    name = "gradient-sign"
    kind = "exact"
    needs = ("gradients.norm",)
    min_reads = 10
    advice = "Look for a minus sign too many: loss = -log p, w -= lr * g, and no negative learning rate."
    confirm = "nndiag.probes.gradient_check(trainer, x, y)"
    passed = "updates go downhill"

    against: float = 0.1
    most: float = 0.95
    early: int = 20

    def examine(self, run: Run) -> Iterator[Finding]:
        told = bool(run.meta.optimizer.get("maximize"))
        along = run.series("outputs", "alignment", "outputs").to_numpy() * (-1 if told else 1)
        if len(along) >= self.min_reads and np.mean(along < -self.against) >= self.most:
            way = "ascent, as the optimiser is told to maximise," if told else "descent"
            fact = f"{way} along the gradient of the loss moves the outputs away from their targets"
            yield self._finding(run, fact, float(np.median(along)), -self.against)
        elif (uphill := self._uphill(run)) is not None:
            fact = f"updates go uphill, along the gradient, on {uphill:.0%} of the reads"
            if told:
                yield self.note(f"{fact}, as the optimiser is told to maximise")
            else:
                yield self._finding(run, fact, uphill, self.most)

    def _uphill(self, run: Run) -> float | None:
        """Share of the early reads with an update along the gradient, in the median of the weights; None if it is no rule."""
        descent = run.statistic("updates", "descent").reindex(columns=structure.weights(run, "updates", "descent"))
        moved = descent != 0  # a weight that was left out of a step has no gradient and no update
        seen = descent.where(moved & ~self._decayed(run, descent)).iloc[: self.early]
        seen = seen[seen.notna().any(axis=1)]
        if len(seen) < self.min_reads:
            return None
        share = float(((seen < 0).sum() / seen.notna().sum()).median())
        return share if share >= self.most else None

    def _decayed(self, run: Run, descent: pd.DataFrame) -> pd.DataFrame:
        """Where weight decay makes a third of the update or more."""
        decay = run.meta.optimizer.get("weight_decay")
        if not isinstance(decay, int | float) or not decay:
            return descent.isna()
        lr = run.series("metrics", "lr", "train").reindex(descent.index).ffill()
        size = {name: run.statistic("updates", name).reindex_like(descent) for name in ("weight_norm", "update_norm")}
        gradients = run.statistic("gradients", "norm").reindex_like(descent)
        decoupled = size["weight_norm"].mul(lr * decay, axis=0) > size["update_norm"] / 3
        return decoupled | (size["weight_norm"] * decay > gradients / 3)

    def _finding(self, run: Run, fact: str, value: float, threshold: float) -> Finding:
        steps = run.statistic("gradients", "norm").index
        return self.finding(fact, steps=steps, value=value, threshold=threshold)

    @classmethod
    def _run(cls, along: float) -> Run:
        outputs = {"alignment": {"outputs": along}}
        return synthetic.run(gradients={"norm": {"h1.weight": 1.0}}, outputs=outputs)

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(-0.08)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(-0.15)
