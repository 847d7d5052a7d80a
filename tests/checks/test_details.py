"""What single checks see beyond the contract: layers, neighbours, traps and fixes."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

import nndiag
from nndiag import Checklist, Finding, Verdict, nn, pretrained, structure, synthetic
from nndiag.checks import (
    AbsurdSettings,
    ActivationVariance,
    Bottleneck,
    DeadUnits,
    DoubleSoftmax,
    ExplodingGradients,
    InitialLoss,
    InputDrift,
    InputScale,
    LearningRateHigh,
    LearningRateLow,
    LinearStack,
    MeanShift,
    Nonfinite,
    Overfitting,
    SymmetricWeights,
    TargetScale,
    VanishingGradients,
)
from nndiag.meta import ParameterMeta
from nndiag.run import Run
from nndiag.statistics import Array


def findings(check: nndiag.Check, run: Run) -> list[Finding]:
    assert check.not_checked(run) is None
    return [found for found in check.examine(run) if found.kind != "note"]


def first_step(trainer: nn.Trainer, x: Array, y: Array) -> Run:
    with nndiag.watch(trainer, every=1, strict=True) as recorder:
        trainer.step(x, y)
    return recorder.run


def deep(std: float | None, **options: object) -> Run:
    """The first step of the lesson's deep net: 20 layers of 256 units, 512 standard normal inputs."""
    rng = np.random.default_rng(2)
    init = "he_normal" if std is None else nn.normal(std)
    model = nn.MLP([*[256] * 20, 10], init=init, seed=0, **options)  # type: ignore[arg-type]
    trainer = nn.Trainer(model, nn.SoftmaxCrossEntropy(), nn.SGD(0.01))
    return first_step(trainer, rng.standard_normal((512, 256)), rng.integers(0, 10, 512))


# ND203, ND401: the lesson's section 8


@pytest.mark.parametrize(("std", "word"), [(0.02, "shrinks"), (0.2, "grows")])
def test_the_lessons_deep_net_is_named_with_the_std_to_use(std: float, word: str) -> None:
    (found,) = findings(ActivationVariance(), deep(std))

    assert word in found.message
    assert found.layer == "hidden1.relu"
    assert "std = 0.088 (He" in found.fix


def squashed(kind: str, depth: int, gain: float, ratio: float = 1e-5) -> Run:
    """The first read of `depth` hidden layers of this kind, each of which passes on `gain` of the signal; δ as in ND401."""
    names = [*(name for i in range(depth) for name in (f"h{i}", f"h{i}.{kind}")), "output"]
    signal = [*np.repeat(gain ** np.arange(1, depth + 1), 2).tolist(), gain**depth]
    parameters = [{"name": f"h{i}.weight", "kind": "weight", "shape": [64, 64], "layer": f"h{i}", "frozen": False}
                  for i in range(depth)]  # fmt: skip
    return synthetic.run(
        activations={
            "mean": {name: 0.5 if name.endswith(kind) else 0.0 for name in names},
            "variance": dict(zip(names, np.square(signal), strict=True)),
            "batch_variance": dict(zip(names, np.square(signal), strict=True)),
            "gradient_rms": dict(zip(names, np.geomspace(ratio, 1, len(names)), strict=True)),
        },
        data={"variance": {"input": 1.0}},
        layers=[{"name": name, "kind": kind if name.endswith(kind) else "affine", "shape": [64]} for name in names],
        parameters=parameters,
    )


@pytest.mark.parametrize(
    ("kind", "gain", "blamed"),
    [("sigmoid", 0.24, "sigmoid"), ("hard_sigmoid", 0.16, "hard_sigmoid"), ("sigmoid", 0.02, "weights"),
     ("tanh", 0.24, "weights")],
)  # fmt: skip
def test_a_signal_that_sigmoids_squash_is_not_laid_on_the_weights(kind: str, gain: float, blamed: str) -> None:
    (found,) = findings(ActivationVariance(), squashed(kind, 6, gain))

    assert found.causes[0].startswith(blamed)
    assert ("ReLU or tanh in place of" in found.fix) == (blamed != "weights")


@pytest.mark.parametrize(("kind", "named"), [("hard_sigmoid", True), ("sigmoid", True), ("relu", False)])
def test_gradients_that_vanish_in_sigmoids_say_so(kind: str, named: bool) -> None:
    (found,) = findings(VanishingGradients(), squashed(kind, 3, 0.5))

    assert any(f"{kind} in hidden layers (h0.{kind}, h1.{kind}" in cause for cause in found.causes) == named
    assert (f"in place of {kind}" in found.fix) == named


def test_what_is_no_layers_own_has_no_initialisation_to_be_judged() -> None:
    activations: synthetic.Statistics = {"mean": {"h": 0.0, "output": 0.0}, "variance": {"h": 1.0, "output": 1.0}}
    layers = [{"name": "h", "kind": "affine"}, {"name": "output", "kind": "affine"}]
    for owner, found in (("output", 1), ("net", 0)):
        weight = {"name": f"{owner}.weight", "kind": "weight", "shape": [10, 32], "layer": owner}
        run = synthetic.run(activations=activations, updates={"weight_norm": {f"{owner}.weight": 320**0.5}},
                            layers=layers, parameters=[weight], data={"variance": {"input": 1.0}})  # fmt: skip
        assert len(findings(ActivationVariance(), run)) == found


def test_the_middle_of_a_sigmoid_is_no_shift() -> None:
    for kind, shifted in (("sigmoid", 0), ("hard_sigmoid", 0), ("softplus", 2)):
        assert len(findings(MeanShift(), squashed(kind, 3, 0.25))) == shifted, kind


def test_the_lessons_he_net_is_sound() -> None:
    run = deep(None)

    report = Checklist(select="ND2").examine(run)

    assert report.verdict is Verdict.PASS
    assert run.activations["variance"].loc[0, "hidden19.relu"] > 0.1


def test_xavier_with_relu_is_sound() -> None:
    rng = np.random.default_rng(0)
    model = nn.MLP([*[64] * 8, 10], init="xavier_normal")
    run = first_step(
        nn.Trainer(model, nn.SoftmaxCrossEntropy(), nn.SGD(0.01)), rng.standard_normal((256, 64)), np.arange(256) % 10
    )

    assert not findings(ActivationVariance(), run)


@pytest.mark.parametrize(("gain", "end", "found"), [(0.27, 0.02, 0), (0.27, 0.2, 1), (0.2, 0.02, 1)])
def test_a_signal_that_shrinks_a_little_is_a_remark_where_training_arrives(gain: float, end: float, found: int) -> None:
    rms = gain ** np.arange(1, 6)
    layers = [{"name": f"h{i}", "kind": "affine"} for i in range(5)] + [{"name": "output", "kind": "affine"}]
    activations = {"mean": {f"h{i}": 0.0 for i in range(5)} | {"output": 0.0},
                   "variance": {f"h{i}": rms[i] ** 2 for i in range(5)} | {"output": 1.0}}  # fmt: skip
    run = synthetic.run(
        train=np.where(np.arange(100) < 10, 2.3, end), activations=activations, layers=layers,
        data={"variance": {"input": 1.0}, "entropy": {"target": 2.3}}, **synthetic.CLASSES,
    )  # fmt: skip

    assert len(findings(ActivationVariance(), run)) == found


@pytest.mark.parametrize(("kind", "found"), [("embedding", 0), ("affine", 1)])
def test_ids_are_no_signal_that_could_shrink(kind: str, found: int) -> None:
    layers = [{"name": "first", "kind": kind}, {"name": "h", "kind": "affine"}, {"name": "h.relu", "kind": "relu"},
              {"name": "output", "kind": "affine"}]  # fmt: skip
    activations = {"mean": dict.fromkeys(("first", "h", "h.relu", "output"), 0.0),
                   "variance": {"first": 1.0, "h": 0.3, "h.relu": 0.1, "output": 0.1}}  # fmt: skip
    run = synthetic.run(activations=activations, layers=layers, data={"rms": {"input": 5e3}})

    assert len(findings(ActivationVariance(), run)) == found


@pytest.mark.parametrize("turned", [False, True])
def test_the_layer_that_is_blamed_gets_the_standard_deviation_of_its_own_inputs(turned: bool) -> None:
    """Of layers h1 … h12 the signal is lost in h10, of 1,000 inputs, whose weight may be kept as (in, out)."""
    names = [f"h{i}" for i in range(1, 13)]
    widths = dict.fromkeys(names, 64) | {"h9": 1000, "h10": 10}
    fans = zip(names, [64, *widths.values()], strict=False)
    shapes = {name: (fan_in, widths[name]) if turned else (widths[name], fan_in) for name, fan_in in fans}
    rms = [1.0 if i < 10 else 1e-9 for i in range(1, 13)]
    run = synthetic.run(
        steps=1,
        activations={
            "mean": dict.fromkeys(names, 0.0),
            "variance": {n: r * r for n, r in zip(names, rms, strict=True)},
        },
        data={"rms": {"input": 1.0}, "variance": {"input": 1.0}},
        layers=[{"name": name, "kind": "affine", "shape": [widths[name]]} for name in names],
        parameters=[
            {"name": f"{n}.weight", "layer": n, "kind": "weight", "shape": shape} for n, shape in shapes.items()
        ],
    )
    (found,) = findings(ActivationVariance(), run)

    assert found.layer == "h10"
    assert "for h10.weight std = 0.045 (He, for ReLU) or 0.044 (Xavier" in found.fix


def test_normalised_nets_are_exempt_from_activation_variance() -> None:
    reason = ActivationVariance().not_checked(deep(0.2, norm="layer"))

    assert reason is not None
    assert "normalisation" in reason


def test_delta_shows_what_weight_gradients_hide() -> None:
    run = deep(0.02)
    delta, norms = run.activations["gradient_rms"].loc[0], run.gradients["rms"].loc[0]

    assert delta["hidden1"] / delta["output"] < 1e-12
    assert norms["hidden1.weight"] / norms["output.weight"] > 1e-3


def test_vanishing_gradients_needs_three_layers() -> None:
    run = synthetic.run(activations={"gradient_rms": {"h1": 1e-9, "output": 1.0}})

    assert VanishingGradients().not_checked(run) == "needs three layers with weights or more"


def test_a_threshold_of_ones_own_counts() -> None:
    run = VanishingGradients.sick()

    assert not findings(VanishingGradients(ratio=1e-4), run)


# ND202


def test_zero_heads_and_logistic_regression_are_sound(data: tuple[Array, Array]) -> None:
    for sizes in ([8, 3], [8, 16, 3]):
        model = nn.MLP(sizes)
        model.layers[-1].parameters[0].value[...] = 0.0
        run = first_step(nn.Trainer(model, nn.SoftmaxCrossEntropy(), nn.SGD(0.1)), *data)
        assert not findings(SymmetricWeights(), run)


@pytest.mark.parametrize("value", [0.0, 0.1])
def test_equal_weights_are_named_by_layer(value: float, data: tuple[Array, Array]) -> None:
    model = nn.MLP([8, 16, 12, 3], init=nn.constant(value))
    run = first_step(nn.Trainer(model, nn.SoftmaxCrossEntropy(), nn.SGD(0.1)), *data)

    assert [found.layer for found in findings(SymmetricWeights(), run)][:2] == ["hidden1", "hidden2"]


@pytest.mark.parametrize(("later", "found"), [(0.0, 0), (1.0, 1)])
def test_a_layer_that_nothing_comes_back_to_is_judged_once_it_does(later: float, found: int) -> None:
    """As a branch that starts at zero, before a head that does."""
    same, norm = np.full(10, later), np.ones(10)
    same[0], norm[0] = 1.0, 0.0
    run = synthetic.run(steps=10, gradients={"identical_rows": {"w": same}, "norm": {"w": norm}})

    assert len(findings(SymmetricWeights(), run)) == found


@pytest.mark.parametrize(("gradient", "found"), [(0.9e-6, 1), (1.1e-6, 0)])
def test_beside_equal_weights_rounding_is_no_gradient(gradient: float, found: int) -> None:
    gradients = {"identical_rows": {"w": 0.5, "b": 0.0}, "norm": {"w": gradient, "b": 0.1}}

    assert len(findings(SymmetricWeights(), synthetic.run(steps=10, gradients=gradients))) == found


def test_a_constant_in_front_of_a_normalisation_is_named_whatever_rounding_makes_of_it() -> None:
    rng = np.random.default_rng(0)
    for constant in (0.01, 0.5, 1.7):
        model = nn.MLP([13, 24, 24, 3], norm="layer", init=nn.constant(constant), seed=0)
        run = first_step(
            nn.Trainer(model, nn.SoftmaxCrossEntropy(), nn.Adam(1e-3)), rng.standard_normal((64, 13)), np.arange(64) % 3
        )

        assert findings(SymmetricWeights(), run)


@pytest.mark.parametrize(("std", "train", "found"), [(0.1, 2.3, 1), (0.2, 2.3, 0), (0.1, 1.0, 0)])
def test_small_weights_count_where_nothing_is_learned_also_without_layers(std: float, train: float, found: int) -> None:
    he = math.sqrt(2 / 64) * 64
    run = synthetic.run(
        train=synthetic.decay(end=train), data={"rms": {"input": 1.0}, "entropy": {"target": 2.3}},
        activations={"mean": {"whole": 0.0}, "variance": {"whole": 1.0}},
        updates={"weight_norm": {"a": std * he, "b": 0.5 * he}},
        parameters=[{"name": name, "kind": "weight", "shape": [64, 64]} for name in "ab"], **synthetic.CLASSES,
    )  # fmt: skip

    assert len(findings(ActivationVariance(), run)) == found


@pytest.mark.parametrize(("std", "found"), [(1.0, 0), (0.1, 1)])
def test_few_inputs_make_glorots_weights_small_beside_hes(std: float, found: int) -> None:
    """Of a stack without activation functions that learns nothing, it is not the cause."""
    glorot = math.sqrt(2 / (1 + 99))
    run = synthetic.run(
        train=synthetic.decay(end=2.3), data={"rms": {"input": 1.0}, "entropy": {"target": 2.3}},
        activations={"mean": {"whole": 0.0}, "variance": {"whole": 1.0}},
        updates={"weight_norm": {"a": std * glorot * math.sqrt(99), "b": 1.0}},
        parameters=[{"name": "a", "kind": "weight", "shape": [99, 1]}, {"name": "b", "kind": "weight", "shape": [1, 99]}],
        **synthetic.CLASSES,
    )  # fmt: skip

    assert len(findings(ActivationVariance(), run)) == found


@pytest.mark.parametrize(("shape", "std"), [
    ([32, 16, 3, 3], math.sqrt(2 / (16 * 9 + 32 * 9))),  # Glorot: a kernel has as many places on the way out
    ([32, 16], math.sqrt(2 / (16 + 32))),
    ([16, 48], math.sqrt(2 / 16)),  # He, of a layer that keeps its weights as (in, out)
])  # fmt: skip
def test_fresh_weights_are_known_by_the_schemes_in_use(shape: list[int], std: float) -> None:
    run = synthetic.run(train=1.0, layers=[{"name": "layer", "kind": "affine", "shape": [48]}])

    def parameter(factor: float) -> ParameterMeta:
        return ParameterMeta("w", kind="weight", layer="layer", shape=tuple(shape), std=factor * std)

    assert pretrained.fresh(run, parameter(1.0))
    assert not pretrained.fresh(run, parameter(0.6))


# ND002


@pytest.mark.parametrize("scale", [1.0, 16.0])
def test_ordinary_scales_of_pixels_pass(scale: float) -> None:
    x = scale * np.random.default_rng(0).integers(0, 17, (64, 16)) / 16
    recorder = nndiag.Recorder(every=1)
    recorder.data(x)

    assert not findings(InputScale(), recorder.run)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (255 * np.random.default_rng(0).random((64, 8)), "root mean square of 1"),
        (1e-3 * np.random.default_rng(0).random((64, 8)), "root mean square of 0.0006"),
        (np.random.default_rng(0).standard_normal((64, 3)) + np.array([0, 2000, 0]), "feature 1 .* mean 2"),
        (np.random.default_rng(0).standard_normal((64, 3)) * [1, 1, 1e5], "feature 2 .* varies"),
    ],
)
def test_odd_scales_are_named(x: Array, words: str) -> None:
    recorder = nndiag.Recorder(every=1)
    recorder.data(x)
    (found,) = findings(InputScale(), recorder.run)

    assert re.search(words, found.message)


def with_noise_on(noise: float, *, kept: bool, factor: float = 1.0, epochs: int = 12) -> Run:
    """A training whose augmentation adds noise to each batch and scales it, and writes that into the stored samples or not."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((256, 8)).astype(np.float32), rng.integers(0, 2, 256)
    trainer = nn.Trainer(nn.MLP([8, 16, 2], seed=0), nn.SoftmaxCrossEntropy(), nn.Adam(0.01))
    with nndiag.watch(trainer, every=1, strict=True) as recorder:
        for epoch in range(epochs):
            recorder.begin_epoch(epoch)
            for rows in np.split(rng.permutation(256), 8):
                batch = factor * (x[rows] + noise * rng.standard_normal((32, 8)).astype(np.float32))
                if kept:
                    x[rows] = batch
                trainer.step(batch, y[rows])
    return recorder.run


@pytest.mark.parametrize(
    ("noise", "factor", "kept", "found"),
    [(0.3, 1.0, True, 1), (0.3, 1.0, False, 0), (0.15, 1.0, True, 0), (0.0, 0.5, True, 1), (0.0, 0.5, False, 0)],
)
def test_an_augmentation_that_writes_into_the_samples_piles_up(
    noise: float, factor: float, kept: bool, found: int
) -> None:
    assert len(findings(InputDrift(), with_noise_on(noise, kept=kept, factor=factor))) == found


def test_a_single_pass_may_drift_and_what_settles_is_no_drift() -> None:
    once = synthetic.run(train=synthetic.decay(), data={"variance": {"input": np.linspace(1, 3, 100)}})
    settled = synthetic.run(
        train=synthetic.decay(), epoch=np.arange(100) // 10,
        data={"variance": {"input": 2.0 - np.exp(-np.arange(100) / 25)}},
    )  # fmt: skip

    assert InputDrift().not_checked(once) == (
        "needs 3 epochs or validations, has 1: in a single pass data may drift by themselves"
    )
    assert findings(InputDrift(), settled) == []


def test_a_leading_norm_takes_any_scale() -> None:
    run = synthetic.run(data={"rms": {"input": 1e3}}, layers=[{"name": "norm", "kind": "layer_norm"}])

    assert "layer_norm" in (InputScale().not_checked(run) or "")


# ND101


def test_a_sigmoid_before_a_binary_loss_is_seen_by_its_values() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((64, 4)), rng.integers(0, 2, 64)
    model = nn.Sequential([nn.Affine(4, 8), nn.ReLU(), nn.Affine(8, 1), nn.Sigmoid()])
    trainer = nn.Trainer(model, nn.BCEWithLogits(), nn.SGD(0.1))
    with nndiag.watch(trainer, every=1) as recorder:
        trainer.fit(x, y, epochs=2, batch_size=16)

    (found,) = findings(DoubleSoftmax(), recorder.run)
    assert "sigmoid" in found.message


def test_probabilities_into_their_own_loss_are_no_fault(data: tuple[Array, Array]) -> None:
    model = nn.Sequential([nn.Affine(8, 3), nn.Softmax()])
    run = first_step(nn.Trainer(model, nn.CrossEntropy(), nn.SGD(0.1)), *data)

    assert DoubleSoftmax().not_checked(run) == "needs a loss on logits"


# ND201, ND207


def test_a_network_that_knows_something_is_not_checked_for_its_first_loss() -> None:
    run = synthetic.run(train=0.3, data={"entropy": {"target": 2.3}}, **synthetic.CLASSES)

    assert "trained already" in (InitialLoss().not_checked(run) or "")


def test_fresh_sigmoid_layers_are_not_shifted(data: tuple[Array, Array]) -> None:
    model = nn.MLP([8, 32, 32, 32, 3], activation="sigmoid")
    run = first_step(nn.Trainer(model, nn.SoftmaxCrossEntropy(), nn.SGD(0.1)), *data)

    assert not findings(MeanShift(), run)


# ND301


def test_many_zeros_are_no_dead_units() -> None:
    activations = {"dead_fraction": {"h1": 0.0, "output": 0.0}, "zero_fraction": {"h1": 0.8, "output": 0.0}}

    assert not findings(DeadUnits(), synthetic.run(activations=activations))


def test_only_the_dying_layer_is_named() -> None:
    dead = {"h1": 0.1, "h2": np.linspace(0, 1, 100), "output": 0.0}
    (found,) = findings(DeadUnits(), synthetic.run(activations={"dead_fraction": dead}))

    assert found.layer == "h2"
    assert found.first_step in range(50, 70)


# ND402


def test_a_single_spike_is_no_explosion() -> None:
    norm = 1.0 + 0.1 * np.random.default_rng(0).standard_normal(200)
    norm[[60, 61, 120]] = 500.0

    assert not findings(ExplodingGradients(), synthetic.run(steps=200, gradients={"norm": {"w": norm}}))


def test_hard_batches_of_a_converged_run_are_no_explosion() -> None:
    norm = np.concatenate([np.geomspace(1, 1e-4, 150), 1e-4 * np.ones(50)])
    norm[170:176] = 1e-2

    assert not findings(ExplodingGradients(), synthetic.run(steps=200, gradients={"norm": {"w": norm}}))


@pytest.mark.parametrize(("end", "found"), [(-1.0, 0), (0.1, 1), (1.0, 1)])
def test_a_density_that_sharpens_has_gradients_that_grow(end: float, found: int) -> None:
    norm = 1.0 + 0.1 * np.random.default_rng(0).standard_normal(100)
    norm[80:] *= 30.0
    loss = np.where(np.arange(100) < 80, np.linspace(0.5, -0.1 if end < 0 else 0.2, 100), end)

    assert len(findings(ExplodingGradients(), synthetic.run(train=loss, gradients={"norm": {"w": norm}}))) == found


def test_norms_near_overflow_are_named_at_once() -> None:
    norm = np.ones(60)
    norm[55] = 1e36
    (found,) = findings(ExplodingGradients(), synthetic.run(steps=60, gradients={"norm": {"a": 1.0, "b": norm}}))

    assert (found.parameter, found.first_step) == ("b", 55)


# ND501, ND502


def test_the_learning_rate_to_try_is_told() -> None:
    train = np.concatenate([[2.3], np.full(99, 100.0)])
    run = synthetic.run(train=train, metrics={"lr": {"train": 3.0}}, updates={"ratio": {"w": 0.1}}, **synthetic.CLASSES)
    (found,) = findings(LearningRateHigh(), run)

    assert found.fix == "Try lr = 0.09 instead of 3, or warm it up."


def test_a_bump_after_the_start_is_sound() -> None:
    train = synthetic.decay(start=2.5)
    train[2:6] = 4.0

    assert not findings(LearningRateHigh(), synthetic.run(train=train))


@pytest.mark.parametrize(
    ("validation", "found"), [([2.2, 1.9, 1.7], 0), ([2.2, 1.9, 1.95], 1), ([2.2, 1.9], 1), ([], 1)]
)
def test_large_updates_of_a_run_that_gets_better_each_time_are_sound(validation: list[float], found: int) -> None:
    run = synthetic.run(
        train=synthetic.decay(end=1.5), validation={20 * (i + 1): value for i, value in enumerate(validation)},
        updates={"ratio": {"w": 0.05}}, data={"entropy": {"target": 2.3}}, **synthetic.CLASSES,
    )  # fmt: skip

    assert len(findings(LearningRateHigh(), run)) == found


@pytest.mark.parametrize(("layers", "end", "found"), [(1, 1.5, 0), (1, 2.4, 1), (2, 1.5, 1)])
def test_a_linear_model_may_have_large_updates_where_it_learns(layers: int, end: float, found: int) -> None:
    means = dict.fromkeys(("h1", "output")[-layers:], 0.1)
    run = synthetic.run(
        train=synthetic.decay(end=end), updates={"ratio": {"w": 0.05}}, activations={"mean": means},
        layers=[{"name": name, "kind": "affine"} for name in means], data={"entropy": {"target": 2.3}}, **synthetic.CLASSES,
    )  # fmt: skip

    assert len(findings(LearningRateHigh(), run)) == found


@pytest.mark.parametrize(
    ("hidden", "weight", "ratio", "found"),
    [("h1.relu", 11.0, 0.11, 1), ("h1.relu", 11.0, 0.09, 0), ("h1.relu", 1.5, 0.11, 0), ("", 11.0, 0.11, 0)],
)  # He's standard deviation makes a norm of √512 = 22.6 of 256 × 64 weights with 64 inputs
def test_a_leap_at_the_first_steps_loses_the_initialisation_where_there_is_one(
    hidden: str, weight: float, ratio: float, found: int
) -> None:
    layers = [{"name": "h1", "kind": "affine", "shape": [256]}, {"name": hidden, "kind": "relu", "shape": [256]},
              {"name": "output", "kind": "affine", "shape": [10]}][0 if hidden else 2 :]  # fmt: skip
    ratios = np.where(np.arange(100) < 10, ratio, 1e-3)
    run = synthetic.run(
        train=synthetic.decay(end=1.0), updates={"ratio": {"w": ratios}, "weight_norm": {"w": weight}}, layers=layers,
        activations={"mean": {str(layer["name"]): 0.1 for layer in layers}}, data={"entropy": {"target": 2.3}},
        parameters=[{"name": "w", "shape": [256, 64], "layer": "h1"}], **synthetic.CLASSES,
    )  # fmt: skip

    assert len(findings(LearningRateHigh(), run)) == found


@pytest.mark.parametrize(("optimizer", "end", "found"), [("Adam", 1.0, 1), ("Adagrad", 1.0, 0), ("Adagrad", 2.29, 1)])
def test_the_first_steps_of_adagrad_are_large_by_nature(optimizer: str, end: float, found: int) -> None:
    layers = [{"name": "h1", "kind": "affine", "shape": [256]}, {"name": "h1.relu", "kind": "relu", "shape": [256]},
              {"name": "output", "kind": "affine", "shape": [10]}]  # fmt: skip
    ratios = np.where(np.arange(100) < 10, 0.11, 1e-3)
    run = synthetic.run(
        train=synthetic.decay(end=end), updates={"ratio": {"w": ratios}, "weight_norm": {"w": 11.0}}, layers=layers,
        activations={"mean": {str(layer["name"]): 0.1 for layer in layers}}, data={"entropy": {"target": 2.3}},
        parameters=[{"name": "w", "shape": [256, 64], "layer": "h1"}], optimizer={"name": optimizer}, **synthetic.CLASSES,
    )  # fmt: skip

    assert len(findings(LearningRateHigh(), run)) == found


@pytest.mark.parametrize(("ratio", "begun", "found"), [(0.04, 0.1, 1), (0.03, 0.1, 0), (0.04, 1e-4, 0)])
def test_gradients_that_large_first_steps_have_cut_off(ratio: float, begun: float, found: int) -> None:
    steps = np.arange(100)
    layers = [{"name": name, "kind": "affine", "shape": [64]} for name in ("a", "b", "output")]
    first = np.where(steps < 4, begun, 1e-5) * 1e-2
    run = synthetic.run(
        train=np.full(100, 2.3), updates={"ratio": {"w": np.where(steps < 10, ratio, 1e-3)}}, layers=layers,
        activations={"gradient_rms": {"a": first, "b": 1e-3, "output": 1e-2}, "mean": {"a": 0.0, "b": 0.0, "output": 0.0}},
        data={"entropy": {"target": 2.3}}, **synthetic.CLASSES,
    )  # fmt: skip

    assert [
        "cut off" in each.message or "next to no gradient" in each.message for each in findings(LearningRateHigh(), run)
    ] == [True] * found


@pytest.mark.parametrize(("end", "found"), [(0.25, 1), (0.2, 0)])
def test_large_steps_that_have_come_most_of_the_way_from_a_guess_have_arrived(end: float, found: int) -> None:
    """The first reads are at 1 already, which is no beginning of the way."""
    run = synthetic.run(
        train=synthetic.decay(start=1.0, end=end, rate=50.0, noise=0.0), updates={"ratio": {"w": 0.05}},
        data={"entropy": {"target": 2.3}}, **synthetic.CLASSES,
    )  # fmt: skip

    assert len(findings(LearningRateHigh(), run)) == found


@pytest.mark.parametrize(("weight", "end", "found"), [(3.5, 1.5, 1), (3.3, 1.5, 0), (3.3, 2.4, 1)])
def test_large_updates_of_weights_that_begin_small_are_no_learning_rate_where_it_learns(
    weight: float, end: float, found: int
) -> None:  # 0.15 of He's standard deviation makes a norm of 3.39 of 256 × 64 weights
    means = {"h1": 0.1, "output": 0.1}
    run = synthetic.run(
        train=synthetic.decay(end=end), updates={"ratio": {"w": 0.05}, "weight_norm": {"w": weight}},
        activations={"mean": means}, layers=[{"name": name, "kind": "affine"} for name in means],
        parameters=[{"name": "w", "shape": [256, 64], "layer": "h1"}], data={"entropy": {"target": 2.3}},
        **synthetic.CLASSES,
    )  # fmt: skip

    assert len(findings(LearningRateHigh(), run)) == found


LOST = np.concatenate([np.linspace(2.3, 1.0, 50), np.full(150, 2.1)])
KEPT = np.concatenate([np.linspace(2.3, 1.0, 50), np.full(150, 1.6)])


@pytest.mark.parametrize(
    ("ratio", "train", "dead", "words"),
    [
        (6e-3, np.full(200, 2.55), (0.0, 0.0), "stays at 2.55"),
        (6e-3, np.full(200, 2.5), (0.0, 0.0), ""),
        (6e-3, np.linspace(8.0, 1.0, 200), (0.0, 0.0), ""),
        (4e-3, np.full(200, 2.55), (0.0, 0.0), ""),
        (6e-3, LOST, (0.0, 0.0), "back at 2.1 after a best of"),
        (6e-3, KEPT, (0.0, 0.0), ""),
        (4e-3, LOST, (0.0, 0.0), ""),
        (6e-3, KEPT, (0.0, 0.7), "most units of h1.relu have fallen silent"),
        (6e-3, KEPT, (0.7, 0.7), ""),
        (4e-3, KEPT, (0.0, 0.7), ""),
        (6e-3, np.linspace(2.3, 0.1, 200), (0.0, 0.7), ""),
        (6e-3, np.linspace(6.5, 3.5, 200), (0.0, 0.0), ""),
        (6e-3, np.full(200, 3.5), (0.0, 0.0), "the loss stays at 3.5"),
    ],
)  # fmt: skip
def test_brisk_updates_are_too_large_where_the_run_is_thrown_about(
    ratio: float, train: Array, dead: tuple[float, float], words: str
) -> None:
    layers = [{"name": "h1", "kind": "affine", "shape": [256]}, {"name": "h1.relu", "kind": "relu", "shape": [256]},
              {"name": "output", "kind": "affine", "shape": [10]}]  # fmt: skip
    silent = np.where(np.arange(200) < 50, *dead)
    run = synthetic.run(
        steps=200, train=train, epoch=np.arange(200) // 50, updates={"ratio": {"w": ratio}}, layers=layers,
        data={"entropy": {"target": 2.3}}, **synthetic.CLASSES,
        activations={"dead_fraction": {"h1": 0.0, "h1.relu": silent, "output": 0.0}},
    )  # fmt: skip
    found = findings(LearningRateHigh(), run)

    assert [words in each.message for each in found] == [True] * bool(words)


def test_whatever_else_is_found_goes_before_an_even_descent() -> None:
    run = synthetic.run(
        steps=200, train=np.linspace(2.3, 1.2, 200), validation={20 * (i + 1): 2.2 - 0.1 * i for i in range(10)},
        updates={"ratio": {"w": 9e-3}}, data={"entropy": {"target": 2.3}}, gradients={"norm": {"w": 1.0, "v": 0.0}},
        parameters=[{"name": "w", "shape": [8, 64]}, {"name": "v", "shape": [8, 64], "frozen": True, "std": (1 / 192) ** 0.5}],
        **synthetic.CLASSES,
    )  # fmt: skip

    assert Checklist(select="ND502,ND607").examine(run).headlines[0] == "ND502"
    assert Checklist(select="ND502,ND607,ND403").examine(run).headlines == ("ND403",)


@pytest.mark.parametrize(
    ("evaluations", "broken", "select", "codes"),
    [
        (9, None, "ND502,ND707", ("ND502",)),
        (6, None, "ND502", ("ND502",)),
        (5, None, "ND502", ()),
        (9, 199, "ND502", ()),
    ],
)
def test_an_even_descent_that_has_hardly_begun_is_too_slow_unless_it_was_cut_off(
    evaluations: int, broken: int | None, select: str, codes: tuple[str, ...]
) -> None:
    validation = {20 * (i + 1): 2.3 - 2e-3 * i for i in range(evaluations)}
    run = synthetic.run(
        steps=200, train=np.full(200, 2.3), validation=validation, updates={"ratio": {"w": 5e-3}},
        data={"entropy": {"target": 2.3}}, **synthetic.CLASSES,
        first_nonfinite=None if broken is None else {"step": broken, "what": "loss"},
    )  # fmt: skip
    report = Checklist(select=select).examine(run)

    assert report.headlines == codes
    assert tuple(found.code for found in report.findings) == codes


@pytest.mark.parametrize(
    ("ratio", "steps", "end", "found"),
    [(9e-4, 200, 2.3, 1), (1.1e-3, 200, 2.3, 0), (9e-4, 200, 2.0, 0), (9e-4, 90, 2.3, 0), (9e-4, 230, 2.3, 0)],
)
def test_updates_that_come_to_nothing_all_together_are_too_small(
    ratio: float, steps: int, end: float, found: int
) -> None:
    train = np.full(steps, 2.31)
    train[steps // 2 :] = end
    run = synthetic.run(
        steps=steps, train=train, updates={"ratio": {"w": ratio}}, data={"entropy": {"target": 2.3}}, **synthetic.CLASSES
    )  # fmt: skip

    assert len(findings(LearningRateLow(), run)) == found


@pytest.mark.parametrize(("ratio", "headlines"), [(5e-4, ("ND502",)), (2e-3, ("ND105",))])
def test_a_network_that_has_not_moved_goes_before_a_suggestion(ratio: float, headlines: tuple[str, ...]) -> None:
    outputs: synthetic.Statistics = {
        "width": {"outputs": 1.0, "targets": 1.0}, "integer": {"targets": 1.0},
        "min": {"outputs": 0.4, "targets": 0.0}, "max": {"outputs": 0.6, "targets": 1.0},
    }  # fmt: skip
    run = synthetic.run(
        steps=200, train=np.full(200, 0.25), updates={"ratio": {"w": ratio}}, outputs=outputs,
        data={"total_variance": {"target": 0.25}, "classes": {"target": 2.0}, "entropy": {"target": math.log(2)}},
        loss={"name": "MSELoss", "task": "real", "expects": "real"},
    )  # fmt: skip

    assert Checklist(select="ND502,ND105").examine(run).headlines == headlines


@pytest.mark.parametrize(
    ("ratio", "evaluations", "bump", "found"),
    [(9e-3, 10, 0.0, 1), (11e-3, 10, 0.0, 0), (9e-3, 9, 0.0, 0), (9e-3, 10, 0.2, 0), (1.9e-3, 10, 0.2, 1)],
)
def test_an_even_descent_that_comes_to_no_end_has_room_for_longer_steps(
    ratio: float, evaluations: int, bump: float, found: int
) -> None:
    train = np.linspace(2.3, 1.2, 200)
    validation = {200 // evaluations * (i + 1): 2.2 - 0.1 * i for i in range(evaluations)}
    validation[200 // evaluations * 2] += bump
    run = synthetic.run(
        steps=200, train=train, validation=validation, updates={"ratio": {"w": ratio}}, data={"entropy": {"target": 2.3}},
        **synthetic.CLASSES,
    )  # fmt: skip

    assert len(findings(LearningRateLow(), run)) == found


@pytest.mark.parametrize(("evaluations", "end", "found"), [(0, 1.0, 0), (0, 1.25, 1), (10, 1.0, 1), (10, 0.5, 0)])
def test_usual_updates_are_too_small_where_most_of_the_way_is_left_or_the_descent_is_even(
    evaluations: int, end: float, found: int
) -> None:
    validation = {20 * (i + 1): 2.2 + (end - 2.2) * i / 9 for i in range(evaluations)}
    run = synthetic.run(
        steps=200, train=np.linspace(2.3, end, 200), validation=validation, updates={"ratio": {"w": 1e-3}},
        data={"entropy": {"target": 2.3}}, **synthetic.CLASSES,
    )  # fmt: skip

    assert len(findings(LearningRateLow(), run)) == found


@pytest.mark.parametrize(("gradient", "found"), [(1e-6, 1), (0.0, 0)])
def test_what_dies_away_without_a_gradient_is_no_low_rate(gradient: float, found: int) -> None:
    run = synthetic.run(
        train=2.3, updates={"ratio": {"w": 1e-8}}, gradients={"norm": {"w": gradient}}, data={"entropy": {"target": 2.3}},
        metrics={"lr": {"train": 1e-3}}, **synthetic.CLASSES,
    )  # fmt: skip

    assert len(findings(LearningRateLow(), run)) == found


# ND307, ND004


@pytest.mark.parametrize(("kind", "found"), [("recurrent", 1), ("embedding", 1), ("affine", 0)])
def test_only_a_plain_first_layer_says_how_many_inputs_there_are(kind: str, found: int) -> None:
    layers = [{"name": "in", "kind": kind, "shape": [8]}, {"name": "h", "kind": "affine", "shape": [2]},
              {"name": "h.relu", "kind": "relu", "shape": [2]}, {"name": "out", "kind": "affine", "shape": [10]}]  # fmt: skip
    parameters = [
        {"name": "in.weight", "shape": [8, 1], "layer": "in", "kind": "embedding" if kind == "embedding" else "weight"}
    ]
    run = synthetic.run(
        train=synthetic.decay(end=1.5), activations={"mean": dict.fromkeys(("in", "h", "h.relu", "out"), 0.1)},
        outputs={"width": {"outputs": 10.0}}, layers=layers, parameters=parameters, **synthetic.CLASSES,
    )  # fmt: skip

    assert len(findings(Bottleneck(), run)) == found


@pytest.mark.parametrize(("units", "end", "found"), [(1, 0.5, 1), (2, 0.5, 0), (1, 0.05, 0)])
def test_a_recurrent_layer_of_one_unit_has_one_number_for_a_memory(units: int, end: float, found: int) -> None:
    layers = [{"name": "lstm", "kind": "recurrent", "shape": [units]}, {"name": "out", "kind": "affine", "shape": [1]}]
    run = synthetic.run(
        train=synthetic.decay(start=0.7, end=end), activations={"mean": dict.fromkeys(("lstm", "out"), 0.1)},
        outputs={"width": {"outputs": 1.0}}, layers=layers, data={"entropy": {"target": 0.69}},
        loss={"name": "BCEWithLogitsLoss", "task": "binary"},
    )  # fmt: skip

    assert len(findings(Bottleneck(), run)) == found


@pytest.mark.parametrize(
    ("rate", "steps", "validation", "found"),
    [(0.01, 60, 2.2, 1), (0.01, 80, 2.2, 0), (0.01, 60, 0.3, 0), (0.01, 60, None, 1), (0.1, 20, 2.2, 0)],
)
def test_running_statistics_of_the_beginning_are_named_where_validation_suffers(
    rate: float, steps: int, validation: float | None, found: int
) -> None:
    layers = [{"name": "h", "kind": "affine"}, {"name": "h.norm", "kind": "batch_norm", "rate": rate}]
    run = synthetic.run(
        steps=steps, train=synthetic.decay(steps), layers=layers, optimizer={"name": "SGD", "lr": 0.1},
        validation=dict.fromkeys(() if validation is None else range(4, steps, 4), validation or 0.0),
        data={"entropy": {"target": 2.3}}, **synthetic.CLASSES,
    )  # fmt: skip

    assert len(findings(AbsurdSettings(), run)) == found


@pytest.mark.parametrize(
    ("units", "inputs", "end", "found"), [(1, 2, 0.5, 1), (2, 2, 0.5, 0), (1, 1, 0.5, 0), (1, 2, 0.05, 0)]
)
def test_one_unit_between_several_inputs_and_an_output_sees_one_direction(
    units: int, inputs: int, end: float, found: int
) -> None:
    layers = [{"name": "h", "kind": "affine", "shape": [units]}, {"name": "h.tanh", "kind": "tanh", "shape": [units]},
              {"name": "out", "kind": "affine", "shape": [1]}]  # fmt: skip
    run = synthetic.run(
        train=synthetic.decay(start=0.7, end=end), activations={"mean": dict.fromkeys(("h", "h.tanh", "out"), 0.1)},
        outputs={"width": {"outputs": 1.0}}, layers=layers, data={"entropy": {"target": 0.69}},
        parameters=[{"name": "h.weight", "shape": [units, inputs], "layer": "h"}],
        loss={"name": "BCEWithLogitsLoss", "task": "binary"},
    )  # fmt: skip

    assert ["the output is computed from 1 unit in h" in each.message for each in findings(Bottleneck(), run)] == [
        True
    ] * found


@pytest.mark.parametrize(("error", "found"), [(0.25, 1), (0.15, 0)])
def test_large_targets_are_a_remark_where_the_outputs_explain_them(error: float, found: int) -> None:
    run = synthetic.run(
        train=synthetic.decay(end=0.01), outputs={"squared_error": {"outputs": error * 2500.0}},
        data={"rms": {"target": 50.0}, "mean": {"target": 0.0}, "total_variance": {"target": 2500.0}},
        loss={"name": "HuberLoss", "task": "real"},
    )  # fmt: skip

    assert len(findings(TargetScale(), run)) == found


@pytest.mark.parametrize(
    ("mean", "variance", "found"), [(198_000.0, 25e6, 0), (180_000.0, 25e6, 1), (200_000.0, 2e4, 1), (0.0, 1.0, 1)]
)
def test_large_targets_are_nothing_to_outputs_that_are_in_place_from_the_start(
    mean: float, variance: float, found: int
) -> None:
    run = synthetic.run(
        train=synthetic.decay(end=1.0), outputs={"mean": {"outputs": mean}, "variance": {"outputs": variance}},
        data={"rms": {"target": 2e5}, "mean": {"target": 2e5}, "total_variance": {"target": 25e6}},
        loss={"name": "MSELoss", "task": "real"},
    )  # fmt: skip

    assert len(findings(TargetScale(), run)) == found


@pytest.mark.parametrize(("std", "spread", "end", "found"), [
    (0.025, 1.0, 0.25, 1), (0.035, 1.5, 0.5, 0),  # no smaller than others
    (0.025, 0.7, 0.5, 0), (0.025, None, 0.5, 0),  # beside outputs that begin as small, or were not recorded
    (0.025, 1.0, 0.15, 0),  # learned
])  # fmt: skip
def test_targets_far_below_what_the_outputs_begin_with(
    std: float, spread: float | None, end: float, found: int
) -> None:
    data = {"mean": {"target": 0.0}, "rms": {"target": std}, "total_variance": {"target": std**2}}
    errors = np.where(np.arange(100) < 50, 2.0, end) * std**2
    outputs = {} if spread is None else {"mean": {"outputs": 0.0}, "variance": {"outputs": spread**2}}
    outputs |= {"squared_error": {"outputs": errors}}
    run = synthetic.run(
        train=errors, data=data, outputs=outputs, loss={"name": "MSE", "task": "real", "expects": "real"}
    )

    assert len(findings(TargetScale(), run)) == found


def test_a_learning_rate_of_zero_is_named() -> None:
    run = synthetic.run(train=2.3, metrics={"lr": {"train": 0.0}}, updates={"ratio": {"w": 0.0}})
    (found,) = findings(LearningRateLow(), run)

    assert found.fix.startswith("The learning rate is 0")


def test_tiny_updates_at_the_end_of_a_decayed_run_are_sound() -> None:
    ratio = 1e-3 * np.cos(np.linspace(0, np.pi / 2, 1000)) ** 4

    assert not findings(
        LearningRateLow(), synthetic.run(steps=1000, train=synthetic.decay(1000), updates={"ratio": {"w": ratio}})
    )


# ND701: the lesson's section 12


def lesson_curves(steps: int) -> Run:
    s = np.arange(steps)
    train = np.exp(-s / 25) + 0.05
    validation = np.exp(-s / 35) + 0.08 + 0.002 * np.maximum(s - 45, 0)
    return synthetic.run(steps=steps, train=train, validation=dict(enumerate(validation.tolist())))


def test_the_lessons_curves_pass_with_a_note_that_the_gap_widens() -> None:
    run = lesson_curves(80)
    assert run.validation.idxmin() == 79
    assert run.validation.iloc[-1] == pytest.approx(0.25264905532319576)

    result = {check.code: check for check in Checklist(select="ND7").examine(run).checks}["ND701"]

    assert result.verdict is Verdict.PASS
    assert "the gap to the training loss has widened" in result.notes[0]


@pytest.mark.parametrize(("first", "suspected"), [(5.5, True), (4.0, False)])
def test_an_evaluation_that_is_far_off_from_the_start_may_compute_something_else(first: float, suspected: bool) -> None:
    """Such as with the running statistics that a batch norm began with; the training loss beside it is 2.2."""
    validation = {10 * (i + 1): v for i, v in enumerate([first, 5.0, 4.9, *np.linspace(5.0, 7.0, 17)])}
    (found,) = findings(Overfitting(), synthetic.run(steps=200, train=synthetic.decay(200), validation=validation))

    assert ("an evaluation that computes something else" in found.causes[0]) is suspected


def test_the_same_curves_continued_overfit() -> None:
    (found,) = findings(Overfitting(), lesson_curves(200))

    best = 35 * math.log(1 / (35 * 0.002))
    assert found.first_step == pytest.approx(best, abs=3)


@pytest.mark.parametrize(("known", "found"), [(True, 0), (False, 1)])
def test_what_validation_has_gained_is_counted_from_what_guessing_costs(known: bool, found: int) -> None:
    """The first evaluation, after an epoch, is at 0.8 already: 0.53 is 7 % of the way from there, and 2 % of that from 2.3."""
    validation = {20 * (i + 1): loss for i, loss in enumerate([0.8, 0.6, *np.linspace(0.5, 0.53, 7)])}
    data: synthetic.Statistics = {"entropy": {"target": 2.3}} if known else {}
    run = synthetic.run(steps=200, train=synthetic.decay(200), validation=validation, data=data, **synthetic.CLASSES)

    assert len(findings(Overfitting(), run)) == found


def test_a_noisy_plateau_is_no_overfitting() -> None:
    noise = np.random.default_rng(0).standard_normal(40)
    validation = {5 * i: 0.5 + 1.5 * math.exp(-i / 5) + 0.03 * noise[i] for i in range(40)}

    assert not findings(Overfitting(), synthetic.run(steps=200, train=synthetic.decay(200), validation=validation))


# ND801


def test_the_first_tensor_in_the_order_of_a_step_is_named() -> None:
    later, earlier = [0.0] * 8 + [1.0] * 2, [0.0] * 7 + [2.0] * 3
    activations = {"nonfinite": {"h1": later, "output": earlier}, "max": {"h1": 1.0, "output": 1e35},
                   "min": {"h1": 0.0, "output": 0.0}}  # fmt: skip
    gradients = {"nonfinite": {"w": earlier}, "norm": {"w": 1.0}}
    (found,) = findings(Nonfinite(), synthetic.run(steps=10, train=1.0, activations=activations, gradients=gradients))

    assert (found.layer, found.first_step) == ("output", 7)
    assert "an overflow" in found.message


@pytest.mark.parametrize(
    ("finite_reads", "broken", "found"),
    [(0, "", 0), (5, "", 0), (15, "", 1), (100, "", 0), (0, "loss", 1), (0, "gradient", 1), (0, "first read", 1)],
)
def test_logits_that_are_masked_with_infinity_are_no_fault(finite_reads: int, broken: str, found: int) -> None:
    masked = np.full(100, 16.0)
    masked[1 : 1 + finite_reads] = 0
    masked[0] = 0 if broken == "first read" or finite_reads == 100 else 16
    gradients = {"nonfinite": {"w": np.arange(100) == 99}} if broken == "gradient" else {"norm": {"w": 1.0}}
    more = {"first_nonfinite": {"step": 99, "what": "loss"}} if broken == "loss" else {}
    run = synthetic.run(train=1.0, outputs={"nonfinite": {"outputs": masked}}, gradients=gradients, **more)

    assert len(findings(Nonfinite(), run)) == found


def test_a_loss_alone_that_is_nan_is_found() -> None:
    run = synthetic.run(steps=10, train=1.0, first_nonfinite={"step": 9, "what": "loss"})
    (found,) = findings(Nonfinite(), run)

    assert "the loss is not finite at step 9" in found.message
    assert "invalid operation" in found.message


def test_a_logarithm_that_nothing_keeps_from_zero_is_the_cause_of_a_loss_that_is_nan() -> None:
    loss = {"name": "BCELoss", "task": "binary", "expects": "probabilities", "unguarded": True}
    run = synthetic.run(
        steps=10, train=0.1, first_nonfinite={"step": 9, "what": "loss"}, loss=loss, updates={"ratio": {"w": 0.2}},
        data={"entropy": {"target": 0.69}},
    )  # fmt: skip
    report = Checklist(select="ND801,ND501").examine(run)

    assert report.headlines == ("ND801",)
    assert "the logarithm of a softmax or sigmoid" in report.findings[0].message
    assert "on logits" in report.findings[0].fix


def test_a_logarithm_that_nothing_keeps_from_zero_is_a_remark_while_every_number_is_finite() -> None:
    loss = {"name": "BCELoss", "task": "binary", "expects": "probabilities"}
    for more, remarks in (({"unguarded": True}, 1), ({}, 0)):
        report = Checklist(select="ND801").examine(synthetic.run(train=0.1, loss=loss | more))

        assert report.verdict is Verdict.PASS
        assert str(report).count("rounded to 0; a loss on logits never takes it") == remarks


@pytest.mark.parametrize(
    ("lowest", "more", "found"),
    [
        ([0.2, 0.1, -0.1], {}, True),
        ([-0.2, 0.1, -0.1], {}, False),  # it has coped with such before
        ([0.2, 0.1, 0.1], {}, False),
        ([0.2, 0.1, -0.1], {"name": "MSE"}, False),
        ([0.2, 0.1, -0.1], {"expects": "logits"}, False),
    ],
)
def test_a_loss_that_ends_with_the_first_output_that_is_not_positive_has_taken_its_logarithm(
    lowest: list[float], more: dict[str, str], found: bool
) -> None:
    run = synthetic.run(
        steps=3, train=np.array([1.0, 1.0, np.nan]), first_nonfinite={"step": 2, "what": "loss"},
        outputs={"min": {"outputs": np.array(lowest)}, "nonfinite": {"outputs": 0.0}},
        loss={"name": "Poisson", "task": "real", "expects": "real"} | more,
    )  # fmt: skip
    (told,) = findings(Nonfinite(), run)

    assert ("outputs that are not positive (down to -0.1)" in told.message) is found


def test_a_tensor_without_one_finite_value_is_no_mask() -> None:
    none = {"h": np.full(100, np.nan)}
    count = {"nonfinite": {"h": 64.0}, "mean": none, "min": none, "max": none}

    assert len(findings(Nonfinite(), synthetic.run(train=synthetic.decay(), activations=count))) == 1


def test_outputs_that_are_nan_are_not_the_logarithms_fault() -> None:
    loss = {"name": "BCELoss", "task": "binary", "expects": "probabilities", "unguarded": True}
    activations = {"nonfinite": {"output": [0.0] * 9 + [1.0]}, "max": {"output": 1.0}, "min": {"output": -1.0}}
    (found,) = findings(Nonfinite(), synthetic.run(steps=10, train=1.0, activations=activations, loss=loss))

    assert (found.layer, found.place) == ("output", "")


# What sound programs taught


def recorded(x: Array) -> Run:
    recorder = nndiag.Recorder(every=1)
    recorder.data(x)
    return recorder.run


def test_images_standardised_as_a_whole_pass() -> None:
    x = nndiag.datasets.digits().x
    for scaled in ((x - x.mean()) / x.std(), 2 * x - 1, x - 0.5):
        assert not findings(InputScale(), recorded(scaled))


def test_sparse_inputs_pass() -> None:
    assert not findings(InputScale(), recorded(np.eye(1000)[np.arange(200)]))


def test_targets_with_a_mean_are_no_bad_start() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((256, 4)), 5 + rng.standard_normal((256, 1))
    run = first_step(nn.Trainer(nn.MLP([4, 16, 1]), nn.MSE(), nn.SGD(0.01)), x, y)

    assert not findings(InitialLoss(), run)


def test_a_bad_start_that_is_made_good_is_a_remark() -> None:
    train = synthetic.decay(start=12.0, end=0.1)
    data, outputs = {"entropy": {"target": 2.3}}, {"width": {"outputs": 10.0}}
    report = Checklist(select="ND201").examine(
        synthetic.run(train=train, data=data, outputs=outputs, **synthetic.CLASSES)
    )

    assert report.verdict is Verdict.PASS
    assert report.checks[0].notes


def test_rare_classes_learned_a_little_are_no_failure() -> None:
    rng = np.random.default_rng(0)
    train = 0.088 + 0.02 * rng.standard_normal(3000)
    run = synthetic.run(steps=3000, train=train, data={"entropy": {"target": 0.095}},
                        loss={"name": "BCEWithLogits", "task": "binary", "expects": "logits"})  # fmt: skip

    assert Checklist(select="ND6,ND702").examine(run).findings == ()


@pytest.mark.parametrize(("units", "vanished"), [(64, True), (256, False)])
def test_a_gradient_that_is_spread_over_many_units_has_not_vanished(units: int, vanished: bool) -> None:
    layers = [{"name": "h1", "kind": "affine", "shape": [units]}, {"name": "h2", "kind": "affine", "shape": [units]},
              {"name": "output", "kind": "affine", "shape": [1]}]  # fmt: skip
    delta = {"h1": 1e-4, "h2": 1e-3, "output": 1.0}
    run = synthetic.run(activations={"gradient_rms": delta, "mean": dict.fromkeys(delta, 0.0)}, layers=layers)

    assert bool(findings(VanishingGradients(), run)) is vanished


def test_fine_tuning_may_take_small_steps() -> None:
    run = synthetic.run(
        train=0.1, updates={"ratio": {"w": 1e-6}}, data={"entropy": {"target": 2.3}}, **synthetic.CLASSES
    )

    assert not findings(LearningRateLow(), run)


@pytest.mark.parametrize(
    ("kind", "shape", "vanished"),
    [("affine", [8], True), ("convolution", [8, 30, 30], False), ("affine", [900, 8], False)],
)
def test_an_average_over_places_hands_each_its_share(kind: str, shape: list[int], vanished: bool) -> None:
    delta = {"first": 1e-7, "middle": 1e-4, "output": 1e-3}  # 1e-4 of the last; over 900 places 3e-3
    layers = [{"name": "first", "kind": kind, "shape": shape}, {"name": "middle", "kind": "affine", "shape": [8]},
              {"name": "output", "kind": "affine", "shape": [3]}]  # fmt: skip
    run = synthetic.run(activations={"gradient_rms": delta, "mean": dict.fromkeys(delta, 0.0)}, layers=layers)
    assert bool(findings(VanishingGradients(), run)) is vanished


@pytest.mark.parametrize(("kind", "found"), [("affine", True), ("recurrent", False)])
def test_recurrent_weights_are_not_held_to_the_scheme_of_others(kind: str, found: bool) -> None:
    large = 3 * math.sqrt(2 / 64) * 64
    run = synthetic.run(
        train=synthetic.decay(end=1.5), layers=[{"name": "a", "kind": kind}, {"name": "b", "kind": "affine"}],
        activations={"mean": {"a": 0.0, "b": 0.0}, "variance": {"a": 1.0, "b": 1.0}},
        data={"rms": {"input": 1.0}, "entropy": {"target": 2.3}},
        updates={"weight_norm": {"a.weight": large, "b.weight": math.sqrt(2 / 64) * 64}},
        parameters=[{"name": f"{name}.weight", "shape": [64, 64], "layer": name} for name in "ab"],
        **synthetic.CLASSES,
    )  # fmt: skip
    assert bool(findings(ActivationVariance(), run)) is found


@pytest.mark.parametrize(("after", "straight"), [(None, True), ("l0", True), ("", False)])
def test_what_lies_between_two_layers_and_is_none_may_bend(after: str | None, straight: bool) -> None:
    layers = [
        {"name": "l0", "kind": "affine", "shape": [16]},
        {"name": "l1", "kind": "affine", "shape": [16], "after": after},
    ]
    assert bool(findings(LinearStack(), synthetic.run(train=synthetic.decay(), layers=layers))) is straight


@pytest.mark.parametrize(("growth", "steps", "kind", "found"),
                         [(300.0, 24, "recurrent", 1), (200.0, 24, "recurrent", 0), (300.0, 40, "recurrent", 0),
                          (300.0, 24, "relu", 0)])  # fmt: skip
def test_a_recurrent_layer_may_grow_as_much_as_its_steps_add_up(
    growth: float, steps: int, kind: str, found: int
) -> None:
    run = synthetic.run(
        train=synthetic.decay(end=1.5), data={"rms": {"input": 1.0}},
        layers=[{"name": "a", "kind": kind, "shape": [steps, 8]}, {"name": "b", "kind": "affine", "shape": [1]}],
        activations={"mean": {"a": 0.0, "b": 0.0}, "variance": {"a": growth**2, "b": 1.0},
                     "batch_variance": {"a": growth**2, "b": 1.0}},
    )  # fmt: skip

    assert len(findings(ActivationVariance(), run)) == found


@pytest.mark.parametrize(("std", "found"), [(1.0, 0), (3e-4, 1)])
def test_a_layer_that_is_not_known_at_the_first_read_is_left_out_of_the_signal(std: float, found: int) -> None:
    """As a function behind frozen layers, which shows only once they train."""
    names = ["a", "a.relu", "b", "b.relu", "c"]
    later = np.r_[np.nan, np.ones(99)]
    run = synthetic.run(
        train=synthetic.decay(end=1.5), data={"rms": {"input": 1.0}},
        layers=[{"name": name, "kind": "relu" if "." in name else "affine", "shape": [8]} for name in names],
        activations={"mean": {"a": 0.0, "a.relu": later, "b": 0.0, "b.relu": 0.0, "c": 0.0},
                     "variance": {"a": 1.0, "a.relu": later, "b": 1.0, "b.relu": std**2, "c": 1.0}},
    )  # fmt: skip

    seen = findings(ActivationVariance(), run)

    assert len(seen) == found
    assert not any("nan" in one.message for one in seen)


@pytest.mark.parametrize(
    ("units", "shape", "fan_in"),
    [((96,), (16, 96), 16), ((16,), (16, 96), 96), ((96,), (96, 96), 96), ((), (16, 96), 96)],
)
def test_a_layer_of_the_users_own_may_keep_its_weights_the_other_way_round(
    units: tuple[int, ...], shape: tuple[int, ...], fan_in: int
) -> None:
    run = synthetic.run(
        updates={"weight_norm": {"h.weight": 1.0}}, layers=[{"name": "h", "kind": "unknown", "shape": list(units)}],
        parameters=[{"name": "h.weight", "layer": "h", "shape": list(shape)}],
    )  # fmt: skip

    assert structure.over_he(run, ["h.weight"])["h.weight"] == pytest.approx(
        (fan_in / 2 / (shape[0] * shape[1])) ** 0.5
    )
