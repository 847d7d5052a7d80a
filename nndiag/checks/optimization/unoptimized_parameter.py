"""ND504 unoptimised-parameter."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nndiag import pretrained, progress, synthetic
from nndiag.check import Check, Finding, Kind
from nndiag.meta import ParameterMeta
from nndiag.run import Run


@dataclass(frozen=True)
class UnoptimizedParameter(Check):
    """A trainable parameter gets gradients, and no optimiser holds it.

    It was made or replaced after the optimiser had been given its list, or the list names other parts only; where the optimiser
    holds nothing of the network, it was made for another one. Or the network keeps layers in a plain list, or makes them in its
    forward pass, and nobody who asks for its parameters gets those. The rest trains around random weights.

    Decides on the parameters that the run says no optimiser holds, which are not frozen and have a gradient above 0 on some
    read. Those that change nevertheless are updated by somebody else. Where most of the weights among them do not look
    freshly initialised (as in ND403), the last layer is not among them, and training does not go poorly, this is a fine-tuning
    that trains the head alone: a remark.
    """

    code = "ND504"
    name = "unoptimised-parameter"
    kind = "exact"
    needs = ("loop.updates", "gradients.norm")
    min_reads = 1
    advice = "Make the optimiser after the model is complete, and give it all parameters that are to train."
    confirm = "print([p.name for p in run.meta.parameters if not p.optimized])"
    passed = "every trainable parameter with a gradient is in the optimiser"

    def examine(self, run: Run) -> Iterator[Finding]:
        every = [p for p in run.meta.parameters if self._left_out(run, p)]
        yield from self._unregistered(run, [p for p in every if not p.registered])
        left_out = [p for p in every if p.registered]
        trainable = [p for p in run.meta.parameters if p.registered and not p.frozen]
        kind = self._kind(run, left_out)
        if kind == "note":
            some = "" if len(left_out) == 1 else f" and {len(left_out) - 1} more"
            yield self.note(
                f"no optimiser holds {left_out[0].name}{some}: if that is meant, requires_grad = False saves their gradients"
            )
        elif left_out and not any(p.optimized for p in trainable):
            yield self._finding(
                run, "no optimiser holds any parameter of the network", kind, "it was made for another model"
            )
        else:
            for p in left_out:
                yield self._finding(run, f"no optimiser holds {p.name}, which gets gradients", kind,
                                    "it was made, replaced or unfrozen after the optimiser", p)  # fmt: skip

    def _unregistered(self, run: Run, parameters: list[ParameterMeta]) -> Iterator[Finding]:
        """One finding for all that the network uses and does not have."""
        if parameters:
            names = ", ".join(dict.fromkeys(p.layer for p in parameters))
            yield self._finding(
                run, f"the network uses layers that are not its own ({names}), and no optimiser holds their parameters",
                self._kind(run, parameters), "layers in a plain list or dictionary, or made in forward()",
                fix="Keep layers in attributes of the module, in nn.ModuleList or nn.ModuleDict, before the optimiser is made.",
            )  # fmt: skip

    def _left_out(self, run: Run, p: ParameterMeta) -> bool:
        gradient, moved = run.series("gradients", "norm", p.name), run.series("updates", "update_norm", p.name)
        return not p.frozen and not p.optimized and bool((gradient > 0).any()) and not (moved > 0).any()

    def _kind(self, run: Run, parameters: list[ParameterMeta]) -> Kind:
        last = [p for p in run.meta.parameters if p.kind == "weight" and p.registered][-1:]
        if not pretrained.loaded(run, parameters) or any(p in parameters for p in last):
            return self.kind
        return progress.fault_if_poor(run)

    def _finding(
        self, run: Run, fact: str, kind: Kind | None, cause: str, p: ParameterMeta | None = None, fix: str = ""
    ) -> Finding:
        steps = run.statistic("gradients", "norm").index
        return self.finding(
            fact, kind=kind, layer=(p.layer or None) if p else None, parameter=p.name if p else None, steps=steps, value=0.0,
            threshold=0.0, causes=(cause,),
            fix=fix or (f"Give {p.name} to the optimiser, or freeze it on purpose." if p else ""),
        )  # fmt: skip

    @classmethod
    def _run(cls, norm: float) -> Run:
        parameters = [{"name": "h1.weight", "shape": [4, 8], "layer": "h1", "optimized": False},
                      {"name": "output.weight", "shape": [3, 4], "layer": "output"}]  # fmt: skip
        gradients = {"norm": {"h1.weight": [0.0] * 99 + [norm], "output.weight": 1.0}}
        return synthetic.run(gradients=gradients, loop={"updates": 1.0}, parameters=parameters)

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(0.0)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(1e-12)
