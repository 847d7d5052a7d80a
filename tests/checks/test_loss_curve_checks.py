"""ND6 on real trainings and beside its neighbours."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from sound_programs import SOUND, noisy_digits, some_digits, sound, train

import nndiag
from nndiag import Checklist, Finding, Verdict, nn, signals, synthetic
from nndiag.check import Check
from nndiag.checks import (
    Budget,
    ConstantLoss,
    Diverging,
    ImpossibleLoss,
    LearningRateHigh,
    LossSpike,
    NotLearning,
    Oscillating,
    Plateau,
)
from nndiag.run import Run
from nndiag.statistics import Array


def findings(check: Check, run: Run) -> list[Finding]:
    assert check.not_checked(run) is None
    return [found for found in check.examine(run) if found.kind != "note"]


def notes(check: Check, run: Run) -> list[str]:
    assert check.not_checked(run) is None
    return [found.message for found in check.examine(run) if found.kind == "note"]


def curve(losses: Array, **more: object) -> Run:
    return synthetic.run(steps=len(losses), train=losses, data={"entropy": {"target": 2.3}},
                         **(synthetic.CLASSES | more))  # type: ignore[arg-type]  # fmt: skip


@pytest.mark.parametrize("name", SOUND)
def test_sound_programs_have_sound_curves(name: str) -> None:
    assert Checklist(select="ND6").examine(sound(name)).findings == ()


# ND602


def saw(back: float, teeth: int = 4, length: int = 50, noise: float = 0.02) -> Array:
    """A loss that falls from 2.3 to 1.0 time and again, and each time goes back by the share `back` of that."""
    fall = np.linspace(0, 1, length)
    first, later = 2.3 - 1.3 * fall, 1.0 + 1.3 * back * (1 - fall)
    return np.concatenate([first, *[later] * teeth]) + noise * np.random.default_rng(0).standard_normal(
        (teeth + 1) * length
    )


@pytest.mark.parametrize(("back", "teeth", "found"), [(1.0, 4, 1), (0.95, 4, 1), (0.8, 4, 0), (1.0, 2, 1), (1.0, 1, 0)])
def test_a_loss_that_begins_anew_at_equal_distances_is_named(back: float, teeth: int, found: int) -> None:
    told = findings(Diverging(), curve(saw(back, teeth)))

    assert [each.first_step for each in told] == [50] * found
    assert all("begins anew at steps 50, 100" in each.message for each in told)


def test_what_comes_at_odd_distances_begins_anew_only_with_epochs() -> None:
    losses = np.concatenate([saw(1.0, 0, length) for length in (50, 80, 40, 70)])
    epoch = np.repeat(np.arange(4.0), (50, 80, 40, 70))

    assert findings(Diverging(), curve(losses)) == []
    for within, found in ((0, 1), (10, 0)):
        run = synthetic.run(steps=len(losses), train=losses, epoch=np.roll(epoch, within), **synthetic.CLASSES)
        assert len(findings(Diverging(), run)) == found


def test_a_model_that_is_initialised_in_each_epoch_is_told_from_a_rate_that_is_too_high() -> None:
    x, y, *_ = some_digits()
    trainer = nn.Trainer(nn.MLP([64, 32, 10], seed=0), nn.SoftmaxCrossEntropy(), nn.Adam(3e-3))
    with nndiag.watch(trainer, every=1) as recorder:
        for seed in range(4):
            fresh = nn.MLP([64, 32, 10], seed=seed).parameters
            for parameter, new in zip(trainer.model.parameters, fresh, strict=True):
                parameter.value[...] = new.value
            trainer.fit(x, y, epochs=1, batch_size=16)
    report = recorder.check()

    assert report.headlines == ("ND602",)
    assert "initialised anew" in report.findings[0].causes[0]


def test_a_loss_that_begins_anew_is_no_sign_of_large_steps() -> None:
    """Brisk updates are too large where the loss has come back for good, not where it starts again."""
    updates = {"ratio": {"h1.weight": 0.01}}
    for losses, found in ((saw(1.0)[:-40], 0), (np.concatenate([saw(1.0, 0), np.full(160, 2.2)]), 1)):
        run = curve(losses, updates=updates)
        assert len([each for each in findings(LearningRateHigh(), run) if "the loss is back" in each.message]) == found


# ND603


def test_the_step_of_a_jump_is_named() -> None:
    run = train(some_digits(), [32], nn.SGD(lambda step: 0.02 if step < 100 else 3.0, momentum=0.9), 15)

    (found,) = findings(LossSpike(), run)
    assert found.first_step in (100, 101)


@pytest.mark.parametrize(("last", "found"), [(1.5, 1), (1.7, 0)])
def test_a_short_run_whose_validation_was_better_before_is_long_enough(last: float, found: int) -> None:
    validation = dict(zip(range(9, 60, 10), [2.0, 1.6, 1.55, last, last, last], strict=True))
    run = synthetic.run(steps=60, train=np.linspace(2.3, 1.2, 60), validation=validation, data={"entropy": {"target": 2.3}},
                        ended="completed", **synthetic.CLASSES)  # fmt: skip

    assert len(findings(Budget(), run)) == found


@pytest.mark.parametrize(("level", "found"), [(2.29, 1), (1.0, 0)])
def test_a_short_run_that_stands_still_is_done_only_where_it_has_come_somewhere(level: float, found: int) -> None:
    losses = np.concatenate([np.full(3, 2.3), np.full(37, level)])

    assert len(findings(Budget(), curve(losses, ended="completed"))) == found


@pytest.mark.parametrize(("usual", "found"), [(1.8, 1), (1.9, 0)])
def test_a_stumble_on_the_first_plateau_is_no_spike(usual: float, found: int) -> None:
    losses = np.full(200, usual) + 1e-3 * np.random.default_rng(0).standard_normal(200)
    losses[60:66] += 0.3
    losses[120:] = 0.2

    assert len(findings(LossSpike(), curve(np.concatenate([np.full(10, 2.3), losses])))) == found


@pytest.mark.parametrize(("noise", "found"), [(0.02, 1), (0.3, 0)])
def test_after_a_quiet_plateau_the_noise_is_that_of_now(noise: float, found: int) -> None:
    rng = np.random.default_rng(3)
    plateau = 2.3 + 5e-3 * rng.standard_normal(90)
    losses = np.concatenate([plateau, 1.1 + noise * rng.standard_normal(30), np.full(6, 2.2), np.full(60, 1.0)])

    assert len(findings(LossSpike(), curve(losses))) == found


def test_two_bad_batches_in_a_row_are_no_spike() -> None:
    losses = synthetic.decay(200)
    losses[[80, 81, 150]] += 2.0

    assert not findings(LossSpike(), curve(losses))


def test_the_heavy_tail_of_single_samples_is_no_spike() -> None:
    rng = np.random.default_rng(0)
    losses = np.exp(rng.normal(-3, 2, 2000))

    assert not findings(LossSpike(), curve(losses))


# ND601


@pytest.mark.parametrize(("evaluations", "best", "found"), [(5, 40.3, 1), (5, 40.1, 0), (4, 40.9, 0)])
def test_of_a_loss_of_ones_own_it_takes_a_validation_that_stands_still(
    evaluations: int, best: float, found: int
) -> None:
    train = 41.0 + 0.5 * np.random.default_rng(0).standard_normal(100)
    losses = np.linspace(41.0, best, evaluations)
    validation = {10 * (i + 1): loss for i, loss in enumerate(losses)}

    assert len(findings(NotLearning(), synthetic.run(train=train, validation=validation))) == found


# ND604


def test_sorted_samples_make_the_loss_swing() -> None:
    x, y, x_val, y_val = some_digits()
    order = np.argsort(y, kind="stable")
    data = x[order], y[order], x_val, y_val
    run = train(data, [32], nn.SGD(0.5, momentum=0.5), 10, 30, shuffle=False, activation="tanh")

    (found,) = findings(Oscillating(), run)
    assert "instead of 0.5" in found.fix


def test_swings_that_still_come_down_pass() -> None:
    alternating = np.where(np.arange(200) % 2, 1.0, -1.0)

    assert not findings(Oscillating(), curve(np.linspace(2.0, 0.8, 200) + 0.6 * alternating))


@pytest.mark.parametrize(("errors", "found"), [(1.0, 1), (4.0, 0)])
def test_a_scatter_falls_when_it_falls_by_more_than_chance(errors: float, found: int) -> None:
    fall = errors * np.sqrt(12 / 100)  # of one unit of scatter, in standard errors of a line through 100 values
    losses = 6 + np.random.default_rng(3).normal(0, 1, 200) - fall * np.linspace(-1, 1, 200)

    assert len(findings(Oscillating(), curve(losses, outputs={"rows": {"outputs": 1000.0}}))) == found


def test_what_sampling_explains_is_no_swing() -> None:
    losses = np.random.default_rng(0).exponential(1.5, 400)

    run = curve(losses, outputs={"rows": {"outputs": 1.0}})
    assert not findings(Oscillating(), run)


@pytest.mark.parametrize(("rare", "found"), [(2.0, 0), (30.0, 1)])
def test_a_rare_class_makes_batches_swing(rare: float, found: int) -> None:
    shares = np.array([64 - rare, rare]) / 64
    swinging = np.random.default_rng(0).uniform(0.2, 1.0, 200) * float(-(shares * np.log(shares)).sum())
    data = {"entropy": {"target": float(-(shares * np.log(shares)).sum())}, "classes": {"target": 2.0},
            "count": {"label 0": 64 - rare, "label 1": rare}}  # fmt: skip
    run = synthetic.run(steps=200, train=swinging, data=data, outputs={"rows": {"outputs": 64.0}}, **synthetic.CLASSES)

    assert len(findings(Oscillating(), run)) == found


@pytest.mark.parametrize(("deviation", "found"), [(0.7, 1), (0.6, 0)])
def test_targets_with_a_heavy_tail_make_batches_swing(deviation: float, found: int) -> None:
    swinging = np.random.default_rng(0).uniform(0.2, 1.0, 200)
    data = {"absolute_deviation": {"target": deviation}, "total_variance": {"target": 1.0}}
    run = synthetic.run(steps=200, train=swinging, data=data, outputs={"rows": {"outputs": 64.0}},
                        loss={"name": "MSE", "task": "real", "expects": "real"})  # fmt: skip

    assert len(findings(Oscillating(), run)) == found


@pytest.mark.parametrize(("validation", "found"), [(0.5, 1), (0.4, 0)])
def test_batches_that_are_mixed_up_swing_while_validation_makes_its_way(validation: float, found: int) -> None:
    swinging = np.random.default_rng(0).uniform(0.2, 2.2, 200)
    held_out = {10 * i: 2.3 + (validation - 2.3) * min(1.0, i / 10) for i in range(1, 20)}
    rows = {"rows": {"outputs": 64.0}}
    entropy = {"entropy": {"target": 2.3}}
    run = synthetic.run(steps=200, train=swinging, validation=held_out, data=entropy, outputs=rows, **synthetic.CLASSES)

    assert len(findings(Oscillating(), run)) == found


def test_a_sample_of_a_long_run_does_not_tell_swings() -> None:
    result = Checklist(select="ND604").examine(curve(synthetic.decay(9000))).checks[0]

    assert result.verdict is Verdict.NOT_CHECKED
    assert "neighbouring steps" in result.reason


# ND605


def test_a_plateau_above_noise_is_a_remark() -> None:
    losses = synthetic.decay(200, end=1.2, rate=20)

    assert not findings(Plateau(), curve(losses))
    assert "56% of the way to its floor left" in notes(Plateau(), curve(losses))[0]


def test_a_plateau_at_what_guessing_costs_is_a_finding() -> None:
    (found,) = findings(Plateau(), curve(synthetic.decay(200, start=12.0, end=2.3, rate=20, noise=0.005)))

    assert found.first_step in range(20, 101)


# ND606


def test_a_full_batch_with_a_rate_of_zero_is_constant() -> None:
    (found,) = findings(ConstantLoss(), train(some_digits(), [32], nn.SGD(0.0), 6, 600))

    assert "ND502" in found.causes


def test_a_loss_of_zero_is_told_as_such() -> None:
    (found,) = findings(ConstantLoss(), synthetic.run(steps=5, train=0.0))

    assert "exactly 0 on all 5 reads" in found.message


# ND607


@pytest.mark.parametrize(("epochs", "batch_size", "lr"), [(1, 128, 0.02), (4, 128, 0.02), (10, 64, 0.01)])
def test_too_few_updates_are_named_with_how_many_to_make(epochs: int, batch_size: int, lr: float) -> None:
    (found,) = findings(Budget(), train(some_digits(), [32], nn.SGD(lr), epochs, batch_size))

    assert found.value == pytest.approx(0.8, abs=0.25)
    assert "at least 500 updates" in found.fix


def test_noisy_labels_that_end_flat_are_no_matter_of_budget() -> None:
    assert not findings(Budget(), train(noisy_digits(), [64], nn.Adam(3e-3), 15))


def test_a_validation_loss_that_rises_forbids_more_training() -> None:
    losses = np.linspace(2.3, 1.6, 200)
    rising = {40: 2.2, 80: 2.1, 120: 2.15, 160: 2.2, 200: 2.3}
    run = synthetic.run(
        steps=200, train=losses, validation=rising, data={"entropy": {"target": 2.3}}, **synthetic.CLASSES
    )

    assert findings(Budget(), curve(losses))
    assert not findings(Budget(), run)


@pytest.mark.parametrize(("validation", "found"), [(1.2, 1), (1.1, 0)])
def test_a_loss_held_up_by_dropout_has_as_much_left_as_validation(validation: float, found: int) -> None:
    falling = {100: 2.0, 150: 1.6, 200: validation}
    run = synthetic.run(
        steps=200, train=np.linspace(2.3, 1.6, 200), validation=falling, data={"entropy": {"target": 2.3}},
        **synthetic.CLASSES,
    )  # fmt: skip

    assert len(findings(Budget(), run)) == found
    assert len(notes(Budget(), run)) == 1 - found


def test_where_every_target_is_the_same_there_is_no_way_to_go() -> None:
    run = synthetic.run(train=np.linspace(0.7, 0.6, 100), data={"classes": {"target": 1.0}, "entropy": {"target": 0.0}},
                        **synthetic.CLASSES)  # fmt: skip

    assert "every target is the same" in (Budget().not_checked(run) or "")


def test_only_a_completed_run_has_spent_its_budget() -> None:
    run = Budget.sick()
    going = Run(dataclasses.replace(run.meta, ended="running"), run.tables)

    assert Budget().not_checked(going) == "needs a completed run; this one is running"


def test_a_run_lost_to_nan_has_no_budget() -> None:
    run = curve(np.linspace(2.3, 1.6, 200), first_nonfinite={"step": 200, "what": "loss"})

    assert "stays finite" in (Budget().not_checked(run) or "")


def test_what_was_gained_early_is_a_remark() -> None:
    assert (
        "nothing was gained after step 133 of 400" in notes(Budget(), curve(synthetic.decay(400, end=0.05, rate=40)))[0]
    )


@pytest.mark.parametrize(("gone", "pace"), [(0.5, 0.8), (0.9, 0.4)])
def test_pace_of_an_exponential(gone: float, pace: float) -> None:
    falling = np.exp(np.log(1 - gone) * np.arange(600) / 600)

    assert signals.pace(falling) == pytest.approx(pace, abs=0.05)
    assert signals.pace(falling[::-1]) == 0.0


# ND608


def test_targets_of_minus_one_make_a_binary_loss_negative() -> None:
    x, y, x_val, y_val = some_digits()
    data = x, 2.0 * (y[:, None] > 4) - 1, x_val, 2.0 * (y_val[:, None] > 4) - 1
    run = train(data, [16], nn.SGD(0.1, momentum=0.9), 10, loss=nn.BCEWithLogits())

    report = Checklist(select="ND608").examine(run)
    assert report.verdict is Verdict.FAIL
    assert report.findings[0].causes[0] == "ND110"


def test_a_loss_of_ones_own_may_go_anywhere() -> None:
    run = synthetic.run(train=-1.0, loss={"name": "ELBO", "task": "real"})

    assert "known floor" in (ImpossibleLoss().not_checked(run) or "")


@pytest.mark.parametrize(
    ("first", "last", "found"), [(27.0, -2.8e7, 1), (27.0, -2.6e7, 0), (0.5, -1.1e6, 1), (0.5, -0.9e6, 0)]
)
def test_a_loss_of_ones_own_that_runs_away_below_zero_has_no_minimum(first: float, last: float, found: int) -> None:
    train = np.append(np.linspace(first, -1.0, 99), last)
    run = synthetic.run(train=train, loss={"name": "BCEWithLogitsLoss with other terms", "task": "binary"})
    report = Checklist(select="ND608").examine(run)

    assert [finding.fix for finding in report.findings] == [
        "See which term of the loss has the wrong sign, or no lower end."
    ] * found


@pytest.mark.parametrize(
    ("name", "bend", "last", "found"),
    [
        ("MSELoss with other terms", 0.0, -12.0, 1),
        ("MSELoss with other terms", 0.0, -8.0, 0),
        ("MSELoss with other terms", 1.0, -12.0, 0),  # it levels off
        ("MSELoss", 0.0, -12.0, 1),  # which cannot be negative at all
        ("GaussianNLL with other terms", 0.0, -12.0, 0),
    ],
)
def test_a_loss_with_other_terms_that_falls_in_a_straight_line_has_no_minimum(
    name: str, bend: float, last: float, found: int
) -> None:
    way = np.linspace(0, 1, 100)
    train = 1.0 + (last - 1.0) * (way * (2 - way) if bend else way)
    report = Checklist(select="ND608").examine(synthetic.run(train=train, loss={"name": name, "task": "real"}))

    assert len(report.findings) == found
