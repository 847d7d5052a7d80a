"""Checks while training: a sick run ends by itself, and a function of your own decides what becomes of each finding.

`every=1` keeps the clock out of it, so that this prints the same on every machine; without, examinations wait until they
are within the recorder's budget.
"""

from __future__ import annotations

import logging
import sys

import numpy as np

import nndiag
from nndiag import nn
from nndiag.datasets import digits


def trainer(lr: float) -> nn.Trainer:
    """A small classifier of digits."""
    return nn.Trainer(nn.MLP([64, 128, 64, 10], seed=0), nn.SoftmaxCrossEntropy(), nn.SGD(lr=lr, momentum=0.9))


def first_that_trains(*rates: float) -> float:
    """The first learning rate with which training comes to its end; the others cost a fraction of it."""
    x, y, x_val, y_val = digits()
    for lr in rates:
        watched = trainer(lr)
        with nndiag.watch(watched, every=1, check_every=50, on_finding="stop") as recorder:
            history = watched.fit(x, y, validation=(x_val, y_val), epochs=20, batch_size=64)
        accuracy = history[-1]["validation_accuracy"]
        print(f"lr = {lr:g}: {recorder.run.meta.ended} after {watched.steps} updates, accuracy {accuracy:.2f}")
        if recorder.run.meta.ended == "completed":
            return lr
    raise SystemExit("no rate trains")


def alert(finding: nndiag.Finding) -> str | None:
    """Send a message instead of a line in the log; end the training for facts alone."""
    print(f"to the phone: {finding.verdict.label} {finding.code} {finding.name}, {finding.where}")
    return "stop" if finding.kind == "exact" else None


def with_one_broken_sample() -> nndiag.Recorder:
    """A training that meets a NaN among its inputs; its weights are gone with the same update."""
    x, y, *_ = digits()
    x[1000, 7] = np.nan
    watched = trainer(lr=0.1)
    with nndiag.watch(watched, every=1, on_finding=alert) as recorder:
        watched.fit(x, y, epochs=20, batch_size=64)
    return recorder


def main() -> None:
    logging.basicConfig(stream=sys.stdout, format="%(message)s")
    lr = first_that_trains(3.0, 1e-6, 0.1)
    print(f"lr = {lr:g} it is\n")

    run = with_one_broken_sample().run
    print(f"{run.meta.ended} after {run.steps} updates: {run.meta.stopped_by}")


if __name__ == "__main__":
    main()
