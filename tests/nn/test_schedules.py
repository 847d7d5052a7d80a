"""The learning rates that schedules give."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nndiag import nn


def test_cosine_goes_from_lr_over_half_way_to_its_floor_and_stays():
    schedule = nn.Cosine(1.0, steps=10, floor=0.2)

    assert [schedule(step) for step in (0, 5, 10, 99)] == pytest.approx([1.0, 0.6, 0.2, 0.2])


def test_warm_up_ends_where_its_schedule_begins():
    schedule = nn.WarmUp(nn.Cosine(1.0, steps=10), steps=4)

    assert [schedule(step) for step in range(5)] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert schedule(9) == pytest.approx(0.5)


def test_optimizer_follows_its_schedule():
    optimizer = nn.SGD(nn.WarmUp(0.3, steps=3))
    theta = nn.Parameter("theta", "weight", np.zeros(1))

    rates = []
    for _ in range(4):
        rates.append(optimizer.current_lr)
        optimizer.step([theta])

    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.3])
    assert optimizer.updates == 4


@pytest.mark.parametrize(
    ("lr", "base", "text"),
    [
        (0.1, 0.1, "Constant(lr=0.1)"),
        (nn.WarmUp(nn.Cosine(0.2, 9), 5), 0.2, "WarmUp(Cosine(lr=0.2, steps=9, floor=0.0), steps=5)"),
        (math.cos, 1.0, "cos"),
    ],
)
def test_is_described_with_its_base_learning_rate(lr, base, text):
    described = nn.SGD(lr).describe()

    assert (described["lr"], described["schedule"]) == (base, text)


@pytest.mark.parametrize("lr", [-0.1, math.nan, math.inf])
@pytest.mark.parametrize(
    "make", [nn.Constant, lambda lr: nn.Cosine(lr, 5), lambda lr: nn.WarmUp(lr, 5), nn.SGD, nn.Adam]
)
def test_impossible_learning_rate_is_refused(make, lr):
    with pytest.raises(ValueError, match=r"got a learning rate of .*, wanted a finite number, 0 or more"):
        make(lr)


@pytest.mark.parametrize("make", [nn.Cosine, nn.WarmUp])
def test_no_steps_are_refused(make):
    with pytest.raises(ValueError, match="got steps=0, wanted 1 or more"):
        make(0.1, steps=0)


def test_schedule_that_gives_nan_is_named_when_it_does():
    with pytest.raises(ValueError, match="<lambda> got a learning rate of nan"):
        _ = nn.SGD(lambda step: math.nan).current_lr
