"""The command: `python -m benchmarks.diagnosis_torch PART`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from benchmarks.diagnosis import harm as shared_harm
from benchmarks.diagnosis import split
from benchmarks.diagnosis.__main__ import gated, publish, workers
from benchmarks.diagnosis.programs import EVERY_STEP, SELDOM
from benchmarks.diagnosis_torch import gate, harm
from benchmarks.diagnosis_torch.bases import BASES
from benchmarks.diagnosis_torch.faults import FAULTS, pairs
from benchmarks.diagnosis_torch.measure import jobs, measure
from benchmarks.diagnosis_torch.zoo import SEEDS, ZOO, examine

PARTS = {
    "develop": "the part on which thresholds are set",
    "held-out": "the part whose figures count",
    "all": "both",
    "ci": "a small part of develop; exit 1 when recall drops or a false alarm appears",
    "harm": "train every pair and write harm.json anew, without any check",
    "zoo": "show that every program of the zoo learns; exit 1 otherwise, without any check",
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
            shared_harm.write(harm.measure(apply), harm.FILE)
            return 0
        if options.part == "zoo":
            return check_zoo(apply)
        wanted = options.part, options.base, options.fault, options.group
        chosen = gate.jobs() if options.part == "ci" else jobs(*wanted)
        cadence = SELDOM if options.seldom else EVERY_STEP
        outcomes = list(apply(partial(measure, cadence=cadence, logged=not options.unlogged), chosen))
    publish(options, outcomes)
    return gated(options, outcomes, gate.FILE) if options.part == "ci" else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m benchmarks.diagnosis_torch", description="Fault matrix and zoo in PyTorch.",
                                     epilog="; ".join(f"{part}: {what}" for part, what in PARTS.items()))  # fmt: skip
    parser.add_argument("part", choices=PARTS, nargs="?", default="develop")
    parser.add_argument("--jobs", type=int, default=2, help="processes (2)")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there, too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every outcome there")
    parser.add_argument(
        "--base", choices=[*BASES, *ZOO], metavar="NAME", default="", help="of this base or zoo program"
    )
    parser.add_argument("--fault", choices=FAULTS, metavar="NAME", default="", help="of this fault")
    parser.add_argument(
        "--group", choices=("bases", "zoo"), default="", help="the bases and their faults, or the zoo, alone"
    )
    parser.add_argument("--verbose", action="store_true", help="tell of each miss and each false alarm")
    parser.add_argument("--update", action="store_true", help="with ci: make what is measured the floor")
    parser.add_argument("--seldom", action="store_true", help="read as few steps as the default ever does, and not all")
    parser.add_argument("--unlogged", action="store_true", help="log no loss of training: what goes back is seen")
    return parser


def check_zoo(apply: shared_harm.Apply) -> int:
    """Train the zoo; 1 where a program has not learned."""
    wanted = [(name, seed) for name in ZOO for seed in SEEDS]
    found = list(zip(wanted, apply(examine, wanted), strict=True))
    unsound = [
        f"{name} (seed {seed}): error {error:.3g}, at most {ZOO[name].most}"
        for (name, seed), error in found
        if error > ZOO[name].most
    ]
    print("\n".join(unsound) or f"{len(ZOO)} programs are sound with {len(SEEDS)} seeds each")
    return int(bool(unsound))


def listing() -> Iterator[str]:
    """Everything there is, with what is held out."""
    for name in BASES:
        yield f"base   {_part('base', name):<9} {name:<34} {BASES[name].task}"
    for name, fault in FAULTS.items():
        yield f"fault  {_part('fault', name):<9} {name:<34} {fault.summary}"
    for name, program in ZOO.items():
        yield f"zoo    develop   {name:<34} {program.kind}"
    counts = f"{len(BASES)} bases, {len(FAULTS)} faults, {len(pairs())} pairs, {len(list(harm.cases()))} cases"
    yield f"{counts}, {len(ZOO)} programs in the zoo"


def _part(kind: str, name: str) -> str:
    return "held-out" if split.held_out(kind, name) else "develop"


if __name__ == "__main__":
    sys.exit(main())
