"""Every example runs from an empty folder, says what it promises, and leaves nothing behind but what it was asked for."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
NOTEBOOK = EXAMPLES / "theory_notebook.ipynb"


def output_of(script: str, *arguments: str, cwd: Path) -> str:
    """What the script prints; it must end well and keep stderr, where warnings go, empty."""
    command = [sys.executable, str(EXAMPLES / script), *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, encoding="utf-8", timeout=600, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_digits_is_healthy_on_all_six_points_and_stays_in_memory(tmp_path: Path):
    printed = output_of("digits.py", cwd=tmp_path)

    assert re.search(r"^PASS  run: 460 steps, completed", printed, re.MULTILINE)
    assert len(re.findall(r"^  \d\. PASS ", printed, re.MULTILINE)) == 6
    assert list(tmp_path.iterdir()) == []


def test_digits_records_into_the_folder_that_it_is_given(tmp_path: Path):
    printed = output_of("digits.py", "--run", "digits", cwd=tmp_path)

    assert "PASS  digits: 460 steps, completed" in printed
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]


def test_own_loop_passes_and_leaves_open_only_what_a_loop_of_two_layers_cannot_answer(tmp_path: Path):
    printed = output_of("own_loop.py", cwd=tmp_path)

    assert re.search(r"^PASS  own-loop: 345 steps, completed", printed, re.MULTILINE)
    open_checks = re.findall(r"^  NOT CHECKED  (\w+) .*$", printed, re.MULTILINE)
    assert {code for code in open_checks if code.startswith("NDP")} == {f"NDP0{i}" for i in range(1, 10)}
    assert {"ND004", "ND302", "ND401", "ND404", "ND507", "ND509", "ND902"} < set(open_checks)


def test_own_hook_lands_in_the_metrics_and_tells_sound_steps_from_wild_ones(tmp_path: Path):
    printed = output_of("own_hook.py", cwd=tmp_path)

    assert "gradient_cosine" in printed
    cosines = {lr: float(cosine) for lr, cosine in re.findall(r"lr = (\S+)  median cosine (\S+)", printed)}
    assert cosines["0.1"] > 0.9
    assert cosines["1.0"] < 0


def test_own_parts_pass_and_their_gradients_agree(tmp_path: Path):
    printed = output_of("own_parts.py", cwd=tmp_path)

    assert printed.startswith("PASS  run: 1200 steps, completed; healthy")
    assert "gradients: gradients agree with finite differences" in printed


def test_live_checks_end_two_of_three_trainings_and_the_one_with_a_nan(tmp_path: Path):
    printed = output_of("live_checks.py", cwd=tmp_path)

    ends = re.findall(r"^lr = (\S+): (\w+) after (\d+) updates", printed, re.MULTILINE)
    assert ends == [("3", "stopped", "150"), ("1e-06", "stopped", "100"), ("0.1", "completed", "460")]
    assert re.search(
        r"^(WARN|FAIL) ND501 learning-rate-high, .*; fix: Try lr = 0.03 instead of 3", printed, re.MULTILINE
    )
    assert "to the phone: FAIL ND001 nonfinite-input, at step 0" in printed
    assert "stopped after 1 updates: ND001 nonfinite-input" in printed


def test_sick_runs_names_each_fault_by_its_own_headline(tmp_path: Path):
    printed = output_of("sick_runs.py", "--out", "gallery", cwd=tmp_path)

    found = re.findall(r"^(\S+): .*\n  (?:PASS|FAIL\n  (\w+))", printed, re.MULTILINE)
    assert dict(found) == {
        "healthy": "",
        "lr-too-high": "ND501",
        "lr-too-low": "ND502",
        "dead-relu": "ND205",
        "vanishing-gradients": "ND203",
        "exploding-gradients": "ND203",
        "zero-init": "ND202",
        "unscaled-input": "ND002",
        "overfitting": "ND701",
        "nan-input": "ND001",
        "double-softmax": "ND101",
        "shuffled-labels": "ND707",
    }
    assert (tmp_path / "gallery" / "losses.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "gallery" / "zero-init.md").read_text(encoding="utf-8").startswith("# FAIL")


def stored_notebook() -> Any:
    return pytest.importorskip("nbformat").read(NOTEBOOK, as_version=4)


def test_the_stored_notebook_has_the_lessons_13_sections_each_with_its_diagnosis():
    text = "\n".join(cell.source for cell in stored_notebook().cells if cell.cell_type == "markdown")

    sections = re.findall(r"^## (\d+)\. .*$", text, re.MULTILINE)
    assert sections == [str(number) for number in range(1, 14)]
    for section in re.split(r"^## \d+\. ", text, flags=re.MULTILINE)[1:]:
        assert "### What the diagnosis adds" in section


def test_the_stored_notebook_is_executed_and_small_enough_to_read_on_the_web():
    outputs = [output for cell in stored_notebook().cells for output in cell.get("outputs", [])]

    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 4
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    assert NOTEBOOK.stat().st_size < 600_000


def test_every_cell_of_the_notebook_runs(tmp_path: Path):
    pytest.importorskip("ipykernel")
    nbclient = pytest.importorskip("nbclient")
    notebook = stored_notebook()

    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()

    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")


@pytest.mark.frameworks
def test_a_pytorch_network_is_watched_and_healthy(tmp_path: Path):
    pytest.importorskip("torch")

    printed = output_of("torch_digits.py", "--run", "digits", cwd=tmp_path)

    assert re.search(r"^PASS  digits: 18\d steps, completed", printed, re.MULTILINE)
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]
