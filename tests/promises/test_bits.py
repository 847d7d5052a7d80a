"""Training is bit for bit the same with and without nndiag, and so is the process around it (promise 1)."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from programs import LAYERS, PROGRAMS, Program, bits, environment, every_layer, fit, state, trainer, value_bytes

import nndiag
from nndiag import nn
from nndiag.exporters import TensorBoard
from nndiag.hooks import EVENTS, HistogramHook, Hook, ParameterLike, default_hooks
from nndiag.meta import Meta
from nndiag.recorder import Recorder, Rows
from nndiag.report import Report
from nndiag.statistics import Array

EPOCHS = 3


def all_hooks() -> list[Hook]:
    """The default hooks, with histograms at every step."""
    return [*(hook for hook in default_hooks() if not isinstance(hook, HistogramHook)), HistogramHook(every=1)]


class Kept:
    """An exporter that keeps what it gets."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def describe(self, meta: Meta) -> None:
        pass

    def write(self, step: int, rows: Rows) -> None:
        self.steps.append(step)

    def report(self, report: Report, step: int) -> None:
        pass

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


class Live(Hook):
    """Asks the checklist and looks at every frame in the middle of the training."""

    def on_epoch_end(self, epoch: int) -> None:
        self.recorder.check()

    def on_loss(self, outputs: Array, targets: Array, loss: float) -> None:
        run = self.recorder.run
        assert [getattr(run, frame) for frame in nndiag.frames.FRAMES]


Watch = Callable[[nn.Trainer, Path], list[dict[str, float]]]


def plainly(**options: Any) -> Watch:
    """Train while watched with these options; `run` is the name of a folder."""

    def watched(trainer: nn.Trainer, folder: Path) -> list[dict[str, float]]:
        hooks = options.get("hooks", all_hooks)()
        given = {"every": 1, "strict": True} | options | {"hooks": hooks}
        if "run" in given:
            given["run"] = folder / given["run"]
        with nndiag.watch(trainer, **given):
            return fit(trainer, EPOCHS)

    return watched


def exported(trainer: nn.Trainer, folder: Path) -> list[dict[str, float]]:
    with nndiag.watch(trainer, hooks=all_hooks(), every=1, strict=True) as recorder:
        recorder.add_exporter(Kept())
        recorder.add_exporter(TensorBoard(folder / "logs"))
        history = fit(trainer, EPOCHS)
        recorder.check()
    return history


def attached_in_the_middle(trainer: nn.Trainer, folder: Path) -> list[dict[str, float]]:
    history = fit(trainer, 1)
    with nndiag.watch(trainer, hooks=all_hooks(), every=1, strict=True):
        return history + fit(trainer, EPOCHS - 1)


def detached_in_the_middle(trainer: nn.Trainer, folder: Path) -> list[dict[str, float]]:
    with nndiag.watch(trainer, hooks=all_hooks(), every=1, strict=True):
        history = fit(trainer, 1)
    return history + fit(trainer, EPOCHS - 1)


class Leaves(Hook):
    """Detaches every hook of its recorder, itself included, in the middle of a step."""

    def on_backward(self, layer: object, gradient: Array) -> None:
        if self.recorder.step_number == 5:
            self.recorder.close()


class Comes(Hook):
    """Attaches all hooks in the middle of a step."""

    def on_train_begin(self, loop: nn.Trainer) -> None:
        self.loop = loop

    def on_forward(self, layer: object, x: Array, output: Array) -> None:
        if self.recorder.step_number == 5 and len(self.loop.hooks) < 4:
            self.loop.hooks.add(all_hooks(), self.recorder)


def twice(trainer: nn.Trainer, folder: Path) -> list[dict[str, float]]:
    with nndiag.watch(trainer, every=1, strict=True), nndiag.watch(trainer, every=3, run=folder / "b", strict=True):
        return fit(trainer, EPOCHS)


def resumed(trainer: nn.Trainer, folder: Path) -> list[dict[str, float]]:
    history = []
    for _ in range(EPOCHS):
        with nndiag.watch(trainer, run=folder / "run", resume=True, every=1, strict=True):
            history += fit(trainer, 1)
    return history


def numpy_raising(trainer: nn.Trainer, folder: Path) -> list[dict[str, float]]:
    with np.errstate(all="raise"):
        return plainly()(trainer, folder)


def step_by_step_flushed(trainer: nn.Trainer, folder: Path) -> list[dict[str, float]]:
    recorder = Recorder(folder / "run", every=1, strict=True, flush_seconds=0)
    trainer.hooks.add(all_hooks(), recorder)
    history = fit(trainer, EPOCHS)
    recorder.close()
    trainer.hooks.remove(recorder)
    return history


WAYS: dict[str, Watch] = {
    "every step": plainly(),
    "every seventh step": plainly(every=7),
    "auto": plainly(every="auto"),
    "auto on a small budget": plainly(every="auto", budget=1e-9),
    "default hooks": plainly(hooks=default_hooks),
    "no hooks": plainly(hooks=list),
    "run folder": plainly(run="run"),
    "not strict": plainly(strict=False),
    "live checks": plainly(hooks=lambda: [*all_hooks(), Live()]),
    "leaves within a step": plainly(hooks=lambda: [*all_hooks(), Leaves()]),
    "comes within a step": plainly(hooks=lambda: [Comes()]),
    "exporters": exported,
    "attached in the middle": attached_in_the_middle,
    "detached in the middle": detached_in_the_middle,
    "two recorders": twice,
    "resumed": resumed,
    "flushed at every step": step_by_step_flushed,
    "numpy set to raise": numpy_raising,
}


def assert_undisturbed(make: Program, watch: Watch, folder: Path) -> None:
    """Watched training and the training after it are those of a trainer that nobody watches."""
    bare, watched = make(), make()
    history = fit(bare, EPOCHS)

    assert bits(watch(watched, folder)) == bits(history)
    assert state(watched) == state(bare)
    assert bits(fit(watched, 1)) == bits(fit(bare, 1))
    assert state(watched) == state(bare)
    assert not len(watched.hooks)


@pytest.mark.parametrize("program", PROGRAMS)
def test_watching_changes_no_bit_of(program: str, tmp_path: Path) -> None:
    assert_undisturbed(PROGRAMS[program], WAYS["every step"], tmp_path)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_no_way_of_watching_changes_a_bit_of_a_network_with_every_layer(way: str, dtype: type, tmp_path: Path) -> None:
    assert_undisturbed(lambda: every_layer(dtype), WAYS[way], tmp_path)


EXTREMES = [1e38, 3e38, 1e300, 1e-38, 1e-45, 1e-300, np.inf, np.nan]


@pytest.mark.parametrize("scale", EXTREMES, ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_inputs_at_the_ends_of_what_a_number_can_be_are_no_trouble(dtype: type, scale: float) -> None:
    """Strict, with warnings as errors and NumPy set to raise: what happens here is a fact to record."""
    bare, watched = trainer(dtype=dtype), trainer(dtype=dtype)
    x, y = np.ones((40, 6)), np.arange(40) % 3
    with np.errstate(all="ignore"):
        x[::3] *= scale
        history = bare.fit(x, y, validation=(x, y), epochs=2, batch_size=16)
    with np.errstate(all="raise"), nndiag.watch(watched, hooks=all_hooks(), every=1, strict=True) as recorder:
        assert bits(watched.fit(x, y, validation=(x, y), epochs=2, batch_size=16)) == bits(history)
        recorder.check()

    assert state(watched) == state(bare)


@pytest.mark.parametrize("program", ["SoftmaxCrossEntropy float32", "clipped float32", "Adam cosine"])
def test_a_checkpoint_of_a_watched_training_is_that_of_a_bare_one(program: str, tmp_path: Path) -> None:
    bare, watched = PROGRAMS[program](), PROGRAMS[program]()
    fit(bare)
    with nndiag.watch(watched, hooks=all_hooks(), every=1, strict=True):
        fit(watched)
        watched.save(tmp_path / "watched.npz")
    bare.save(tmp_path / "bare.npz")

    with np.load(tmp_path / "bare.npz") as a, np.load(tmp_path / "watched.npz") as b:
        assert {name: value_bytes(array) for name, array in a.items()} == {name: value_bytes(b[name]) for name in b}


# The arrays that hooks are given are the loop's own


def arrays_in(arguments: Sequence[Any]) -> Iterator[Array]:
    """Every array that an event hands over: its own, parameters' values and gradients, the buffers of layers."""
    for argument in arguments:
        if isinstance(argument, np.ndarray):
            yield argument
        elif isinstance(argument, nn.Layer):
            yield from argument.state().values()
        elif isinstance(argument, nn.Parameter):
            yield from (argument.value, argument.gradient)
        elif isinstance(argument, list):
            yield from arrays_in(argument)


class Guard:
    """Two hooks around others: the arrays of every event are read-only between them, and the same afterwards."""

    def __init__(self) -> None:
        self.held: list[tuple[Array, bytes]] = []
        self.events: set[str] = set()
        self.before, self.after = type("Before", (Hook,), {})(), type("After", (Hook,), {})()
        for event in EVENTS:
            setattr(type(self.before), event, self._lock(event))
            setattr(type(self.after), event, lambda _, *arguments: self.unlock())

    def _lock(self, event: str) -> Callable[..., None]:
        def lock(_: Hook, *arguments: Any) -> None:
            self.unlock()
            self.events.add(event)
            self.held = [(array, value_bytes(array)) for array in arrays_in(arguments) if array.flags.writeable]
            for array, _ in self.held:
                array.flags.writeable = False

        return lock

    def unlock(self) -> None:
        for array, before in self.held:
            assert value_bytes(array) == before
            array.flags.writeable = True
        self.held = []


@pytest.mark.parametrize("program", ["clipped float32", "clipped float64", "MSE float32", "BCEWithLogits float16"])
def test_hooks_never_write_to_the_arrays_of_the_loop(program: str) -> None:
    trainer, guard = PROGRAMS[program](), Guard()

    with nndiag.watch(trainer, hooks=[guard.before, *all_hooks(), guard.after], every=1, strict=True):
        fit(trainer)

    assert guard.events == set(EVENTS) - ({"on_clipped"} if trainer.clip_norm is None else set())


class WritesSomewhere(Hook):
    """What the guard is there to catch."""

    def on_gradients(self, parameters: Sequence[ParameterLike]) -> None:
        parameters[0].gradient.reshape(-1)[0] = 0


def test_the_guard_catches_a_hook_that_writes() -> None:
    trainer, guard = every_layer(), Guard()

    with pytest.raises((AssertionError, ValueError)):  # noqa: SIM117
        with nndiag.watch(trainer, hooks=[guard.before, WritesSomewhere(), guard.after], every=1, strict=True):
            fit(trainer)


# The process around the training


@contextmanager
def quiet() -> Iterator[None]:
    """Warnings and logging of a user with settings of their own."""
    before = np.geterr(), logging.getLogger().level
    np.seterr(over="raise", divide="print")
    logging.getLogger().setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="mine")
        yield
    np.seterr(**before[0])
    logging.getLogger().setLevel(before[1])


@pytest.mark.parametrize("way", WAYS)
def test_the_process_is_left_as_it_was(way: str, tmp_path: Path) -> None:
    with quiet():
        trainer = every_layer()
        before = environment()
        WAYS[way](trainer, tmp_path)
        after = environment()

    assert after == before


@pytest.mark.parametrize("way", WAYS)
def test_the_users_functions_meet_the_same_process_in_the_middle_of_a_watched_training(
    way: str, tmp_path: Path
) -> None:
    met: list[dict[str, object]] = []

    def metric(outputs: Array, targets: Array) -> float:
        met.append(environment())
        del met[-1]["threads"]  # an exporter may have one, while it lasts
        return 0.0

    make = lambda: trainer((nn.ReLU,), metrics={"mine": metric})  # noqa: E731
    fit(make(), EPOCHS)
    bare, met[:] = list(met), []
    WAYS[way](make(), tmp_path)

    assert met == bare


ALONE = """
import json, sys
sys.path[:0] = {paths!r}
import numpy as np, random, logging, warnings, signal, threading
from programs import environment, every_layer, fit
before = environment()
import nndiag
trainer = every_layer()
with nndiag.watch(trainer, run={run!r}, every=1, strict=True) as recorder:
    fit(trainer)
    if {checked}:
        recorder.check()
after = environment()
print(json.dumps([name for name in before if before[name] != after[name]]))
"""


@pytest.mark.parametrize("checked", [False, True])
def test_a_fresh_process_is_left_as_it_was(checked: bool, tmp_path: Path) -> None:
    paths = [str(Path(__file__).parent), str(Path(nndiag.__file__).parents[1])]
    code = ALONE.format(paths=paths, run=str(tmp_path / "run"), checked=checked)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert json.loads(done.stdout) == []
    assert done.stderr == ""


@pytest.mark.parametrize("layer", LAYERS)
def test_an_evaluation_between_two_watched_steps_is_that_of_a_bare_training(layer: type) -> None:
    """A step by hand, an evaluation, a step by hand: what a loop of one's own does."""
    results: list[Mapping[str, object]] = []
    for watched in (False, True):
        program = trainer((layer,))
        x, y = np.random.default_rng(0).standard_normal((8, 6)), np.arange(8) % 3
        if watched:
            nndiag.watch(program, hooks=all_hooks(), every=1, strict=True)
        losses = [program.step(x, y), program.evaluate(x, y)["loss"], program.step(x, y)]
        results.append(state(program) | {"losses": [float(loss).hex() for loss in losses]})

    assert results[0] == results[1]
