"""ND306 output-collapse."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from nndiag import progress, signals, structure, synthetic
from nndiag.check import Check, Finding
from nndiag.run import Run


@dataclass(frozen=True)
class OutputCollapse(Check):
    """The network says the same class for everything.

    Its outputs have stopped depending on the inputs, or depend on them too little to change the answer: a large update
    threw the last layer off, the layers before it are dead or constant, or one class is so common that saying nothing else
    is the easy way out.

    Decides on the classes predicted and labelled in the batches of the last tenth of the reads, at least `window`, after
    the warm-up and over at least `samples` samples: more than `share` of the predictions are one class, while no class has
    more than `common` of the labels (a class so common may well be the best guess for most inputs), or, with training no
    better than a trivial prediction, more than `rare` of them.
    """

    code = "ND306"
    name = "output-collapse"
    kind = "training"
    needs = ("outputs.count", "data.count")
    min_reads = 50
    advice = "Lower the learning rate, look at the layers before the output, and weigh or resample rare classes."
    confirm = "run.outputs['count'].tail(50).sum().plot.bar(); run.data['count'].sum().plot.bar()"
    passed = "the network tells classes apart"

    share: float = 0.99
    common: float = 0.4
    rare: float = 0.9
    window: int = 20
    samples: int = 100

    def not_checked(self, run: Run) -> str | None:
        if reason := super().not_checked(run):
            return reason
        broken = run.series("outputs", "nonfinite", "outputs") > 0
        if broken.mean() > 0.5:
            return "most outputs are not finite, and NaN names no class: ND801 says so"
        if self._counts(run, "outputs", "predicted ").shape[1] < 2 or self._counts(run, "data", "label ").empty:
            return "needs the counts of predicted classes and of labels"
        width = run.latest("outputs", "width", "outputs")
        if width == 1 and self._counts(run, "data", "label ").shape[1] > 2:
            return "a single output names two classes, and there are more labels: they are numbers, such as counts"
        seen = float(np.nansum(self._late(self._counts(run, "outputs", "predicted ")).to_numpy()))
        return None if seen >= self.samples else f"needs {self.samples} predictions, has {seen:.0f}"

    def examine(self, run: Run) -> Iterator[Finding]:
        predicted, labels = self._counts(run, "outputs", "predicted "), self._counts(run, "data", "label ")
        late = self._late(predicted)
        share, label = _top(late), _top(labels[labels.index >= late.index[0]])
        limit = self.rare if progress.is_poor(run) else self.common
        if not share > self.share or not label <= limit:
            return
        name = str(late.sum().idxmax())
        each = (predicted[name] / predicted.sum(axis=1)).rolling(5, min_periods=1).mean()
        at = signals.lasting_onset((each > self.share).to_numpy())
        yield self.finding(
            f"class {name.removeprefix('predicted ')} is predicted for {share:.1%} of the inputs; of the labels the most "
            f"common has {label:.0%}",
            layer=next(reversed(structure.linear(run)), None),
            steps=(late.index[0] if at is None else predicted.index[at], late.index[-1]), value=share, threshold=self.share,
            causes=("ND501", "ND102", "ND301", "ND005", "a last layer thrown off by a large update"),
        )  # fmt: skip

    def _counts(self, run: Run, frame: str, begins: str) -> pd.DataFrame:
        counts = run.statistic(frame, "count")
        if frame == "outputs" and len(broken := run.series("outputs", "nonfinite", "outputs")):
            counts = counts[~(broken.reindex(counts.index) > 0)]  # NaN names no class
        return counts[[name for name in counts if str(name).startswith(begins)]].fillna(0.0)

    def _late(self, counts: pd.DataFrame) -> pd.DataFrame:
        begin = max(signals.warm_up(len(counts)), len(counts) - max(self.window, len(counts) // 10))
        return counts.iloc[begin:]

    @classmethod
    def _run(cls, share: float) -> Run:
        predicted = {"predicted 0": 320 * share, "predicted 1": 320 * (1 - share), "predicted 2": 0.0}
        labels = dict.fromkeys(("label 0", "label 1", "label 2"), 32.0)
        return synthetic.run(outputs={"count": predicted}, data={"count": labels})

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(0.985)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(0.993)


def _top(counts: pd.DataFrame) -> float:
    """Share of the most frequent class in all rows together; NaN without any."""
    sums = counts.to_numpy().sum(axis=0)
    return float(sums.max() / sums.sum()) if sums.sum() > 0 else np.nan
