"""The Checklist: selects checks, examines a run with them, and orders what they find by cause."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from nndiag import progress
from nndiag.catalogue import catalogue, chosen
from nndiag.causes import arrange, can_explain
from nndiag.check import Check, Finding, Kind, Verdict
from nndiag.interrupts import propagates
from nndiag.report import CheckResult, Report
from nndiag.run import Run

log = logging.getLogger("nndiag")

CURVES = ("ND6", "ND7")
"""Families that look at the curves of the losses."""


class Checklist:
    """A selection of checks.

    `select` and `ignore` take codes, beginnings of codes, or names; `checks` are instances with thresholds of your own,
    such as `VanishingGradients(ratio=1e-4)`, that stand in for those of the same code. Raises UnknownName.
    """

    def __init__(
        self,
        select: str | Iterable[str] | None = None,
        ignore: str | Iterable[str] | None = None,
        checks: Iterable[Check] = (),
    ) -> None:
        available = {code: check() for code, check in catalogue().items()}
        for check in checks:
            if not isinstance(check, Check):
                raise TypeError(
                    f"Checklist(checks=[{check!r}]): wanted checks such as VanishingGradients(ratio=1e-4); "
                    "give codes and names to select"
                )
            available[check.code] = check
        classes = [type(check) for check in available.values()]
        codes = set(available) if select is None else chosen(select, classes)
        codes -= set() if ignore is None else chosen(ignore, classes)
        self.checks = tuple(check for code, check in available.items() if code in codes)

    def examine(self, run: Run) -> Report:
        """The verdicts of all checks on `run`. A check that fails is NOT CHECKED, with its error as the reason."""
        if not isinstance(run, Run):
            raise TypeError(
                f"a checklist examines a Run (recorder.run, or nndiag.open_run(path)), got a {type(run).__name__}"
            )
        thin = run.thinned().of_its_loss()
        with np.errstate(all="ignore"):  # a run may hold infinities; that is for the checks to say
            severity = Severity(thin)
            judged = [self._judge(check, thin, severity) for check in self.checks]
        verdicts = {result.code: result.verdict for result, _ in judged}
        findings, headlines = arrange([finding for _, found in judged for finding in found], verdicts)
        return Report(
            run.meta,
            run.steps,
            run.reads,
            run.path,
            tuple(_overshadowed(result, findings) for result, _ in judged),
            tuple(findings),
            tuple(headlines),
        )

    def _judge(self, check: Check, run: Run, severity: Severity) -> tuple[CheckResult, list[Finding]]:
        try:
            if reason := check.not_checked(run):
                return CheckResult.of(check, Verdict.NOT_CHECKED, reason), []
            seen = list(check.examine(run))
        except Exception as fault:
            if propagates(fault):
                raise
            self._fault(check, fault)
            return CheckResult.of(check, Verdict.NOT_CHECKED, f"the check itself failed: {fault!r}"), []
        findings = [replace(finding, verdict=severity.of(finding.kind)) for finding in seen if finding.kind != "note"]
        notes = tuple(finding.message for finding in seen if finding.kind == "note")
        if not findings and (reason := _lost(check, run) or _broken(check, run)):
            return CheckResult.of(check, Verdict.NOT_CHECKED, reason, notes), []
        if not findings and notes and check.kind == "note":
            return CheckResult.of(check, Verdict.PASS, notes[0], notes[1:]), []
        if not findings:
            return CheckResult.of(check, Verdict.PASS, check.passed, notes), []
        worst = max(findings, key=lambda finding: finding.verdict.severity)
        more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
        return CheckResult.of(check, worst.verdict, worst.message + more, notes), findings

    def _fault(self, check: Check, fault: Exception) -> None:
        log.error("%s failed: it is not checked", check.code, exc_info=fault)


def _lost(check: Check, run: Run) -> str:
    """Why a PASS would say too much: what fills a frame that the check reads has failed on the way."""
    needed = {need.partition(".")[0] for need in check.needs}
    for fault in run.meta.faults:
        if needed.intersection(fault.get("lost", ())):
            return f"{fault['part']} failed in {fault['event']}, its record is not whole: {fault['error']}"
    return ""


def _broken(check: Check, run: Run) -> str:
    """Why a PASS on the curves of the losses would say nothing: they end where the loss is not finite."""
    if not check.code.startswith(CURVES) or not progress.ended_nonfinite(run):
        return ""
    return f"the loss is not finite from step {run.meta.broken_at} on"


def _overshadowed(result: CheckResult, findings: Iterable[Finding]) -> CheckResult:
    """`result`; a PASS beside a FAIL that could cause what the check looks for must not claim more than it knows."""
    if result.verdict is not Verdict.PASS or result.kind == "note":
        return result
    cause = next((f.code for f in findings if f.verdict is Verdict.FAIL and can_explain(f, result.code)), "")
    return replace(result, reason=f"nothing beyond what {cause} may bring about") if cause else result


class Severity:
    """What a finding of each kind becomes on one run: the only place where anything becomes FAIL."""

    def __init__(self, run: Run) -> None:
        training, validation = progress.training(run), progress.validation(run)
        self._fails = {
            "exact": True,
            "training": bool(training and training.poor) and not (progress.underway(run) or progress.closing(run)),
            "generalisation": bool(
                validation
                and (
                    validation.poor or (validation.trivial is not None and validation.value < validation.best_value / 2)
                )
            ),
        }

    def of(self, kind: Kind) -> Verdict:
        """FAIL or WARN."""
        return Verdict.FAIL if self._fails[kind] else Verdict.WARN
