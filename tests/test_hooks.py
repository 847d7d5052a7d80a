"""Hooks on the NumPy trainer."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest

import nndiag
from nndiag import Recorder, nn
from nndiag.errors import NndiagError
from nndiag.hooks import EVENTS, HistogramHook, Hook, ParameterLike, Spacing, default_hooks, light_hooks
from nndiag.statistics import Array

Data = tuple[Array, Array]


def weights(trainer: nn.Trainer) -> list[Array]:
    return [parameter.value.copy() for parameter in trainer.model.parameters]


MODELS: dict[str, Callable[[], nn.Trainer]] = {
    "relu sgd": lambda: nn.Trainer(nn.MLP([8, 16, 3]), nn.SoftmaxCrossEntropy(), nn.SGD(0.05, momentum=0.9)),
    "tanh adam float64": lambda: nn.Trainer(
        nn.MLP([8, 16, 3], activation="tanh", dtype=np.float64),
        nn.SoftmaxCrossEntropy(0.1),
        nn.Adam(1e-2, weight_decay=1e-2),
    ),
    "dropout batch norm clipping": lambda: nn.Trainer(
        nn.MLP([8, 16, 16, 3], dropout=0.3, norm="batch"), nn.SoftmaxCrossEntropy(), nn.SGD(0.1), clip_norm=0.5
    ),
    "leaky layer norm": lambda: nn.Trainer(
        nn.MLP([8, 16, 3], activation="leaky_relu", norm="layer"), nn.SoftmaxCrossEntropy(), nn.SGD(0.1)
    ),
    "sigmoid softmax": lambda: nn.Trainer(
        nn.Sequential([nn.Affine(8, 16), nn.Sigmoid(), nn.Affine(16, 3), nn.Softmax()]), nn.CrossEntropy(), nn.SGD(0.5)
    ),
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_training_is_bit_for_bit_the_same_with_and_without_hooks(make: Callable[[], nn.Trainer], data: Data) -> None:
    bare, watched = make(), make()
    bare.fit(*data, validation=data, epochs=4, batch_size=20)

    with nndiag.watch(watched, every=1, strict=True):
        watched.fit(*data, validation=data, epochs=3, batch_size=20)
    watched.fit(*data, validation=data, epochs=1, batch_size=20)  # detached by now

    for a, b in zip(weights(bare), weights(watched), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_frames_hold_every_layer_and_parameter_in_forward_order(run: nndiag.Run) -> None:
    layers = ["hidden1", "hidden1.relu", "hidden2", "hidden2.relu", "output"]
    parameters = [f"{layer}.{kind}" for layer in ("hidden1", "hidden2", "output") for kind in ("weight", "bias")]

    assert list(run.activations["mean"].columns) == layers
    assert list(run.activations["gradient_rms"].columns) == layers
    assert list(run.gradients["norm"].columns) == parameters
    assert list(run.updates["ratio"].columns) == parameters
    assert len(run.losses) == 61
    assert run.losses["epoch"].tolist() == [epoch for epoch in range(10) for _ in range(6)] + [9]
    assert not run.activations["mean"].isna().any(axis=None)


def test_recorded_numbers_are_those_of_the_network(trainer: nn.Trainer, data: Data) -> None:
    x, y = data
    hidden = trainer.model.layers[0].forward(x).copy()
    with nndiag.watch(trainer, every=1, strict=True) as recorder:
        trainer.fit(x, y, epochs=1, batch_size=96, shuffle=False)
    row = recorder.run.activations.loc[0]

    assert row["mean", "hidden1"] == pytest.approx(hidden.mean(), rel=1e-5)
    assert row["variance", "hidden1"] == pytest.approx(hidden.var(), rel=1e-5)
    assert row["zero_fraction", "hidden1.relu"] == pytest.approx(np.mean(hidden <= 0))
    gradient = trainer.model.parameters[0].gradient
    assert recorder.run.gradients["norm"].loc[0, "hidden1.weight"] == pytest.approx(np.linalg.norm(gradient), rel=1e-5)


def test_the_update_ratio_is_that_of_the_real_step(data: Data) -> None:
    trainer = nn.Trainer(nn.MLP([8, 4, 3]), nn.SoftmaxCrossEntropy(), nn.SGD(0.1, momentum=0.9), clip_norm=0.01)
    with nndiag.watch(trainer, every=1, strict=True) as recorder:
        before = trainer.model.parameters[0].value.copy()
        trainer.step(*data)
    after = trainer.model.parameters[0].value

    expected = np.linalg.norm(after - before) / np.linalg.norm(before)
    assert recorder.run.updates["ratio"].loc[0, "hidden1.weight"] == pytest.approx(expected, rel=1e-4)


def test_gradients_are_read_before_clipping(data: Data) -> None:
    trainer = nn.Trainer(nn.MLP([8, 4, 3]), nn.SoftmaxCrossEntropy(), nn.SGD(0.1), clip_norm=1e-3)
    with nndiag.watch(trainer, every=1, strict=True) as recorder:
        trainer.step(*data)
    run = recorder.run

    assert np.sqrt((run.gradients["norm"].loc[0] ** 2).sum()) > 1e-2
    left = {parameter.name: np.linalg.norm(parameter.gradient) for parameter in trainer.model.parameters}
    assert run.gradients["clipped_norm"].loc[0].to_dict() == pytest.approx(left, rel=1e-5)
    assert np.sqrt((run.gradients["clipped_norm"].loc[0] ** 2).sum()) == pytest.approx(1e-3, rel=1e-4)
    recorder.describe(**trainer.describe())
    assert run.meta.layers == recorder.meta.layers


def test_a_hook_of_nndiag_listens_to_one_loop(data: Data) -> None:
    first, second = (nn.Trainer(nn.MLP([8, 4, 3]), nn.SoftmaxCrossEntropy(), nn.SGD(0.1)) for _ in range(2))
    hooks = light_hooks()
    with nndiag.watch(first, hooks=hooks) as recorder:
        with pytest.raises(NndiagError, match="listens to another loop already; give a new ActivationHook"):
            nndiag.watch(second, hooks=hooks)
        first.fit(*data, epochs=1, batch_size=16)
    assert len(recorder.run.train)

    with nndiag.watch(second, hooks=hooks) as recorder:  # they are free again
        second.fit(*data, epochs=1, batch_size=16)
    assert len(recorder.run.train)


def test_a_hook_need_not_be_hashable(data: Data) -> None:
    @dataclass
    class Counts(Hook):
        steps: int = 0

        def on_step_end(self) -> None:
            self.steps += 1

    trainer = nn.Trainer(nn.MLP([8, 4, 3]), nn.SoftmaxCrossEntropy(), nn.SGD(0.1), [counts := Counts()])
    trainer.fit(*data, epochs=1, batch_size=16)

    assert counts.steps == trainer.steps > 0


def test_a_hook_may_close_its_recorder(data: Data) -> None:
    class Enough(Hook):
        steps = 0

        def on_step_end(self) -> None:
            self.steps += 1
            if self.steps == 5:
                self.recorder.close()

    trainer = nn.Trainer(nn.MLP([8, 4, 3]), nn.SoftmaxCrossEntropy(), nn.SGD(0.1))
    recorder = nndiag.watch(trainer, hooks=[*default_hooks(), Enough()], every=1)
    trainer.fit(*data, epochs=2, batch_size=16)

    assert recorder.run.meta.faults == ()
    assert recorder.run.meta.ended == "completed"
    assert recorder.run.losses["train"].notna().sum() == 5


class OutOfTime(Exception):
    """What a program's own time limit raises."""


def test_what_a_signal_handler_raises_within_a_hook_is_the_programs(data: Data) -> None:
    class Limit(Hook):
        def on_gradients(self, parameters: Sequence[ParameterLike]) -> None:
            signal.raise_signal(signal.SIGALRM)

    def out_of_time(*_: object) -> None:
        raise OutOfTime

    trainer = nn.Trainer(nn.MLP([8, 4, 3]), nn.SoftmaxCrossEntropy(), nn.SGD(0.1))
    before = signal.signal(signal.SIGALRM, out_of_time)
    try:
        with nndiag.watch(trainer, hooks=[*default_hooks(), Limit()], every=1) as recorder, pytest.raises(OutOfTime):
            trainer.fit(*data, epochs=2, batch_size=16)
    finally:
        signal.signal(signal.SIGALRM, before)

    assert recorder.run.meta.faults == ()
    assert recorder.run.meta.ended == "crashed"


def test_without_clipping_there_is_no_norm_after_it(data: Data) -> None:
    trainer = nn.Trainer(nn.MLP([8, 4, 3]), nn.SoftmaxCrossEntropy(), nn.SGD(0.1))
    with nndiag.watch(trainer, every=1, strict=True) as recorder:
        trainer.step(*data)

    assert recorder.run.statistic("gradients", "clipped_norm").empty


def test_saturation_is_seen_from_the_slope(data: Data) -> None:
    trainer = nn.Trainer(nn.MLP([8, 4, 3], activation="tanh"), nn.SoftmaxCrossEntropy(), nn.SGD(0.0))
    trainer.model.parameters[1].value[:2] = 50.0
    with nndiag.watch(trainer, every=1, strict=True) as recorder:
        trainer.step(*data)

    assert recorder.run.activations["saturated_fraction"].loc[0, "hidden1.tanh"] == 0.5


def test_evaluation_is_not_mixed_with_training(trainer: nn.Trainer, data: Data) -> None:
    with nndiag.watch(trainer, every=1, strict=True) as recorder:
        trainer.step(*data)
        before = recorder.run.activations
        trainer.evaluate(1000 * data[0], data[1])
        trainer.predict(1000 * data[0])

    assert recorder.run.activations.equals(before)


def test_one_hook_alone_has_its_frame(trainer: nn.Trainer, data: Data) -> None:
    hook = nndiag.ActivationHook()
    hook.attach(trainer)

    trainer.fit(*data, epochs=1, batch_size=16)

    assert len(hook.frame) == 6
    assert hook.recorder.run.gradients.empty


@pytest.mark.parametrize("hook", default_hooks(), ids=lambda hook: type(hook).__name__)
def test_each_default_hook_fills_its_frame_alone(hook: Hook, trainer: nn.Trainer, data: Data) -> None:
    hook.attach(trainer)

    trainer.fit(*data, epochs=1, batch_size=16)

    assert not hook.frame.empty


class Norms(Hook):
    """A user's hook: the norm of all weights, as a metric."""

    def on_step_end(self) -> None:
        self.recorder.log(weight_norm=1.5)


def test_a_users_hook_logs_beside_the_others(data: Data) -> None:
    mine, theirs = Norms(), nndiag.LossHook()
    trainer = nn.Trainer(nn.MLP([8, 4, 3]), nn.SoftmaxCrossEntropy(), nn.SGD(0.1), hooks=[mine, theirs])

    trainer.fit(*data, epochs=1, batch_size=16)

    assert mine.frame["weight_norm"]["train"].tolist() == [1.5] * 6
    assert len(theirs.frame) == 6
    assert mine.recorder is theirs.recorder


class Broken(Hook):
    """A hook that fails at its second step."""

    def __init__(self, event: str) -> None:
        self.calls = 0
        setattr(type(self), event, self._fail)

    def _fail(self, *_: object) -> None:
        self.calls += 1
        raise ZeroDivisionError("a fault of the hook")


@pytest.mark.parametrize("event", EVENTS)
def test_a_hook_that_fails_is_detached_and_training_goes_on(
    event: str, data: Data, caplog: pytest.LogCaptureFixture
) -> None:
    make = lambda: nn.Trainer(nn.MLP([8, 4, 3]), nn.SoftmaxCrossEntropy(), nn.SGD(0.1), clip_norm=0.5)  # noqa: E731
    bare, watched = make(), make()
    bare.fit(*data, validation=data, epochs=2)
    broken = type("Broken", (Broken,), {})(event)

    with nndiag.watch(watched, hooks=[*default_hooks(), broken], every=1) as recorder:
        watched.fit(*data, validation=data, epochs=2)

    assert broken.calls == 1
    np.testing.assert_array_equal(weights(bare)[0], weights(watched)[0])
    assert [fault["event"] for fault in recorder.meta.faults] == [event]
    assert "ZeroDivisionError" in caplog.text
    assert len(recorder.run.losses) == 7


def test_strict_lets_a_fault_through(trainer: nn.Trainer, data: Data) -> None:
    broken = type("Broken", (Broken,), {})("on_loss")

    with pytest.raises(ZeroDivisionError), nndiag.watch(trainer, hooks=[broken], strict=True):
        trainer.fit(*data)


def test_closing_detaches(trainer: nn.Trainer, data: Data) -> None:
    recorder = nndiag.watch(trainer, every=1)
    recorder.close()
    recorder.close()

    trainer.fit(*data, epochs=1)

    assert len(trainer.hooks) == 0
    assert recorder.run.steps == 0


def test_two_recorders_on_one_trainer_see_the_same(trainer: nn.Trainer, data: Data) -> None:
    with nndiag.watch(trainer, every=1) as a, nndiag.watch(trainer, every=1) as b:
        trainer.fit(*data, epochs=2)

    assert a.run.activations.equals(b.run.activations)


def test_histograms_come_every_so_many_steps(trainer: nn.Trainer, data: Data) -> None:
    with nndiag.watch(trainer, hooks=[HistogramHook(every=4)], every=1) as recorder:
        trainer.fit(*data, epochs=2, batch_size=16)

    assert recorder.run.histograms.index.tolist() == [0, 4, 8]


def test_interrupting_the_training_is_remembered(trainer: nn.Trainer, data: Data) -> None:
    class Interrupt(Hook):
        def on_epoch_end(self, epoch: int) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), nndiag.watch(trainer, hooks=[nndiag.LossHook(), Interrupt()]) as recorder:
        trainer.fit(*data, epochs=5)

    assert recorder.meta.ended == "interrupted"
    assert len(recorder.run.train) == 3


def test_what_is_no_hook_is_refused(trainer: nn.Trainer) -> None:
    with pytest.raises(TypeError, match=r"subclass of nndiag\.Hook, got 'hook'"):
        trainer.hooks.add(["hook"], Recorder())  # type: ignore[list-item]


@pytest.mark.parametrize("target", [nn.MLP([2, 2]), object(), None, "trainer"])
def test_watch_refuses_what_no_adapter_knows(target: object) -> None:
    with pytest.raises(nndiag.NndiagError, match=r"wanted the nn.Trainer|installed for: .*nndiag"):
        nndiag.watch(target)


def test_watch_refuses_an_optimizer_beside_a_trainer(trainer: nn.Trainer) -> None:
    with pytest.raises(nndiag.NndiagError, match="it has its own"):
        nndiag.watch(trainer, nn.SGD(0.1))


def test_a_subclass_of_a_watched_class_is_watched() -> None:
    class Mine(nn.Trainer):
        pass

    mine = Mine(nn.MLP([2, 2]), nn.MSE(), nn.SGD(0.1))
    with nndiag.watch(mine) as recorder:
        mine.step(np.ones((4, 2)), np.ones((4, 2)))

    assert recorder.run.steps == 1


HEAVY = "sorted({'pandas', 'matplotlib', 'tensorboardX', 'torch', 'tqdm', 'scipy', 'google'} & set(sys.modules))"
TRAIN = """
from nndiag import nn
t = nn.Trainer(nn.MLP([4, 3]), nn.SoftmaxCrossEntropy(), nn.SGD(0.1))
with nndiag.watch(t): t.fit(numpy.ones((8, 4)), numpy.zeros(8, int))
"""


@pytest.mark.parametrize(
    "code", ["", "nndiag.watch, nndiag.Hook, nndiag.Recorder", TRAIN], ids=["import", "names", "train"]
)
def test_importing_and_watching_load_numpy_and_nothing_heavy(code: str) -> None:
    script = f"import sys, numpy, nndiag\n{code}\nprint({HEAVY})"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("name", nndiag.__all__)
def test_everything_that_is_promised_can_be_had(name: str) -> None:
    assert getattr(nndiag, name) is not None
    assert name in dir(nndiag)


def test_an_unknown_attribute_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'wacth'"):
        nndiag.wacth  # noqa: B018


def test_a_fault_is_logged_with_its_traceback(
    trainer: nn.Trainer, data: Data, caplog: pytest.LogCaptureFixture
) -> None:
    broken = type("Broken", (Broken,), {})("on_loss")

    with caplog.at_level(logging.ERROR), nndiag.watch(trainer, hooks=[broken]):
        trainer.fit(*data)

    assert caplog.text.count("Traceback") == 1


def test_histograms_wait_for_a_step_that_is_read(trainer: nn.Trainer, data: Data) -> None:
    with nndiag.watch(trainer, hooks=[HistogramHook(every=4)], every=3) as recorder:
        trainer.fit(*data, epochs=2, batch_size=16)

    assert recorder.run.histograms.index.tolist() == [0, 6, 9]


def test_where_the_cadence_follows_the_cost_one_read_in_four_has_histograms() -> None:
    spacing, always = Spacing(100, drawn=False), Spacing(100, drawn=False)
    reads = [0, 62, 123, 154, 303, 379, 474, 593, 742, 1160, 1450]

    assert [step for step in reads if always.due(step)] == [0, 123, 303, 474, 593, 742, 1160, 1450]
    assert [step for step in reads if spacing.due(step, rarely=step > 50)] == [0, 303, 742]
