"""ND207 mean-shift."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nndiag import structure, synthetic
from nndiag.check import Check, Finding
from nndiag.run import Run

MIDDLE = {"sigmoid": 0.5, "hard_sigmoid": 0.5}
"""Where the output of an activation function lies for an input of 0, if not at 0."""


@dataclass(frozen=True)
class MeanShift(Check):
    """What a hidden layer hands on is nearly constant: its mean is many times its standard deviation.

    The next layer then sees a large constant with a faint signal on top; its gradients point almost all the same way and
    learning zigzags (LeCun, Bottou, Orr & Müller 1998, section 4.3). Biases initialised large, or inputs far from zero
    mean, do it.

    Decides on the first read: |mean| above `ratio` times the standard deviation over all elements of a hidden layer's
    output, in a network without normalisation; for the sigmoid the mean is taken from ½, which is its value at 0. After
    He's initialisation a ReLU layer has about 0.7.
    """

    code = "ND207"
    name = "mean-shift"
    kind = "training"
    needs = ("activations.mean", "activations.variance")
    min_reads = 1
    advice = "Start biases at 0, centre the inputs, or add a normalisation layer."
    confirm = "print(run.activations['mean'].iloc[0] / run.activations['variance'].iloc[0] ** 0.5)"
    passed = "hidden layers vary more than they are shifted"

    ratio: float = 5.0

    def not_checked(self, run: Run) -> str | None:
        if reason := super().not_checked(run):
            return reason
        if structure.normalized(run):
            return "the network has normalisation layers, which remove the shift"
        return None if structure.hidden(run) else "needs a hidden layer"

    def examine(self, run: Run) -> Iterator[Finding]:
        now, step = run.activations.iloc[0], int(run.activations.index[0])
        for layer in structure.hidden(run):
            mean = abs(now["mean", layer] - MIDDLE.get(structure.kind(run, layer), 0.0))
            std = float(np.sqrt(now["variance", layer]))
            if std > 0 and mean / std > self.ratio:
                yield self.finding(
                    f"the output of {layer} has a mean {mean / std:.2g} times its standard deviation at the start",
                    layer=layer, steps=step, value=float(mean / std),
                    threshold=self.ratio, causes=("ND002", "biases initialised large"),
                )  # fmt: skip

    @classmethod
    def _run(cls, mean: float) -> Run:
        return synthetic.run(
            steps=1,
            activations={"mean": {"h1": mean, "output": 0.0}, "variance": {"h1": 1.0, "output": 1.0}},
        )

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(4.5)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(6.0)
