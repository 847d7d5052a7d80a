"""ND403 zero-gradient."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nndiag import progress, structure, synthetic
from nndiag.check import Check, Finding, Kind
from nndiag.run import Run


@dataclass(frozen=True)
class ZeroGradient(Check):
    """A weight never gets a gradient: it is frozen, detached, or not on the way from the inputs to the loss.

    It stays what the initialisation made it, and whatever the optimiser and learning rate are, training changes only the
    rest.

    Decides on the gradient of each trainable weight: exactly 0 on every one of at least `min_reads` reads, while some other
    weight has one (where none has, the loss does not depend on the network: ND102 and ND606 say so). A weight declared
    frozen is a remark, as fine-tuning freezes on purpose, and a finding where the network does not train.
    """

    code = "ND403"
    name = "zero-gradient"
    kind = "exact"
    needs = ("gradients.max_abs",)
    advice = (
        "See whether something cuts the graph before this layer (detach, a zero, an unused output), or unfreeze it."
    )
    confirm = "print(run.gradients['max_abs'].max())"
    passed = "every weight gets a gradient"

    def examine(self, run: Run) -> Iterator[Finding]:
        largest = run.statistic("gradients", "max_abs")
        names = structure.weights(run, "gradients", "max_abs")
        zero = [name for name in names if largest[name].dropna().max() == 0]
        if len(zero) < len(names):
            for name in zero:
                yield self._finding(run, name, f"the gradient of {name} is exactly 0 on all {len(largest)} reads", None)
        yield from self._frozen(run)

    def _frozen(self, run: Run) -> Iterator[Finding]:
        frozen = [p.name for p in run.meta.parameters if p.frozen and p.kind == "weight"]
        made = progress.training(run)
        for name in frozen:
            kind: Kind = "training" if made is not None and made.poor else "note"
            yield self._finding(run, name, f"{name} is frozen: it takes no part in the training", kind)

    def _finding(self, run: Run, name: str, fact: str, kind: Kind | None) -> Finding:
        steps = run.statistic("gradients", "max_abs").index
        return self.finding(
            fact, kind=kind, layer=run.meta.parameter(name).layer or None, parameter=name,
            first_step=int(steps[0]), last_step=int(steps[-1]), value=0.0, threshold=0.0,
            causes=("ND301", "ND205", "a detached or unused layer"),
        )  # fmt: skip

    @classmethod
    def _run(cls, last: float) -> Run:
        gradient = [0.0] * 99 + [last]
        return synthetic.run(gradients={"max_abs": {"hidden1.weight": gradient, "output.weight": 0.1}})

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(1e-12)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(0.0)
