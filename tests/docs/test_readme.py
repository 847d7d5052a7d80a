"""The README says what is true."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from nndiag.cli import main
from nndiag.demo import FAULTS
from nndiag.statistics import Array

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_two_commands_stand_at_the_top() -> None:
    commands = re.findall(r"```\n(.*?)\n```", README, re.DOTALL)

    assert commands[:2] == ["pip install . && nndiag demo", "pip install '.[test]' && pytest -n auto"]


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+?)\)", README)

    assert links
    assert all((ROOT / link).exists() for link in links if "://" not in link)


def test_every_command_shown_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    shown = set(re.findall(r"nndiag (demo|[a-z]+)(?= [A-Z`-]|$| runs)", README))

    for command in shown:
        with pytest.raises(SystemExit) as exit:
            main([command, "--help"])
        assert exit.value.code == 0
    assert {"check", "report", "export"} <= shown


@pytest.mark.parametrize("fault", re.findall(r"--fault ([a-z-]+)", README))
def test_every_fault_shown_is_one(fault: str) -> None:
    assert fault in FAULTS or fault == "list"


def test_the_code_of_the_first_minute_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from nndiag.datasets import digits

    code = re.findall(r"```python\n(import nndiag.*?)```", README, re.DOTALL)[0]
    monkeypatch.chdir(tmp_path)
    split = digits()._asdict()

    exec(code, split)

    assert capsys.readouterr().out.startswith("PASS  digits: 460 steps")


def test_the_code_of_a_loop_of_your_own_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import nndiag
    from nndiag.datasets import digits

    code = re.findall(r"```python\n(recorder = nndiag.Recorder.*?)```", README, re.DOTALL)[0]
    monkeypatch.chdir(tmp_path)
    x_train, y_train, x_val, y_val = digits()
    rng = np.random.default_rng(0)
    shapes = {"w1": (64, 32), "b1": (32,), "w2": (32, 10), "b2": (10,)}
    parameters = {name: rng.normal(0, 0.2, shape) * (len(shape) > 1) for name, shape in shapes.items()}
    w1, b1, w2, b2 = parameters.values()

    def cross_entropy(logits: Array, y: Array) -> tuple[float, Array]:
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        return float(-np.log(p[np.arange(len(y)), y]).mean()), (p - np.eye(10)[y]) / len(y)

    def backward(x: Array, h: Array, logits: Array, y: Array) -> tuple[float, list[Array]]:
        loss, delta = cross_entropy(logits, y)
        below = (delta @ w2.T) * (h > 0)
        return loss, [x.T @ below, below.sum(axis=0), h.T @ delta, delta.sum(axis=0)]

    def batches() -> Iterator[tuple[Array, Array]]:
        for rows in np.array_split(rng.permutation(len(x_train)), 23):
            yield x_train[rows], y_train[rows]

    def validate() -> float:
        return cross_entropy(np.maximum(x_val @ w1 + b1, 0) @ w2 + b2, y_val)[0]

    names = {"nndiag": nndiag, "np": np, "parameters": parameters, "batches": batches, "backward": backward}
    exec(code, {**names, "validate": validate, **parameters})

    printed = capsys.readouterr().out
    assert printed.startswith("PASS  own: 460 steps")
    assert "PASS         ND702  underfitting" in printed


def test_the_code_of_the_live_checks_runs(capsys: pytest.CaptureFixture[str]) -> None:
    import nndiag
    from nndiag.datasets import digits

    code = next(code for code in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "on_finding" in code)
    x, y, x_val, y_val = digits()

    exec(code, {"nndiag": nndiag, "nn": nndiag.nn, "x": x, "y": y, "x_val": x_val, "y_val": y_val})

    assert capsys.readouterr().out.startswith("stopped ND501 learning-rate-high: the loss rises from")


@pytest.mark.frameworks
def test_the_code_for_pytorch_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch = pytest.importorskip("torch")
    from nndiag.datasets import digits

    code = next(code for code in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "nndiag.watch(model" in code)
    torch.manual_seed(0)
    monkeypatch.chdir(tmp_path)
    x, y, x_val, y_val = (torch.from_numpy(part) for part in digits())
    model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
    loader = list(zip(x.split(64), y.split(64), strict=True))

    exec(code, {"model": model, "optimizer": torch.optim.AdamW(model.parameters(), lr=3e-3), "epochs": 10,
                "loss_fn": torch.nn.CrossEntropyLoss(), "loader": loader, "x_val": x_val, "y_val": y_val})  # fmt: skip

    assert capsys.readouterr().out.startswith("PASS  a: 23")
    assert (tmp_path / "runs" / "a" / "run.json").exists()
