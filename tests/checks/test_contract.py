"""What every check promises, over all that are installed."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest

from nndiag import Checklist, Verdict, synthetic
from nndiag.catalogue import catalogue
from nndiag.check import Check
from nndiag.meta import LayerMeta, ParameterMeta
from nndiag.probes import PROBES
from nndiag.report import CheckResult
from nndiag.run import Run
from nndiag.statistics import Array

CHECKS = list(catalogue().values())
LAYERS = [LayerMeta("h1", "affine", (4,)), LayerMeta("h1.relu", "relu", (4,)), LayerMeta("h2", "affine", (4,)),
          LayerMeta("h2.relu", "relu", (4,)), LayerMeta("output", "affine", (3,))]  # fmt: skip
PARAMETERS = [
    ParameterMeta("h1.weight", "weight", (4, 8), layer="h1"),
    ParameterMeta("output.weight", "weight", (3, 4), layer="output"),
]


def result(check: type[Check], run: Run) -> CheckResult:
    report = Checklist(select=check.code).examine(run)
    assert len(report.checks) == 1
    return report.checks[0]


def filled(steps: int, value: Callable[[int], Array], layers: list[LayerMeta] | None = None) -> Run:
    """A run that has every frame, with values of `value(steps)` everywhere."""
    from nndiag.frames import FRAMES

    layers = LAYERS if layers is None else layers
    names = {
        "activations": [layer.name for layer in layers],
        "gradients": [parameter.name for parameter in PARAMETERS],
        "updates": [parameter.name for parameter in PARAMETERS],
        "data": ["input", "target"],
        "outputs": ["outputs", "targets"],
    }
    frames = {
        frame: {statistic: {name: value(steps) for name in owners} for statistic in FRAMES[frame]}
        for frame, owners in names.items()
    }
    return synthetic.run(
        steps=steps, train=value(steps), validation=dict.fromkeys(range(1, steps + 1, 3), float(value(1)[0])),
        metrics={"lr": {"train": value(steps)}}, layers=layers, parameters=PARAMETERS, **frames, **synthetic.CLASSES,
    )  # fmt: skip


ODD: dict[str, Callable[[], Run]] = {
    "empty": Run,
    "one step": lambda: filled(1, np.ones),
    "two steps": lambda: filled(2, np.ones),
    "all zero": lambda: filled(100, np.zeros),
    "all NaN": lambda: filled(100, lambda n: np.full(n, np.nan)),
    "all infinite": lambda: filled(100, lambda n: np.full(n, np.inf)),
    "alternating": lambda: filled(100, lambda n: np.where(np.arange(n) % 2, np.nan, 1.0)),
    "one layer": lambda: filled(100, np.ones, LAYERS[-1:]),
    "no layers described": lambda: filled(100, np.ones, [LayerMeta("a"), LayerMeta("b")]),
    "negative": lambda: filled(100, lambda n: -np.ones(n)),
    "huge": lambda: filled(100, lambda n: np.full(n, 1e300)),
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.code)
def test_passes_its_healthy_run(check: type[Check]) -> None:
    assert result(check, check.healthy()).verdict is Verdict.PASS


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.code)
def test_flags_its_sick_run(check: type[Check]) -> None:
    report = Checklist(select=check.code).examine(check.sick())

    assert report.verdict in (Verdict.WARN, Verdict.FAIL)
    assert report.headlines == (check.code,)
    finding = report.findings[0]
    assert finding.message
    assert finding.fix
    assert finding.confirm
    assert finding.first_step is not None


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.code)
def test_is_not_checked_on_an_empty_run_with_the_reason(check: type[Check]) -> None:
    seen = result(check, Run())

    assert seen.verdict is Verdict.NOT_CHECKED
    assert "needs" in seen.reason or "not run" in seen.reason


@pytest.mark.parametrize("run", ODD.values(), ids=ODD)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.code)
def test_never_fails_itself(check: type[Check], run: Callable[[], Run]) -> None:
    assert "the check itself failed" not in result(check, run()).reason


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.code)
def test_has_a_page_a_newcomer_can_read(check: type[Check]) -> None:
    page = check.page()

    assert check.summary().endswith(".")
    assert "Decides on" in page or check in PROBES
    assert check.name.replace("-", "").isalpha()


@pytest.mark.parametrize("check", [check for check in CHECKS if check not in PROBES], ids=lambda check: check.code)
def test_is_quick_on_a_long_run(check: type[Check]) -> None:
    """Not a benchmark: a bound that only a wrong complexity breaks (20 ms is the aim, measured in benchmarks)."""
    layers = [LayerMeta(f"l{i}", "relu" if i % 2 else "affine", (8,)) for i in range(50)]
    rng = np.random.default_rng(0)
    run = filled(2000, lambda n: np.abs(rng.standard_normal(n)), layers)
    begun = time.process_time()

    result(check, run)

    assert time.process_time() - begun < 3


def test_codes_and_names_are_those_of_the_files() -> None:
    for check in CHECKS:
        file = check.__module__.rpartition(".")[2]
        american = check.name.replace("generalisation", "generalization").replace("non-finite", "nonfinite")
        assert file.replace("_", "-") == american
