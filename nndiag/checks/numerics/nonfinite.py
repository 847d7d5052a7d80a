"""ND801 non-finite."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nndiag import losses, progress, structure, synthetic
from nndiag.check import Check, Finding
from nndiag.run import Run

PLACES = (("activations", "output"), ("outputs", "output of the network"), ("gradients", "gradient"))
"""Frames with a count of non-finite values in the order in which a step computes them, and what they count."""

FORWARD = ("activations", "outputs")
"""Frames of what goes forward."""


@dataclass(frozen=True)
class Nonfinite(Check):
    """NaN or infinity appears in the loss, an activation or a gradient.

    From there it spreads to every weight within a step, and nothing brings it back. What counts is where it appeared
    first, and what went before.

    Decides on counts of non-finite values in every recorded array, and on the loss of every step. Names the first tensor,
    in the order in which a step computes them: forward, loss, backward. If that tensor, or the loss, was near the largest
    number of its dtype on the reads before, or had grown a thousandfold, it is an overflow, otherwise an invalid
    operation such as log(0) or 0/0; the latter is proven where the loss was seen to take the logarithm of a softmax or
    sigmoid as it is, and the loss or a gradient is the first, whatever made a probability 0. Gradients alone do not count
    where a gradient scaler is at work: it tries how far it can go, and leaves out the update where they overflow (ND804).
    In the very first forward pass it is the initialisation that does not fit, and what the rest of the run shows follows
    from it. A loss such as Poisson's that is the first, with the first output that is not positive, has taken its logarithm or
    root. What goes forward does not count where some of its values are not finite on the first read and on `masked` of all, and
    every loss and gradient is finite all the same: so it is where some logits or scores are masked with minus infinity.
    """

    code = "ND801"
    name = "non-finite"
    kind = "exact"
    needs = ("losses.train",)
    min_reads = 1
    advice = "Look at what is named first; lower the learning rate, clip gradients, keep log and division away from 0."
    confirm = "np.seterr(all='raise')  # then train again up to that step"
    passed = "every loss, output and gradient that was read is finite"

    growth: float = 1e3
    masked: float = 0.9

    def not_checked(self, run: Run) -> str | None:
        return None if run.meta.broken_at is not None else super().not_checked(run)

    def examine(self, run: Run) -> Iterator[Finding]:
        seen = self._first(run)
        if seen is None:
            if run.meta.loss.get("unguarded"):
                yield self.note(
                    "the loss takes the logarithm of a softmax or sigmoid as it is, which is infinite once a probability is "
                    "rounded to 0; a loss on logits never takes it"
                )
            return
        step, place, frame, name = seen
        if frame in ("losses", "gradients") and run.meta.loss.get("unguarded"):
            yield self._logarithm(step, place)
            return
        grew = self._grew(run, step, frame, name)
        if frame == "losses" and not grew and (low := self._not_positive(run, step)) is not None:
            yield self._of_what_is_not_positive(step, low)
            return
        slope = ("the slope of a square root or a norm at 0",) if frame == "gradients" else ()
        how = "an overflow" if grew else "an invalid operation, such as log(0) or 0/0"
        yield self.finding(
            f"{place} is not finite at step {step}; what went before points to {how}",
            layer=name if frame == "activations" else None, parameter=name if frame == "gradients" else None,
            steps=step, value=float("nan"), threshold=0.0,
            place="ND2" if frame == "activations" and step == run.activations.index[0] else "",
            causes=("ND001", "ND501", "ND203") if how == "an overflow" else ("ND001", "log or division by zero", *slope),
        )  # fmt: skip

    def _logarithm(self, step: int, place: str) -> Finding:
        """Everything before the loss is finite, and the loss takes the logarithm of probabilities that may be 0."""
        return self.finding(
            f"{place} is not finite at step {step}, with finite outputs: the loss takes the logarithm of a softmax or sigmoid, "
            f"and a probability has become 0",
            steps=step, value=float("nan"), threshold=0.0, place="ND105",
            causes=("log of a probability that has become 0", "ND501"),
            fix="Use a loss on logits (cross_entropy, binary_cross_entropy_with_logits, log_softmax), which never takes log(0).",
        )  # fmt: skip

    def _not_positive(self, run: Run, step: int) -> float | None:
        """The lowest output at `step`, where it is the first that is not positive, of a loss that may mind."""
        lowest, easy = run.series("outputs", "min", "outputs"), (*losses.SQUARED, *losses.ABSOLUTE)
        minds = run.meta.loss.get("expects") == "real" and progress.plain_name(run) not in easy
        known = minds and step in lowest.index and not run.series("outputs", "nonfinite", "outputs").get(step, 1.0)
        first = known and lowest[step] <= 0 and bool((lowest[lowest.index < step] > 0).all())
        return float(lowest[step]) if first else None

    def _of_what_is_not_positive(self, step: int, low: float) -> Finding:
        return self.finding(
            f"the loss is not finite at step {step}, the first read with outputs that are not positive (down to {low:.3g})",
            steps=step, value=low, threshold=0.0, place="ND105",
            causes=("a loss that takes the logarithm, a root or the inverse of its outputs", "ND001"),
            fix="Give the last layer an exponential or a softplus where the loss takes logarithms of outputs, as Poisson's does; "
            "or a loss on the logarithm.",
        )  # fmt: skip

    def _first(self, run: Run) -> tuple[int, str, str, str] | None:
        """Step, description, frame and name of the first non-finite tensor."""
        found: list[tuple[int, float, int, str, str, str]] = []
        scaled = structure.scaler_at_work(run)
        for order, (frame, word) in enumerate(PLACES):
            counts = run.statistic(frame, "nonfinite").iloc[: 0 if scaled and frame == "gradients" else None]
            for column, name in enumerate(counts):
                bad = counts.index[counts[name] > 0]
                if len(bad):
                    place = f"the {word}" if frame == "outputs" else f"the {word} of {name}"
                    found.append((int(bad[0]), order, column, place, frame, str(name)))
        if (broken := run.meta.broken_at) is not None:
            found.append((broken, 1.5, 0, "the loss", "losses", "train"))
        if all(frame in FORWARD for *_, frame, _ in found):
            found = [one for one in found if not self._is_masked(run, *one[-2:])]
        if not found:
            return None
        step, _, _, place, frame, name = min(found)
        return step, place, frame, name

    def _is_masked(self, run: Run, frame: str, name: str) -> bool:
        """Whether part of a tensor has never been finite, which the loss copes with."""
        bad = run.series(frame, "nonfinite", name) > 0
        recorded = name in run.statistic(frame, "mean")
        partly = not recorded or bool(np.isfinite(run.series(frame, "mean", name).reindex(bad.index[bad])).all())
        return len(run.train) > 0 and partly and bool(bad.iloc[0]) and float(bad.mean()) >= self.masked

    def _grew(self, run: Run, step: int, frame: str, name: str) -> bool:
        """Whether the tensor, or the loss, was huge or had grown a thousandfold before `step`."""
        series = [run.train]
        if frame == "activations":
            series.append(run.activations.loc[:, [("max", name), ("min", name)]].abs().max(axis=1))
        elif frame == "gradients":
            series.append(run.gradients["norm", name])
        limit = 1e-4 * structure.largest(run)
        for values in series:
            before = values[values.index <= step].dropna()
            if len(before) and (before.max() > limit or before.max() > self.growth * max(float(before.iloc[0]), 1e-30)):
                return True
        return False

    @classmethod
    def _run(cls, count: float) -> Run:
        counts = [0.0] * 99 + [count]
        activations: synthetic.Statistics = {"nonfinite": {"h1": 0.0, "output": counts}, "max": {"h1": 1.0, "output": 1.0},
                       "min": {"h1": -1.0, "output": -1.0}}  # fmt: skip
        return synthetic.run(train=synthetic.decay(), activations=activations)

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(0.0)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(1.0)
