"""ND104 bounded-output."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nndiag import progress, structure, synthetic
from nndiag.check import Check, Finding
from nndiag.objective import ENDS, REACH, Objective
from nndiag.run import Run

SCALE = "Multiply the cosines by a scale, such as 10 to 30, or divide them by a temperature, before the loss."


@dataclass(frozen=True)
class BoundedOutput(Check):
    """Targets lie where the output layer cannot reach, a network without biases among them, or logits stay too close together.

    A sigmoid ends at 0 and 1, tanh at −1 and 1, a ReLU at 0. Targets beyond can never be hit: the outputs push against
    their bound, where the slope is next to nothing, and the error of those samples stays. So it does where logits end at −1
    and 1: of ten classes none ever gets more than 45 %. Cosines of normalised features and weights are such logits, unless
    they are scaled (Wang, Xiang, Cheng & Yuille 2017, section 3.3). A network none of whose layers has a bias is 0 where the
    input is, and with ReLU straight along each ray from there.

    Decides on real targets that lie more than `beyond` of their standard deviation outside what the head can put out: the
    range of its kind of layer, or, where the kind is not known, 0 and up for outputs that are never negative and exactly 0
    in one of twenty. A quarter of a standard deviation leaves room for rounding and scaling to the very bounds. Of logits,
    on a layer with bounds and values within them, or on such a layer before a softmax or sigmoid at the end: where the least
    that the loss can then be, the cross-entropy of one class at the upper bound and all others at the lower, is above `least`
    nats, a certainty of 95 %. Without biases: where the mean of real targets is `off` of their standard deviation or more away
    from 0, and the loss is above `share` of what a trivial prediction costs.
    """

    code = "ND104"
    name = "bounded-output"
    kind = "exact"
    needs = ("outputs.min", "outputs.max")
    min_reads = 1
    advice = "Leave the last layer linear for a regression, or scale the targets into its range."
    confirm = "print(y.min(), y.max(), model.forward(x[:8]))"
    passed = "the outputs can reach the targets"

    beyond: float = 0.25
    least: float = 0.05
    off: float = 0.5
    share: float = 0.5

    def not_checked(self, run: Run) -> str | None:
        if reason := super().not_checked(run):
            return reason
        seen = Objective(run)
        fits = seen.task == "real" or seen.expects == "logits" or seen.logits_layer is not None
        return None if fits else "needs a loss of task real, or one on logits"

    def examine(self, run: Run) -> Iterator[Finding]:
        seen = Objective(run)
        yield from self._targets(run, seen) if seen.task == "real" else self._logits(run, seen)

    def _logits(self, run: Run, seen: Objective) -> Iterator[Finding]:
        if seen.expects != "logits":
            yield from self._before_the_end(seen)
            return
        low, high = seen.reach or (-np.inf, np.inf)
        scaled = not low - 1e-3 <= seen.range[0] <= seen.range[1] <= high + 1e-3
        if scaled or seen.head in ("sigmoid", "hard_sigmoid", "softmax"):
            return  # those three are ND101's
        lowest = float(np.log1p(max(seen.width - 1, 1) * np.exp(low - high if seen.width > 1 else -high)))
        if lowest > self.least:
            first, last = seen.steps
            yield self.finding(
                f"the logits of {seen.loss} only go from {low:g} to {high:g} ({seen.head}): it cannot fall below {lowest:.2g}",
                layer=self._layer(seen), steps=(first, last), value=lowest, threshold=self.least,
                fix=SCALE if seen.head == "cosine" else
                f"Leave the last layer linear (drop its {seen.head}): {seen.loss} expects logits of any size.",
            )  # fmt: skip

    def _before_the_end(self, seen: Objective) -> Iterator[Finding]:
        """What is said of logits with bounds that a softmax or sigmoid at the end is taken of."""
        before = seen.logits_layer
        low, high = REACH.get(before.kind, (-np.inf, np.inf)) if before is not None else (-np.inf, np.inf)
        softmax = seen.head.endswith("softmax")
        lowest = float(np.log1p(max(seen.width - 1, 1) * np.exp(low - high) if softmax else np.exp(-high)))
        if before is not None and before.kind not in ENDS and lowest > self.least:  # those are ND101's
            first, last = seen.steps
            yield self.finding(
                f"the {seen.head} at the end gets logits from {low:g} to {high:g} only ({before.kind}): {seen.loss} cannot fall "
                f"below {lowest:.2g}",
                layer=before.name, steps=(first, last), value=lowest, threshold=self.least,
                fix=f"Drop the {before.kind} {before.name}: the {seen.head} wants logits of any size.",
            )  # fmt: skip

    def _targets(self, run: Run, seen: Objective) -> Iterator[Finding]:
        if (without := self._without_biases(run, seen)) is not None:
            yield without
        (low, high), reach = seen.target_range, seen.reach
        spread = np.sqrt(run.latest("data", "total_variance", "target") or 0.0) or max(abs(low), abs(high))
        if reach is None or not spread > 0:
            return
        over = max(reach[0] - low, high - reach[1]) / spread
        if over > self.beyond:
            first, last = seen.steps
            yield self.finding(
                f"targets go from {low:.3g} to {high:.3g}, the output layer ({seen.head}) only {_bounds(reach)}",
                layer=self._layer(seen), steps=(first, last), value=float(over), threshold=self.beyond,
                fix=f"Leave the last layer linear (drop its {seen.head}), or scale the targets to lie {_bounds(reach)}.",
            )  # fmt: skip

    def _without_biases(self, run: Run, seen: Objective) -> Finding | None:
        mean, variance = (run.latest("data", statistic, "target") for statistic in ("mean", "total_variance"))
        made = progress.training(run)
        if structure.has_biases(run) or mean is None or not variance or made is None or made.trivial is None:
            return None
        off = abs(mean) / float(np.sqrt(variance))
        if off < self.off or not made.now > made.floor + self.share * (made.trivial - made.floor):
            return None
        first, last = seen.steps
        return self.finding(
            f"no layer has a bias, so that an input of zero gives 0: targets have a mean of {mean:.3g}, and the loss stays at "
            f"{made.now:.3g}, where a trivial prediction costs {made.trivial:.3g}", kind="training",
            steps=(first, last), value=off, threshold=self.off,
            fix="Give the layers biases (bias=True, use_bias=True), the last one at least.",
        )  # fmt: skip

    def _layer(self, seen: Objective) -> str | None:
        return seen.head_layer.name if seen.head_layer is not None else None

    @classmethod
    def _run(cls, high: float) -> Run:
        layers = [{"name": "output", "kind": "affine"}, {"name": "output.sigmoid", "kind": "sigmoid"}]
        outputs: synthetic.Statistics = {"width": {"outputs": 1.0}, "min": {"outputs": 0.1, "targets": 0.0},
                                         "max": {"outputs": 0.9, "targets": high}}  # fmt: skip
        data = {"total_variance": {"target": 1.0}}
        return synthetic.run(outputs=outputs, data=data, layers=layers, loss={"name": "MSE", "task": "real"})

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(1.2)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(1.3)


def _bounds(reach: tuple[float, float]) -> str:
    return f"from {reach[0]:g} up" if np.isinf(reach[1]) else f"from {reach[0]:g} to {reach[1]:g}"
