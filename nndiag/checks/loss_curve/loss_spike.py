"""ND603 loss-spike."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from nndiag import progress, signals, synthetic
from nndiag.check import Check, Finding
from nndiag.run import Run
from nndiag.statistics import Array


@dataclass(frozen=True)
class LossSpike(Check):
    """The training loss jumps far above what it was, for several steps.

    One update has thrown the weights off: a batch unlike the others, a gradient that nobody clipped, or a learning rate at
    the edge of what the curvature allows. Even where the loss comes back the run has lost time, and the next spike may be
    the one from which it does not (Chowdhery et al. 2022, section 5.1, restart before the batches in question).

    Decides on the loss over the median of the `near` reads before it, after the first `begin` reads: that rise is more
    than `z` standard deviations (robust, from the differences of neighbours) of the `window` reads before, and of the last
    `near`, more than every rise among those, and more than `jump` of the way from start to floor, on 3 reads in a row. A
    new record three times in a row is what the heavy tail of small batches does not give: of reads without order, once in a
    million. Early leaps, also those of a loss that had not yet come `begun` of its way, belong to ND501: a network that
    leaves its first plateau may stumble.
    """

    code = "ND603"
    name = "loss-spike"
    kind = "training"
    needs = ("losses.train",)
    min_reads = 50
    advice = "Clip gradients (Trainer(clip_norm=1.0)), lower the learning rate, and look at the batch of that step."
    confirm = "run.losses['train'].plot()"
    passed = "the training loss does not jump"

    z: float = 8.0
    jump: float = 0.05
    near: int = 20
    window: int = 100
    begin: int = 30
    begun: float = 0.2

    def not_checked(self, run: Run) -> str | None:
        return super().not_checked(run) or progress.no_measure(run)

    def examine(self, run: Run) -> Iterator[Finding]:
        trained, train = progress.training(run), run.train
        if trained is None or not trained.start > trained.floor:
            return
        usual, above = self._above(train, trained.start, trained.start - trained.floor)
        if (at := signals.onset(above)) is None:
            yield from self._unseen(train)
            return
        step, end = int(train.index[at]), at + int(np.argmin(np.append(above[at:], False)))
        peak = float(train.iloc[at:end].max())
        yield self.finding(
            f"the training loss jumps from {usual[at]:.3g} to {peak:.3g} at step {step}",
            steps=(step, train.index[end - 1]), value=(peak - usual[at]) / (trained.start - trained.floor),
            threshold=self.jump, causes=("ND501", "ND402", "a batch unlike the others"),
        )  # fmt: skip

    def _unseen(self, train: pd.Series[float]) -> Iterator[Finding]:
        """A remark where a spike would have to be long to be seen."""
        if (apart := int(np.median(np.diff(train.index)))) > 1:
            yield self.finding(
                f"of this long run one of {apart} losses is looked at: jumps of fewer than {signals.PATIENCE * apart} steps "
                "are not seen",
                kind="note", steps=train.index, value=float(apart), threshold=1.0,
            )  # fmt: skip

    def _above(self, train: pd.Series[float], start: float, way: float) -> tuple[Array, Array]:
        """Usual loss before each read, and whether it is far above that."""
        usual = train.shift(1).rolling(self.near, min_periods=1).median()
        rise = train - usual
        steps = train.diff().abs().shift(1)
        long = steps.rolling(self.window, min_periods=self.begin).median()
        lately = steps.shift(signals.PATIENCE).rolling(self.near, min_periods=1).median()  # a plateau before was quiet
        noise = 1.4826 / np.sqrt(2) * np.fmax(long, lately)
        limit = np.maximum(self.z * np.maximum(noise, 1e-3 * usual.abs()), self.jump * way)
        # The record is held to the reads before the jump began, so that a spike is not measured against itself.
        record = rise.shift(signals.PATIENCE).rolling(self.window, min_periods=1).max()
        above: Array = ((rise > limit) & (rise > record) & (usual < start - self.begun * way)).to_numpy()
        return usual.to_numpy(), above

    @classmethod
    def _run(cls, jump: float) -> Run:
        train = synthetic.decay(200, end=0.5, rate=15)
        train[120:126] += jump * 2.3
        return synthetic.run(steps=200, train=train, data={"entropy": {"target": 2.3}}, **synthetic.CLASSES)

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(0.035)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(0.09)
