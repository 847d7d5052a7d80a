"""Live checks: the checklist looks at a run while it is recorded, and tells of each finding once."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from nndiag.check import Check, Finding, Verdict
from nndiag.checklist import Checklist
from nndiag.interrupts import propagates
from nndiag.pace import LIVE
from nndiag.plain import printable
from nndiag.settings import steps

if TYPE_CHECKING:
    from nndiag.recorder import Recorder

log = logging.getLogger("nndiag")

Action = Literal["warn", "stop"]
"""What is done about a finding: log it, or log it and ask the loop to end."""

OnFinding = Action | Callable[[Finding], Any]
"""An action for all findings, or what chooses one for each; None, or anything else, is no action."""

EVERY = 100
"""Steps between two examinations, unless told otherwise."""

PATIENCE = 2
"""Examinations in a row that open a finding, and that close it again; a fact (kind exact) opens at once."""

STOPPING = ("exact", "training")
"""Kinds of which a FAIL ends the training with on_finding="stop": a poor validation may still come round."""


def warn(finding: Finding) -> Action | None:
    """Log what nothing else explains."""
    return None if finding.consequence_of else "warn"


def stop(finding: Finding) -> Action | None:
    """End on a FAIL of a kind in `STOPPING`, and log the rest."""
    return "stop" if finding.verdict is Verdict.FAIL and finding.kind in STOPPING else warn(finding)


ACTIONS: dict[str, Callable[[Finding], Any]] = {"warn": warn, "stop": stop}


class LiveChecks:
    """Examines what a recorder has so far every `every` steps, and at once when a loss is not finite for the first time.

    A finding is told once, when it opens, and once more where a warning becomes a FAIL: logged on one line, or given to
    `on_finding`, whose answer "warn" or "stop" is the action. With a `budget`, a share of the training time, the second
    and later examinations wait until their time is within half of it. Raises ValueError for what it cannot use.
    """

    def __init__(
        self,
        every: int | None = None,
        on_finding: OnFinding | None = None,
        *,
        budget: float | None = None,
        strict: bool = False,
    ) -> None:
        self.every = EVERY if every is None else steps("check_every", every)
        self._choose = _chooser("warn" if on_finding is None else on_finding)
        self._rest = 0.0 if budget is None else 1 / (LIVE * budget)
        self._strict = strict
        self._checklist = PatientChecklist(strict)
        self._findings = OpenFindings()
        self._examined: int | None = None
        self._free_at = -math.inf
        self._failed = False

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The findings that are open, as they were last seen."""
        return self._findings.open

    def step(self, recorder: Recorder) -> None:
        """A row of `recorder` is finished: examine the run, if it is time."""
        if not self._due(recorder):
            return
        begun = time.perf_counter()
        try:
            self._examine(recorder)
        except Exception as fault:
            if propagates(fault, self._strict):
                raise
            self._failed = True
            log.error("the live checks failed and are off; training goes on", exc_info=fault)
            recorder.fault("LiveChecks", "step", fault)
        finally:
            spent = time.perf_counter() - begun
            recorder.pace.aside(spent)
            self._free_at = begun + spent * (1 + self._rest)

    def _due(self, recorder: Recorder) -> bool:
        if self._examined is None:
            self._examined = recorder.step_number - 1
        if recorder.meta.broken_at == recorder.step_number - 1:
            return not self._failed
        waited = recorder.step_number - self._examined >= self.every
        return waited and not self._failed and (not self._rest or time.perf_counter() >= self._free_at)

    def _examine(self, recorder: Recorder) -> None:
        self._examined = recorder.step_number
        report = recorder.check(self._checklist)
        chosen = [(finding, self._action(finding, recorder)) for finding in self._findings.update(report.findings)]
        told = [f for f, action in chosen if action == "warn" or (action == "stop" and not f.consequence_of)]
        for code in dict.fromkeys(finding.code for finding in told):
            log.warning("%s", line([finding for finding in told if finding.code == code], recorder.step_number))
        for finding in [finding for finding, action in chosen if action == "stop"][:1]:
            recorder.stop(_reason(finding))

    def _action(self, finding: Finding, recorder: Recorder) -> Any:
        try:
            answer = self._choose(finding)
        except Exception as fault:
            if propagates(fault, self._strict):
                raise
            self._choose = warn
            log.error("on_finding failed and is not called again; findings are logged", exc_info=fault)
            recorder.fault("on_finding", finding.code, fault)
            answer = warn(finding)
        return answer if isinstance(answer, str) else None  # an array would not compare with a word


class PatientChecklist(Checklist):
    """The checklist, which lets a failing check stop the training where `strict`, and otherwise tells of it once."""

    def __init__(self, strict: bool = False) -> None:
        super().__init__()
        self._strict = strict
        self._told: set[str] = set()

    def _fault(self, check: Check, fault: Exception) -> None:
        if self._strict:
            raise fault
        if check.code not in self._told:
            self._told.add(check.code)
            super()._fault(check, fault)


Key = tuple[str, str, Verdict]
"""Code, layer or parameter, and WARN or, of a failure, FAIL beside it."""


class OpenFindings:
    """Which findings last: one opens when it was seen `patience` times in a row, and closes when it was missed as often.

    A fact (kind exact) opens at once, and so does what explains it. A failure is a warning, too: where a warning gets worse
    it opens as a failure when that has lasted as well, and where a failure gets better it closes as one.
    """

    def __init__(self, patience: int = PATIENCE) -> None:
        self._patience = patience
        self._streaks: dict[Key, int] = {}
        self._open: dict[Key, Finding] = {}

    @property
    def open(self) -> tuple[Finding, ...]:
        """Each once, root causes first, those that were not seen again at the end."""
        return self._told({key[:2]: finding for key, finding in self._open.items()}.values())

    def update(self, findings: Sequence[Finding]) -> list[Finding]:
        """The findings that open with an examination that saw `findings`; root causes first, as these are."""
        seen, proven = _by_key(findings), _proven(findings)
        self._count(seen)
        before = {key: finding for key, finding in self._open.items() if key in self._streaks}
        now = {key: finding for key, finding in seen.items()
               if key in before or key[0] in proven or self._streaks[key] >= self._patience}  # fmt: skip
        self._open = now | {key: finding for key, finding in before.items() if key not in now}
        return list(self._told({key[:2]: finding for key, finding in now.items() if key not in before}.values()))

    def _count(self, seen: Iterable[Key]) -> None:
        """Examinations in a row that saw a key, or, below 0, that missed it; what was missed often enough is forgotten."""
        streaks = {key: min(streak, 0) - 1 for key, streak in self._streaks.items()}
        streaks |= {key: max(self._streaks.get(key, 0), 0) + 1 for key in seen}
        self._streaks = {key: streak for key, streak in streaks.items() if streak > -self._patience}

    def _told(self, findings: Iterable[Finding]) -> tuple[Finding, ...]:
        """With what they are consequences of as far as that is open, and so was told, itself."""
        known = {code for code, *_ in self._open}
        return tuple(replace(f, consequence_of=tuple(c for c in f.consequence_of if c in known)) for f in findings)


def _by_key(findings: Iterable[Finding]) -> dict[Key, Finding]:
    """The first finding of each key, at the verdict of that key."""
    found: dict[Key, Finding] = {}
    for finding in findings:
        for level in (Verdict.WARN, finding.verdict):
            key = (finding.code, finding.parameter or finding.layer or "", level)
            found.setdefault(key, replace(finding, verdict=level))
    return found


def _proven(findings: Iterable[Finding]) -> set[str]:
    """Codes of the facts and of what explains them."""
    return {code for fact in findings if fact.kind == "exact" for code in (fact.code, *fact.consequence_of)}


def line(findings: Sequence[Finding], step: int) -> str:
    """What is logged, after `step` updates, of findings of one check: the first of them, and how many more there are."""
    first = findings[0]
    more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
    fix = f"; fix: {first.fix}" if first.fix else ""
    return printable(
        f"{first.verdict.label} {first.code} {first.name}, seen after step {step}: "
        f"{first.message}{more}; {first.where}{fix}"
    )


def _reason(finding: Finding) -> str:
    explained = f" (explained by {', '.join(finding.consequence_of)})" if finding.consequence_of else ""
    return printable(f"{finding.code} {finding.name}: {finding.message}{explained}")


def _chooser(on_finding: Any) -> Callable[[Finding], Any]:
    if isinstance(on_finding, str) and on_finding in ACTIONS:
        return ACTIONS[on_finding]
    if not callable(on_finding):
        raise ValueError(
            f'on_finding={on_finding!r}: give "warn", "stop", or a function of a finding that returns one of them or None'
        )
    chosen: Callable[[Finding], Any] = on_finding
    return chosen
