"""ND109 metric-mismatch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from nndiag import synthetic
from nndiag.check import Check, Finding
from nndiag.run import Run


@dataclass(frozen=True)
class MetricMismatch(Check):
    """The accuracy does not follow the loss: it stands still while the loss falls.

    Then it measures something else: predictions and labels in different encodings, a threshold at ½ on logits, an exact
    comparison of real numbers. Decisions taken by it (early stopping, the best checkpoint) are taken blindly.

    Decides on every metric whose name says accuracy, over at least `evaluations` values: not one of them differs from the
    first, which lies below 1, while the loss beside it has lost `fall` of its first value or more. A network that learns
    moves some sample over the line within ten evaluations. For real targets an accuracy means nothing: a remark.
    """

    code = "ND109"
    name = "metric-mismatch"
    kind = "training"
    needs = ("losses.train",)
    min_reads = 20
    advice = "Compare like with like: outputs.argmax(axis=1) == ids, or (logits > 0) == labels."
    confirm = "print(outputs[:8], y[:8])"
    passed = "the accuracy follows the loss"

    evaluations: int = 10
    fall: float = 0.2

    def not_checked(self, run: Run) -> str | None:
        if reason := super().not_checked(run):
            return reason
        return None if list(self._accuracies(run)) else f"needs {self.evaluations} values of an accuracy"

    def examine(self, run: Run) -> Iterator[Finding]:
        for name, values in self._accuracies(run):
            losses = run.validation if "validation" in name and len(run.validation) else run.train
            early, late = (
                losses.iloc[: max(1, len(losses) // 10)].median(),
                losses.iloc[-max(1, len(losses) // 10) :].median(),
            )
            if values.max() == values.min() < 1 and early > 0 and late < (1 - self.fall) * early:
                yield self.finding(
                    f"{name} is {values.iloc[0]:.3g} at every one of {len(values)} evaluations, while the loss falls from "
                    f"{early:.3g} to {late:.3g}",
                    kind="note" if run.meta.loss.get("task") == "real" else None,
                    first_step=int(values.index[0]), last_step=int(values.index[-1]), value=float(values.iloc[0]),
                    threshold=float(values.iloc[0]), causes=("ND306", "labels and outputs in different encodings"),
                )  # fmt: skip

    def _accuracies(self, run: Run) -> Iterator[tuple[str, pd.Series[float]]]:
        for column in run.metrics.columns.to_list():
            metric, split = column[0], column[1]
            if str(metric).lower() == "acc" or "accuracy" in str(metric).lower():
                values = run.metrics[metric, split].dropna()
                if len(values) >= self.evaluations:
                    yield f"{split} {metric}", values

    @classmethod
    def _run(cls, end: float) -> Run:
        return synthetic.run(
            train=synthetic.decay(start=2.0, end=end, noise=0.0), metrics={"accuracy": {"validation": 0.1}}
        )

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(1.75)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(1.3)
