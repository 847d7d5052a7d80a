"""ND404 clipped-always."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from nndiag import progress, synthetic
from nndiag.check import Check, Finding
from nndiag.run import Run

USELESS = {
    "cleared": ("gradients are clipped before the backward pass that makes them: there is nothing to clip yet",
                "Move clip_grad_norm_ between loss.backward() and optimizer.step()."),
    "used": ("gradients are clipped after the optimiser has stepped: it has used them as they were",
             "Move clip_grad_norm_ between loss.backward() and optimizer.step()."),
}  # fmt: skip
"""What is said where clipping comes when it changes nothing, by when it comes, and what to do."""


@dataclass(frozen=True)
class ClippedAlways(Check):
    """Gradients are clipped at nearly every step, to next to nothing, or before there are any or after they were used.

    Clipping is a guard against rare spikes. Where the limit lies below the usual norm it fixes the length of every step
    instead: the learning rate no longer means what it says (Zhang et al. 2020). Where it comes before the backward pass, it
    guards against nothing.

    Decides on how much of the global norm before clipping is left after it, as both were recorded; where only the one before
    was, as the limit says, which is a bound where values are clipped one by one. Clipped, to less than `whole` of it, on more
    than `most` of the reads is a remark; it is a finding where less than `left` of the norm is left in the median, or less than
    `short` where the loss still falls at the end (`nndiag.progress.unfinished`) with more than `way` of its way left, so that
    the limit is what holds it back; and a fault of the loop, where the scale of mixed precision is still in the gradients, the
    limit below `small` of that scale, and less than `short` is left.
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
    whole: float = 0.999
    small: float = 0.01

    def not_checked(self, run: Run) -> str | None:
        if (run.meta.clipping or {}).get("gradients") in USELESS and len(run.statistic("gradients", "norm")):
            return None  # a few steps show it
        if reason := super().not_checked(run):
            return reason
        if run.statistic("gradients", "clipped_norm").notna().any(axis=None):
            return None
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
        if (when := clipping.get("gradients")) in USELESS:
            yield self._at_the_wrong_time(run, *USELESS[str(when)])
            return
        measured = self._measured(run)
        kept = self._by_limit(run) if measured is None else measured
        clipped = float(np.mean(kept < self.whole))
        if clipped > self.most:
            median, bound = float(kept.median()), "at most " if measured is None and "value" in clipping else ""
            steps = kept.index
            if self._limit_is_unscaled(run) and median < self.short:
                yield self._scaled(kept)
                return
            yield self.finding(
                f"gradients are clipped on {clipped:.0%} of the reads, to {bound}{median:.2g} of their norm in the median",
                kind=self.kind if median < self.left or (median < self.short and self._slow(run)) else "note",
                steps=steps, value=median, threshold=self.left,
                fix=self._better(run),
            )  # fmt: skip

    def _scaled(self, kept: pd.Series) -> Finding:
        return self.finding(
            "gradients are clipped while they are still multiplied by the loss scale, and "
            f"{float(kept.median()):.2g} of their norm is left in the median",
            kind="exact", steps=kept.index, value=float(kept.median()),
            threshold=self.short, place="ND904", fix="Call scaler.unscale_(optimizer) before clip_grad_norm_.",
        )  # fmt: skip

    def _at_the_wrong_time(self, run: Run, fact: str, fix: str) -> Finding:
        steps = run.statistic("gradients", "norm").index
        return self.finding(fact, kind="exact", steps=steps, place="ND904", fix=fix)

    def _limit_is_unscaled(self, run: Run) -> bool:
        """Whether gradients carry the loss scale when they are clipped, and the limit is none that was multiplied with it."""
        clipping, scale = run.meta.clipping or {}, run.loop["loss_scale"].dropna()
        limit = clipping.get("max_norm", clipping.get("value"))
        known = clipping.get("scaled") and len(scale) and isinstance(limit, float | int)
        return bool(known and limit < self.small * float(scale.median()))

    def _measured(self, run: Run) -> pd.Series | None:
        """Share of the global norm that clipping has left, on each read on which gradients were clipped; None without any."""
        norms, left = run.statistic("gradients", "norm"), run.statistic("gradients", "clipped_norm")
        known = left[left.notna().any(axis=1)].reindex(columns=norms.columns)
        if known.empty:
            return None
        before = norms.reindex(known.index)
        return _share(before, known.where(known.notna(), before))

    def _by_limit(self, run: Run) -> pd.Series:
        """The same as the limit says: at most, where each value is clipped, since no tensor's RMS is then above it."""
        clipping, norms = run.meta.clipping or {}, run.statistic("gradients", "norm")
        if "max_norm" in clipping:
            whole = _together(norms)
            return pd.Series(np.minimum(1.0, float(clipping["max_norm"]) / whole.where(whole > 0, np.nan))).fillna(1.0)
        rms = run.statistic("gradients", "rms").reindex(index=norms.index, columns=norms.columns)
        return _share(norms, norms * (float(clipping["value"]) / rms.where(rms > 0)).clip(upper=1.0).fillna(1.0))

    def _better(self, run: Run) -> str:
        """A better limit, in words; nothing where neither is known."""
        clipping, norms, rms = (
            run.meta.clipping or {},
            run.statistic("gradients", "norm"),
            run.statistic("gradients", "rms"),
        )
        if isinstance(limit := clipping.get("max_norm"), float | int):
            usual = float(_together(norms).quantile(0.9))
            return f"Clip at {usual:.2g}, the 90th percentile of the norms seen, instead of {limit:.3g}."
        if isinstance(limit := clipping.get("value"), float | int) and not rms.empty:
            usual = 10 * float(rms.max(axis=1).quantile(0.9))
            return f"Clip at {usual:.2g}, ten times the size of the gradients seen, instead of {limit:.3g}."
        return ""

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


def _together(norms: pd.DataFrame) -> pd.Series:
    """Norm of all gradients together, on each read."""
    return pd.Series(np.sqrt(np.square(norms).sum(axis=1)))


def _share(before: pd.DataFrame, left: pd.DataFrame) -> pd.Series:
    """What is left of the norm of all together; all, where there was nothing."""
    return (_together(left) / _together(before).replace(0.0, np.nan)).fillna(1.0)
