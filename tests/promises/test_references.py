"""Nothing keeps a reference to an array of the training, and recording takes little memory (promise 4)."""

from __future__ import annotations

import gc
import sys
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from programs import data, every_layer, fit, trainer
from takers import TAKERS, hand_over, owners

import nndiag
from nndiag import Recorder, nn
from nndiag.hooks import HistogramHook, Hook, default_hooks
from nndiag.statistics import Array


def test_the_methods_that_take_arrays_are_known() -> None:
    assert {"activation", "gradient", "before_update", "after_update", "outputs", "data", "histogram"} <= set(TAKERS)


@pytest.mark.parametrize("task", ["classes", "binary", "real", None])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64])
@pytest.mark.parametrize("form", ["owner", "view", "transposed", "read-only"])
@pytest.mark.parametrize("method", TAKERS)
def test_no_array_outlives_the_call_that_it_was_handed_to(
    method: str, form: str, dtype: type, task: str | None
) -> None:
    recorder = Recorder(every=1)
    recorder.describe(loss={"task": task} if task else {})
    shapes: dict[str, Callable[[Array], Array]] = {
        "owner": lambda array: array,
        "view": lambda array: array[1:-1],
        "transposed": lambda array: array.T,
        "read-only": lambda array: _locked(array),
    }
    for _ in range(2):
        arrays = owners(method, dtype=dtype)
        kept = [weakref.ref(array) for array in arrays.values()]
        hand_over(recorder, method, {name: shapes[form](array) for name, array in arrays.items()})
        del arrays

        assert [owner() for owner in kept] == [None] * len(kept)
        recorder.step()


def _locked(array: Array) -> Array:
    array.flags.writeable = False
    return array


@pytest.mark.parametrize("method", TAKERS)
def test_the_count_of_references_to_an_array_stays(method: str) -> None:
    recorder = Recorder(every=1)
    arrays = owners(method)
    before = [sys.getrefcount(array) for array in arrays.values()]

    hand_over(recorder, method, arrays)
    after = [sys.getrefcount(array) for array in arrays.values()]

    assert after == before


class Arrays(Hook):
    """Remembers, weakly, who owns each array that an event of a training hands over."""

    def __init__(self) -> None:
        self.owners: list[weakref.ref[Array]] = []

    def _see(self, array: Array) -> None:
        while array.base is not None:
            array = array.base
        self.owners.append(weakref.ref(array))

    def on_step_begin(self, x: Array, y: Array) -> None:
        self._see(x)
        self._see(y)

    def on_forward(self, layer: object, x: Array, output: Array) -> None:
        self._see(output)

    def on_loss(self, outputs: Array, targets: Array, loss: float) -> None:
        self._see(outputs)

    def on_backward(self, layer: object, gradient: Array) -> None:
        self._see(gradient)


def all_hooks() -> list[Hook]:
    """The default hooks, with histograms at every step."""
    return [*default_hooks()[:-1], HistogramHook(every=1)]


def test_nothing_of_a_network_outlives_it_though_its_recorder_is_kept() -> None:
    watched, seen = every_layer(), Arrays()
    recorder = nndiag.watch(watched, hooks=[*all_hooks(), seen], every=1, strict=True)
    fit(watched)
    recorder.close()
    parts = [weakref.ref(watched), weakref.ref(watched.model), *map(weakref.ref, watched.model.layers)]
    parts += [weakref.ref(parameter.value) for parameter in watched.model.parameters]

    del watched
    gc.collect()

    assert seen.owners
    assert sum(part() is not None for part in (*seen.owners, *parts)) == 0
    assert recorder.run.steps == 8


def test_a_recorder_that_is_dropped_is_collected(tmp_path: Path) -> None:
    watched = every_layer()
    recorder = nndiag.watch(watched, run=tmp_path / "run", hooks=all_hooks(), every=1, strict=True)
    fit(watched)
    recorder.close()
    gone = weakref.ref(recorder)

    del recorder
    gc.collect()

    assert gone() is None


def test_a_fault_keeps_no_array_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    """The traceback of a fault holds the frames of its functions, and those hold arrays."""

    class Fails(Hook):
        def on_loss(self, outputs: Array, targets: Array, loss: float) -> None:
            raise ZeroDivisionError("injected")

    watched, seen = every_layer(), Arrays()
    owners = seen.owners
    recorder = nndiag.watch(watched, hooks=[seen, Fails(), *all_hooks()], every=1)
    monkeypatch.setattr(nndiag.hooks.log, "disabled", True)  # whatever keeps log records keeps their tracebacks
    fit(watched)
    recorder.close()
    assert recorder.meta.faults

    del watched, recorder, seen
    gc.collect()

    assert owners
    assert not any(owner() is not None for owner in owners)


@contextmanager
def traced() -> Iterator[Callable[[], tuple[int, int]]]:
    """Traces Python's and NumPy's allocations; gives the current and the peak number of bytes above the start."""
    gc.collect()
    tracemalloc.start()
    start = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    try:
        yield lambda: tuple(size - start for size in tracemalloc.get_traced_memory())  # type: ignore[return-value]
    finally:
        tracemalloc.stop()


LARGE = (4096, 256)

WORKING = {np.float16: 18, np.float32: 10, np.float64: 18}
"""Bytes that reading an array may take for a while, for each of its elements."""

BINNED = 26
"""Bytes an element that a histogram may take."""

IN_PROPORTION = sorted(set(TAKERS) - {"data", "validation_data", "outputs", "output_gradient", "before_update"})
"""Methods that read arrays of any size: the others read those of a batch's ends, or keep a copy by design."""


@pytest.mark.parametrize("dtype", WORKING, ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize("method", IN_PROPORTION)
def test_reading_a_large_array_takes_little_memory_for_a_while_and_none_after(method: str, dtype: type) -> None:
    recorder = Recorder(every=1)
    hand_over(recorder, method, owners(method))
    arrays = owners(method, LARGE, dtype)
    elements = sum(array.size for array in arrays.values())
    kept = next(iter(arrays.values())).nbytes if method in ("update", "after_update") else 0  # what was before

    with traced() as memory:
        hand_over(recorder, method, arrays)
        now, peak = memory()

    assert now - kept < 200_000
    assert peak - kept < elements * (BINNED if method == "histogram" else WORKING[dtype])


@pytest.mark.parametrize("task", ["classes", "real", "binary"])
@pytest.mark.parametrize("method", TAKERS)
def test_no_copy_of_a_large_array_is_left_after_the_step(method: str, task: str) -> None:
    """But for weights, which wait for their next update; of rows of data there is a hash."""
    arrays = owners(method, LARGE)
    recorder = Recorder(every=1)
    recorder.describe(loss={"task": task})
    waiting = sum(array.nbytes for array in arrays.values()) if "update" in method else 0

    with traced() as memory:
        hand_over(recorder, method, arrays)
        recorder.step()
        left = memory()[0]

    assert left - waiting < 1_000_000


@pytest.mark.parametrize("classes", [5_000])
def test_outputs_of_many_classes_take_memory_in_proportion_to_themselves(classes: int) -> None:
    """A vocabulary: a matrix of classes by classes would be 200 MB here, 20 GB at 50,000."""
    recorder = Recorder(every=1)
    recorder.describe(loss={"task": "classes", "expects": "logits"})
    outputs, targets = np.random.default_rng(0).standard_normal((64, classes)).astype(np.float32), np.arange(64)

    with traced() as memory:
        recorder.outputs(outputs, targets)
        recorder.output_gradient(outputs)
        peak = memory()[1]

    assert peak < 12 * outputs.nbytes


def train(watched: nn.Trainer, steps: int) -> None:
    """Steps on one batch, which has been seen by then."""
    x, y = data(watched.loss.task)
    for _ in range(steps):
        watched.step(x, y)


def test_a_long_training_in_memory_grows_by_no_more_than_its_rows() -> None:
    watched = trainer((nn.ReLU,))
    recorder = Recorder(every=1, strict=True)
    watched.hooks.add(default_hooks(), recorder)
    train(watched, 100)
    values = sum(table.values.shape[1] + 1 for name, table in recorder.run.tables.items() if name != "histograms")

    with traced() as memory:
        train(watched, 5)
        before = memory()[0]
        train(watched, 256)
        grown = memory()[0] - before

    assert grown < 2 * 256 * values * 8 + 32_000


def test_a_recorder_whose_clock_has_stopped_does_not_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Recorder) -> None:
        raise ZeroDivisionError("injected")

    watched = trainer((nn.ReLU,))
    with nndiag.watch(watched, every=1):
        monkeypatch.setattr(Recorder, "step", broken)
        train(watched, 20)
        with traced() as memory:
            train(watched, 50)
            before = memory()[0]
            train(watched, 400)
            grown = memory()[0] - before

    assert grown < 4_000
