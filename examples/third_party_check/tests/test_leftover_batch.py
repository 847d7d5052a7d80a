"""The check keeps nndiag's contract, sees a real training, and is installed."""

from __future__ import annotations

import numpy as np
import pytest
from nndiag_batches import LeftoverBatch, checks

import nndiag
from nndiag import Checklist, Finding, Run, nn
from nndiag.testing import assert_contract


def trained(samples: int) -> Run:
    """Five epochs in batches of 32."""
    rng = np.random.default_rng(0)
    trainer = nn.Trainer(nn.MLP([4, 8, 3], seed=0), nn.SoftmaxCrossEntropy(), nn.SGD(lr=0.05))
    with nndiag.watch(trainer, every=1, strict=True) as recorder:
        trainer.fit(rng.standard_normal((samples, 4)), np.arange(samples) % 3, epochs=5, batch_size=32)
    return recorder.run


def found(run: Run) -> list[Finding]:
    return list(LeftoverBatch().examine(run))


@pytest.mark.parametrize("check", checks(), ids=lambda check: check.code)
def test_keeps_the_contract(check: type[nndiag.Check]) -> None:
    assert_contract(check)


@pytest.mark.parametrize(("samples", "alarms"), [(160, 0), (160 + 2, 0), (160 + 1, 1)])
def test_decides_between_a_sixteenth_of_a_batch_and_less(samples: int, alarms: int) -> None:
    assert len(found(trained(samples))) == alarms


def test_says_where_and_how_small() -> None:
    (finding,) = found(trained(161))

    assert (finding.first_step, finding.last_step, finding.value) == (5, 29, 1 / 32)
    assert "5 of 30 batches are a rest of as few as 1 samples, where 32 are usual" in finding.message


def test_is_in_the_checklist_by_its_entry_point() -> None:
    report = Checklist(select="leftover-batch").examine(trained(161))

    assert [check.code for check in report.checks] == ["BAT001"]
    assert report.headlines == ("BAT001",)
