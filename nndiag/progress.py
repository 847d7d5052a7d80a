"""How far a loss has come, between where it started and the best it could do, and whether that beats a trivial predictor.

Judged once, here, for all checks: it is the only road from a warning to a failure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np

from nndiag import signals
from nndiag.losses import ABSOLUTE, DIVERGENCES, NO_ENTROPY, SQUARED, WEIGHTED, named, plain, smoothed_floor
from nndiag.run import Run
from nndiag.statistics import Array

READS = 50
"""Training losses that a judgement on training progress needs."""

LEAST = 0.02
"""Share of the way from the trivial loss to the floor below which nothing was learned. Untrained networks lie up to 1 %
below the trivial loss by chance. Two standard errors instead would be less than that in a long run, and more than a weak
but real signal in a short, noisy one."""

EVALUATIONS = 3
"""Validation losses that a judgement on validation progress needs."""


@dataclass(frozen=True)
class Progress:
    """Start, floor, best and present loss (each smoothed), and the standard error of the present one.

    `start` is the lower of the first reads and the trivial predictor's loss: inputs × 255 give first losses of 1e9 and a
    run that ends at ln 10, which from those reads alone would look like a progress of 1.
    """

    start: float
    now: float
    best: float
    error: float
    floor: float
    trivial: float | None

    @property
    def value(self) -> float:
        """(start − now) / (start − floor): 0 for nothing learned, 1 for all there is; negative for a loss of ground."""
        return self._of(self.now)

    @property
    def best_value(self) -> float:
        """The same of the best smoothed loss."""
        return self._of(self.best)

    def _of(self, loss: float) -> float:
        span = self.start - self.floor
        return (self.start - loss) / span if span > 0 and math.isfinite(loss) else -math.inf

    @property
    def poor(self) -> bool | None:
        """Whether the loss is not below the trivial predictor's by `LEAST` of the way; None where that is not known."""
        return None if self.trivial is None else not self.now < self.trivial - LEAST * (self.trivial - self.floor)


def training(run: Run) -> Progress | None:
    """Progress of the training loss; None with fewer than `READS` reads, and where the loss is `no_measure` of it.

    A run that ends in NaN has none left.
    """
    train = run.train
    if no_measure(run):
        return None
    if ended_nonfinite(run):
        start = float(np.median(train.to_numpy()[:5])) if len(train) else math.inf
        known = trivial(run)
        return Progress(min(start, known or start), math.inf, start, 0.0, floor(run), known)
    window = max(20, len(train) // 10)
    return _progress(run, train.to_numpy(), window, window) if len(train) >= READS else None


def is_poor(run: Run) -> bool:
    """Whether training is known to come to nothing (`Progress.poor`)."""
    made = training(run)
    return made is not None and made.poor is True


def beats_guess(run: Run) -> bool:
    """Whether training is known to cost less than a trivial prediction, by `LEAST` of the way (`Progress.poor`)."""
    made = training(run)
    return made is not None and made.poor is False


def has_come(run: Run, share: float) -> bool:
    """Whether training is known to have come more than `share` of its way (`Progress.value`)."""
    made = training(run)
    return made is not None and made.value > share


def fault_if_poor(run: Run) -> Literal["training", "note"]:
    """Kind of a finding on what does no harm unless training comes to nothing: a remark till then."""
    return "training" if is_poor(run) else "note"


class Term(NamedTuple):
    """How far the loss that the run names has come among other terms of the number, by outputs and targets.

    `now` is its mean after the first third of the run, `trivial` what a constant prediction costs; `fallen` is by how much it has
    come down since the first five values, and `rest` by how much more the number has.
    """

    now: float
    trivial: float
    fallen: float
    rest: float


def of_term(run: Run) -> Term | None:
    """None where the number holds nothing else or is `no_measure`, of fewer than `EVALUATIONS` values, and with weights."""
    loss, number, (name, others) = run.meta.loss, run.train, named(run.meta.loss)
    values, known = run.series("outputs", "term", "outputs").dropna(), _constant(run, name)
    if not others or not known or not len(values) or no_measure(run) or takes_turns(run):
        return None
    third = number.index[-1] / 3
    late = values[values.index >= third]
    if len(late) < EVALUATIONS or any(loss.get(key) is not None for key in (*WEIGHTED, "ignored")):
        return None
    fallen = max(0.0, float(values.iloc[:5].median() - late.mean()))
    whole = float(number.iloc[:5].median() - number[number.index >= third].mean())
    return Term(float(late.mean()), known, fallen, whole - fallen)


def validation(run: Run) -> Progress | None:
    """Progress of the validation loss; None with fewer than `EVALUATIONS` evaluations.

    It starts at the trivial loss where that is known: the first evaluation comes after training has begun.
    """
    losses, known = run.validation.to_numpy(), trivial(run)
    if len(losses) < EVALUATIONS:
        return None
    made = _progress(run, losses, max(EVALUATIONS, len(losses) // 10), EVALUATIONS)
    return made if known is None else replace(made, start=known)


OUTLYING = 5.0
"""Times what the loss usually is above its floor that its mean may be: more is due to a few samples of huge targets, of which
neither the mean of some reads nor the variance of some targets says much."""


def _progress(run: Run, losses: Array, tail: int, window: int) -> Progress:
    """Progress with the last `tail` reads as the present, and the best mean of `window` reads as the best."""
    last = signals.blocks(losses[-tail:])
    error = float(last.std(ddof=1)) / math.sqrt(len(last)) if len(last) > 1 else 0.0
    smooth = np.convolve(losses, np.full(window, 1 / window), "valid")
    known, early, now, least = trivial(run), float(np.median(losses[:5])), float(last.mean()), floor(run)
    usual = float(np.median(losses[-tail:]))
    if now - least > OUTLYING * (usual - least) > 0:
        now, error = usual, 0.0
    start = min(early, known if known is not None else early)
    return Progress(start, now, min(now, float(smooth.min())), error, least, known)


def no_measure(run: Run) -> str | None:
    """Why the value of the loss says nothing of how far training has come; None where it does.

    So it is where samples are weighed by numbers of either sign, as a policy gradient does (Williams 1992): it may then be
    negative, and has no floor. And where another network is trained against this one (Goodfellow et al. 2014): it goes up
    where the other gets better. And where the targets are not those of the beginning, as of a network that makes them for itself
    (Mnih et al. 2015): it goes up with each copy of that network. And where the optimiser is told to maximise: it is to go up.
    And where the loss was another one before, as of a network that is trained in two phases.
    """
    if run.meta.loss_since is not None:
        return f"the loss is another one from step {run.meta.loss_since} on"
    if run.meta.optimizer.get("maximize"):
        return "the optimiser is told to maximise: the loss is to grow"
    if run.meta.loss.get("adversarial"):
        return "another network is trained against this one: what the loss is worth depends on how that one does"
    scale, negative = run.meta.loss.get("scale", 1.0), ((run.train < 0) & np.isfinite(run.train)).any()
    if run.meta.loss.get("signed_weights") or (scale is None and negative):
        return "samples are weighed by numbers that may be negative, as of a policy gradient: the loss has no floor"
    if _targets_move(run):
        return "the targets move as training goes on, as those that a network makes for itself: so does the loss"
    return None


def _targets_move(run: Run) -> bool:
    """Whether the mean of real targets is not where it was at first, by their own standard deviation and far beyond chance."""
    means, variances = run.series("data", "mean", "target"), run.series("data", "variance", "target")
    rows = run.series("outputs", "rows", "outputs")
    if run.meta.loss.get("task") != "real" or len(means) < 4 * MOVED or not len(rows):
        return False
    moved = abs(float(means.iloc[-MOVED:].median() - means.iloc[:MOVED].median()))
    return moved > max(1.0, 4 / math.sqrt(float(rows.median()))) * math.sqrt(float(variances.median()))


MOVED = 5
"""First and last reads of which the median is taken to see whether targets move."""


STEADY = 10
"""Validations of which it says something that each is better than the last: in the first handful of epochs each is in any
sound run, too."""

GAIN, PACE = 0.05, 0.6
"""A loss still falls where its last fifth gained so much of the way, or where it falls at so much of its mean pace."""


def unfinished(run: Run) -> float | None:
    """Share of its way that the loss has left, if the training loss still falls clearly at the end; None if it does not.

    What is left is what training and validation agree on, the smaller of both: dropout and augmentation hold the training
    loss up, and data that are hard to generalise from the validation loss.

    It falls if the last fifth gained `GAIN` of the way over the fifth before, by three standard errors, so that as many
    updates again would gain five times that; or if the second half falls at `PACE` of the mean pace or more, as an exponential
    does that has gone no further than three quarters of its way; or if each of `STEADY` validations or more was better than the
    last, and their last quarter gained `GAIN`. Where the loss is above a trivial prediction's to the end, as it is of words
    before their frequencies are learned, its pace is that of the loss itself, by three standard errors. None, too, with fewer
    than 10 reads, and of a run that still goes on: it has not come to an end that it could have missed.
    """
    losses = run.train.to_numpy()
    fifth, known = len(losses) // 5, trivial(run)
    if fifth < 2 or run.meta.ended == "running" or ended_nonfinite(run):
        return None
    start = begin(run)
    older, newer, span = losses[-2 * fifth : -fifth], losses[-fifth:], start - floor(run)
    if not span > 0 or no_measure(run):
        return None
    error = float(np.std(np.diff(losses[-2 * fifth :]))) / math.sqrt(fifth)
    gain, left = float(older.mean() - newer.mean()), (float(newer.mean()) - floor(run)) / span
    steep = gain > max(GAIN * span, 3 * error)
    steep = steep or (1 - left > LEAST and signals.pace(np.minimum(losses, start)) > PACE)
    above = known is not None and float(newer.mean()) > known
    steep = steep or (above and gain > 3 * error and signals.pace(losses) > PACE)
    left = min(left, ahead(run, start))
    return left if steep or (steady(run) and _last_gain(run.validation.to_numpy()) > GAIN * span) else None


def begin(run: Run) -> float:
    """Where the way of the loss begins: at its first reads, or where a guess is cheaper, of even or of the true frequencies.

    An untrained classifier of C classes guesses evenly, at ln C, however rare some of them are.
    """
    early, known = float(np.median(run.train.to_numpy()[:5])), trivial(run)
    return early if known is None else min(early, max(known, even(run)))


def even(run: Run) -> float:
    """Loss of the guess that every class is as likely as any other: ln C, or ln 2 for each label; 0 of other losses."""
    loss = run.meta.loss
    if loss.get("task") == "binary":
        weights, shares = class_weights(run) or (np.ones(1), np.ones(1))
        return math.log(2.0) * float(weights.dot(shares))
    width = run.latest("outputs", "width", "outputs") or 1.0
    return math.log(max(1.0, width)) if loss.get("task") == "classes" else 0.0


def ahead(run: Run, start: float) -> float:
    """Share of the way from `start` to the floor that the last validation loss has left; infinite without any."""
    validation, way = run.validation.to_numpy(), start - floor(run)
    return (float(validation[-1]) - floor(run)) / way if len(validation) and way > 0 else math.inf


def steady(run: Run, least: int = STEADY) -> bool:
    """Whether each of `least` validations or more was better than the one before.

    The first may be better than the second: running statistics of a normalisation have then hardly begun.
    """
    losses = run.validation.to_numpy()
    return any(len(part) >= least and signals.descends(part) for part in (losses, losses[1:]))


def _last_gain(validation: Array) -> float:
    """By how much the validation loss has fallen over its last quarter."""
    return float(validation[-1 - len(validation) // 4] - validation[-1])


def underway(run: Run) -> bool:
    """Whether the run goes on and its training loss falls: what is poor now may be good at the end.

    It falls if the mean of the last third of the reads is below that of the third before, by two standard errors: what is
    slow gets the benefit of the doubt.
    """
    losses = run.train.to_numpy()
    third = len(losses) // 3
    if third < 2 or run.meta.ended != "running" or ended_nonfinite(run):
        return False
    error = float(np.std(np.diff(losses[-2 * third :]))) / math.sqrt(third)
    return float(losses[-2 * third : -third].mean() - losses[-third:].mean()) > 2 * error


def closing(run: Run) -> bool:
    """Whether a loss that is above a trivial prediction's still falls so fast that as many updates again take it clearly below.

    It then fell by `GAIN` of the way or more, by three standard errors, from the last fifth of the reads but one to the last,
    and both are below the first loss: a network that starts far from the frequencies of its labels, as of rare pixels, is on
    its way to them and no failure. One that comes back from where a step threw it is.
    """
    losses, known = run.train.to_numpy(), trivial(run)
    fifth = len(losses) // 5
    if fifth < 2 or known is None or ended_nonfinite(run):
        return False
    older, now, span = float(losses[-2 * fifth : -fifth].mean()), float(losses[-fifth:].mean()), known - floor(run)
    error = float(np.std(np.diff(losses[-2 * fifth :]))) / math.sqrt(fifth)
    steep = losses[0] > older and older - now > max(GAIN * span, 3 * error)
    return steep and now - 5 * (older - now) < known - LEAST * span


def ended_nonfinite(run: Run) -> bool:
    """Whether no finite training loss follows the first non-finite one."""
    broken, train = run.meta.broken_at, run.train
    return broken is not None and (not len(train) or int(train.index[-1]) <= broken)


def takes_turns(run: Run) -> bool:
    """Whether several objectives take turns, each with backward passes and an update of its own, in an iteration or one by one.

    So do adversaries, and where neither wins the loss of one stands at what guessing costs (Goodfellow et al. 2014).
    """
    loop = run.loop
    if "backward_passes" not in loop or "updates" not in loop:
        return False
    counts = loop[["backward_passes", "updates"]].to_numpy(float)
    passes, updates = counts[np.isfinite(counts).all(axis=1)].T
    if not len(passes):
        return False
    if run.meta.optimizer.get("in_turn"):  # each update is an iteration, unless one pass is behind several
        return bool(np.mean(passes < updates) < 0.1)
    return bool(np.mean((passes >= updates) & (updates >= 2)) > 0.5)


def trivial(run: Run) -> float | None:
    """Loss of the best constant prediction: entropy of the labels, variance or mean absolute deviation of real targets.

    None where it is not known, and where objectives take turns.
    """
    loss, name = run.meta.loss, plain_name(run)
    if "trivial" in loss:
        return float(loss["trivial"])
    if takes_turns(run):
        return None
    if not _plain_mean(run):
        return None
    if any(loss.get(key) is not None for key in WEIGHTED):
        return _weighed(run)
    known = _constant(run, name)
    if loss.get("task") in ("classes", "binary") and name not in NO_ENTROPY:
        smoothing, classes = _smoothing(run)
        # Smoothed labels come close to the mixture of the label distribution with the uniform one: entropy is concave
        return known if known is None or not smoothing else (1 - smoothing) * known + smoothing * math.log(classes)
    return known


def _constant(run: Run, name: str) -> float | None:
    """What the best constant prediction costs by the loss of that plain name: entropy, variance or absolute deviation."""
    if run.meta.loss.get("task") in ("classes", "binary") and name not in NO_ENTROPY:
        return run.latest("data", "entropy", "target") or None  # of a single class, 0: nothing to be told apart
    statistic = {"total_variance": SQUARED, "absolute_deviation": ABSOLUTE}
    return next((run.latest("data", which, "target") for which, names in statistic.items() if name in names), None)


def _weighed(run: Run) -> float | None:
    """Loss of the best constant prediction where classes have weights: the entropy of their weighed shares.

    Divided by the mean weight of the samples, as PyTorch's cross-entropy with `weight` does; with `pos_weight` and where the
    weights were measured it is not.
    """
    if (known := class_weights(run)) is None:
        return None
    seen = known[0] * known[1]
    shares = seen[seen > 0] / seen.sum()
    entropy = -float(shares.dot(np.log(shares)))  # of a single class, 0: nothing to be told apart
    return entropy * (1.0 if run.meta.loss.get("weight") else float(seen.sum())) or None


def class_weights(run: Run) -> tuple[Array, Array] | None:
    """The weight of each class in the loss and its share among the samples; None without weights of classes that are known.

    They are known as `weight` of a loss over classes, as `pos_weight` of a single output, the weight of the label 1, and
    as `class_weights` where they were measured (`nndiag.weighing`).
    """
    loss, task = run.meta.loss, str(run.meta.loss.get("task"))
    given = [key for key in WEIGHTED if loss.get(key) is not None]
    if given not in (["class_weights"], {"classes": ["weight"], "binary": ["pos_weight"]}.get(task)):
        return None
    weights = loss[given[0]]
    if not isinstance(weights, list) or loss.get("label_smoothing"):
        return None
    if given == ["pos_weight"]:
        weights = [1.0, *weights]
    if task == "binary" and len(weights) != 2:
        return None
    by_class = np.array(weights)
    counts = np.array([run.series("data", "count", f"label {label}").sum() for label in range(len(by_class))])
    return (by_class, counts / counts.sum()) if counts.sum() else None


def _plain_mean(run: Run) -> bool:
    """Whether the recorded number is the mean of what the loss's name stands for: no sum, no multiple, no other terms."""
    return run.meta.loss.get("reduction") != "sum" and run.meta.loss.get("scale", 1.0) == 1.0


def plain_name(run: Run) -> str:
    """Name of the loss in lower case, letters and digits only."""
    return plain(str(run.meta.loss.get("name") or ""))


def floor(run: Run) -> float:
    """Lowest loss there is: 0, the entropy of a smoothed label, or a bound of that of targets that are probabilities."""
    if "floor" in run.meta.loss:
        return float(run.meta.loss["floor"])
    if not _plain_mean(run):
        return 0.0
    smoothing, classes = _smoothing(run)
    return max(smoothed_floor(smoothing, classes), 0.0 if plain_name(run) in DIVERGENCES else _entropy_of_rows(run))


def _entropy_of_rows(run: Run) -> float:
    """What the entropy of targets that are rows of probabilities exceeds, over the last reads: -log Σ p² (Rényi 1961)."""
    names = ("width", "mean", "variance", "row_sum_min", "row_sum_max")
    reads = [run.series("outputs", name, "targets").iloc[-EVALUATIONS:] for name in names]
    if run.meta.loss.get("task") != "classes" or not all(map(len, reads)):
        return 0.0
    width, mean, variance, low, high = (float(values.median()) for values in reads)
    if width < 2 or abs(low - 1) > 1e-3 or abs(high - 1) > 1e-3:
        return 0.0
    return max(0.0, -math.log(width * (variance + mean * mean)))


def _smoothing(run: Run) -> tuple[float, float]:
    return float(run.meta.loss.get("label_smoothing") or 0.0), run.latest("outputs", "width", "outputs") or 1.0
