"""Run the published programs in PyTorch and print what nndiag says: `python -m benchmarks.faultbench_torch --help`."""

from __future__ import annotations

from benchmarks.faultbench.__main__ import main
from benchmarks.faultbench_torch.score import Result

if __name__ == "__main__":
    raise SystemExit(main(kind=Result, prog="python -m benchmarks.faultbench_torch"))
