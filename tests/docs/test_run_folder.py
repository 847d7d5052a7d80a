"""The page on the run folder: its code does what it says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nndiag import Recorder, open_run

PAGE = Path(__file__).parent.parent.parent / "docs/run_folder.md"


def test_a_run_is_read_as_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Recorder(tmp_path / "runs/digits", every=1) as recorder:
        for step in range(5):
            recorder.gradient("hidden1.weight", np.full((2, 2), float(step)))
            recorder.step()
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert code is not None
    names: dict[str, Any] = {}
    monkeypatch.chdir(tmp_path)

    exec(code[1], names)

    wanted = open_run("runs/digits").gradients["norm", "hidden1.weight"]
    assert names["steps"].tolist() == wanted.index.tolist()
    assert names["norms"].tolist() == wanted.tolist()
