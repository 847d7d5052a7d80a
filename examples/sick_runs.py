"""A gallery of sick trainings: each fault of `nndiag demo`, its verdict and headline, and the picture of its loss.

Every whole report goes to OUT/NAME.md and the picture to OUT/losses.png. Look at the picture: some of the curves are
twins, whose causes are not.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from matplotlib.figure import Figure

import nndiag
from nndiag import demo

COLUMNS = 4
EPOCHS = {"overfitting": 400}
"""Passes over the data where 10 are not enough to see the fault."""


def picture(runs: dict[str, nndiag.Run], reports: dict[str, nndiag.Report]) -> Figure:
    """A grid of loss curves, each under the name of its fault and the codes of its headlines."""
    rows = -(-len(runs) // COLUMNS)
    figure = Figure(figsize=(4 * COLUMNS, 2.8 * rows), layout="constrained")
    for place, (name, run) in enumerate(runs.items(), start=1):
        report = reports[name]
        axes = nndiag.plots.losses(run, figure.add_subplot(rows, COLUMNS, place))
        axes.set_title(f"{name}: {report.verdict.label} {', '.join(report.headlines)}", fontsize="medium")
        axes.set_xlim(0, run.steps)
        if broken := run.meta.first_nonfinite:
            axes.axvline(broken["step"], color="C3", linestyle="--", label="not a number from here on")
            axes.legend(fontsize="small")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out", metavar="DIR", type=Path, help="folder for reports and picture (default: a new temporary one)"
    )
    out: Path = parser.parse_args().out or Path(tempfile.mkdtemp(prefix="sick-runs-"))
    out.mkdir(parents=True, exist_ok=True)

    runs: dict[str, nndiag.Run] = {}
    reports: dict[str, nndiag.Report] = {}
    for name, fault in {"healthy": None, **{fault: fault for fault in demo.FAULTS}}.items():
        reports[name], recorder = demo.demo(fault=fault, epochs=EPOCHS.get(name, 10), probes=False)
        runs[name] = recorder.run
        (out / f"{name}.md").write_text(reports[name].to_markdown(), encoding="utf-8")
        print(f"{name}: {(demo.FAULTS[fault].__doc__ if fault else None) or 'The program as it should be.'}")
        print(f"  {reports[name].verdict.label}")
        if headline := reports[name].headline:
            print(f"  {headline.code} {headline.name}: {headline.message}")
            print(f"  fix: {headline.fix}")
        print()

    picture(runs, reports).savefig(out / "losses.png", dpi=100)
    print(f"The whole reports, and all loss curves in losses.png, are in {out}")


if __name__ == "__main__":
    main()
