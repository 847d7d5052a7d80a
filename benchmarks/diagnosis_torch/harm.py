"""Which faults harm which programs, at which level: decided by training alone, before any check sees a run.

`harm.json` beside this file holds the outcome. A level harms when the fault is structural, or when the final error (the
median of three seeds) is worse, by a margin against ties, than that of every sound seed of its base.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.diagnosis.harm import FAULTY_SEEDS, SOUND_SEEDS, Apply, limit, number, read, rounded
from benchmarks.diagnosis_torch.bases import BASES
from benchmarks.diagnosis_torch.faults import FAULTS, pairs
from benchmarks.diagnosis_torch.programs import train

FILE = Path(__file__).with_name("harm.json")


def sound_error(job: tuple[str, int]) -> float:
    """Final error of a base with a seed."""
    base, seed = job
    return train(BASES[base], seed)[0]


def faulty_error(job: tuple[str, str, float]) -> float:
    """Final error of a base with a fault at a level, the median over seeds."""
    base, name, level = job
    program = FAULTS[name].inject(BASES[base], level)
    return median(train(program, seed)[0] for seed in FAULTY_SEEDS)


def measure(apply: Apply) -> dict[str, Any]:
    """The whole table, anew: errors of sound seeds by base, and of each level by base and fault."""
    jobs = [(base, seed) for base in BASES for seed in SOUND_SEEDS]
    sound: dict[str, list[float | None]] = {base: [] for base in BASES}
    for (base, _), value in zip(jobs, apply(sound_error, jobs), strict=True):
        sound[base].append(rounded(value))
    faulty: dict[str, list[float | None]] = {}
    wanted = [(base, name, level) for base, name in measured_pairs() for level in FAULTS[name].levels]
    for (base, name, _), value in zip(wanted, apply(faulty_error, wanted), strict=True):
        faulty.setdefault(f"{base}/{name}", []).append(rounded(value))
    return {"sound": sound, "faulty": faulty}


def measured_pairs() -> list[tuple[str, str]]:
    """Those that are no faults by certainty."""
    return [(base, name) for base, name in pairs() if not FAULTS[name].structural]


def harmful(base: str, name: str) -> list[float]:
    """The levels at which the fault harms `base`, from mild to severe; of a structural one all, which are kinds of it."""
    fault = FAULTS[name]
    if fault.structural:
        return list(fault.levels)
    errors = [number(value) for value in read(FILE)["faulty"][f"{base}/{name}"]]
    levels = [level for level, error in zip(fault.levels, errors, strict=True) if error > limit(base, FILE)]
    return list(dict.fromkeys([*levels[:1], *levels[-1:]]))


def cases() -> Iterator[tuple[str, str, float]]:
    """Base, fault and level of what the matrix runs: the mildest harmful level and the most severe one of each pair."""
    for base, name in pairs():
        for level in harmful(base, name):
            yield base, name, level
