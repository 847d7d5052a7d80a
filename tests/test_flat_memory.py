"""Memory does not grow with the length of a run: real processes, and what the system says of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import long_runs

STEPS = 20_000
"""Rows of so many steps of 50 layers take 180 MB."""


def measured(task: str, path: Path | None) -> dict[str, float]:
    """What a task of the benchmark gives in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.long_runs", task, str(STEPS), *([str(path)] if path else [])]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True,
                          cwd=Path(long_runs.__file__).parent.parent)  # fmt: skip
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")


def test_recording_in_memory_takes_no_more_than_its_share() -> None:
    assert measured("record", None)["peak"] < 150


def test_recording_into_a_folder_and_judging_it_takes_little_memory(tmp_path: Path) -> None:
    recorded = measured("record", tmp_path / "run")
    checked = measured("check", tmp_path / "run")

    assert recorded["peak"] < 100
    assert checked["peak"] < 150
    assert (tmp_path / "run/thinned/state.json").exists()


def test_going_through_a_whole_folder_takes_little_memory(tmp_path: Path) -> None:
    measured("record", tmp_path / "run")
    for file in (tmp_path / "run/thinned").iterdir():
        file.unlink()

    assert measured("check", tmp_path / "run")["peak"] < 150
