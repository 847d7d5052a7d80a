"""Probes on real trainers."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import nndiag
from nndiag import NndiagError, Recorder, Report, Verdict, nn, probes
from nndiag.nn.layers import Layer
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


@pytest.mark.parametrize("probe", [probes.gradient_check, probes.overfit_tiny_batch, probes.shapes])
def test_a_probe_leaves_everything_as_it_was(probe: probes.Probe, data: Data) -> None:
    model = nn.MLP([8, 16, 3], dropout=0.5, norm="batch")
    probed = nn.Trainer(model, nn.SoftmaxCrossEntropy(), nn.Adam(1e-2))
    probed.fit(*data, epochs=1)
    untouched = copy.deepcopy(probed)

    probe(probed, *data)
    probed.fit(*data, epochs=2)
    untouched.fit(*data, epochs=2)

    for a, b in zip(probed.model.parameters, untouched.model.parameters, strict=True):
        np.testing.assert_array_equal(a.value, b.value)


def test_a_probe_does_not_run_the_hooks(trainer: nn.Trainer, data: Data) -> None:
    with nndiag.watch(trainer, every=1, strict=True) as recorder:
        probes.run_all(trainer, *data, recorder)

    assert recorder.run.steps == 0
    assert set(recorder.run.meta.probes) == {"NDP01", "NDP02", "NDP03"}


def test_what_a_probe_measured_is_in_the_report_of_the_run(trainer: nn.Trainer, data: Data, tmp_path: object) -> None:
    recorder = Recorder(f"{tmp_path}/run")
    probes.shapes(trainer, *data, recorder=recorder)
    recorder.close()

    report = nndiag.Checklist(select="NDP").examine(nndiag.open_run(f"{tmp_path}/run"))

    verdicts = {check.code: check.verdict for check in report.checks}
    assert verdicts == {"NDP01": Verdict.NOT_CHECKED, "NDP02": Verdict.NOT_CHECKED, "NDP03": Verdict.PASS}


def test_samples_that_are_not_finite_are_left_out(trainer: nn.Trainer, data: Data) -> None:
    x, y = data[0].copy(), data[1]
    x[::2] = np.nan

    assert verdict(probes.gradient_check(trainer, x, y)) is Verdict.PASS


@pytest.mark.parametrize(
    ("target", "x", "y", "words"),
    [
        ("model", np.ones((4, 8)), np.zeros(4, int), "needs an nndiag.nn.Trainer, got builtins.str"),
        (None, np.ones((0, 8)), np.zeros(0, int), "as many inputs as targets, and some"),
        (None, np.ones((4, 8)), np.zeros(3, int), "as many inputs as targets"),
        (None, np.full((4, 8), np.nan), np.zeros(4, int), "there is not one"),
    ],
)
def test_a_probe_says_what_it_needs(target: object, x: Array, y: Array, words: str, trainer: nn.Trainer) -> None:
    with pytest.raises(NndiagError, match=words):
        probes.shapes(target or trainer, x, y)  # type: ignore[arg-type]
