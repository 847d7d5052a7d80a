"""Check, Finding and Verdict: what a health rule is and what it says."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
import pandas as pd

from nndiag.frames import FRAMES
from nndiag.run import Run
from nndiag.statistics import Array

Kind = Literal["exact", "training", "generalisation", "note"]
"""What a finding can become: exact FAILs at once; training WARNs, and FAILs when training makes poor progress;
generalisation WARNs, and FAILs when validation does; a note is a remark on a PASS."""


class Verdict(StrEnum):
    """What is said of one check, or of a whole report; `severity` puts them in order."""

    NOT_CHECKED = "not_checked"
    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"

    @property
    def label(self) -> str:
        """As it is printed."""
        return self.value.replace("_", " ").upper()

    @property
    def severity(self) -> int:
        """0 for NOT CHECKED to 3 for FAIL."""
        return list(Verdict).index(self)

    @staticmethod
    def worst(verdicts: Iterable[Verdict]) -> Verdict:
        """The worst of `verdicts`; NOT CHECKED of none."""
        return max(verdicts, key=lambda verdict: verdict.severity, default=Verdict.NOT_CHECKED)


@dataclass(frozen=True)
class Finding:
    """One thing that a check saw: where, since when, the numbers, likely causes, what to do, how to make sure.

    Steps are optimiser updates done. `causes` are codes or sentences, most likely first; `consequence_of` is filled in by
    the checklist, as `verdict` is. `place` is the code whose place in the causal order this one takes where its own is
    not right: further up where values prove the cause, further down where they only suggest it. `ruled_out` are causes that
    would fit and whose checks have passed; the checklist fills it in, too.
    """

    code: str
    name: str
    message: str
    kind: Kind
    verdict: Verdict = Verdict.WARN
    layer: str | None = None
    parameter: str | None = None
    first_step: int | None = None
    last_step: int | None = None
    value: float | None = None
    threshold: float | None = None
    causes: tuple[str, ...] = ()
    fix: str = ""
    confirm: str = ""
    consequence_of: tuple[str, ...] = ()
    place: str = ""
    ruled_out: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        """Layer or parameter and steps, in words."""
        place = f"in {self.parameter or self.layer}, " if self.parameter or self.layer else ""
        first, last = self.first_step or 0, self.last_step
        return f"{place}at step {first}" if last in (None, first) else f"{place}from step {first} to {last}"


RECORDED_BY = {
    "loop": ": only the PyTorch adapter records it",
    "outputs": ": Recorder.outputs(outputs, targets) does it in a loop of your own",
    "data": ": Recorder.data(x, y) does it in a loop of your own",
}
"""How a frame comes into a run, where that is not plain from its name."""

VALIDATION_DATA = (
    "needs the validation set: recorder.validation_data(x, y) in a loop of your own, before the first validation"
)
"""Why validations alone say nothing of how their samples compare with those of training."""

LOGGED = "log(loss=…, outputs=…, targets=…), before the backward pass"
"""How PyTorch is told what the graph of a loss does not show; after that pass, only the values are left."""


Steps: TypeAlias = "int | np.integer[Any] | Sequence[Any] | pd.Index[int] | Array"
"""One step, or several in order."""


def _ends(steps: Steps | None) -> tuple[int | None, int | None]:
    """The first and the last of `steps`."""
    if steps is None:
        return None, None
    ends = (steps, steps) if isinstance(steps, int | np.integer) else (steps[0], steps[-1])
    return int(ends[0]), int(ends[1])


def _recorded_by(run: Run, frame: str) -> str:
    if frame == "outputs" and _in_torch(run):
        return f": {LOGGED}, does it"
    return RECORDED_BY.get(frame, "")


def _in_torch(run: Run) -> bool:
    return "torch" in run.meta.versions


@dataclass(frozen=True)
class Check:
    """A health rule: code, name and kind identify it, its fields are its thresholds, `examine` decides.

    `needs` names what it reads as "frame.statistic", and `min_reads` how many reads of the first of them it takes; with
    less the verdict is NOT CHECKED. `advice` is the fix where a finding has no better one, `passed` the reason of a PASS.
    """

    code: ClassVar[str]
    name: ClassVar[str]
    kind: ClassVar[Kind]
    needs: ClassVar[tuple[str, ...]] = ()
    min_reads: ClassVar[int] = 20
    advice: ClassVar[str] = ""
    confirm: ClassVar[str] = ""
    passed: ClassVar[str] = ""

    def not_checked(self, run: Run) -> str | None:
        """Why `run` cannot be examined, or None. Extend it where the check needs more than `needs` can say."""
        for need in self.needs:
            frame, _, statistic = need.partition(".")
            reads = len(run.statistic(frame, statistic))
            if not reads:
                return f"needs {need}, which was not recorded{_recorded_by(run, frame)}"
            if reads < self.min_reads:
                return f"needs {self.min_reads} reads of {need}, has {reads}"
        return None

    @staticmethod
    def needs_loss(run: Run, what: str) -> str:
        """The reason "needs `what`"; where nothing is known of the loss, also how to tell."""
        if run.meta.loss.keys() & {"task", "expects"}:
            return f"needs {what}"
        return f"needs {what}: {f'{LOGGED}, says it' if _in_torch(run) else 'describe(loss=…)'}"

    def examine(self, run: Run) -> Iterator[Finding]:
        """What is wrong with `run`, worst first; nothing if it is healthy. Called only when `not_checked` is None."""
        raise NotImplementedError(f"{type(self).__name__} has no examine()")

    def found(self, run: Run) -> list[Finding]:
        """Findings on `run` that are more than a remark; none where it cannot be examined. For checks that build on another."""
        return [] if self.not_checked(run) else [each for each in self.examine(run) if each.kind != "note"]

    @classmethod
    def healthy(cls) -> Run:
        """A run that passes, within a factor of two of the threshold."""
        raise NotImplementedError(f"{cls.__name__} has no healthy()")

    @classmethod
    def sick(cls) -> Run:
        """A run that is flagged, within a factor of two of the threshold."""
        raise NotImplementedError(f"{cls.__name__} has no sick()")

    def finding(self, message: str, *, kind: Kind | None = None, layer: str | None = None, parameter: str | None = None,
                steps: Steps | None = None, value: float | None = None, threshold: float | None = None,
                causes: tuple[str, ...] = (), fix: str = "", confirm: str = "", place: str = "") -> Finding:  # fmt: skip
        """A finding of this check, with its advice where no `fix` is given.

        `steps` are those at which it shows, the first and the last of them at least, or a single one.
        """
        first, last = _ends(steps)
        return Finding(self.code, self.name, message, kind or self.kind, Verdict.WARN, layer=layer, parameter=parameter,
                       first_step=first, last_step=last, value=value, threshold=threshold, causes=causes,
                       fix=fix or self.advice, confirm=confirm or self.confirm, place=place)  # fmt: skip

    def note(self, message: str) -> Finding:
        """A remark that leaves the verdict PASS."""
        return self.finding(message, kind="note")

    @classmethod
    def validate(cls) -> None:
        """Raises TypeError if the class lacks what a check must have."""
        for attribute in ("code", "name", "kind", "advice", "passed"):
            if not getattr(cls, attribute, ""):
                raise TypeError(f"the check {cls.__name__} has no {attribute}")
        for need in cls.needs:
            frame, _, statistic = need.partition(".")
            if frame not in FRAMES or (FRAMES[frame] and statistic not in FRAMES[frame]):
                raise TypeError(f"the check {cls.__name__} needs {need!r}, which no frame holds")

    @classmethod
    def page(cls) -> str:
        """The catalogue page: the docstring."""
        return inspect.cleandoc(cls.__doc__ or "")

    @classmethod
    def summary(cls) -> str:
        """First line of the page."""
        return cls.page().partition("\n")[0]
