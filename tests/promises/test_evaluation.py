"""Evaluation passes are never mixed into the frames of training (promise 5)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from programs import LAYERS, WIDTH, bits, data, every_layer, fit, state, trainer

import nndiag
from nndiag import nn
from nndiag.frames import FRAMES
from nndiag.hooks import EVENTS, Hook, default_hooks

AWAY = 1e6
"""Evaluations are made on inputs so far off that one value of theirs would show in every frame."""

Evaluate = Callable[[nn.Trainer], object]

EVALUATIONS: dict[str, Evaluate] = {
    "evaluate": lambda trainer: trainer.evaluate(AWAY * data("classes")[0], data("classes")[1]),
    "predict": lambda trainer: trainer.predict(AWAY * data("classes")[0]),
    "predict in small batches": lambda trainer: trainer.predict(AWAY * data("classes")[0], batch_size=7),
    "predict one": lambda trainer: trainer.predict(np.full((1, WIDTH), AWAY)),
    "forward": lambda trainer: trainer.model.forward(np.full((4, WIDTH), AWAY)),
    "loss": lambda trainer: trainer.loss(np.full((4, 3), AWAY), np.zeros(4, int)),
    "on another trainer": lambda trainer: nn.Trainer(trainer.model, nn.SoftmaxCrossEntropy(), nn.SGD(0.1)).evaluate(
        AWAY * data("classes")[0], data("classes")[1]
    ),
}

HARMFUL = {"on_forward", "on_loss", "on_output_gradient", "on_backward", "on_validation_forward"}
HARMLESS = sorted(set(EVENTS) - HARMFUL)
"""Events at which the network holds nothing that training still needs: an evaluation works in the same buffers."""


def recorded(extra: Hook | None = None, between: Evaluate = lambda _: None) -> tuple[nn.Trainer, nndiag.Run]:
    """A training whose hooks are the default ones and `extra`, with `between` before, between and after two fits."""
    watched = every_layer()
    hooks = [*default_hooks(), *([extra] if extra else [])]
    with nndiag.watch(watched, hooks=hooks, every=1, strict=True) as recorder:
        between(watched)
        fit(watched, 2)
        between(watched)
        fit(watched, 1)
        between(watched)
    return watched, recorder.run


@functools.cache
def alone() -> tuple[nn.Trainer, nndiag.Run]:
    """The same training without any evaluation but its own."""
    return recorded()


def assert_the_same(watched: nn.Trainer, run: nndiag.Run) -> None:
    """Training and record are those without the evaluations."""
    assert state(watched) == state(alone()[0])
    for frame in FRAMES:
        assert getattr(run, frame).equals(getattr(alone()[1], frame)), frame


@pytest.mark.parametrize("evaluation", EVALUATIONS)
def test_an_evaluation_between_two_fits_leaves_no_trace(evaluation: str) -> None:
    assert_the_same(*recorded(between=EVALUATIONS[evaluation]))


@pytest.mark.parametrize("evaluation", ["evaluate", "predict in small batches"])
@pytest.mark.parametrize("event", HARMLESS)
def test_an_evaluation_within_an_event_leaves_no_trace(event: str, evaluation: str) -> None:
    class Evaluates(Hook):
        def on_train_begin(self, loop: nn.Trainer) -> None:
            self.loop = loop

    def evaluate(self: Any, *arguments: Any) -> None:
        if event == "on_train_begin":
            self.loop = arguments[0]
        EVALUATIONS[evaluation](self.loop)

    setattr(Evaluates, event, evaluate)

    assert_the_same(*recorded(Evaluates()))


@pytest.mark.parametrize("layer", LAYERS)
def test_validation_within_a_fit_leaves_no_trace_in_the_frames_of_training(layer: type) -> None:
    runs, histories = [], []
    for validation in (None, (AWAY * data("classes")[0], data("classes")[1])):
        watched = trainer((layer,))
        with nndiag.watch(watched, every=1, strict=True) as recorder:
            history = watched.fit(*data("classes"), validation=validation, epochs=3, batch_size=16)
        runs.append(recorder.run)
        histories.append([{name: epoch[name] for name in ("epoch", "loss")} for epoch in history])

    assert bits(histories[0]) == bits(histories[1])
    assert runs[0].train.equals(runs[1].train)
    for frame in set(FRAMES) - {"losses", "metrics", "evaluations"}:
        assert getattr(runs[0], frame).equals(getattr(runs[1], frame)), frame
    assert runs[1].validation.index.tolist() == [4, 8, 12]


def test_a_hand_written_loop_that_evaluates_between_its_steps_leaves_no_trace() -> None:
    runs = []
    for evaluated in (False, True):
        watched = every_layer()
        with nndiag.watch(watched, every=1, strict=True) as recorder:
            for _ in range(6):
                watched.step(*data("classes"))
                if evaluated:
                    watched.evaluate(AWAY * data("classes")[0], data("classes")[1])
        runs.append(recorder.run)

    for frame in FRAMES:
        assert getattr(runs[0], frame).equals(getattr(runs[1], frame)), frame
