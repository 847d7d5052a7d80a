"""The causal order: which findings come first, and which ones explain which. Data, in one place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from nndiag.check import Finding, Verdict

SUGGESTED = "ND105?"
"""Place of an objective that values suggest to be wrong and do not prove: anything else that is found goes before it."""

UNMOVED = "ND502?"
"""Place of updates that left a network where it began: what flows and what is initialised goes before, a suggestion behind."""

ANEW = "ND602?"
"""Place of a loss that begins anew time and again: the loop does that, whatever else the run shows."""

DRAWN = "ND006?"
"""Place of the same few samples drawn time and again: their labels, shares and scales are those of none but them."""

MEMORYLESS = "ND403?"
"""Place of a recurrent layer that reads sequences of one step: it trains, and has no memory; how large its updates are is another
matter."""

NO_WAY_BACK = "ND904?"
"""Place of a loss that passes nothing back: nothing but a wrong objective brings that about."""

ALIKE = "ND102?"
"""Place of outputs that are the same for all samples, where what goes into the last layer is not: it is made so in between."""

RATE_DECAYS = "ND501?"
"""Place of a weight decay that is as usual, times a learning rate that is not: where updates are too large, that is why."""

GRADIENTS_GONE = "ND507?"
"""Place of gradients below an eps that is as small as usual: what has made them so small goes before."""

WRONG_SIGN = "a gradient of the wrong sign: this backward pass is your own"
"""What is likely where a loss goes up by gradients that no framework has made."""

ORDER = (
    "NDP03", "NDP01", "ND001",
    "ND103", "ND110", "ND106", "ND111", "ND114", ALIKE, "ND107", "ND101", "ND113", "ND105", "ND104", "ND112", "ND108", "ND1",
    "NDP05",
    "ND011", "ND012", "ND002", "ND003", "ND004", DRAWN, "ND005", "ND009", "ND008", "ND007", "ND0",
    "ND408", NO_WAY_BACK, "ND904", "ND504", "ND901", "ND902", "ND903", "ND9", ANEW, "ND508",
    "ND307", "ND202", "ND203", "ND205", "ND207", "ND201", "ND2", "NDP09",
    "ND305", MEMORYLESS, "ND505", "ND506", "ND507", "ND509", "NDP08", "ND404", "ND501", RATE_DECAYS, "ND502",
    "ND301", "ND302", "ND401", "ND3", "ND306", "ND4", GRADIENTS_GONE, "ND804", "ND102", "ND5",
    UNMOVED, SUGGESTED, "ND707", "ND607", "ND606", "ND602", "ND603", "ND601", "ND6",
    "ND109", "ND7", "NDP06", "NDP02", "NDP04", "NDP", "ND8",
)  # fmt: skip
"""Codes and families, root causes first: data and objective, the loop, initialisation, settings of the optimiser, what flows,
the curves. What stands behind can be a consequence of what stands before, by EXPLAINS."""

SIGNAL = ("ND301", "ND302", "ND303", "ND304", "ND306")
FLOW = ("ND401", "ND402")
PACE = ("ND501", "ND502", "NDP06")
TINY = ("NDP02", "NDP04")
NOTHING_MOVES = ("ND403", "ND503")
NO_LEARNING = ("ND102", SUGGESTED, "ND6", "ND109", "ND702", "ND707", "ND8", *TINY)
TRAINING = (*SIGNAL, *FLOW, *PACE, *NO_LEARNING)
"""What a network that cannot learn shows downstream: not what stands exactly still, which takes a cause that stops
everything; not settings, which are facts of their own, nor ND701, which speaks of
networks that do learn."""

START = ("ND201", "ND203", "ND205", "ND207", "ND307", "ND507")
"""What shows at the first read of a network whose inputs or weights are out of scale."""

OBJECTIVE = (NO_WAY_BACK, "ND201", "ND307", "ND507", *TRAINING)
"""What a wrong objective brings about."""

EXPLAINS: dict[str, tuple[str, ...]] = {
    "NDP03": ("ND",),
    "NDP01": TRAINING,
    "ND001": ("ND",),
    SUGGESTED: ("ND6", "ND702", *TINY),
    "ND103": ("ND101", "ND110", "ND105", "ND108", *OBJECTIVE),
    "ND110": ("ND105", "ND104", *OBJECTIVE),
    "ND106": ("ND105", "ND113", *NOTHING_MOVES, *OBJECTIVE),
    "ND111": ("ND105", "ND108", "NDP05", *OBJECTIVE),
    ALIKE: ("ND7", *NOTHING_MOVES, *OBJECTIVE),
    "ND107": OBJECTIVE,
    "ND1": (*NOTHING_MOVES, *OBJECTIVE),
    "ND2": TRAINING,
    "NDP05": ("ND7", *TRAINING),
    "ND101": OBJECTIVE,
    "ND105": OBJECTIVE,
    "ND104": OBJECTIVE,
    "ND112": ("ND203", "ND205", "ND207", *OBJECTIVE),
    "ND113": ("ND105", *OBJECTIVE),
    "ND114": (ALIKE, "ND2", *NOTHING_MOVES, *OBJECTIVE),
    "ND108": ("ND404", *OBJECTIVE),
    "ND012": ("ND002", "ND009", "ND6", "ND7"),
    "ND002": ("ND7", *START, *TRAINING),
    "ND003": (*START, *TRAINING),
    "ND004": ("ND201", "ND404", *TRAINING),
    "ND009": ("ND7",),
    "ND008": ("ND7",),
    "ND007": ("ND501", "ND306", "ND402", "ND404", "ND6", "ND7"),
    "ND005": ("ND009", "ND109", "ND306", "ND7", "ND102", "ND6", "ND702"),
    "ND006": ("ND7",),
    DRAWN: ("ND005", "ND009", "ND007", "ND102", "ND306", "ND6", "ND7"),
    "ND408": ("ND7", *TRAINING),
    NO_WAY_BACK: ("ND504", "ND7", *NOTHING_MOVES, *TRAINING),
    "ND904": ("ND504", "ND7", *NOTHING_MOVES, *TRAINING),
    "ND504": ("ND403", "ND502", "ND503", "ND304", "ND306", "ND7", *NO_LEARNING),
    "ND901": ("ND404", "ND7", *TRAINING),
    ANEW: ("ND7", *TRAINING),
    "ND902": ("ND7",),
    "ND903": ("ND7",),
    "ND202": ("ND203", "ND205", "ND207", "NDP09", *NOTHING_MOVES, *TRAINING),
    "ND203": ("ND201", "ND205", "ND207", "NDP09", "ND404", *NOTHING_MOVES, *TRAINING),
    "ND205": ("ND201", "ND207", "NDP09", *NOTHING_MOVES, *TRAINING),
    "ND207": ("ND201", *TRAINING),
    "NDP09": TRAINING,
    "ND201": ("ND501", "NDP06", "ND6", "ND702", "ND8"),
    "ND508": ("ND503", "ND7", *START, *TRAINING),
    "ND505": ("ND503", "ND7", *TRAINING),
    "ND506": ("ND7", *TRAINING),
    "ND507": TRAINING,
    RATE_DECAYS: ("ND502", "NDP06", "ND7", *SIGNAL, *FLOW, *NO_LEARNING),
    GRADIENTS_GONE: NO_LEARNING,
    "ND509": ("ND402", "ND6", "ND7"),
    "NDP08": ("ND6", "ND702"),
    "ND404": ("ND502", "ND503", *NO_LEARNING),
    "ND501": (RATE_DECAYS, GRADIENTS_GONE, "ND502", "NDP06", "ND7", *NOTHING_MOVES, *SIGNAL, *FLOW, *NO_LEARNING),
    "ND502": ("ND503", "NDP06", "ND306", *FLOW, *NO_LEARNING),
    UNMOVED: (SUGGESTED, "ND6", "ND702", "ND707", *TINY),
    "ND305": ("ND6", "ND702", "ND707", *TINY),
    MEMORYLESS: ("ND306", *NO_LEARNING),
    "ND307": ("ND203", "ND205", "ND207", "ND301", "ND302", "ND304", "ND306", "ND502", "ND6", "ND702", *TINY),
    "ND301": ("ND304", "ND306", GRADIENTS_GONE, *NOTHING_MOVES, *FLOW, *NO_LEARNING),
    "ND302": ("ND304", "ND306", GRADIENTS_GONE, *NOTHING_MOVES, *FLOW, *NO_LEARNING),
    "ND303": ("ND402", *NO_LEARNING),
    "ND304": ("ND306", "ND503", "ND403", *NO_LEARNING),
    "ND306": ("ND6", "ND702"),
    "ND401": ("ND304", "ND306", "ND503", GRADIENTS_GONE, *NO_LEARNING),
    "ND402": ("ND6", "ND702", "ND8"),
    "ND403": ("ND503", *NO_LEARNING),
    "ND804": ("ND503", "ND6", "ND702", "ND707"),
    "ND102": ("ND6", "ND109", "ND702", "ND707", *TINY),
    "ND607": ("ND601", "ND605", "ND702", *TINY),
    "ND606": ("ND601", "ND605", "ND702", *TINY),
    "ND602": ("ND603", "ND604", "ND605", "ND702", "ND701"),
    "ND603": ("ND604",),
    "ND601": ("ND605", "ND702", *TINY),
    "ND707": ("ND601", "ND605", "ND607", "ND701", "ND702"),
}
"""Cause → the codes or families that it can bring about."""

WHOLE = ("ND502", "ND6", "ND702", "ND707")
"""Findings that speak of a run as a whole, whatever step they name first."""

SLACK = 100
"""A cause may be noticed this many steps later than its effect: windows and patience differ between checks."""


def rank(code: str) -> int:
    """Place of `code` in ORDER, by its longest matching prefix; codes of third parties come last."""
    matches = [prefix for prefix in ORDER if code.startswith(prefix)]
    return ORDER.index(max(matches, key=len)) if matches else len(ORDER)


def explains(cause: Finding, effect: Finding) -> bool:
    """Whether `cause` can have brought about `effect`: an edge of EXPLAINS, from earlier in the order, in time."""
    return can_explain(cause, effect.place or effect.code) and (cause.first_step or 0) <= _known_at(effect) + SLACK


def can_explain(cause: Finding, code: str) -> bool:
    """Whether `cause` can bring about what the check `code` looks for: an edge of EXPLAINS, from earlier in the order."""
    above = cause.place or cause.code
    return rank(above) < rank(code) and code.startswith(EXPLAINS.get(above, ()) or "\0")


def _known_at(effect: Finding) -> int:
    """Step by which a cause must have begun: the end of the run for what is said of a run as a whole."""
    whole = effect.code.startswith(WHOLE) and effect.last_step is not None
    return (effect.last_step if whole else effect.first_step) or 0


def arrange(
    findings: Sequence[Finding], verdicts: Mapping[str, Verdict] | None = None
) -> tuple[list[Finding], list[str]]:
    """`findings`, root causes first, each with the codes that it is a consequence of; and the codes of the headlines.

    Headlines are the findings that no other one explains, by the worst verdict among themselves and what they explain,
    then by rank and onset. The likely causes of each finding are ranked by evidence: headlines that explain it, then what
    its check says, without codes of checks that by their `verdicts` found nothing; those that passed are ruled out.
    """
    arranged = [
        replace(f, consequence_of=tuple(dict.fromkeys(c.code for c in sorted(findings, key=_place) if explains(c, f))))
        for f in sorted(findings, key=_place)
    ]
    worst = {f.code: Verdict.worst(o.verdict for o in findings if o.code == f.code or explains(f, o))
             for f in arranged}  # fmt: skip
    roots = [f for f in arranged if not f.consequence_of]
    roots.sort(key=lambda f: (-worst[f.code].severity, _place(f)))
    headlines = list(dict.fromkeys(f.code for f in roots))
    return [_with_evidence(f, headlines, verdicts or {}) for f in arranged], headlines


def _with_evidence(finding: Finding, headlines: Sequence[str], verdicts: Mapping[str, Verdict]) -> Finding:
    """`finding` with its likely causes, those with evidence first, and those that are ruled out."""
    seen = [code for code in headlines if code in finding.consequence_of]
    said = [cause for cause in finding.causes if cause not in verdicts]
    ruled_out = tuple(cause for cause in finding.causes if verdicts.get(cause) is Verdict.PASS)
    return replace(finding, causes=tuple(dict.fromkeys([*seen, *said])), ruled_out=ruled_out)


def _place(finding: Finding) -> tuple[int, int, str]:
    return rank(finding.place or finding.code), finding.first_step or 0, finding.code
