"""ND004 target-scale."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nndiag import progress, synthetic
from nndiag.check import Check, Finding
from nndiag.objective import Objective
from nndiag.run import Run


@dataclass(frozen=True)
class TargetScale(Check):
    """Regression targets are far from zero mean and unit scale.

    A fresh network puts out numbers near 0 of size 1. Targets in the thousands make first errors, losses and gradients
    millions of times larger than any learning rate is meant for, or leave the last bias to crawl towards the mean.

    Decides on real targets over all batches: root mean square above `high`, or a mean more than `shift` times their standard
    deviation from 0. It is nothing where the outputs of the first read are in place: their mean within `near` of the targets'
    standard deviations, and their own `spread` times that or more, as of a network that scales its outputs itself. It is a
    remark where the outputs explain more than `learned` of their variance all the same, in the
    last quarter of the reads; where that is not known, where training has come so much of its way.
    """

    code = "ND004"
    name = "target-scale"
    kind = "training"
    needs = ("data.rms", "data.total_variance")
    min_reads = 1
    advice = "Standardise the targets with the training set's numbers, and undo it on predictions."
    confirm = "print(y.mean(), y.std())"
    passed = "targets are of a size that a network can put out"

    high: float = 20.0
    shift: float = 10.0
    learned: float = 0.8
    near: float = 3.0
    spread: float = 0.03

    def not_checked(self, run: Run) -> str | None:
        if reason := super().not_checked(run):
            return reason
        return None if Objective(run).task == "real" else "for regressions only: needs a loss of task real"

    def examine(self, run: Run) -> Iterator[Finding]:
        means, rms = run.series("data", "mean", "target"), run.series("data", "rms", "target")
        mean, size = abs(float(means.mean())), float(rms.median())
        std = (run.latest("data", "total_variance", "target") or 0.0) ** 0.5
        if self._in_place(run, float(means.mean()), std):
            return
        if size > self.high or (std > 0 and mean > self.shift * std and mean > 1):
            value, threshold = (size, self.high) if size > self.high else (mean / std, self.shift)
            yield self.finding(
                f"targets have a mean of {means.mean():.3g} and a standard deviation of {std:.3g}",
                kind="note" if self._learned(run, std) > self.learned else self.kind,
                steps=rms.index, value=value, threshold=threshold,
                fix=f"Train on (y - {means.mean():.3g}) / {std or 1:.3g}, and undo it on predictions.",
            )  # fmt: skip

    def _in_place(self, run: Run, mean: float, std: float) -> bool:
        """Whether the outputs are where the targets are from the start on."""
        begun, variance = (run.first("outputs", statistic, "outputs") for statistic in ("mean", "variance"))
        if begun is None or variance is None:
            return False
        return abs(begun - mean) < self.near * std and variance**0.5 > self.spread * std

    def _learned(self, run: Run, std: float) -> float:
        """Share of the targets' variance that the outputs explain, or else how far training has come."""
        errors = run.series("outputs", "squared_error", "outputs").to_numpy()
        if len(errors) and std > 0:
            return 1 - float(np.mean(errors[-max(1, len(errors) // 4) :])) / std**2
        made = progress.training(run)
        return 0.0 if made is None else made.value

    @classmethod
    def _run(cls, rms: float) -> Run:
        data = {"rms": {"target": rms}, "mean": {"target": 1.0}, "total_variance": {"target": rms**2}}
        return synthetic.run(data=data, loss={"name": "MSE", "task": "real"})

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(15.0)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(25.0)
