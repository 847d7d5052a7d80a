"""How long each check takes on a run of 10,000 steps and 50 layers: `python benchmarks/checks.py`."""

from __future__ import annotations

import time

import numpy as np

from nndiag import Checklist, testing
from nndiag.catalogue import catalogue
from nndiag.check import Check
from nndiag.meta import LayerMeta
from nndiag.run import Run

STEPS, LAYERS, TRIES = 10_000, 50, 5


def long_run() -> Run:
    """The run, with noise in every column of every frame."""
    rng = np.random.default_rng(0)
    layers = [LayerMeta(f"l{i}", "relu" if i % 2 else "affine", (8,)) for i in range(LAYERS)]
    return testing.filled(STEPS, lambda n: np.abs(rng.standard_normal(n)), layers)


def seconds(check: Check, run: Run) -> float:
    """Best of some tries, in processor time; the frames of the run are there already."""
    best = np.inf
    for _ in range(TRIES):
        begun = time.process_time()
        with np.errstate(all="ignore"):
            if check.not_checked(run) is None:
                list(check.examine(run))
        best = min(best, time.process_time() - begun)
    return float(best)


def main() -> None:
    whole = long_run()
    begun = time.process_time()
    run = whole.thinned()
    print(f"thinning {STEPS:,} steps to {len(run.train):,} reads took {time.process_time() - begun:.2f} s")
    Checklist().examine(run)  # builds the frames
    taken = sorted(((seconds(check(), run), code) for code, check in catalogue().items()), reverse=True)
    for cost, code in taken[:10]:
        print(f"{code}  {1e3 * cost:5.1f} ms")
    print(f"all {len(taken)}: {1e3 * sum(cost for cost, _ in taken):.0f} ms, the slowest {1e3 * taken[0][0]:.1f} ms")


if __name__ == "__main__":
    main()
