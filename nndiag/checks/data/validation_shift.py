"""ND009 validation-shift."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nndiag import progress, structure, synthetic
from nndiag.check import VALIDATION_DATA, Check, Finding, Kind
from nndiag.run import Run


@dataclass(frozen=True)
class ValidationShift(Check):
    """Validation inputs are on another scale than training inputs, or their labels are other labels.

    Mostly one of the two was not standardised, was standardised twice, or with numbers of its own; or the split was made on
    sorted data, so that classes of one part are missing in the other. The validation loss then says nothing of the network.

    Decides on the median over features: the means lie more than `shift` training standard deviations apart, or the standard
    deviations more than `scale` times; or on the total variation distance between the class shares, above `labels` and above
    three times what drawing C classes n and m times makes of it by chance, 0.4 √((C − 1)(1/n + 1/m)). A training set drawn
    with repetitions (more than `copies` of its rows are copies) has other shares on purpose. Or a feature that never varies
    in training goes from its value in validation by more than `far` times the largest standard deviation; or the means of
    real targets lie more than `shift` apart. Means alone that lie apart, as of a series with a trend, are a remark where
    validation comes more than `learned` of its way all the same. Random splits of 50 samples stay below 0.3 in the first two;
    only from `samples` validation samples on. Where the validation set is not told, the inputs of passes without gradients
    stand for it if they differ so much; if not, they may have been the training set's.
    """

    code = "ND009"
    name = "validation-shift"
    kind = "generalisation"
    needs = ("evaluations.shift",)
    min_reads = 1
    advice = "Send both through the same preprocessing, with the training set's numbers, and split at random."
    confirm = "print(x.mean(axis=0), x_val.mean(axis=0), x.std(axis=0), x_val.std(axis=0))"
    passed = "validation is made of the same stuff as training"

    shift: float = 1.0
    scale: float = 2.5
    labels: float = 0.25
    copies: float = 0.05
    far: float = 20.0
    samples: int = 20
    learned: float = 0.5

    def not_checked(self, run: Run) -> str | None:
        if len(run.validation) and not len(run.series("evaluations", "shift", "validation")):
            return None if self._apart(run, "unknown") else VALIDATION_DATA
        if reason := super().not_checked(run):
            return reason
        seen = run.latest("evaluations", "samples", "validation") or 0.0
        return f"needs {self.samples} validation samples, has {seen:.0f}" if seen < self.samples else None

    def examine(self, run: Run) -> Iterator[Finding]:
        step = int(run.statistic("evaluations", "shift").index[-1])
        looks = (self._inputs, self._awakened, self._targets)
        if (finding := next((found for look in looks if (found := look(run, step)) is not None), None)) is not None:
            yield finding
        relabelled = run.latest("evaluations", "label_shift", "validation")
        if relabelled is not None and relabelled > self._labels_limit(run):
            fact = (
                f"{relabelled:.0%} of the validation labels would have to change to match the training labels' shares"
            )
            yield self._finding(fact, relabelled, self._labels_limit(run), step)

    def _inputs(self, run: Run, step: int) -> Finding | None:
        told = len(run.series("evaluations", "shift", "validation"))
        if (apart := self._apart(run, "validation" if told else "unknown")) is None:
            return None
        fact, value, limit = apart
        return self._finding(
            f"{'validation inputs' if told else 'inputs of passes without gradients'} {fact}", value, limit, step,
            kind="note" if limit == self.shift and self._borne(run) else None, place=self._place(run),
        )  # fmt: skip

    def _awakened(self, run: Run, step: int) -> Finding | None:
        away = run.latest("evaluations", "awakened", "validation") or 0.0
        if not away > self.far:
            return None
        return self._finding(
            f"a feature that has one value throughout training goes {away:.2g} times as far from it in validation as any other "
            f"varies", away, self.far, step,
            fix="Leave out features that do not vary in training: divided by a standard deviation of next to nothing they become "
            "anything later.",
        )  # fmt: skip

    def _targets(self, run: Run, step: int) -> Finding | None:
        """How many standard deviations the mean of real validation targets lies from that of the training targets."""
        mean, seen = run.latest("evaluations", "target_mean", "validation"), run.series("data", "mean", "target")
        variance = run.latest("data", "total_variance", "target")
        if run.meta.loss.get("task") != "real" or mean is None or not len(seen) or not variance:
            return None
        off = abs(mean - float(seen.mean())) / float(np.sqrt(variance))
        if not off > self.shift:
            return None
        return self._finding(
            f"the mean of the validation targets lies {off:.2g} standard deviations from that of the training targets", off,
            self.shift, step, kind="note" if self._borne(run) else None, place=self._place(run),
        )  # fmt: skip

    def _apart(self, run: Run, part: str) -> tuple[str, float, float] | None:
        """How the inputs of this part differ from those of training, with the number and its limit, if they do."""
        moved, scaled = (run.latest("evaluations", name, part) for name in ("shift", "scale"))
        if scaled is not None and not 1 / self.scale <= scaled <= self.scale:
            return f"vary {scaled:.2g} times as much as training inputs", scaled, self.scale
        if moved is not None and moved > self.shift:
            return f"lie {moved:.2g} standard deviations from training inputs", moved, self.shift
        return None

    def _borne(self, run: Run) -> bool:
        """Whether validation has come more than `learned` of its way all the same."""
        made = progress.validation(run)
        return made is not None and made.value > self.learned

    def _place(self, run: Run) -> str:
        """Training that comes to nothing has another cause than what it is validated on."""
        return "ND7" if progress.is_poor(run) else ""

    def _labels_limit(self, run: Run) -> float:
        samples, classes = (
            run.latest("evaluations", "samples", "validation") or 1.0,
            run.latest("data", "classes", "target") or 2.0,
        )
        if (run.latest("evaluations", "duplicates", "validation") or 0.0) > self.copies:
            return float("inf")
        chance = 0.4 * float(
            np.sqrt(max(classes - 1, 0.0) * (1 / samples + 1 / (structure.training_samples(run) or samples)))
        )
        return max(self.labels, 3 * chance)

    def _finding(self, fact: str, value: float, threshold: float, step: int, kind: Kind | None = None,
                 place: str = "", fix: str = "") -> Finding:  # fmt: skip
        return self.finding(fact, kind=kind, steps=(0, step), value=value, threshold=threshold, place=place, fix=fix)

    @classmethod
    def _run(cls, scale: float) -> Run:
        evaluations = {"shift": 0.1, "scale": scale, "label_shift": 0.1, "samples": 400.0}
        return synthetic.run(evaluations={name: {"validation": value} for name, value in evaluations.items()})

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(2.0)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(4.0)
