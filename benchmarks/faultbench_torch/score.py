"""Runs of the PyTorch half, judged and counted as those of the NumPy half are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from benchmarks.faultbench import score
from benchmarks.faultbench.program import Case
from benchmarks.faultbench_torch.programs import CASES


class Result(score.Result):
    """What nndiag said of one run of a PyTorch program."""

    cases: ClassVar[Mapping[str, Case]] = CASES
