"""ND902 evaluation-mode-training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from nndiag import signals, structure, synthetic
from nndiag.check import Check, Finding
from nndiag.meta import LayerMeta
from nndiag.run import Run

KEPT = "dropout and batch normalisation are in a frozen base alone, which is best kept in evaluation mode"


def trained(run: Run) -> Sequence[LayerMeta]:
    """The layers from the first that has a parameter to be trained on: what comes before is a base that is kept as it is."""
    learning = {parameter.layer for parameter in run.meta.parameters if not parameter.frozen}
    return run.meta.layers[next((at for at, layer in enumerate(run.meta.layers) if layer.name in learning), 0) :]


@dataclass(frozen=True)
class EvaluationModeTraining(Check):
    """The network trains in evaluation mode: dropout drops nothing, batch normalisation does not normalise by the batch.

    Mostly an evaluation switched the mode and nothing switched it back. The regularisation that was asked for is absent,
    and running statistics are never updated.

    Decides on the flag of the loop frame, where an adapter sets it: training passes were made with the whole network in
    evaluation mode in 3 iterations in a row, and it has dropout or batch normalisation behind the first parameter that is
    trained: a frozen base in front of that is best kept in evaluation mode. While the whole trains, single layers
    in evaluation mode are a remark: fine-tuning puts them there on purpose.

    Elsewhere it decides on values of training passes. A dropout layer with a positive rate hands on as many zeros as it got,
    on every one of at least 3 reads; or, at the first read, the output of a batch normalisation has a mean of more than
    `mean` standard deviations, where normalising by the batch makes it 0 while its shift is 0.
    """

    code = "ND902"
    name = "evaluation-mode-training"
    kind = "exact"
    needs = ("activations.zero_fraction",)
    min_reads = 3
    advice = "Switch back to training mode after each evaluation: model.train()."
    confirm = "print(model.training)  # or: np.mean(dropout_output == 0)"
    passed = "layers that differ in training are in training mode"

    mean: float = 0.1

    def not_checked(self, run: Run) -> str | None:
        if len(self._asleep(run)) >= self.min_reads:
            if structure.modal(trained(run)):
                return None
            return KEPT if structure.modal(run.meta.layers) else structure.MODELESS
        if reason := super().not_checked(run):
            return reason
        kinds = {structure.kind(run, layer) for layer in structure.recorded(run, "zero_fraction")}
        return None if kinds & {*structure.MODAL} else structure.MODELESS

    def examine(self, run: Run) -> Iterator[Finding]:
        asleep = self._asleep(run)
        if len(asleep) < self.min_reads:
            yield from self._measured(run)
        elif (at := signals.onset(asleep.to_numpy() > 0)) is not None:
            steps = asleep.index[asleep > 0]
            yield self.finding(
                f"the network was in evaluation mode in {len(steps)} of {len(asleep)} training iterations",
                steps=(asleep.index[at], steps[-1]), value=float(np.mean(asleep > 0)), threshold=0.0,
                confirm="print(model.training)  # at the beginning of a step: must be True",
            )  # fmt: skip
        else:
            yield from (self.note(f"{found.message}; the network as a whole trains") for found in self._measured(run))

    def _asleep(self, run: Run) -> pd.Series[float]:
        """Whether training passes were made in evaluation mode, by iteration."""
        return run.loop["evaluation_mode"].dropna()

    def _measured(self, run: Run) -> Iterator[Finding]:
        zeros = run.statistic("activations", "zero_fraction")
        layers = structure.recorded(run, "zero_fraction")
        for before, layer in pairwise(layers):
            if structure.kind(run, layer) == "dropout" and run.meta.layer(layer).rate != 0:
                both = zeros[[before, layer]].dropna()
                if len(both) >= self.min_reads and (both[layer] == both[before]).all() and (both[before] < 1).all():
                    yield self._finding(run, layer, f"{layer} drops nothing, on all {len(both)} reads", 0.0)
        yield from self._norms(run)

    def _norms(self, run: Run) -> Iterator[Finding]:
        if not len(run.activations):
            return
        first = run.activations.iloc[0]
        for layer in structure.recorded(run, "mean"):
            if structure.kind(run, layer) == "batch_norm" and first["variance", layer] > 0 and self._fresh(run, layer):
                mean = abs(first["mean", layer]) / first["variance", layer] ** 0.5
                if mean > self.mean and run.activations.index[0] == 0:
                    yield self._finding(run, layer, f"{layer} does not normalise by the batch: its first output has a mean of "
                                                    f"{mean:.2g} standard deviations", float(mean))  # fmt: skip

    def _fresh(self, run: Run, layer: str) -> bool:
        """Whether a norm's shift is known to be 0 still: of the two parameters of a norm one is, at the first read."""
        norms = run.statistic("updates", "weight_norm")
        own = [p.name for p in run.meta.parameters if p.layer == layer and p.name in norms]
        return len(norms) > 0 and norms.index[0] == 0 and any(norms[name].iloc[0] == 0 for name in own)

    def _finding(self, run: Run, layer: str, fact: str, value: float) -> Finding:
        steps = run.statistic("activations", "zero_fraction").index
        return self.finding(fact, layer=layer, steps=steps, value=value,
                            threshold=self.mean if value else 0.0)  # fmt: skip

    @classmethod
    def _run(cls, dropped: float) -> Run:
        layers = [{"name": "h1", "kind": "affine"}, {"name": "h1.dropout", "kind": "dropout", "rate": 0.5},
                  {"name": "output", "kind": "affine"}]  # fmt: skip
        zeros = {"h1": 0.0, "h1.dropout": [0.0] * 99 + [dropped], "output": 0.0}
        return synthetic.run(activations={"zero_fraction": zeros}, layers=layers)

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(1e-4)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(0.0)
