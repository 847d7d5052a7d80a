"""For the tests of those who write checks: `assert_contract` holds a check to what every check promises."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any

import numpy as np

from nndiag import synthetic
from nndiag.catalogue import catalogue, collect
from nndiag.check import Check, Finding, Verdict
from nndiag.checklist import Checklist
from nndiag.errors import NndiagError
from nndiag.frames import FRAMES
from nndiag.meta import LayerMeta, ParameterMeta
from nndiag.report import CheckResult
from nndiag.run import Run
from nndiag.statistics import Array
from nndiag.table import Table

LAYERS = (LayerMeta("h1", "affine", (4,)), LayerMeta("h1.relu", "relu", (4,)), LayerMeta("h2", "affine", (4,)),
          LayerMeta("h2.relu", "relu", (4,)), LayerMeta("output", "affine", (3,)))  # fmt: skip
PARAMETERS = (
    ParameterMeta("h1.weight", "weight", (4, 8), layer="h1"),
    ParameterMeta("output.weight", "weight", (3, 4), layer="output"),
)
SECONDS = 3.0
"""Of processor time on a long run: far above any sound check, so that only a wrong complexity exceeds it."""


def assert_contract(check: type[Check]) -> None:
    """Raises AssertionError with every promise that `check` breaks; TypeError where it lacks what makes it a check.

    It is a frozen dataclass whose thresholds have defaults; its code and name are no other installed check's; its
    docstring is a page; it passes its healthy run and flags its sick one, with a message, a step, a fix and a way to
    confirm it; it is NOT CHECKED, with the reason, on an empty run, without any one of the statistics that it needs and with
    a read less than it needs; it never fails
    itself, whatever was recorded; it says the same when asked again; and a long run does not take it long.

    That `healthy()` and `sick()` lie within a factor of two of the threshold is for you to see to.
    """
    check.validate()
    for promises in (FORM, CONDUCT):  # what breaks the first cannot be run
        if broken := [sentence for promise in promises for sentence in promise(check)]:
            raise AssertionError("\n".join(f"{check.code} {check.name} {sentence}" for sentence in broken))


def is_a_frozen_dataclass(check: type[Check]) -> Iterator[str]:
    if "__dataclass_fields__" not in vars(check):  # inherited ones do not count; that it is frozen comes with Check
        yield "is no frozen dataclass: decorate it with @dataclass(frozen=True)"
    elif bare := [f.name for f in fields(check) if f.default is MISSING and f.default_factory is MISSING]:
        yield f"has thresholds without a default: {', '.join(bare)}"


def has_a_code_and_a_name_of_its_own(check: type[Check]) -> Iterator[str]:
    others = [other for other in catalogue().values() if _origin(other) != _origin(check)]
    try:
        collect([("the installed checks", lambda: others), (check.__module__, lambda: [check])])
    except NndiagError as clash:
        yield f"shares its code or name: {clash}"


def has_a_page(check: type[Check]) -> Iterator[str]:
    if not check.summary().endswith("."):
        yield f"needs a docstring that begins with one sentence on a line of its own, has {check.summary()!r}"


def passes_its_healthy_run(check: type[Check]) -> Iterator[str]:
    result, _ = judged(check, check.healthy())
    if result.verdict is not Verdict.PASS:
        yield f"does not pass its healthy run: {result.verdict.label}, {result.reason}"


def flags_its_sick_run(check: type[Check]) -> Iterator[str]:
    result, findings = judged(check, check.sick())
    remarked = check.kind == "note" and (result.notes or result.reason != check.passed)
    if not findings and not remarked:
        yield f"does not flag its sick run: {result.verdict.label}, {result.reason}"
    for finding in findings[:1]:
        lacking = [what for what in ("message", "fix", "confirm") if not getattr(finding, what)]
        lacking += ["first_step"] if finding.first_step is None else []
        if lacking:
            yield f"has a finding without {', '.join(lacking)}"


def is_not_checked_on_an_empty_run(check: type[Check]) -> Iterator[str]:
    result, _ = judged(check, Run())
    if result.verdict is not Verdict.NOT_CHECKED or not result.reason:
        yield f"says {result.verdict.label} of an empty run, wanted NOT CHECKED with the reason"


def is_not_checked_with_a_read_too_few(check: type[Check]) -> Iterator[str]:
    if check.needs and check.min_reads > 1:
        result, _ = judged(check, filled(check.min_reads - 1, np.ones))
        if result.verdict is not Verdict.NOT_CHECKED:
            yield f"says {result.verdict.label} of {check.min_reads - 1} reads, wanted NOT CHECKED"


def is_not_checked_without_what_it_needs(check: type[Check]) -> Iterator[str]:
    for need in check.needs:
        result, _ = judged(check, _without(check.sick(), need))
        if result.verdict is not Verdict.NOT_CHECKED:
            yield f"says {result.verdict.label} of a run without {need}, wanted NOT CHECKED"


def never_fails_itself(check: type[Check]) -> Iterator[str]:
    for what, run in ODD.items():
        result, _ = judged(check, run())
        if "the check itself failed" in result.reason:
            yield f"fails on a run that is {what}: {result.reason}"


def says_the_same_when_asked_again(check: type[Check]) -> Iterator[str]:
    run, asked = check.sick(), check()
    if repr(judged(check, run, asked)) != repr(judged(check, run, asked)):
        yield "says something else of the same run when asked again"


def is_quick_on_a_long_run(check: type[Check]) -> Iterator[str]:
    run = long()
    begun = time.process_time()
    judged(check, run)
    if (taken := time.process_time() - begun) > SECONDS:
        yield f"takes {taken:.1f} s for 2000 reads of 50 layers"


Promise = Callable[[type[Check]], Iterable[str]]
"""Gives the sentences that say how a check breaks it; none where it is kept."""

FORM: tuple[Promise, ...] = (is_a_frozen_dataclass, has_a_code_and_a_name_of_its_own, has_a_page)
CONDUCT: tuple[Promise, ...] = (
    passes_its_healthy_run,
    flags_its_sick_run,
    is_not_checked_on_an_empty_run,
    is_not_checked_with_a_read_too_few,
    is_not_checked_without_what_it_needs,
    never_fails_itself,
    says_the_same_when_asked_again,
    is_quick_on_a_long_run,
)


def judged(check: type[Check], run: Run, instance: Check | None = None) -> tuple[CheckResult, list[Finding]]:
    """What the checklist makes of `check` on `run`, whether it is installed or not."""
    report = Checklist(select=check.code, checks=[instance or check()]).examine(run)
    result = next(result for result in report.checks if result.code == check.code)
    return result, [finding for finding in report.findings if finding.code == check.code]


def filled(steps: int, value: Callable[[int], Array], layers: Sequence[LayerMeta] = LAYERS) -> Run:
    """A classifier's run that has every frame, with `value(steps)` in each of their columns."""
    parameters = [parameter.name for parameter in PARAMETERS]
    owners = {
        "activations": [layer.name for layer in layers],
        "gradients": parameters,
        "updates": parameters,
        "data": ["input", "target"],
        "outputs": ["outputs", "targets"],
    }
    loop = {statistic: value(steps) for statistic in FRAMES["loop"]}
    frames: dict[str, Any] = {
        frame: {statistic: {name: value(steps) for name in names} for statistic in FRAMES[frame]}
        for frame, names in owners.items()
    }
    return synthetic.run(
        steps=steps, train=value(steps), validation=dict.fromkeys(range(1, steps + 1, 3), float(value(1)[0])),
        layers=layers, metrics={"lr": {"train": value(steps)}}, parameters=PARAMETERS, loop=loop, **frames,
        **synthetic.CLASSES,
    )  # fmt: skip


def _without(run: Run, need: str) -> Run:
    """`run` without the statistic that `need`, "frame.statistic", names."""
    frame, _, statistic = need.partition(".")
    tables = dict(run.tables)
    if frame in tables:
        table = tables.pop(frame)
        keep = [i for i, (name, _) in enumerate(table.columns) if name != statistic]
        if keep:
            tables[frame] = Table(tuple(table.columns[i] for i in keep), table.steps, table.values[:, keep])
    return Run(run.meta, tables, run.path)


def ragged() -> Run:
    """A run in which every column begins later than the one before and has holes."""
    begun = 0

    def column(steps: int) -> Array:
        nonlocal begun
        begun += 1
        values = np.linspace(1.0, 2.0, steps)
        values[: begun % steps] = np.nan
        values[:: 2 + begun % 5] = np.nan
        return values

    return filled(100, column)


def long() -> Run:
    """2000 reads of 50 layers, with noise in every column."""
    rng = np.random.default_rng(0)
    layers = [LayerMeta(f"l{i}", "relu" if i % 2 else "affine", (8,)) for i in range(50)]
    return filled(2000, lambda n: np.abs(rng.standard_normal(n)), layers)


ODD: Mapping[str, Callable[[], Run]] = {
    "empty": Run,
    "one step": lambda: filled(1, np.ones),
    "two steps": lambda: filled(2, np.ones),
    "all zero": lambda: filled(100, np.zeros),
    "all NaN": lambda: filled(100, lambda n: np.full(n, np.nan)),
    "all infinite": lambda: filled(100, lambda n: np.full(n, np.inf)),
    "alternating": lambda: filled(100, lambda n: np.where(np.arange(n) % 2, np.nan, 1.0)),
    "ragged": ragged,
    "one layer": lambda: filled(100, np.ones, LAYERS[-1:]),
    "no layers described": lambda: filled(100, np.ones, [LayerMeta("a"), LayerMeta("b")]),
    "negative": lambda: filled(100, lambda n: -np.ones(n)),
    "huge": lambda: filled(100, lambda n: np.full(n, 1e300)),
}
"""Runs as nobody plans them, by what is odd about them."""


def _origin(check: type[Check]) -> tuple[str, str]:
    return check.__module__, check.__qualname__
