"""Writes docs/checks.md, the page of every check of nndiag. Run it as a script; with --check it says if that is stale."""

from __future__ import annotations

import importlib
import sys
from itertools import groupby
from pathlib import Path

from nndiag import pages
from nndiag.catalogue import collect
from nndiag.check import Check
from nndiag.checks import checks

PAGE = Path(__file__).with_suffix(".md")

INTRO = """\
# The checks

Every check of nndiag: what it sees, why that hurts, how it decides and with which thresholds, what to do about it.
`nndiag explain CODE` prints the same page. `python docs/checks.py` writes this file from the checks themselves.

The kind of a check says what its findings can become:

- **exact**: a fact that the values prove. FAIL at once.
- **training**: WARN, and FAIL when training makes poor progress.
- **generalisation**: WARN, and FAIL when validation ends no better than a trivial prediction, or has lost more than half
  of its best progress.
- **note**: a remark on a PASS.

With less than it *reads* a check is NOT CHECKED and says so; a read is a step at which that statistic was recorded.
*Thresholds* are the fields of the check, with their defaults: `Checklist(checks=[VanishingGradients(ratio=1e-4)])`
examines with another one. What a check *explains* is listed as its consequence where both are found and it came first,
or not long after."""


def document() -> str:
    """The whole file."""
    known = tuple(collect([("nndiag", checks)]).values())
    families = [list(members) for _, members in groupby(known, key=pages.family)]
    contents = [_contents(members) for members in families]
    chapters = [_chapter(members, known) for members in families]
    return "\n\n".join([INTRO, "\n".join(contents), *chapters]) + "\n"


def _contents(members: list[type[Check]]) -> str:
    lines = [f"  - {pages.linked(pages.title(check))}: {pages.escaped(check.summary())}" for check in members]
    return "\n".join([f"- {pages.linked(pages.family(members[0]))}: {_subject(members[0])}", *lines])


def _chapter(members: list[type[Check]], known: tuple[type[Check], ...]) -> str:
    subject = _subject(members[0])
    sections = [pages.markdown(check, known) for check in members]
    return "\n\n".join([f"## {pages.family(members[0])}\n\n{subject[0].upper()}{subject[1:]}.", *sections])


def _subject(check: type[Check]) -> str:
    """What a family is about: the first words of its package's docstring, up to the colon."""
    subject = (importlib.import_module(check.__module__.rpartition(".")[0]).__doc__ or "").partition(":")[0]
    return f"{subject[:1].lower()}{subject[1:]}"


def stale() -> bool:
    """Whether the file on disk is not what the checks say."""
    return not PAGE.exists() or PAGE.read_text(encoding="utf-8") != document()


if __name__ == "__main__":
    if "--check" in sys.argv[1:]:
        sys.exit(f"{PAGE.name} is stale: python docs/checks.py" if stale() else 0)
    PAGE.write_text(document(), encoding="utf-8")
