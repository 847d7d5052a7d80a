"""ND403 zero-gradient."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nndiag import progress, structure, synthetic
from nndiag.check import Check, Finding, Kind
from nndiag.meta import ParameterMeta
from nndiag.run import Run


@dataclass(frozen=True)
class ZeroGradient(Check):
    """A weight never gets a gradient: it is frozen, detached, or not on the way from the inputs to the loss.

    It stays what the initialisation made it, and whatever the optimiser and learning rate are, training changes only the
    rest.

    Decides on the gradient of each trainable weight: exactly 0 on every one of at least `min_reads` reads, while some other
    weight has one (where none has, the loss does not depend on the network: ND102 and ND606 say so). A weight declared
    frozen is a remark, as fine-tuning freezes on purpose. It is a finding where there was nothing to preserve: its standard
    deviation is that of a fresh initialisation (He, Glorot, LeCun or PyTorch's default) to within `errors` standard errors
    of so many random numbers and half a percent; where layers before it train and it is the last; or where the network does
    not train at all.
    """

    code = "ND403"
    name = "zero-gradient"
    kind = "exact"
    needs = ("gradients.norm",)
    advice = (
        "See whether something cuts the graph before this layer (detach, a zero, an unused output), or unfreeze it."
    )
    confirm = "print(run.gradients['norm'].max())"
    passed = "every weight gets a gradient"

    errors: float = 2.0

    def examine(self, run: Run) -> Iterator[Finding]:
        largest = run.statistic("gradients", "norm")
        names = structure.weights(run, "gradients", "norm")
        zero = [name for name in names if largest[name].dropna().max() == 0]
        if len(zero) < len(names):
            for name in zero:
                yield self._finding(run, name, f"the gradient of {name} is exactly 0 on all {len(largest)} reads", None)
        yield from self._frozen(run)

    def _frozen(self, run: Run) -> Iterator[Finding]:
        weights = [p for p in run.meta.parameters if p.kind == "weight"]
        made = progress.training(run)
        for p in (p for p in weights if p.frozen):
            fresh, head = self._fresh(p), p is weights[-1] and not all(other.frozen for other in weights)
            kind: Kind = "training" if fresh or head or (made is not None and made.poor) else "note"
            how = " at its random initial values" if fresh else ", though layers before it train" if head else ""
            yield self._finding(run, p.name, f"{p.name} is frozen{how}: it takes no part in the training", kind)

    def _fresh(self, parameter: ParameterMeta) -> bool:
        """Whether a weight has the standard deviation of a usual initialisation."""
        if not parameter.std or not parameter.fan_in:
            return False
        fan_in, fan_out = parameter.fan_in, parameter.shape[0]
        usual = np.sqrt([2 / fan_in, 2 / (fan_in + fan_out), 1 / fan_in, 1 / (3 * fan_in)])
        error = self.errors / np.sqrt(2 * fan_in * fan_out) + 0.005
        return bool(np.any(np.abs(parameter.std / usual - 1) <= error))

    def _finding(self, run: Run, name: str, fact: str, kind: Kind | None) -> Finding:
        steps = run.statistic("gradients", "norm").index
        return self.finding(
            fact, kind=kind, layer=run.meta.parameter(name).layer or None, parameter=name,
            first_step=int(steps[0]), last_step=int(steps[-1]), value=0.0, threshold=0.0,
            causes=("ND301", "ND205", "a detached or unused layer"),
        )  # fmt: skip

    @classmethod
    def _run(cls, last: float) -> Run:
        gradient = [0.0] * 99 + [last]
        return synthetic.run(gradients={"norm": {"hidden1.weight": gradient, "output.weight": 0.1}})

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(1e-12)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(0.0)
