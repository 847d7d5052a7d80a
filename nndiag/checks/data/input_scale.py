"""ND002 input-scale."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nndiag import progress, synthetic
from nndiag.check import Check, Finding
from nndiag.objective import LEARNED, Objective
from nndiag.run import Run
from nndiag.samples import SQUEEZED
from nndiag.structure import NORMS


@dataclass(frozen=True)
class InputScale(Check):
    """The inputs are far from zero mean and unit scale, or one feature drowns the others.

    Gradients of the first layer are proportional to its inputs, so no learning rate suits features whose scales are
    thousands apart, and large or strongly shifted inputs blow up the first updates (LeCun, Bottou, Orr & Müller 1998,
    section 4.3). Whoever forgot to divide pixels by 255, or fed a raw column of incomes, sees this.

    Decides on the features over all batches so far: the root mean square of the inputs that are not zero (of sparse
    inputs most are) outside `low` … `high`; or a feature whose mean is above 3 and more than `shift` times its
    standard deviation, or half of all features shifted so far around any mean; or one whose standard deviation is
    more than `spread` times the lower quartile of all: the curvature of the loss then differs by its square. Or a feature of the
    first 512 samples whose smallest or largest value is that of several, and whose others lie so close together that they vary
    less than `squeezed` times as much as all do (`nndiag.samples`): a code such as -9999 for what is missing, left in before the
    features were standardised. Where training and validation come half of their way all the same, that is a remark.
    Standardised inputs have RMS 1, 0–1 pixels about 0.5, 0–16 pixels about 9, word shares 0.1: all pass. Small
    inputs, such as embeddings of unit length, are a remark where training has come half of its way all the same.
    Features that keep to one value in 99 % of the samples and 0/1 indicators do not count, and a network that begins
    with a normalisation layer is exempt. Values that are not finite belong to ND001.
    """

    code = "ND002"
    name = "input-scale"
    kind = "training"
    needs = ("data.nonzero_rms",)
    min_reads = 1
    advice = "Standardise each feature with the training set's numbers: x = (x - mean) / std."
    confirm = "print(x.mean(axis=0), x.std(axis=0))"
    passed = "input features are of like scale, near 1"

    low: float = 0.08
    high: float = 20.0
    shift: float = 10.0
    spread: float = 100.0
    samples: int = 20
    squeezed: float = SQUEEZED

    def not_checked(self, run: Run) -> str | None:
        seen = run.latest("data", "samples", "input")
        if seen is not None and seen < self.samples:
            return f"needs {self.samples} samples, has seen {seen:.0f}"
        if run.meta.layers and run.meta.layers[0].kind in (*NORMS, "embedding"):
            return f"the network begins with a layer of kind {run.meta.layers[0].kind}, which takes any scale"
        return super().not_checked(run)

    def examine(self, run: Run) -> Iterator[Finding]:
        step = int(run.data.index[0])
        last = int(run.data.index[-1])
        spread, shift = run.latest("data", "feature_spread", "input"), run.latest("data", "feature_shift", "input")
        rms = float(run.series("data", "nonzero_rms", "input").median())
        squeezed = run.latest("data", "code_spread", "input")
        if squeezed is not None and squeezed < self.squeezed:
            yield self._coded(run, squeezed)
        elif spread is not None and spread > self.spread:
            widest = run.latest("data", "widest_feature", "input") or 0
            yield self.finding(
                f"feature {widest:.0f} (from 0) varies {spread:.2g} times as much as the others",
                steps=(step, last), value=spread, threshold=self.spread,
            )  # fmt: skip
        elif shift is not None and shift > self.shift:
            feature = run.latest("data", "shifted_feature", "input") or 0
            yield self.finding(
                f"feature {feature:.0f} (from 0) has a mean {shift:.2g} times its standard deviation",
                steps=(step, last), value=shift, threshold=self.shift,
            )  # fmt: skip
        elif not self.low <= rms <= self.high:
            yield self.finding(
                f"the inputs that are not zero have a root mean square of {rms:.2g}, outside {self.low:g} … {self.high:g}",
                kind="note" if rms < self.low and self._mastered(run) else None,
                steps=(step, last), value=rms, threshold=self.high if rms > self.high else self.low,
            )  # fmt: skip

    def _coded(self, run: Run, squeezed: float) -> Finding:
        """What is said of a feature in which a code for what is missing squeezes all other values."""
        code, share, feature = (
            run.latest("data", f"code{name}", "input") or 0.0 for name in ("", "_fraction", "_feature")
        )
        return self.finding(
            f"feature {feature:.0f} (from 0) is {code:.4g} in {share:.1%} of the first samples, far from the others, which vary "
            f"{squeezed:.2g} times as much as all do: that looks like a code for what is missing",
            kind="note" if self._mastered(run) else None, steps=run.data.index,
            value=squeezed, threshold=self.squeezed, causes=("a code such as -9999 for what is missing",),
            fix="Fill in what is missing, as with the mean, before features are standardised, and add a feature that says so.",
            confirm="print(x.min(axis=0), x.max(axis=0), np.median(x, axis=0))",
        )  # fmt: skip

    def _mastered(self, run: Run) -> bool:
        """Whether training, and validation where there is one, have come half of the way."""
        validated = progress.validation(run)
        return Objective(run).learned and (validated is None or validated.value > LEARNED)

    @classmethod
    def _run(cls, spread: float) -> Run:
        data = {"nonzero_rms": {"input": 1.0}, "feature_spread": {"input": spread}, "feature_shift": {"input": 2.0},
                "widest_feature": {"input": 7.0}, "samples": {"input": 640.0}}  # fmt: skip
        return synthetic.run(data=data)

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(60.0)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(180.0)
