"""The small part that runs with every change."""

from __future__ import annotations

from pathlib import Path

from benchmarks.diagnosis import split
from benchmarks.diagnosis_torch.measure import Job, pair_jobs, sound_jobs
from benchmarks.diagnosis_torch.zoo import SEEDS, ZOO

FILE = Path(__file__).with_name("floors.json")
FAULTY = 30
ZOO_PROGRAMS = 15


def jobs() -> list[Job]:
    """One case of each of some faults, the sound bases and some of the zoo with one seed: of the part for development alone."""
    cases: dict[str, Job] = {}
    for job in sorted((job for job in pair_jobs() if not job.held_out), key=_place):
        cases.setdefault(job.fault, job)
    healthy = [job for job in sound_jobs() if not job.held_out and job.seed == SEEDS[0]]
    zoo = sorted((job for job in healthy if job.base in ZOO), key=_place)
    return [
        *list(cases.values())[:FAULTY],
        *(job for job in healthy if job.base not in ZOO),
        *zoo[:ZOO_PROGRAMS],
    ]


def _place(job: Job) -> float:
    return split.place("gate", job.name)
