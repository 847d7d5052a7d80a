"""The first samples one by one: how many are different, codes for what is missing, a feature that is the target."""

from __future__ import annotations

import numpy as np
import pytest

import nndiag
from nndiag import nn
from nndiag.samples import SQUEEZED, FirstSamples, coded, leaking
from nndiag.statistics import Array

RNG = np.random.default_rng


def looked(x: Array, y: Array, size: int = 64) -> FirstSamples:
    """What is known after batches of that size."""
    first = FirstSamples()
    for start in range(0, len(x), size):
        first.inputs(x[start : start + size])
        first.targets(y[start : start + size])
    return first


def table(samples: int = 600, features: int = 5) -> Array:
    return RNG(0).normal(size=(samples, features)).astype(np.float32)


def test_samples_are_told_apart() -> None:
    x = table()
    first = looked(x, x[:, 0])
    assert (first.count, first.distinct) == (512, 512)

    few = looked(x[RNG(1).integers(0, 7, 600)], x[:, 0])
    assert (few.count, few.distinct) == (512, 7)


def test_many_features_are_looked_at_in_part() -> None:
    x = table(64, 3000)
    x[:, 600] = np.where(np.arange(64) % 8 == 0, -9999, x[:, 600])
    first = looked(x, 3 * x[:, 900] + 1)

    assert first.code[:2] == (600, -9999)
    assert first.leak[1] == 900


@pytest.mark.parametrize(("gap", "found"), [(0.9, True), (1.1, False)])
def test_a_code_squeezes_the_others(gap: float, found: bool) -> None:
    x = table(512, 3).astype(np.float64)
    x[:, 1] -= x[:, 1].mean()
    missing = np.arange(512) % 16 == 0
    share, spread = 1 / 16, x[~missing, 1].std()
    # with a share p at distance d from the others of spread s, the spread of all is sqrt((1 - p) s^2 + p (1 - p) d^2)
    distance = spread * np.sqrt((1 / (SQUEEZED * gap) ** 2 - (1 - share)) / (share * (1 - share)))
    x[missing, 1] = x[~missing, 1].mean() - distance
    feature, value, part, ratio = coded(x)

    assert bool(np.isnan(feature)) is not found
    if found:
        assert (feature, value, part) == (1, x[0, 1], share)
        assert ratio == pytest.approx(SQUEEZED * gap)


@pytest.mark.parametrize(
    "column",
    [
        lambda x: (x > 2).astype(float),  # an indicator, which has no other values
        lambda x: np.where(x > 0, x, 0.0),  # a ReLU
        lambda x: np.where(np.arange(len(x)) < 2, -9999, x),  # of two samples it may be chance
        lambda x: np.exp(4 * x),  # a long tail
        lambda x: np.round(10 * x),
    ],
)
def test_what_is_no_code(column) -> None:  # type: ignore[no-untyped-def]
    x = table(512, 3).astype(np.float64)
    x[:, 2] = column(x[:, 2])

    assert np.isnan(coded(x)).all()


def test_a_feature_that_is_the_target_up_to_scale_leaves_nothing() -> None:
    x = table().astype(np.float64)
    left, feature = leaking(x, 5 - 3 * x[:, 3])
    assert left < 1e-14
    assert feature == 3
    left, _ = leaking(x, x[:, 3] + 1e-3 * x[:, 0])
    assert left == pytest.approx(1e-6, rel=0.2)
    assert np.isnan(leaking(x, np.ones(len(x)))).all()


def test_what_is_not_finite_says_nothing() -> None:
    x = table()
    x[3, 2] = np.nan
    assert np.isnan(looked(x[:64], x[:64, 0]).leak[:1]).all()
    y = table()[:, 0]
    y[5] = np.inf
    assert np.isnan(looked(table()[:64], y[:64]).leak[:1]).all()


@pytest.mark.parametrize(("whole", "leaks"), [(False, True), (True, False)])
def test_of_a_sequence_the_last_step_must_not_be_the_target_unless_it_is_to_be_recalled(
    whole: bool, leaks: bool
) -> None:
    x = RNG(0).normal(size=(128, 9, 1))
    x = np.rint(3 * x) if whole else x
    first = looked(x, x[:, -1, 0])

    assert bool(first.leak[0] < 1e-9) is leaks
    assert not looked(x, x[:, 0, 0]).leak[0] < 1e-9


def test_features_of_which_there_is_one_and_several_targets_are_not_looked_at() -> None:
    x = table()
    assert np.isnan(looked(x[:, :1], x[:, 0]).leak[:1]).all()
    assert np.isnan(looked(x, x).leak[:1]).all()
    assert looked(x, x[:, 0], size=1).leak[0] < 1e-9


FOUR = np.array([[0, 0, 1], [0, 1, 1], [1, 0, 1], [1, 1, 1]], float)
LINE = np.linspace(0, 1, 200)[:, None]


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (np.tile(FOUR, (50, 1)), np.tile([0.0, 0, 1, 1], 50)),  # four rows, time and again
        (np.hstack([LINE, np.ones_like(LINE)]), 2 * LINE[:, 0] - 1),  # a bias is no second feature
        (np.hstack([LINE, LINE + 0.1, LINE + 0.2]), LINE[:, 0] + 0.3),  # of a ramp every step is the target
        (np.hstack([RNG(0).normal(size=(200, 2)), np.full((200, 1), (0 - 0.1307) / 0.3081)]), np.full(200, 0.9)),
        (np.hstack([RNG(0).normal(size=(200, 2)), np.where(LINE < 0.1, 1e300, LINE**2)]), RNG(1).normal(size=200)),
        (RNG(0).normal(size=(200, 3)), np.where(LINE[:, 0] < 0.1, 1e200, RNG(1).normal(size=200))),
    ],
)
def test_what_is_no_leak(x: Array, y: Array) -> None:
    left, _ = leaking(x, y)

    assert not left < 1e-3


def test_a_code_that_is_huge_is_one() -> None:
    x = table(512, 3).astype(np.float64)
    x[::16, 1] = -np.finfo(float).max

    assert coded(x)[:2] == (1, -np.finfo(float).max)


def test_samples_that_are_few_by_nature_are_not_counted() -> None:
    letters = np.eye(26)[RNG(0).integers(0, 26, 600)]
    assert np.isnan(looked(letters, letters[:, 0]).distinct)
    assert looked(np.repeat(table(1), 600, axis=0), np.ones(600)).distinct == 1


def test_a_target_that_is_not_finite_or_missing_costs_its_batch_alone() -> None:
    x = table()
    y = x[:, 2].copy()
    y[70] = np.nan
    first = FirstSamples()
    for start in range(0, 512, 64):
        first.inputs(x[start : start + 64])
        if start != 128:
            first.targets(y[start : start + 64])

    assert first.leak[0] < 1e-9


def trained(x: Array, y: Array, *, epochs: int = 6, held_out: int = 100) -> nndiag.Report:
    """A small regression, of which the last samples are held out."""
    trainer = nn.Trainer(nn.MLP([x.shape[1], 16, 1], seed=0), nn.MSE(), nn.Adam(lr=0.01), seed=0)
    with nndiag.watch(trainer, every=1) as recorder:
        trainer.fit(
            x[:-held_out],
            y[:-held_out, None],
            validation=(x[-held_out:], y[-held_out:, None]),
            epochs=epochs,
            batch_size=32,
        )
    return recorder.check()


def codes(report: nndiag.Report) -> list[str]:
    return [finding.code for finding in report.findings]


def test_a_target_among_the_inputs_is_named() -> None:
    x = table()
    y = x[:, 1] + np.sin(3 * x[:, 2])
    with_answer = np.column_stack([x, 0.5 * y - 1]).astype(np.float32)
    report = trained(with_answer, y)

    assert "ND011" in codes(report)
    assert "feature 5 (from 0) is the target" in next(f.message for f in report.findings if f.code == "ND011")
    assert "ND011" not in codes(trained(x, y))


def test_a_code_for_what_is_missing_is_named_where_it_harms() -> None:
    x = table().astype(np.float64)
    y = np.sign(x[:, 0]) + np.sin(3 * x[:, 2])
    gone = RNG(2).random(x.shape) < 0.06
    for features, found in ((np.where(gone, -9999, x), True), (np.where(gone, 0, x), False)):
        scaled = ((features - features.mean(axis=0)) / features.std(axis=0)).astype(np.float32)
        report = trained(scaled, y)
        said = [f.message for f in report.findings if f.code == "ND002"]
        assert ["a code for what is missing" in message for message in said] == [True] * found


@pytest.mark.parametrize(("code", "found"), [(-999.0, True), (None, False)])
def test_a_code_among_the_targets_is_named(code: float | None, found: bool) -> None:
    x = table().astype(np.float64)
    y = np.sign(x[:, 0]) + np.sin(3 * x[:, 2])
    if code is not None:
        y[RNG(2).random(len(y)) < 0.04] = code
    report = trained(x.astype(np.float32), ((y - y.mean()) / y.std()).astype(np.float32))

    said = [f.message for f in report.findings if f.code == "ND004"]
    assert ["a code for what is missing" in message for message in said] == [True] * found


def test_sequences_of_several_lengths_are_samples_like_others() -> None:
    rng, first = np.random.default_rng(0), FirstSamples()
    for length in (4, 9, 6, 7, 5):
        first.inputs(rng.integers(0, 20, (8, length)))

    assert first.distinct == 32
