"""What the losses take, refuse and survive."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from nndiag import errors, nn

LOGITS = np.random.default_rng(0).normal(size=(3, 4))


@pytest.mark.parametrize("loss", [nn.SoftmaxCrossEntropy(0.1), nn.CrossEntropy()])
def test_ids_and_one_hot_targets_are_the_same(loss):
    outputs = np.abs(LOGITS)
    by_ids = loss(outputs, np.array([0, 3, 1])), loss.backward().copy()

    assert loss(outputs, np.eye(4)[[0, 3, 1]]) == by_ids[0]
    np.testing.assert_array_equal(loss.backward(), by_ids[1])


@pytest.mark.parametrize("ids", [[0, 1, 4], [0, -1, 2]])
@pytest.mark.parametrize("loss", [nn.SoftmaxCrossEntropy(), nn.CrossEntropy()])
def test_id_out_of_range_is_named(loss, ids):
    strange = next(number for number in ids if number not in range(4))

    with pytest.raises(nn.TargetError, match=f"{loss.name} got class id {strange}, wanted 0 to 3 for 4 outputs"):
        loss(LOGITS, np.array(ids))


def test_ids_that_are_no_integers_are_refused_with_the_remedy():
    with pytest.raises(nn.TargetError, match=re.escape("ids of type float64, wanted integers; try y.astype(int)")):
        nn.SoftmaxCrossEntropy()(LOGITS, np.array([0.0, 0.5, 1.0]))


@pytest.mark.parametrize("shape", [(2,), (3, 1), (3, 5)])
def test_targets_of_another_shape_are_named(shape):
    text = re.escape(f"got outputs of shape (3, 4) and targets of shape {shape}")

    with pytest.raises(errors.ShapeError, match="SoftmaxCrossEntropy " + text):
        nn.SoftmaxCrossEntropy()(LOGITS, np.zeros(shape, int))
    with pytest.raises(errors.ShapeError, match="MSE " + text):
        nn.MSE()(LOGITS, np.zeros(shape))


@pytest.mark.parametrize("loss", [nn.MSE(), nn.BCEWithLogits()])
def test_flat_targets_fit_a_single_output(loss):
    outputs, targets = LOGITS[:, :1], np.array([0, 1, 1])

    assert loss(outputs, targets) == loss(outputs, targets[:, None])
    assert loss.backward().shape == (3, 1)


@pytest.mark.parametrize("loss", [nn.MSE(), nn.BCEWithLogits()])
def test_targets_never_broadcast(loss):
    with pytest.raises(errors.ShapeError, match=re.escape("wanted targets of shape (3,)")):
        loss(LOGITS[:, 0], np.zeros((3, 1)))


def test_softmax_cross_entropy_survives_large_and_masked_logits():
    logits = np.array([[1e4, 0.0, -np.inf]])
    loss = nn.SoftmaxCrossEntropy()

    assert loss(logits, np.array([0])) == 0.0
    assert loss(logits, np.array([1])) == 1e4
    assert loss.backward().tolist() == [[1.0, -1.0, 0.0]]


def test_binary_cross_entropy_survives_large_logits():
    loss = nn.BCEWithLogits()

    assert loss(np.array([[1e4], [-1e4]]), np.array([0, 1])) == 1e4
    assert loss.backward().tolist() == [[0.5], [-0.5]]


def test_cross_entropy_clips_probabilities():
    assert nn.CrossEntropy()(np.array([[0.0, 1.0]]), np.array([0])) == pytest.approx(-np.log(1e-12))


@pytest.mark.parametrize(
    ("loss", "expects", "task"),
    [
        (nn.SoftmaxCrossEntropy(0.1), "logits", "classes"),
        (nn.CrossEntropy(), "probabilities", "classes"),
        (nn.BCEWithLogits(), "logits", "binary"),
        (nn.MSE(), "real", "real"),
    ],
)
def test_describes_itself_for_json(loss, expects, task):
    smoothing = 0.1 if loss.name == "SoftmaxCrossEntropy" else 0.0

    assert json.loads(json.dumps(loss.describe())) == {
        "name": type(loss).__name__,
        "expects": expects,
        "task": task,
        "label_smoothing": smoothing,
    }


@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_label_smoothing_out_of_range_is_refused(smoothing):
    with pytest.raises(ValueError, match="give 0 <= s < 1"):
        nn.SoftmaxCrossEntropy(smoothing)
