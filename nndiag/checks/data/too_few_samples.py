"""ND006 too-few-samples."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nndiag import progress, structure, synthetic
from nndiag.causes import DRAWN
from nndiag.check import Check, Finding
from nndiag.objective import Objective
from nndiag.run import Run

ONE_BATCH = "See whether the loop goes through its data: next(iter(loader)) within it gives the first batch each time."


@dataclass(frozen=True)
class TooFewSamples(Check):
    """There are only a handful of training samples.

    A network with thousands of weights learns them by heart whatever they are; what it does on others is left to chance.

    Decides on the size of the training set, the samples of the first epoch, or of the batch where every step has the same, and on
    how many of the first 512 samples that were looked at are different, where each came `again` times or more, as from a sampler
    that draws a few rows time and again; not where they are few by nature, as letters are, of which no feature is different in
    each. Fewer than `per_class` for each class, or than `per_class` for each output unit of a regression: ten of each is the
    least that most rules of thumb ask for a single coefficient (Harrell 2015, section 4.4). Where every step has the same batch
    of a larger set, its samples are all there are. It is a finding where validation
    shows the harm, ending `behind` of the way or more behind training, or where the few that are drawn are of one class; without
    validation, or with a good one, it is a remark: four rows are all of XOR.
    """

    code = "ND006"
    name = "too-few-samples"
    kind = "generalisation"
    needs = ("data.samples", "losses.epoch")
    min_reads = 1
    advice = "Collect or augment more samples, or use a model with a handful of parameters."
    confirm = "print(x.shape, np.unique(y, return_counts=True))"
    passed = "there are enough samples for their classes"

    per_class: int = 10
    behind: float = 0.1
    again: int = 8

    def not_checked(self, run: Run) -> str | None:
        if reason := super().not_checked(run):
            return reason
        known = structure.training_samples(run) or self._drawn(run)
        return None if known else "needs a whole epoch: begin_epoch() in a loop of your own"

    def examine(self, run: Run) -> Iterator[Finding]:
        seen, samples, drawn = Objective(run), structure.training_samples(run) or math.inf, self._drawn(run) or math.inf
        parts = max(1, seen.classes if seen.task in ("classes", "binary") else seen.width)
        if (least := min(samples, drawn)) < self.per_class * parts:
            steps = run.statistic("data", "samples").index
            one, many = ("class", "classes") if seen.task in ("classes", "binary") else ("output unit", "output units")
            again = not run.meta.samples and structure.has_one_batch(run)
            fact = f"every step has the same {least} samples" if again else f"the training set has {least} samples"
            if drawn < samples:
                again, fact = True, f"the same {least} different samples are drawn time and again"
                one = "class, and they are all of that" if seen.task in ("classes", "binary") and parts == 1 else one
            yield self.finding(
                f"{fact} for {parts} {one if parts == 1 else many}", kind=self.kind if self._harm(run) else "note",
                steps=steps, value=float(least),
                threshold=float(self.per_class * parts), fix=f"{ONE_BATCH} {self.advice}" if again else self.advice,
                place=DRAWN if drawn < samples else "",
            )  # fmt: skip

    def _drawn(self, run: Run) -> int | None:
        """How many different samples there are, where those that were looked at came time and again, or one batch does."""
        if run.meta.samples and structure.has_one_batch(run):
            batch = run.latest("outputs", "rows", "outputs") or run.meta.samples
            return int(batch) if batch < run.meta.samples else None
        looked, different = (run.latest("data", name, "input") for name in ("examined", "distinct"))
        if looked is None or different is None or not self.again * max(different, self.per_class) <= looked < math.inf:
            return None
        return int(different)

    def _harm(self, run: Run) -> bool:
        """Whether validation ends well behind training, in shares of the way from the trivial loss to the floor."""
        validation, train = progress.validation(run), run.train
        if run.latest("data", "classes", "target") == 1 and len(run.validation):
            return True
        if validation is None or validation.trivial is None or not len(train):
            return False
        span = validation.trivial - validation.floor
        trained = (validation.trivial - float(train.iloc[-5:].mean())) / span if span > 0 else 0.0
        return trained - validation.value > self.behind

    @classmethod
    def _run(cls, samples: int) -> Run:
        seen = {"input": samples * (1.0 + np.arange(40))}
        data: synthetic.Statistics = {"samples": seen, "classes": {"target": 3.0}, "entropy": {"target": 1.1}}
        return synthetic.run(
            steps=40, train=synthetic.decay(40, 1.1, 0.1), epoch=np.arange(40), data=data,
            validation={10 * i: 1.0 for i in range(1, 5)}, **synthetic.CLASSES,
        )  # fmt: skip

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(36)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(24)
