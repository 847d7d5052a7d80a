"""Which loss a number is, where a loop of its own does not say: found by what each kind makes of the outputs and targets."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nndiag import frames, losses
from nndiag.statistics import Array

Loss = Mapping[str, Any]

AGREE = 3
"""Steps in a row on which a kind of loss has to be the number that was logged."""

CLOSE = 1e-4
"""Relative difference up to which it is: room for float32, and for what is added before a logarithm is taken."""

KINDS: tuple[Loss, ...] = (
    {"name": "cross-entropy", "task": "classes", "expects": "logits"},
    {"name": "cross-entropy", "task": "classes", "expects": "probabilities"},
    {"name": "binary cross-entropy", "task": "binary", "expects": "logits"},
    {"name": "binary cross-entropy", "task": "binary", "expects": "probabilities"},
    {"name": "squared error", "task": "real", "expects": "real"},
    {"name": "absolute error", "task": "real", "expects": "real"},
)
"""What is told of the loss once it is known. Of its gradient the number says nothing, which may be a sum where this is a mean."""


class RecognizedLoss:
    """Finds the kind of a loss of which name, task or expectation are missing, by its value on the first steps with outputs.

    What a kind makes of outputs and targets is their mean; it counts as well in a multiple that does not change: summed over
    units, or half of that, as of a squared error; and summed over the batch. Where no outputs are given they are those of the
    last layer of the step before, if the number is the loss of those.
    """

    def __init__(self) -> None:
        self.fed = False
        """Whether this step has told of a layer, of outputs or of targets."""
        self.targets: Array | None = None
        """A copy of the targets that came with the inputs of this step, until outputs are given apart."""
        self._given = False
        self._layer = self._last = ""
        self._agreed = 0
        self._left: list[Loss] = []
        """What the number may be after the steps so far."""
        self._values: list[tuple[float, Loss]] = []

    def data(self, targets: Array) -> None:
        """The targets that come with the inputs of this step, of which a copy is kept until it is over, if they may be of use."""
        if not self._given and (self._agreed < AGREE or self._left):
            self.targets, self.fed = targets.copy(), True

    def layer(self, name: str, output: Array, told: Loss) -> bool:
        """What a layer puts out; whether that is known to be the outputs, of which the loss is made with `targets`."""
        self._layer, self.fed = name, True
        if self.targets is None or name != self._last or not (self._agreed < AGREE or self._left):
            return False
        if self._agreed < AGREE:
            self._values = list(_values(output, self.targets, told))
        return self._agreed == AGREE

    def outputs(self, outputs: Array, targets: Array | None, told: Loss) -> None:
        """What goes into the loss in this step, and what is told of it; of neither array anything is kept but numbers."""
        if not self._given:
            self._given, self.targets, self._agreed = True, None, 0
        self._values, self.fed = [], True
        if targets is not None and self._agreed < AGREE and not {"name", "task", "expects"} <= told.keys():
            self._values = list(_values(outputs, targets, told))

    def step(self, losses: Sequence[float]) -> Loss | None:
        """The step is over: what the loss is, once it is known, with the number or numbers that were logged."""
        values, self._values, self.targets, self.fed = self._values, [], None, False
        self._last, self._layer = self._layer or self._last, ""
        if len(losses) != 1 or not values:
            return None
        fits = [loss for value, loss in values if value > 0 and math.isclose(losses[0], value, rel_tol=CLOSE)]
        self._left = [loss for loss in fits if loss in self._left] if self._agreed else fits
        self._agreed = self._agreed + 1 if self._left else AGREE
        return self._left[0] if self._left and self._agreed == AGREE else None


def _values(outputs: Array, targets: Array, told: Loss) -> Iterator[tuple[float, Loss]]:
    """What each kind that is not ruled out by what is `told` makes of them, the plain mean first."""
    rows, y = frames.as_samples(outputs, targets)
    if y is None or not rows.size:
        return
    samples, width = rows.shape
    for kind in KINDS:
        if any(told.get(key, kind[key]) != kind[key] for key in ("task", "expects")):
            continue
        mean = losses.term(rows, y, kind)
        constant: tuple[float, ...]
        summed: tuple[float, ...]
        if kind["task"] == "classes":
            constant, summed = (1.0, 1 / width), (float(samples),)
        else:
            constant, summed = (1.0, float(width), 0.5, width / 2), (float(rows.size), rows.size / 2)
        for factor in constant:
            yield factor * mean, kind if factor == 1 else {**kind, "scale": factor}
        for factor in summed:
            yield factor * mean, {**kind, "scale": None}  # it goes with the size of the batch
