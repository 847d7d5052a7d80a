"""ND011 target-leak."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nndiag import synthetic
from nndiag.check import Check, Finding
from nndiag.run import Run
from nndiag.samples import NOTHING_LEFT

NEEDED = "needs 32 different samples of several features, and a single target for each"
"""Why nothing is said of inputs that were looked at."""


@dataclass(frozen=True)
class TargetLeak(Check):
    """The target is among the inputs.

    A column with the answer was not taken out, or a window reaches into what is to be predicted. Training and validation both
    look excellent, and where the answer is not known yet the network is worth nothing (Kaufman et al. 2012, leakage).

    Decides on the first samples, up to 512 and 32 different ones at least: a straight line through one of several features that
    vary, or through a number of the last step of a sequence, leaves less than `left` of the variance of a single target, which
    is what the rounding of single precision leaves and no measurement does. Not where several features do, as of a straight
    ramp; of sequences whose targets are whole numbers, or that go into a convolution first, nothing is said. Of more than 1,024
    features evenly spaced ones are looked at (`nndiag.samples`).
    """

    code = "ND011"
    name = "target-leak"
    kind = "generalisation"
    needs = ("data.leak_left",)
    min_reads = 1
    advice = (
        "Take the feature out of the inputs; of a time series, end the window before the value that is to be predicted."
    )
    confirm = "print(np.corrcoef(x.T, y)[-1])"
    passed = "no single feature that was looked at is the target"

    left: float = NOTHING_LEFT

    def not_checked(self, run: Run) -> str | None:
        if len(run.data) and run.latest("data", "leak_left", "target") is None:
            return NEEDED
        if reason := super().not_checked(run):
            return reason
        if self._steps(run) and run.meta.layers and run.meta.layers[0].kind == "convolution":
            return "the network begins with a convolution, of whose inputs it is not known where the last step is"
        return None

    def _steps(self, run: Run) -> int:
        """Steps of the sequences that samples are; 0 where they are rows of a table."""
        steps = run.latest("data", "leak_steps", "target")
        return int(steps) if steps is not None and np.isfinite(steps) else 0

    def examine(self, run: Run) -> Iterator[Finding]:
        left = run.latest("data", "leak_left", "target")
        if left is not None and left < self.left:
            feature, steps = run.latest("data", "leak_feature", "target") or 0.0, self._steps(run)
            which, column = (
                (f" of the last of {steps} steps", f"x[:, -1, {feature:.0f}]")
                if steps
                else ("", f"x[:, {feature:.0f}]")
            )
            yield self.finding(
                f"feature {feature:.0f} (from 0){which} is the target, up to scale and shift: a straight line leaves {left:.1g} "
                "of its variance",
                steps=run.data.index, value=left, threshold=self.left,
                causes=("the column with the answer among the inputs", "a window that reaches into what is to be predicted"),
                confirm=f"print(np.corrcoef({column}, y))",
            )  # fmt: skip

    @classmethod
    def _run(cls, left: float) -> Run:
        data: synthetic.Statistics = {"leak_left": {"target": left}, "leak_feature": {"target": 3.0}}
        return synthetic.run(train=synthetic.decay(), data=data)

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(1.5e-9)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(7e-10)
