"""ND008 split-overlap."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from nndiag import synthetic
from nndiag.check import VALIDATION_DATA, Check, Finding
from nndiag.run import Run


@dataclass(frozen=True)
class SplitOverlap(Check):
    """Validation samples are among the training samples.

    What has been learned by heart is then counted as understood: the validation loss looks too good, and overfitting does
    not show.

    Decides on hashes of the input rows: the share of validation rows that are training rows, above `share` and above three
    times the share of copies inside the training set (where inputs take few values, equal rows are chance), with `rows`
    shared rows or more. Where a feature has a value of its own in `own` of the different rows, as what is measured has, copies
    are none of chance: rare samples were copied before the split. Augmented copies are not seen. Where the validation set is
    not told, passes without gradients stand for it that mix training rows with others (`nndiag.held_out.SharedRows`).
    """

    code = "ND008"
    name = "split-overlap"
    kind = "generalisation"
    needs = ("evaluations.overlap",)
    min_reads = 1
    advice = "Split before anything else, by what must not be shared (patient, document, day), and drop copies."
    confirm = "train = {r.tobytes() for r in x}; print(np.mean([r.tobytes() in train for r in x_val]))"
    passed = "training and validation share no samples"

    parts: ClassVar[tuple[str, ...]] = ("validation", "unknown")

    share: float = 0.01
    rows: int = 3
    own: float = 0.9

    def not_checked(self, run: Run) -> str | None:
        if len(run.validation) and not any(len(run.series("evaluations", "overlap", part)) for part in self.parts):
            return VALIDATION_DATA
        return super().not_checked(run)

    def examine(self, run: Run) -> Iterator[Finding]:
        part = next((part for part in self.parts if len(run.series("evaluations", "overlap", part))), None)
        if part is None:
            return
        overlaps = run.series("evaluations", "overlap", part)
        share, samples = float(overlaps.iloc[-1]), run.latest("evaluations", "samples", part) or 0.0
        copies = run.latest("evaluations", "duplicates", part) or 0.0
        chance = 0.0 if (run.latest("evaluations", "distinct", part) or 0.0) > self.own else 3 * copies
        if share > self.share + chance and share * samples >= self.rows:
            whose = "validation samples" if part == "validation" else "samples of passes without gradients"
            yield self.finding(
                f"{share:.0%} of the {whose} are among the training samples",
                steps=overlaps.index, value=share, threshold=self.share,
            )  # fmt: skip

    @classmethod
    def _run(cls, share: float) -> Run:
        evaluations = {
            "overlap": {"validation": share},
            "samples": {"validation": 400.0},
            "duplicates": {"validation": 0.0},
        }
        return synthetic.run(evaluations=evaluations)

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(0.0075)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(0.015)
