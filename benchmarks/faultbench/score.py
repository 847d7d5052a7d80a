"""Runs and what they count for: which true faults were named, which names were wrong, and what healthy runs were blamed for.

A fault counts as named by the report's headlines, and by the first two causes of any finding at WARN or above that are
codes of checks. Every seed counts as one part of its case, so that intervals are those of as many cases, not runs.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.resources import files
from typing import Any, ClassVar, Literal

import nndiag
from benchmarks.faultbench import codes
from benchmarks.faultbench.program import LEARNED, Case
from benchmarks.faultbench.programs import CASES

Version = Literal["faulty", "fixed"]
ALARMS = ("warn", "fail")
CODE = re.compile(r"ND[P\d]\d\d")


@dataclass(frozen=True)
class Result:
    """What nndiag said of one run, and how the run ended; `cases` are all those that it may be a run of."""

    cases: ClassVar[Mapping[str, Case]] = CASES

    case: str
    version: Version
    seed: int
    headlines: tuple[str, ...]
    causes: tuple[str, ...]
    messages: tuple[str, ...]
    alarms: dict[str, str]
    loss: float
    skill: float
    steps: int
    seconds: float

    @property
    def of(self) -> Case:
        """The case that this is a run of."""
        return self.cases[self.case]

    @property
    def named(self) -> tuple[str, ...]:
        """Every code that was named, headlines first."""
        return tuple(dict.fromkeys((*self.headlines, *self.causes)))

    @property
    def sound(self) -> bool:
        """Whether a fixed program or a control learned: only then is it wrong to blame it."""
        return not self.of.unsound and not self.skill < LEARNED

    @property
    def faulty(self) -> bool:
        """Whether a published fault is at work here; where it strikes by chance, only in runs that did not learn."""
        return self.version == "faulty" and self.of.role == "faulty" and not (self.of.chance and self.skill >= LEARNED)

    @property
    def control(self) -> bool:
        """Whether this is a run of a fixed program or of a negative control."""
        return self.version == "fixed" or self.of.role == "control"

    def right(self, named: Iterable[str]) -> list[str]:
        """Those of the codes that name a fault which the program has."""
        true = codes.naming(self.of.faults)
        return [code for code in named if code in true]

    def blamed(self, *verdicts: str) -> list[str]:
        """Checks of a control with one of these verdicts, but for those that name a fault which it is known to have."""
        known = codes.naming(self.of.faults if self.version == "faulty" else self.of.left)
        return [code for code, verdict in self.alarms.items() if verdict in verdicts and code not in known]


def judge(case_id: str, version: Version, seed: int, kind: type[Result] = Result) -> Result:
    """Run one version of a case from `seed`."""
    case, begun = kind.cases[case_id], time.perf_counter()
    program = case.program if version == "faulty" else case.fixed_program
    if program is None:
        raise ValueError(f"{case_id} has no fixed version")
    outcome = program.run(seed)
    report = outcome.report
    messages = tuple(f"{finding.code} {finding.name}: {finding.message}" for finding in report.headline_findings)
    return kind(case_id, version, seed, report.headlines, tuple(causes(report)), messages, alarms(report),
                outcome.loss, outcome.skill(case.task), report.steps, time.perf_counter() - begun)  # fmt: skip


def causes(report: nndiag.Report) -> Iterator[str]:
    """Codes among the first two causes of the findings at WARN or above."""
    for finding in report.findings:
        if finding.verdict.value in ALARMS:
            yield from (cause for cause in finding.causes[:2] if CODE.fullmatch(cause))


def alarms(report: nndiag.Report) -> dict[str, str]:
    """Code → verdict of the checks at WARN or above."""
    return {check.code: check.verdict.value for check in report.checks if check.verdict.value in ALARMS}


# Figures


@dataclass(frozen=True)
class Share:
    """`hits` of `total`; both may be fractions of cases."""

    hits: float
    total: float

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval (Wilson 1927)."""
        n, z = self.total, 1.96
        if not n:
            return 0.0, 1.0
        p, spread = self.hits / n, z * z / n
        middle, half = p + spread / 2, z * math.sqrt(p * (1 - p) / n + spread / (4 * n))
        return max(0.0, (middle - half) / (1 + spread)), min(1.0, (middle + half) / (1 + spread))

    def __str__(self) -> str:
        low, high = self.interval
        share = f"{self.hits / self.total:.0%}" if self.total else "–"
        return f"{share} ({self.hits:.3g} of {self.total:.3g}; {low:.0%}–{high:.0%})"


def share(results: Iterable[Result], holds: Callable[[Result], Any], seeds: int) -> Share:
    """Share of the runs for which something holds, in units of cases."""
    held = [bool(holds(result)) for result in results]
    return Share(sum(held) / seeds, len(held) / seeds)


def precision(results: Iterable[Result], seeds: int, headlines: bool, diagnoses: bool) -> Share:
    """Share of the named codes that name a fault which the program has.

    The denominator is every code named in a faulty program, once a run: by its headlines, or by headlines and causes.
    A code that speaks for another kind of fault only is wrong. So is a mere symptom (ND601), unless `diagnoses`, which
    leaves those out that name no kind of fault at all.
    """
    named = [(result, code) for result in results for code in (result.headlines if headlines else result.named)]
    named = [(result, code) for result, code in named if not diagnoses or code in codes.DIAGNOSES]
    return Share(sum(bool(result.right([code])) for result, code in named) / seeds, len(named) / seeds)


# Tables


def figures(results: list[Result], seeds: int) -> Iterator[tuple[str, Share, Share, Share]]:
    """What is measured of faulty programs: of all, of those labelled by a benchmark (B) and of those by a reader (I)."""
    faulty = [result for result in results if result.faulty]
    groups = (faulty, *([r for r in faulty if r.of.labels == source] for source in ("B", "I")))
    for what, measured in FIGURES.items():
        everything, published, read = (measured(group, seeds) for group in groups)
        yield what, everything, published, read


FIGURES: dict[str, Callable[[list[Result], int], Share]] = {
    "a true fault named": lambda rs, n: share(rs, lambda r: r.right(r.named), n),
    "a true fault among the headlines": lambda rs, n: share(rs, lambda r: r.right(r.headlines), n),
    "a true fault named, where a check could": lambda rs, n: share(
        (r for r in rs if codes.naming(r.of.faults)), lambda r: r.right(r.named), n
    ),
    "any alarm": lambda rs, n: share(rs, lambda r: r.alarms, n),
    "precision": lambda rs, n: precision(rs, n, headlines=False, diagnoses=False),
    "precision of headlines": lambda rs, n: precision(rs, n, headlines=True, diagnoses=False),
    "precision without symptoms": lambda rs, n: precision(rs, n, headlines=False, diagnoses=True),
    "precision of headlines without symptoms": lambda rs, n: precision(rs, n, headlines=True, diagnoses=True),
}
"""What is measured of a group of faulty runs, with as many seeds."""


def controls(results: list[Result], seeds: int) -> Iterator[tuple[str, str]]:
    """How often fixed programs and negative controls are blamed, those apart that are not sound."""
    fixed = [result for result in results if result.control]
    for what, group in (
        ("fixed programs and controls that learn", [result for result in fixed if result.sound]),
        ("fixed programs that do not learn", [result for result in fixed if not result.sound]),
    ):
        yield f"{what}: FAIL", str(share(group, lambda r: r.blamed("fail"), seeds))
        yield f"{what}: WARN or FAIL", str(share(group, lambda r: r.blamed(*ALARMS), seeds))
        yield f"{what}: by check", counted(code for result in group for code in result.blamed(*ALARMS))


def by_fault(results: list[Result], seeds: int) -> Iterator[tuple[str, str, str]]:
    """For each kind of fault: how often it was named in the programs that have it, and what names it."""
    faulty = [result for result in results if result.faulty]
    for fault in sorted({fault for result in faulty for fault in result.of.faults}):
        names = codes.naming((fault,))
        having = [result for result in faulty if fault in result.of.faults]
        named = share(having, lambda r, names=names: names & set(r.named), seeds)  # type: ignore[misc]
        yield fault, str(named), " ".join(sorted(names)) or codes.OUT_OF_REACH[fault]


def by_case(results: list[Result]) -> Iterator[tuple[str, str, str, str, str, str]]:
    """Of each program: its faults, runs that named one and runs by code, what else was said, and the fixed one's blame.

    Of a control what it is blamed for stands in the last column; "–" is a program that was not run.
    """
    for case in {result.case: result.of for result in results}.values():
        runs = [result for result in results if result.case == case.id]
        faulty, fixed = [run for run in runs if run.faulty], [run for run in runs if run.control]
        named, wrong, learned, blame = "–", "–", "–", "–"
        if faulty:
            hits = sum(bool(run.right(run.named)) for run in faulty)
            named = f"{hits} of {len(faulty)}: {counted(code for run in faulty for code in run.right(run.named))}"
            wrong = counted(code for run in faulty for code in run.named if not run.right([code]))
        if fixed:
            learned = f"{sum(run.sound for run in fixed)} of {len(fixed)}"
            blame = counted(f"{code} {run.alarms[code]}" for run in fixed for code in run.blamed(*ALARMS))
        yield case.id, " ".join(case.faults), named, wrong, learned, blame


def beside(results: list[Result], seeds: int) -> Iterator[tuple[str, str, str, str]]:
    """Published verdicts of other tools on the same programs, and ours: study and tool, what counted, theirs, ours."""
    faulty = [result for result in results if result.faulty]
    ran = {result.case for result in faulty}
    for row in published():
        yes, cases = ran & {*row["yes"]}, ran & {*row["yes"], *row["no"]}
        ours = share((r for r in faulty if r.case in cases), lambda r: r.right(r.named), seeds)
        if cases:
            yield f"{row['study']}: {row['tool']}", row["verdict"], str(Share(len(yes), len(cases))), str(ours)


def published() -> list[dict[str, Any]]:
    """Study, tool, what its verdict says, and the programs for which it did and did not."""
    rows: list[dict[str, Any]] = json.loads((files(__package__) / "published.json").read_text("utf-8"))
    return rows


def counted(found: Iterable[str]) -> str:
    """Runs by code, most first."""
    return ", ".join(f"{code} ×{count}" for code, count in Counter(found).most_common()) or "none"


def to_markdown(results: list[Result], seeds: int) -> str:
    """All tables."""
    heading = f"{len({r.case for r in results})} programs, {seeds} seeds each, {len(results)} runs"
    return "\n\n".join(
        [
            heading,
            table(("faulty programs", "all", "B", "I"), ((what, *map(str, s)) for what, *s in figures(results, seeds))),
            table(("fixed programs and controls", "blamed"), controls(results, seeds)),
            table(("fault", "named", "by"), by_fault(results, seeds)),
            table(("program", "faults", "named", "said besides", "fixed: learns", "blamed for"), by_case(results)),
            table(("published", "counts", "theirs", "a true fault named here"), beside(results, seeds)),
        ]
    )


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows))


def to_json(results: list[Result], seeds: int) -> str:
    """Figures and runs as JSON; numbers that are not finite are null."""
    numbers = {what: [[s.hits, s.total, *s.interval] for s in shares] for what, *shares in figures(results, seeds)}
    plain = [{key: finite(value) for key, value in asdict(result).items()} for result in results]
    return json.dumps(
        {"figures": numbers, "controls": dict(controls(results, seeds)), "runs": plain}, indent=1, allow_nan=False
    )


def finite(value: Any) -> Any:
    """`value`, or None for NaN and infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def verbose(result: Result) -> str:
    """One run in full."""
    head = f"{result.case} {result.version} seed {result.seed}: loss {result.loss:.4g}, skill {result.skill:.2f}"
    kind = (
        f"faults {' '.join(result.of.faults)}"
        if not result.control
        else "sound"
        if result.sound
        else f"not sound: {result.of.unsound or 'did not learn'}"
    )
    right = result.right(result.named)
    wrong = [code for code in result.named if code not in right]
    lines = [f"{head}, {result.steps} steps, {result.seconds:.1f} s; {kind}", *(f"    {m}" for m in result.messages)]
    if result.control:
        lines.append(
            f"    blamed: {', '.join(f'{code} {result.alarms[code]}' for code in result.blamed(*ALARMS)) or '–'}"
        )
    else:
        lines.append(f"    right: {' '.join(right) or '–'}    wrong: {' '.join(wrong) or '–'}"
                     f"    causes: {' '.join(result.causes) or '–'}    alarms: {' '.join(result.alarms)}")  # fmt: skip
    return "\n".join(lines)
