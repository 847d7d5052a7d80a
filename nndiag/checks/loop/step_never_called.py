"""ND904 step-never-called."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nndiag import progress, synthetic
from nndiag.check import Check, Finding
from nndiag.run import Run


@dataclass(frozen=True)
class StepNeverCalled(Check):
    """There are backward passes and never an update: the optimiser's step is not called.

    The loss goes up and down with the batches, the gradients look healthy, and every weight stays what the initialisation made
    it.

    Decides on the counts of the loop frame: not one update, made or left out by a gradient scaler, in at least `iterations`
    rows with a backward pass or at least `passes` backward passes; fewer may be the micro-batches of the first update.
    Where weights move nevertheless, their norms by more than `rounding`, or the loss has come more than `learned` of its way
    (`nndiag.progress`), somebody else makes the updates, such as a line of code of the loop's own: a remark. Gradients that
    are all exactly 0 have other causes. Or an optimiser steps by itself, on gradients that still carry the scale of mixed
    precision: it is the gradient scaler's step that takes it off.
    """

    code = "ND904"
    name = "step-never-called"
    kind = "exact"
    needs = ("loop.updates", "loop.backward_passes")
    min_reads = 1
    advice = "Call optimizer.step() after loss.backward() in every iteration; with a gradient scaler, scaler.step(optimizer)."
    confirm = "print(run.loop[['backward_passes', 'updates']].sum())"
    passed = "backward passes are followed by updates"

    iterations: int = 5
    passes: int = 20
    learned: float = 0.2
    rounding: float = 1e-5

    def not_checked(self, run: Run) -> str | None:
        if reason := super().not_checked(run):
            return reason
        rows, passes = self._counts(run)
        if self._stepped(run) or rows >= self.iterations or passes >= self.passes:
            return None
        return f"no update yet: needs {self.iterations} iterations or {self.passes} backward passes, has {rows} and {passes}"

    def examine(self, run: Run) -> Iterator[Finding]:
        gradients = run.statistic("gradients", "norm")
        trained = [p for p in run.meta.parameters if not p.frozen]
        if trained and not any(p.optimized for p in trained):
            return  # ND504: the optimiser steps, on something else
        if run.meta.optimizer.get("scaled"):
            steps, scale = run.loop.index, run.loop["loss_scale"].median()
            yield self.finding(
                f"the optimiser steps on gradients that are still multiplied by the loss scale, {scale:.6g}: nobody takes it off",
                steps=steps, value=float(scale), threshold=1.0,
                causes=("optimizer.step() in place of scaler.step(optimizer)",),
                fix="Call scaler.step(optimizer) and scaler.update() in place of optimizer.step().",
            )  # fmt: skip
        if self._stepped(run) or (len(gradients) and not (gradients > 0).to_numpy().any()):
            return
        _, passes = self._counts(run)
        if self._moves(run):
            yield self.note(f"{passes} backward passes and no step of an optimiser, yet the network changes")
            return
        steps = run.loop["backward_passes"].dropna().index
        yield self.finding(
            f"{passes} backward passes and not one update: the optimiser's step is never called",
            steps=steps, value=0.0, threshold=1.0,
            causes=("step() is missing from the loop, or belongs to another optimiser",),
        )  # fmt: skip

    def _counts(self, run: Run) -> tuple[int, int]:
        """Rows with a backward pass, and backward passes."""
        passes = run.loop["backward_passes"]
        passes = passes[(passes > 0) & (passes < 1e15)]
        return len(passes), int(passes.sum())

    def _stepped(self, run: Run) -> bool:
        return bool((run.loop[["updates", "skipped_updates"]] > 0).to_numpy().any())

    def _moves(self, run: Run) -> bool:
        """Whether weights change, or the loss falls as it cannot by itself."""
        weights = run.statistic("updates", "weight_norm")
        moved = (run.statistic("updates", "update_norm") > 0).to_numpy().any()
        changed = len(weights) > 1 and (weights.max() > (1 + self.rounding) * weights.min()).any()
        return bool(moved or changed or progress.has_come(run, self.learned))

    @classmethod
    def _run(cls, updates: float) -> Run:
        return synthetic.run(steps=8, loop={"backward_passes": 1.0, "updates": [0.0] * 7 + [updates]})

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(1.0)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(0.0)
