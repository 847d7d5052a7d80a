"""The digits that come with nndiag."""

from __future__ import annotations

import numpy as np
import pytest

from nndiag.datasets import digits


def test_all_digits_are_there_once() -> None:
    split = digits()

    assert split.x.shape == (1438, 64)
    assert split.x_val.shape == (359, 64)
    assert split.x.dtype == np.float32
    assert (split.x.min(), split.x.max()) == (0.0, 1.0)
    counts = np.bincount(np.concatenate([split.y, split.y_val]))
    assert counts.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]  # as the original's documentation says


def test_the_seed_decides_the_split() -> None:
    np.testing.assert_array_equal(digits(3).x_val, digits(3).x_val)
    assert not np.array_equal(digits(3).y_val, digits(4).y_val)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5])
def test_a_share_outside_0_to_1_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="give a share between 0 and 1"):
        digits(validation=share)
