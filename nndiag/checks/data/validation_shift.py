"""ND009 validation-shift."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nndiag import synthetic
from nndiag.check import Check, Finding
from nndiag.progress import latest
from nndiag.run import Run


@dataclass(frozen=True)
class ValidationShift(Check):
    """Validation inputs are on another scale than training inputs, or their labels are other labels.

    Mostly one of the two was not standardised, was standardised twice, or with numbers of its own; or the split was made on
    sorted data, so that classes of one part are missing in the other. The validation loss then says nothing of the network.

    Decides on the median over features: the means lie more than `shift` training standard deviations apart, or the standard
    deviations more than `scale` times; or on the total variation distance between the class shares, above `labels`. Random
    splits of 50 samples stay below 0.3 in all three (a mean is off by 0.14, a share of one half by 0.07); only from `samples`
    validation samples on.
    """

    code = "ND009"
    name = "validation-shift"
    kind = "generalisation"
    needs = ("metrics.shift",)
    min_reads = 1
    advice = "Send both through the same preprocessing, with the training set's numbers, and split at random."
    confirm = "print(x.mean(axis=0), x_val.mean(axis=0), x.std(axis=0), x_val.std(axis=0))"
    passed = "validation is made of the same stuff as training"

    shift: float = 1.0
    scale: float = 2.5
    labels: float = 0.5
    samples: int = 20

    def not_checked(self, run: Run) -> str | None:
        if reason := super().not_checked(run):
            return reason
        seen = latest(run, "metrics", "samples", "validation") or 0.0
        return f"needs {self.samples} validation samples, has {seen:.0f}" if seen < self.samples else None

    def examine(self, run: Run) -> Iterator[Finding]:
        step = int(run.statistic("metrics", "shift").index[-1])
        moved, scaled, relabelled = (
            latest(run, "metrics", name, "validation") for name in ("shift", "scale", "label_shift")
        )
        if scaled is not None and not 1 / self.scale <= scaled <= self.scale:
            yield self._finding(
                f"validation inputs vary {scaled:.2g} times as much as training inputs", scaled, self.scale, step
            )
        elif moved is not None and moved > self.shift:
            fact = f"validation inputs lie {moved:.2g} standard deviations from training inputs"
            yield self._finding(fact, moved, self.shift, step)
        if relabelled is not None and relabelled > self.labels:
            fact = (
                f"{relabelled:.0%} of the validation labels would have to change to match the training labels' shares"
            )
            yield self._finding(fact, relabelled, self.labels, step)

    def _finding(self, fact: str, value: float, threshold: float, step: int) -> Finding:
        return self.finding(fact, first_step=0, last_step=step, value=value, threshold=threshold)

    @classmethod
    def _run(cls, scale: float) -> Run:
        metrics = {"shift": 0.1, "scale": scale, "label_shift": 0.1, "samples": 400.0}
        return synthetic.run(metrics={name: {"validation": value} for name, value in metrics.items()})

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(2.0)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(4.0)
