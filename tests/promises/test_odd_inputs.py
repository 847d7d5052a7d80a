"""What a loop of one's own may hand to a recorder: arrays of any kind and form, names, calls at odd times."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from takers import TAKERS, hand_over

import nndiag
from nndiag import NndiagError, Recorder, open_run
from nndiag.frames import FRAMES
from nndiag.statistics import Array


class Mine(np.ndarray):
    """A subclass that gets in the way of whoever does not take it as a plain array."""

    def ravel(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("not the plain array")

    reshape = sum = max = min = astype = ravel  # type: ignore[assignment]


class Convertible:
    """An array of another library."""

    def __init__(self, values: Array) -> None:
        self.values = values

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.array(self.values, dtype)


def memory_map(array: Array, folder: Path) -> Array:
    """`array` in a file that cannot be written to."""
    path = folder / f"{len(list(folder.iterdir()))}.npy"
    np.save(path, array)
    return np.load(path, mmap_mode="r")  # type: ignore[no-any-return]


def strided(array: Array) -> Array:
    """Every second column and row of a larger array."""
    larger = np.full([2 * n for n in array.shape], 77, array.dtype)
    larger[tuple(slice(None, None, 2) for _ in array.shape)] = array
    return larger[tuple(slice(None, None, 2) for _ in array.shape)]


def locked(array: Array) -> Array:
    """`array` that cannot be written to."""
    array = array.copy()
    array.flags.writeable = False
    return array


FORMS: dict[str, Callable[[Array, Path], Any]] = {
    "list": lambda array, _: array.tolist(),
    "tuple": lambda array, _: tuple(map(tuple, array.tolist())),
    "list of arrays": lambda array, _: list(array),
    "Fortran order": lambda array, _: np.asfortranarray(array),
    "every second": lambda array, _: strided(array),
    "backwards": lambda array, _: array[::-1, ::-1].copy()[::-1, ::-1],
    "broadcastable": lambda array, _: np.broadcast_to(array, array.shape),
    "read-only": lambda array, _: locked(array),
    "memory map": lambda array, folder: memory_map(array, folder),
    "subclass": lambda array, _: array.view(Mine),
    "nothing masked": lambda array, _: np.ma.masked_array(array, mask=False),
    "of another library": lambda array, _: Convertible(array),
    "data frame": lambda array, _: pd.DataFrame(array),
    **{
        name: (lambda array, _, dtype=dtype: array.astype(dtype))
        for name, dtype in {
            "float16": "f2",
            "float32": "f4",
            "big-endian": ">f4",
            "big-endian double": ">f8",
            "longdouble": np.longdouble,
            "int8": "i1",
            "uint8": "u1",
            "int64": "i8",
            "uint64": "u8",
            "bool": bool,
        }.items()
    },
}
"""Ways to write down one and the same array of zeros and ones."""


NAMED = [name for name in TAKERS if "name" in inspect.signature(getattr(Recorder, name)).parameters]
"""The methods that take a name, too."""


def plain(method: str) -> dict[str, Array]:
    """An array of zeros and ones for every array parameter of `method`."""
    rng = np.random.default_rng(0)
    return {name: rng.integers(0, 2, (6, 4)).astype(float) for name in TAKERS[method]}


def told(method: str, given: dict[str, Any], before: Any = None) -> nndiag.Run:
    """The run of a recorder that was handed `given`, twice, in two steps."""
    recorder = Recorder(every=1)
    recorder.describe(loss={"task": "binary", "expects": "logits"})
    for _ in range(2):
        if method == "output_gradient":
            recorder.outputs(np.eye(6, 4), np.eye(6, 4))
        if method in ("update", "after_update"):
            recorder.before_update("h1", before)
        named = {"name": "h1"} if method in NAMED else {}
        getattr(recorder, method)(**named, **given)
        if method == "before_update":
            recorder.after_update("h1", np.ones(np.shape(given["weights"])))
        recorder.log(loss=1.0, validation_loss=1.0)
        recorder.step()
    return recorder.run


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("method", TAKERS)
def test_the_form_of_an_array_does_not_matter(method: str, form: str, tmp_path: Path) -> None:
    before = np.tile([1.0, 1.0, 0.0, 1.0], (6, 1))
    arrays = plain(method)

    expected = told(method, arrays, before)
    run = told(
        method,
        {name: FORMS[form](array, tmp_path) for name, array in arrays.items()},
        FORMS[form](before, tmp_path),
    )

    for frame in FRAMES:
        kept, whole = getattr(run, frame), getattr(expected, frame)
        assert list(kept.columns) == list(whole.columns)
        np.testing.assert_allclose(kept.to_numpy(), whole.to_numpy(), rtol=1e-5, err_msg=frame)


NO_NUMBERS: dict[str, Any] = {
    "complex": np.ones((6, 4), complex),
    "object": np.full((6, 4), object()),
    "text": np.full((6, 4), "a"),
    "bytes": np.full((6, 4), b"a"),
    "dates": np.zeros((6, 4), "M8[s]"),
    "durations": np.zeros((6, 4), "m8[s]"),
    "records": np.zeros((6, 4), [("a", "f4")]),
    "None": None,
    "an object": object(),
    "ragged": [[1.0], [1.0, 2.0]],
}


@pytest.mark.parametrize("what", NO_NUMBERS)
@pytest.mark.parametrize(
    ("method", "parameter"), [(method, parameter) for method, names in TAKERS.items() for parameter in names]
)
def test_what_is_no_array_of_real_numbers_is_refused_by_name(method: str, parameter: str, what: str) -> None:
    default = inspect.signature(getattr(Recorder, method)).parameters[parameter].default
    if what == "None" and default is None:
        return

    with pytest.raises((TypeError, ValueError)) as refused:
        told(method, plain(method) | {parameter: NO_NUMBERS[what]}, np.zeros((6, 4)))

    if what != "ragged":
        assert isinstance(refused.value, TypeError)
        assert "wanted" in str(refused.value)


SHAPES = [(), (0,), (1,), (5,), (0, 3), (3, 0), (1, 1), (2, 3, 4), (2, 0, 4), (2, 3, 4, 5), (2, 1, 1, 1, 3)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("method", TAKERS)
def test_arrays_of_any_shape_are_taken(method: str, shape: tuple[int, ...], dtype: type) -> None:
    arrays = {name: np.ones(shape, dtype) for name in TAKERS[method]}

    run = told(method, arrays, np.zeros(shape, dtype))

    assert run.steps == 2
    for frame in FRAMES:
        assert not np.isinf(getattr(run, frame).to_numpy(float)).any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e38, 3e38, 1e300, 1e-45, -0.0], ids=str)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble])
@pytest.mark.parametrize("method", TAKERS)
def test_arrays_of_any_value_are_taken(method: str, dtype: type, value: float) -> None:
    with np.errstate(all="ignore"):
        arrays = {name: np.full((6, 4), value).astype(dtype) for name in TAKERS[method]}

    with np.errstate(all="raise"):
        run = told(method, arrays, np.zeros((6, 4), dtype))

    assert run.steps == 2


CHANGES: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
    ((8, 4), (3, 4)),
    ((3, 4), (8, 4)),
    ((8, 4), (8, 6)),
    ((8, 4), (8, 2, 4)),
    ((8, 4), (8,)),
    ((8,), (8, 4)),
    ((8, 4), (0, 4)),
    ((8, 4), ()),
]


@pytest.mark.parametrize(("first", "second"), CHANGES, ids=str)
@pytest.mark.parametrize("method", TAKERS)
def test_an_array_may_change_its_shape_from_step_to_step(
    method: str, first: tuple[int, ...], second: tuple[int, ...]
) -> None:
    recorder = Recorder(every=1)
    for shape in (first, second, first):
        hand_over(recorder, method, {name: np.ones(shape) for name in TAKERS[method]})
        recorder.log(loss=1.0, validation_loss=1.0)
        recorder.step()

    assert recorder.run.steps == 3


NAMES = {
    "newline": "a\nb",
    "empty": "",
    "blank": " ",
    "huge": "x" * 100_000,
    "path": "../../etc/passwd",
    "absolute": "/etc/passwd",
    "markup": "<script>alert(1)</script>",
    "zero": "a\0b",
    "escape": "\x1b[31mred",
    "signs": "Größe δ 層 🧠",
    "lone surrogate": "\udc80",
    "right to left": "\u202eabc",
    "percent": "%s %(name)s {0}",
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("method", NAMED)
def test_any_text_is_a_name_and_comes_back_from_the_folder(method: str, name: str, tmp_path: Path) -> None:
    arrays = {parameter: np.ones((6, 4)) for parameter in TAKERS[method]}
    with Recorder(tmp_path / "run", every=1, flush_seconds=0) as recorder:
        for _ in range(2):
            hand_over(recorder, method, arrays, NAMES[name])
            if method == "before_update":
                recorder.after_update(NAMES[name], np.ones((6, 4)))
            recorder.step()

    run = open_run(tmp_path / "run")
    (table,) = (table for table in run.tables.values() if len(table))
    escaped = NAMES[name].encode("utf-8", "backslashreplace").decode()  # no file holds what is no text
    assert {owner for _, owner in table.columns} == {escaped}
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("name", [None, 3, b"h1", ("h", 1), ["h1"]], ids=repr)
@pytest.mark.parametrize("method", NAMED)
def test_what_is_no_text_is_no_name(method: str, name: Any) -> None:
    with pytest.raises(TypeError, match="wanted the name of a layer or parameter, got"):
        getattr(Recorder(every=1), method)(
            **{"name": name} | {parameter: np.ones((6, 4)) for parameter in TAKERS[method]}
        )


# Calls at odd times


@pytest.mark.parametrize("method", TAKERS)
def test_a_closed_recorder_takes_nothing_more(method: str, tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "run", every=1)
    recorder.before_update("h1", np.zeros((6, 4)))
    recorder.log(loss=1.0)
    recorder.step()
    recorder.close()
    files = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}

    try:
        getattr(recorder, method)(
            **{"name": "h1"} if method in NAMED else {},
            **plain(method),
        )
    except NndiagError as refused:
        assert "after the run was closed" in str(refused)  # noqa: PT017 - either is right

    assert {name for name, table in recorder.run.tables.items() if len(table)} == {"losses", "metrics"}
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == files


def test_steps_without_anything_are_steps() -> None:
    recorder = Recorder(every=1)
    for _ in range(3):
        recorder.step()
    recorder.log(loss=1.0)

    assert recorder.run.train.to_dict() == {3: 1.0}
    assert recorder.run.steps == 4


def test_a_recorder_within_itself_is_closed_once() -> None:
    with Recorder(every=1) as outer, outer as inner:
        inner.log(loss=1.0)

    assert outer.meta.ended == "completed"
    assert outer.run.train.tolist() == [1.0]


def test_a_recorder_may_be_looked_at_at_any_time() -> None:
    recorder = Recorder(every=1)
    recorder.activation("h1", np.ones((4, 2)))
    first = recorder.run.activations
    recorder.activation("h1", np.zeros((4, 2)))

    assert recorder.run.activations["mean"].loc[0, "h1"] == 0.5
    assert first["mean"].loc[0, "h1"] == 1.0


def feed(recorder: Recorder, seed: int, steps: int = 200) -> None:
    """A loop of one's own."""
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        recorder.data(rng.standard_normal((8, 3)), rng.integers(0, 3, 8))
        recorder.activation("h1", rng.standard_normal((8, 4)))
        recorder.activation_gradient("h1", rng.standard_normal((8, 4)))
        recorder.outputs(rng.standard_normal((8, 3)), rng.integers(0, 3, 8))
        recorder.log(loss=float(rng.random()))
        recorder.step()


def test_recorders_in_threads_of_their_own_do_not_meet(tmp_path: Path) -> None:
    alone = [Recorder(every=1) for _ in range(3)]
    for seed, recorder in enumerate(alone):
        feed(recorder, seed)
    together = [Recorder(tmp_path / str(seed), every=1, flush_seconds=0.01) for seed in range(3)]
    threads = [threading.Thread(target=feed, args=(recorder, seed)) for seed, recorder in enumerate(together)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    for a, b in zip(alone, together, strict=True):
        b.close()
        for frame in FRAMES:
            assert getattr(a.run, frame).equals(getattr(b.run, frame))


def test_the_working_directory_may_change_in_the_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(tmp_path)
    recorder = Recorder("run", every=1, flush_seconds=0)
    feed(recorder, 0, steps=3)
    monkeypatch.chdir(elsewhere)
    feed(recorder, 0, steps=3)

    assert recorder.run.steps == 6
    recorder.close()
    run = open_run(tmp_path / "run")
    assert (run.steps, run.meta.ended) == (6, "completed")
    assert not list(elsewhere.iterdir())


FORK = """
import os, sys
sys.path.insert(0, {path!r})
import numpy as np, nndiag

class Told:
    def told(self, *_):
        with open({told!r}, "a") as file:
            file.write(f"{{os.getpid()}} ")
    describe = write = report = flush = close = told

recorder = nndiag.Recorder({run!r}, every=1, flush_seconds={flush})
recorder.add_exporter({exporter})

def train(steps):
    for _ in range(steps):
        recorder.activation("h1", np.full((4, 2), float(recorder.step_number)))
        recorder.log(loss=1.0)
        recorder.step()

train(5)
child = os.fork()
if child == 0:
    train({in_child})
    {ending}
os.waitpid(child, 0)
train(5)
recorder.close()
print(os.getpid())
"""

ENDINGS = ["sys.exit()", "os._exit(0)", "recorder.close(); os._exit(0)"]


def forked(folder: Path, ending: str, in_child: int = 7, flush: float = 0, exporter: str = "Told()") -> str:
    """Train 5 steps, `in_child` more in a forked child that ends so, and 5 more in the parent, whose number comes back."""
    code = FORK.format(
        path=str(Path(nndiag.__file__).parents[1]), run=str(folder / "run"), told=str(folder / "told"), flush=flush,
        in_child=in_child, ending=ending, exporter=exporter,
    )  # fmt: skip
    # Python 3.12 and later warn of forks beside threads, which is what this is about.
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == ""
    return done.stdout.strip()


@pytest.mark.parametrize("flush", [0, 100])
@pytest.mark.parametrize("in_child", [0, 7])
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_forked_child_writes_nothing_into_the_run_of_its_parent(
    ending: str, in_child: int, flush: int, tmp_path: Path
) -> None:
    forked(tmp_path, ending, in_child, flush)

    run = open_run(tmp_path / "run")
    assert (run.meta.ended, run.steps) == ("completed", 10)
    assert run.activations["mean"]["h1"].to_dict() == {step: float(step) for step in range(10)}


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_forked_child_tells_the_exporters_of_its_parent_nothing(ending: str, tmp_path: Path) -> None:
    parent = forked(tmp_path, ending)

    assert set((tmp_path / "told").read_text().split()) == {parent}


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_forked_child_of_a_run_in_tensorboard_comes_to_its_end(ending: str, tmp_path: Path) -> None:
    """Threads do not live on in a child: who waits for one there waits for ever."""
    logs = str(tmp_path / "logs")
    forked(tmp_path, ending, exporter=f"__import__('nndiag.exporters').exporters.TensorBoard({logs!r})")

    assert open_run(tmp_path / "run").steps == 10


def test_what_a_run_is_told_is_kept_as_plain_json_or_as_its_text(tmp_path: Path) -> None:
    with Recorder(tmp_path / "run") as recorder:
        recorder.describe(
            optimizer={"name": "Own", "betas": np.array([0.9, 0.99]), "eps": np.float32(1), "of": {1, 2}, 3: object},
            seeds={"numpy": np.int64(3), "wide": np.longdouble(2.5), "flag": np.bool_(True)},
            loss={"name": "Own", "scale": np.array(2.0), "path": Path("a")},
            batch_size=np.int32(4),
        )

    meta = open_run(tmp_path / "run").meta
    assert meta.optimizer["betas"] == [0.9, 0.99]
    assert (meta.optimizer["eps"], sorted(meta.optimizer["of"])) == (1.0, [1, 2])
    assert meta.seeds == {"numpy": 3, "wide": 2.5, "flag": True}
    assert meta.loss["scale"] == 2.0
    assert meta.batch_size == 4
    assert json.loads((tmp_path / "run" / "run.json").read_text())["optimizer"]["3"] == "<class 'object'>"
