"""Run the published programs and print what nndiag says of them: `python -m benchmarks.faultbench --help`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(threads, "1")

from benchmarks.faultbench import score  # noqa: E402 - after the threads are set
from benchmarks.faultbench.program import Case  # noqa: E402

Job = tuple[str, score.Version, int]


def parser(prog: str, cases: Iterable[str]) -> argparse.ArgumentParser:
    """The command line."""
    options = argparse.ArgumentParser(prog=prog, description=__doc__.partition(":")[0])
    options.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: one a core)")
    options.add_argument("--seeds", type=int, default=3, help="runs of each program (default: 3)")
    options.add_argument("--case", action="append", choices=sorted(cases), help="only this case; may come again")
    options.add_argument("--fixed-only", action="store_true", help="only fixed programs and negative controls")
    options.add_argument("--verbose", action="store_true", help="every run in full")
    options.add_argument("--markdown", type=Path, help="write the tables to this file")
    options.add_argument("--json", type=Path, help="write figures and runs to this file")
    return options


def jobs(cases: Iterable[Case], seeds: int, fixed_only: bool) -> Iterator[Job]:
    """What is to be run: each case from each seed, and each fixed version."""
    for case in cases:
        for seed in range(seeds):
            if not fixed_only or case.role == "control":
                yield case.id, "faulty", seed
            if case.fixed is not None:
                yield case.id, "fixed", seed


def main(
    arguments: Sequence[str] | None = None,
    kind: type[score.Result] = score.Result,
    prog: str = "python -m benchmarks.faultbench",
) -> int:
    """Run the cases of `kind`, print, write."""
    options = parser(prog, kind.cases).parse_args(arguments)
    cases = [kind.cases[case_id] for case_id in options.case or kind.cases]
    results = list(run(list(jobs(cases, options.seeds, options.fixed_only)), options.jobs, kind))
    if options.verbose:
        print("\n".join(map(score.verbose, results)), end="\n\n")
    text = score.to_markdown(results, options.seeds)
    print(text)
    if options.markdown:
        options.markdown.write_text(text + "\n", "utf-8")
    if options.json:
        options.json.write_text(score.to_json(results, options.seeds) + "\n", "utf-8")
    return 0


def run(work: Sequence[Job], processes: int, kind: type[score.Result]) -> Iterator[score.Result]:
    """The result of each job, in order, with a count of them on stderr."""
    with ProcessPoolExecutor(max(1, min(processes, len(work))), get_context("spawn")) as pool:
        for number, result in enumerate(pool.map(partial(score.judge, kind=kind), *zip(*work, strict=True)), 1):
            print(f"\r{number} of {len(work)} runs", end="", file=sys.stderr, flush=True)
            yield result
    print(file=sys.stderr)


if __name__ == "__main__":
    raise SystemExit(main())
