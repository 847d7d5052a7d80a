"""The first loss that is not finite has its step read in full, on whatever cadence."""

from __future__ import annotations

import math

import numpy as np
import pytest

import nndiag
from nndiag import nn
from nndiag.statistics import Array

BROKEN = 7

EARLIER = ("gain", "dead_fraction", "update_norm", "ratio")
"""Statistics that depend on earlier reads, or on the input."""


def data() -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((10 * 16, 6)).astype(np.float32), rng.integers(3, size=10 * 16)


def trained(every: int, hooks: list[nndiag.Hook] | None = None) -> nndiag.Run:
    """Ten steps of which the eighth has weights that are not finite in the second layer."""
    trainer = nn.Trainer(nn.MLP([6, 8, 8, 3]), nn.SoftmaxCrossEntropy(), nn.SGD(lr=0.01))
    recorder = nndiag.watch(trainer, every=every, hooks=hooks)
    x, y = data()
    for number, (xs, ys) in enumerate(zip(np.split(x, 10), np.split(y, 10), strict=True)):
        if number == BROKEN:
            trainer.model.layer("hidden2").parameters[0].value[0, 0] = np.nan
        trainer.step(xs, ys)
    recorder.close()
    return recorder.run


def test_every_layer_and_parameter_of_that_step_is_read() -> None:
    sparse, dense = trained(every=100), trained(every=1)

    assert sparse.meta.first_nonfinite == {"step": BROKEN, "what": "loss"}
    assert sparse.activations.index.tolist() == [0, BROKEN]
    for frame in ("activations", "gradients", "updates"):
        row, same = getattr(sparse, frame).loc[BROKEN], getattr(dense, frame).loc[BROKEN]
        known = [statistic not in EARLIER for statistic, _ in row.index]
        np.testing.assert_allclose(row[known], same[row.index][known], rtol=1e-5)


def test_the_layer_where_it_began_is_named() -> None:
    counts = trained(every=100).activations["nonfinite"].loc[BROKEN]

    assert counts["hidden1.relu"] == 0
    assert counts["hidden2"] > 0


def test_the_steps_after_it_follow_the_cadence_again() -> None:
    assert trained(every=3).activations.index.tolist() == [0, 3, 6, BROKEN, 9]


def test_the_loss_of_every_step_is_there() -> None:
    losses = trained(every=100).losses

    assert losses.index.tolist() == list(range(10))
    assert losses["train"].iloc[:BROKEN].notna().all()
    assert losses["train"].iloc[BROKEN:].isna().all()


def test_weights_are_those_of_training_without_nndiag() -> None:
    x, y = data()
    trainers = [nn.Trainer(nn.MLP([6, 8, 8, 3]), nn.SoftmaxCrossEntropy(), nn.Adam()) for _ in range(2)]
    nndiag.watch(trainers[0], every=100)
    for trainer in trainers:
        trainer.step(x[:16], y[:16])
        trainer.step(x[:16], y[:16])
        trainer.model.layer("output").parameters[1].value[0] = np.inf
        trainer.step(x[:16], y[:16])

    for one, other in zip(trainers[0].model.parameters, trainers[1].model.parameters, strict=True):
        np.testing.assert_array_equal(one.value, other.value)


def test_a_loop_of_ones_own_is_read_from_the_loss_on() -> None:
    recorder = nndiag.Recorder(every=100)
    for step in range(4):
        recorder.activation("h", np.ones((2, 2)))
        recorder.log(loss=math.inf if step == 2 else 1.0)
        recorder.gradient("h.weight", np.ones((2, 2)))
        recorder.step()

    assert recorder.run.gradients.index.tolist() == [0, 2]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_input_that_is_not_finite_is_seen_between_two_reads(bad: float) -> None:
    trainer = nn.Trainer(nn.MLP([6, 8, 3]), nn.SoftmaxCrossEntropy(), nn.SGD(lr=0.01))
    recorder = nndiag.watch(trainer, every=100)
    x, y = data()
    x[3 * 16 + 2, 1] = bad
    for xs, ys in zip(np.split(x, 10), np.split(y, 10), strict=True):
        trainer.step(xs, ys)

    shares = recorder.run.data["nonfinite_fraction", "input"]
    assert shares[3] == pytest.approx(1 / 96)
    assert "ND001" in recorder.check().headlines
