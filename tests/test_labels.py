"""Targets over all batches."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nndiag.labels import Labels
from nndiag.statistics import Array


def labels_of(*batches: Array, binary: bool = False) -> Labels:
    labels = Labels()
    for batch in batches:
        labels.add(batch, binary=binary)
    return labels


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.float32])
def test_class_ids_are_counted_whatever_their_type(dtype: type) -> None:
    labels = labels_of(np.array([0, 2, 2], dtype), np.array([[1], [2]], dtype))

    assert labels.counts == {0: 1, 1: 1, 2: 3}
    assert labels.classes == 3
    assert labels.entropy == pytest.approx(-(0.4 * math.log(0.2) + 0.6 * math.log(0.6)))


def test_an_ignored_id_and_a_huge_one_are_classes_like_others() -> None:
    labels = labels_of(np.array([-100, 3, 3, 70_000]), np.array([3, 4]))

    assert labels.counts == {-100: 1, 3: 3, 4: 1, 70_000: 1}
    assert labels.classes == 4
    assert not labels.complete


def test_one_hot_rows_are_classes() -> None:
    assert labels_of(np.eye(3), np.eye(3)[[0, 0]]).counts == {0: 3, 1: 1, 2: 1}


def test_real_targets_are_no_classes() -> None:
    labels = labels_of(np.array([0.1, 0.7, 0.7]))

    assert math.isnan(labels.classes)
    assert math.isnan(labels.entropy)
    assert labels.shares() == {}
    assert labels.variance == pytest.approx(0.08)


def test_binary_columns_have_the_mean_entropy() -> None:
    labels = labels_of(np.array([[0, 1], [1, 1], [0, 1], [1, 1]]), binary=True)

    assert labels.entropy == pytest.approx(math.log(2) / 2)


def test_whole_numbers_without_end_are_no_classes() -> None:
    labels = labels_of(np.arange(1_000_000, 1_000_000 + Labels.MOST + 1))

    assert math.isnan(labels.classes)


def test_a_batch_that_is_only_counted_leaves_the_moments_alone() -> None:
    labels = labels_of(np.array([0, 0, 2]))
    before = labels.variance
    labels.add(np.array([2, 2, 2]), binary=False, whole=False)

    assert labels.counts == {0: 2, 2: 4}
    assert labels.variance == before


def test_whole_numbers_are_counted_as_if_one_by_one() -> None:
    rng = np.random.default_rng(0)
    batches = [rng.integers(-50, 9_000, 64) for _ in range(40)] + [rng.integers(0, 9, 64), np.arange(4090, 4100)]
    labels = labels_of(*batches)
    ids, counts = np.unique(np.concatenate(batches), return_counts=True)

    assert labels.counts == dict(zip(ids.tolist(), counts.tolist(), strict=True))
    assert labels.classes == len(ids)
    shares = counts / counts.sum()
    assert labels.entropy == pytest.approx(-float(shares @ np.log(shares)))


def test_numbers_without_end_are_forgotten() -> None:
    labels = labels_of(np.array([1, 2]), np.arange(1_000_000, 1_000_000 + Labels.MOST + 1))
    labels.add(np.array([1, 1]), binary=False)

    assert math.isnan(labels.classes)
    assert math.isnan(labels.entropy)
    assert labels.counts == labels.shares() == {}
