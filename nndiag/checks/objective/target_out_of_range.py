"""ND110 target-out-of-range."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nndiag import progress, synthetic
from nndiag.check import Check, Finding
from nndiag.objective import Objective
from nndiag.run import Run

SIGNED = ("softmarginloss", "softmargin", "hingeloss", "hinge", "squaredhingeloss", "squaredhinge")
"""Losses log(1 + exp(-y z)) and max(0, 1 - y z), squared or not, of labels -1 and 1, in lower case, letters only."""


@dataclass(frozen=True)
class TargetOutOfRange(Check):
    """Targets are no probabilities, or no class ids, where the loss takes them for such; or they are among the inputs.

    Binary cross-entropy against a target of 2 has no minimum: the loss falls below zero for ever while the outputs run
    away. Class ids below 0, or with a fraction, pick a wrong entry or none. And an id that the loss is told to ignore, but
    which is one of the classes, keeps that class from being learned. A model of texts whose targets are its inputs, not
    those of the place that follows, has only to copy what it sees.

    Decides on every target seen: outside 0 … 1 by more than `tolerance` for a binary loss; for a loss over classes, rows with
    values outside 0 … 1, or single values that are negative (but for the id that the loss ignores, −100 by custom) or no
    whole numbers; for a soft margin or a hinge, labels of 0 and 1. Beside a single output unit the loss over classes is
    wrong, as ND105 says. The tolerance is rounding. An ignored class is a finding where samples were seen to have it and each
    input has one label: in texts, such an id stands for padding. Targets that are the ids that went in count where every
    layer keeps the places apart; an autoencoder of texts puts them together.
    """

    code = "ND110"
    name = "target-out-of-range"
    kind = "exact"
    needs = ("outputs.integer",)
    min_reads = 1
    advice = "Bring the targets into the form that the loss expects."
    confirm = "print(np.unique(y)[:20])"
    passed = "targets are what the loss takes them for"

    tolerance: float = 1e-6

    def not_checked(self, run: Run) -> str | None:
        if reason := super().not_checked(run):
            return reason
        known = Objective(run).task in ("classes", "binary") or self._signed(run)
        return None if known else self.needs_loss(run, "a loss over classes")

    def _signed(self, run: Run) -> bool:
        """Whether the loss wants labels −1 and 1."""
        return progress.plain_name(run) in SIGNED

    def examine(self, run: Run) -> Iterator[Finding]:
        seen = Objective(run)
        low, high = seen.target_range
        outside, ids = max(-low, high - 1), seen.task == "classes" and seen.target_width == 1 and seen.width != 1
        if (found := self._among_inputs(run, seen)) is not None:
            yield found
            return
        if self._signed(run):
            if not (seen.integers and low == 0 and high == 1):
                return
            outside = 1.0
            fact = f"targets are 0 and 1, and {seen.loss} wants -1 and 1: a target of 0 costs the same whatever is said"
            fix = "Give 2 * y - 1, or take BCEWithLogitsLoss for labels 0 and 1."
        elif (seen.task == "binary" or seen.target_width > 1) and outside > self.tolerance:
            fact = f"targets go from {low:.3g} to {high:.3g}, and {seen.loss} takes them for probabilities"
            fix = "Give labels 0 and 1; for real targets use a squared error, for more classes softmax cross-entropy."
        elif ids and low < 0 and low != self._ignored(run):
            fact, outside = f"there is a class id {low:.3g}", -low
            fix = "Number the classes from 0, or leave out samples without a label."
        elif ids and not seen.integers:
            fact = f"targets are real numbers, and {seen.loss} takes them for class ids"
            fix = (
                "Use a squared error; or, of classes that were scaled along with the inputs, give the ids as they were."
            )
        elif self._ignores_a_class(run):
            yield self._of_ignored(run, seen)
            return
        else:
            return
        first, last = seen.steps
        yield self.finding(fact, steps=(first, last), value=outside, threshold=self.tolerance,
                           causes=("ND105",), fix=fix)  # fmt: skip

    def _among_inputs(self, run: Run, seen: Objective) -> Finding | None:
        """What is said of targets that the model has before it."""
        if self._copies(run):
            return self._of_copies(seen)
        return self._of_ahead(seen) if run.meta.loss.get("looks_ahead") else None

    def _copies(self, run: Run) -> bool:
        """Whether the targets were seen to be what went in, of a model of which each layer puts out something at each place."""
        shapes = [layer.shape for layer in run.meta.layers if layer.shape and layer.kind != "embedding"]
        return bool(run.meta.loss.get("copies_input")) and all(len(shape) > 1 for shape in shapes)

    def _of_copies(self, seen: Objective) -> Finding:
        first, last = seen.steps
        return self.finding(
            "the targets are the inputs themselves, place by place: the model has only to copy what it sees", kind="training",
            steps=(first, last),
            fix="Shift them: inputs tokens[:, :-1] and targets tokens[:, 1:], or mask what is to be predicted.",
        )  # fmt: skip

    def _of_ahead(self, seen: Objective) -> Finding:
        first, last = seen.steps
        return self.finding(
            "each target is the input that comes next, and the model sees what comes next", kind="training",
            steps=(first, last), causes=("a causal mask left out", "a recurrent layer that reads both ways"),
            fix="Mask later places in every attention (is_causal=True, or a mask of -inf above the diagonal); recurrent layers "
            "read forwards alone.",
        )  # fmt: skip

    def _ignored(self, run: Run) -> float:
        """The id of samples that the loss leaves out: -100 by custom."""
        ignored = run.meta.loss.get("ignore_index")
        return float(ignored) if isinstance(ignored, int | float) else -100.0

    def _ignores_a_class(self, run: Run) -> bool:
        """Whether labels that the loss leaves out are those of a class: one for each input, where padding has many."""
        return bool(run.meta.loss.get("ignored")) and Objective(run).one_each

    def _of_ignored(self, run: Run, seen: Objective) -> Finding:
        ignored, share = run.meta.loss.get("ignore_index"), run.meta.loss.get("ignored", 0.0)
        first, last = seen.steps
        return self.finding(
            f"class {ignored} is never learned: {seen.loss} ignores id {ignored}, which {share:.0%} of the targets have",
            kind="training", steps=(first, last), value=share, threshold=0.0,
            fix=f"Leave ignore_index out: it is for padding, and {ignored} is a class here.",
        )  # fmt: skip

    @classmethod
    def _run(cls, high: float) -> Run:
        outputs: synthetic.Statistics = {"integer": {"targets": 0.0}, "width": {"outputs": 1.0, "targets": 1.0},
                                         "min": {"targets": 0.0}, "max": {"targets": high}}  # fmt: skip
        return synthetic.run(outputs=outputs, loss={"name": "BCEWithLogits", "task": "binary", "expects": "logits"})

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(1 + 8e-7)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(1 + 1.6e-6)
