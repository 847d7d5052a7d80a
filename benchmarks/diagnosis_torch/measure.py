"""What the checklist says of one program: run, examined, and compared with what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import nndiag
from benchmarks.diagnosis import split
from benchmarks.diagnosis.measure import SEED, Outcome, Part, Seen, named, steps_to_right
from benchmarks.diagnosis.programs import EVERY_STEP, Cadence
from benchmarks.diagnosis_torch import harm
from benchmarks.diagnosis_torch.bases import BASES
from benchmarks.diagnosis_torch.faults import FAULTS, Fault
from benchmarks.diagnosis_torch.programs import Program, Watch, train
from benchmarks.diagnosis_torch.zoo import SEEDS, ZOO
from benchmarks.diagnosis_torch.zoo import train as train_of_zoo
from nndiag.check import Finding
from nndiag.checklist import Checklist
from nndiag.report import Report
from nndiag.run import Run


@dataclass(frozen=True)
class Job:
    """A program to run: a base with a fault at a level, a base by itself, or one of the zoo.

    The split is that of the NumPy half: by the same hash with the same salt, so that a fault or base of the same name
    lies on the same side in both. The zoo is for development alone: its programs were written to find false alarms.
    """

    base: str
    seed: int
    fault: str = ""
    level: float = 0.0

    @property
    def name(self) -> str:
        """For people: what was run."""
        return f"{self.base} + {self.fault} ({self.level:g})" if self.fault else f"{self.base} (seed {self.seed})"

    @property
    def group(self) -> str:
        """The zoo or the bases."""
        return "zoo" if self.base in ZOO else "bases"

    @property
    def kind(self) -> str:
        """What kind of program of the zoo it is; each base is a kind of its own."""
        return ZOO[self.base].kind if self.base in ZOO else self.base

    def train(self, watch: Watch, *, logged: bool = True) -> tuple[float, Any]:
        """Train it: its final error, and the recorder; its loss is `logged` or, but for the zoo, left to be seen."""
        if self.base in ZOO:
            return train_of_zoo(self.base, self.seed, watch)
        return train(self.program, self.seed, watch, logged=logged)

    @property
    def program(self) -> Program:
        """A base, with its fault if it has one."""
        base = BASES[self.base]
        return FAULTS[self.fault].inject(base, self.level) if self.fault else base

    @property
    def held_out(self) -> bool:
        """Whether it is kept from tuning."""
        if self.base in ZOO:
            return False
        return split.pair_held_out(self.base, self.fault) if self.fault else split.held_out("base", self.base)


def jobs(part: Part, base: str = "", fault: str = "", group: str = "") -> list[Job]:
    """Every job of one part: pairs at their harmful levels, then sound bases and zoo; of one base, fault or group where given."""
    wanted = {"develop": (False,), "held-out": (True,), "all": (False, True)}[part]
    found = [*pair_jobs(), *sound_jobs()]
    return [
        job for job in found
        if job.held_out in wanted and base in ("", job.base) and fault in ("", job.fault) and group in ("", job.group)
    ]  # fmt: skip


def pair_jobs() -> Iterator[Job]:
    """The fault matrix."""
    return (Job(base, SEED, name, level) for base, name, level in harm.cases())


def sound_jobs() -> Iterator[Job]:
    """The bases as they are, and the zoo."""
    return (Job(name, seed) for name in (*BASES, *ZOO) for seed in SEEDS)


def measure(job: Job, cadence: Cadence = EVERY_STEP, *, logged: bool = True) -> Outcome:
    """Run one job, read so often, and examine it; the loss of training is `logged` or left to be seen."""
    error, recorder = job.train(partial(nndiag.watch, **cadence), logged=logged)
    recorder.close()
    run: Run = recorder.run
    report = Checklist().examine(run)
    fault = FAULTS.get(job.fault)
    return Outcome(
        job,
        job.held_out,
        error,
        run.steps,
        report.headlines,
        named(report),
        tuple(Seen.of(finding) for finding in report.findings),
        tuple(sorted(fault.expected)) if fault else (),
        right_place(report, fault) if fault else None,
        steps_to_right(run, fault.expected) if fault else None,
    )


def right_place(report: Report, fault: Fault) -> bool | None:
    """Whether the first of the right findings that names a place names the fault's; None where it has none."""
    right = [finding for finding in report.findings if finding.code in fault.expected]
    if fault.place is None or not right:
        return None
    places = [place for finding in right if (place := _place(finding))]
    return bool(places) and (places[0].split(".")[0] == "head") == (fault.place == "head")


def _place(finding: Finding) -> str:
    return finding.parameter or finding.layer or ""
