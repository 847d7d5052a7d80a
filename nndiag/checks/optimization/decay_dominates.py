"""ND506 decay-dominates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from nndiag import progress, structure, synthetic
from nndiag.causes import RATE_DECAYS
from nndiag.check import Check, Finding
from nndiag.run import Run

WEIGHTS_TIMES = "an update that multiplies the weights: momentum belongs to the velocity"


@dataclass(frozen=True)
class DecayDominates(Check):
    """Weight decay does more to the weights than the gradient does, and they shrink away.

    What the loss asks for is undone by the next steps: the network cannot hold weights large enough for its task and ends
    near a constant (Goodfellow, Bengio & Courville 2016, section 7.1.1).

    Decides on the second half of the reads: the part of the update that weight decay makes, lr · λ · |w| (for SGD with
    momentum m in the long run over 1 − m), is above `share` of the update's norm in the median over reads and weights:
    most of what the gradient does is to hold against it. Where decay is a part of the gradient, and the optimiser divides
    by its size, as Adam without W does, λ · |w| stands against the gradient of the loss, on all reads or on the first
    `early`. And the weights are below `shrunk` of their largest norm in the median over weights. On small and noisy data
    two thirds of the update can be decay and validation gains by it; but where decay is more than these two thirds,
    `mostly`, and the weights are below `gone` of their largest norm, it has left nothing that a gradient could come from; so it
    is where decay alone, by the steps so far, would have left no more than that. Of SGD it also counts where the penalty that
    decay stands for, λ/2 · Σ w², is more than the loss: the two hold each other in balance, far from where the loss alone would
    be. Decay also rules where a network has learned its task and gradients are all but gone: with more than `learned` of the way
    made it is no fault. A decoupled decay up to `usual_decoupled`, as AdamW and large language models have it, or one in the
    gradients of SGD up to `usual`, is what the learning rate makes of it: where updates are too large as well (ND501), that goes
    first.

    A penalty in the loss does the same, or an update of one's own that multiplies the weights. Where the optimiser has no weight
    decay, all weights but biases below `gone` of their largest norm and of their first, short of the same way, are its work: no
    gradient of a task takes every weight to nothing.
    So are all of two weights or more below `shrunk` of those, and below `half` in the median, where it is known how far training
    has come: sound runs without decay keep 0.6 in the median.
    """

    code = "ND506"
    name = "decay-dominates"
    kind = "training"
    needs = ("updates.update_norm", "updates.weight_norm")
    advice = "Lower the weight decay by 10."
    confirm = "run.updates['weight_norm'].plot(logy=True)"
    passed = "the gradient, not weight decay, moves the weights"

    share: float = 1.0
    shrunk: float = 0.6
    mostly: float = 2 / 3
    gone: float = 0.05
    half: float = 0.4
    learned: float = 0.9
    early: int = 10
    usual: float = 1e-3
    usual_decoupled: float = 0.1

    def not_checked(self, run: Run) -> str | None:
        if not run.meta.optimizer and not structure.by_hand(run):
            return "needs the optimiser's settings, which the run does not describe"
        if reason := super().not_checked(run):
            return reason
        if self._decay(run) > 0 and not len(run.series("metrics", "lr", "train")):
            return "needs metrics.lr beside a weight decay, which was not recorded"
        return None if structure.weights(run, "updates", "update_norm") else "no weights are updated"

    def examine(self, run: Run) -> Iterator[Finding]:
        norms = run.statistic("updates", "weight_norm")[structure.weights(run, "updates", "update_norm")]
        if (broken := run.meta.broken_at) is not None and progress.ended_nonfinite(run):
            norms = norms[norms.index < broken]  # later ones are of what is left of the weights
        if norms.empty:
            return
        trained = progress.training(run)
        left = norms.iloc[-1] / norms.max().where(norms.max() > 0)
        if not self._decay(run) > 0:
            begun = norms.iloc[-1] / norms.iloc[0].where(norms.iloc[0] > 0)  # the largest may be that of an explosion
            yield from self._by_penalty(run, norms, left.combine(begun, max), trained)
            return
        if not progress.has_come(run, self.learned):
            yield from self._by_decay(run, norms, float(left.median()), trained)

    def _by_decay(
        self, run: Run, norms: pd.DataFrame, kept: float, trained: progress.Progress | None
    ) -> Iterator[Finding]:
        """What the decay of the optimiser does to weights of which `kept` is left."""
        share, penalty = self._share(run, norms), self._penalty(run, norms)
        fact = f"the weights have shrunk to {kept:.2g} of their size"
        if trained is not None and penalty > trained.now and share > self.share:
            fact = f"λ/2 · Σ w², the penalty that it stands for, is {penalty:.2g}, where the loss is {trained.now:.2g}"
        elif kept > self.shrunk:
            return
        if share > self.share or (kept < self.gone and share > self.mostly):
            said, value, threshold = f"is {share:.2g} times the {self._beside(run)}", share, self.share
        elif max(kept, alone := self._alone(run, norms)) <= self.gone:
            said, value, threshold = f"would leave {alone:.2g} of the weights", alone, self.gone
        else:
            return
        decay, usual = self._decay(run), self._is_usual(run)
        yield self.finding(
            f"weight decay alone {said}, and {fact}", steps=norms.index,
            value=value, threshold=threshold, causes=("ND501",) if usual else ("weight decay too strong",),
            fix=f"Lower the learning rate, which a weight decay of {decay:.3g} is multiplied with: that is a usual one."
            if usual else f"Try weight_decay = {decay / 10:.1g} instead of {decay:.3g}.",
            place=RATE_DECAYS if usual else "",
        )  # fmt: skip

    def _beside(self, run: Run) -> str:
        """What decay is measured beside."""
        return "gradients" if self._coupled(run) else "updates"

    def _is_usual(self, run: Run) -> bool:
        """Whether decay is one that trains well at a usual learning rate, with which it is multiplied."""
        usual = self.usual_decoupled if self._decoupled(run) else self.usual
        return not self._coupled(run) and self._decay(run) <= usual

    def _by_penalty(
        self, run: Run, norms: pd.DataFrame, left: pd.Series[float], trained: progress.Progress | None
    ) -> Iterator[Finding]:
        """What has shrunk all weights to what is `left` of their size, without any decay of the optimiser's."""
        most, known = float(left.max()), trained is not None and trained.trivial is not None
        learned = known and trained is not None and trained.value > self.learned
        held_down = known and len(left) > 1 and most < self.shrunk and float(left.median()) < self.half
        if not learned and (most < self.gone or held_down):
            own = structure.by_hand(run)
            yield self.finding(
                f"all weights have shrunk to {most:.2g} of their size or less, and the optimiser has no weight decay: a penalty "
                f"in the loss{', or the update itself,' * own} is stronger than the task",
                steps=norms.index, value=most,
                threshold=self.shrunk if held_down else self.gone, causes=("a penalty too strong", *(WEIGHTS_TIMES,) * own),
                fix="Divide the penalty that is added to the loss by 100, or leave it out.",
            )  # fmt: skip

    def _penalty(self, run: Run, norms: pd.DataFrame) -> float:
        """λ/2 · Σ w² at the end, what decay adds to the loss where gradients are followed as they are; else 0."""
        adaptive = self._decoupled(run) or self._coupled(run)
        return 0.0 if adaptive else self._decay(run) / 2 * float(np.nansum(norms.iloc[-1].to_numpy() ** 2))

    def _share(self, run: Run, norms: pd.DataFrame) -> float:
        """How many times what the gradient does decay does to the weights."""
        return self._in_gradients(run, norms) if self._coupled(run) else self._in_updates(run, norms)

    def _coupled(self, run: Run) -> bool:
        """Whether decay is added to gradients that are then divided by their own size, as of Adam without W."""
        optimizer = run.meta.optimizer
        return optimizer.get("decoupled_weight_decay") is False and structure.scale_free(str(optimizer.get("name")))

    def _alone(self, run: Run, norms: pd.DataFrame) -> float:
        """What decay would have left of the weights by now without any gradient; 1 where that is divided by its size with it."""
        if self._coupled(run):
            return 1.0
        lr = run.series("metrics", "lr", "train").reindex(norms.index).ffill()
        momentum = float(run.meta.optimizer.get("momentum") or 0.0)
        steps = np.diff(norms.index.to_numpy(), append=norms.index[-1] + 1)
        return float(np.exp(-np.nansum(lr.to_numpy() * steps) * self._decay(run) / max(1 - momentum, 1e-9)))

    def _decoupled(self, run: Run) -> bool:
        """Whether decay goes past such an optimiser, straight to the weights."""
        optimizer = run.meta.optimizer
        decoupled = optimizer.get("decoupled_weight_decay")
        return bool(decoupled or (decoupled is None and structure.scale_free(str(optimizer.get("name")))))

    def _in_gradients(self, run: Run, norms: pd.DataFrame) -> float:
        """λ · |w| over the norm of the gradient: median over weights and reads, or those of the first `early` if that is more.

        Later both shrink together, until they hold each other in balance.
        """
        gradients = run.statistic("gradients", "norm").reindex(norms.index)
        known = [name for name in norms if name in gradients]
        share = self._decay(run) * norms[known].to_numpy() / gradients[known].replace(0.0, np.nan).to_numpy()
        early = share[: self.early]
        return max(
            (float(np.median(some)) for part in (early, share) if len(some := part[np.isfinite(part)])), default=0.0
        )

    def _in_updates(self, run: Run, norms: pd.DataFrame) -> float:
        """Decay's part of the update over its norm: median over the weights and the second half of the reads."""
        lr = run.series("metrics", "lr", "train").reindex(norms.index).ffill().to_numpy()
        momentum = float(run.meta.optimizer.get("momentum") or 0.0)
        moved = run.statistic("updates", "update_norm").reindex(norms.index)[norms.columns].to_numpy()
        part = norms.to_numpy() * (lr * self._decay(run) / max(1 - momentum, 1e-9))[:, None]
        late = (part / np.where(moved > 0, moved, np.nan))[len(norms) // 2 :]
        late = late[np.isfinite(late)]
        return float(np.median(late)) if len(late) else 0.0

    def _decay(self, run: Run) -> float:
        return float(run.meta.optimizer.get("weight_decay") or 0.0)

    @classmethod
    def _run(cls, decay: float) -> Run:
        weight = np.geomspace(1.0, 0.4, 100)
        updates = {"weight_norm": {"h1.weight": weight, "output.weight": weight},
                   "update_norm": {"h1.weight": 0.02 * weight, "output.weight": 0.02 * weight}}  # fmt: skip
        optimizer = {"name": "SGD", "lr": 0.1, "momentum": 0.9, "weight_decay": decay}
        return synthetic.run(train=synthetic.decay(end=1.8), updates=updates, metrics={"lr": {"train": 0.1}},
                             optimizer=optimizer)  # fmt: skip

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(0.015)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(0.03)
