"""Measures what nndiag costs a step of PyTorch: `python -m benchmarks.overhead_torch [A C T A-AdamW C-AdamW] [--others]`.

CPU time on one thread, float32, everything interleaved in one run: in every round each variant trains a block of steps with
its hooks on and one with them off, the same training in the same memory, in an order of its own. The tables hold the median
ratio of the two with its 95 % interval. `--profile` says instead what each hook and each function of the adapter costs.
"""

from __future__ import annotations

import os
import sys

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
if __name__ == "__main__" and any(os.environ.get(name) != "1" for name in THREADS):
    environment = os.environ | dict.fromkeys(THREADS, "1")
    os.execve(sys.executable, [sys.executable, "-m", "benchmarks.overhead_torch", *sys.argv[1:]], environment)

import argparse  # noqa: E402 - after the threads are set
from collections import defaultdict  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402

from benchmarks.overhead_torch.loop import Attach, Block  # noqa: E402
from benchmarks.overhead_torch.networks import NETWORKS, Network  # noqa: E402
from benchmarks.overhead_torch.others import OTHERS, quiet  # noqa: E402
from benchmarks.overhead_torch.profile import profile  # noqa: E402
from benchmarks.overhead_torch.variants import LIMITS, VARIANTS  # noqa: E402
from benchmarks.trainer import median  # noqa: E402
from nndiag.statistics import Array  # noqa: E402

BARE = "bare"
LEAST = 4
"""Rounds from which on a median has an interval."""

WARM_UP = 60
"""Steps before the first timing: the first 50 are read by "auto" whatever they cost."""

FEW = 3
"""Steps of a block, and steps before the first timing, of tools that multiply the time of a step."""

PROFILED = ("all hooks, every step", "light hooks, every step")

Results = dict[str, Array | str]
"""Ratios of each variant, and the bare step's ms; or why a variant could not be measured."""


def ratios(network: Network, rounds: int, variants: dict[str, Attach], steps: int, warm_up: int) -> Results:
    """CPU time of a step over that of the bare step beside it, for every variant, and the bare step's in ms."""
    blocks: dict[str, Block] = {}
    results: Results = {BARE: ""}
    for name, attach in variants.items():
        try:
            blocks[name] = Block(network, attach, steps, warm_up)
        except ModuleNotFoundError as missing:
            results[name] = f"not installed: {missing.name}"
        except Exception as fault:
            if name in VARIANTS:
                raise
            results[name] = f"fails: {type(fault).__name__}: {' '.join(str(fault).split())[:120]}"
    rng = np.random.default_rng(0)
    taken: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        for name in rng.permutation(list(blocks)).tolist():
            bare, attached = blocks[name].pair(bool(rng.integers(2)))
            taken[BARE].append(1e3 * bare)
            taken[name].append(attached / bare)
    for block in blocks.values():
        block.close()
    return results | {name: np.array(values) for name, values in taken.items()}


def table(results: dict[str, Results], names: list[str]) -> Iterator[str]:
    """A Markdown table: a row for each variant, a column for each network."""
    yield f"| PyTorch {torch.__version__}, float32 | {' | '.join(results)} |"
    yield f"| --- |{' --- |' * len(results)}"
    for name in [BARE, *names]:
        cells = [_cell(name, network, result[name]) for network, result in results.items()]
        yield f"| {'bare step, ms' if name == BARE else name} | {' | '.join(cells)} |"


def _cell(name: str, network: str, values: Array | str) -> str:
    if isinstance(values, str):
        return values
    middle, low, high = median(values)
    if name == BARE:
        return f"{middle:.2f}"
    digits = 3 if middle < 10 else 0
    cell = f"{middle:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
    limit = LIMITS.get(name, {}).get(network)
    return cell if limit is None else f"{cell} {'≤' if middle <= limit else '**>**'} {limit:.2f}"


def main() -> int:
    """Print the tables, and write them to a file where one is given; 1 when a limit is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", default=list(NETWORKS), metavar="NETWORK")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--steps", type=int, help="steps of a block: many short ones, where the machine has other work")
    parser.add_argument("--only", metavar="START", default="", help="variants of nndiag whose names start so")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--others", action="store_true", help="other tools too, those that are installed")
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    options = parser.parse_args()
    if options.rounds < LEAST:
        parser.error(f"--rounds {options.rounds}: wanted {LEAST} or more, for the interval of the median")
    if unknown := set(options.networks) - set(NETWORKS):
        parser.error(f"no network {', '.join(sorted(unknown))}; there are {', '.join(NETWORKS)}")
    if options.steps is not None and options.steps < 1:
        parser.error(f"--steps {options.steps}: wanted 1 or more")
    if not any(name.startswith(options.only) for name in VARIANTS):
        parser.error(f"no variant starts with {options.only!r}; there are {', '.join(VARIANTS)}")
    torch.set_num_threads(1)
    networks = [NETWORKS[name] for name in options.networks]
    lines: list[str] = []
    if options.profile:
        for network in networks:
            for name in PROFILED:
                lines += [*profile(network, VARIANTS[name], name, 4 * network.block, WARM_UP), ""]
    else:
        variants = {name: attach for name, attach in VARIANTS.items() if name.startswith(options.only)}
        ours = {n.name: ratios(n, options.rounds, variants, options.steps or n.block, WARM_UP) for n in networks}
        lines += [*table(ours, list(variants)), ""]
    if options.others:
        quiet()
        theirs = {n.name: ratios(n, max(LEAST, options.rounds // 4), OTHERS, FEW, FEW) for n in networks}
        lines += [*table(theirs, list(OTHERS)), ""]
    text = "\n".join(lines)
    print(text)
    if options.markdown:
        options.markdown.write_text(text, encoding="utf-8")
    return int("**>**" in text)


if __name__ == "__main__":
    sys.exit(main())
