"""Which faults harm which programs, at which level: decided by training alone, before any check sees a run.

`harm.json` beside this file holds the outcome. A level harms when the fault is structural, or when the final error (the
median of three seeds) is worse, by a margin against ties, than that of every sound seed of its base.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.diagnosis.bases import BASES
from benchmarks.diagnosis.faults import FAULTS, pairs
from benchmarks.diagnosis.programs import final_error

FILE = Path(__file__).with_name("harm.json")
SOUND_SEEDS = range(8)
FAULTY_SEEDS = range(3)
MARGIN = 0.02
"""An error this little above the worst sound one is a tie: a handful of validation rows."""

Apply = Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]]
"""`map`, or that of a pool."""


def sound_error(job: tuple[str, int]) -> float:
    """Final error of a base with a seed."""
    base, seed = job
    return final_error(BASES[base], seed)[0]


def faulty_errors(pair: tuple[str, str]) -> list[float]:
    """Final error at each level of a pair, the median over seeds."""
    base, name = pair
    programs = [FAULTS[name].inject(BASES[base], level) for level in FAULTS[name].levels]
    return [median(final_error(program, seed)[0] for seed in FAULTY_SEEDS) for program in programs]


def measure(apply: Apply) -> dict[str, Any]:
    """The whole table, anew: errors of sound seeds by base, and of each level by base and fault."""
    jobs = [(base, seed) for base in BASES for seed in SOUND_SEEDS]
    sound: dict[str, list[float | None]] = {base: [] for base in BASES}
    for (base, _), value in zip(jobs, apply(sound_error, jobs), strict=True):
        sound[base].append(rounded(value))
    faulty: dict[str, list[float | None]] = {}
    measured = [(base, name) for base, name in pairs(BASES) if not FAULTS[name].structural]
    for (base, name), values in zip(measured, apply(faulty_errors, measured), strict=True):
        faulty[f"{base}/{name}"] = [rounded(value) for value in values]
    return {"sound": sound, "faulty": faulty}


def write(table: dict[str, Any], file: Path = FILE) -> None:
    """Put the table into a file, a line for each base and pair; null stands for an infinite error."""
    parts = [f" {json.dumps(name)}: {{\n{_lines(rows)}\n }}" for name, rows in table.items()]
    file.write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")


def _lines(rows: dict[str, Any]) -> str:
    return ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in rows.items())


@cache
def read(file: Path = FILE) -> dict[str, Any]:
    """A committed table."""
    table: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return table


def limit(base: str, file: Path = FILE) -> float:
    """The error above which a fault has harmed `base`."""
    return MARGIN + max(number(value) for value in read(file)["sound"][base])


def harmful(base: str, name: str) -> list[float]:
    """The levels at which the fault harms `base`, from mild to severe."""
    fault = FAULTS[name]
    if fault.structural:
        return list(fault.levels)
    errors = [number(value) for value in read()["faulty"][f"{base}/{name}"]]
    return [level for level, error in zip(fault.levels, errors, strict=True) if error > limit(base)]


def cases() -> Iterator[tuple[str, str, float]]:
    """Base, fault and level of what the matrix runs: of each pair the mildest harmful level and the most severe one."""
    for base, name in pairs(BASES):
        levels = harmful(base, name)
        for level in dict.fromkeys([*levels[:1], *levels[-1:]]):
            yield base, name, level


def rounded(value: float) -> float | None:
    """To four digits, and None for infinity, which JSON does not know."""
    return float(f"{value:.4g}") if math.isfinite(value) else None


def number(value: float | None) -> float:
    """What `rounded` was given."""
    return math.inf if value is None else value
