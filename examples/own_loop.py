"""A training loop written by hand in NumPy, without any framework, that tells a Recorder what it does.

Everything that nndiag needs is in the lines that begin with `recorder`; leave one out, and the checks that would have
read it say NOT CHECKED, with the reason.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

import nndiag
from nndiag.datasets import digits

Array = NDArray[np.float32]
Parameters = dict[str, Array]

HIDDEN, CLASSES, BATCH, EPOCHS, LR = 64, 10, 64, 15, 0.2


def initialise(features: int, rng: np.random.Generator) -> Parameters:
    """Weights (out, in) from He's normal distribution, biases 0."""
    return {
        "h1.weight": rng.normal(0, np.sqrt(2 / features), (HIDDEN, features)).astype(np.float32),
        "h1.bias": np.zeros(HIDDEN, np.float32),
        "output.weight": rng.normal(0, np.sqrt(2 / HIDDEN), (CLASSES, HIDDEN)).astype(np.float32),
        "output.bias": np.zeros(CLASSES, np.float32),
    }


def forward(x: Array, w: Parameters) -> tuple[Array, Array, Array]:
    """What the hidden layer computes before and after ReLU, and the logits."""
    z = x @ w["h1.weight"].T + w["h1.bias"]
    h = np.maximum(z, 0)
    return z, h, h @ w["output.weight"].T + w["output.bias"]


def cross_entropy(logits: Array, y: NDArray[np.int64]) -> tuple[float, Array]:
    """Mean loss of the batch, and its gradient with respect to the logits."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    gradient = np.exp(log_p)
    gradient[np.arange(len(y)), y] -= 1
    return float(-log_p[np.arange(len(y)), y].mean()), gradient / np.float32(len(y))


def describe(recorder: nndiag.Recorder, w: Parameters) -> None:
    """Tell once what is trained: it decides which checks apply, and lets them name layers and the numbers to use."""
    recorder.describe(
        name="own-loop",
        layers=[
            {"name": "h1", "kind": "affine", "shape": [HIDDEN]},
            {"name": "h1.relu", "kind": "relu", "shape": [HIDDEN]},
            {"name": "output", "kind": "affine", "shape": [CLASSES]},
        ],
        parameters=[
            {"name": name, "kind": name.rpartition(".")[2], "shape": value.shape, "layer": name.rpartition(".")[0]}
            for name, value in w.items()
        ],
        loss={"name": "softmax cross-entropy", "task": "classes", "expects": "logits"},
        optimizer={"name": "SGD", "lr": LR},
        batch_size=BATCH,
    )


def main() -> None:
    x_train, y_train, x_val, y_val = digits()
    rng = np.random.default_rng(0)
    w = initialise(x_train.shape[1], rng)

    with nndiag.Recorder(every=1) as recorder:  # Recorder(run="runs/x") would write a run folder
        describe(recorder, w)
        recorder.validation_data(x_val, y_val)
        for epoch in range(EPOCHS):
            recorder.begin_epoch(epoch)
            for rows in np.split(rng.permutation(len(x_train)), range(BATCH, len(x_train), BATCH)):
                x, y = x_train[rows], y_train[rows]
                recorder.data(x, y)

                z, h, logits = forward(x, w)
                recorder.activation("h1", z)
                recorder.activation("h1.relu", h)
                recorder.activation("output", logits)

                loss, d_logits = cross_entropy(logits, y)
                recorder.outputs(logits, y)
                recorder.output_gradient(d_logits)
                recorder.log(loss=loss, lr=LR)

                d_h = d_logits @ w["output.weight"]
                d_z = d_h * (z > 0)
                gradients = {
                    "h1.weight": d_z.T @ x,
                    "h1.bias": d_z.sum(axis=0),
                    "output.weight": d_logits.T @ h,
                    "output.bias": d_logits.sum(axis=0),
                }
                for name, delta in (("output", d_logits), ("h1.relu", d_h), ("h1", d_z)):
                    recorder.activation_gradient(name, delta)

                for name, gradient in gradients.items():
                    recorder.gradient(name, gradient, weights=w[name])
                    recorder.before_update(name, w[name])
                    w[name] -= np.float32(LR) * gradient
                    recorder.after_update(name, w[name], gradient)
                recorder.step()

            logits = forward(x_val, w)[2]
            right = float((logits.argmax(axis=1) == y_val).mean())
            recorder.log(validation_loss=cross_entropy(logits, y_val)[0], validation_accuracy=right)

    print(f"accuracy on the validation data: {right:.3f}\n")
    print(recorder.check())


if __name__ == "__main__":
    main()
