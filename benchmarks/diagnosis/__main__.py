"""The command: `python -m benchmarks.diagnosis PART`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

for _threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_threads, "1")  # before NumPy is loaded: small products gain nothing from threads

from benchmarks.diagnosis import gate, harm, split, tables  # noqa: E402
from benchmarks.diagnosis.bases import BASES  # noqa: E402
from benchmarks.diagnosis.faults import FAULTS  # noqa: E402
from benchmarks.diagnosis.measure import Outcome, jobs, measure  # noqa: E402
from benchmarks.diagnosis.programs import EVERY_STEP, SELDOM  # noqa: E402
from benchmarks.diagnosis.zoo import MOST_LOST, SEEDS, ZOO, examine  # noqa: E402

PARTS = {
    "develop": "the part on which thresholds are set",
    "held-out": "the part whose figures count",
    "all": "both",
    "ci": "a small part of develop; exit 1 when recall drops or a false alarm appears",
    "harm": "train every pair and write harm.json anew, without any check",
    "zoo": "show that every program of the zoo learns and does not overfit; exit 1 otherwise, without any check",
    "list": "bases, faults and zoo",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run what was asked for; the exit status."""
    options = _parser().parse_args(argv)
    if options.part == "list":
        print("\n".join(listing()))
        return 0
    with workers(options.jobs) as apply:
        if options.part == "harm":
            harm.write(harm.measure(apply))
            return 0
        return check_zoo(apply) if options.part == "zoo" else run(options, apply)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m benchmarks.diagnosis", description="The fault matrix and the zoo.",
                                     epilog="; ".join(f"{part}: {what}" for part, what in PARTS.items()))  # fmt: skip
    parser.add_argument("part", choices=PARTS, nargs="?", default="develop")
    parser.add_argument("--jobs", type=int, default=2, help="processes (2)")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there, too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every outcome there")
    parser.add_argument(
        "--base", choices=[*BASES, *ZOO], metavar="NAME", default="", help="of this base or zoo program"
    )
    parser.add_argument("--fault", choices=FAULTS, metavar="NAME", default="", help="of this fault")
    parser.add_argument("--verbose", action="store_true", help="tell of each miss and each false alarm")
    parser.add_argument("--update", action="store_true", help="with ci: make what is measured the floor")
    parser.add_argument("--seldom", action="store_true", help="read as few steps as the default ever does, and not all")
    return parser


def run(options: argparse.Namespace, apply: harm.Apply) -> int:
    """Measure and tell; 1 where a floor is broken."""
    chosen = gate.jobs() if options.part == "ci" else jobs(options.part, options.base, options.fault)
    outcomes: list[Outcome] = list(apply(partial(measure, cadence=SELDOM if options.seldom else EVERY_STEP), chosen))
    publish(options, outcomes)
    return gated(options, outcomes, gate.FILE) if options.part == "ci" else 0


def publish(options: argparse.Namespace, outcomes: Sequence[Outcome]) -> None:
    """Print the tables, and write them and the outcomes into the files asked for."""
    if options.verbose:
        print("\n".join(tables.details(outcomes)))
    text = tables.report(outcomes)
    print(text)
    if options.markdown:
        options.markdown.write_text(text, encoding="utf-8")
    if options.json:
        options.json.write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=1), encoding="utf-8")


def gated(options: argparse.Namespace, outcomes: Sequence[Outcome], file: Path) -> int:
    """1 where a floor of `file` is broken; with --update what was measured becomes the floor first."""
    if options.update:
        gate.update(outcomes, file)
    worse = list(gate.broken(outcomes, file))
    print("\n".join(worse) or "the floors are kept")
    return int(bool(worse))


def check_zoo(apply: harm.Apply) -> int:
    """Train the zoo; 1 where a program is not sound."""
    wanted = [(name, seed) for name in ZOO for seed in SEEDS]
    found = list(zip(wanted, apply(examine, wanted), strict=True))
    unsound = [
        f"{name} (seed {seed}): error {seen.error:.3f}, at most {ZOO[name].most}; lost {seen.lost:.0%}"
        for (name, seed), seen in found
        if not (seen.error <= ZOO[name].most and seen.lost <= MOST_LOST)
    ]
    print("\n".join(unsound) or f"{len(ZOO)} programs are sound with {len(SEEDS)} seeds each")
    return int(bool(unsound))


def listing() -> Iterator[str]:
    """Everything there is, with what is held out."""
    for kind, names in (("base", BASES), ("fault", FAULTS), ("zoo", ZOO)):
        for name in names:
            part = "held-out" if split.held_out(kind, name) else "develop"
            text = FAULTS[name].summary if kind == "fault" else ZOO[name].kind if kind == "zoo" else BASES[name].task
            yield f"{kind:<6} {part:<9} {name:<34} {text}"
    yield f"{len(BASES)} bases, {len(FAULTS)} faults, {len(list(harm.cases()))} cases, {len(ZOO)} programs in the zoo"


@contextmanager
def workers(count: int) -> Iterator[harm.Apply]:
    """`map` over this many processes, which tells on standard error how far it is."""
    if count < 2:
        yield partial(_counted, map)
        return
    with ProcessPoolExecutor(count) as pool:
        yield partial(_counted, partial(pool.map, chunksize=4))


def _counted(apply: harm.Apply, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
    begun = time.monotonic()
    for number, result in enumerate(apply(function, items), start=1):
        if number % 50 == 0 or number == len(items):
            print(f"{number} of {len(items)}, {time.monotonic() - begun:.0f} s", file=sys.stderr)
        yield result


if __name__ == "__main__":
    sys.exit(main())
