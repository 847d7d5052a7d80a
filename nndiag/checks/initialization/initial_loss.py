"""ND201 initial-loss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nndiag import progress, synthetic
from nndiag.check import Check, Finding
from nndiag.run import Run


@dataclass(frozen=True)
class InitialLoss(Check):
    """The first loss, before any update, is far above what knowing nothing costs.

    An untrained classifier of C equally frequent classes should start near ln C, a regressor near the variance of its
    targets. A start far above means confident nonsense: outputs too large from the initialisation, or inputs or targets
    out of scale; the first steps are spent on shrinking the last layer.

    Decides on the loss of step 0: more than `nats` above ln C for C classes or ln 2 for a label (an even guess; weighed, where
    classes have weights), or for real targets more than `times` their variance and their mean square (a guess of the mean, and
    of 0). He's initialisation with a linear head on standardised targets gives 1.6 to 5.3 times: sound. It is a remark only
    where training then comes more than half of the way. A start below half of the trivial loss is a network that knows
    something already: not checked.
    """

    code = "ND201"
    name = "initial-loss"
    kind = "training"
    needs = ("losses.train",)
    min_reads = 1
    advice = "Initialise the last layer smaller (or with zeros), and bring inputs and targets to unit scale."
    confirm = "print(trainer.evaluate(x, y))  # before fit"
    passed = "the first loss is what knowing nothing costs"

    nats: float = 2.0
    times: float = 10.0
    recovered: float = 0.5

    def not_checked(self, run: Run) -> str | None:
        if reason := super().not_checked(run):
            return reason
        trivial, train = progress.trivial(run), run.train
        if train.index[0] != 0:
            return f"the record begins at step {train.index[0]}, not 0"
        if trivial is None:
            return "needs the loss of a trivial prediction: the kind of loss and the targets are not recorded"
        if train.iloc[0] < trivial / 2:
            return f"the loss begins at {train.iloc[0]:.3g}, below half of the trivial {trivial:.3g}: trained already"
        return None

    def examine(self, run: Run) -> Iterator[Finding]:
        first, limit = float(run.train.iloc[0]), self._limit(run)
        if first > limit:
            message = (
                f"the first loss is {first:.3g}; {self._guess(run)} costs no more than {limit:.3g} even with bad luck"
            )
            yield self.finding(
                message, kind="note" if progress.has_come(run, self.recovered) else "training",
                steps=0, value=first, threshold=limit,
                causes=("ND203", "ND002", "a last layer initialised too large"),
            )  # fmt: skip

    def _limit(self, run: Run) -> float:
        trivial = progress.trivial(run) or 0.0
        if run.meta.loss.get("task") == "real":
            return self.times * max(trivial, (run.first("data", "rms", "target") or 0.0) ** 2)
        return max(trivial, progress.even(run)) + self.nats

    def _guess(self, run: Run) -> str:
        return "a guess of the mean" if run.meta.loss.get("task") == "real" else "guessing the class"

    @classmethod
    def _run(cls, first: float) -> Run:
        train = synthetic.decay(end=2.0)
        train[0] = first
        return synthetic.run(train=train, data={"entropy": {"target": 2.3}}, **synthetic.CLASSES)

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(4.2)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(4.4)
