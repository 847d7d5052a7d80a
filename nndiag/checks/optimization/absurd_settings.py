"""ND508 absurd-settings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from nndiag import pretrained, progress, structure, synthetic
from nndiag.check import Check, Finding
from nndiag.run import Run


@dataclass(frozen=True)
class AbsurdSettings(Check):
    """A setting has a value with which nothing can be trained.

    A learning rate below 0 climbs the loss, a momentum of 1 or more never forgets and grows without end, and dropout of
    0.9 and more leaves a tenth of a layer, mostly because the share to keep was given for the share to drop; so it is with label
    smoothing above a half, of which a tenth is usual (Szegedy et al. 2016, section 7).

    Decides on the learning rate of every step and the one that the optimiser describes (below 0; exactly 0 is ND502's
    where it stays and ND505's where it begins so); on its momentum and betas (1 or more); and on the share that each
    dropout layer drops, measured: of what was not zero before it, more than `dropped` is zero behind it, over all reads
    (0.9 as set measures 0.89 at the least, a hundredth less behind a layer that is nearly all zero), and no more than the
    layer says that it drops; of inputs, of which zeros are not counted, what it says and what is zero behind it. A momentum
    or first beta of `long` or more whose memory of 1/(1 − m) updates is longer than the run is a matter of training, and so
    is dropout above `strong` where training comes less than `learned` of its way. Label smoothing counts above `smoothed`. So
    does, as a matter of training, the share of the latest batch in the running statistics of a batch normalisation, above
    `latest`: a tenth is PyTorch's default, and the other convention calls it a momentum of 0.9. All of it, as some who never
    evaluate have it, is a remark. Or one of `slow` or less, of which so little has come in by the end that `begun` of the
    statistics or more are still the 0 and 1 that they began with, (1 − share)^passes, where weights do not look pretrained and
    validation has come less than `learned` of its way.
    """

    code = "ND508"
    name = "absurd-settings"
    kind = "exact"
    min_reads = 1
    advice = "Go back to the usual: lr from 1e-4 to 0.1, momentum 0.9, betas (0.9, 0.999), dropout 0.1 to 0.5."
    confirm = "print(run.meta.optimizer)"
    passed = "learning rate, momentum and dropout are within what can work"

    dropped: float = 0.88
    strong: float = 0.7
    learned: float = 0.7
    long: float = 0.999
    smoothed: float = 0.5
    latest: float = 0.5
    slow: float = 0.02
    begun: float = 0.5

    def not_checked(self, run: Run) -> str | None:
        if not run.reads:
            return "needs a step of training"
        if (
            run.meta.optimizer
            or run.meta.loss.get("label_smoothing")
            or len(run.series("metrics", "lr", "train"))
            or self._dropouts(run)
            or any(layer.rate is not None for layer in run.meta.layers)
        ):
            return None
        return "needs the optimiser's settings, the learning rate or a dropout layer"

    def examine(self, run: Run) -> Iterator[Finding]:
        yield from self._learning_rate(run)
        yield from self._momentum(run)
        yield from self._dropout(run)
        yield from self._label_smoothing(run)
        yield from self._running_statistics(run)
        yield from self._slow_statistics(run)

    def _learning_rate(self, run: Run) -> Iterator[Finding]:
        rates, described = run.series("metrics", "lr", "train"), run.meta.optimizer.get("lr")
        below = rates[rates < 0]
        if len(below):
            value, first, last = float(below.min()), int(below.index[0]), int(below.index[-1])
        elif _number(described) < 0:
            value, first, last = _number(described), 0, 0
        else:
            return
        yield self.finding(
            f"the learning rate is {value:.3g}: below 0 every step goes uphill", steps=(first, last),
            value=value, threshold=0.0, causes=("a wrong sign",), fix=f"Try lr = {-value:.3g}.",
        )  # fmt: skip

    def _momentum(self, run: Run) -> Iterator[Finding]:
        betas = run.meta.optimizer.get("betas")
        betas = [_number(beta) for beta in betas] if isinstance(betas, list | tuple) else []
        momentum = max([_number(run.meta.optimizer.get("momentum")), *betas[:1]])
        if (largest := max([momentum, *betas])) >= 1:
            yield self.finding(
                f"a momentum or beta of {largest:.3g} never forgets: it must be below 1", steps=0, value=largest,
                threshold=1.0, causes=("momentum of 1 or more",), fix="Try momentum = 0.9.",
            )  # fmt: skip
        elif momentum >= self.long and (memory := 1 / (1 - momentum)) > run.steps > 0:
            yield self.finding(
                f"a momentum of {momentum:.5g} remembers {memory:,.0f} updates, and the run has {run.steps}", kind="training",
                steps=0, value=momentum, threshold=self.long, causes=("momentum too close to 1",),
                fix="Try momentum = 0.9.",
            )  # fmt: skip

    def _dropout(self, run: Run) -> Iterator[Finding]:
        zeros = run.statistic("activations", "zero_fraction")
        for layer, before in self._dropouts(run):
            given = zeros[before] if before else zeros[layer] * 0  # of the inputs it is not known how many are 0
            dropped = (zeros[layer] - given).dropna()
            alive = float((1 - given)[dropped.index].sum())
            share, told = float(dropped.sum()) / alive if alive > 0 else 0.0, run.meta.layer(layer).rate
            if told is not None:  # more than that is zero for another reason, such as a function before it that is dead
                share = min(share, told)
            if share > self.dropped or (share > self.strong and self._hardly_learns(run)):
                yield self.finding(
                    f"{layer} drops {share:.1%} of what it is given", layer=layer,
                    kind=None if share > self.dropped else "training", steps=dropped.index, value=share, threshold=self.dropped,
                    causes=("the share to keep given for the share to drop",),
                    fix=f"Try dropout = {min(1 - share, 0.5):.1g}.",
                )  # fmt: skip

    def _label_smoothing(self, run: Run) -> Iterator[Finding]:
        share = _number(run.meta.loss.get("label_smoothing"))
        if share > self.smoothed:
            yield self.finding(
                f"label smoothing of {share:.3g} spreads more of each target over all classes than it leaves with its own",
                steps=0, value=share, threshold=self.smoothed,
                causes=("the share to keep given for the share to spread",), fix="Try label_smoothing = 0.1.",
            )  # fmt: skip

    def _running_statistics(self, run: Run) -> Iterator[Finding]:
        norms = [layer for layer in run.meta.layers if layer.kind == "batch_norm" and _number(layer.rate) > self.latest]
        if norms:
            rate, more = _number(norms[0].rate), f" and {len(norms) - 1} more" if len(norms) > 1 else ""
            yield self.finding(
                f"of the running statistics of {norms[0].name}{more}, which evaluation uses, {rate:.3g} are those of the latest "
                "batch", layer=norms[0].name, kind="training" if rate < 1 else "note", steps=0, value=rate,
                threshold=self.latest, causes=("a momentum of the other convention, where it is the share of the past",),
                fix=f"Try momentum = {max(1 - rate, 0.01):.1g}.",
            )  # fmt: skip

    def _slow_statistics(self, run: Run) -> Iterator[Finding]:
        """Running statistics that are still those of the beginning when training ends."""
        rates = {layer.name: _number(layer.rate) for layer in run.meta.layers if layer.kind == "batch_norm"}
        slow = {name: rate for name, rate in rates.items() if 0 < rate <= self.slow}
        evaluated = "evaluation_mode" in run.loop and bool(run.loop["evaluation_mode"].any())
        if not slow or evaluated or pretrained.loaded(run, run.meta.parameters):
            return
        passes = float(run.loop["backward_passes"].mean()) if "backward_passes" in run.loop else 1.0
        (name, rate), more = (
            max(slow.items(), key=lambda one: one[1]),
            f" and {len(slow) - 1} more" if len(slow) > 1 else "",
        )
        begun = (1 - rate) ** (run.steps * max(1.0, passes))
        if begun < self.begun:
            return
        yield self.finding(
            f"each batch has a share of {rate:.3g} in the running statistics of {name}{more}, which evaluation uses: "
            f"after {run.steps} steps {begun:.0%} of them are still the 0 and 1 that they began with", layer=name,
            kind="note" if self._borne(run) else "generalisation", steps=0, value=rate, threshold=self.slow,
            causes=("a momentum of the other convention, where it is the share of the past",),
            fix="Try momentum = 0.1, the share of the latest batch.",
        )  # fmt: skip

    def _borne(self, run: Run) -> bool:
        """Whether there is a validation, and it has come most of its way all the same."""
        validated = progress.validation(run)
        return validated is not None and validated.value >= self.learned

    def _hardly_learns(self, run: Run) -> bool:
        made = progress.training(run)
        return made is not None and made.trivial is not None and made.value < self.learned

    def _dropouts(self, run: Run) -> list[tuple[str, str]]:
        """Dropout layers, each with the layer before it, or "" for one that drops inputs and says how many."""
        layers = ["", *structure.recorded(run, "zero_fraction")]
        found = [(b, a) for a, b in pairwise(layers) if structure.kind(run, b) == "dropout"]
        return [(layer, before) for layer, before in found if before or run.meta.layer(layer).rate is not None]

    @classmethod
    def _run(cls, zeros: float) -> Run:
        layers = [{"name": "h1", "kind": "affine"}, {"name": "h1.relu", "kind": "relu"},
                  {"name": "h1.dropout", "kind": "dropout"}, {"name": "output", "kind": "affine"}]  # fmt: skip
        fractions = {"h1": 0.0, "h1.relu": 0.5, "h1.dropout": 0.5 + 0.5 * zeros, "output": 0.0}
        return synthetic.run(activations={"zero_fraction": fractions}, layers=layers)

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(0.85)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(0.9)


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and np.isfinite(value) else 0.0
