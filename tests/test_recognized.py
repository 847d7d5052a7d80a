"""Which loss a number is, found by its value where a loop of its own does not say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nndiag import Recorder
from nndiag.statistics import Array

SAMPLES, CLASSES = 24, 5


def softmax(logits: Array) -> Array:
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


def right(p: Array, ids: Array) -> Array:
    return -np.log(p[np.arange(len(ids)), ids] + 1e-12)


def squares(outputs: Array, y: Array) -> float:
    return float(np.sum((outputs - y) ** 2))


def cross(p: Array, y: Array) -> float:
    return float(-np.mean(y * np.log(p) + (1 - y) * np.log(1 - p)))


LOGITS = {"name": "cross-entropy", "task": "classes", "expects": "logits"}
PROBABILITIES = {"name": "cross-entropy", "task": "classes", "expects": "probabilities"}
BINARY = {"name": "binary cross-entropy", "task": "binary", "expects": "probabilities"}
SQUARED = {"name": "squared error", "task": "real", "expects": "real"}


def one_hot(ids: Array) -> Array:
    return np.asarray(np.eye(CLASSES)[ids])


def batches(steps: int = 4) -> list[tuple[Array, Array]]:
    rng = np.random.default_rng(0)
    return [(2 * rng.standard_normal((SAMPLES, CLASSES)), rng.integers(0, CLASSES, SAMPLES)) for _ in range(steps)]


@pytest.mark.parametrize(("make", "loss"), [
    (lambda z, ids: (z, ids, right(softmax(z), ids).mean()), LOGITS),
    (lambda z, ids: (z, one_hot(ids), right(softmax(z), ids).mean()), LOGITS),
    (lambda z, ids: (z, ids, right(softmax(z), ids).sum()), {**LOGITS, "scale": None}),
    (lambda z, ids: (softmax(z), ids, right(softmax(z), ids).mean()), PROBABILITIES),
    (lambda z, ids: (softmax(z), one_hot(ids), right(softmax(z), ids).mean() / CLASSES), {**PROBABILITIES, "scale": 0.2}),
    (lambda z, ids: (softmax(z), ids, right(softmax(softmax(z)), ids).mean()), LOGITS),  # twice
    (lambda z, ids: (softmax(z)[:, :1], ids % 2, cross(softmax(z)[:, 0], ids % 2)), BINARY),
    (lambda z, ids: (z, z + one_hot(ids), 1 / CLASSES), SQUARED),
    (lambda z, ids: (z, one_hot(ids), squares(z, one_hot(ids)) / SAMPLES), {**SQUARED, "scale": 5.0}),
    (lambda z, ids: (z, one_hot(ids), squares(z, one_hot(ids)) / (2 * SAMPLES)), {**SQUARED, "scale": 2.5}),
    (lambda z, ids: (z[:, :1], z[:, 1], squares(z[:, 0], z[:, 1]) / (2 * SAMPLES)), {**SQUARED, "scale": 0.5}),
    (lambda z, ids: (z[:, :1], z[:, 1], squares(z[:, 0], z[:, 1]) / 2), {**SQUARED, "scale": None}),
])  # fmt: skip
def test_a_loss_is_known_by_its_value(make: Callable[..., tuple[Array, Array, float]], loss: dict[str, Any]) -> None:
    recorder = Recorder(every=1)
    for at, batch in enumerate(batches()):
        outputs, targets, number = make(*batch)
        recorder.outputs(outputs, targets)
        recorder.log(loss=number)
        recorder.step()
        assert dict(recorder.meta.loss) == (loss if at >= 2 else {})


def record(number: Callable[[int, float], float] = lambda at, value: value, **told: Any) -> Recorder:
    recorder = Recorder(every=1)
    if told:
        recorder.describe(loss=told)
    for at, (z, ids) in enumerate(batches(6)):
        recorder.outputs(z, ids)
        recorder.log(loss=number(at, float(right(softmax(z), ids).mean())))
        recorder.step()
    return recorder


def test_what_is_told_stays() -> None:
    assert record(name="softmax loss").meta.loss == {**LOGITS, "name": "softmax loss"}
    assert record(task="binary").meta.loss == {"task": "binary"}
    assert record(name="x", task="classes", expects="probabilities").meta.loss["expects"] == "probabilities"


def test_a_number_that_is_another_is_not_guessed_at() -> None:
    assert not record(lambda at, value: value + 0.01).meta.loss  # a penalty
    assert not record(lambda at, value: value * (1 + (at == 2))).meta.loss
    assert not record(lambda at, value: 0.0).meta.loss
    assert not record(lambda at, value: np.nan).meta.loss


def test_the_last_layer_stands_for_outputs_that_are_not_given() -> None:
    rng = np.random.default_rng(1)
    recorder = Recorder(every=1)
    for z, ids in batches(10):
        recorder.data(rng.standard_normal((SAMPLES, 3)), ids)
        recorder.activation("h", rng.standard_normal((SAMPLES, 7)))
        recorder.activation("z", z)
        recorder.log(loss=float(right(softmax(z), ids).mean()))
        recorder.step()
    run = recorder.run

    assert recorder.meta.loss == LOGITS
    assert run.outputs.index.to_list() == list(range(4, 10))
    assert (run.outputs["width", "outputs"] == CLASSES).all()
    assert run.outputs["hits"].sum(axis=1).gt(0).any()


def test_layers_of_which_the_number_is_not_the_loss_are_no_outputs() -> None:
    recorder = Recorder(every=1)
    for z, ids in batches(6):
        recorder.data(z, ids)
        recorder.activation("h", z)
        recorder.log(loss=0.3)
        recorder.step()

    assert not recorder.meta.loss
    assert not len(recorder.run.outputs)


def test_targets_beside_outputs_alone_say_what_a_guess_costs() -> None:
    recorder = record()

    assert recorder.run.series("data", "entropy", "target").iloc[-1] == pytest.approx(np.log(CLASSES), rel=0.05)
