"""Rests: while nothing is to be read, the trainer counts for the recorder, and nothing is lost of it."""

from __future__ import annotations

import itertools
import logging
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import nndiag
from nndiag import Recorder, nn
from nndiag import recorder as recorders
from nndiag.hooks import Hook, StepHook
from nndiag.statistics import Array

Data = tuple[Array, Array]


class Ends(Hook):
    """A user's hook that hears the end of each step."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def on_step_end(self) -> None:
        self.steps.append(self.recorder.step_number)


class Interrupted(nn.SoftmaxCrossEntropy):
    """A loss after which something happens at a step."""

    def __init__(self, at: int, happens: Callable[[], None]) -> None:
        super().__init__()
        self.calls, self.at, self.happens = 0, at, happens

    def __call__(self, outputs: Array, targets: Array) -> float:
        loss = super().__call__(outputs, targets)
        if self.calls == self.at:
            self.happens()
        self.calls += 1
        return loss


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Steps at whose end a recorder was told so."""
    heard: list[int] = []
    told = StepHook.on_step_end

    def on_step_end(self: StepHook) -> None:
        heard.append(self.recorder.step_number)
        told(self)

    monkeypatch.setattr(StepHook, "on_step_end", on_step_end)
    return heard


def make(loss: nn.SoftmaxCrossEntropy | None = None) -> nn.Trainer:
    return nn.Trainer(nn.MLP([8, 16, 3], seed=0), loss or nn.SoftmaxCrossEntropy(), nn.SGD(0.01), seed=0)


def begin(trainer: nn.Trainer) -> nn.Trainer:
    """`trainer` as `fit` leaves it at the start, for steps by hand."""
    trainer.hooks.fire("on_train_begin", trainer)
    return trainer


@pytest.mark.parametrize("every", ["auto", 100, 10**9])
def test_losses_of_a_rest_are_those_of_a_run_that_is_heard_at_every_step(
    every: Any, data: Data, heard: list[int]
) -> None:
    whole, rested = make(), make()
    with nndiag.watch(whole, every=1, strict=True) as at_every_step:
        whole.fit(*data, validation=data, epochs=40, batch_size=8)
    heard.clear()
    with nndiag.watch(rested, every=every, strict=True) as recorder:
        rested.fit(*data, validation=data, epochs=40, batch_size=8)

    wanted, found = at_every_step.run.losses, recorder.run.losses
    assert found.index.tolist() == wanted.index.tolist()
    np.testing.assert_array_equal(found.to_numpy(), wanted.to_numpy())
    assert len(heard) < 0.7 * rested.steps


def test_without_hooks_only_steps_are_counted(data: Data, heard: list[int]) -> None:
    trainer = make()
    with nndiag.watch(trainer, hooks=[], every=10**9, strict=True) as recorder:
        begin(trainer)
        for _ in range(300):
            trainer.step(*data)
            assert recorder.step_number == trainer.steps
        assert recorder.run.losses.empty

    assert len(heard) == 3 + 300 // recorders.LONGEST  # the first three, of which one is read


def test_what_is_told_in_a_rest_belongs_to_its_step(data: Data) -> None:
    trainer = make()
    with nndiag.watch(trainer, every=10**9, strict=True) as recorder:
        begin(trainer)
        losses = []
        for step in range(100):
            if step in (30, 31, 70):
                recorder.log(mine=step)
            if step == 50:
                recorder.begin_epoch(1)
            losses.append(trainer.step(*data))

    run = recorder.run
    mine = run.metrics["mine", "train"].dropna()
    assert mine.to_dict() == {30: 30, 31: 31, 70: 70}
    assert run.losses["train"].tolist() == losses
    assert run.losses["epoch"].tolist() == [0] * 50 + [1] * 50


def test_what_is_told_within_a_step_belongs_to_it(data: Data) -> None:
    trainer = make(Interrupted(40, lambda: recorder.log(mine=1.0)))
    with nndiag.watch(trainer, every=10**9, strict=True) as recorder:
        losses = trainer.fit(*data, epochs=10, batch_size=8)

    assert recorder.run.metrics["mine", "train"].dropna().index.tolist() == [40]
    assert len(recorder.run.losses) == trainer.steps
    assert recorder.run.losses.groupby("epoch")["train"].mean().tolist() == pytest.approx(
        [one["loss"] for one in losses]
    )


def test_a_loss_that_is_not_finite_ends_the_rest(data: Data) -> None:
    x, y = data
    broken = x.copy()
    broken[0, 0] = np.nan
    trainer = make()
    with nndiag.watch(trainer, every=10**9, strict=True) as recorder:
        begin(trainer)
        for step in range(60):
            trainer.step(broken if step == 37 else x, y)

    run = recorder.run
    assert run.meta.first_nonfinite == {"step": 37, "what": "loss"}
    assert run.losses["train"].notna().sum() == 37
    assert run.activations.index.tolist() == [0, 37]
    assert run.data.index.tolist() == [0, 37]


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_losses_of_another_kind_are_recorded(kind: Callable[[float], Any], data: Data) -> None:
    class Odd(nn.SoftmaxCrossEntropy):
        """A loss that gives back something else than a float."""

        def __call__(self, outputs: Array, targets: Array) -> float:
            loss: float = kind(super().__call__(outputs, targets))
            return loss

    trainer = make(Odd())
    with nndiag.watch(trainer, every=10**9) as recorder:
        begin(trainer)
        losses = [float(trainer.step(*data)) for _ in range(60)]

    assert recorder.run.losses["train"].tolist() == losses


@pytest.mark.parametrize("who", ["hook", "recorder", "exporter"])
def test_who_comes_in_a_rest_hears_every_step_from_there(who: str, data: Data) -> None:
    class Steps:
        """An exporter that notes steps."""

        def __init__(self) -> None:
            self.steps: list[int] = []

        def write(self, step: int, rows: Any) -> None:
            self.steps.append(step)

        def describe(self, meta: Any) -> None: ...
        def flush(self) -> None: ...
        def close(self) -> None: ...

    trainer, ends, exporter = make(), Ends(), Steps()
    with nndiag.watch(trainer, every=10**9, strict=True) as recorder, Recorder(every=10**9, strict=True) as other:
        begin(trainer)
        for step in range(60):
            if step == 31 and who == "hook":
                ends.attach(trainer, recorder)
            elif step == 31 and who == "recorder":
                trainer.hooks.add([ends], other)
            elif step == 31:
                recorder.add_exporter(exporter)
            trainer.step(*data)
        assert recorder.step_number == 60
        assert recorder.run.losses.index.tolist() == list(range(60))

    wanted = {"hook": list(range(31, 60)), "recorder": list(range(29)), "exporter": list(range(31, 60))}[who]
    assert (exporter.steps if who == "exporter" else ends.steps) == wanted


def test_detaching_in_a_rest_keeps_what_was_before(data: Data) -> None:
    trainer = make()
    recorder = nndiag.watch(trainer, every=10**9, strict=True)
    begin(trainer)
    losses = [trainer.step(*data) for _ in range(30)]
    recorder.close()
    trainer.step(*data)

    assert recorder.run.losses["train"].tolist() == losses
    assert recorder.step_number == 30


def test_a_training_that_breaks_off_in_a_rest_keeps_its_losses(data: Data) -> None:
    def crash() -> None:
        raise RuntimeError("of the user")

    trainer = make(Interrupted(40, crash))
    with nndiag.watch(trainer, every=10**9, strict=True) as recorder:
        with pytest.raises(RuntimeError, match="of the user"):
            trainer.fit(*data, epochs=10, batch_size=8)
        assert recorder.run.meta.ended == "crashed"
        assert recorder.run.losses.index.tolist() == list(range(40))
        trainer.loss = nn.SoftmaxCrossEntropy()
        trainer.fit(*data, epochs=2, batch_size=8)

    assert recorder.run.losses.index.tolist() == list(range(trainer.steps))


def test_steps_that_take_long_are_heard_one_by_one(
    data: Data, heard: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count(0.0, 1.01 * recorders.SOON)
    monkeypatch.setattr(recorders, "monotonic", lambda: next(clock))
    trainer = make()
    with nndiag.watch(trainer, every=10**9, strict=True):
        trainer.fit(*data, epochs=5, batch_size=8)

    assert heard == list(range(trainer.steps))


def test_a_hook_that_fails_at_the_end_of_a_rest_is_detached(
    data: Data, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("of nndiag")

    trainer = make()
    with nndiag.watch(trainer, every=10**9) as recorder:
        begin(trainer)
        for step in range(150):
            if step == 30:
                monkeypatch.setattr(recorder.row, "rested", fail)
            trainer.step(*data)

    assert trainer.steps == 150
    assert "StepHook failed in on_step_end and is detached" in caplog.text
    assert not len(trainer.hooks)
    assert recorder.run.meta.faults
    assert caplog.records[-1].levelno >= logging.ERROR


@pytest.mark.parametrize("every", [1, "auto", 10**9])
def test_another_thread_may_look_while_one_trains(every: Any, data: Data) -> None:
    trainer = make()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with nndiag.watch(trainer, every=every, strict=True) as recorder:
            training = threading.Thread(target=lambda: trainer.fit(*data, epochs=60, batch_size=8))
            training.start()
            while training.is_alive():
                assert recorder.run.steps <= recorder.step_number + 1
    finally:
        sys.setswitchinterval(interval)

    losses = recorder.run.losses
    assert losses.index.tolist() == list(range(trainer.steps))
    assert losses["train"].notna().all()
