"""Progress: how far a loss has come, and the two traps."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nndiag import Checklist, Verdict, losses, progress, synthetic
from nndiag.checklist import Severity
from nndiag.run import Run
from nndiag.statistics import Array

CLASSES = {"data": {"entropy": {"target": math.log(10)}}, **synthetic.CLASSES}
REAL = {"data": {"total_variance": {"target": 1.0}}, "loss": {"name": "MSE", "task": "real", "expects": "real"}}


def run(train: Array, **meta: object) -> Run:
    return synthetic.run(steps=len(train), train=train, **meta)  # type: ignore[arg-type]


def test_a_loss_that_ends_at_its_floor_has_progress_one() -> None:
    made = progress.training(run(np.concatenate([np.full(50, 2.4), np.zeros(100)]), **CLASSES))

    assert made is not None
    assert made.value == pytest.approx(1.0)
    assert made.poor is False


def test_huge_first_losses_are_no_progress() -> None:
    train = np.concatenate([np.geomspace(1e9, 3.0, 20), np.full(200, math.log(10))])

    made = progress.training(run(train, **CLASSES))

    assert made is not None
    assert made.value == pytest.approx(0.0)
    assert made.poor


def test_a_low_but_true_r_squared_is_not_poor() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 1000)
    made = progress.training(run(0.91 + 0.09 * np.exp(-np.arange(1000) / 50) + noise, **REAL))

    assert made is not None
    assert made.value == pytest.approx(0.09, abs=0.04)
    assert made.poor is False


def test_where_the_trivial_loss_is_not_known_nothing_is_poor() -> None:
    made = progress.training(run(np.full(100, 5.0)))

    assert made is not None
    assert made.poor is None


@pytest.mark.parametrize(
    ("end", "known", "poor", "beats"), [(0.1, True, False, True), (2.3, True, True, False), (0.1, False, False, False)]
)
def test_what_is_not_known_is_neither_poor_nor_better_than_a_guess(
    end: float, known: bool, poor: bool, beats: bool
) -> None:
    made = run(synthetic.decay(end=end), **(CLASSES if known else {}))

    assert progress.is_poor(made) is poor
    assert progress.beats_guess(made) is beats
    assert progress.fault_if_poor(made) == ("training" if poor else "note")


def test_a_share_of_the_way_is_come_from_it_on_where_it_is_known() -> None:
    half = run(np.r_[np.full(50, 2.0), np.full(100, 1.0)])

    assert progress.has_come(half, 0.49)
    assert not progress.has_come(half, 0.51)
    assert not progress.has_come(run(np.full(progress.READS - 1, 1.0)), -math.inf)


def test_a_run_that_ends_in_nan_has_no_progress_left() -> None:
    made = progress.training(run(np.full(60, 0.1), first_nonfinite={"step": 60, "what": "loss"}, **CLASSES))

    assert made is not None
    assert made.poor
    assert made.value == -math.inf


def test_a_nonfinite_loss_in_the_middle_is_forgotten() -> None:
    made = progress.training(run(np.full(60, 0.1), first_nonfinite={"step": 30, "what": "loss"}, **CLASSES))

    assert made is not None
    assert made.poor is False


@pytest.mark.parametrize(("reads", "known"), [(49, False), (50, True)])
def test_training_needs_fifty_reads(reads: int, known: bool) -> None:
    assert (progress.training(run(np.ones(reads), **CLASSES)) is not None) == known


def test_label_smoothing_has_a_floor() -> None:
    own, other = 0.91, 0.01

    assert losses.smoothed_floor(0.1, 10) == pytest.approx(-own * math.log(own) - 9 * other * math.log(other))
    assert losses.smoothed_floor(0.0, 10) == 0.0


# While a run goes on


def slow(steps: int, ended: str = "running") -> Run:
    """A loss that is still worse than guessing after `steps` steps of a long warm-up, and falls by 0.001 a step."""
    noise = np.random.default_rng(0).normal(0, 0.01, steps)
    return run(3.0 - 1e-3 * np.arange(steps) + noise, ended=ended, **CLASSES)


def test_a_run_that_goes_on_and_falls_is_under_way() -> None:
    assert progress.underway(slow(200))
    assert not progress.underway(slow(200, ended="completed"))
    assert not progress.underway(run(np.full(200, 3.0), ended="running", **CLASSES))
    assert not progress.underway(run(np.linspace(3.0, 2.8, 5), ended="running", **CLASSES))


def test_a_run_lost_to_nan_is_not_under_way() -> None:
    train = np.linspace(3.0, 2.8, 200)

    assert not progress.underway(run(train, ended="running", first_nonfinite={"step": 200, "what": "loss"}, **CLASSES))


@pytest.mark.parametrize(
    ("evaluations", "gain", "bump", "unfinished"),
    [(10, 0.1, 0.0, True), (10, 0.03, 0.0, False), (9, 0.1, 0.0, False), (10, 0.1, 0.5, False)],
)
def test_validations_that_all_get_better_show_through_the_noise_of_batches(
    evaluations: int, gain: float, bump: float, unfinished: bool
) -> None:
    train = np.full(200, 1.8) + np.where(np.arange(200) % 2, 0.3, -0.3)
    validation = {200 // evaluations * (i + 1): 2.2 - gain * i for i in range(evaluations)}
    validation[200 // evaluations * 3] += bump
    left = progress.unfinished(run(train, validation=validation, **CLASSES))

    assert (left is not None) is unfinished


@pytest.mark.parametrize(("last", "left"), [(1.15, 0.5), (2.2, 0.65)])
def test_what_is_left_is_what_training_and_validation_agree_on(last: float, left: float) -> None:
    train = 2.3 * np.exp(-0.5 * np.arange(200) / 200)

    assert progress.unfinished(run(train, validation={200: last}, **CLASSES)) == pytest.approx(left, abs=0.02)


def test_only_a_run_that_has_ended_is_unfinished() -> None:
    train = 2.3 * np.exp(-np.arange(200) / 200)

    assert progress.unfinished(run(train, **CLASSES)) is not None
    assert progress.unfinished(run(train, ended="running", **CLASSES)) is None


@pytest.mark.parametrize("steps", [60, 200, 600])
def test_a_slow_start_is_no_finding_while_the_run_goes_on_and_one_at_its_end(steps: int) -> None:
    curves = Checklist(select="ND5,ND6,ND7")

    assert curves.examine(slow(steps)).findings == ()
    assert curves.examine(slow(steps, ended="completed")).findings


def test_what_is_poor_at_last_fails_unless_the_run_goes_on_and_falls() -> None:
    assert Severity(slow(200, ended="completed")).of("training") is Verdict.FAIL
    assert Severity(slow(200)).of("training") is Verdict.WARN
    assert Severity(run(np.full(200, 3.0), ended="running", **CLASSES)).of("training") is Verdict.FAIL


@pytest.mark.parametrize(("validation", "verdict"), [((2.5, 2.4), Verdict.NOT_CHECKED), ((2.4, 2.5), Verdict.FAIL)])
def test_validation_that_still_improves_is_not_given_up_while_the_run_goes_on(
    validation: tuple[float, float], verdict: Verdict
) -> None:
    losses = {20 * (i + 1): float(loss) for i, loss in enumerate(np.linspace(*validation, 10))}
    going = run(synthetic.decay(200), validation=losses, ended="running", **CLASSES)

    [result] = Checklist(select="ND707").examine(going).checks

    assert result.verdict is verdict


@pytest.mark.parametrize(
    ("told", "known"),
    [
        ({"reduction": "mean"}, True),
        ({"reduction": "none"}, True),
        ({"reduction": "sum"}, False),
        ({"reduction": "mean", "scale": 0.25}, False),
        ({"reduction": "mean", "scale": None}, False),
        ({"name": "MultiMarginLoss"}, False),
        ({"name": "KLDivLoss"}, False),
    ],
)
def test_a_number_that_is_not_the_plain_mean_of_its_loss_is_compared_with_nothing(
    told: dict[str, object], known: bool
) -> None:
    loss = {**synthetic.CLASSES["loss"], "label_smoothing": 0.1, **told}
    made = run(np.full(60, 2.0), data=CLASSES["data"], outputs={"width": {"outputs": 10.0}}, loss=loss)

    assert (progress.trivial(made) is not None) == known
    assert (progress.floor(made) > 0) == ("scale" not in told and told.get("reduction") != "sum")


LABELS = {"label 0": 60.0, "label 1": 30.0, "label 2": 10.0}


def weighed(loss: dict[str, object], counts: dict[str, float] = LABELS) -> Run:
    data = {"entropy": {"target": 0.9}, "count": counts}
    return run(np.full(60, 1.0), data=data, outputs={"width": {"outputs": 3.0}}, loss=loss)


def test_classes_with_weights_cost_the_entropy_of_their_weighed_shares() -> None:
    """Weights against the frequencies make every class as dear as any other: ln 3."""
    loss = {"name": "CrossEntropyLoss", "task": "classes", "reduction": "mean", "weight": [1.0, 2.0, 6.0]}

    assert progress.trivial(weighed(loss)) == pytest.approx(math.log(3))
    assert progress.trivial(weighed(loss | {"weight": [1.0, 1.0, 0.0]})) == pytest.approx(0.6365, abs=1e-4)
    assert progress.trivial(weighed(loss | {"weight": [0.0, 1.0, 0.0]})) is None
    assert progress.trivial(weighed(loss | {"weight": True})) is None
    assert progress.trivial(weighed(loss | {"label_smoothing": 0.1})) is None
    assert progress.trivial(weighed(loss, {"label 7": 3.0})) is None


@pytest.mark.parametrize(("weight", "positives"), [(9.0, 10.0), (9.0, 50.0), (0.2, 30.0)])
def test_a_weighed_label_costs_least_at_one_guess_and_is_even_at_half(weight: float, positives: float) -> None:
    loss = {"name": "BCEWithLogitsLoss", "task": "binary", "reduction": "mean", "pos_weight": [weight]}
    made = weighed(loss, {"label 0": 100 - positives, "label 1": positives})
    p, y = np.linspace(1e-4, 1 - 1e-4, 9999), positives / 100
    guesses = -weight * y * np.log(p) - (1 - y) * np.log(1 - p)

    assert progress.trivial(made) == pytest.approx(guesses.min(), rel=1e-5)
    assert progress.even(made) == pytest.approx(guesses[4999])
    assert progress.trivial(weighed(loss | {"pos_weight": [weight, 1.0]})) is None
    assert progress.trivial(weighed(loss | {"weight": True})) is None


@pytest.mark.parametrize(("weight", "found"), [(1.0, True), (9.0, False)])
def test_an_even_guess_of_a_weighed_label_is_no_bad_beginning(weight: float, found: bool) -> None:
    """At 9 times the weight for half of the samples an even guess costs 3.5, with 1.6 for the best."""
    loss = {"name": "BCEWithLogitsLoss", "task": "binary", "reduction": "mean", "pos_weight": [weight]}
    data = {"entropy": {"target": 0.69}, "count": {"label 0": 50.0, "label 1": 50.0}}
    made = run(synthetic.decay(200, 3.5, 0.6), data=data, outputs={"width": {"outputs": 1.0}}, loss=loss)

    assert bool(Checklist(select="ND201").examine(made).findings) is found


@pytest.mark.parametrize(("first", "fourth", "even"), [(2.0, 1.6, True), (1.0, 1.6, True), (2.0, 1.8, False)])
def test_validations_are_even_from_the_second_on(first: float, fourth: float, even: bool) -> None:
    validation = [first, 1.9, 1.75, fourth, *np.linspace(1.5, 1.0, progress.STEADY)]

    assert progress.steady(synthetic.run(validation={i + 1: loss for i, loss in enumerate(validation)})) is even


@pytest.mark.parametrize(("end", "closing"), [(0.35, True), (0.6, False), (0.25, False)])
def test_a_loss_that_falls_towards_the_trivial_one_is_closing_in(end: float, closing: bool) -> None:
    """Of rare pixels: from ln 2 down, with 0.325 for their frequencies; too slow, or there already."""
    train = np.linspace(0.69, end, 200) if end > 0.3 else synthetic.decay(200, 0.69, end, 20)
    rare = run(train, data={"entropy": {"target": 0.325}}, loss={"name": "BCEWithLogitsLoss", "task": "binary"})

    thrown = np.append(0.3, train[1:])
    assert progress.closing(rare) is closing
    assert not progress.closing(run(thrown, data={"entropy": {"target": 0.325}}, loss=dict(rare.meta.loss)))
    assert Severity(rare).of("training") is (Verdict.FAIL if end > 0.5 else Verdict.WARN)


@pytest.mark.parametrize(("rate", "left"), [(0.0, None), (0.1, 4.37 / 3.0), (20.0, None)])
def test_a_loss_above_the_trivial_one_may_still_fall(rate: float, left: float | None) -> None:
    """As of letters before their frequencies are learned: ln 82, where these cost 3 nats."""
    train = 4.4 - 0.2 * (1 - np.exp(-rate * np.arange(400) / 200)) + 0.002 * np.sin(np.arange(400) * 2.4)
    above = run(train, **CLASSES | {"data": {"entropy": {"target": 3.0}}})

    assert progress.unfinished(above) == (None if left is None else pytest.approx(left, abs=0.05))


@pytest.mark.parametrize(("turns", "known"), [((2, 2), None), ((2, 1), math.log(10)), ((1, 2), math.log(10))])
def test_objectives_that_take_turns_may_stand_at_what_guessing_costs(
    turns: tuple[int, int], known: float | None
) -> None:
    """Adversaries do; accumulated gradients have one update for several passes, an encoder and its decoder one pass for two."""
    loop = {name: np.full(200, float(each)) for name, each in zip(("backward_passes", "updates"), turns, strict=True)}
    stands = run(np.full(200, math.log(10)), loop=loop, **CLASSES)

    assert progress.trivial(stands) == (known and pytest.approx(known))
    assert bool(Checklist(select="ND601,ND605").examine(stands).findings) is (known is not None)


@pytest.mark.parametrize(("scale", "low", "floats"), [(None, -0.1, True), (None, 0.1, False), (1.0, -0.1, False)])
def test_samples_weighed_by_either_sign_have_no_floor(scale: float | None, low: float, floats: bool) -> None:
    loss = {"name": "CrossEntropyLoss", "task": "classes", "expects": "logits", "scale": scale}
    policy = run(np.concatenate([np.full(100, 0.3), np.full(100, low)]), loss=loss)

    assert (progress.no_measure(policy) is not None) is floats
    assert (progress.training(policy) is None) is floats
    assert bool(Checklist(select="ND608").examine(policy).findings) is (low < 0 and not floats)


@pytest.mark.parametrize(("task", "width", "begin"), [("binary", 1.0, math.log(2)), ("classes", 4.0, math.log(4)),
                                                      ("real", 4.0, 0.3)])  # fmt: skip
def test_an_untrained_classifier_begins_with_an_even_guess(task: str, width: float, begin: float) -> None:
    data = {"entropy": {"target": 0.3}, "total_variance": {"target": 0.3}}
    loss = {"name": "MSELoss" if task == "real" else "CrossEntropyLoss", "task": task}
    rare = run(np.full(100, 9.0), data=data, loss=loss, outputs={"width": {"outputs": width}})

    assert progress.begin(rare) == pytest.approx(begin)
    assert progress.begin(run(np.full(100, 0.2), data=data, loss=loss)) == pytest.approx(0.2)


@pytest.mark.parametrize(("smooth", "task"), [(0.0, "classes"), (0.3, "classes"), (0.3, "real")])
def test_the_entropy_of_targets_that_are_probabilities_is_no_way_to_go(smooth: float, task: str) -> None:
    rows = np.full((50, 8), smooth / 8)
    rows[np.arange(50), np.arange(50) % 8] += 1 - smooth
    rows[:10] = 1 / 8 if smooth else rows[:10]
    entropy = float(-(rows * np.log(np.maximum(rows, 1e-30))).sum(axis=1).mean())
    outputs: synthetic.Statistics = {
        "width": {"targets": 8.0}, "mean": {"targets": rows.mean()}, "variance": {"targets": rows.var()},
        "row_sum_min": {"targets": 1.0}, "row_sum_max": {"targets": 1.0},
    }  # fmt: skip
    run = synthetic.run(train=2.0, outputs=outputs, loss={"name": "CrossEntropyLoss", "task": task})

    found = progress.floor(run)
    assert 0 <= found <= entropy + 1e-12
    assert (found > 0.4 * entropy) is (smooth > 0 and task == "classes")


@pytest.mark.parametrize(("share", "poor"), [(0.05, False), (0.9, True)])
def test_a_few_samples_of_huge_targets_do_not_count_as_progress_lost(share: float, poor: bool) -> None:
    """Most losses are at a tenth of what guessing costs; a `share` of them is a hundred times that, as of an absurd target."""
    rng = np.random.default_rng(0)
    usual = np.concatenate([np.linspace(2.0, 0.1, 50), np.full(350, 0.1)])
    train = np.where(rng.random(400) < share, 100.0, usual)

    made = progress.training(run(train, **REAL))

    assert made is not None
    assert made.poor is poor


@pytest.mark.parametrize(("outlier", "now"), [(3.9, 0.48), (4.3, 0.1)])
def test_the_mean_counts_up_to_five_times_what_the_loss_usually_is(outlier: float, now: float) -> None:
    """One loss in ten is an outlier."""
    made = progress.training(run(np.where(np.arange(400) % 10 == 9, outlier, 0.1), **REAL))

    assert made is not None
    assert made.now == pytest.approx(now)
