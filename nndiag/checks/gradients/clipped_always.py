"""ND404 clipped-always."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nndiag import progress, synthetic
from nndiag.check import Check, Finding
from nndiag.run import Run
from nndiag.statistics import Array


@dataclass(frozen=True)
class ClippedAlways(Check):
    """Gradients are clipped at nearly every step, to next to nothing, or before there are any.

    Clipping is a guard against rare spikes. Where the limit lies below the usual norm it fixes the length of every step
    instead: the learning rate no longer means what it says (Zhang et al. 2020). Where it comes before the backward pass, it
    guards against nothing.

    Decides on how much of the global norm before clipping is left: at most, where values are clipped one by one, what the
    root mean square of each tensor's gradient says. Clipped on more than `most` of the reads is a remark; it is a finding where
    less than `left` of the norm is left in the median, or less than `short` where the loss still falls at the end
    (`nndiag.progress.unfinished`) with more than `way` of its way left, so that the limit is what holds it back.
    """

    code = "ND404"
    name = "clipped-always"
    kind = "training"
    needs = ("gradients.norm",)
    advice = "Set the limit to about the 90th percentile of the norms seen."
    confirm = "print((run.gradients['norm'] ** 2).sum(axis=1).pow(0.5).describe())"
    passed = "clipping is the exception"

    most: float = 0.5
    left: float = 1e-3
    short: float = 0.25
    way: float = 0.2

    def not_checked(self, run: Run) -> str | None:
        if (run.meta.clipping or {}).get("gradients") == "cleared" and len(run.statistic("gradients", "norm")):
            return None  # a few steps show it
        if reason := super().not_checked(run):
            return reason
        clipping = run.meta.clipping
        if clipping is None:
            return "the run describes no clipping of gradients"
        if not isinstance(clipping.get("max_norm", clipping.get("value")), float | int):
            return "needs the limit: whether gradients are clipped, and at what, is not known"
        if "value" in clipping and run.statistic("gradients", "rms").empty:
            return "needs gradients.rms, which was not recorded: gradients are clipped value by value"
        return None if clipping.get("gradients") == "before" else "needs gradients from before the clipping"

    def examine(self, run: Run) -> Iterator[Finding]:
        clipping = run.meta.clipping or {}
        if clipping.get("gradients") == "cleared":
            yield self._before_backward(run)
            return
        by_value = "value" in clipping
        kept, fix = (self._by_value if by_value else self._by_norm)(
            run, float(clipping["value" if by_value else "max_norm"])
        )
        clipped = float(np.mean(kept < 1))
        if clipped > self.most:
            steps = run.statistic("gradients", "norm").index
            median, bound = float(np.median(kept)), "at most " if by_value else ""
            yield self.finding(
                f"gradients are clipped on {clipped:.0%} of the reads, to {bound}{median:.2g} of their norm in the median",
                kind=self.kind if median < self.left or (median < self.short and self._slow(run)) else "note",
                first_step=int(steps[0]), last_step=int(steps[-1]), value=median, threshold=self.left,
                fix=fix,
            )  # fmt: skip

    def _before_backward(self, run: Run) -> Finding:
        steps = run.statistic("gradients", "norm").index
        return self.finding(
            "gradients are clipped before the backward pass that makes them: there is nothing to clip yet",
            kind="exact", first_step=int(steps[0]), last_step=int(steps[-1]), place="ND904",
            fix="Move clip_grad_norm_ between loss.backward() and optimizer.step().",
        )  # fmt: skip

    def _by_norm(self, run: Run, limit: float) -> tuple[Array, str]:
        """Share of the global norm that is left on each read, and a better limit in words."""
        norms = np.sqrt(np.square(run.statistic("gradients", "norm").to_numpy()).sum(axis=1))
        kept = np.minimum(1.0, limit / np.where(norms > 0, norms, limit))
        usual = np.quantile(norms, 0.9)
        return kept, f"Clip at {usual:.2g}, the 90th percentile of the norms seen, instead of {limit:.3g}."

    def _by_value(self, run: Run, limit: float) -> tuple[Array, str]:
        """The same at most, where each value is clipped: no tensor's root mean square is then above the limit."""
        norms, rms = run.statistic("gradients", "norm"), run.statistic("gradients", "rms")
        rms = rms.reindex(index=norms.index, columns=norms.columns)
        squares, shares = np.square(norms), (limit / rms.where(rms > 0)).clip(upper=1.0).fillna(1.0)
        left, whole = (squares * shares**2).sum(axis=1).to_numpy(), squares.sum(axis=1).to_numpy()
        kept = np.sqrt(np.divide(left, whole, out=np.ones_like(whole), where=whole > 0))
        usual = 10 * float(rms.max(axis=1).quantile(0.9))
        return kept, f"Clip at {usual:.2g}, ten times the size of the gradients seen, instead of {limit:.3g}."

    def _slow(self, run: Run) -> bool:
        left = progress.unfinished(run)
        return left is not None and left > self.way

    @classmethod
    def _run(cls, norm: float) -> Run:
        return synthetic.run(
            gradients={"norm": {"h1.weight": norm, "output.weight": 0.0}},
            clipping={"max_norm": 1.0, "gradients": "before"},
        )

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(800.0)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(1500.0)
