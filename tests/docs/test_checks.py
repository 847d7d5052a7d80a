"""The pages of the checks on disk are what the checks say."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from nndiag import pages
from nndiag.checks import VanishingGradients, checks

SCRIPT = Path(__file__).parents[2] / "docs/checks.py"
PAGE = SCRIPT.with_suffix(".md").read_text(encoding="utf-8")
DOCUMENT = runpy.run_path(str(SCRIPT))["document"]()


def headings(level: int) -> list[str]:
    return re.findall(rf"^{'#' * level} (.+)$", PAGE, re.MULTILINE)


def section(check: str) -> str:
    return PAGE.partition(f"\n### {check}\n")[2].partition("\n#")[0]


def test_the_file_is_what_the_checks_say() -> None:
    assert PAGE == DOCUMENT, "stale: python docs/checks.py"


def test_check_says_whether_it_is_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", [str(SCRIPT), "--check"])
    with pytest.raises(SystemExit) as fresh:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    monkeypatch.setattr(VanishingGradients, "advice", "Another one.")
    with pytest.raises(SystemExit) as stale:
        runpy.run_path(str(SCRIPT), run_name="__main__")

    assert fresh.value.code == 0
    assert stale.value.code == "checks.md is stale: python docs/checks.py"


def test_every_check_has_one_section_in_the_order_of_the_catalogue() -> None:
    ordered = sorted(checks(), key=lambda check: (check.code.startswith("NDP"), check.code))

    assert headings(3) == [pages.title(check) for check in ordered]
    assert headings(2) == list(dict.fromkeys(pages.family(check) for check in ordered))


def test_every_link_leads_to_a_heading() -> None:
    targets = {pages.linked(heading) for heading in headings(2) + headings(3)}

    assert set(re.findall(r"(?<!\\)\[.*?\]\(#.*?\)", PAGE)) == targets


def test_a_section_holds_all_there_is_to_say_of_a_check() -> None:
    text = section("ND401 vanishing-gradients")

    assert VanishingGradients.page() in text
    assert f"- **Fix**: {VanishingGradients.advice}\n- **Confirm**: `{VanishingGradients.confirm}`\n" in text
    assert "- **Kind**: training\n" in text
    assert "- **Reads**: `activations.gradient_rms`; 20 reads or more\n" in text
    assert "- **Thresholds**: `ratio = 0.001`, `window = 50`, `per_layer = 0.35`, `unsquashed = 0.28`\n" in text
    assert "[ND702 underfitting](#nd702-underfitting)" in text.partition("**Explains**")[2]
    assert "[ND203 activation-variance](#nd203-activation-variance)" in text.partition("**Explained by**")[2]


def test_signs_of_markdown_are_escaped_but_not_in_code() -> None:
    assert pages.escaped("a*b_c < [d] and `e*f`") == "a\\*b\\_c \\< \\[d] and `e*f`"
