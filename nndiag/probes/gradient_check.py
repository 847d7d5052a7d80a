"""NDP01 gradient-check."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from nndiag.check import Finding
from nndiag.nn import Trainer
from nndiag.nn.parameter import Parameter
from nndiag.probes.probe import Probe, plain_copy, sample
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

    Measures on a copy in float64, without dropout, on `samples` samples: `coordinates` entries of each parameter, drawn
    with a fixed seed, and `directions` directions. Where the derivatives to the left and to the right differ by more than
    `kinks` a kink of ReLU was crossed, and where they are so small that rounding drowns them nothing can be compared:
    such points are dropped, and where less than `least` of the parameters have any left the verdict is NOT CHECKED. The
    error is |analytic − numeric| over the larger of the two. Above `fail` it FAILs; above `kinks`, the most that a kink
    which is not dropped can hide, it is a warning.
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
    directions: int = 5
    step: float = 1e-5

    def measure(self, trainer: Trainer, x: Array, y: Array) -> dict[str, Any]:
        model, loss = plain_copy(trainer.model), copy.deepcopy(trainer.loss)
        for parameter in model.parameters:
            parameter.value = parameter.value.astype(np.float64)
            parameter.gradient = np.zeros_like(parameter.value)
        x, y = sample(x, y, self.samples)
        x = x.astype(np.float64)

        def value() -> float:
            return float(loss(model.forward(x, training=True), y))

        with np.errstate(all="ignore"):
            value()
            model.backward(loss.backward())
            gradients = [parameter.gradient.copy() for parameter in model.parameters]
            points = {p.name: self._errors(value, p, g) for p, g in zip(model.parameters, gradients, strict=True)}
            points[ALL] = self._direction_errors(value, model.parameters, gradients)
        errors = {name: max(found) for name, found in points.items() if found}
        return {"errors": errors, "compared": sum(map(len, points.values())),
                "dropped": [name for name, found in points.items() if not found]}  # fmt: skip

    def _errors(self, loss: Callable[[], float], parameter: Parameter, gradient: Array) -> list[float]:
        """Relative errors at a few coordinates of one parameter, without those that cannot be compared."""
        rng = np.random.default_rng(0)
        errors = []
        for i in rng.permutation(parameter.value.size)[: self.coordinates]:
            at = np.unravel_index(i, parameter.value.shape)
            kept = float(parameter.value[at])

            def shifted(h: float, at: Any = at, kept: float = kept) -> float:
                parameter.value[at] = kept + h
                return loss()

            error = self._error(shifted, float(gradient[at]), self.step * max(1.0, abs(kept)))
            parameter.value[at] = kept
            errors += [] if error is None else [error]
        return errors

    def _direction_errors(
        self, loss: Callable[[], float], parameters: list[Parameter], gradients: list[Array]
    ) -> list[float]:
        """Relative errors along random directions, each of unit length, through all parameters at once."""
        rng = np.random.default_rng(1)
        errors = []
        for _ in range(self.directions):
            ways = [rng.standard_normal(p.value.shape) for p in parameters]
            length = math.sqrt(sum(float(np.sum(way**2)) for way in ways))
            before = [p.value.copy() for p in parameters]

            def shifted(
                h: float, ways: list[Array] = ways, length: float = length, before: list[Array] = before
            ) -> float:
                for p, value, way in zip(parameters, before, ways, strict=True):
                    np.add(value, way * (h / length), out=p.value)
                return loss()

            slope = sum(float(np.sum(g * way)) for g, way in zip(gradients, ways, strict=True)) / length
            error = self._error(shifted, slope, self.step)
            shifted(0.0)
            errors += [] if error is None else [error]
        return errors

    def _error(self, loss: Callable[[float], float], analytic: float, h: float) -> float | None:
        """Relative error of `analytic` against central differences; None across a kink or below the rounding noise."""
        above, here, below = loss(h), loss(0.0), loss(-h)
        numeric = (above - below) / (2 * h)
        asymmetry = abs(above - 2 * here + below) / h
        noise = ROUNDINGS * MACHINE * max(abs(above), abs(here), abs(below)) / h
        size = max(abs(analytic), abs(numeric))
        if not np.isfinite(size) or size * self.kinks < noise or asymmetry > self.kinks * size:
            return None
        return float(abs(analytic - numeric) / size)

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
                first_step=0, last_step=0, value=error, threshold=self.fail if error > self.fail else self.kinks,
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
