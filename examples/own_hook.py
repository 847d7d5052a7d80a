"""A hook of your own: the cosine between one step's gradient and the next, logged so that it lands in `run.metrics`.

Near 1, successive batches agree on the way downhill and the learning rate could grow; near 0, noise rules; clearly
below 0, the steps jump to and fro across a valley. Written once, the hook works beside nndiag's own hooks, and alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

import nndiag
from nndiag import nn
from nndiag.datasets import digits
from nndiag.hooks import ParameterLike, default_hooks
from nndiag.statistics import Array


class GradientCosine(nndiag.Hook):
    """Logs the metric `gradient_cosine`: of the angle between the gradients, over all parameters, of two steps in a row."""

    def __init__(self) -> None:
        self._previous: Array | None = None

    def on_gradients(self, parameters: Sequence[ParameterLike]) -> None:
        # Hooks may not keep the loop's arrays, which the next step overwrites; concatenate makes a copy.
        gradient = np.concatenate([parameter.gradient.ravel() for parameter in parameters])
        if self._previous is not None:
            lengths = float(np.linalg.norm(gradient) * np.linalg.norm(self._previous))
            self.recorder.log(gradient_cosine=float(gradient @ self._previous) / lengths if lengths else 0.0)
        self._previous = gradient


def trainer(lr: float, hooks: Sequence[nndiag.Hook] = ()) -> nn.Trainer:
    """A small classifier of digits, the same at every call but for its learning rate."""
    return nn.Trainer(nn.MLP([64, 32, 10], seed=0), nn.SoftmaxCrossEntropy(), nn.SGD(lr=lr), hooks=hooks)


def beside_the_others() -> nndiag.Run:
    """A watched training with the default hooks and one more: its column stands among the other metrics."""
    x, y, x_val, y_val = digits()
    watched = trainer(lr=0.1)
    with nndiag.watch(watched, hooks=[*default_hooks(), GradientCosine()], every=1) as recorder:
        watched.fit(x, y, validation=(x_val, y_val), epochs=10, batch_size=64)
    return recorder.run


def alone(lr: float) -> float:
    """Median cosine of a training that carries this hook and nothing else: no `watch`, no report, only `hook.frame`."""
    x, y, *_ = digits()
    hook = GradientCosine()
    trainer(lr, hooks=[hook]).fit(x, y, epochs=20, batch_size=len(x))
    return float(hook.frame["gradient_cosine", "train"].median())


def main() -> None:
    run = beside_the_others()
    print("Metrics of the first and the last steps, the hook's own among them:")
    metrics = run.metrics.xs("train", axis=1, level="split")[["lr", "gradient_cosine"]].dropna(how="all")
    print(metrics.iloc[[0, 1, 2, -2, -1]].round(3))
    print(f"\n{nndiag.Checklist().examine(run).verdict.label}: the checks read the run as they would without it")

    print("\nAlone, on all of the data at every step:")
    for lr in (0.1, 0.5, 1.0):
        print(f"  lr = {lr}  median cosine {alone(lr):+.2f}")


if __name__ == "__main__":
    main()
