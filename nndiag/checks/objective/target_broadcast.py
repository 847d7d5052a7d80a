"""ND107 target-broadcast."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nndiag import synthetic
from nndiag.check import Check, Finding
from nndiag.objective import Objective
from nndiag.run import Run
from nndiag.statistics import Array


@dataclass(frozen=True)
class TargetBroadcast(Check):
    """Outputs (N, 1) and targets (N,) are broadcast against each other: the loss compares every output with every target.

    NumPy, PyTorch and TensorFlow make an N × N array of the two without an error. The best that such a loss can teach is the
    mean of the targets, whatever the input. So it is where a cross-entropy written out, −Σ y log p, gets the ids of classes
    (N, 1) and wants one-hot rows: the id multiplies the logarithms of all classes alike.

    Decides on the loss itself: where the shapes that went into it are known, on them (N and N × 1, or the reverse, N of 2
    or more), and on whole numbers (N, 1) that multiply log p of three classes or more. Else on its value: on at least 3
    reads it agrees to `agreement` with the mean square over all N × N pairs (the two variances plus the squared distance of
    the means), and differs from that over the N true pairs by `apart` or more, both relative. The first is the rounding of
    float32, the second a hundred times that.
    """

    code = "ND107"
    name = "target-broadcast"
    kind = "exact"
    needs = ("outputs.squared_error", "losses.train")
    min_reads = 3
    advice = "Give both the same shape: y = y.reshape(-1, 1), or outputs.squeeze(1)."
    confirm = "print(model.forward(x[:8]).shape, y[:8].shape)"
    passed = "each output is compared with its own target"

    agreement: float = 1e-4
    apart: float = 1e-2

    def not_checked(self, run: Run) -> str | None:
        if self._shapes(run) or self._classes(run):
            return None
        single = Objective(run).width == 1
        if len(run.outputs) and not single:
            return "needs a single output unit: others do not broadcast unseen"
        return super().not_checked(run)

    def examine(self, run: Run) -> Iterator[Finding]:
        if shapes := self._shapes(run):
            yield self.finding(
                f"outputs of shape {shapes[0]} meet targets of shape {shapes[1]}: each of the N is compared with all N",
                fix="Give both the same shape: targets.unsqueeze(1), or outputs.squeeze(1).",
            )  # fmt: skip
            return
        if classes := self._classes(run):
            yield self.finding(
                f"targets of shape (N, 1) multiply log p of all {classes} classes: the ids are taken for one-hot rows",
                fix=f"Give the loss one_hot(targets.squeeze(1), {classes}), or use the cross-entropy that takes ids.",
            )  # fmt: skip
            return
        loss, pairs, product = self._values(run)
        with np.errstate(all="ignore"):
            bad = (np.abs(loss - product) <= self.agreement * product) & (np.abs(loss - pairs) > self.apart * pairs)
        if bad.sum() >= self.min_reads and bad.mean() > 0.25:
            first, last = Objective(run).steps
            at = int(np.argmax(bad))
            yield self.finding(
                f"the loss is {loss[at]:.4g}, the mean over all pairs of outputs and targets; over the true pairs it is "
                f"{pairs[at]:.4g}",
                steps=(first, last), value=float(loss[at]), threshold=float(pairs[at]),
            )  # fmt: skip

    def _shapes(self, run: Run) -> list[str]:
        """Shapes of outputs and targets that were broadcast against each other, as the loss was seen to do."""
        shapes = run.meta.loss.get("broadcast") or []
        return [str(shape) for shape in shapes] if len(shapes) == 2 else []

    def _classes(self, run: Run) -> int:
        """Number of classes whose logarithms the id of one multiplies, as the loss was seen to do; 0 where it does not."""
        classes = run.meta.loss.get("ids_multiply")
        return classes if isinstance(classes, int) else 0

    def _values(self, run: Run) -> tuple[Array, Array, Array]:
        """By read: the loss, the squared error over true pairs, and over all pairs."""
        frame = run.outputs
        columns = [("mean", "outputs"), ("variance", "outputs"), ("mean", "targets"), ("variance", "targets"),
                   ("squared_error", "outputs")]  # fmt: skip
        if any(column not in frame.columns for column in columns):
            return np.empty(0), np.empty(0), np.empty(0)
        mean, variance, target_mean, target_variance = (frame[column].to_numpy() for column in columns[:4])
        product = variance + target_variance + (mean - target_mean) ** 2
        loss = run.losses["train"].reindex(frame.index).to_numpy()
        return loss, frame["squared_error", "outputs"].to_numpy(), product

    @classmethod
    def _run(cls, loss: float) -> Run:
        outputs: synthetic.Statistics = {
            "width": {"outputs": 1.0}, "mean": {"outputs": 0.0, "targets": 1.0}, "squared_error": {"outputs": 1.97},
            "variance": {"outputs": 0.5, "targets": 0.5},
        }  # fmt: skip
        return synthetic.run(train=loss, outputs=outputs, loss={"name": "MSE", "task": "real"})

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(2.0003)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(2.0001)
