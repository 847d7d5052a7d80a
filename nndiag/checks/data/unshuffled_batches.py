"""ND007 unshuffled-batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nndiag import structure, synthetic
from nndiag.check import Check, Finding
from nndiag.run import Run
from nndiag.statistics import Array


@dataclass(frozen=True)
class UnshuffledBatches(Check):
    """Batches are not drawn at random: each has its own labels or targets.

    Data that lie sorted and are not shuffled show the network one class at a time; it learns the latest and forgets the ones
    before, and the loss swings with the period of an epoch (Bengio 2012, section 3.1.1).

    Decides on how much the batches differ: the variance of their class shares, or of the mean target, over what drawing at
    random gives (p (1 − p) / n, or variance / n). That ratio is 1 for shuffled batches, below 1 for stratified ones and up
    to the batch size for sorted data; above `ratio` in the mean over classes it is far outside what chance does in 20
    batches (a χ² with 19 degrees of freedom stays below 2.3 in 999 of 1,000 cases). It is samples that are drawn: the labels of
    all words of one text may be the same. Series whose order is part of the task differ so by nature: leave the check out there.
    In a run without epochs mean targets count around their drift, a
    polynomial of degree `drift` or what only rises or only falls, whichever is nearer: those that a network makes for itself
    (Mnih et al. 2015) grow as it learns, and in steps where it is copied now and then.
    """

    code = "ND007"
    name = "unshuffled-batches"
    kind = "training"
    needs = ("data.mean",)
    advice = "Shuffle the training set before each epoch: fit(shuffle=True)."
    confirm = "print(y[:64])  # in the order of training"
    passed = "batches are drawn at random"

    ratio: float = 4.0
    samples: int = 4
    drift: int = 4

    def not_checked(self, run: Run) -> str | None:
        if reason := super().not_checked(run):
            return reason
        recurrent = any(layer.kind == "recurrent" for layer in run.meta.layers)
        if recurrent and structure.by_hand(run) and not len(run.series("data", "samples", "input")):
            return "needs the inputs of sequences beside their targets, which say what a sample is: Recorder.data(x, y)"
        return None if self._ratio(run) is not None else f"needs targets in batches of {self.samples} samples or more"

    def examine(self, run: Run) -> Iterator[Finding]:
        ratio = self._ratio(run)
        if ratio is not None and ratio > self.ratio:
            steps = run.statistic("data", "mean").index
            yield self.finding(
                f"labels differ {ratio:.2g} times as much between batches as drawing at random would make them",
                steps=steps, value=ratio, threshold=self.ratio,
            )  # fmt: skip

    def _ratio(self, run: Run) -> float | None:
        """Variance between batches over that of random draws; None where it cannot be told."""
        counts = run.statistic("data", "count")
        sizes = run.series("outputs", "rows", "outputs")
        size = float(sizes.median()) if len(sizes) else float(run.meta.batch_size or 0)
        if counts.shape[1] > 1 and run.meta.loss.get("task") != "real":
            n = counts.fillna(0).to_numpy()
            totals = n.sum(axis=1, keepdims=True)
            full = totals[:, 0] >= max(self.samples, 0.9 * float(np.median(totals)))
            p = n.sum(axis=0) / max(n.sum(), 1.0)
            usable = (p > 0.02) & (p < 0.98)
            if full.sum() < self.min_reads or not usable.any():
                return None
            shares = (n / np.maximum(totals, 1))[full][:, usable]
            drawn = float(np.median(totals[full])) / self._each(run)
            chance = p[usable] * (1 - p[usable]) / drawn
            return float(np.mean(shares.var(axis=0) / chance))
        means, variances = run.series("data", "mean", "target"), run.series("data", "variance", "target")
        full = sizes[sizes >= 0.9 * sizes.max()].index if len(sizes) else means.index
        means, variances = means[means.index.isin(full)], variances[variances.index.isin(full)]
        if len(means) < self.min_reads or size < self.samples or not variances.mean() > 0:
            return None
        between, whole = self._between(run, means.to_numpy()), float(variances.mean() + means.var())
        return between / (whole / size) / self._each(run)

    def _each(self, run: Run) -> float:
        """How many labels come with one sample, as one for each word of a text: those of one text may be all the same."""
        rows, inputs = run.first("outputs", "rows", "outputs"), run.first("data", "samples", "input")
        return max(1.0, rows / inputs) if rows and inputs else 1.0

    def _between(self, run: Run, means: Array) -> float:
        """Variance of the mean targets of batches, without a drift in a run without epochs."""
        if run.losses["epoch"].max() > 0:
            return float(means.var())
        time = np.linspace(-1, 1, len(means))
        curve = np.polyval(np.polyfit(time, means, self.drift), time)
        return min(float((means - drift).var()) for drift in (curve, _rising(means), -_rising(-means)))

    @classmethod
    def _run(cls, share: float) -> Run:
        first = np.where(np.arange(100) % 2, 32 + 64 * share, 32 - 64 * share)
        data: synthetic.Statistics = {"mean": {"target": 0.5}, "count": {"label 0": first, "label 1": 64 - first}}
        return synthetic.run(data=data, **synthetic.CLASSES)

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(0.11)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(0.14)


def _rising(values: Array) -> Array:
    """The curve that never falls and is nowhere farther from `values` (n,) than it must be."""
    return (np.maximum.accumulate(values) + np.minimum.accumulate(values[::-1])[::-1]) / 2
