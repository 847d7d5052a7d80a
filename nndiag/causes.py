"""The causal order: which findings come first, and which ones explain which. Data, in one place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nndiag.check import Finding, Verdict

ORDER = (
    "NDP03", "NDP01", "ND001", "ND1", "ND0", "ND9", "ND202", "ND203", "ND205", "ND207", "ND201", "ND2", "ND501",
    "ND502", "ND3", "ND4", "ND102", "ND5", "ND6", "ND707", "ND7", "NDP02", "NDP", "ND8",
)  # fmt: skip
"""Codes and families, root causes first; what stands behind can be a consequence of what stands before, by EXPLAINS."""

TRAINING = ("ND3", "ND4", "ND102", "ND5", "ND6", "ND702", "ND8", "NDP02")
"""What a network that cannot learn shows downstream. Not ND701 and ND707: they speak of networks that do learn."""

EXPLAINS: dict[str, tuple[str, ...]] = {
    "NDP03": ("ND",),
    "NDP01": TRAINING,
    "ND001": ("ND",),
    "ND002": ("ND2", "ND7", *TRAINING),
    "ND101": TRAINING,
    "ND202": ("ND203", "ND205", "ND207", *TRAINING),
    "ND203": ("ND201", "ND205", "ND207", *TRAINING),
    "ND205": ("ND201", "ND207", *TRAINING),
    "ND207": ("ND201", *TRAINING),
    "ND201": ("ND501", "ND6", "ND801"),
    "ND102": ("ND6", "ND702", "NDP02"),
    "ND501": ("ND102", "ND502", "ND3", "ND4", "ND6", "ND7", "ND8", "NDP02"),
    "ND502": ("ND4", "ND6", "ND702", "NDP02"),
    "ND301": ("ND4", "ND102", "ND6", "ND702", "NDP02"),
    "ND401": ("ND102", "ND6", "ND702", "NDP02"),
    "ND402": ("ND6", "ND702", "ND8"),
    "ND601": ("ND702", "NDP02"),
    "ND602": ("ND702", "ND701"),
    "ND707": ("ND701",),
}
"""Cause → the codes or families that it can bring about."""

SLACK = 100
"""A cause may be noticed this many steps later than its effect: windows and patience differ between checks."""


def rank(code: str) -> int:
    """Place of `code` in ORDER, by its longest matching prefix; codes of third parties come last."""
    matches = [prefix for prefix in ORDER if code.startswith(prefix)]
    return ORDER.index(max(matches, key=len)) if matches else len(ORDER)


def explains(cause: Finding, effect: Finding) -> bool:
    """Whether `cause` can have brought about `effect`: an edge of EXPLAINS, from earlier in the order, in time."""
    return (
        rank(cause.code) < rank(effect.code)
        and effect.code.startswith(EXPLAINS.get(cause.code, ()) or "\0")
        and (cause.first_step or 0) <= (effect.first_step or 0) + SLACK
    )


def arrange(findings: Sequence[Finding]) -> tuple[list[Finding], list[str]]:
    """`findings`, root causes first, each with the codes that it is a consequence of; and the codes of the headlines.

    Headlines are the findings that no other one explains, by the worst verdict among themselves and what they explain,
    then by rank and onset.
    """
    arranged = [
        replace(f, consequence_of=tuple(dict.fromkeys(c.code for c in sorted(findings, key=_place) if explains(c, f))))
        for f in sorted(findings, key=_place)
    ]
    worst = {f.code: max((o.verdict for o in findings if o.code == f.code or explains(f, o)), key=_severity)
             for f in arranged}  # fmt: skip
    roots = [f for f in arranged if not f.consequence_of]
    roots.sort(key=lambda f: (-_severity(worst[f.code]), _place(f)))
    return arranged, list(dict.fromkeys(f.code for f in roots))


def _severity(verdict: Verdict) -> int:
    return verdict.severity


def _place(finding: Finding) -> tuple[int, int, str]:
    return rank(finding.code), finding.first_step or 0, finding.code
