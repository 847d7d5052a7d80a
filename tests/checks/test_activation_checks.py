"""ND3 on real trainings and beside its neighbours."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from sound_programs import SOUND, some_digits, sound, train

import nndiag
from nndiag import Checklist, Finding, Verdict, nn, synthetic
from nndiag.check import Check
from nndiag.checks import (
    ActivationDrift,
    CollapsedRepresentation,
    LinearStack,
    OutputCollapse,
    SaturatedUnits,
)
from nndiag.run import Run


def findings(check: Check, run: Run) -> list[Finding]:
    assert check.not_checked(run) is None
    return [found for found in check.examine(run) if found.kind != "note"]


def notes(check: Check, run: Run) -> list[str]:
    assert check.not_checked(run) is None
    return [found.message for found in check.examine(run) if found.kind == "note"]


@pytest.mark.parametrize("name", SOUND)
def test_sound_programs_have_sound_activations(name: str) -> None:
    assert Checklist(select="ND3").examine(sound(name)).findings == ()


# ND302


def test_pixels_up_to_255_saturate_the_first_tanh_layer() -> None:
    x, y, x_val, y_val = some_digits()
    run = train((255 * x, y, 255 * x_val, y_val), [32, 32], nn.SGD(0.05, momentum=0.9), 6, activation="tanh")

    (found,) = findings(SaturatedUnits(), run)
    assert (found.layer, found.first_step) == ("hidden1.tanh", 0)
    assert "hidden1.weight with std = 0.14 (Xavier)" in found.fix


def test_saturation_that_comes_with_learning_is_a_remark() -> None:
    saturated = {"h1.tanh": np.linspace(0, 1, 100), "output": np.nan}
    layers = [{"name": "h1.tanh", "kind": "tanh"}, {"name": "output", "kind": "affine"}]
    learned = synthetic.run(
        train=synthetic.decay(), activations={"saturated_fraction": saturated, "mean": saturated}, layers=layers
    )

    assert not findings(SaturatedUnits(), learned)
    assert "h1.tanh" in notes(SaturatedUnits(), learned)[0]


def test_a_saturated_output_is_meant_to_be() -> None:
    saturated = {"h1.tanh": np.zeros(100), "output": np.nan, "output.sigmoid": np.ones(100)}
    kinds = {"h1.tanh": "tanh", "output": "affine", "output.sigmoid": "sigmoid"}
    run = synthetic.run(
        activations={"saturated_fraction": saturated},
        layers=[{"name": name, "kind": kind} for name, kind in kinds.items()],
    )

    assert not findings(SaturatedUnits(), run)


# ND303


def drifting(hidden: object, output: object) -> Run:
    layers = [
        {"name": "h1", "kind": "affine"},
        {"name": "h1.relu", "kind": "relu"},
        {"name": "output", "kind": "affine"},
    ]
    variance = {"h1": hidden, "h1.relu": hidden, "output": output}
    return synthetic.run(activations={"mean": dict.fromkeys(variance, 0.0), "variance": variance}, layers=layers)


def test_logits_may_grow() -> None:
    assert not findings(ActivationDrift(), drifting(1.0, np.geomspace(1, 1e6, 100)))


def test_a_signal_brought_up_to_scale_is_no_drift() -> None:
    assert not findings(ActivationDrift(), drifting(np.geomspace(1e-8, 4.0, 100), 1.0))


def test_the_layer_that_runs_away_is_named() -> None:
    (found,) = findings(ActivationDrift(), drifting(np.geomspace(1, 1e6, 100), 1.0))

    assert found.layer == "h1.relu"


@pytest.mark.parametrize(("targets", "found"), [(7.0, 1), (14.0, 0)])
def test_a_signal_that_has_to_reach_large_targets_is_no_drift(targets: float, found: int) -> None:
    run = drifting(np.geomspace(1, 1e6, 100), 1.0)
    regression = synthetic.run(data={"rms": {"target": targets}}, loss={"name": "MSE", "task": "real"})
    meta = dataclasses.replace(run.meta, loss=regression.meta.loss)

    assert len(findings(ActivationDrift(), Run(meta, {**run.tables, **regression.tables}))) == found


# ND304


def test_a_deep_stack_of_sigmoids_says_the_same_for_every_input() -> None:
    run = train(some_digits(), [32] * 8, nn.SGD(0.1), 8, activation="sigmoid")

    (found,) = findings(CollapsedRepresentation(), run)
    assert found.layer in ("hidden4.sigmoid", "hidden5.sigmoid", "hidden6.sigmoid")
    assert found.first_step == 0


def collapsed(**changes: float) -> Run:
    layers = [{"name": "h1.relu", "kind": "relu"}, {"name": "h2", "kind": "tanh"}, {"name": "output", "kind": "affine"}]
    names = [layer["name"] for layer in layers]
    mean = dict.fromkeys(names, 0.5) | {"h1.relu": changes.get("first", 0.5)}
    variance = dict.fromkeys(names, 0.1) | {"h1.relu": changes.get("first", 0.1)}
    spread = {"h1.relu": changes.get("first", 0.1), "h2": 0.0, "output": 0.0}
    return synthetic.run(
        activations={"mean": mean, "variance": variance, "batch_variance": spread}, layers=layers,
        outputs={"rows": {"outputs": changes.get("rows", 64.0)}},
        data={"constant_fraction": {"input": changes.get("constant", 0.1)}},
    )  # fmt: skip


def test_the_first_collapsed_layer_is_named() -> None:
    assert findings(CollapsedRepresentation(), collapsed())[0].layer == "h2"


@pytest.mark.parametrize(("sound", "found"), [(0, 1), (1, 1), (2, 0), (10, 0)])
def test_a_layer_that_has_come_back_is_not_collapsed(sound: int, found: int) -> None:
    spread = np.where(np.arange(60) < 60 - sound, 0.0, 0.1)
    run = synthetic.run(
        steps=60, activations={"mean": {"h": 0.5}, "variance": {"h": 0.1}, "batch_variance": {"h": spread, "out": 0.1}},
        layers=[{"name": "h", "kind": "tanh"}, {"name": "out", "kind": "affine"}], outputs={"rows": {"outputs": 64.0}},
    )  # fmt: skip

    assert len(findings(CollapsedRepresentation(), run)) == found


def test_what_stands_behind_a_dead_layer_is_not_collapsed() -> None:
    assert not findings(CollapsedRepresentation(), collapsed(first=0.0))


@pytest.mark.parametrize(("changes", "reason"), [({"rows": 1.0}, "batches of 2"), ({"constant": 1.0}, "do not vary")])
def test_without_variety_there_is_nothing_to_judge(changes: dict[str, float], reason: str) -> None:
    assert reason in (CollapsedRepresentation().not_checked(collapsed(**changes)) or "")


# ND305


def test_a_network_without_activation_functions_is_one_affine_map() -> None:
    run = train(some_digits(200), [32, 32], nn.SGD(0.05), 2, activation=None, dropout=0.2)

    (found,) = findings(LinearStack(), run)
    assert "its 3 layers" in found.message


def layers(*widths: int, function_after: int | None = None) -> Run:
    """Affine layers from 16 inputs on; a ReLU behind one of them."""
    described: list[dict[str, object]] = []
    for i, width in enumerate(widths):
        described.append({"name": f"l{i}", "kind": "affine", "shape": [width]})
        if i == function_after:
            described.append({"name": f"l{i}.relu", "kind": "relu", "shape": [width]})
    parameters = [{"name": f"l{i}.weight", "shape": [width, [16, *widths][i]], "layer": f"l{i}"}
                  for i, width in enumerate(widths)]  # fmt: skip
    return synthetic.run(train=1.0, layers=described, parameters=parameters)


def test_a_linear_pair_in_a_network_that_bends_is_a_remark() -> None:
    assert notes(LinearStack(), layers(16, 16, 10, function_after=0)) == [
        "l1 and l2: one affine map in two layers, nothing nonlinear stands between them"
    ]


def test_a_narrow_middle_is_a_factorisation() -> None:
    run = layers(4, 16)

    assert not findings(LinearStack(), run)
    assert not notes(LinearStack(), run)


def test_one_affine_layer_is_no_stack() -> None:
    assert LinearStack().not_checked(sound("logistic regression")) == "needs two affine layers or convolutions"


@pytest.mark.parametrize(
    ("between", "found", "remarks"),
    [("identity", 1, 0), ("average_pooling", 1, 0), ("batch_norm", 1, 0), ("max_pooling", 0, 0), ("relu", 0, 0)],
)
def test_convolutions_without_anything_between_that_bends_are_one_map(between: str, found: int, remarks: int) -> None:
    kinds = ["convolution", between, "convolution", "average_pooling", "flatten", "affine"]
    shapes = [[8, 9, 9], [8, 9, 9], [16, 7, 7], [16, 1, 1], [16], [4]]
    described: list[dict[str, object]] = [
        {"name": str(i), "kind": kind, "shape": shape}
        for i, (kind, shape) in enumerate(zip(kinds, shapes, strict=True))
    ]
    run = synthetic.run(train=1.0, layers=described)

    assert len(findings(LinearStack(), run)) == found
    assert len(notes(LinearStack(), run)) == remarks


@pytest.mark.parametrize(
    ("kinds", "found"),
    [
        ("convolution max_pooling convolution max_pooling flatten affine", 0),
        ("convolution convolution max_pooling flatten affine", 1),
        ("convolution max_pooling flatten affine dropout affine", 1),
        ("convolution relu max_pooling flatten affine affine", 0),
    ],
)
def test_where_nothing_bends_but_pooling_activation_functions_are_left_out(kinds: str, found: int) -> None:
    described: list[dict[str, object]] = [
        {"name": str(i), "kind": kind, "shape": [16]} for i, kind in enumerate(kinds.split())
    ]
    named = findings(LinearStack(), synthetic.run(train=1.0, layers=described))

    assert ["has no activation function" in one.message for one in named] == [True] * found


def test_a_convolution_taken_apart_in_a_network_that_bends_is_no_remark() -> None:
    kinds = {"depthwise": "convolution", "pointwise": "convolution", "relu": "relu", "head": "affine"}
    described: list[dict[str, object]] = [
        {"name": name, "kind": kind, "shape": [8, 9, 9]} for name, kind in kinds.items()
    ]

    assert not notes(LinearStack(), synthetic.run(train=1.0, layers=described))


# ND306


def test_a_network_thrown_off_by_its_updates_says_one_class() -> None:
    x, y, *_ = some_digits()
    network = nn.MLP([64, 32, 10], seed=0)
    bias = network.parameters[-1].value
    bias[3] = 50.0
    trainer = nn.Trainer(network, nn.SoftmaxCrossEntropy(), nn.SGD(1e-3))
    with nndiag.watch(trainer, every=1) as recorder:
        trainer.fit(x, y, epochs=10, batch_size=64)

    report = Checklist(select="ND306").examine(recorder.run)
    assert report.verdict is Verdict.FAIL
    assert report.findings[0].layer == "output"


@pytest.mark.parametrize(("share", "judged"), [(0.4, True), (0.6, False)])
def test_outputs_that_are_not_finite_name_no_class(share: float, judged: bool) -> None:
    run = counted(0.5, poor=True)
    broken = np.where(np.arange(100) < share * 100, 1.0, 0.0)
    nonfinite = synthetic.run(
        outputs={"nonfinite": {"outputs": broken}, "count": {"predicted 0": 32.0, "predicted 1": 0.0}}
    )
    reason = OutputCollapse().not_checked(Run(run.meta, {**run.tables, "outputs": nonfinite.tables["outputs"]}))
    assert (reason is None) is judged
    assert judged or "ND801" in str(reason)


@pytest.mark.parametrize(("broken", "found"), [(0, 1), (40, 0)])
def test_what_is_named_by_outputs_that_are_not_finite_is_left_out(broken: int, found: int) -> None:
    """Of 100 reads the last 40 name class 0 alone, as NaN does."""
    late = np.arange(100) >= 60
    run = synthetic.run(
        outputs={"nonfinite": {"outputs": np.where(np.arange(100) >= 100 - broken, 1.0, 0.0)},
                 "count": {"predicted 0": np.where(late, 32.0, 16.0), "predicted 1": np.where(late, 0.0, 16.0)}},
        data={"count": {"label 0": 10.0, "label 1": 11.0, "label 2": 11.0}},
    )  # fmt: skip

    assert len(findings(OutputCollapse(), run)) == found


def counted(label: float, *, poor: bool) -> Run:
    """Always class 0; `label` of the labels are."""
    return synthetic.run(
        train=0.69 if poor else synthetic.decay(start=0.69, end=0.3),
        outputs={"count": {"predicted 0": 32.0, "predicted 1": 0.0}},
        data={"count": {"label 0": 32 * label, "label 1": 32 * (1 - label)}, "entropy": {"target": 0.69}},
        **synthetic.CLASSES,
    )  # fmt: skip


@pytest.mark.parametrize(("labels", "width", "checked"), [(3, 1.0, False), (2, 1.0, True), (3, 3.0, True)])
def test_counts_that_a_single_output_predicts_are_no_classes(labels: int, width: float, checked: bool) -> None:
    predicted = {f"predicted {i}": 32.0 * (i == 1) for i in range(2)}
    run = synthetic.run(outputs={"count": predicted, "width": {"outputs": width}},
                        data={"count": {f"label {i}": 10.0 for i in range(labels)}})  # fmt: skip

    assert (OutputCollapse().not_checked(run) is None) is checked


@pytest.mark.parametrize(("label", "poor", "sick"), [(0.6, True, True), (0.6, False, False), (0.95, True, False)])
def test_the_most_common_class_may_be_the_best_guess(label: float, poor: bool, sick: bool) -> None:
    assert bool(findings(OutputCollapse(), counted(label, poor=poor))) is sick
