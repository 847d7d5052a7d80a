"""ND105 loss-task-mismatch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nndiag import progress, synthetic
from nndiag.causes import SUGGESTED
from nndiag.check import Check, Finding, Kind
from nndiag.objective import LEARNED, Objective
from nndiag.run import Run

Seen = tuple[str, str, bool]
"""What is wrong, what to do, and whether values prove it (exact) rather than suggest it."""


@dataclass(frozen=True)
class LossTaskMismatch(Check):
    """The loss does not fit what it is fed with: outputs that are no probabilities, targets of another kind of task.

    Nothing raises an error, since all of them are numbers; the minimum of the loss is just not where the answer is.

    Decides on values, never on names of layers. Proven by them (exact): a loss on probabilities is fed with values outside 0
    … 1, one on their logarithms with values above 0, by more than `tolerance`, on `often` of the reads or more; a softmax, or
    a softmax loss, against rows with several labels or none; a loss over classes on a single unit, which is the same whatever
    comes out; a binary loss that compares (N, C) outputs with (N,) targets; an error in percent of targets that reach 0; the
    squared or absolute error of C probabilities, each beside the id of the class. Suggested (training): an error in percent
    that ends above `given_up` of what it is to predict 0 everywhere, and falls no longer; the binary loss of each of C
    outputs that a softmax makes, against rows with a single label; outputs for one of C classes that do not sum to 1, off by
    `sums` or more in the median, since nothing then holds the wrong classes down (a remark where the loss divides them by
    their sum and training has come `learned` of the way, and then values above 1 prove nothing); squared or absolute error on
    class ids, three or more of about equal frequency (`even` of the largest entropy), numbered from 0 without a gap, as if
    class 2 lay between 1 and 3; outputs of a function that is never below 0 where the loss takes them for logarithms of
    rates, none of which can then be below 1, as some targets are. Squared or absolute error on an output for each class, or
    on 0/1 labels, is the Brier score's relative: it trains, if slowly, and is a remark where training has come `learned` of
    the way, with a single output half of it.
    """

    code = "ND105"
    name = "loss-task-mismatch"
    kind = "exact"
    needs = ("outputs.width", "outputs.integer")
    min_reads = 1
    advice = (
        "Softmax cross-entropy for one of C classes, binary cross-entropy for labels, squared error for real targets."
    )
    confirm = "print(model.forward(x[:4]), y[:4])"
    passed = "outputs, targets and loss belong together"

    tolerance: float = 1e-3
    often: float = 0.25
    sums: float = 0.02
    even: float = 0.8
    given_up: float = 0.9
    learned: float = 0.9

    def not_checked(self, run: Run) -> str | None:
        seen = Objective(run)
        told = (rule(seen) for rule in (self._unbounded, self._rates))
        if not seen.task and len(seen.of("width")) and any(told):
            return None  # whatever the task is, as of a loss on sequences
        if reason := super().not_checked(run):
            return reason
        return None if seen.task else self.needs_loss(run, "to know the task of the loss")

    def examine(self, run: Run) -> Iterator[Finding]:
        seen = Objective(run)
        rules = (self._shapes, self._percentages, self._rates, self._single_unit, self._unbounded, self._several_labels,
                 self._sums_of_rows, self._one_of_many, self._ids, self._ids_for_each, self._labels)  # fmt: skip
        found = next((fact for rule in rules if (fact := rule(seen)) is not None), None)
        if found is not None:
            first, last = seen.steps
            message, fix, proven = found
            mild = self._remark(seen) or seen.normalizes or seen.task == "binary"
            kind: Kind = "exact" if proven else ("note" if mild and self._trained(run) else "training")
            late = SUGGESTED if not proven and seen.task == "real" and (seen.learned or self._remark(seen)) else ""
            yield self.finding(message, kind=kind, steps=(first, last), fix=fix, place=late)

    def _shapes(self, seen: Objective) -> Seen | None:
        if seen.task == "binary" and seen.width > 1 and seen.target_width == 1:
            return (f"{seen.loss} compares outputs of {seen.width} units with single labels",
                    "Use softmax cross-entropy on class ids, or a single unit.", True)  # fmt: skip
        return None

    def _percentages(self, seen: Objective) -> Seen | None:
        low, high = seen.target_range
        name = progress.plain_name(seen.run)
        if not ("percentage" in name or name in ("mape", "smape")):
            return None
        what = f"{seen.loss} divides by the targets, which go from {low:.3g} to {high:.3g}"
        fix = "Use the squared or absolute error, or leave out targets of 0."
        if low <= 0 <= high:
            return f"{what}: those near 0 drown the rest", fix, True
        loss, made = seen.run.meta.loss, progress.training(seen.run)
        read = "torch" in seen.run.meta.versions and seen.reduction == "mean"  # from a graph, which says the scale, too
        nothing = loss.get("scale", 1.0 if read else None)  # what predicting 0 everywhere costs
        falls = name == "smape" or progress.unfinished(seen.run) is not None
        if nothing is None or made is None or falls or not made.now > self.given_up * nothing:
            return None
        return f"{what}: training ends at {made.now:.3g}, and predicting 0 everywhere costs {nothing:.3g}", fix, False

    def _rates(self, seen: Objective) -> Seen | None:
        low = seen.target_range[0]
        if not seen.run.meta.loss.get("log_rates") or seen.reach is None or seen.reach[0] < 0 or low >= 1:
            return None
        return (f"{seen.loss} takes outputs for logarithms of rates, and they come out of a function ({seen.head}) that is never "
                "below 0: no rate below 1 can be said",
                "Use log_input=False where the outputs are the rates, or leave the last function out.", False)  # fmt: skip

    def _single_unit(self, seen: Objective) -> Seen | None:
        if seen.task == "classes" and seen.width == 1 and seen.classes <= 2:
            return (f"{seen.loss} is a loss over classes, and there is a single output unit: it costs the same whatever it says",
                    "Use binary cross-entropy with one unit, or two units.", True)  # fmt: skip
        return None

    def _unbounded(self, seen: Objective) -> Seen | None:
        if seen.expects not in ("probabilities", "log_probabilities"):
            return None
        logarithms = seen.expects == "log_probabilities"
        lows, highs = seen.together("min", "max")
        above = lows * 0 if seen.normalizes else highs - 1
        outside = (highs if logarithms else np.maximum(-lows, above)) > self.tolerance
        if not len(outside) or outside.mean() < self.often:
            return None
        return self._no_logarithms(seen) if logarithms else self._no_probabilities(seen)

    def _no_probabilities(self, seen: Objective) -> Seen:
        head = "a sigmoid" if seen.task == "binary" else "a softmax"
        low, high = seen.range
        return (f"{seen.loss} expects probabilities and is fed with outputs from {low:.3g} to {high:.3g}",
                f"Put {head} behind the last layer, or use the loss on logits.", True)  # fmt: skip

    def _no_logarithms(self, seen: Objective) -> Seen:
        low, high = seen.range
        if seen.rows_sum_to_one:
            return (f"{seen.loss} expects the logarithms of probabilities and is fed with the probabilities themselves",
                    "Put a log-softmax in place of the softmax.", True)  # fmt: skip
        return (f"{seen.loss} expects the logarithms of probabilities and is fed with outputs from {low:.3g} to {high:.3g}",
                "Put a log-softmax behind the last layer, or use the loss on logits.", True)  # fmt: skip

    def _several_labels(self, seen: Objective) -> Seen | None:
        if seen.multi_hot and (seen.task == "classes" or seen.rows_sum_to_one):
            return ("targets are rows with several labels or none, and the outputs share a total of 1",
                    "Use a sigmoid for each label, with binary cross-entropy (BCEWithLogits).", True)  # fmt: skip
        return None

    def _sums_of_rows(self, seen: Objective) -> Seen | None:
        low, high = seen.together("row_sum_min", "row_sum_max")
        if seen.task != "classes" or seen.expects != "probabilities" or seen.width < 2 or not seen.within_unit:
            return None
        off = float(np.median(np.maximum(high - 1, 1 - low))) if len(low) >= 3 else 0.0
        if off < self.sums:
            return None
        return (f"outputs for one of {seen.width} classes sum to between {low.min():.2g} and {high.max():.2g} instead of 1",
                "Put a softmax behind the last layer in place of the sigmoid.", False)  # fmt: skip

    def _one_of_many(self, seen: Objective) -> Seen | None:
        if seen.task != "binary" or seen.width < 3 or not (seen.one_hot and seen.rows_sum_to_one):
            return None
        return (f"{seen.loss} takes {seen.width} outputs that share 1 for as many yes-or-no questions, and each target has "
                "a single yes: the value, and an accuracy by halves, look good while nothing is known",
                "Use categorical (softmax) cross-entropy.", False)  # fmt: skip

    def _ids_for_each(self, seen: Objective) -> Seen | None:
        gapless = seen.ids and seen.classes >= 3 and seen.target_range == (0.0, seen.classes - 1.0)
        if not (seen.run.meta.loss.get("ids_for_each") and gapless):
            return None
        return (f"{seen.loss} compares each of {seen.width} probabilities with the id of the class, from 0 to {seen.classes - 1}",
                "Use softmax cross-entropy on the ids, or rows with a single 1 for targets.", True)  # fmt: skip

    def _ids(self, seen: Objective) -> Seen | None:
        if seen.task != "real" or not seen.ids or seen.width != 1 or seen.classes < 3:
            return None
        entropy = seen.run.latest("data", "entropy", "target") or 0.0
        gapless = seen.target_range == (0.0, seen.classes - 1.0)
        if not gapless or not entropy >= self.even * np.log(seen.classes):
            return None
        return (f"{seen.loss} takes ids of {seen.classes} classes for amounts, as if class 2 lay between 1 and 3",
                f"Use {seen.classes} output units and softmax cross-entropy.", False)  # fmt: skip

    def _labels(self, seen: Objective) -> Seen | None:
        if seen.task != "real" or not self._remark(seen):
            return None
        what = f"{seen.width} outputs for as many classes" if seen.width > 1 else "0/1 labels"
        return (f"{seen.loss} on {what}: it trains, slower than cross-entropy, whose gradient does not fade with confidence",
                f"Use {'softmax' if seen.width > 1 else 'binary'} cross-entropy.", False)  # fmt: skip

    def _trained(self, run: Run) -> bool:
        made = progress.training(run)
        limit = self.learned if Objective(run).width > 1 else LEARNED
        return made is not None and made.trivial is not None and made.value > limit

    def _remark(self, seen: Objective) -> bool:
        """Whether targets are labels for which squared error works, if slowly; beside a policy gradient they are returns."""
        if seen.run.meta.loss.get("signed_weights"):
            return False
        classes = seen.ids and seen.target_range == (0.0, seen.classes - 1.0)
        per_class = seen.one_hot or (classes and seen.width == seen.classes > 2)
        return seen.task == "real" and (per_class or (classes and seen.width == 1 and seen.classes == 2))

    @classmethod
    def _run(cls, high: float) -> Run:
        outputs: synthetic.Statistics = {
            "width": {"outputs": 3.0, "targets": 1.0}, "integer": {"targets": 1.0}, "min": {"outputs": 0.1, "targets": 0.0},
            "max": {"outputs": high, "targets": 2.0}, "row_sum_min": {"outputs": 1.0}, "row_sum_max": {"outputs": 1.0},
        }  # fmt: skip
        return synthetic.run(
            outputs=outputs, loss={"name": "CrossEntropy", "task": "classes", "expects": "probabilities"}
        )

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(1.0007)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(1.0015)
