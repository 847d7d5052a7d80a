"""ND109 metric-mismatch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from nndiag import progress, structure, synthetic
from nndiag.check import Check, Finding
from nndiag.losses import BINARY, CROSS_ENTROPIES, WEIGHTED
from nndiag.objective import Objective
from nndiag.run import Run

ENTROPIES = frozenset((*CROSS_ENTROPIES, *BINARY, "nllloss"))
"""Losses that are -log of the probability given to the label, in lower case, letters only."""


@dataclass(frozen=True)
class MetricMismatch(Check):
    """The accuracy does not follow the loss: it stands still while the loss falls.

    Then it measures something else: predictions and labels in different encodings, a threshold at ½ on logits, an exact
    comparison of real numbers. Decisions taken by it (early stopping, the best checkpoint) are taken blindly.

    Decides on every metric whose name says accuracy, over at least `evaluations` values: not one of them differs from the
    first, which lies below 1, while the loss beside it has lost `fall` of its first value or more. A network that learns
    moves some sample over the line within ten evaluations. Below 1 by no more than `few` it may stand still, unless as many
    are wrong as the rarer classes have, to `near`: then all are taken for the most common. For real targets an accuracy means
    nothing: a remark.

    Or on what both must have in common: a decision that is wrong gives the right class at most 1/2, and costs ln 2 or more.
    So an accuracy that comes with a validation loss, below 1 − loss / ln 2 by `margin`, at `times` evaluations and at the
    last, is none of the decisions of which that is the loss: a plain mean of a cross-entropy with labels, one for each sample.
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
    few: float = 0.02
    near: float = 0.005
    margin: float = 0.1
    times: int = 3

    def not_checked(self, run: Run) -> str | None:
        if reason := super().not_checked(run):
            return reason
        enough = [*structure.accuracies(run, self.evaluations), *self._bounded(run)]
        return None if enough else f"needs {self.evaluations} values of an accuracy"

    def examine(self, run: Run) -> Iterator[Finding]:
        short = {name: found for name, *both in self._bounded(run) if (found := self._short(name, *both))}
        yield from short.values()
        for name, values in structure.accuracies(run, self.evaluations):
            if name in short:
                continue
            losses = run.validation if "validation" in name and len(run.validation) else run.train
            early, late = (
                losses.iloc[: max(1, len(losses) // 10)].median(),
                losses.iloc[-max(1, len(losses) // 10) :].median(),
            )
            if (
                values.max() == values.min() < 1
                and self._left(run, values)
                and early > 0
                and late < (1 - self.fall) * early
            ):
                yield self.finding(
                    f"{name} is {values.iloc[0]:.3g} at every one of {len(values)} evaluations, while the loss falls from "
                    f"{early:.3g} to {late:.3g}",
                    kind="note" if run.meta.loss.get("task") == "real" else None,
                    steps=values.index, value=float(values.iloc[0]),
                    threshold=float(values.iloc[0]), causes=("ND306", "labels and outputs in different encodings"),
                )  # fmt: skip

    def _left(self, run: Run, values: pd.Series[float]) -> bool:
        """Whether more than a few decisions are wrong, or as many as where all are the most common class."""
        wrong, shares = 1 - float(values.iloc[0]), structure.class_shares(run)
        return wrong > self.few or (len(shares) > 0 and abs(wrong - (1 - shares.max())) < self.near)

    def _short(self, name: str, values: pd.Series[float], least: pd.Series[float]) -> Finding | None:
        """That an accuracy is lower than its loss allows, if it is."""
        short = values < least - self.margin
        if short.sum() < self.times or not short.iloc[-1]:
            return None
        return self.finding(
            f"{name} is {values.iloc[-1]:.3g}, and with the loss beside it at most {1 - least.iloc[-1]:.0%} of the decisions can "
            f"be wrong",
            steps=(values.index[short][0], values.index[-1]), value=float(values.iloc[-1]),
            threshold=float(least.iloc[-1]),
            causes=("a shape (N, 1) beside (N,)", "a count that is not that of the samples", "a threshold at 1/2 on logits"),
        )  # fmt: skip

    def _bounded(self, run: Run) -> Iterator[tuple[str, pd.Series[float], pd.Series[float]]]:
        """Accuracies of validation, `times` or more, each with the least that the loss of the same evaluation allows."""
        if not self._costs_ln_2(run):
            return
        for name, values in structure.accuracies(run, self.times):
            together = values[values.index.isin(run.validation.index)]
            if "balanced" not in name.lower() and len(together) >= self.times:
                losses = run.validation[together.index]
                if not name.startswith("validation"):  # it may be that of the training batches since the one before
                    losses = losses.combine(self._since(run.train, together.index), max)
                yield name, together, 1 - losses / math.log(2)

    def _since(self, train: pd.Series[float], steps: pd.Index[int]) -> pd.Series[float]:
        """The mean training loss up to each of `steps` from the one before."""
        return (
            train.groupby(steps[np.minimum(np.searchsorted(steps, train.index), len(steps) - 1)]).mean().reindex(steps)
        )

    def _costs_ln_2(self, run: Run) -> bool:
        """Whether the loss is a plain mean over samples to which each wrong decision adds ln 2 or more."""
        seen, loss = Objective(run), run.meta.loss
        one = seen.task == "classes" or (seen.task == "binary" and seen.width == 1)
        mean = seen.reduction in ("mean", "") and loss.get("scale", 1.0) == 1.0
        plain = mean and seen.integers and not loss.get("label_smoothing")
        weighted = any(loss.get(key) is not None for key in WEIGHTED)
        return one and plain and not weighted and progress.plain_name(run) in ENTROPIES and seen.one_each

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
