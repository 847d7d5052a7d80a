"""ND011 target-leak."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nndiag import synthetic
from nndiag.check import Check, Finding
from nndiag.progress import latest
from nndiag.run import Run


@dataclass(frozen=True)
class TargetLeak(Check):
    """The target is among the inputs.

    A column with the answer was not taken out, or a window reaches into what is to be predicted. Training and validation both
    look excellent, and where the answer is not known yet the network is worth nothing (Kaufman et al. 2012, leakage).

    Decides on the first 512 samples: a straight line through one of several features, or through a number of the last step of
    a sequence, leaves less than `left` of the variance of a single target, which is what rounding leaves and no measurement
    does. Of sequences whose targets are whole numbers nothing is said: to recall one may be the task.
    """

    code = "ND011"
    name = "target-leak"
    kind = "generalisation"
    needs = ("data.leak_left",)
    min_reads = 1
    advice = (
        "Take the feature out of the inputs; of a time series, end the window before the value that is to be predicted."
    )
    confirm = "print(np.corrcoef(x[:, feature], y))"
    passed = "no single feature is the target"

    left: float = 1e-9

    def not_checked(self, run: Run) -> str | None:
        if reason := super().not_checked(run):
            return reason
        known = latest(run, "data", "leak_left", "target") is not None
        return None if known else "needs 32 samples of several features, and a single target for each"

    def examine(self, run: Run) -> Iterator[Finding]:
        left = latest(run, "data", "leak_left", "target")
        if left is not None and left < self.left:
            feature = latest(run, "data", "leak_feature", "target") or 0.0
            yield self.finding(
                f"feature {feature:.0f} (from 0) is the target, up to scale and shift: a straight line leaves {left:.1g} of "
                "its variance",
                first_step=int(run.data.index[0]), last_step=int(run.data.index[-1]), value=left, threshold=self.left,
                causes=("the column with the answer among the inputs", "a window that reaches into what is to be predicted"),
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
