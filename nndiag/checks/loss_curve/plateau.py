"""ND605 plateau."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from nndiag import progress, signals, synthetic
from nndiag.check import Check, Finding
from nndiag.run import Run


@dataclass(frozen=True)
class Plateau(Check):
    """The training loss has been flat for the second half of the run, far above the lowest it could be.

    It is the best that this network can do on these data, or the rest of the way needs another learning rate, a larger
    network or less regularisation. Noisy labels and weak signals end on such a plateau by nature, so it is a remark; it is
    a finding where the network is no better than a trivial prediction there: then the second half was spent on nothing.

    Decides on the Theil–Sen slope over the second half of the reads: it moves the loss by less than `flat` of the way from
    its start to its floor, with more than `left` of the way to go.
    """

    code = "ND605"
    name = "plateau"
    kind = "training"
    needs = ("losses.train",)
    min_reads = 50
    advice = "Try a learning rate 3 times higher and one 3 times lower from here; then a larger network."
    confirm = "run.losses['train'].plot(logy=True)"
    passed = "the training loss moves, or has come most of the way"

    flat: float = 0.01
    left: float = 0.1

    def not_checked(self, run: Run) -> str | None:
        return super().not_checked(run) or progress.no_measure(run)

    def examine(self, run: Run) -> Iterator[Finding]:
        trained = progress.training(run)
        if trained is None or not np.isfinite(trained.now):
            return
        way, late = trained.start - trained.floor, run.train.iloc[len(run.train) // 2 :]
        span = float(late.index[-1] - late.index[0])
        moved = abs(signals.theil_sen(late.index.to_numpy(), late.to_numpy())) * span
        if not way > 0 or moved >= self.flat * way or trained.now - trained.floor <= self.left * way:
            return
        step = self._since(run.train, float(late.median()), 2 * self.flat * way)
        yield self.finding(
            f"the training loss has been flat at {trained.now:.3g} since step {step}, with "
            f"{min(1.0, (trained.now - trained.floor) / way):.0%} of the way to its floor left",
            kind=progress.fault_if_poor(run), steps=(step, late.index[-1]),
            value=moved / way, threshold=self.flat,
            causes=("ND601", "ND501", "ND502", "too small a network", "noise in the labels"),
        )  # fmt: skip

    def _since(self, train: pd.Series[float], level: float, near: float) -> int:
        """First step from which the smoothed loss stays near `level`."""
        smooth = train.rolling(max(5, len(train) // 10), min_periods=1, center=True).median()
        at = signals.lasting_onset(((smooth - level).abs() <= near).to_numpy())
        return int(train.index[min(at or 0, len(train) // 2)])

    @classmethod
    def _run(cls, slope: float) -> Run:
        train = np.concatenate([np.linspace(6.0, 2.31, 100), np.linspace(2.31, 2.31 - slope * 2.3, 100)])
        train += 0.01 * np.random.default_rng(0).standard_normal(200)
        return synthetic.run(steps=200, train=train, data={"entropy": {"target": 2.3}}, **synthetic.CLASSES)

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(0.015)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(0.007)
