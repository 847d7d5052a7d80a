"""ND903 training-mode-evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nndiag import synthetic
from nndiag.check import Check, Finding
from nndiag.run import Run


@dataclass(frozen=True)
class TrainingModeEvaluation(Check):
    """The network is evaluated in training mode: dropout goes on dropping.

    Validation losses and predictions then carry the noise of training, are worse than the network is, and differ from call
    to call.

    Decides on the layers of the first evaluation: a share of the values that go into a dropout layer come out as 0. In
    evaluation mode not one does.
    """

    code = "ND903"
    name = "training-mode-evaluation"
    kind = "exact"
    needs = ("metrics.dropped",)
    min_reads = 1
    advice = "Switch to evaluation mode before evaluating: model.eval(), or forward(x, training=False)."
    confirm = "print(np.array_equal(model.forward(x[:8]), model.forward(x[:8])))  # must be True"
    passed = "evaluations drop nothing"

    def not_checked(self, run: Run) -> str | None:
        if len(run.validation) and not len(run.series("metrics", "dropped", "validation")):
            return "no dropout layer was seen in an evaluation"
        return super().not_checked(run)

    def examine(self, run: Run) -> Iterator[Finding]:
        dropped = run.series("metrics", "dropped", "validation")
        bad = dropped[dropped > 0]
        if len(bad):
            yield self.finding(
                f"dropout zeroes {bad.max():.0%} of its inputs in evaluations",
                first_step=int(bad.index[0]), last_step=int(bad.index[-1]), value=float(bad.max()), threshold=0.0,
            )  # fmt: skip

    @classmethod
    def healthy(cls) -> Run:
        return synthetic.run(metrics={"dropped": {"validation": 0.0}})

    @classmethod
    def sick(cls) -> Run:
        return synthetic.run(metrics={"dropped": {"validation": 1e-3}})
