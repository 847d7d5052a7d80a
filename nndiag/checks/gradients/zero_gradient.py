"""ND403 zero-gradient."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from nndiag import pretrained, progress, structure, synthetic
from nndiag.causes import MEMORYLESS, NO_WAY_BACK
from nndiag.check import Check, Finding, Kind
from nndiag.meta import ParameterMeta
from nndiag.run import Run

NUMBER, SEVERAL = re.compile(r"(?<=\.)\d+(?=\.)"), 4
"""Numbers in the names of parameters that are one of several, and how many make a choice of them, as experts are."""


def _alike(parameter: ParameterMeta) -> tuple[str, tuple[int, ...]]:
    """What parameters that are numbered and of one shape share."""
    return NUMBER.sub("#", parameter.name), tuple(parameter.shape)


@dataclass(frozen=True)
class ZeroGradient(Check):
    """A weight never gets a gradient: it is frozen, detached, or not on the way from the inputs to the loss.

    It stays what the initialisation made it, and whatever the optimiser and learning rate are, training changes only the
    rest.

    Decides on the gradient of each trainable weight: exactly 0 or missing on every one of at least `min_reads` reads, while
    some other weight has one. Where none has, a loss that passes nothing back though outputs vary is named, and where a
    framework shows that the optimiser steps, what else it shows of the loop: no backward pass, one that reaches nothing,
    gradients that reach layers with weights and are cleared before the step; otherwise ND102 and ND606 do. Where the run says
    whether the graph of the loss leads to a weight, the finding does: a weight out of its reach is detached or unused, one
    within it gets zeros from what follows. In a recurrent layer whose other weights have a gradient nothing is cut: over
    sequences of a single step the weights of the state multiply zeros. That is a remark, unless the network does not train at
    all. Of `SEVERAL` layers or more that are numbered and of one shape, as experts are, those that are never called are a remark
    where half of them or more train and training does not go poorly.

    A weight declared frozen, or that no optimiser holds and the loss does not lead back to, is a remark, as fine-tuning keeps
    weights on purpose, and so are pretrained ones out of reach. They
    are a finding where there was nothing to preserve and nothing writes to them: their standard deviation is that of a fresh
    initialisation (He, Glorot, LeCun or PyTorch's default, which is 1 for embeddings) to within `errors` standard errors of so
    many random numbers and half a percent, and their mean 0 to within four, for most of their numbers; where layers before a
    frozen one train, it is the last and no pair of low rank beside it trains in its place; or where the network does not train
    at all. Of fewer than 150 numbers the standard deviation says nothing.
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

    errors: float = pretrained.ERRORS

    def examine(self, run: Run) -> Iterator[Finding]:
        largest = self._at_updates(run)
        names = structure.weights(run, "gradients", "norm")
        zero = [name for name in names if largest[name].dropna().max() == 0]
        still = [p for name in zero if not self._kept_out(p := run.meta.parameter(name))]
        if len(zero) < len(names):
            living = {run.meta.parameter(name).layer for name in names if name not in zero}
            idle = [p for p in still if p.layer in living and structure.kind(run, p.layer) == "recurrent"]
            yield from self._unreached(run, [p for p in still if p.reached is False])
            yield from (self._zero(run, p, len(largest)) for p in still if p.reached is not False and p not in idle)
            yield from (self._idle(run, p) for p in idle if p.reached is not False)
        elif names:
            yield from self._nowhere(run)
        yield from self._frozen(run)

    def _kept_out(self, p: ParameterMeta) -> bool:
        """Whether a weight is frozen: declared so, or no optimiser holds it and the loss does not lead back to it."""
        return p.frozen or (p.optimized is False and p.reached is False)

    def _at_updates(self, run: Run) -> pd.DataFrame:
        """Norms of the gradients, without those that no update has come after where updates are told."""
        norms = run.statistic("gradients", "norm")
        if "updates" not in run.loop:
            return norms
        updates = run.loop["updates"].reindex(norms.index).to_numpy().reshape(-1)
        return norms[updates != 0] if (updates > 0).any() else norms

    def _nowhere(self, run: Run) -> Iterator[Finding]:
        """No weight has a gradient whenever the optimiser steps, and the loop or the loss shows why."""
        updates, delta = run.loop["updates"].dropna(), run.statistic("activations", "gradient_rms")
        some = (self._at_updates(run) > 0).to_numpy().any()  # biases have one where dead layers hand nothing on
        strange = not any(p.optimized for p in run.meta.parameters if not p.frozen) and len(run.meta.parameters) > 0
        if some or strange or (len(updates) and not (updates > 0).any()):
            return  # what steps may hold none of these parameters (ND504)
        if len(updates) and (why := self._on_the_way(run, delta)):
            yield self._everywhere(run.loop.index, *why, "ND904")
        elif len(delta) and not delta.to_numpy().any() and self._varies(run) and not self._zeros(run):
            fact = "the loss passes nothing back, though the outputs vary: its gradient is exactly 0 in every layer"
            cause = "a loss by argmax, a comparison or rounding, or one times 0"
            yield self._everywhere(delta.index, fact, cause, NO_WAY_BACK)

    def _on_the_way(self, run: Run, delta: pd.DataFrame) -> tuple[str, str] | None:
        """What a loop that tells of its passes shows, and its cause, where gradients get lost in it."""
        if not (run.loop["backward_passes"] > 0).any():
            return "the optimiser steps, and no backward pass is ever made", "loss.backward() is missing"
        if not len(delta):
            return (
                "backward leads to no layer: the loss is not connected to the network",
                "a loss made anew, or detached",
            )
        passed = (delta[structure.linear(run, "gradient_rms")] > 0).to_numpy().any()
        if not passed or self._zeros(
            run
        ):  # two factors of 0 get the gradient that the other one is: nothing is cleared
            return None
        return ("gradients flow back through the layers, and all are 0 when the optimiser steps: they are cleared in between",
                "zero_grad() between backward() and step(), or step() before backward()")  # fmt: skip

    def _everywhere(self, steps: pd.Index[int], fact: str, cause: str, place: str) -> Finding:
        """What is said of all weights at once."""
        where = "loss" if place == NO_WAY_BACK else "loop"
        return self.finding(fact, steps=steps, value=0.0, threshold=0.0, causes=(cause,),
                            fix=f"Look at the {where}: {cause}.", place=place)  # fmt: skip

    def _zeros(self, run: Run) -> bool:
        """Whether there are two trainable weights or more, and all are 0."""
        held, norms = [p.name for p in run.meta.parameters if p.kind in pretrained.HELD and not p.frozen], run.updates
        if len(held) < 2 or any(("weight_norm", name) not in norms for name in held):
            return False
        return not norms["weight_norm"][held].iloc[0].to_numpy().any()

    def _varies(self, run: Run) -> bool:
        """Whether what the last layer puts out depends on the inputs, and the loss is not 0 whatever that is."""
        last = run.statistic("activations", "batch_variance").iloc[:, -1:]
        return bool((last > 0).to_numpy().any() and (run.train != 0).any())

    def _zero(self, run: Run, p: ParameterMeta, reads: int) -> Finding:
        within = ", though the loss depends on it: what follows passes nothing back" if p.reached else ""
        elsewhere = () if within else ("a detached or unused layer",)
        return self._finding(run, p, f"the gradient of {p.name} is exactly 0 on all {reads} reads{within}", None,
                             ("ND301", "ND205", *elsewhere))  # fmt: skip

    def _idle(self, run: Run, p: ParameterMeta) -> Finding:
        """A weight without a gradient in a recurrent layer whose other weights have one: its factor is 0, and nothing is cut."""
        fact = f"{p.name} has no gradient, though its layer trains: what it multiplies is 0, as the state before one step is"
        causes = ("sequences of a single step", "a loss on the output of the first step alone")
        return self._finding(run, p, fact, progress.fault_if_poor(run), causes, place=MEMORYLESS)

    def _unreached(self, run: Run, parameters: list[ParameterMeta]) -> Iterator[Finding]:
        kind = progress.fault_if_poor(run) if pretrained.loaded(run, parameters, self.errors) else None
        if kind == "note":
            yield self._remark([p.name for p in parameters], "out of the reach of the loss")
            return
        called = set(run.activations.columns.get_level_values(-1))
        spare = self._never_chosen(run, [p for p in parameters if p.layer not in called])
        if spare:
            yield self._remark(spare, "out of the reach of the loss, as an expert that nothing is sent to")
        for p in parameters:
            if p.name in spare:
                continue
            how = "detached" if p.layer in called else "unused" if called else "detached or unused"
            yield self._finding(run, p, f"{p.name} has no gradient: the loss does not lead back to it, its layer is {how}", kind,
                                (f"the layer is {how}",))  # fmt: skip

    def _never_chosen(self, run: Run, unused: list[ParameterMeta]) -> list[str]:
        """Those of the `unused` that are among several alike, half of which or more train, where training does not go poorly."""
        made = progress.training(run)
        if not unused or made is None or made.poor is True:
            return []
        several: Counter[tuple[str, tuple[int, ...]]] = Counter()
        used: Counter[tuple[str, tuple[int, ...]]] = Counter()
        norms = self._at_updates(run).max()
        for p in run.meta.parameters:
            several[_alike(p)] += 1
            used[_alike(p)] += bool(norms.get(p.name, 0.0) > 0)
        return [p.name for p in unused if 2 * used[_alike(p)] >= several[_alike(p)] >= SEVERAL]

    def _frozen(self, run: Run) -> Iterator[Finding]:
        weights = [p for p in run.meta.parameters if p.kind in pretrained.HELD]
        trained = self._at_updates(run).max()
        moves = {p.name for p in weights if p.written or trained.get(p.name, 0.0) > 0}  # some before they were frozen
        frozen = [p for p in weights if self._kept_out(p) and p.name not in moves]
        loaded = pretrained.loaded(run, frozen, self.errors)
        random = [p for p in frozen if not loaded and pretrained.fresh(run, p, self.errors)]
        notes = []
        for p in frozen:
            head = p is weights[-1] and len(frozen) < len(weights) and not pretrained.adapted(p, weights)
            kind: Kind = "training" if p in random or head else progress.fault_if_poor(run)
            how = " at its random initial values" if p in random else ", though layers before it train" if head else ""
            if kind == "note":
                notes.append(p.name)
            else:
                yield self._finding(run, p, f"{p.name} is frozen{how}: it takes no part in the training", kind)
        if notes:
            yield self._remark(notes, "frozen")

    def _remark(self, names: list[str], how: str) -> Finding:
        """One remark, however many weights there are."""
        if len(names) == 1:
            return self.note(f"{names[0]} is {how}: it takes no part in the training")
        return self.note(
            f"{len(names)} weights, {names[0]} to {names[-1]}, are {how}: they take no part in the training"
        )

    def _finding(
        self, run: Run, p: ParameterMeta, fact: str, kind: Kind | None, causes: tuple[str, ...] = (), place: str = ""
    ) -> Finding:
        steps = run.statistic("gradients", "norm").index
        return self.finding(
            fact, kind=kind, layer=p.layer or None, parameter=p.name, steps=steps,
            value=0.0, threshold=0.0, causes=causes or ("ND301", "ND205", "a detached or unused layer"), place=place,
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
