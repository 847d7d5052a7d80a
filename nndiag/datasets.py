"""Data that comes with nndiag: the UCI handwritten digits."""

from __future__ import annotations

from importlib.resources import files
from typing import NamedTuple

import numpy as np

from nndiag.statistics import Array


class Split(NamedTuple):
    """Training and validation data: inputs (N, features) in float32, class ids (N,)."""

    x: Array
    y: Array
    x_val: Array
    y_val: Array


def digits(seed: int = 0, validation: float = 0.2) -> Split:
    """1,797 images of handwritten digits (N, 64), pixels scaled to 0 … 1, shuffled and split by `seed`.

    UCI "Optical Recognition of Handwritten Digits", test part (Alpaydin & Kaynak 1998), CC BY 4.0: provenance and
    licence are in `nndiag/data/LICENSE-digits.txt`. Raises ValueError unless 0 < validation < 1.
    """
    if not 0 < validation < 1:
        raise ValueError(f"digits(validation={validation!r}): give a share between 0 and 1")
    with (files("nndiag") / "data" / "digits.npz").open("rb") as file, np.load(file, allow_pickle=False) as data:
        images, labels = data["images"], data["labels"].astype(np.int64)
    order = np.random.default_rng(seed).permutation(len(labels))
    x, y = (images[order] / 16).astype(np.float32), labels[order]
    held_out = round(validation * len(y))
    return Split(x[held_out:], y[held_out:], x[:held_out], y[:held_out])
