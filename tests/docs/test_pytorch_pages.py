"""The code of the pages on PyTorch runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nndiag import Report, open_run

torch = pytest.importorskip("torch")

DOCS = Path(__file__).parents[2] / "docs"


def code(page: str) -> str:
    """All Python of a page."""
    return "\n".join(re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL))


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names that a reader of these pages has: a model, its optimiser, its loss and data."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    x = torch.randn(320, 4)
    y = (x[:, 0] > x[:, 1]).long()
    data = torch.utils.data.TensorDataset(x[:256], y[:256])
    model = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2))
    return {
        "torch": torch, "model": model, "optimizer": torch.optim.Adam(model.parameters(), lr=1e-2), "epochs": 5,
        "loss_fn": torch.nn.CrossEntropyLoss(), "x_val": x[256:], "y_val": y[256:], "x": x, "y": y,
        "loader": torch.utils.data.DataLoader(data, batch_size=16, shuffle=True, generator=torch.Generator().manual_seed(0)),
    }  # fmt: skip


def test_who_comes_from_wandb_watch_gets_a_run_with_all_that_is_said(
    program: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    exec(code("from_wandb_watch.md"), program)

    run = open_run("runs/a")
    assert capsys.readouterr().out.startswith("PASS  a: 80 steps")
    assert (len(run.train), len(run.validation), run.meta.ended) == (80, 5, "completed")
    assert np.isfinite(run.activations["gradient_rms"].to_numpy()).any()
    assert set(run.updates["ratio"].columns) == {f"{layer}.{kind}" for layer in "02" for kind in ("weight", "bias")}


def test_the_probes_of_the_page_on_pytorch_run(program: dict[str, Any]) -> None:
    import nndiag

    with nndiag.watch(program["model"], program["optimizer"]) as recorder:
        exec(code("pytorch.md"), {**program, "recorder": recorder})

    report = recorder.check()
    assert isinstance(report, Report)
    assert {code for code in recorder.meta.probes if code.startswith("NDP")} >= {"NDP01", "NDP02", "NDP04"}
