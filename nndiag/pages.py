"""The page of a check, as `nndiag explain` prints it and docs/checks.md holds it."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Any

from nndiag import causes
from nndiag.check import Check

Setting = Callable[[str], str]
Catalogue = Iterable[type[Check]]


@dataclasses.dataclass(frozen=True)
class Style:
    """How sentences, code and references (titles of checks, codes of families) are set."""

    prose: Setting = str
    code: Setting = str
    reference: Setting = str


def title(check: type[Check]) -> str:
    """Code and name."""
    return f"{check.code} {check.name}"


def family(check: type[Check]) -> str:
    """The code of its family, such as ND4; the probes are NDP."""
    return check.code[:3]


def explained(check: type[Check], known: Catalogue) -> list[type[Check]]:
    """Those of `known` whose findings can be consequences of this check's."""
    return [other for other in known if _explains(check, other)]


def causes_of(check: type[Check], known: Catalogue) -> list[type[Check]]:
    """Those of `known` whose findings can explain this check's."""
    return [other for other in known if _explains(other, check)]


def _explains(cause: type[Check], effect: type[Check]) -> bool:
    return causes.explains(cause().finding(""), effect().finding(""))


def plain(check: type[Check], known: Catalogue) -> str:
    """The page as text."""
    lines = [f"{label}: {fact}" for label, fact in _facts(check, tuple(known), Style()).items()]
    return "\n".join([f"{title(check)} ({check.kind})", "", check.page(), "", *lines])


def markdown(check: type[Check], known: Catalogue) -> str:
    """The page as a section of a Markdown document that holds the pages of all `known` checks."""
    style = Style(escaped, "`{}`".format, linked)
    facts = {"Kind": check.kind, **_facts(check, tuple(known), style)}
    lines = [f"- **{label}**: {fact}" for label, fact in facts.items()]
    return "\n".join([f"### {title(check)}", "", escaped(check.page()), "", *lines])


def escaped(text: str) -> str:
    """`text` with signs that Markdown would read as its own made plain, outside of `code`."""
    return re.sub(r"(`[^`]*`)|([*_<\[\\])", lambda match: match[1] or f"\\{match[2]}", text)


def linked(heading: str) -> str:
    """A link to the section of that heading, by the anchor that GitHub gives it."""
    anchor = re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
    return f"[{heading}](#{anchor})"


def _facts(check: type[Check], known: tuple[type[Check], ...], style: Style) -> dict[str, str]:
    confirm = style.code if _is_code(check.confirm) else style.prose
    return {
        "Fix": style.prose(check.advice),
        "Confirm": confirm(check.confirm) if check.confirm else "–",
        "Reads": _reads(check, style),
        "Thresholds": ", ".join(style.code(threshold) for threshold in thresholds(check)) or "none",
        "Explains": _listed(explained(check, known), known, style),
        "Explained by": _listed(causes_of(check, known), known, style),
    }


def thresholds(check: type[Check]) -> list[str]:
    """Each threshold with its default, as "ratio = 0.001"."""
    return [f"{field.name} = {_value(field.default)}" for field in dataclasses.fields(check)]


def _value(default: Any) -> str:
    return f"{default:g}" if isinstance(default, float) else str(default)


def _reads(check: type[Check], style: Style) -> str:
    if not check.needs:
        return "its own measurement" if family(check) == "NDP" else "what the run says of itself"
    reads = "1 read" if check.min_reads == 1 else f"{check.min_reads} reads"
    return f"{', '.join(style.code(need) for need in check.needs)}; {reads} or more"


def _is_code(text: str) -> bool:
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    return True


def _listed(checks: list[type[Check]], known: tuple[type[Check], ...], style: Style) -> str:
    """Titles of `checks`; a family of which none is missing goes by its code."""
    words: list[str] = []
    for code, group in groupby(known, key=family):
        members = list(group)
        listed = [check for check in members if check in checks]
        whole = listed == members and len(members) > 1
        words += [f"all of {style.reference(code)}"] if whole else [style.reference(title(check)) for check in listed]
    return ", ".join(words) or "no other check"
