"""What the checklist says of one program: run, examined, and compared with what is wrong with it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

from benchmarks.diagnosis import harm, split
from benchmarks.diagnosis.bases import BASES
from benchmarks.diagnosis.faults import FAULTS, Fault
from benchmarks.diagnosis.programs import EVERY_STEP, Cadence, Program, train
from benchmarks.diagnosis.zoo import SEEDS, ZOO
from nndiag.catalogue import catalogue
from nndiag.check import Finding, Verdict
from nndiag.checklist import Checklist
from nndiag.report import Report
from nndiag.run import Run

Part = Literal["develop", "held-out", "all"]

PREFIXES = (1, 2, 5, 10, 20, 25, 30, 40, 50, 60, 80, 100, 125, 150, 200, 250, 300, 400, 500, 700, 1000, 1500, 2000)
"""Numbers of updates at which a run is looked at while it goes on."""
SEED = 100
"""Seed of the runs of the matrix, which harm has not seen."""


class Case(Protocol):
    """What was run, as far as tables need to know; `group` and `kind` say what sound programs it is counted with."""

    @property
    def base(self) -> str: ...
    @property
    def fault(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def group(self) -> str: ...
    @property
    def kind(self) -> str: ...


@dataclass(frozen=True)
class Job:
    """A program to run: a base with a fault at a level, a base by itself, or one of the zoo."""

    base: str
    seed: int
    fault: str = ""
    level: float = 0.0

    @property
    def name(self) -> str:
        """For people: what was run."""
        return f"{self.base} + {self.fault} ({self.level:g})" if self.fault else f"{self.base} (seed {self.seed})"

    @property
    def program(self) -> Program:
        """The program itself."""
        if self.fault:
            return FAULTS[self.fault].inject(BASES[self.base], self.level)
        return BASES[self.base] if self.base in BASES else ZOO[self.base].program

    @property
    def group(self) -> str:
        """The zoo or the bases."""
        return "zoo" if self.base in ZOO else "bases"

    @property
    def kind(self) -> str:
        """What kind of program of the zoo it is."""
        return ZOO[self.base].kind if self.base in ZOO else "bases"

    @property
    def held_out(self) -> bool:
        """Whether it is kept from tuning."""
        if self.fault:
            return split.pair_held_out(self.base, self.fault)
        return split.held_out("base" if self.base in BASES else "zoo", self.base)


@dataclass(frozen=True)
class Seen:
    """One finding in short."""

    code: str
    verdict: str
    where: str
    message: str

    @classmethod
    def of(cls, finding: Finding) -> Seen:
        """The finding without its advice."""
        return cls(finding.code, finding.verdict.value, finding.parameter or finding.layer or "", finding.message)


@dataclass(frozen=True)
class Outcome:
    """What came of a job; `named` is what a reader looks at first: headlines, then the codes that findings give as causes.

    `right_layer` and `steps_to_right` are None where the fault has no place, or was not found.
    """

    job: Case
    held_out: bool
    error: float
    steps: int
    headlines: tuple[str, ...]
    named: tuple[str, ...]
    findings: tuple[Seen, ...]
    expected: tuple[str, ...] = ()
    right_layer: bool | None = None
    steps_to_right: int | None = None

    @property
    def alarm(self) -> bool:
        """Any finding at WARN or above."""
        return bool(self.findings)

    @property
    def failed(self) -> bool:
        """Any finding at FAIL."""
        return any(finding.verdict == Verdict.FAIL.value for finding in self.findings)

    @property
    def right_headline(self) -> bool:
        """The first headline names the fault."""
        return bool(self.headlines) and self.headlines[0] in self.expected

    @property
    def right_among_three(self) -> bool:
        """One of the first three names does."""
        return bool(set(self.named[:3]) & set(self.expected))


def jobs(part: Part, base: str = "", fault: str = "") -> list[Job]:
    """Every job of one part: pairs at their harmful levels, then sound bases and zoo; of one base or fault where given."""
    found = [*pair_jobs(), *sound_jobs()]
    wanted = {"develop": (False,), "held-out": (True,), "all": (False, True)}[part]
    return [job for job in found if job.held_out in wanted and base in ("", job.base) and fault in ("", job.fault)]


def pair_jobs() -> Iterator[Job]:
    """The fault matrix."""
    for base, name, level in harm.cases():
        yield Job(base, SEED, name, level)


def sound_jobs() -> Iterator[Job]:
    """The bases as they are, and the zoo."""
    for name in [*BASES, *ZOO]:
        for seed in SEEDS:
            yield Job(name, seed)


def measure(job: Job, cadence: Cadence = EVERY_STEP) -> Outcome:
    """Run one job, read so often, and examine it."""
    run, error, _ = train(job.program, job.seed, cadence)
    report = Checklist().examine(run)
    outcome = Outcome(job, job.held_out, error, run.steps, report.headlines, named(report),
                      tuple(Seen.of(finding) for finding in report.findings))  # fmt: skip
    return _compared(outcome, job, run, report) if job.fault else outcome


def _compared(outcome: Outcome, job: Job, run: Run, report: Report) -> Outcome:
    """With the fault that is there."""
    fault = FAULTS[job.fault]
    right = [finding for finding in report.findings if finding.code in fault.expected]
    return Outcome(
        job,
        outcome.held_out,
        outcome.error,
        outcome.steps,
        outcome.headlines,
        outcome.named,
        outcome.findings,
        tuple(sorted(fault.expected)),
        _right_layer(right, fault, job),
        steps_to_right(run, fault.expected),
    )


def named(report: Report) -> tuple[str, ...]:
    """Headlines, then the codes among the causes of findings, in their order; each once."""
    known = catalogue()
    causes = [cause for finding in report.findings for cause in finding.causes if cause in known]
    return tuple(dict.fromkeys([*report.headlines, *causes]))


def _right_layer(right: Iterable[Finding], fault: Fault, job: Job) -> bool | None:
    """Whether the first of the right findings that names a place names one of the fault's."""
    found = list(right)
    if fault.blocks is None or not found:
        return None
    places = [finding.parameter or finding.layer for finding in found if finding.parameter or finding.layer]
    blocks = fault.blocks(BASES[job.base], job.level)
    return bool(places) and str(places[0]).partition(".")[0] in blocks


def steps_to_right(run: Run, expected: Iterable[str]) -> int | None:
    """Updates after which an expected finding is first raised, among PREFIXES and the whole run; None if it never is."""
    codes = sorted(set(expected) & set(catalogue()))
    if not codes:
        return None
    checklist = Checklist(select=codes)
    for steps in [*(steps for steps in PREFIXES if steps < run.steps), math.inf]:
        seen = run if steps == math.inf else run.until(int(steps))
        if checklist.examine(seen).findings:
            return min(int(min(steps, run.steps)), run.steps)
    return None
