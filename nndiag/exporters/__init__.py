"""Exporters show a run elsewhere, live through `Recorder.add_exporter` or afterwards through `replay`."""

from __future__ import annotations

from contextlib import closing

from nndiag.exporters.tensorboard import TensorBoard as TensorBoard
from nndiag.recorder import Exporter
from nndiag.report import Report
from nndiag.run import Run


def replay(run: Run, exporter: Exporter, report: Report | None = None) -> None:
    """Send everything that `run` holds through `exporter`, then `report`, and close it."""
    with closing(exporter):
        exporter.describe(run.meta)
        for step, rows in run.rows():
            exporter.write(step, rows)
        if report is not None:
            exporter.report(report, run.steps)
