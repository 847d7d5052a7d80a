"""ND507 optimizer-epsilon."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from nndiag import progress, signals, structure, synthetic
from nndiag.causes import GRADIENTS_GONE
from nndiag.check import Check, Finding
from nndiag.run import Run

GUARD = {"float16": 6e-8, "float32": 1.1e-19, "float64": 1.5e-154}
"""Where eps stops guarding: in float16 a smaller one is stored as 0; in the others it is the root of the smallest normal
number, and gradients whose squares vanish are divided by eps alone."""


@dataclass(frozen=True)
class OptimizerEpsilon(Check):
    """The eps of Adam, meant as a guard against a division by zero, decides the steps, or is too small to guard anything.

    Adam divides each step by √v + eps, with √v about the size of the gradient. Where eps is the larger, the step is
    lr · g / eps: small gradients make small steps again, as in plain SGD with a learning rate that nobody has chosen
    (Kingma & Ba 2015, algorithm 1, takes 1e-8). Where it is below what the dtype resolves, a unit without gradients
    divides by zero.

    Decides on the eps that the run describes, beside the root mean square of each weight's gradient on the first `early`
    reads after the warm-up: eps is more than `times` as large for most weights on most reads: it cuts the steps to less than
    a half. Where most of these reads lie beyond `arrived` of the way there is nothing left to learn, and gradients are small
    for that; and up to `usual`, the default of Keras, it is the gradients that are out of proportion, for which a learning rate
    that was too high, dead units and the like go before. Or it is below the smallest that the dtype can guard with.
    """

    code = "ND507"
    name = "optimizer-epsilon"
    kind = "training"
    needs = ("gradients.rms",)
    advice = "Leave eps at 1e-8."
    confirm = "print(run.meta.optimizer['eps'], run.gradients['rms'].median())"
    passed = "the optimiser's eps is small beside the gradients"

    times: float = 1.0
    early: int = 200
    arrived: float = 0.9
    usual: float = 1e-7

    def not_checked(self, run: Run) -> str | None:
        reason, eps = super().not_checked(run), run.meta.optimizer.get("eps")
        if not isinstance(eps, int | float):
            return "needs an optimiser with an eps, such as Adam"
        if not structure.weights(run, "gradients", "rms"):
            return reason or "no weights have gradients"
        return None if eps < self._guard(run) else reason  # a run that has divided by zero may be a step long

    def _guard(self, run: Run) -> float:
        return GUARD.get(run.meta.dtype or "float32", GUARD["float32"])

    def examine(self, run: Run) -> Iterator[Finding]:
        eps, guard = float(run.meta.optimizer["eps"]), self._guard(run)
        rms = run.statistic("gradients", "rms")[structure.weights(run, "gradients", "rms")]
        if eps < guard:
            yield self.finding(
                f"eps = {eps:.2g} is below {guard:.2g}, too small to guard a division in {run.meta.dtype or 'float32'}",
                steps=rms.index[0], value=eps, threshold=guard, causes=("eps too small for the dtype",),
                fix=f"Take an eps above {guard:.1g}, or keep the weights in float32 and compute in {run.meta.dtype} (autocast).",
            )  # fmt: skip
            return
        begin = signals.warm_up(len(rms))
        early = rms.iloc[begin : begin + self.early]
        size, step, last = float(early.median(axis=1).median()), int(early.index[0]), int(early.index[-1])
        if 0 < self.times * size < eps and not self._arrived(run, step, last):
            yield self.finding(
                f"eps = {eps:.2g} is {eps / size:.2g} times the gradients, which are {size:.2g}: it decides the steps",
                steps=(step, last), value=eps / size, threshold=self.times,
                causes=("eps too large", "ND401", "a loss that is scaled down"),
                place=GRADIENTS_GONE if eps <= self.usual else "",
                fix=f"Leave eps at 1e-8; anything below {size / 100:.0e} would do.",
            )  # fmt: skip

    def _arrived(self, run: Run, step: int, last: int) -> bool:
        """Whether the loss of most reads from `step` to `last` is next to the lowest there is."""
        made = progress.training(run)
        return made is not None and replace(made, now=float(run.train.loc[step:last].median())).value > self.arrived

    @classmethod
    def _run(cls, eps: float) -> Run:
        rms = 1e-3 * np.exp(0.1 * np.random.default_rng(0).standard_normal(100))
        optimizer = {"name": "Adam", "lr": 1e-3, "betas": [0.9, 0.999], "eps": eps}
        return synthetic.run(gradients={"rms": {"h1.weight": rms, "output.weight": rms}}, optimizer=optimizer)

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(0.7e-3)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(1.4e-3)
