"""NDP01 gradient-check."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nndiag.check import Finding
from nndiag.probes.probe import Probe
from nndiag.probes.subject import Pupil, Subject, drawn, seeded
from nndiag.run import Run
from nndiag.statistics import Array

MACHINE = float(np.finfo(np.float64).eps)
ALL = "all parameters"
"""What the random directions through all parameters are called."""

ROUNDINGS = 1e3
"""How much larger than one rounding the error of a loss may be after its many operations."""


@dataclass(frozen=True)
class GradientCheck(Probe):
    """Gradients from backpropagation agree with central differences of the loss.

    A wrong backward pass still trains, only worse, and is the hardest bug to see in curves. For each parameter, and for
    random directions through all of them, the derivative is measured as (L(w + h) − L(w − h)) / 2h in float64 and
    compared with the gradient (the lesson, section 6; error O(h²)).

    Measures on a copy in float64, in training mode without dropout and with the same random numbers at every evaluation,
    on `samples` samples: up to `coordinates` entries of each parameter, drawn with a fixed seed, `total` in all, and
    `directions` directions. Where the derivatives to the left and to the right differ by more than
    `kinks` a kink of ReLU was crossed, and where they are so small that rounding drowns them nothing can be compared:
    such points are dropped, and where less than `least` of the parameters have any left the verdict is NOT CHECKED. The
    error is |analytic − numeric| over the larger of the two. Above `fail` it FAILs; above `kinks`, the most that a kink
    which is not dropped can hide, it is a warning. Gradients that are meant to differ, such as straight-through estimators
    and gradient reversal, FAIL too.
    """

    code = "NDP01"
    name = "gradient-check"
    kind = "exact"
    needs = ()
    advice = "Look for the mistake in the backward pass of the layer named, or in the gradient of the loss."
    confirm = "print(nndiag.probes.gradient_check(trainer, x, y))"
    passed = "gradients agree with finite differences"

    fail: float = 1e-2
    least: float = 0.5
    kinks: float = 1e-4
    samples: int = 16
    coordinates: int = 20
    total: int = 200
    directions: int = 5
    step: float = 1e-5

    def measure(self, subject: Subject) -> dict[str, Any]:
        rows = drawn(subject, self.samples)
        surface = _Surface(subject, subject.copy(dropout=False, double=True), rows)
        if not math.isfinite(surface.here):
            return {"reason": "the loss of the samples is not finite"}
        if surface.drifts():
            return {"reason": "the loss of the same batch is another one at every evaluation: a layer that keeps a state in "
                    "training mode, such as spectral norm, or random numbers without a seed"}  # fmt: skip
        share = max(1, min(self.coordinates, self.total // max(1, len(surface.values))))
        points = {name: self._at_coordinates(surface, name, share) for name in surface.values}
        points[ALL] = self._along_directions(surface)
        errors = {name: max(found) for name, found in points.items() if found}
        return {"errors": errors, "compared": sum(map(len, points.values())),
                "dropped": [name for name, found in points.items() if not found]}  # fmt: skip

    def _at_coordinates(self, surface: _Surface, name: str, share: int) -> list[float]:
        """Relative errors at a few coordinates of one parameter, without those that cannot be compared."""
        value = surface.values[name]
        errors = []
        for i in np.random.default_rng(0).permutation(value.size)[:share]:
            way = np.zeros_like(value)
            way.flat[i] = 1.0
            errors.append(self._error(surface, {name: way}, self.step * max(1.0, abs(float(value.flat[i])))))
        return [error for error in errors if error is not None]

    def _along_directions(self, surface: _Surface) -> list[float]:
        """Relative errors along random directions, each of unit length, through all parameters at once."""
        rng = np.random.default_rng(1)
        errors = []
        for _ in range(self.directions):
            ways = {name: rng.standard_normal(value.shape) for name, value in surface.values.items()}
            length = math.sqrt(sum(float(np.sum(way**2)) for way in ways.values()))
            errors.append(self._error(surface, {name: way / length for name, way in ways.items()}, self.step))
        return [error for error in errors if error is not None]

    def _error(self, surface: _Surface, way: Mapping[str, Array], h: float) -> float | None:
        """Relative error of the gradient against central differences; None across a kink or below the rounding noise."""
        above, below, here, analytic = surface.at(way, h), surface.at(way, -h), surface.here, surface.slope(way)
        numeric = (above - below) / (2 * h)
        asymmetry = abs(above - 2 * here + below) / h
        noise = ROUNDINGS * MACHINE * max(abs(above), abs(here), abs(below)) / h
        size = max(abs(analytic), abs(numeric))
        if not np.isfinite(size) or size * self.kinks < noise or asymmetry > self.kinks * size:
            return None
        return abs(analytic - numeric) / size

    def not_checked(self, run: Run) -> str | None:
        if reason := super().not_checked(run):
            return reason
        compared, dropped = len(self.measured(run)["errors"]), len(self.measured(run)["dropped"])
        if compared < self.least * (compared + dropped):
            return f"only {compared} of {compared + dropped} gradients are large enough to be compared with differences"
        return None

    def examine(self, run: Run) -> Iterator[Finding]:
        measured = self.measured(run)
        wrong = {name: error for name, error in measured["errors"].items() if error > self.kinks}
        for name, error in sorted(wrong.items(), key=lambda item: -item[1]):
            yield self.finding(
                f"the gradient of {name} differs from finite differences by {error:.1e} of its size",
                kind="exact" if error > self.fail else "training",
                layer=run.meta.parameter(name).layer or None, parameter=name if name != ALL else None,
                steps=0, value=error, threshold=self.fail if error > self.fail else self.kinks,
                causes=("a mistake in a backward pass",), fix=self._fix(list(measured["errors"]), set(wrong)),
            )  # fmt: skip
        if dropped := measured["dropped"]:
            yield self.note(f"too small, or at kinks, to be compared: {', '.join(dropped)}")

    def _fix(self, names: list[str], wrong: set[str]) -> str:
        """Where to look: gradients are wrong from the mistake back to the first layer, and right behind it."""
        names = [name for name in names if name != ALL]
        last = max((i for i, name in enumerate(names) if name in wrong), default=-1)
        if last < 0 or last + 1 == len(names):
            return "The mistake lies in the gradient of the loss or in the backward pass of the last layers."
        return f"The mistake lies in the backward pass between {names[last]} and {names[last + 1]}, whose gradient is right."

    @classmethod
    def healthy(cls) -> Run:
        return cls.example(errors={"h1.weight": 7e-5}, compared=40, dropped=[])

    @classmethod
    def sick(cls) -> Run:
        return cls.example(errors={"h1.weight": 1.5e-2}, compared=40, dropped=[])


class _Surface:
    """The loss of one batch as a function of the parameters, drawn with the same random numbers wherever it is asked."""

    def __init__(self, subject: Subject, pupil: Pupil, rows: Array) -> None:
        self._subject, self._pupil, self._rows = subject, pupil, rows
        self.values, self.here = pupil.read(), self._loss()
        with seeded(subject):
            self._gradients = pupil.gradients(rows)

    def at(self, way: Mapping[str, Array], h: float) -> float:
        """The loss `h` times `way` from here."""
        for name, direction in way.items():
            self._pupil.write(name, self.values[name] + h * direction)
        loss = self._loss()
        for name in way:
            self._pupil.write(name, self.values[name])
        return loss

    def drifts(self) -> bool:
        """Whether the loss here is another one when asked again, by more than rounding."""
        return abs(self._loss() - self.here) > ROUNDINGS * MACHINE * abs(self.here)

    def slope(self, way: Mapping[str, Array]) -> float:
        """Derivative of the loss along `way`, by backpropagation."""
        return sum(float(np.sum(self._gradients[name] * direction)) for name, direction in way.items())

    def _loss(self) -> float:
        with seeded(self._subject):
            return self._pupil.loss(self._rows)
