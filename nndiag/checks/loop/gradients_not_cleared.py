"""ND901 gradients-not-cleared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from nndiag import structure, synthetic
from nndiag.check import Check, Finding
from nndiag.run import Run


@dataclass(frozen=True)
class GradientsNotCleared(Check):
    """Gradients of earlier steps are still in the buffers: each step goes along the sum of all before.

    Where a framework adds to gradients, they must be set to zero once in each step. Without that, steps grow and keep
    pointing to where the loss was long ago, as with a momentum of 1.

    Decides on the flag of the loop frame, where an adapter sets it: gradients of before were still in the buffers when the
    first backward pass of an iteration began, on `most` of at least `min_reads` iterations after the first. On fewer, down to
    `some`, it is a remark. Micro-batches are backward passes of one iteration, and no matter.

    Elsewhere it decides on the bias of the last layer, whose gradient is the sum of δ over the batch: equal to it within
    `tolerance`, relative, at the first read, different on `most` of the later ones, and `growth` times as large or more in
    the median: a penalty on the weights adds a little too, sums of earlier gradients add up. The tolerance is the rounding of
    float32 over large batches. Loops in which many steps update nothing accumulate gradients on purpose.

    Or, as an adapter counts, `twice` of all updates or more come without a backward pass since the one before, though others
    have one: the optimiser steps again on gradients that it has used.
    """

    code = "ND901"
    name = "gradients-not-cleared"
    kind = "exact"
    needs = ("outputs.gradient_sum", "gradients.norm")
    min_reads = 5
    advice = "Set gradients to zero in every step: optimizer.zero_grad() before backward."
    confirm = "print the norm of a gradient before backward: it must be 0"
    passed = "gradients are of their own step"

    tolerance: float = 1e-2
    most: float = 0.8
    growth: float = 1.5
    some: float = 0.1
    twice: float = 0.3

    def not_checked(self, run: Run) -> str | None:
        if len(self._kept(run)) >= self.min_reads:
            return None
        if reason := super().not_checked(run):
            return reason
        return None if self._bias(run) else "needs a last layer with a bias, whose outputs go into the loss"

    def examine(self, run: Run) -> Iterator[Finding]:
        kept = self._kept(run)
        yield from self._used_again(run)
        yield from self._told(run, kept) if len(kept) >= self.min_reads else self._measured(run)

    def _kept(self, run: Run) -> pd.Series[float]:
        """Whether gradients of before were in the buffers, by iteration; before the first there were none."""
        return run.loop["gradients_kept"].dropna().iloc[1:]

    def _told(self, run: Run, kept: pd.Series[float]) -> Iterator[Finding]:
        share, held = float(np.mean(kept > 0)), kept.index[kept > 0]
        if self._collects(run) or share < self.some:
            return
        yield self.finding(
            f"gradients of before were still there when the first backward pass of an iteration began, in {share:.0%} of "
            f"{len(kept)} iterations",
            kind=self.kind if share >= self.most else "note", steps=held, value=share,
            threshold=self.most,
        )  # fmt: skip

    def _used_again(self, run: Run) -> Iterator[Finding]:
        """Updates without a backward pass of their own."""
        loop = run.loop[["backward_passes", "updates"]].dropna()
        stepped = loop[loop["updates"] > 0]
        again = stepped["backward_passes"] == 0
        if len(stepped) >= self.min_reads and not again.all() and float(again.mean()) >= self.twice:
            yield self.finding(
                f"{again.mean():.0%} of {len(stepped)} updates come without a backward pass of their own: the optimiser steps "
                "again on gradients that it has used",
                kind="training", steps=again.index[again],
                value=float(again.mean()), threshold=self.twice, causes=("optimizer.step() called twice",),
                fix="Call optimizer.step() once for each backward pass; with a gradient scaler, only scaler.step(optimizer).",
            )  # fmt: skip

    def _collects(self, run: Run) -> bool:
        """Whether more than a tenth of the iterations, by the loop, have no update that was made or left out."""
        loop = run.loop[["updates", "skipped_updates"]].dropna(how="all")
        return len(loop) > 0 and float(np.mean(loop.sum(axis=1) == 0)) > 0.1

    def _measured(self, run: Run) -> Iterator[Finding]:
        off = self._off(run)
        if len(off) < self.min_reads or off.iloc[0] > self.tolerance or self._accumulates(run):
            return
        if np.mean(off.iloc[1:] > self.tolerance) >= self.most:
            ratio = float(self._pair(run).iloc[1:].pipe(lambda pair: pair["seen"] / pair["wanted"]).median())
            bias = self._bias(run)
            if not ratio >= self.growth:
                return
            yield self.finding(
                f"the gradient of {bias} is not that of its own step ({ratio:.2g} times its size in the median): earlier ones "
                "were never cleared",
                parameter=bias, steps=(off.index[1], off.index[-1]), value=float(off.median()),
                threshold=self.tolerance,
            )  # fmt: skip

    def _bias(self, run: Run) -> str | None:
        """Bias of the last layer, if that is the very last and has one."""
        last = run.meta.layers[-1] if run.meta.layers else None
        if last is None or last.kind not in structure.LINEAR:
            return None
        norms = run.statistic("gradients", "norm")
        return next(
            (p.name for p in run.meta.parameters if p.layer == last.name and p.kind == "bias" and p.name in norms), None
        )

    def _accumulates(self, run: Run) -> bool:
        """Whether more than a tenth of the steps update nothing: those of a loop that collects gradients."""
        moved = run.statistic("updates", "update_norm").max(axis=1)
        return len(moved) > 0 and float(np.mean(moved == 0)) > 0.1

    def _pair(self, run: Run) -> pd.DataFrame:
        """By read: norm of the bias gradient seen, and of the sum of δ, which it must be."""
        bias = self._bias(run)
        wanted = run.series("outputs", "gradient_sum", "outputs")
        seen = run.series("gradients", "norm", bias) if bias else wanted.iloc[:0]
        pair = pd.DataFrame({"seen": seen, "wanted": wanted}).dropna()
        return pair[pair["wanted"] > 1e-8]

    def _off(self, run: Run) -> pd.Series[float]:
        pair = self._pair(run)
        return (pair["seen"] - pair["wanted"]).abs() / pair["wanted"]

    @classmethod
    def _run(cls, factor: float) -> Run:
        layers = [{"name": "output", "kind": "affine", "shape": [3]}]
        parameters = [{"name": "output.bias", "kind": "bias", "shape": [3], "layer": "output"}]
        seen = np.r_[1.0, np.full(99, factor)]
        return synthetic.run(
            outputs={"gradient_sum": {"outputs": 1.0}}, gradients={"norm": {"output.bias": seen}}, layers=layers,
            parameters=parameters,
        )  # fmt: skip

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(1.3)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(1.7)
