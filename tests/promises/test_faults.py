"""A fault in nndiag never stops or changes a training, and the record that it leaves says so and is true (promise 2)."""

from __future__ import annotations

import functools
import inspect
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from programs import Program, data, every_layer, fit, state, trainer

import nndiag
from nndiag import Checklist, Recorder, Verdict, nn, store
from nndiag.catalogue import catalogue
from nndiag.frames import FRAMES
from nndiag.hooks import EVENTS, HistogramHook, Hook, StepHook, default_hooks, overrides
from nndiag.recorder import Exporter, Rows
from nndiag.report import CheckResult


class Unspeakable(Exception):
    """A fault that cannot even be printed."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


FAULTS: dict[str, Callable[[], Exception]] = {
    "ZeroDivisionError": lambda: ZeroDivisionError("injected"),
    "MemoryError": MemoryError,
    "RecursionError": lambda: RecursionError("injected"),
    "StopIteration": StopIteration,
    "OSError": lambda: OSError(28, "No space left on device"),
    "RuntimeWarning": lambda: RuntimeWarning("injected"),
    "ExceptionGroup": lambda: ExceptionGroup("injected", [ValueError("one"), KeyError("two")]),
    "unspeakable": Unspeakable,
}
INTERRUPTS: dict[str, type[BaseException]] = {"KeyboardInterrupt": KeyboardInterrupt, "SystemExit": SystemExit}


class Failing:
    """Stands in for a function: raises at call number `at` only, or from there on, and counts its calls."""

    def __init__(self, function: Callable[..., Any], fault: Callable[[], BaseException], at: int, once: bool = True):
        self.function, self.fault, self.at, self.once = function, fault, at, once
        self.calls = 0
        functools.update_wrapper(self, function)

    def __get__(self, owner: object, cls: type) -> Callable[..., Any]:
        return functools.partial(self, owner)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        self.calls += 1
        if self.calls == self.at or (self.calls > self.at and not self.once):
            raise self.fault()
        return self.function(*arguments, **named)

    @property
    def failed(self) -> bool:
        return self.calls >= self.at


def broken(event: str, fault: Callable[[], BaseException], at: int = 1) -> Hook:
    """A user's hook that fails at call number `at` of `event`."""
    cls = type("Broken", (Hook,), {event: Failing(lambda *_: None, fault, at)})
    hook: Hook = cls()
    return hook


def hooks() -> list[Hook]:
    """The default hooks, with histograms at every other step."""
    return [*(hook for hook in default_hooks() if not isinstance(hook, HistogramHook)), HistogramHook(every=2)]


def train(trainer: nn.Trainer) -> None:
    """Two fits of two epochs of four steps, so that every event comes twice or more."""
    fit(trainer, 2)
    fit(trainer, 2)


@functools.cache
def bare() -> dict[str, object]:
    """How the training ends that nobody watches."""
    alone = every_layer()
    train(alone)
    return state(alone)


@functools.cache
def healthy() -> nndiag.Run:
    """The record of that training without any fault."""
    watched = every_layer()
    with nndiag.watch(watched, hooks=hooks(), every=1, strict=True) as recorder:
        train(watched)
    return recorder.run


def assert_true(run: nndiag.Run, but: tuple[str, ...] = ()) -> None:
    """Every value in `run` is that of the healthy run at the same step, or is missing; no step stands twice."""
    for frame in set(FRAMES) - set(but):
        kept, whole = getattr(run, frame), getattr(healthy(), frame)
        if frame == "losses":  # a row that holds nothing but a validation yet is of the epoch before
            kept = kept[kept["train"].notna() | kept["validation"].isna()]
        assert kept.index.is_unique
        assert kept.index.isin(whole.index).all(), f"{frame} has steps {kept.index.difference(whole.index).tolist()}"
        there = whole.reindex(index=kept.index, columns=kept.columns)
        same = (kept == there) | kept.isna()
        assert same.all(axis=None), f"{frame}: {kept.where(~same).stack(future_stack=True).dropna()}"


def assert_whole(run: nndiag.Run, without: tuple[str, ...] = ()) -> None:
    """`run` holds every frame of the healthy run, but for those that the fault took."""
    assert_true(run, but=("evaluations",) if "data" in without else ())
    for frame in set(FRAMES) - set(without):
        kept, whole = getattr(run, frame), getattr(healthy(), frame)
        assert kept.index.equals(whole.index), f"{frame} lacks {whole.index.difference(kept.index).tolist()}"
        if not without:
            assert kept.equals(whole)


@pytest.fixture(scope="module", autouse=True)
def _known_before_anything_is_broken() -> None:
    bare(), healthy(), called(), verdicts()


def told(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """What nndiag has logged as a warning or worse."""
    return [record for record in caplog.records if record.name == "nndiag" and record.levelno >= logging.WARNING]


def assert_told_once(caplog: pytest.LogCaptureFixture, *words: str) -> None:
    """One error with its traceback, which names the part that failed."""
    (record,) = told(caplog)
    assert record.levelno == logging.ERROR
    assert record.exc_info
    assert all(word in record.getMessage() for word in words)


# Hooks


@pytest.mark.parametrize(
    ("event", "fault"),
    [*((event, "ZeroDivisionError") for event in EVENTS), *(("on_loss", fault) for fault in FAULTS)],
)
def test_a_users_hook_may_fail_at_any_event_with_anything(
    event: str, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    watched = every_layer()
    with nndiag.watch(watched, hooks=[broken(event, FAULTS[fault]), *hooks()], every=1) as recorder:
        train(watched)

    assert state(watched) == bare()
    assert_told_once(caplog, "Broken", event)
    assert [(fault["part"], fault["event"]) for fault in recorder.meta.faults] == [("Broken", event)]
    assert_whole(recorder.run)


OURS = [
    (cls, event)
    for cls in [*(type(hook) for hook in default_hooks()), StepHook]
    for event in EVENTS
    if overrides(cls(), event)
]
"""Every method of our own hooks."""

FILLS: dict[type[Hook], tuple[str, ...]] = {
    nndiag.LossHook: ("losses", "metrics", "outputs", "evaluations"),
    nndiag.DataHook: ("data", "metrics", "evaluations"),
    nndiag.ActivationHook: ("activations", "metrics", "evaluations"),
    StepHook: tuple(FRAMES),
}
"""Frames that lose something when a hook fails, where they are more than its own."""


@pytest.mark.parametrize("at", [1, 2])
@pytest.mark.parametrize(("cls", "event"), OURS, ids=lambda of: getattr(of, "__name__", of))
def test_each_of_our_hooks_may_fail_at_each_of_its_events(
    cls: type[Hook], event: str, at: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failing = Failing(getattr(cls, event), FAULTS["ZeroDivisionError"], at)
    monkeypatch.setattr(cls, event, failing)
    watched = every_layer()
    with nndiag.watch(watched, hooks=hooks(), every=1) as recorder:
        train(watched)

    assert failing.calls == at, "a hook that has failed is detached"
    assert state(watched) == bare()
    assert_told_once(caplog, cls.__name__, event)
    assert [(fault["part"], fault["event"]) for fault in recorder.meta.faults] == [(cls.__name__, event)]
    assert_whole(recorder.run, FILLS.get(cls, (cls.frame_name,)))


@pytest.mark.parametrize(("cls", "event"), OURS, ids=lambda of: getattr(of, "__name__", of))
def test_a_strict_recorder_lets_a_fault_of_our_hooks_through(
    cls: type[Hook], event: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cls, event, Failing(getattr(cls, event), FAULTS["ZeroDivisionError"], at=1))
    watched = every_layer()

    with pytest.raises(ZeroDivisionError), nndiag.watch(watched, hooks=hooks(), every=1, strict=True):
        train(watched)

    assert not len(watched.hooks)


@pytest.mark.parametrize("event", EVENTS)
def test_a_strict_recorder_lets_a_fault_of_a_users_hook_through(event: str) -> None:
    watched = every_layer()

    with (
        pytest.raises(ZeroDivisionError),
        nndiag.watch(watched, hooks=[broken(event, FAULTS["ZeroDivisionError"])], strict=True),
    ):
        train(watched)


def test_two_hooks_that_fail_are_told_of_one_by_one(caplog: pytest.LogCaptureFixture) -> None:
    watched = every_layer()
    faulty = [broken("on_loss", FAULTS["MemoryError"]), broken("on_loss", FAULTS["MemoryError"], at=3)]
    with nndiag.watch(watched, hooks=[*faulty, *hooks()], every=1) as recorder:
        train(watched)

    assert state(watched) == bare()
    assert len(told(caplog)) == len(recorder.meta.faults) == 2


def test_a_fault_of_one_recorder_is_none_of_another(caplog: pytest.LogCaptureFixture) -> None:
    watched = every_layer()
    with nndiag.watch(watched, hooks=hooks(), every=1) as sound, nndiag.watch(
        watched, hooks=[broken("on_loss", FAULTS["MemoryError"]), *hooks()], every=1
    ) as faulty:  # fmt: skip
        train(watched)

    assert (len(sound.meta.faults), len(faulty.meta.faults)) == (0, 1)
    assert_whole(sound.run)


# What a run that has lost a frame is told of


@pytest.mark.parametrize("hook", [type(hook) for hook in default_hooks()], ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("lost_after", [0, 30], ids=["from the start", "from the middle"])
def test_no_check_passes_what_it_could_not_see_to_the_end(
    hook: type[Hook], lost_after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a record is no PASS: the fault may lie where nothing was read any more."""
    event = next(event for event in ("on_step_begin", "on_forward", "on_gradients", "on_update_begin", "on_loss")
                 if overrides(hook(), event))  # fmt: skip
    watched = trainer((nn.ReLU,))
    with nndiag.watch(watched, every=1) as recorder:
        if lost_after:
            fit(watched, lost_after // 4)
        monkeypatch.setattr(hook, event, Failing(getattr(hook, event), FAULTS["MemoryError"], at=1))
        watched.hooks.add((), recorder)  # listen anew
        fit(watched, 15)

    assert [fault["part"] for fault in recorder.meta.faults] == [hook.__name__]
    frames = (hook.frame_name, "outputs") if hook is nndiag.LossHook else (hook.frame_name,)
    results = {result.code: result for result in recorder.check().checks}
    robbed = [results[code] for code, check in catalogue().items() if _needs(check, frames)]
    assert [result.code for result in robbed if result.verdict is Verdict.PASS] == []
    missing = [result for result in robbed if result.verdict is Verdict.NOT_CHECKED]
    assert lost_after or missing or hook is HistogramHook


def _needs(check: type[nndiag.Check], frames: tuple[str, ...]) -> bool:
    return any(need.partition(".")[0] in frames for need in check.needs)


# What the hooks call


METHODS = sorted(
    name
    for name, function in inspect.getmembers(Recorder, inspect.isfunction)
    if not name.startswith("_") and name not in ("close", "add_exporter", "on_close", "probe")
)
"""Every method of a recorder that a watched training may call."""


@functools.cache
def called() -> dict[str, int]:
    """How often each method is called while a training is watched."""
    with pytest.MonkeyPatch.context() as patch:
        counters = {name: Failing(getattr(Recorder, name), ValueError, at=10**9) for name in METHODS}
        watched = every_layer()
        with nndiag.watch(watched, hooks=hooks(), every=1, strict=True):
            for name, counter in counters.items():
                patch.setattr(Recorder, name, counter)
            train(watched)
    return {name: counter.calls for name, counter in counters.items()}


@pytest.mark.parametrize("once", [True, False], ids=["once", "from then on"])
@pytest.mark.parametrize("when", ["first", "last"])
@pytest.mark.parametrize("method", METHODS)
def test_any_method_of_the_recorder_may_fail(
    method: str,
    when: str,
    once: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if not called()[method]:
        return
    at = {"first": 1, "last": called()[method]}[when]
    failing = Failing(getattr(Recorder, method), FAULTS["ZeroDivisionError"], at, once)
    watched = every_layer()
    with nndiag.watch(watched, hooks=hooks(), every=1) as recorder:
        monkeypatch.setattr(Recorder, method, failing)
        train(watched)

    assert failing.failed
    assert state(watched) == bare()
    assert told(caplog)
    assert all(record.exc_info for record in told(caplog))
    monkeypatch.undo()
    assert_true(recorder.run, but=("evaluations",) if method in ("data", "validation_data") else ())
    assert recorder.meta.faults or (method in ("describe", "fault") and not once), "the run does not say so"


@pytest.mark.parametrize("event", EVENTS)
def test_the_handling_of_a_fault_may_fail(event: str, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = every_layer()
    with nndiag.watch(watched, hooks=[broken(event, FAULTS["MemoryError"]), *hooks()], every=1) as recorder:
        monkeypatch.setattr(recorder, "fault", Failing(recorder.fault, FAULTS["MemoryError"], at=1))
        train(watched)

    assert state(watched) == bare()
    assert_whole(recorder.run)


# Interrupts


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("interrupt", INTERRUPTS)
def test_an_interrupt_in_a_hook_goes_through(
    event: str, interrupt: str, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    watched = every_layer()
    stop = broken(event, INTERRUPTS[interrupt])
    with (
        pytest.raises(INTERRUPTS[interrupt]),
        nndiag.watch(watched, hooks=[stop, *hooks()], run=tmp_path / "run", every=1) as recorder,
    ):
        train(watched)

    assert not told(caplog)
    assert not recorder.meta.faults
    assert recorder.meta.ended in (("interrupted",) if interrupt == "KeyboardInterrupt" else ("interrupted", "crashed"))
    assert nndiag.open_run(tmp_path / "run").meta.ended == recorder.meta.ended
    assert_true(recorder.run)


@pytest.mark.parametrize("at", [1, 2])
@pytest.mark.parametrize("method", METHODS)
def test_an_interrupt_inside_the_recorder_goes_through(
    method: str, at: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if called()[method] < at or method in ("end", "flush"):
        return
    watched = every_layer()

    def interrupted() -> Recorder:
        with nndiag.watch(watched, hooks=hooks(), every=1) as recorder:
            kept.append(recorder)
            monkeypatch.setattr(recorder, method, Failing(getattr(recorder, method), KeyboardInterrupt, at))
            train(watched)
        return recorder

    kept: list[Recorder] = []
    with pytest.raises(KeyboardInterrupt):
        interrupted()

    assert not told(caplog)
    assert kept[0].meta.ended == "interrupted"
    assert_true(kept[0].run)
    assert not len(watched.hooks)


class AtLine:
    """A trace function that raises at line number `at` of all that is run within the third step of a recorder."""

    STEP = inspect.unwrap(Recorder.step).__code__

    def __init__(self, fault: type[BaseException], at: int) -> None:
        self.fault, self.at = fault, at
        self.steps = self.lines = 0
        self.inside = False
        self.where = ""

    def __call__(self, frame: FrameType, event: str, argument: object) -> Any:
        code = frame.f_code
        if event == "call":
            self.steps += code is self.STEP
            self.inside |= code is self.STEP and self.steps == 3
            return self if self.inside and "nndiag" in code.co_filename else None
        self.inside &= event != "return" or code is not self.STEP
        self.lines += event == "line"
        if event == "line" and self.lines == self.at:
            self.where = f"{code.co_name}, line {frame.f_lineno}"
            raise self.fault
        return self


@contextmanager
def tracing(function: Any) -> Iterator[None]:
    before = sys.gettrace()
    sys.settrace(function)
    try:
        yield
    finally:
        sys.settrace(before)


@pytest.mark.parametrize("fault", [KeyboardInterrupt, MemoryError])
def test_the_end_of_a_step_may_be_broken_off_at_any_line(fault: type[BaseException], tmp_path: Path) -> None:
    """Ctrl-C and a lack of memory come anywhere: what is recorded is true, and no step stands twice."""
    make = lambda: trainer((nn.ReLU,))  # noqa: E731
    alone, watched = make(), make()
    fit(alone, 1)
    with nndiag.watch(watched, every=1, strict=True) as recorder:
        fit(watched, 1)
    whole, broken_at = recorder.run, []
    for at in range(1, 10_000, 3):
        watched, trace = make(), AtLine(fault, at)
        with (
            suppress(KeyboardInterrupt),
            nndiag.watch(watched, run=tmp_path / str(at), every=1) as recorder,
            tracing(trace),
        ):
            fit(watched, 1)
        if not trace.where:
            break
        if fault is MemoryError:
            assert state(watched) == state(alone), trace.where
        broken_at += [trace.where] * (
            not _true(recorder.run, whole) or not _true(nndiag.open_run(recorder.path), whole)
        )

    assert at > 10
    assert broken_at == []


def _true(run: nndiag.Run, whole: nndiag.Run) -> bool:
    """Whether every row of `run` is that of `whole`, as far as it goes; the metrics of nndiag's own may lack one."""
    for frame in ("activations", "gradients", "updates", "outputs", "data"):
        kept, there = getattr(run, frame), getattr(whole, frame)
        if not kept.index.is_unique or not kept.index.isin(there.index).all():
            return False
        if not ((kept == there.reindex(index=kept.index, columns=kept.columns)) | kept.isna()).all(axis=None):
            return False
    return True


# The run folder

WRITERS = sorted(name for name, _ in inspect.getmembers(store.Folder, inspect.isfunction) if not name.startswith("_"))
"""Whatever the store is asked to do while training goes on."""


@pytest.mark.parametrize("once", [True, False], ids=["once", "from then on"])
@pytest.mark.parametrize("at", [1, 2, 40])
@pytest.mark.parametrize("fault", ["OSError", "ZeroDivisionError", "unspeakable"])
@pytest.mark.parametrize("writer", WRITERS)
def test_the_store_may_fail_at_any_call(
    writer: str,
    at: int,
    fault: str,
    once: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    failing = Failing(getattr(store.Folder, writer), FAULTS[fault], at, once)
    watched = every_layer()
    recorder = Recorder(tmp_path / "run", every=1, flush_seconds=0)
    monkeypatch.setattr(store.Folder, writer, failing)
    watched.hooks.add(hooks(), recorder)
    train(watched)
    recorder.close()
    watched.hooks.remove(recorder)
    monkeypatch.undo()

    assert state(watched) == bare()
    assert_whole(recorder.run)
    assert len(told(caplog)) == failing.failed
    assert_true(nndiag.open_run(tmp_path / "run"))


@pytest.mark.parametrize(("writer", "at"), [("append", 1), ("write_meta", 4)])
def test_a_strict_recorder_lets_a_fault_of_the_store_through(
    writer: str, at: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A full disk is no fault of nndiag, and stops no training; anything else is one."""
    watched = every_layer()
    failing = Failing(getattr(store.Folder, writer), FAULTS["ZeroDivisionError"], at)
    monkeypatch.setattr(store.Folder, writer, failing)

    with pytest.raises(ZeroDivisionError), nndiag.watch(watched, run=tmp_path / "run", every=1, strict=True):
        train(watched)


# Exporters

PARTS = sorted(name for name, _ in inspect.getmembers(Exporter, inspect.isfunction) if not name.startswith("_"))
"""Everything that an exporter is asked to do."""


class Kept:
    """An exporter that keeps what it is told."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.told: list[str] = []

    def describe(self, meta: object) -> None:
        self.told.append("describe")

    def write(self, step: int, rows: Rows) -> None:
        self.told.append("write")
        self.steps.append(step)

    def report(self, report: object, step: int) -> None:
        self.told.append("report")

    def flush(self) -> None:
        self.told.append("flush")

    def close(self) -> None:
        self.told.append("close")


@pytest.mark.parametrize("at", [1, 2])
@pytest.mark.parametrize("fault", ["OSError", "MemoryError", "unspeakable"])
@pytest.mark.parametrize("part", PARTS)
def test_an_exporter_may_fail_in_every_part(
    part: str, fault: str, at: int, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    if part == "close" and at > 1:
        return
    faulty_class: Any = type("Faulty", (Kept,), {part: Failing(getattr(Kept, part), FAULTS[fault], at)})
    faulty, sound, watched = faulty_class(), Kept(), every_layer()
    with nndiag.watch(watched, run=tmp_path / "run", hooks=hooks(), every=1) as recorder:
        recorder.add_exporter(faulty)
        recorder.add_exporter(sound)
        for _ in range(2):
            fit(watched, 2)
            recorder.flush()
            if part == "report":
                recorder.check()

    assert state(watched) == bare()
    assert_told_once(caplog, "Faulty")
    assert [fault["part"] for fault in recorder.meta.faults] == ["Faulty"]
    assert len(nndiag.open_run(tmp_path / "run").meta.faults) == 1
    assert part == "close" or "close" in faulty.told, "what has failed is closed"
    assert sound.steps == list(range(17))
    assert sound.told[-1] == "close"
    assert_whole(recorder.run)


@pytest.mark.parametrize("part", PARTS)
def test_a_strict_recorder_lets_a_fault_of_an_exporter_through(part: str) -> None:
    faulty: Any = type("Faulty", (Kept,), {part: Failing(getattr(Kept, part), FAULTS["MemoryError"], 1)})()

    def shown() -> None:
        watched = every_layer()
        with nndiag.watch(watched, hooks=hooks(), every=1, strict=True) as recorder:
            recorder.add_exporter(faulty)
            fit(watched)
            recorder.check()
            recorder.flush()

    with pytest.raises(MemoryError):
        shown()


# Checks


@functools.cache
def verdicts() -> dict[str, CheckResult]:
    """What the checklist says of the healthy run."""
    return {result.code: result for result in Checklist().examine(healthy()).checks}


def halfway(self: nndiag.Check, run: nndiag.Run) -> Iterator[nndiag.Finding]:
    """A check that fails when it has found something."""
    yield self.finding("half a finding")
    raise ZeroDivisionError("injected")


@pytest.mark.parametrize(
    ("code", "fault"),
    [*((code, "halfway") for code in catalogue()), *(("ND401", fault) for fault in FAULTS)],
)
def test_a_check_that_fails_is_not_checked_and_the_others_go_on(
    code: str, fault: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cls = catalogue()[code]
    other = "ND601" if code != "ND601" else "ND605"
    examine = halfway if fault == "halfway" else Failing(cls.examine, FAULTS[fault], at=1)
    monkeypatch.setattr(cls, "examine", examine)
    monkeypatch.setattr(cls, "not_checked", lambda *_: None)

    report = Checklist(select=[code, other]).examine(healthy())

    results = {result.code: result for result in report.checks}
    assert results[code].verdict is Verdict.NOT_CHECKED
    assert "failed" in results[code].reason
    assert results[other] == verdicts()[other]
    assert code not in {finding.code for finding in report.findings}
    assert_told_once(caplog, code)
    assert str(report)


def test_where_every_check_fails_nothing_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    for cls in catalogue().values():
        monkeypatch.setattr(cls, "not_checked", Failing(cls.not_checked, FAULTS["ZeroDivisionError"], 1, once=False))

    report = Checklist().examine(healthy())

    assert report.verdict is Verdict.NOT_CHECKED
    assert len(report.checks) == len(catalogue())


def test_an_interrupt_of_a_check_goes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    cls = catalogue()["ND601"]
    monkeypatch.setattr(cls, "not_checked", Failing(cls.not_checked, KeyboardInterrupt, 1))

    with pytest.raises(KeyboardInterrupt):
        Checklist().examine(healthy())


# The end of a run


def fails() -> None:
    raise ZeroDivisionError("injected")


def test_a_run_is_closed_though_an_action_at_its_end_fails(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    watched = every_layer()
    with nndiag.watch(watched, hooks=hooks(), run=tmp_path / "run", every=1) as recorder:
        recorder.on_close(fails)
        train(watched)

    assert told(caplog)
    run = nndiag.open_run(tmp_path / "run")
    assert run.meta.ended == "completed"
    assert_whole(run)
    assert not len(watched.hooks)


def test_a_fault_at_the_end_of_a_run_does_not_hide_that_of_the_training(tmp_path: Path) -> None:
    watched = every_layer()

    def crash() -> None:
        with nndiag.watch(watched, hooks=hooks(), run=tmp_path / "run", every=1) as recorder:
            recorder.on_close(fails)
            train(watched)
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        crash()

    assert nndiag.open_run(tmp_path / "run").meta.ended == "crashed"


# A loop of one's own


@pytest.mark.parametrize(
    "function", [name for name, what in vars(nndiag.statistics).items() if inspect.isfunction(what) and name[0] != "_"]
)
def test_a_fault_within_nndiag_does_not_stop_a_hand_written_loop(
    function: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What the loop hands over wrongly is told to it at once; what nndiag gets wrong is not its concern."""
    failing = Failing(getattr(nndiag.statistics, function), FAULTS["ZeroDivisionError"], 1, once=False)
    monkeypatch.setattr(nndiag.statistics, function, failing)
    recorder = Recorder(every=1)
    for _ in range(3):
        recorder.activation("h1", np.ones((4, 2)), slope=np.ones((4, 2)))
        recorder.gradient("h1.weight", np.ones((4, 2)), weights=np.ones((4, 2)))
        recorder.log(loss=1.0)
        recorder.step()

    assert recorder.run.train.tolist() == [1.0] * 3
    assert bool(recorder.meta.faults) == bool(told(caplog)) == failing.failed


# What is not nndiag's


def test_a_users_metric_that_fails_is_the_users(caplog: pytest.LogCaptureFixture) -> None:
    metric = Failing(lambda outputs, targets: 0.0, lambda: ZeroDivisionError("mine"), at=3)
    watched = trainer((nn.ReLU,), metrics={"mine": metric})

    with pytest.raises(ZeroDivisionError, match="mine"), nndiag.watch(watched, every=1) as recorder:
        fit(watched, 4)

    assert recorder.meta.ended == "crashed"
    assert not told(caplog)
    assert len(recorder.run.train) == 12


@pytest.mark.parametrize("part", ["loss", "layer", "optimizer", "schedule"])
def test_a_fault_of_the_training_itself_goes_through(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where: dict[str, tuple[type, str]] = {
        "loss": (nn.SoftmaxCrossEntropy, "backward"),
        "layer": (nn.ReLU, "forward"),
        "optimizer": (nn.SGD, "step"),
        "schedule": (nn.Constant, "__call__"),
    }
    cls, name = where[part]
    watched = trainer((nn.ReLU,))
    fit(watched, 1)
    monkeypatch.setattr(cls, name, Failing(getattr(cls, name), lambda: ZeroDivisionError("mine"), 2, once=False))

    with pytest.raises(ZeroDivisionError, match="mine"), nndiag.watch(watched, every=1) as recorder:
        fit(watched, 1)

    assert recorder.meta.ended == "crashed"


NUMBERS: dict[str, Callable[[], nn.Trainer]] = {
    "seed": lambda: trainer(seed=np.int64(1)),
    "clip_norm": lambda: trainer(clip_norm=np.float32(1.0)),
    "lr": lambda: trainer(optimizer=lambda: nn.SGD(np.float32(0.1))),
    "momentum": lambda: trainer(optimizer=lambda: nn.SGD(0.1, momentum=np.float32(0.9))),
    "eps": lambda: trainer(optimizer=lambda: nn.Adam(eps=np.float64(1e-8))),
    "betas": lambda: trainer(optimizer=lambda: nn.Adam(betas=(np.float32(0.9), np.float32(0.99)))),
    "model seed": lambda: nn.Trainer(nn.MLP([6, 3], seed=np.int64(2)), nn.SoftmaxCrossEntropy(), nn.SGD(0.1)),
    "dropout": lambda: nn.Trainer(
        nn.MLP([6, 4, 3], dropout=np.float32(0.5)), nn.SoftmaxCrossEntropy(), nn.SGD(0.1)
    ),
    "sizes": lambda: nn.Trainer(nn.MLP(list(np.array([6, 4, 3]))), nn.SoftmaxCrossEntropy(), nn.SGD(0.1)),
    "smoothing": lambda: nn.Trainer(
        nn.MLP([6, 3]), nn.SoftmaxCrossEntropy(np.float32(0.1)), nn.SGD(0.1)
    ),
}  # fmt: skip


@pytest.mark.parametrize("setting", NUMBERS)
def test_a_setting_that_is_a_numpy_number_is_a_number(setting: str, tmp_path: Path) -> None:
    make: Program = NUMBERS[setting]
    alone, watched = make(), make()
    x, y = data("classes")
    alone.fit(x, y, epochs=2, batch_size=np.int64(16))
    with nndiag.watch(watched, run=tmp_path / "run", every=1, strict=True):
        watched.fit(x, y, epochs=2, batch_size=np.int64(16))

    assert state(watched) == state(alone)
    run = nndiag.open_run(tmp_path / "run")
    assert (run.meta.ended, run.meta.batch_size, run.steps) == ("completed", 16, 8)


def test_what_fails_to_be_watched_is_left_unwatched(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = every_layer()
    monkeypatch.setattr(nn.Trainer, "describe", Failing(nn.Trainer.describe, FAULTS["ZeroDivisionError"], at=1))

    with pytest.raises(ZeroDivisionError):
        nndiag.watch(watched)

    assert not len(watched.hooks)
