"""How a recorder takes hold of a Trainer and lets go."""

from __future__ import annotations

import numpy as np
import pytest

from nndiag import nn
from nndiag.errors import NndiagError
from nndiag.hooks import Hook
from nndiag.nn.adapter import attach
from nndiag.recorder import Recorder

X, Y = np.random.default_rng(0).normal(size=(8, 4)), np.arange(8) % 2


class Counter(Hook):
    """Counts steps."""

    steps = 0

    def on_step_end(self):
        self.steps += 1


def trainer() -> nn.Trainer:
    return nn.Trainer(nn.MLP([4, 2]), nn.SoftmaxCrossEntropy(), nn.SGD(0.1))


def test_hooks_listen_until_they_are_detached():
    watched, hook = trainer(), Counter()

    detach = attach(watched, None, None, Recorder(every=1), [hook])
    watched.step(X, Y)
    detach()
    watched.step(X, Y)

    assert hook.steps == 1
    assert len(watched.hooks) == 0


@pytest.mark.parametrize(
    ("target", "optimizer", "loss", "text"),
    [
        (nn.MLP([4, 2]), None, None, "got an object of type MLP, wanted the nn.Trainer"),
        (trainer(), nn.SGD(0.1), None, "got an optimizer or a loss beside a Trainer"),
        (trainer(), None, nn.MSE(), "got an optimizer or a loss beside a Trainer"),
    ],
)
def test_anything_but_a_trainer_alone_is_refused(target, optimizer, loss, text):
    with pytest.raises(NndiagError, match=text) as caught:
        attach(target, optimizer, loss, Recorder(every=1), [])

    assert isinstance(caught.value, TypeError)
