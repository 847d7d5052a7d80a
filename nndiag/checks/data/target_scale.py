"""ND004 target-scale."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nndiag import progress, synthetic
from nndiag.check import Check, Finding, Kind
from nndiag.objective import Objective
from nndiag.run import Run
from nndiag.samples import SQUEEZED


@dataclass(frozen=True)
class TargetScale(Check):
    """Regression targets are far from zero mean and unit scale.

    A fresh network puts out numbers near 0 of size 1. Targets in the thousands make first errors, losses and gradients
    millions of times larger than any learning rate is meant for, or leave the last bias to crawl towards the mean; beside targets
    far below 1, what the network says at random is all there is for long.

    Decides on real targets over all batches: root mean square above `high`, or a mean more than `shift` times their standard
    deviation from 0; nothing where the outputs of the first read are in place, as of a network that scales them itself: their
    mean within `near` of the targets' standard deviations, and their own `spread` times that or more. Or on a standard deviation
    below `low`, and below `spread` times that of these outputs. Or on a code for what is missing among the first 512 of single
    targets: their smallest or largest value is that of several, and the others vary less than `squeezed` times as much as all do
    (`nndiag.samples`). It is a remark where the outputs explain more than `learned` of their variance all the same, in the last
    quarter of the reads; where that is not known, where training has come so much of its way.
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
    low: float = 0.03
    shift: float = 10.0
    learned: float = 0.8
    near: float = 3.0
    spread: float = 0.03
    squeezed: float = SQUEEZED

    def not_checked(self, run: Run) -> str | None:
        if reason := super().not_checked(run):
            return reason
        return None if Objective(run).task == "real" else "for regressions only: needs a loss of task real"

    def examine(self, run: Run) -> Iterator[Finding]:
        means, rms = run.series("data", "mean", "target"), run.series("data", "rms", "target")
        mean, size = abs(float(means.mean())), float(rms.median())
        std = (run.latest("data", "total_variance", "target") or 0.0) ** 0.5
        squeezed = run.latest("data", "code_spread", "target")
        if squeezed is not None and squeezed < self.squeezed:
            yield self._coded(run, squeezed, self._kind(run, std))
            return
        begun, spread = self._begun(run)
        in_place = abs(begun - float(means.mean())) < self.near * std and spread > self.spread * std
        fact = f"targets have a mean of {means.mean():.3g} and a standard deviation of {std:.3g}"
        if 0 < std < self.low and std < self.spread * spread:
            value, threshold, fact = std, self.low, f"{fact}, and the first outputs one of {spread:.2g}"
        elif size > self.high and not in_place:
            value, threshold = size, self.high
        elif std > 0 and mean > self.shift * std and mean > 1 and not in_place:
            value, threshold = mean / std, self.shift
        else:
            return
        yield self.finding(
            fact, kind=self._kind(run, std), steps=rms.index, value=value, threshold=threshold,
            fix=f"Train on (y - {means.mean():.3g}) / {std or 1:.3g}, and undo it on predictions.",
        )  # fmt: skip

    def _begun(self, run: Run) -> tuple[float, float]:
        """Mean and standard deviation of the outputs of the first read; NaN where they were not recorded."""
        mean, variance = (run.first("outputs", statistic, "outputs") for statistic in ("mean", "variance"))
        return (np.nan, np.nan) if mean is None or variance is None else (mean, variance**0.5)

    def _coded(self, run: Run, squeezed: float, kind: Kind) -> Finding:
        """What is said of targets among which there is a code for what is missing."""
        code, share = (run.latest("data", f"code{name}", "target") or 0.0 for name in ("", "_fraction"))
        return self.finding(
            f"targets are {code:.4g} in {share:.1%} of the first samples, far from the others, which vary {squeezed:.2g} times "
            f"as much as all do: that looks like a code for what is missing",
            kind=kind, steps=run.data.index, value=squeezed, threshold=self.squeezed,
            causes=("a code such as -9999 for what is missing",), fix="Leave out the samples whose target is missing.",
            confirm="print(y.min(), y.max(), np.median(y))",
        )  # fmt: skip

    def _kind(self, run: Run, std: float) -> Kind:
        return "note" if self._learned(run, std) > self.learned else self.kind

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
