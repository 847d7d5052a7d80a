"""The small part that runs with every change."""

from __future__ import annotations

from pathlib import Path

from benchmarks.diagnosis import split
from benchmarks.diagnosis_torch.measure import SEEDS, Job, pair_jobs, sound_jobs

FILE = Path(__file__).with_name("floors.json")
FAULTY = 30


def jobs() -> list[Job]:
    """One case of each of some faults, and the sound bases with one seed: of the part for development alone."""
    cases: dict[str, Job] = {}
    for job in sorted((job for job in pair_jobs() if not job.held_out), key=lambda job: split.place("gate", job.name)):
        cases.setdefault(job.fault, job)
    return [
        *list(cases.values())[:FAULTY],
        *(job for job in sound_jobs() if not job.held_out and job.seed == SEEDS[0]),
    ]
