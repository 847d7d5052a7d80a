"""ND102 constant-output."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nndiag import structure, synthetic
from nndiag.causes import ALIKE
from nndiag.check import Check, Finding
from nndiag.objective import Objective
from nndiag.run import Run


@dataclass(frozen=True)
class ConstantOutput(Check):
    """The network says the same whatever goes in.

    A softmax over a single unit is 1 by definition, a classic of binary classifiers: there is no gradient and nothing
    is learned. Any other output that has not depended on the input since the first step has the same effect; then the
    cause lies further in (dead units, vanishing signal), and this is listed as its consequence.

    Decides on the variance of the outputs over the inputs of a batch: on every read, at least `min_reads`, below `ratio`
    times the variance of the targets (for classes, that of 0/1 indicators of as many classes). 1e-6 in variance is a
    thousandth in size, far below any trained or freshly initialised head but a zero one, which leaves zero with the
    first update. Where the layer before the last one varies with the inputs on all reads, by `alive` or more and as much of its
    variance, and has a gradient, something between the two makes all samples alike, and goes before what it brings about. Where
    the outputs are not recorded, on the last layer: it puts out 1 and nothing else on every read.
    """

    code = "ND102"
    name = "constant-output"
    kind = "exact"
    needs = ("outputs.batch_variance",)
    min_reads = 3
    advice = (
        "With one output unit use a sigmoid (or none, with a loss on logits); else follow the first constant layer."
    )
    confirm = "print(model.forward(x[:8]))"
    passed = "the outputs depend on the inputs"

    ratio: float = 1e-6
    samples: int = 2
    alive: float = 1e-3

    def not_checked(self, run: Run) -> str | None:
        rows = run.series("outputs", "rows", "outputs")
        if self._one_from(run):
            return None
        if len(rows) and rows.max() < self.samples and not self._always_one(run):
            return f"needs batches of {self.samples} samples or more to see a variance over inputs"
        if Objective(run).classes == 1:
            return "every target is the same, and so is the right output"
        return super().not_checked(run)

    def examine(self, run: Run) -> Iterator[Finding]:
        variance = run.series("outputs", "batch_variance", "outputs")
        scale = self._target_variance(run)
        if layer := self._one_from(run):
            steps = run.statistic("activations", "mean").index
            yield self.finding(
                f"{layer}, the last layer, puts out 1 and nothing else on all {len(steps)} reads: a softmax over a single unit "
                "is always 1",
                layer=layer, steps=steps, value=0.0, threshold=0.0, fix=self.advice,
                place="ND1",
            )  # fmt: skip
        if not len(variance) or variance.max() >= self.ratio * scale:
            return
        single, ones = self._single(run), self._always_one(run)
        before = "" if single or ones else self._alive_before(run)
        why = "a softmax over a single unit is always 1" if ones else "they do not depend on the inputs"
        why += f", though what {before} puts out does" if before else ""
        yield self.finding(
            f"the outputs have a variance of {variance.max():.2g} over the inputs on all {len(variance)} reads: {why}",
            steps=variance.index,
            value=float(variance.max()),
            threshold=self.ratio * scale,
            fix=self.advice if single or ones else self._look(before),
            place="ND1" if ones else ALIKE if before else "",
        )

    def _look(self, before: str) -> str:
        """Where to look, with a layer `before` the last one that does depend on the inputs or without."""
        if before:
            return f"Look at what becomes of the output of {before}: a mean over the batch makes all samples alike."
        return "Follow run.activations['batch_variance'] to the first layer where it vanishes."

    def _alive_before(self, run: Run) -> str:
        """The layer before the last one with weights, if it depends on the inputs on all reads, and has a gradient; else ""."""
        layers, linear = structure.recorded(run, "batch_variance"), structure.linear(run, "batch_variance")
        last = layers.index(linear[-1]) if linear else 0
        if not last:
            return ""
        within, whole = (
            run.statistic("activations", name)[layers[last - 1]] for name in ("batch_variance", "variance")
        )
        delta = run.statistic("activations", "gradient_rms")
        lives = len(within) >= self.min_reads and bool((within > self.alive * np.maximum(whole, 1.0)).all())
        return layers[last - 1] if lives and layers[last - 1] in delta and (delta[layers[last - 1]] > 0).all() else ""

    def _one_from(self, run: Run) -> str:
        """The last layer, where it puts out 1 alone and no outputs are recorded."""
        layers = structure.recorded(run, "variance")
        if len(run.series("outputs", "batch_variance", "outputs")) or not layers:
            return ""
        mean, variance = (run.statistic("activations", name)[layers[-1]].dropna() for name in ("mean", "variance"))
        return layers[-1] if len(mean) >= self.min_reads and (mean == 1).all() and (variance == 0).all() else ""

    def _single(self, run: Run) -> bool:
        return bool(np.all(run.series("outputs", "width", "outputs") == 1))

    def _always_one(self, run: Run) -> bool:
        """Whether all is 1 on every one of at least `min_reads` reads, as a softmax over a single unit or channel makes it."""
        low, high = run.series("outputs", "min", "outputs"), run.series("outputs", "max", "outputs")
        return len(low) >= self.min_reads and bool((low == 1).all() and (high == 1).all())

    def _target_variance(self, run: Run) -> float:
        if run.meta.loss.get("task") == "real":
            variance = run.series("data", "total_variance", "target")
            return float(variance.iloc[-1]) if len(variance) and variance.iloc[-1] > 0 else 1.0
        width = run.series("outputs", "width", "outputs")
        classes = max(2.0, float(width.max())) if len(width) else 2.0
        return (1 / classes) * (1 - 1 / classes)

    @classmethod
    def _run(cls, variance: float) -> Run:
        outputs = {"batch_variance": variance, "width": 2, "rows": 64, "min": 0.0, "max": 1.0}
        return synthetic.run(outputs={name: {"outputs": value} for name, value in outputs.items()}, **synthetic.CLASSES)

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(4e-7)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(1.5e-7)
