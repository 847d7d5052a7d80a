"""The small part that runs with every change, and the floors that it must keep."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.diagnosis import split
from benchmarks.diagnosis.measure import Job, Outcome, pair_jobs, sound_jobs
from benchmarks.diagnosis.tables import faulty, recall, sound
from benchmarks.diagnosis.zoo import SEEDS, ZOO

FILE = Path(__file__).with_name("floors.json")
ZOO_PROGRAMS = 25
SLACK = 0.02
"""How far below the measured recall the floor is set: another BLAS rounds otherwise, and a run at the edge may tip."""


def jobs() -> list[Job]:
    """One case of each fault, the sound bases and some of the zoo with one seed: of the part for development alone."""
    cases: dict[str, Job] = {}
    for job in sorted((job for job in pair_jobs() if not job.held_out), key=lambda job: split.place("gate", job.name)):
        cases.setdefault(job.fault, job)
    healthy = [job for job in sound_jobs() if not job.held_out and job.seed == SEEDS[0]]
    zoo = sorted((job for job in healthy if job.base in ZOO), key=lambda job: split.place("gate", job.name))
    return [*cases.values(), *(job for job in healthy if job.base not in ZOO), *zoo[:ZOO_PROGRAMS]]


def measured(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Headline recall, and sound runs with any FAIL and with any alarm."""
    healthy = sound(outcomes)
    return {
        "recall": recall(faulty(outcomes)).value,
        "fails": sum(outcome.failed for outcome in healthy),
        "alarms": sum(outcome.alarm for outcome in healthy),
    }


def update(outcomes: Sequence[Outcome], file: Path | None = None) -> None:
    """Make what was measured the floor, with some slack of the recall; in `FILE` where no other is given."""
    floors = measured(outcomes)
    floors["recall"] = math.floor(100 * (floors["recall"] - SLACK)) / 100
    (file or FILE).write_text(json.dumps(floors, indent=1) + "\n", encoding="utf-8")


def broken(outcomes: Sequence[Outcome], file: Path | None = None) -> Iterator[str]:
    """What is worse than the floors allow, in words."""
    floors, now = json.loads((file or FILE).read_text(encoding="utf-8")), measured(outcomes)
    if now["recall"] < floors["recall"]:
        yield f"the right headline was given for {now['recall']:.1%} of the faulty runs, wanted {floors['recall']:.0%}"
    for name, what in (("fails", "a FAIL"), ("alarms", "an alarm")):
        if now[name] > floors[name]:
            yield f"{now[name]:g} sound runs got {what}, wanted {floors[name]:g} at most"
