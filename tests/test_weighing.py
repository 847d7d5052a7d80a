"""The weights of classes, measured by the gradient of the outputs."""

from __future__ import annotations

import math

import numpy as np
import pytest

import nndiag
from nndiag import nn
from nndiag.statistics import Array
from nndiag.weighing import Weighing

RNG = np.random.default_rng(0)
BINARY, CLASSES = {"task": "binary"}, {"task": "classes"}


def sigmoid(z: Array) -> Array:
    return 1 / (1 + np.exp(-z))


def softmax(z: Array) -> Array:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def binary(expects: str, weights: Array, units: int = 1) -> tuple[Array, Array, Array, float]:
    """Outputs, labels, and the gradient and the number of a weighed mean of binary cross-entropies."""
    z, y = RNG.standard_normal((64, units)), (RNG.random((64, units)) < 0.4).astype(float)
    p, w = sigmoid(z), np.asarray(weights)[y.astype(int)]
    slope = 1.0 if expects == "logits" else p * (1 - p)
    number = float(np.mean(w * (np.logaddexp(0, z) - y * z)))
    return (z if expects == "logits" else p), y, w * (p - y) / slope / z.size, number


def classes(
    expects: str, weights: Array, *, sums: bool = False, one_hot: bool = False
) -> tuple[Array, Array, Array, float]:
    """The same of cross-entropies of three classes; `sums`: the loss divides probabilities by their sum, which is 1."""
    z, y = RNG.standard_normal((64, 3)), RNG.integers(0, 3, 64)
    p, t = softmax(z), np.eye(3)[y]
    w = np.asarray(weights)[y][:, None] / len(z)
    δ = w * (p - t) if expects == "logits" else w * (-t / p + sums)
    number = float(np.sum(w * t * -np.log(p)))
    return (z if expects == "logits" else p), (t if one_hot else y), δ, number


FOUND = {
    "logits of one unit": lambda w: (binary("logits", w[:2]), BINARY | {"expects": "logits"}),
    "probabilities of one unit": lambda w: (binary("probabilities", w[:2]), BINARY | {"expects": "probabilities"}),
    "several labels": lambda w: (binary("probabilities", w[:2], 5), BINARY | {"expects": "probabilities"}),
    "logits": lambda w: (classes("logits", w), CLASSES | {"expects": "logits"}),
    "one-hot rows": lambda w: (classes("logits", w, one_hot=True), CLASSES | {"expects": "logits"}),
    "probabilities": lambda w: (classes("probabilities", w), CLASSES | {"expects": "probabilities"}),
    "divided by their sum": lambda w: (classes("probabilities", w, sums=True), CLASSES | {"expects": "probabilities"}),
}


def after_gradient(weighing: Weighing, gradient: Array) -> list[float] | None:
    weighing.gradient(gradient)
    return weighing.step([])


@pytest.mark.parametrize("name", FOUND)
@pytest.mark.parametrize("weights", [[0.5, 25.0, 3.0], [1.0, 1.03, 1.0], [1.0, 1.0, 1.0], [4.0, 4.0, 4.0]])
def test_weights_of_classes_are_told_as_they_are(name: str, weights: list[float]) -> None:
    weighing, found = Weighing(), []
    for _ in range(4):
        (outputs, y, gradient, number), loss = FOUND[name](weights)
        weighing.outputs(outputs, y, loss, number)
        found.append(after_gradient(weighing, gradient))
    wanted = weights[: 2 if "binary" in loss["task"] else 3]

    known = [each for each in found if each is not None]
    assert len(known) == any(abs(weight - 1) > 0.02 for weight in wanted)
    assert all(each == pytest.approx(wanted, rel=1e-4) for each in known)


@pytest.mark.parametrize("name", FOUND)
def test_weights_of_samples_and_gradients_of_other_losses_are_no_weights_of_classes(name: str) -> None:
    for of_sample in (lambda n: RNG.uniform(0.5, 2.0, (n, 1)), lambda n: -np.ones((n, 1)), lambda n: np.zeros((n, 1))):
        weighing = Weighing()
        for _ in range(4):
            (outputs, y, gradient, number), loss = FOUND[name]([1.0, 3.0, 2.0])
            weighing.outputs(outputs, y, loss, number)
            assert after_gradient(weighing, gradient * of_sample(len(gradient))) is None


@pytest.mark.parametrize("weights", [[1.0, 10.0], [1.0, 1.0], [4.0, 4.0]])
@pytest.mark.parametrize("parts", [1, 2, 8])
@pytest.mark.parametrize("penalty", [1.0, 1.5])
def test_a_factor_that_the_number_of_the_loss_has_not_is_none_of_the_losss(
    weights: list[float], parts: int, penalty: float
) -> None:
    """As where a batch is read in parts, and the loss of each is divided by their number after it was logged."""
    weighing, found = Weighing(), []
    for _ in range(2):
        z, y, gradient, number = binary("logits", np.array(weights))
        weighing.outputs(z, y, BINARY | {"expects": "logits"}, penalty * number)
        found.append(after_gradient(weighing, gradient / parts))

    if weights == [1.0, 1.0] or (weights == [4.0, 4.0] and parts > 1):
        assert found == [None, None]
    else:
        wanted = np.array(weights) * (1 if parts == 1 else penalty)
        assert found[1] == pytest.approx(wanted, rel=1e-4)


def test_outputs_that_are_all_right_and_certain_have_no_loss_to_hold_weights_against() -> None:
    weighing, loss = Weighing(), CLASSES | {"expects": "logits"}
    outputs, y, gradient, number = classes("logits", np.array([1.0, 2.0, 3.0]))
    weighing.outputs(outputs, y, loss, number)
    assert after_gradient(weighing, gradient) is None
    weighing.outputs(1000.0 * np.eye(3)[y], y, loss, 0.0)

    assert after_gradient(weighing, np.zeros_like(gradient)) == pytest.approx([1.0, 2.0, 3.0])


def test_a_class_that_has_not_been_seen_is_waited_for() -> None:
    weighing, loss = Weighing(), CLASSES | {"expects": "logits"}
    z = RNG.standard_normal((8, 3))
    found = []
    for label in (0, 1, 0, 2, 2):
        y = np.full(8, label)
        weighing.outputs(z, y, loss, math.nan)
        found.append(after_gradient(weighing, (label + 1) * (softmax(z) - np.eye(3)[y]) / 8))

    assert found[:4] == [None] * 4
    assert found[4] == pytest.approx([1.0, 2.0, 3.0])


def test_what_is_said_twice_with_other_weights_is_not_believed() -> None:
    weighing = Weighing()
    for weight in (2.0, 3.0, 3.0, 3.0):
        outputs, y, gradient, number = binary("logits", np.array([1.0, weight]))
        weighing.outputs(outputs, y, BINARY | {"expects": "logits"}, number)
        assert after_gradient(weighing, gradient) is None


@pytest.mark.parametrize(
    ("y", "loss"),
    [
        (None, BINARY | {"expects": "logits"}),
        (np.full((4, 1), 0.3), BINARY | {"expects": "logits"}),
        (np.ones(4), {"task": "real", "expects": "real"}),
        (np.ones(4), BINARY | {"expects": "logits", "label_smoothing": 0.1}),
        (np.ones(4), {}),
        (np.ones(3), CLASSES | {"expects": "logits"}),
    ],
)
def test_what_cannot_be_measured_tells_nothing(y: Array | None, loss: dict[str, object]) -> None:
    weighing = Weighing()
    for _ in range(4):
        weighing.outputs(np.zeros((4, 1)), y, loss, 1.0)
        assert after_gradient(weighing, np.ones((4, 1))) is None
        assert after_gradient(weighing, np.ones((4, 1))) is None


@pytest.mark.parametrize("logged", ["before", "after"])
def test_a_loop_of_ones_own_is_told_the_weights_of_its_classes(logged: str) -> None:
    recorder, weights = nndiag.Recorder(every=1), np.array([1.0, 6.0, 2.0])
    recorder.describe(loss=CLASSES | {"expects": "logits"})
    for _ in range(8):
        z, y, gradient, number = classes("logits", weights)
        if logged == "before":
            recorder.log(loss=number)
        recorder.outputs(z, y)
        recorder.output_gradient(gradient)
        if logged == "after":
            recorder.log(loss=number)
        recorder.step()

    assert recorder.meta.loss["class_weights"] == pytest.approx(weights, rel=1e-4)


@pytest.mark.parametrize("logged", ["before", "after"])
def test_a_gradient_that_is_that_of_the_sum_weighs_nothing_beside_the_number_of_a_mean(logged: str) -> None:
    recorder = nndiag.Recorder(every=1)
    for _ in range(8):
        z, y, gradient, number = classes("logits", np.ones(3))
        if logged == "before":
            recorder.log(loss=number)
        recorder.outputs(z, y)
        recorder.output_gradient(len(z) * gradient)
        if logged == "after":
            recorder.log(loss=number)
        recorder.step()

    assert dict(recorder.meta.loss) == {"name": "cross-entropy", "task": "classes", "expects": "logits"}


class Weighed(nn.BCEWithLogits):
    """Binary cross-entropy that weighs labels of 1 ten times, and says nothing of it."""

    def __call__(self, outputs: Array, targets: Array) -> float:
        self._w = np.where(targets.reshape(outputs.shape) > 0.5, 10.0, 1.0).astype(np.float32)
        super().__call__(outputs, targets)
        t = targets.reshape(outputs.shape)
        return float(np.mean(self._w * (np.logaddexp(0, outputs) - t * outputs)))

    def backward(self) -> Array:
        return np.asarray(super().backward() * self._w)


@pytest.mark.parametrize(("times", "verdict"), [(1, nndiag.Verdict.PASS), (9, nndiag.Verdict.WARN)])
def test_a_weighed_loss_is_judged_by_its_weights(times: int, verdict: nndiag.Verdict) -> None:
    """One label of 1 in eleven weighed ten times is sound; nine of ten are upside down."""
    rng = np.random.default_rng(1)
    y = (np.arange(1100) % 11 < times).astype(np.float32)
    x = (rng.standard_normal((1100, 6)) + 1.2 * y[:, None]).astype(np.float32)
    trainer = nn.Trainer(nn.MLP([6, 16, 1], seed=0), Weighed(), nn.Adam(0.005), metrics={})
    with nndiag.watch(trainer, every=1) as recorder:
        trainer.fit(x[:880], y[:880], validation=(x[880:], y[880:]), epochs=15, batch_size=32)
    report = recorder.check()

    assert recorder.meta.loss["class_weights"] == pytest.approx([1.0, 10.0], rel=1e-3)
    assert report.verdict is verdict
    assert report.headlines == ("ND005",) * (times > 1)
