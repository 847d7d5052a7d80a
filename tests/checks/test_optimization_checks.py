"""ND5 on real trainings and beside its neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from sound_programs import SOUND, noisy_digits, some_digits, sound, train

import nndiag
from nndiag import Checklist, Finding, Verdict, datasets, nn, synthetic
from nndiag.check import Check
from nndiag.checks import (
    AbsurdSettings,
    DecayDominates,
    LearningRateLow,
    OptimizerEpsilon,
    Schedule,
    TinyBatchNorm,
    TooFewSamples,
    UntouchedParameter,
)
from nndiag.nn.parameter import Parameter
from nndiag.run import Run
from nndiag.statistics import Array


def findings(check: Check, run: Run) -> list[Finding]:
    assert check.not_checked(run) is None
    return [found for found in check.examine(run) if found.kind != "note"]


@pytest.mark.parametrize("name", SOUND)
def test_sound_programs_have_a_sound_optimiser(name: str) -> None:
    assert Checklist(select="ND5").examine(sound(name)).findings == ()


# ND503


class Forgetful(nn.SGD):
    """Knows only the parameters whose names do not begin with `forgotten`."""

    forgotten = "hidden1.weight"

    def step(self, parameters: Sequence[Parameter]) -> None:
        super().step([parameter for parameter in parameters if not parameter.name.startswith(self.forgotten)])


class Idle(Forgetful):
    forgotten = ""


def test_the_parameter_that_the_optimiser_does_not_know_is_named() -> None:
    run = train(some_digits(), [32, 32], Forgetful(0.1), 12)

    report = Checklist(select="ND503").examine(run)
    assert report.verdict is Verdict.FAIL
    assert [found.parameter for found in report.findings] == ["hidden1.weight"]


def test_an_optimiser_that_never_steps_is_one_finding() -> None:
    (found,) = findings(UntouchedParameter(), train(some_digits(), [32], Idle(0.1), 12))

    assert found.parameter is None
    assert "no parameter has changed" in found.message


@pytest.mark.parametrize(("step", "gradient", "optimizer", "found"), [
    (1e-3, 0.1, {"name": "SGD"}, 1),
    (1e-3, 1e-7, {"name": "SGD"}, 0),  # its own step is lost in its rounding
    (4e-7, 0.1, {"name": "SGD"}, 0),  # and so would be those of all others, value for value
    (1e-3, 1e-7, {"name": "Adam", "eps": 1e-8}, 1),
    (1e-3, 1e-7, {"name": "Adam", "eps": 1.0}, 0),
])  # fmt: skip
def test_a_step_that_rounding_swallows_is_not_the_optimisers_fault(
    step: float, gradient: float, optimizer: dict[str, Any], found: int
) -> None:
    run = synthetic.run(
        updates={"update_norm": {"a": step, "g": 0.0}, "weight_norm": {"a": 1.0, "g": 10.0}},
        gradients={"norm": {"a": 0.1, "g": gradient}}, metrics={"lr": {"train": 0.01}}, optimizer=optimizer,
        parameters=[{"name": name, "kind": "weight", "shape": [10, 10]} for name in "ag"], dtype="float32",
    )  # fmt: skip

    assert len(findings(UntouchedParameter(), run)) == found


def test_frozen_parameters_and_a_rate_of_zero_are_left_alone() -> None:
    def freeze(model: nn.MLP) -> None:
        model.layers[0].parameters[0].frozen = True

    assert not findings(UntouchedParameter(), train(some_digits(), [32], nn.SGD(0.1), 12, change=freeze))
    idle = train(some_digits(), [32], nn.SGD(0.0), 12)
    assert "learning rate above 0" in (UntouchedParameter().not_checked(idle) or "")


@pytest.mark.parametrize("gradient", [0.0, 1e-9])
def test_a_gradient_that_is_none_or_drowns_in_rounding_is_not_the_optimisers_fault(gradient: float) -> None:
    updates = {"update_norm": {"a": 0.0, "b": 1e-3}, "weight_norm": {"a": 1.0, "b": 1.0}}
    run = synthetic.run(updates=updates, gradients={"norm": {"a": gradient, "b": 1.0}}, metrics={"lr": {"train": 0.1}})

    assert not findings(UntouchedParameter(), run)


# ND502


@pytest.mark.parametrize(("steps", "found"), [(95, 0), (105, 1)])
def test_few_updates_of_a_usual_size_are_too_few_and_not_too_small(steps: int, found: int) -> None:
    validation = {steps // 20 * (i + 1): 2.2 - 0.02 * i for i in range(18)}
    run = synthetic.run(
        steps=steps, train=np.linspace(2.3, 1.5, steps), validation=validation, updates={"ratio": {"w": 5e-3}},
        data={"entropy": {"target": 2.3}}, ended="completed", **synthetic.CLASSES,
    )  # fmt: skip

    assert len(findings(LearningRateLow(), run)) == found


# ND505


def scheduled(lr: Array, train: Array | None = None) -> Run:
    loss = synthetic.decay(len(lr)) if train is None else train
    return synthetic.run(steps=len(lr), train=loss, metrics={"lr": {"train": lr}},
                         data={"entropy": {"target": 2.3}}, **synthetic.CLASSES)  # fmt: skip


def test_a_cosine_made_for_a_shorter_run_is_named_with_the_step_to_end_at() -> None:
    run = train(some_digits(), [32], nn.SGD(nn.Cosine(0.1, 60)), 20)

    (found,) = findings(Schedule(), run)
    assert found.first_step in range(55, 61)
    assert found.fix.startswith("Let the schedule end at step 200")


def test_a_rate_that_begins_at_zero_and_stays_there_is_named() -> None:
    (found,) = findings(Schedule(), scheduled(np.where(np.arange(100) < 30, 0.0, 0.1)))

    assert "the first 30 reads" in found.message


SCHEDULES = {
    "warm-up from zero": np.minimum(1.0, np.arange(200) / 40),
    "a warm-up in one step": np.where(np.arange(200) < 15, 0.01, 0.1),
    "restarts": 0.05 * (1 + np.cos(np.pi * (np.arange(200) % 50) / 50)),
    "cosine to zero": 0.05 * (1 + np.cos(np.pi * np.arange(200) / 200)),
    "steps of a tenth": 0.1 ** (np.arange(200) // 50),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_usual_schedules_pass(name: str) -> None:
    assert not findings(Schedule(), scheduled(SCHEDULES[name]))


def test_a_rate_that_is_gone_after_the_loss_has_settled_passes() -> None:
    lr = np.where(np.arange(200) < 120, 0.1, 1e-6)

    assert not findings(Schedule(), scheduled(lr, synthetic.decay(200, end=1.2, rate=12)))


@pytest.mark.parametrize(("gone", "sick"), [(0.2, True), (0.3, False)])
def test_a_rate_that_dies_before_anything_is_learned_is_named(gone: float, sick: bool) -> None:
    lr = np.where(np.arange(200) < gone * 200, 0.1, 0.0)
    assert bool(findings(Schedule(), scheduled(lr, np.full(200, 2.3)))) is sick


@pytest.mark.parametrize(("now", "sick"), [(1.9, True), (1.6, False)])
def test_a_rate_that_dies_when_little_was_learned_is_named(now: float, sick: bool) -> None:
    lr = np.where(np.arange(200) < 40, 0.1, 0.0)
    train = np.where(np.arange(200) < 40, 2.3, now)

    assert bool(findings(Schedule(), scheduled(lr, train))) is sick


@pytest.mark.parametrize(("step", "sick"), [(25, True), (35, False)])
def test_a_rate_that_is_gone_for_nearly_all_of_the_run_is_named(step: int, sick: bool) -> None:
    lr = np.where(np.arange(200) < step, 0.1, 1e-6)
    train = np.where(np.arange(200) < 10, 2.3, 1.0)  # it had settled

    assert bool(findings(Schedule(), scheduled(lr, train))) is sick


@pytest.mark.parametrize(("ratio", "headline"), [(1.1e-4, "ND505"), (0.9e-4, "ND502")])
def test_updates_that_are_small_since_the_rate_is_gone_are_the_schedules(ratio: float, headline: str) -> None:
    live = np.arange(400) < 120
    run = synthetic.run(
        steps=400, train=np.full(400, 2.3), metrics={"lr": {"train": np.where(live, 0.1, 1e-6)}},
        updates={"ratio": {"w": np.where(live, ratio, 1e-9)}}, data={"entropy": {"target": 2.3}}, **synthetic.CLASSES,
    )  # fmt: skip

    assert Checklist(select=["ND502", "ND505"]).examine(run).headlines == (headline,)


@pytest.mark.parametrize(("decay", "sick"), [(0.3, True), (0.1, False)])
def test_a_decay_that_counts_steps_where_it_should_count_epochs_is_named(decay: float, sick: bool) -> None:
    lr = 0.1 / (1 + decay * np.arange(500))
    train = 2.3 * np.exp(-0.6 * np.cumsum(lr))  # as far as the rates that there were could take it

    found = findings(Schedule(), scheduled(lr, train))
    assert bool(found) is sick
    assert all("come to 17 at the largest" in one.message for one in found)


def test_a_decay_that_ends_where_the_loss_had_settled_passes() -> None:
    lr = 0.1 / (1 + 0.3 * np.arange(500))
    train = 1.0 + 1.3 * np.exp(-6 * np.cumsum(lr))

    assert not findings(Schedule(), scheduled(lr, train))


def test_a_rate_of_zero_throughout_is_left_to_its_own_check() -> None:
    assert "ND502" in (Schedule().not_checked(scheduled(np.zeros(100))) or "")


# ND506


@pytest.mark.parametrize(
    "optimizer", [nn.SGD(0.1, momentum=0.9, weight_decay=0.1), nn.Adam(3e-3, weight_decay=10.0)], ids=["SGD", "Adam"]
)
def test_a_decay_that_shrinks_the_weights_away_is_named(optimizer: nn.Optimizer) -> None:
    (found,) = findings(DecayDominates(), train(some_digits(), [32], optimizer, 15))

    assert found.fix in ("Try weight_decay = 0.01 instead of 0.1.", "Try weight_decay = 1 instead of 10.")


@pytest.mark.parametrize(
    ("optimizer", "headline"),
    [(nn.Adam(4.0, weight_decay=0.1), "ND501"), (nn.Adam(4e-3, weight_decay=100.0), "ND506"),
     (nn.SGD(50.0, weight_decay=1e-3), "ND501"), (nn.SGD(0.05, momentum=0.9, weight_decay=0.5), "ND506")],
    ids=["Adam, high rate", "Adam, strong decay", "SGD, high rate", "SGD, strong decay"],
)  # fmt: skip
def test_a_usual_decay_is_strong_by_the_learning_rate_alone(optimizer: nn.Optimizer, headline: str) -> None:
    report = Checklist().examine(train(some_digits(), [32], optimizer, 15))

    assert report.headlines == (headline,)
    assert "ND506" in {finding.code for finding in report.findings}


def test_a_decay_that_suits_noisy_labels_passes() -> None:
    run = train(noisy_digits(), [32], nn.SGD(0.05, momentum=0.9, weight_decay=5e-3), 20)

    assert not findings(DecayDominates(), run)


@pytest.mark.parametrize(("decay", "found"), [(0.11, 1), (0.09, 0)])
def test_a_decay_within_the_gradient_stands_against_it_where_steps_are_of_one_size(decay: float, found: int) -> None:
    weight = np.geomspace(1.0, 0.4, 100)
    optimizer = {"name": "Adam", "lr": 1e-3, "weight_decay": decay, "decoupled_weight_decay": False}
    run = synthetic.run(
        train=synthetic.decay(end=1.8), updates={"weight_norm": {"w": weight}, "update_norm": {"w": 0.02 * weight}},
        gradients={"norm": {"w": 0.1 * weight}}, metrics={"lr": {"train": 1e-3}}, optimizer=optimizer,
    )  # fmt: skip

    assert len(findings(DecayDominates(), run)) == found


@pytest.mark.parametrize(("kept", "found"), [(0.04, 1), (0.06, 0)])
def test_a_decay_that_is_all_that_is_left_of_the_update_has_killed_the_network(kept: float, found: int) -> None:
    weight = np.geomspace(1.0, kept, 100)
    run = synthetic.run(
        train=np.full(100, 2.3), updates={"weight_norm": {"w": weight}, "update_norm": {"w": 0.03 * weight}},
        metrics={"lr": {"train": 0.1}}, optimizer={"name": "SGD", "lr": 0.1, "weight_decay": 0.3},
    )  # fmt: skip

    assert len(findings(DecayDominates(), run)) == found


@pytest.mark.parametrize(("decay", "kept", "found"), [(0.31, 0.04, 1), (0.29, 0.04, 0), (0.31, 0.06, 0)])
def test_a_decay_that_would_leave_nothing_by_itself_has_left_nothing(decay: float, kept: float, found: int) -> None:
    """After 100 steps of 0.1 · decay, of updates that are mostly noise by now: e^-3 is 0.05."""
    weight = np.geomspace(1.0, kept, 100)
    run = synthetic.run(
        train=np.full(100, 2.3), updates={"weight_norm": {"w": weight}, "update_norm": {"w": 0.06 * weight}},
        metrics={"lr": {"train": 0.1}}, optimizer={"name": "SGD", "lr": 0.1, "weight_decay": decay},
    )  # fmt: skip

    assert len(findings(DecayDominates(), run)) == found


@pytest.mark.parametrize(("before", "found"), [(1.0, 0), (0.04, 1)])
def test_weights_that_are_no_numbers_any_more_have_not_shrunk(before: float, found: int) -> None:
    """The loss ends at step 60; the norms of what was left finite of the weights are small from there on."""
    steps = np.arange(100)
    weight = np.where(steps < 60, np.geomspace(1.0, before, 60)[np.minimum(steps, 59)], 0.01)
    run = synthetic.run(
        train=np.where(steps < 60, 2.3, np.nan), first_nonfinite={"step": 60, "what": "loss"},
        updates={"weight_norm": {"w": weight}, "update_norm": {"w": 0.03}}, metrics={"lr": {"train": 0.1}},
        optimizer={"name": "SGD", "lr": 0.1},
    )  # fmt: skip

    assert len(findings(DecayDominates(), run)) == found


@pytest.mark.parametrize(("kept", "end", "found"), [(0.04, 2.3, 1), (0.55, 2.3, 1), (0.65, 2.3, 0), (0.04, 0.1, 0)])
def test_without_decay_a_penalty_in_the_loss_is_what_takes_all_weights_away(
    kept: float, end: float, found: int
) -> None:
    weights = {"h1.weight": np.geomspace(1.0, kept, 100), "output.weight": np.geomspace(1.0, 0.01, 100)}
    run = synthetic.run(
        train=synthetic.decay(end=end), updates={"weight_norm": weights, "update_norm": weights},
        data={"entropy": {"target": 2.3}}, metrics={"lr": {"train": 0.1}}, optimizer={"name": "SGD", "lr": 0.1},
        loss={"name": "CrossEntropyLoss", "task": "classes", "expects": "logits"},
    )  # fmt: skip

    assert len(findings(DecayDominates(), run)) == found


def test_of_a_loop_of_ones_own_nothing_need_be_described_and_the_update_may_be_wrong() -> None:
    """W = mu * W - lr * g, where momentum belongs to a velocity."""
    norms = {"a.weight": 10 * 0.9 ** np.arange(100), "b.weight": 5 * 0.9 ** np.arange(100)}
    updates = {"weight_norm": norms, "update_norm": {name: 0.1 * norm for name, norm in norms.items()}}

    own = Checklist("ND506").examine(synthetic.run(updates=updates))
    torch = Checklist("ND506").examine(synthetic.run(updates=updates, versions={"torch": "2.13"}))

    assert own.findings[0].causes[-1].startswith("an update that multiplies the weights")
    assert torch.checks[0].verdict.name == "NOT_CHECKED"


@pytest.mark.parametrize(("decay", "optimizer", "found"), [(0.2, "SGD", 1), (0.1, "SGD", 0), (0.2, "AdamW", 0)])
def test_a_penalty_above_the_loss_holds_it_up(decay: float, optimizer: str, found: int) -> None:
    """Of weights of norm 3 that do not shrink: λ/2 · 9 is 0.9 or 0.45, and the loss ends at 0.7."""
    run = synthetic.run(
        train=synthetic.decay(end=0.7, noise=0.0), updates={"weight_norm": {"w": 3.0}, "update_norm": {"w": 0.01}},
        data={"entropy": {"target": 2.3}}, metrics={"lr": {"train": 0.1}},
        optimizer={"name": optimizer, "lr": 0.1, "weight_decay": decay}, **synthetic.CLASSES,
    )  # fmt: skip

    assert ["is 0.9, where" in each.message for each in findings(DecayDominates(), run)] == [True] * found


def test_weights_that_come_back_from_an_explosion_have_not_shrunk() -> None:
    norms = np.r_[1.0, np.full(10, 1e12), np.full(89, 1.0)]
    run = synthetic.run(
        train=np.full(100, 2.3), updates={"weight_norm": {"w": norms}, "update_norm": {"w": 0.01}},
        metrics={"lr": {"train": 0.1}}, optimizer={"name": "SGD", "lr": 0.1},
    )  # fmt: skip

    assert not findings(DecayDominates(), run)


# ND507


def test_an_eps_above_the_gradients_is_named() -> None:
    (found,) = findings(OptimizerEpsilon(), train(some_digits(), [32], nn.Adam(1e-3, eps=0.1), 5))

    assert found.fix.startswith("Leave eps at 1e-8")


@pytest.mark.parametrize(("end", "found"), [(0.2, 0), (0.3, 1)])
def test_gradients_are_small_beside_eps_where_nothing_is_left_to_learn(end: float, found: int) -> None:
    optimizer = {"name": "Adam", "lr": 1e-3, "betas": [0.9, 0.999], "eps": 1e-8}
    losses = np.where(np.arange(100) < 10, 2.3, end)
    run = synthetic.run(
        train=losses, gradients={"rms": {"h1.weight": 1e-9}}, optimizer=optimizer, data={"entropy": {"target": 2.3}},
        **synthetic.CLASSES,
    )  # fmt: skip

    assert len(findings(OptimizerEpsilon(), run)) == found


@pytest.mark.parametrize(("eps", "headline"), [(1e-7, "ND501"), (2e-7, "ND507")])
def test_gradients_below_a_usual_eps_have_a_cause_of_their_own(eps: float, headline: str) -> None:
    run = synthetic.run(
        train=np.full(100, 5.0), gradients={"rms": {"h1.weight": 1e-8}}, data={"entropy": {"target": 2.3}},
        updates={"ratio": {"h1.weight": 0.3}, "weight_norm": {"h1.weight": 1.0}, "update_norm": {"h1.weight": 0.3}},
        optimizer={"name": "Adam", "lr": 1.0, "betas": [0.9, 0.999], "eps": eps}, **synthetic.CLASSES,
    )  # fmt: skip

    assert Checklist(select=["ND501", "ND507"]).examine(run).headlines[0] == headline


def test_an_eps_that_half_precision_cannot_hold_is_named() -> None:
    optimizer = {"name": "Adam", "betas": [0.9, 0.999], "eps": 1e-8}
    gradients = {"rms": {"w": 1e-3}}

    assert findings(OptimizerEpsilon(), synthetic.run(gradients=gradients, optimizer=optimizer, dtype="float16"))
    assert not findings(OptimizerEpsilon(), synthetic.run(gradients=gradients, optimizer=optimizer, dtype="float32"))


def test_an_eps_of_half_precision_is_named_from_the_first_read_on() -> None:
    """The step after it divides by zero."""
    optimizer = {"name": "Adam", "betas": [0.9, 0.999], "eps": 1e-8}
    run = synthetic.run(steps=1, gradients={"rms": {"w": 1e-3}}, optimizer=optimizer, dtype="float16")

    assert OptimizerEpsilon().not_checked(run) is None
    (found,) = findings(OptimizerEpsilon(), run)
    assert "autocast" in found.fix


def test_plain_gradient_descent_has_no_eps() -> None:
    assert "eps" in (OptimizerEpsilon().not_checked(sound("three epochs")) or "")


# ND508


def test_dropout_of_nine_tenths_is_measured() -> None:
    run = train(some_digits(), [64], nn.SGD(0.02), 3, dropout=0.9)

    (found,) = findings(AbsurdSettings(), run)
    assert found.layer == "hidden1.dropout"
    assert found.value == pytest.approx(0.9, abs=0.01)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"lr": -0.1}, "uphill"),
        ({"lr": 0.1, "momentum": 1.0}, "never forgets"),
        ({"lr": 0.1, "betas": [0.9, 1.0]}, "never forgets"),
        ({"lr": 0.1, "momentum": 0.9999}, "remembers 10,000 updates"),
    ],
)
def test_absurd_settings_are_named(settings: dict[str, object], words: str) -> None:
    (found,) = findings(AbsurdSettings(), synthetic.run(train=synthetic.decay(), optimizer=settings))

    assert words in found.message


@pytest.mark.parametrize(
    "settings", [{"lr": 0.0}, {"lr": 1e-3, "betas": [0.9, 0.999]}, {"lr": 0.1, "momentum": 0.99}, {"lr": "auto"}]
)
def test_usual_settings_pass(settings: dict[str, object]) -> None:
    assert not findings(AbsurdSettings(), synthetic.run(train=synthetic.decay(), optimizer=settings))


# ND509


def test_batch_norm_over_four_rows_is_named() -> None:
    run = train(some_digits(200), [16], nn.SGD(0.02), 1, 4, norm="batch")

    (found,) = findings(TinyBatchNorm(), run)
    assert found.layer == "hidden1.norm"


def test_positions_of_an_image_count_as_values() -> None:
    layers = [{"name": "norm", "kind": "batch_norm", "shape": [64, 8, 8]}]

    assert not findings(TinyBatchNorm(), synthetic.run(outputs={"rows": {"outputs": 2.0}}, layers=layers))


def test_without_batch_norm_any_batch_will_do() -> None:
    assert TinyBatchNorm().not_checked(sound("batches of one")) == "no batch normalisation"


@pytest.mark.parametrize(("dropped", "end", "found"), [(0.75, 0.75, 1), (0.75, 0.6, 0), (0.65, 0.75, 0)])
def test_dropout_above_seven_tenths_is_named_where_little_is_learned(dropped: float, end: float, found: int) -> None:
    layers = [
        {"name": name, "kind": kind} for name, kind in (("fc", "affine"), ("drop", "dropout"), ("output", "affine"))
    ]
    run = synthetic.run(
        train=synthetic.decay(end=end, noise=0.0), data={"entropy": {"target": 2.3}}, layers=layers,
        activations={"zero_fraction": {"fc": 0.0, "drop": dropped, "output": 0.0}}, **synthetic.CLASSES,
    )  # fmt: skip

    assert len(findings(AbsurdSettings(), run)) == found


@pytest.mark.parametrize(("rate", "found"), [(None, 1), (0.9, 1), (0.1, 0), (0.0, 0)])
def test_what_is_zero_behind_a_dropout_that_drops_little_has_another_reason(rate: float | None, found: int) -> None:
    layers = [{"name": "fc", "kind": "affine"}, {"name": "drop", "kind": "dropout", "rate": rate},
              {"name": "output", "kind": "affine"}]  # fmt: skip
    run = synthetic.run(activations={"zero_fraction": {"fc": 0.0, "drop": 0.97, "output": 0.0}}, layers=layers)

    assert len(findings(AbsurdSettings(), run)) == found


@pytest.mark.parametrize(
    ("frozen", "updates", "found"),
    [((True, True), None, True), ((True, False), None, False), ((True, True), 1.0, False)],
)
def test_a_network_of_which_everything_is_frozen_is_named(
    frozen: tuple[bool, bool], updates: float | None, found: bool
) -> None:
    """Unless an optimiser was seen to step: on an image, it may be."""
    names = ("a.weight", "b.weight")
    run = synthetic.run(
        train=1.1,
        parameters=[{"name": n, "shape": [3, 3], "frozen": f} for n, f in zip(names, frozen, strict=True)],
        loop={"backward_passes": 1.0, "updates": updates} if updates else {},
    )
    seen = UntouchedParameter().found(run)

    assert [(one.code, one.parameter) for one in seen] == [("ND503", None)] * found


@pytest.mark.parametrize(("batch", "found"), [(32, True), (None, False)])
def test_a_batch_that_never_changes_is_few_samples_however_many_there_are(batch: int | None, found: bool) -> None:
    """Of pixels with a few values each, the different samples alone would not tell that they are few."""
    split = datasets.digits()
    x, y = split.x[:1184], split.y[:1184]
    trainer = nn.Trainer(nn.MLP([64, 32, 10], seed=0), nn.SoftmaxCrossEntropy(), nn.Adam(1e-2), seed=0)
    rows = np.arange(1184) % (batch or 1184)
    with nndiag.watch(trainer, every=1) as recorder:
        trainer.fit(
            x[rows],
            y[rows],
            validation=(split.x_val, split.y_val),
            epochs=3,
            batch_size=32,
            shuffle=False,
        )

    assert bool(TooFewSamples().found(recorder.run)) is found
