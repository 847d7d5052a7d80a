"""The example package adds its check through its entry point, as if it were installed."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import pytest

from nndiag import Checklist, NndiagError, catalogue
from nndiag.cli import main
from nndiag.testing import assert_contract

PACKAGE = Path(__file__).parents[1] / "examples/third_party_check"
GROUP = "nndiag.checks"


def declared() -> EntryPoint:
    """The entry point in the package's own pyproject.toml."""
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    ((name, value),) = project["entry-points"][GROUP].items()
    return EntryPoint(name, value, GROUP)


def install(monkeypatch: pytest.MonkeyPatch, *entries: EntryPoint) -> None:
    own = [entry for entry in entry_points(group=GROUP) if entry.value == "nndiag.checks:checks"]
    monkeypatch.setattr(catalogue, "entry_points", lambda group: [*own, *entries])
    catalogue.catalogue.cache_clear()


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(PACKAGE / "src")
    install(monkeypatch, declared())
    yield
    catalogue.catalogue.cache_clear()


def test_it_is_in_the_catalogue_and_keeps_the_contract(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["checks"]) == 0

    assert "BAT001 leftover-batch       training " in capsys.readouterr().out
    assert_contract(catalogue.find("BAT001"))


def test_it_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "leftover-batch"]) == 0

    out = capsys.readouterr().out
    assert out.startswith("BAT001 leftover-batch (training)\n\nThe last batch of each epoch")
    assert "\nThresholds: share = 0.0625\n" in out


def test_it_is_selected_and_ignored_like_any_other() -> None:
    assert [check.code for check in Checklist("BAT").checks] == ["BAT001"]
    assert "BAT001" not in [check.code for check in Checklist(ignore="leftover-batch").checks]


def test_two_packages_with_one_code_are_refused_and_both_named(monkeypatch: pytest.MonkeyPatch) -> None:
    copied = EntryPoint("copied", "nndiag_batches:checks", GROUP)
    install(monkeypatch, declared(), copied)

    with pytest.raises(NndiagError, match="two checks are called BAT001: one of nndiag_batches:checks, one of nndiag_"):
        Checklist()


def test_a_package_that_cannot_be_imported_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(monkeypatch, EntryPoint("gone", "no_such_package:checks", GROUP))

    assert main(["checks"]) == 2
    assert "the checks of no_such_package:checks cannot be imported" in capsys.readouterr().err
