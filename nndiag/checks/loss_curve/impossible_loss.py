"""ND608 impossible-loss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nndiag import progress, synthetic
from nndiag.check import Check, Finding
from nndiag.losses import named
from nndiag.run import Run

NEVER_NEGATIVE = frozenset(
    ("softmaxcrossentropy", "crossentropy", "crossentropyloss", "categoricalcrossentropy", "sparsecategoricalcrossentropy",
     "binarycrossentropy", "bce", "bceloss", "bcewithlogits", "bcewithlogitsloss", "nll", "nllloss", "mse", "mseloss",
     "meansquarederror", "mae", "l1loss", "meanabsoluteerror", "huber", "huberloss", "smoothl1loss", "hinge")
)  # fmt: skip
"""Names, in small letters and without signs, of losses that are sums of what cannot be negative."""


LEAST = 40
"""Reads that a straight line takes."""


@dataclass(frozen=True)
class ImpossibleLoss(Check):
    """The loss is below the lowest value that it can have.

    A cross-entropy of probabilities against labels, a squared or an absolute error is never negative. One that is has
    been fed something that it is not made for (targets outside 0 … 1, probabilities above 1, log-probabilities that are
    none, a wrong sign) and training then walks towards minus infinity, away from the task.

    Decides on the training and the validation loss of losses that the run names as cross-entropy, squared, absolute or
    hinge error: any value below 0, or below the floor that the run gives, by more than `rounding` times the larger of 1 and
    the first loss; float32 leaves errors of 1e-7. Losses of other names may be negative, and so may those whose samples are
    weighed by numbers that are not known, as the advantages of a policy gradient; but one that falls to `away` times its first
    size below 0 has no minimum, as of a term that is to be large and was given the wrong sign: a density in single precision
    resolves 1e-7 of its support, which is 16 nats for each of its dimensions. Nor has the
    sum of such a loss and other terms that falls in a straight line, to `beyond` times its first size below 0, in the last two
    quarters equally fast, up to `bent`.
    """

    code = "ND608"
    name = "impossible-loss"
    kind = "exact"
    needs = ("losses.train",)
    min_reads = 1
    advice = "Look at what goes into the loss: targets within 0 … 1 for a binary loss, logits or probabilities as it expects."
    confirm = "print(run.losses.min(), run.data['min']['target'].min(), run.data['max']['target'].max())"
    passed = "the loss is never below its floor"

    rounding: float = 1e-5
    away: float = 1e6
    beyond: float = 10.0
    bent: float = 0.05

    def not_checked(self, run: Run) -> str | None:
        if reason := super().not_checked(run):
            return reason
        if self._bounded(run) or self._runs_away(run) or self._falls_straight(run):
            return None
        return progress.no_measure(run) or "needs a loss with a known floor, such as a cross-entropy or a squared error"

    def _bounded(self, run: Run) -> bool:
        """Whether it is known what the loss cannot be below."""
        known = progress.plain_name(run) in NEVER_NEGATIVE or "floor" in run.meta.loss
        return progress.no_measure(run) is None and known

    def _runs_away(self, run: Run) -> bool:
        """Whether the training loss has fallen to `away` times its first size below 0."""
        losses = run.train[np.isfinite(run.train)]
        return len(losses) > 0 and float(losses.min()) < -self.away * max(1.0, abs(float(losses.iloc[0])))

    def _falls_straight(self, run: Run) -> bool:
        """Whether a loss that cannot be negative falls in a straight line for other terms that it has."""
        facts, losses = run.meta.loss, run.train[np.isfinite(run.train)]
        name, others = named(facts)
        free = facts.get("signed_weights") or facts.get("adversarial") or run.meta.optimizer.get("maximize")
        if not others or free or name not in NEVER_NEGATIVE or len(losses) < LEAST:
            return False
        start, step, loss = max(1.0, abs(float(losses.iloc[0]))), losses.index.to_numpy(), losses.to_numpy()
        slopes = [np.polyfit(step[part], loss[part], 1)[0] for part in np.array_split(np.arange(len(loss)), 4)[2:]]
        return bool(loss[-1] < -self.beyond * start and max(slopes) < 0 and max(slopes) < (1 - self.bent) * min(slopes))

    def examine(self, run: Run) -> Iterator[Finding]:
        if not self._bounded(run):
            first, low = float(run.train.iloc[0]), float(run.train[np.isfinite(run.train)].min())
            how, times = ("", self.away) if self._runs_away(run) else (", in a straight line to the end", self.beyond)
            yield self.finding(
                f"the training loss falls from {first:.3g} to {low:.3g}{how}: it has no minimum",
                steps=run.train.index,
                value=low, threshold=-times * max(1.0, abs(first)),
                causes=("a wrong sign", "ND110"), place="ND1",
                fix="See which term of the loss has the wrong sign, or no lower end.",
            )  # fmt: skip
            return
        first, floor = float(run.train.iloc[0]), float(run.meta.loss.get("floor", 0.0))
        limit = floor - self.rounding * max(1.0, abs(first) if np.isfinite(first) else 1.0)
        for name, losses in (("training", run.train), ("validation", run.validation)):
            below = losses[losses < limit]
            if len(below):
                yield self.finding(
                    f"the {name} loss is {below.iloc[0]:.3g} at step {below.index[0]}, and {run.meta.loss.get('name', 'it')} "
                    f"cannot be below {floor:.3g}",
                    steps=below.index, value=float(below.min()),
                    threshold=floor, causes=("ND110", "ND105", "outputs that are no probabilities", "a wrong sign"),
                )  # fmt: skip

    @classmethod
    def _run(cls, low: float) -> Run:
        train = np.append(synthetic.decay(99), low)
        return synthetic.run(train=train, loss={"name": "BCEWithLogits", "task": "binary", "expects": "logits"})

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(-1e-5)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(-4e-5)
