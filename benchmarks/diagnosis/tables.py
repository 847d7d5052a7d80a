"""The outcomes in tables: recall by fault, precision, and false alarms by check, with 95 % intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from statistics import median

from benchmarks.diagnosis.measure import Outcome
from benchmarks.scoring import Share, table

RECALL = ("runs", "any alarm", "right headline", "right among three", "right layer", "median steps")
SOUND = ("runs", "any FAIL", "any WARN or FAIL")


def faulty(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Those of the matrix."""
    return [outcome for outcome in outcomes if outcome.job.fault]


def sound(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Those of the bases as they are and of the zoo."""
    return [outcome for outcome in outcomes if not outcome.job.fault]


def recall(outcomes: Sequence[Outcome]) -> Share:
    """Right cause as the first headline."""
    return Share.of(outcome.right_headline for outcome in outcomes)


def precision(outcomes: Iterable[Outcome]) -> Share:
    """Headlines that name the fault, among all headlines of faulty runs."""
    return Share.of(code in outcome.expected for outcome in outcomes for code in outcome.headlines)


def report(outcomes: Sequence[Outcome]) -> str:
    """Everything, in Markdown."""
    matrix, healthy = faulty(outcomes), sound(outcomes)
    parts = ["# Diagnosis", *_summary(matrix, healthy)]
    if matrix:
        parts += ["## Recall by fault", by_fault(matrix), "## Recall by base", by_base(matrix)]
        parts += ["## What was named instead", confusions(matrix)]
    if healthy:
        parts += ["## False alarms by check", by_check(healthy), "## False alarms by kind", by_kind(healthy)]
    return "\n\n".join(parts) + "\n"


def _summary(matrix: Sequence[Outcome], healthy: Sequence[Outcome]) -> Iterator[str]:
    if matrix:
        head = ("part", *RECALL, "precision of headlines")
        yield "## The fault matrix"
        yield table(head, [(part, *_recall_row(rows, str), precision(rows)) for part, rows in by_part(matrix)])
    if healthy:
        yield "## The zoo and the sound bases"
        yield table(("part", *SOUND), list(_sound_rows(healthy)))


def by_part(outcomes: Sequence[Outcome]) -> Iterator[tuple[str, list[Outcome]]]:
    """What is for development, and what is held out; parts that hold nothing are left out."""
    for part, held_out in (("develop", False), ("held-out", True)):
        if rows := [outcome for outcome in outcomes if outcome.held_out == held_out]:
            yield part, rows


def _sound_rows(healthy: Sequence[Outcome]) -> Iterator[tuple[str, ...]]:
    for part, rows in by_part(healthy):
        for group, chosen in grouped(rows, lambda outcome: outcome.job.group).items():
            yield f"{part}, {group}", *_alarm_row(chosen, str)


def grouped(outcomes: Iterable[Outcome], key: Callable[[Outcome], str]) -> dict[str, list[Outcome]]:
    """The outcomes of each group, in the order in which the groups appear."""
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(key(outcome), []).append(outcome)
    return groups


def _alarm_row(rows: Sequence[Outcome], show: Callable[[Share], str]) -> tuple[str, ...]:
    return str(len(rows)), show(Share.of(row.failed for row in rows)), show(Share.of(row.alarm for row in rows))


def _recall_row(rows: Sequence[Outcome], show: Callable[[Share], str]) -> tuple[str, ...]:
    placed = [row.right_layer for row in rows if row.right_layer is not None]
    steps = [row.steps_to_right for row in rows if row.steps_to_right is not None]
    return (
        str(len(rows)),
        show(Share.of(row.alarm for row in rows)),
        show(recall(rows)),
        show(Share.of(row.right_among_three for row in rows)),
        show(Share.of(placed)),
        f"{median(steps):g}" if steps else "–",
    )


def _short(share: Share) -> str:
    return share.short


def by_fault(matrix: Sequence[Outcome]) -> str:
    """A row for each fault."""
    rows = [
        (name, ", ".join(chosen[0].expected), *_recall_row(chosen, _short))
        for name, chosen in grouped(matrix, lambda outcome: outcome.job.fault).items()
    ]
    return table(("fault", "expected", *RECALL), rows)


def by_base(matrix: Sequence[Outcome]) -> str:
    """A row for each base."""
    groups = grouped(matrix, lambda outcome: outcome.job.base)
    rows = [(base, *_recall_row(chosen, _short)) for base, chosen in groups.items()]
    return table(("base", *RECALL), rows)


def confusions(matrix: Sequence[Outcome]) -> str:
    """The most frequent wrong first headlines of each fault."""
    wrong: dict[str, Counter[str]] = {}
    for outcome in matrix:
        if not outcome.right_headline:
            wrong.setdefault(outcome.job.fault, Counter())[(*outcome.headlines, "nothing")[0]] += 1
    rows = [(name, ", ".join(f"{code} × {n}" for code, n in codes.most_common(4))) for name, codes in wrong.items()]
    return table(("fault", "first headline"), rows)


def by_check(healthy: Sequence[Outcome]) -> str:
    """How many sound runs each check has alarmed on."""
    seen = Counter((code, verdict) for outcome in healthy for code, verdict in _verdicts(outcome).items())
    codes = sorted({code for code, _ in seen})
    return table(("check", "FAIL", "WARN"), [(code, seen[code, "fail"], seen[code, "warn"]) for code in codes])


def _verdicts(outcome: Outcome) -> dict[str, str]:
    """The worst verdict of each check that found something."""
    found: dict[str, str] = {}
    for finding in outcome.findings:
        found[finding.code] = "fail" if "fail" in (finding.verdict, found.get(finding.code)) else "warn"
    return found


def by_kind(healthy: Sequence[Outcome]) -> str:
    """False alarms for each kind of sound program."""
    kinds = grouped(healthy, lambda outcome: outcome.job.kind)
    return table(("kind", *SOUND), [(kind, *_alarm_row(rows, _short)) for kind, rows in kinds.items()])


def details(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """A paragraph for each fault that was not named first, and for each false alarm."""
    for outcome in faulty(outcomes):
        if not outcome.right_headline or outcome.right_layer is False:
            layer = "; wrong layer" if outcome.right_layer is False else ""
            headlines = ", ".join(outcome.headlines) or "nothing"
            yield f"MISS {_title(outcome)}: wanted {', '.join(outcome.expected)}, headlines {headlines}{layer}"
            yield from _findings(outcome)
    for outcome in sound(outcomes):
        if outcome.alarm:
            yield f"FALSE ALARM {_title(outcome)}"
            yield from _findings(outcome)


def _title(outcome: Outcome) -> str:
    return f"{outcome.job.name}, error {outcome.error:.3g} after {outcome.steps} steps"


def _findings(outcome: Outcome) -> Iterator[str]:
    for finding in outcome.findings:
        yield f"    {finding.verdict} {finding.code} {finding.where}: {finding.message}"
