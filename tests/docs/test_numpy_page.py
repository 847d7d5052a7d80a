"""The page on the NumPy trainer: its code runs, and it names all there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nndiag import nn

PAGE = (Path(__file__).parents[2] / "docs/numpy.md").read_text(encoding="utf-8")


def test_its_program_trains_and_is_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, object] = {}
    monkeypatch.chdir(tmp_path)

    exec(code, names)

    assert names["history"][-1]["validation_accuracy"] > 0.95  # type: ignore[index]
    assert names["recorder"].check().verdict.value == "pass"  # type: ignore[attr-defined]
    assert (tmp_path / "digits.npz").exists()


@pytest.mark.parametrize("name", nn.__all__)
def test_it_names(name: str) -> None:
    assert re.search(rf"`(nn\.)?{name}\b", PAGE)
