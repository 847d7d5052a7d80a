"""All cases that PyTorch is needed for."""

from __future__ import annotations

from benchmarks.faultbench_torch import questions, studies

CASES = {case.id: case for case in (*questions.CASES, *studies.CASES)}
"""Every case by its id."""
