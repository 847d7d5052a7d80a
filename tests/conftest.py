"""Fixtures that several test modules share."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import settings

import nndiag
from nndiag import nn, synthetic
from nndiag.statistics import Array

settings.register_profile("the same examples every time", derandomize=True)
settings.load_profile("the same examples every time")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):  # type: ignore[no-untyped-def]
    """In CI's run with frameworks, a skipped test is a hole in the net: make it fail, unless it needs a GPU."""
    report = yield
    skipped = report.skipped and not hasattr(report, "wasxfail") and "needs a GPU" not in str(report.longrepr)
    if os.environ.get("NNDIAG_CI") and skipped:
        report.outcome, report.longrepr = "failed", f"skipped in CI: {report.longrepr}"
    return report


@pytest.fixture
def data() -> tuple[Array, Array]:
    """A small problem with three classes that a network learns in a few steps: inputs (96, 8), ids (96,)."""
    rng = np.random.default_rng(0)
    y = np.arange(96) % 3
    x = rng.standard_normal((96, 8)) + 2.0 * np.eye(3, 8)[y]
    return x.astype(np.float32), y


@pytest.fixture
def trainer() -> nn.Trainer:
    """An untrained MLP for `data`."""
    return nn.Trainer(nn.MLP([8, 16, 12, 3], seed=0), nn.SoftmaxCrossEntropy(), nn.SGD(lr=0.05, momentum=0.9))


@pytest.fixture
def run(trainer: nn.Trainer, data: tuple[Array, Array]) -> nndiag.Run:
    """The record of 10 epochs of 6 steps, with validation."""
    x, y = data
    with nndiag.watch(trainer, every=1, strict=True) as recorder:
        trainer.fit(x, y, validation=(x[:30], y[:30]), epochs=10, batch_size=16)
    return recorder.run


@pytest.fixture
def whole_run(run: nndiag.Run) -> nndiag.Run:
    """`run` with every frame there is: with what an adapter sees of the loop, too."""
    mode = np.where(np.arange(60) % 6, np.nan, 0.0)
    loop = synthetic.run(steps=60, loop={"backward_passes": 1.0, "updates": 1.0, "training_mode": mode})
    return nndiag.Run(run.meta, {**run.tables, **loop.tables})
