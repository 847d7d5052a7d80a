"""Probes on real trainers."""

from __future__ import annotations

import copy
import random

import numpy as np
import pytest

import nndiag
from nndiag import NndiagError, Recorder, Report, Verdict, nn, probes
from nndiag.nn.layers import Layer
from nndiag.probes.lr_range import turning_points
from nndiag.statistics import Array

Data = tuple[Array, Array]


class WrongReLU(nn.ReLU):
    """A ReLU whose backward pass forgets the mask."""

    def backward(self, gradient: Array) -> Array:
        return gradient


class Transposing(Layer):
    """A layer that mixes up the axes of its output."""

    kind = "transposing"

    def forward(self, x: Array, training: bool = True) -> Array:
        return np.ascontiguousarray(x[:1])

    def backward(self, gradient: Array) -> Array:
        return gradient


def with_layer(layer: Layer) -> nn.Trainer:
    model = nn.Sequential([nn.Affine(8, 16), layer, nn.Affine(16, 3)])
    return nn.Trainer(model, nn.SoftmaxCrossEntropy(), nn.SGD(lr=0.1, momentum=0.9))


def verdict(report: Report) -> Verdict:
    assert len(report.checks) == 1
    return report.checks[0].verdict


LAYERS = [
    nn.ReLU,
    nn.LeakyReLU,
    nn.Tanh,
    nn.Sigmoid,
    lambda: nn.Dropout(0.5),
    lambda: nn.LayerNorm(16),
    lambda: nn.BatchNorm(16),
]


@pytest.mark.parametrize("make", LAYERS)
def test_sound_layers_pass_the_gradient_check(make: object, data: Data) -> None:
    assert verdict(probes.gradient_check(with_layer(make()), *data)) is Verdict.PASS  # type: ignore[operator]


def test_a_wrong_backward_pass_fails_the_gradient_check(data: Data) -> None:
    report = probes.gradient_check(with_layer(WrongReLU()), *data)

    assert verdict(report) is Verdict.FAIL
    named = {finding.parameter for finding in report.findings}
    assert "affine1.weight" in named
    assert not {"affine2.weight", "affine2.bias"} & named
    assert "between affine1.bias and affine2.weight" in report.findings[0].fix


@pytest.mark.parametrize("loss", [nn.SoftmaxCrossEntropy(0.1), nn.MSE(), nn.BCEWithLogits()])
def test_losses_pass_the_gradient_check(loss: nn.Loss, data: Data) -> None:
    x, y = data
    trainer = nn.Trainer(nn.MLP([8, 6, 3], activation="tanh"), loss, nn.SGD(0.1))
    targets = y if isinstance(loss, nn.SoftmaxCrossEntropy) else np.eye(3)[y]

    assert verdict(probes.gradient_check(trainer, x, targets)) is Verdict.PASS


def test_gradients_too_small_to_compare_are_said_to_be_so(data: Data) -> None:
    trainer = nn.Trainer(nn.MLP([8, 6, 6, 3], init=nn.constant(0.0)), nn.SoftmaxCrossEntropy(), nn.SGD(0.1))
    report = probes.gradient_check(trainer, *data)

    assert verdict(report) is Verdict.NOT_CHECKED
    assert "only 2 of 7 gradients are large enough" in report.checks[0].reason


def test_a_sound_network_learns_a_tiny_batch(trainer: nn.Trainer, data: Data) -> None:
    assert verdict(probes.overfit_tiny_batch(trainer, *data)) is Verdict.PASS


@pytest.mark.parametrize(("lr", "words"), [(1e-9, "cannot be learned by heart"), (4e-4, "only with 10 times")])
def test_a_learning_rate_too_low_for_a_tiny_batch_is_told(lr: float, words: str, data: Data) -> None:
    trainer = nn.Trainer(nn.MLP([8, 16, 3]), nn.SoftmaxCrossEntropy(), nn.SGD(lr, momentum=0.9))

    report = probes.overfit_tiny_batch(trainer, *data)

    assert verdict(report) is Verdict.WARN
    assert words in report.findings[0].message


def test_weight_decay_and_dropout_do_not_keep_a_tiny_batch_from_being_learned(data: Data) -> None:
    model = nn.MLP([8, 32, 3], dropout=0.8)
    trainer = nn.Trainer(model, nn.SoftmaxCrossEntropy(), nn.SGD(0.1, momentum=0.9, weight_decay=1.0))

    assert verdict(probes.overfit_tiny_batch(trainer, *data)) is Verdict.PASS


def test_label_smoothing_leaves_a_floor(data: Data) -> None:
    trainer = nn.Trainer(nn.MLP([8, 32, 3]), nn.SoftmaxCrossEntropy(0.2), nn.SGD(0.1, momentum=0.9))

    assert verdict(probes.overfit_tiny_batch(trainer, *data)) is Verdict.PASS


def test_sound_shapes_pass(trainer: nn.Trainer, data: Data) -> None:
    assert verdict(probes.shapes(trainer, *data)) is Verdict.PASS


def test_a_layer_that_mixes_axes_is_named(data: Data) -> None:
    report = probes.shapes(with_layer(Transposing()), *data)

    assert verdict(report) is Verdict.FAIL
    assert report.findings[0].layer == "affine1.transposing"
    assert "(1, 16), wanted (3, 16)" in report.findings[0].message


@pytest.mark.parametrize("probe", probes.ALL, ids=lambda probe: probe.name)
def test_a_probe_leaves_everything_as_it_was(probe: probes.Probe, data: Data) -> None:
    model = nn.MLP([8, 16, 3], dropout=0.5, norm="batch")
    probed = nn.Trainer(model, nn.SoftmaxCrossEntropy(), nn.Adam(1e-2))
    probed.fit(*data, epochs=1)
    untouched = copy.deepcopy(probed)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    drawn = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002

    probe(probed, *data)

    assert (random.getstate(), np.random.get_state()[1].tolist()) == drawn  # noqa: NPY002
    probed.fit(*data, epochs=2)
    untouched.fit(*data, epochs=2)

    for a, b in zip(probed.model.parameters, untouched.model.parameters, strict=True):
        np.testing.assert_array_equal(a.value, b.value)


def test_a_probe_does_not_run_the_hooks(trainer: nn.Trainer, data: Data) -> None:
    with nndiag.watch(trainer, every=1, strict=True) as recorder:
        probes.run_all(trainer, *data, recorder)

    assert recorder.run.steps == 0
    assert set(recorder.run.meta.probes) == {f"NDP0{i}" for i in range(1, 10)}


def test_what_a_probe_measured_is_in_the_report_of_the_run(trainer: nn.Trainer, data: Data, tmp_path: object) -> None:
    recorder = Recorder(f"{tmp_path}/run")
    probes.shapes(trainer, *data, recorder=recorder)
    recorder.close()

    report = nndiag.Checklist(select="NDP").examine(nndiag.open_run(f"{tmp_path}/run"))

    verdicts = {check.code: check.verdict for check in report.checks}
    assert verdicts.pop("NDP03") is Verdict.PASS
    assert set(verdicts.values()) == {Verdict.NOT_CHECKED}


@pytest.mark.parametrize("probe", probes.ALL, ids=lambda probe: probe.name)
def test_a_probe_says_the_same_when_asked_again(probe: probes.Probe, trainer: nn.Trainer, data: Data) -> None:
    first, second = probe(trainer, *data), probe(trainer, *data)

    assert first.meta.probes == second.meta.probes


SOUND = {
    "relu": lambda: (nn.MLP([8, 32, 3]), nn.SoftmaxCrossEntropy(), nn.SGD(0.1, momentum=0.9)),
    "deep": lambda: (nn.MLP([8, *[32] * 8, 3]), nn.SoftmaxCrossEntropy(), nn.Adam(1e-3)),
    "tanh, no momentum": lambda: (nn.MLP([8, 32, 3], activation="tanh"), nn.SoftmaxCrossEntropy(), nn.SGD(0.1)),
    "batch norm": lambda: (nn.MLP([8, 32, 32, 3], norm="batch"), nn.SoftmaxCrossEntropy(), nn.Adam(1e-2)),
    "dropout": lambda: (nn.MLP([8, 64, 3], dropout=0.5), nn.SoftmaxCrossEntropy(), nn.Adam(1e-2)),
    "smoothed labels": lambda: (nn.MLP([8, 32, 3]), nn.SoftmaxCrossEntropy(0.1), nn.SGD(0.1, momentum=0.9)),
    "regression": lambda: (nn.MLP([8, 32, 3]), nn.MSE(), nn.Adam(1e-2)),
    "binary": lambda: (nn.MLP([8, 32, 3]), nn.BCEWithLogits(), nn.Adam(1e-2)),
    "warm-up": lambda: (nn.MLP([8, 32, 3]), nn.SoftmaxCrossEntropy(), nn.SGD(nn.WarmUp(0.1, 100), momentum=0.9)),
}


@pytest.mark.parametrize("name", SOUND)
@pytest.mark.parametrize("seed", range(2))
def test_no_probe_finds_anything_in_a_sound_program(name: str, seed: int, data: Data) -> None:
    model, loss, optimizer = SOUND[name]()
    trainer = nn.Trainer(nn.Sequential(model.layers, seed=seed), loss, optimizer)
    x, y = data
    targets = y if isinstance(loss, nn.SoftmaxCrossEntropy) else np.eye(3)[y]

    found = {probe.code: verdict(probe(trainer, x, targets)) for probe in probes.ALL}

    assert set(found.values()) <= {Verdict.PASS, Verdict.NOT_CHECKED}
    assert [code for code, said in found.items() if said is Verdict.NOT_CHECKED] == open_probes(model)


def open_probes(model: nn.Sequential) -> list[str]:
    """NDP08 without dropout, NDP09 with normalisation or a single hidden layer."""
    kinds = [layer.kind for layer in model.layers]
    open_ones = [] if "dropout" in kinds else ["NDP08"]
    return open_ones + (["NDP09"] if "batch_norm" in kinds or kinds.count("affine") < 3 else [])


class Blind(nn.ReLU):
    """A layer that lets nothing through."""

    def forward(self, x: Array, training: bool = True) -> Array:
        return np.zeros_like(x)

    def backward(self, gradient: Array) -> Array:
        return np.zeros_like(gradient)


class Centring(nn.ReLU):
    """A layer that takes part of the batch's mean from every sample."""

    share = 1.0

    def forward(self, x: Array, training: bool = True) -> Array:
        return x - np.float32(self.share) * x.mean(axis=0)

    def backward(self, gradient: Array) -> Array:
        return gradient - np.float32(self.share) * gradient.mean(axis=0)


class Noisy(nn.ReLU):
    """A layer that adds noise whether the network trains or not, from a generator of its own or one that has no seed."""

    seeded = True
    always = True

    def __init__(self) -> None:
        super().__init__()
        self.rng = np.random.default_rng(0)

    def forward(self, x: Array, training: bool = True) -> Array:
        rng = self.rng if self.seeded else np.random.default_rng()
        return x + (rng.standard_normal(x.shape).astype(x.dtype) if training or self.always else 0.0)

    def backward(self, gradient: Array) -> Array:
        return gradient


def test_a_network_that_does_not_see_its_inputs_learns_no_more_than_from_zeros(data: Data) -> None:
    report = probes.input_independence(with_layer(Blind()), *data)

    assert verdict(report) is Verdict.WARN
    assert "the same for all 16 samples" in report.findings[0].message


def test_targets_that_need_no_inputs_are_not_judged(data: Data) -> None:
    report = probes.input_independence(with_layer(Blind()), data[0], np.zeros(96, int))

    assert verdict(report) is Verdict.NOT_CHECKED
    assert "without inputs" in report.checks[0].reason


def test_training_too_slow_to_tell_inputs_from_zeros_is_not_judged(data: Data) -> None:
    slow = nn.Trainer(nn.MLP([8, 16, 3]), nn.SoftmaxCrossEntropy(), nn.SGD(1e-5))

    report = probes.input_independence(slow, *data)

    assert verdict(report) is Verdict.NOT_CHECKED


@pytest.mark.parametrize(("share", "expected"), [(1.0, Verdict.FAIL), (0.01, Verdict.FAIL), (1e-4, Verdict.PASS)])
def test_a_layer_that_mixes_samples_is_named(share: float, expected: Verdict, data: Data) -> None:
    layer = Centring()
    layer.share = share

    report = probes.batch_independence(with_layer(layer), *data)

    assert verdict(report) is expected
    assert [finding.layer for finding in report.findings] == ["affine1.relu"] * (expected is Verdict.FAIL)


@pytest.mark.parametrize(
    ("lr", "words"), [(1e-6, "far too low"), (1e-3, ""), (0.1, ""), (100.0, "where training diverges")]
)
def test_a_learning_rate_is_placed_between_where_learning_begins_and_where_it_ends(
    lr: float, words: str, data: Data
) -> None:
    trainer = nn.Trainer(nn.MLP([8, 16, 16, 3]), nn.SoftmaxCrossEntropy(), nn.SGD(lr, momentum=0.9))

    report = probes.lr_range(trainer, *data)

    assert verdict(report) is (Verdict.WARN if words else Verdict.PASS)
    assert words in report.checks[0].reason
    assert "the loss falls fastest near lr" in f"{report.checks[0].reason}{report.checks[0].notes}"


def test_the_turning_points_of_a_loss_that_falls_and_rises() -> None:
    rates = np.geomspace(1e-6, 1e1, 71)
    exponent = np.log10(rates)
    falls = 2.0 / (1 + np.exp(6 * (exponent + 3)))
    losses = falls + 0.3 + np.where(exponent > -1.001, np.inf, 0.0)

    found = turning_points(rates, losses, 0.0)

    assert found["steepest"] == pytest.approx(1e-3, rel=0.3)
    assert found["diverging"] == pytest.approx(1e-1, rel=0.3)
    assert found["gained"] == pytest.approx(2.0 / 2.3, rel=0.01)
    assert turning_points(rates, falls + 0.3, 0.0)["diverging"] is None


@pytest.mark.parametrize(
    ("seeded", "always", "words"),
    [(True, True, "in evaluation mode"), (False, False, "two trainings with the same seed"), (True, False, "")],
)
def test_noise_is_told_by_where_it_comes_from(seeded: bool, always: bool, words: str, data: Data) -> None:
    layer = Noisy()
    layer.seeded, layer.always = seeded, always

    report = probes.determinism(with_layer(layer), *data)

    assert verdict(report) is (Verdict.WARN if words else Verdict.PASS)
    assert words in report.checks[0].reason


@pytest.mark.parametrize(("rate", "expected"), [(0.5, Verdict.PASS), (0.9, Verdict.WARN)])
def test_dropout_is_compared_with_none(rate: float, expected: Verdict, data: Data) -> None:
    trainer = nn.Trainer(nn.MLP([8, 32, 32, 3], dropout=rate), nn.SoftmaxCrossEntropy(), nn.Adam(3e-3))

    assert verdict(probes.dropout_dominates(trainer, *data)) is expected


@pytest.mark.parametrize(("std", "words"), [(0.02, "shrinks"), (np.sqrt(2 / 64), ""), (1.0, "grows")])
def test_signals_are_followed_through_depth_both_ways(std: float, words: str, data: Data) -> None:
    model = nn.MLP([8, *[64] * 8, 3], init=nn.normal(std))
    trainer = nn.Trainer(model, nn.SoftmaxCrossEntropy(), nn.SGD(0.1))

    report = probes.signal_propagation(trainer, *data)

    assert verdict(report) is (Verdict.WARN if words else Verdict.PASS)
    assert [words in finding.message for finding in report.findings] == [True] * (2 if words else 0)
    assert [finding.layer for finding in report.findings] == (["hidden8.relu", "hidden1.relu"] if words else [])


def test_a_network_that_mixes_samples_only_when_alone_is_warned_of(data: Data) -> None:
    class Alone(nn.ReLU):
        def forward(self, x: Array, training: bool = True) -> Array:
            return x[0] if len(x) == 1 else x

    model = nn.Sequential([nn.Affine(8, 3), Alone()])
    trainer = nn.Trainer(model, nn.SoftmaxCrossEntropy(), nn.SGD(0.1))

    report = probes.shapes(trainer, *data)

    assert verdict(report) is Verdict.WARN
    assert "gave (3,), wanted (1, 3)" in report.findings[0].message


def test_a_model_that_fails_is_not_checked_and_says_why(data: Data) -> None:
    class Failing(nn.ReLU):
        def forward(self, x: Array, training: bool = True) -> Array:
            raise RuntimeError("no")

    for probe in probes.ALL:
        report = probe(with_layer(Failing()), *data)
        if probe.code != "NDP03":
            assert verdict(report) is Verdict.NOT_CHECKED
            assert "the experiment failed: RuntimeError: no" in report.checks[0].reason


def test_a_trainer_has_its_own_loss(trainer: nn.Trainer, data: Data) -> None:
    with pytest.raises(NndiagError, match="leave loss= and optimizer= out"):
        probes.shapes(trainer, *data, loss=nn.MSE())


def test_samples_that_are_not_finite_are_left_out(trainer: nn.Trainer, data: Data) -> None:
    x, y = data[0].copy(), data[1]
    x[::2] = np.nan

    assert verdict(probes.gradient_check(trainer, x, y)) is Verdict.PASS


@pytest.mark.parametrize(
    ("target", "x", "y", "words"),
    [
        ("model", np.ones((4, 8)), np.zeros(4, int), "needs an nndiag.nn.Trainer or a model .* got a builtins.str"),
        (None, np.ones((0, 8)), np.zeros(0, int), "as many inputs as targets, and some"),
        (None, np.ones((4, 8)), np.zeros(3, int), "as many inputs as targets"),
        (None, np.full((4, 8), np.nan), np.zeros(4, int), "there is not one"),
    ],
)
def test_a_probe_says_what_it_needs(target: object, x: Array, y: Array, words: str, trainer: nn.Trainer) -> None:
    with pytest.raises(NndiagError, match=words):
        probes.shapes(target or trainer, x, y)  # type: ignore[arg-type]
