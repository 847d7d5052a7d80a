"""Report: the verdicts and findings on one run, as text, Markdown, HTML, JSON and a frame."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from nndiag.check import Check, Finding, Kind, Verdict
from nndiag.meta import Meta
from nndiag.plain import as_json, printable

SCHEMA = "nndiag.report/1"

POINTS = {
    "forward shapes match the declared layer dimensions": ("NDP03",),
    "the loss falls on a tiny batch that is to be overfitted": ("NDP02",),
    "gradients agree with finite differences": ("NDP01",),
    "activation means and variances are healthy": (
        "ND203",
        "ND205",
        "ND207",
        "ND301",
        "ND302",
        "ND303",
        "ND304",
        "ND801",
        "ND802",
    ),
    "gradient norms are tracked by layer": ("ND401", "ND402", "ND403", "ND408", "ND801"),
    "training and validation curves are read together": ("ND701", "ND702", "ND707"),
}
"""The lesson's six points, each with the checks that answer it."""

NUMBERS = {point: number for number, point in enumerate(POINTS, 1)}

Paint = Callable[..., str]
"""Writes a verdict, in its colour where that is wanted, at a width."""

COLORS = {Verdict.PASS: "32", Verdict.WARN: "33", Verdict.FAIL: "31", Verdict.NOT_CHECKED: "2"}


@dataclass(frozen=True)
class CheckResult:
    """The verdict of one check, with the reason, and remarks that do not change it."""

    code: str
    name: str
    kind: Kind
    verdict: Verdict
    reason: str
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, check: Check, verdict: Verdict, reason: str, notes: tuple[str, ...] = ()) -> CheckResult:
        """The result of `check`."""
        return cls(check.code, check.name, check.kind, verdict, reason, notes)


@dataclass(frozen=True, repr=False)
class Report:
    """What the checklist says of one run.

    `findings` are ordered root causes first; `headlines` are the codes of those that nothing else explains, and empty
    for a healthy run.
    """

    meta: Meta
    steps: int
    reads: int
    path: Path | None
    checks: tuple[CheckResult, ...]
    findings: tuple[Finding, ...] = ()
    headlines: tuple[str, ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """How many checks came to each verdict, the worst first."""
        counted = Counter(check.verdict.value for check in self.checks)
        return {verdict.value: counted[verdict.value] for verdict in reversed(Verdict)}

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of any check; NOT CHECKED when not one could be made, remarks alone (kind note) aside."""
        return Verdict.worst(check.verdict for check in self.checks if check.kind != "note")

    @property
    def lost(self) -> bool:
        """Whether rows of the run that were once written are not there any more."""
        return any(fault.get("event") == "reading" for fault in self.meta.faults)

    @property
    def headline(self) -> Finding | None:
        """The finding that most likely is the cause of all the others; None for a healthy run."""
        return self.headline_findings[0] if self.headlines else None

    @property
    def headline_findings(self) -> list[Finding]:
        """For each headline its first finding."""
        return [next(finding for finding in self.findings if finding.code == code) for code in self.headlines]

    @property
    def points(self) -> list[tuple[str, Verdict, tuple[str, ...]]]:
        """The lesson's six points: the point, the worst verdict of its checks, and their codes.

        Of a selection of checks, the points that any of them answers. A point passes only where half of its checks could be made.
        """
        verdicts = {check.code: check.verdict for check in self.checks}
        asked = [(point, [code for code in codes if code in verdicts]) for point, codes in POINTS.items()]
        return [
            (point, self._answer(point, [verdicts[code] for code in codes]), tuple(codes))
            for point, codes in asked
            if codes
        ]

    def _answer(self, point: str, verdicts: Sequence[Verdict]) -> Verdict:
        made = sum(verdict is not Verdict.NOT_CHECKED for verdict in verdicts)
        worst = Verdict.worst(verdicts)
        return Verdict.NOT_CHECKED if worst is Verdict.PASS and 2 * made < len(POINTS[point]) else worst

    # As text

    def __str__(self) -> str:
        return self.to_text()

    def __repr__(self) -> str:
        return (
            f"<Report {self.verdict.label}: {printable(self._title())}; {', '.join(self.headlines) or 'no findings'}>"
        )

    def to_text(self, *, color: bool = False, brief: bool = False) -> str:
        """The report for a terminal: verdict and headlines, and unless it is to be `brief` a line a check and the six points."""
        paint = _painter(color)
        lines = [f"{paint(self.verdict)}  {printable(self._title())}", *map(printable, self._headline_lines())]
        return "\n".join(lines if brief else [*lines, "", *self._check_lines(paint), *self._point_lines(paint)])

    def _check_lines(self, paint: Paint) -> Iterable[str]:
        width = max((len(check.name) for check in self.checks), default=0)
        for check in self.checks:
            yield f"  {paint(check.verdict, 11)}  {check.code:5}  {check.name:{width}}  {printable(check.reason)}"
            for note in check.notes:
                yield f"  {'':11}  {'':5}  {'':{width}}  note: {printable(note)}"

    def _point_lines(self, paint: Paint) -> Iterable[str]:
        if self.points:
            yield from ("", "The six points")
        for point, verdict, codes in self.points:
            yield f"  {NUMBERS[point]}. {paint(verdict, 11)}  {point} ({self._asked(codes)})"

    def _asked(self, codes: Iterable[str]) -> str:
        """The checks that answer a point, those that could not be made apart where others could."""
        missing = {check.code for check in self.checks if check.verdict is Verdict.NOT_CHECKED}
        made, not_made = [c for c in codes if c not in missing], [c for c in codes if c in missing]
        if not made or not not_made:
            return ", ".join([*made, *not_made])
        return f"{', '.join(made)}; not checked: {', '.join(not_made)}"

    def _title(self) -> str:
        partly = f" ({self.reads} of them read)" if self.reads < self.steps else ""
        what = f"{self.meta.name}: {self.steps} step{'s' * (self.steps != 1)}{partly}, {self.meta.ended}"
        if self.verdict is Verdict.NOT_CHECKED:
            return f"{what}; not one check could be made"
        return (
            what
            if self.headlines
            else f"{what}; healthy as far as {self._made()} of {len(self.checks)} checks can tell"
        )

    def _made(self) -> int:
        return sum(check.verdict is not Verdict.NOT_CHECKED for check in self.checks)

    def _headline_lines(self) -> Iterable[str]:
        for fault in self.meta.faults:
            yield ""
            yield _told(fault)
        for finding in self.headline_findings:
            yield ""
            yield f"{finding.code} {finding.name}: {finding.message}"
            for word, text in self._details(finding).items():
                yield f"  {f'{word}:':9} {text}" if word != "explains" else f"  it explains {text}"

    def _details(self, finding: Finding) -> dict[str, str]:
        """What is said of a headline beside its message, by what it is."""
        said = {
            "seen": finding.where,
            "likely": "; ".join(map(self._named, finding.causes)),
            "not": f"{', '.join(map(self._named, finding.ruled_out))} (checked)" if finding.ruled_out else "",
            "fix": finding.fix,
            "confirm": finding.confirm,
            "explains": ", ".join(self._consequences(finding)),
        }
        return {word: text for word, text in said.items() if text}

    def _named(self, cause: str) -> str:
        """A code with its name; any other text as it is."""
        return next((f"{check.code} {check.name}" for check in self.checks if check.code == cause), cause)

    def _consequences(self, cause: Finding) -> list[str]:
        return list(dict.fromkeys(f"{f.code} {f.name}" for f in self.findings if cause.code in f.consequence_of))

    def to_markdown(self) -> str:
        """The report as Markdown; text from the run is escaped."""
        lines = [f"# {self.verdict.label}: {_md(self._title())}", ""]
        lines += [f"{_md(_told(fault))}\n" for fault in self.meta.faults]
        for finding in self.headline_findings:
            lines += [f"**{finding.code} {finding.name}**: {_md(finding.message)}", ""]
            lines += [*(f"- {word}: {_md(text)}" for word, text in self._details(finding).items()), ""]
        lines += ["| check | reason |", "| --- | --- |"]
        for check in self.checks:
            reason = "; note: ".join([check.reason, *check.notes])
            lines.append(f"| {check.verdict.label} {check.code} {check.name} | {_md(reason)} |")
        lines += ["", "| the six points | checks |", "| --- | --- |"] if self.points else []
        lines += [f"| {verdict.label} {point} | {self._asked(codes)} |" for point, verdict, codes in self.points]
        return "\n".join(lines) + "\n"

    def to_html(self) -> str:
        """The report as a piece of HTML, as a Jupyter notebook shows it; text from the run is escaped."""
        rows = [(c.verdict.label, c.code, c.name, "; note: ".join([c.reason, *c.notes])) for c in self.checks]
        points = [(verdict.label, point, self._asked(codes)) for point, verdict, codes in self.points]
        faults = "".join(f"<p>{_html(_told(fault))}</p>" for fault in self.meta.faults)
        heads = "".join(
            f"<p><b>{f.code} {_html(f.name)}</b>: {_html(f.message)}</p><ul>"
            f"{''.join(f'<li>{word}: {_html(text)}</li>' for word, text in self._details(f).items())}</ul>"
            for f in self.headline_findings
        )
        return (
            f"<h4>{self.verdict.label}: {_html(self._title())}</h4>{faults}{heads}"
            f"{_html_table(('verdict', 'code', 'check', 'reason'), rows)}"
            f"{_html_table(('', 'the six points', 'checks'), points) if points else ''}"
        )

    _repr_html_ = to_html

    def to_frame(self) -> pd.DataFrame:
        """One row a check: code (index), name, kind, verdict, reason."""
        rows = [(c.code, c.name, c.kind, c.verdict.value, c.reason) for c in self.checks]
        return pd.DataFrame(rows, columns=["code", "name", "kind", "verdict", "reason"]).set_index("code")

    def to_json(self) -> str:
        """The report as JSON, schema "nndiag.report/1"; numbers that are not finite are null."""
        return as_json(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """What `to_json` writes, as plain values."""
        return {
            "schema": SCHEMA,
            "run": {
                "name": self.meta.name,
                "path": str(self.path) if self.path else None,
                "steps": self.steps,
                "reads": self.reads,
                "ended": self.meta.ended,
                "created": self.meta.created,
            },
            "verdict": self.verdict.value,
            "headlines": list(self.headlines),
            "counts": self.counts,
            "checks": [asdict(check) for check in self.checks],
            "findings": [_finding_dict(finding) for finding in self.findings],
        }


STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:75em;margin:2em auto;padding:0 1em;color:#222;background:#fff}
h4{font-size:1.3em}table{border-collapse:collapse;margin:1.5em 0}th,td{text-align:left;vertical-align:top;padding:.2em .8em}
tr+tr td,thead+tbody td{border-top:1px solid #ddd}td:first-child{white-space:nowrap;font-weight:600}"""
"""How a page of reports looks."""


def page(reports: Sequence[Report]) -> str:
    """The reports as one HTML page that needs nothing else."""
    title = ", ".join(f"{report.verdict.label} {_html(report.meta.name)}" for report in reports)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style></head>'
        f"<body>{'<hr>'.join(report.to_html() for report in reports)}</body></html>\n"
    )


def _told(fault: Mapping[str, str]) -> str:
    """What a run says of a part that failed, or of rows that its folder has lost."""
    if fault.get("event") == "reading":
        return f"rows of this run are lost: {fault.get('error')}"
    return (
        f"a part of nndiag failed and was detached: {fault.get('part')} in {fault.get('event')}: {fault.get('error')}"
    )


def _finding_dict(finding: Finding) -> dict[str, Any]:
    data = asdict(finding)
    del data["kind"], data["place"], data["ruled_out"]
    return data


def _md(text: str) -> str:
    """`text` as literal Markdown, on one line."""
    text = html.escape(printable(text.replace("\n", " ")), quote=False)
    return "".join(f"\\{c}" if c in "\\`*_[]|#" else c for c in text).replace("~", "&#126;")


def _html(text: str) -> str:
    return html.escape(printable(text))


def _html_table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    cells = "".join(f"<tr>{''.join(f'<td>{_html(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return (
        f"<table><thead><tr>{''.join(f'<th>{_html(c)}</th>' for c in head)}</tr></thead><tbody>{cells}</tbody></table>"
    )


def _painter(color: bool) -> Paint:
    def paint(verdict: Verdict, width: int = 0) -> str:
        text = f"{verdict.label:{width}}"
        return f"\x1b[{COLORS[verdict]}m{text}\x1b[0m" if color else text

    return paint
