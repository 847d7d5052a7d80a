"""ND005 class-imbalance."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from nndiag import progress, structure, synthetic
from nndiag.check import Check, Finding, Kind
from nndiag.checks.generalization.no_generalization import NoGeneralization
from nndiag.run import Run


@dataclass(frozen=True)
class ClassImbalance(Check):
    """Hardly any samples of a class, and the network never names it; or all samples are of one class.

    Always saying the frequent class is then nearly right, and that is what is learned: the loss falls, the accuracy looks
    fine, and the class that mattered is missed (Japkowicz & Stephen 2002).

    Decides on the labels of all batches: a single class among `samples` samples or more; or an entropy below `even` of that
    of equal classes, and in the last quarter of the reads a class with `seen` samples or more of which not one was named. An
    imbalance that weights or sampling make up for is sound: then the class is named. Rare events by nature, of which none may
    ever be more likely than not, are a remark where the loss beats a trivial prediction, unless the run is judged by an
    accuracy that stands, within `still` over `evaluations` of them, at the share of the most common class, to `near`; and a
    network that learns nothing at all names no class for another reason, which goes first. Or an entropy below `uneven`, and
    a validation loss that is never below what the shares of the training labels alone would cost (as ND707 decides), though
    the training loss is, or has settled there with an entropy below `even`: the rare classes were learned by heart, or
    validation has them more often. Where the shares of the validation labels are known and within `shift` of these, it is
    neither. Or the loss weighs classes, of which one has `times` the samples of another or more, and weights rise with the
    number of samples, as a power above `power` of it: against an imbalance they fall, as its power of -1.
    """

    code = "ND005"
    name = "class-imbalance"
    kind = "training"
    needs = ("data.entropy",)
    min_reads = 1
    advice = "Weight the loss by 1 / frequency, or draw the rare class more often; and judge by recall, not accuracy."
    confirm = "print(np.unique(y, return_counts=True))"
    passed = "every class is seen and named"

    even: float = 0.3
    uneven: float = 0.5
    shift: float = 0.1
    samples: int = 20
    evaluations: int = 10
    still: float = 0.005
    near: float = 0.02
    seen: int = 5
    times: float = 3.0
    power: float = 0.25

    def not_checked(self, run: Run) -> str | None:
        if reason := super().not_checked(run):
            return reason
        if run.meta.loss.get("task") not in ("classes", "binary"):
            return self.needs_loss(run, "a loss over classes")
        if run.meta.loss.get("adversarial"):
            return "the labels of a network that is trained against another say only which samples are made up"
        seen = run.latest("data", "samples", "input")
        return (
            f"needs {self.samples} samples, has seen {seen:.0f}" if seen is not None and seen < self.samples else None
        )

    def examine(self, run: Run) -> Iterator[Finding]:
        if (upside_down := self._upside_down(run)) is not None:
            yield upside_down
            return
        classes, entropy = run.latest("data", "classes", "target"), run.latest("data", "entropy", "target")
        width = run.latest("data", "width", "target") or 1.0
        if classes == 1 and width == 1:
            fix = "Look at where labels are made: a comparison that is never true, an encoding, a filter, a part of sorted data."
            yield self._finding(run, "every label is the same: there is nothing to tell apart", 0.0, fix=fix)
        elif classes is not None and classes > 1 and entropy is not None and width == 1:
            share = entropy / np.log(classes)
            missed = self._missed(run) if share < self.even else []
            if missed:
                names = ", ".join(label.removeprefix("label ") for label in missed)
                fact = (
                    f"class {names} is rare (labels have {share:.0%} of the entropy of equal classes) and never named"
                )
                poor = not progress.beats_guess(run)  # then what keeps it from learning goes first
                if fooled := self._fooled(run):
                    fact += f"; {fooled} is what always saying the most common class has"
                yield self._finding(run, fact, share, "training" if poor or fooled else "note", "ND306" if poor else "")
            elif share < self.uneven and self._carries_nothing_over(run, share):
                fact = (
                    f"labels have {share:.0%} of the entropy of equal classes, and what is learned of them does not carry over: "
                    f"validation is at {run.validation.min():.3g} at best, and always giving their shares costs {entropy:.3g}"
                )
                yield self._finding(run, fact, share, "generalisation", limit=self.uneven)

    def _upside_down(self, run: Run) -> Finding | None:
        """What is said of weights that go with a power of the number of samples, and should go against it."""
        known = progress.class_weights(run)
        if known is None:
            return None
        weights, shares = (values[(known[0] > 0) & (known[1] > 0)] for values in known)
        if len(shares) < 2 or shares.max() < self.times * shares.min():
            return None
        power = float(np.polyfit(np.log(shares), np.log(weights), 1)[0])
        rare, frequent = int(shares.argmin()), int(shares.argmax())
        fact = (
            f"the weights of the classes are upside down: the rarest, {shares[rare]:.2g} of the samples, weighs "
            f"{weights[rare] / weights[frequent]:.2g} times what the most frequent does"
        )
        fix = "Turn the weights over: total / samples of the class, and for pos_weight negatives / positives."
        return self._finding(run, fact, power, limit=self.power, fix=fix) if power > self.power else None

    def _carries_nothing_over(self, run: Run, entropy: float) -> bool:
        """Whether training beats a trivial prediction and validation, of other labels as far as is known, never does.

        Of labels below `even` always giving their shares is nearly right: training may well have settled there, too.
        """
        shift = run.latest("evaluations", "label_shift", "validation")
        same = shift is not None and shift < self.shift
        learned = progress.beats_guess(run)
        return (learned or entropy < self.even) and not same and bool(NoGeneralization().found(run))

    def _missed(self, run: Run) -> list[str]:
        """Labels with enough samples in the last quarter of the reads, none of them named right."""
        counts, hits = _late(run.statistic("data", "count")), _late(run.statistic("outputs", "hits"))
        return [str(label) for label in hits.index.intersection(counts.index)
                if counts[label] >= self.seen and hits[label] == 0]  # fmt: skip

    def _fooled(self, run: Run) -> str:
        """The accuracy that the run is judged by, if it stands where the share of the most common class is; else ""."""
        most = structure.class_shares(run).max()
        for name, values in structure.accuracies(run, self.evaluations):
            if values.max() - values.min() <= self.still and abs(values.mean() - most) < self.near:
                return f"the {name} of {values.iloc[-1]:.3g}"
        return ""

    def _finding(
        self,
        run: Run,
        fact: str,
        value: float,
        kind: Kind | None = None,
        place: str = "",
        limit: float | None = None,
        fix: str = "",
    ) -> Finding:
        steps = run.statistic("data", "entropy").index
        return self.finding(fact, kind=kind, steps=steps, value=value,
                            threshold=limit or self.even, place=place, fix=fix)  # fmt: skip

    @classmethod
    def _run(cls, entropy: float) -> Run:
        data: synthetic.Statistics = {"entropy": {"target": entropy}, "classes": {"target": 2.0},
                                      "count": {"label 0": 62.0, "label 1": 2.0}}  # fmt: skip
        return synthetic.run(data=data, outputs={"hits": {"label 0": 62.0, "label 1": 0.0}}, **synthetic.CLASSES)

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(0.22)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(0.15)


def _late(frame: pd.DataFrame) -> pd.Series[float]:
    """Sums over the last quarter of the reads."""
    return frame.iloc[-max(1, len(frame) // 4) :].sum()
