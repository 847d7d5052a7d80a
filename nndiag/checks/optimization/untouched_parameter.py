"""ND503 untouched-parameter."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from nndiag import synthetic
from nndiag.check import Check, Finding
from nndiag.run import Run
from nndiag.statistics import Array

ROUNDING = {"float16": 2**-11, "float32": 2**-24, "float64": 2**-53}
"""Half of the distance between 1 and the next larger number: a smaller change leaves a number as it was."""


@dataclass(frozen=True)
class UntouchedParameter(Check):
    """A trainable parameter gets a gradient and never changes.

    The optimiser does not know it: it was made, replaced or unfrozen after the optimiser had been given its list, or the
    optimiser's step is never called at all. The rest of the network trains around random weights, which often looks like a
    mediocre but working run. Where an adapter has seen which of both it is, ND504 or ND904 says so instead.

    Decides on the updates of parameters that are trainable and not known to be in no optimiser, over `updates` updates or
    more: exactly 0 on every read with an update whose learning rate was not 0, while the gradient was not 0 on most of them.
    Where a step of the learning rate times the gradient is too small to change the weights in their dtype, or the largest of
    those that other parameters make, value for value, the gradient vanishes (ND401) or the rate is too low, and the optimiser is
    not to blame. A learning rate of 0 is ND502's, a gradient of 0 ND403's. Or all parameters are frozen, over as many updates,
    where no optimiser was seen to step on anything else, as on an image.
    """

    code = "ND503"
    name = "untouched-parameter"
    kind = "exact"
    needs = ("updates.update_norm", "gradients.norm")
    advice = "Give the optimiser all parameters, after the model is complete, and call its step in every iteration."
    confirm = "print(run.updates['update_norm'].max())"
    passed = "every trainable parameter moves"

    updates: int = 100

    def not_checked(self, run: Run) -> str | None:
        if self._all_frozen(run) and run.steps >= self.updates:
            return None
        if reason := super().not_checked(run):
            return reason
        moved = self._moved(run)
        span = int(moved.index[-1] - moved.index[0]) + 1 if len(moved) >= self.min_reads else 0
        return (
            None if span >= self.updates else f"needs {self.updates} updates with a learning rate above 0, has {span}"
        )

    def examine(self, run: Run) -> Iterator[Finding]:
        if self._all_frozen(run):
            yield self.finding(
                f"all {len(run.meta.parameters)} parameters are frozen, and so training changes nothing", steps=run.train.index,
                value=0.0, threshold=0.0, causes=("a switch that was meant for another network, or for some layers",),
                fix="Unfreeze what is to be trained.",
            )  # fmt: skip
            return
        moved, gradients = self._moved(run), run.statistic("gradients", "norm")
        still = [str(name) for name in moved if (moved[name] == 0).all() and self._to_move(run, str(name))]
        found = [name for name in still if name in gradients and self._felt(run, name, gradients[name])]
        everything = len(found) == moved.shape[1]
        stepped = bool((run.loop["updates"] > 0).any())
        why = "the optimiser was not given it" if not everything else "the optimiser's step is never called"
        why = "the optimiser was made for other parameters" if everything and stepped else why
        for name in found[:1] if everything else found:
            what = "no parameter has" if everything else f"{name} has not"
            yield self.finding(
                f"{what} changed in {int(moved.index[-1] - moved.index[0]) + 1} updates, though there are gradients",
                parameter=None if everything else name, layer=None if everything else run.meta.parameter(name).layer or None,
                steps=moved.index, value=0.0, threshold=0.0,
                causes=(why,), place="" if everything else "ND504",  # what leaves out a few is the loop
                fix="" if everything else f"Give {name} to the optimiser, or freeze it on purpose.",
            )  # fmt: skip

    def _all_frozen(self, run: Run) -> bool:
        """Whether nothing can change: every parameter is frozen, and no adapter has seen an optimiser step."""
        parameters = run.meta.parameters
        return bool(parameters) and all(p.frozen for p in parameters) and not (run.loop["updates"] > 0).any()

    def _moved(self, run: Run) -> pd.DataFrame:
        """Norms of the updates on the reads with an update, as far as the loop tells, whose learning rate was not 0."""
        moved, rates = run.statistic("updates", "update_norm"), run.series("metrics", "lr", "train")
        made = run.loop["updates"].dropna()
        if len(made) and not (made > 0).any():
            return moved.iloc[:0]
        return moved[~moved.index.isin(rates.index[rates == 0]) & ~moved.index.isin(made.index[made == 0])]

    def _to_move(self, run: Run, name: str) -> bool:
        parameter = run.meta.parameter(name)
        return parameter.optimized and not parameter.frozen

    def _felt(self, run: Run, name: str, norms: pd.Series[float]) -> bool:
        """Whether the values could show a step along the gradient, on most reads, and one as large as the largest of others."""
        steps, rate = self._steps(run, name, norms.dropna().to_numpy()), run.series("metrics", "lr", "train").max()
        size = run.series("updates", "weight_norm", name).median()
        least = ROUNDING.get(run.meta.dtype or "float32", ROUNDING["float32"]) * (size if np.isfinite(size) else 0.0)
        felt = steps * rate > least if rate > 0 else steps > 0
        return len(felt) > 0 and float(np.mean(felt)) > 0.5 and self._usual(run) * self._root(run, name) >= least

    def _steps(self, run: Run, name: str, norm: Array) -> Array:
        """Norm of a step at a rate of 1: the gradient, or each value of it over its own size and eps, as Adam takes it."""
        optimizer, root = run.meta.optimizer, self._root(run, name)
        if not ("betas" in optimizer or "adam" in str(optimizer.get("name", "")).lower()):
            return norm
        eps = optimizer.get("eps")
        small = norm / root
        return np.asarray(root * small / (small + (eps if isinstance(eps, int | float) and eps > 0 else 1e-8)))

    def _usual(self, run: Run) -> float:
        """Root mean square of the update of the parameter whose values move most; infinite where none moves."""
        moved = run.statistic("updates", "update_norm").median()
        return max(
            (float(norm) / self._root(run, str(name)) for name, norm in moved.items() if norm > 0), default=math.inf
        )

    def _root(self, run: Run, name: str) -> float:
        """Root of how many values a parameter has."""
        return math.sqrt(math.prod(run.meta.parameter(name).shape))

    @classmethod
    def _run(cls, step: float) -> Run:
        updates = {"update_norm": {"h1.weight": step, "output.weight": 1e-3},
                   "weight_norm": {"h1.weight": 1.0, "output.weight": 1.0}}  # fmt: skip
        gradients = {"norm": {"h1.weight": 0.01, "output.weight": 0.01}}
        return synthetic.run(updates=updates, gradients=gradients, metrics={"lr": {"train": 0.1}})

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(1e-12)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(0.0)
