"""The command: `python -m benchmarks.diagnosis_torch.others PART`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.diagnosis.__main__ import workers
from benchmarks.diagnosis_torch.bases import BASES
from benchmarks.diagnosis_torch.faults import FAULTS
from benchmarks.diagnosis_torch.measure import jobs
from benchmarks.diagnosis_torch.others import tools
from benchmarks.diagnosis_torch.others.score import measure, report

PARTS = ("develop", "held-out", "all")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the programs with every tool, print, write; the exit status."""
    parser = _parser()
    options = parser.parse_args(argv)
    chosen = options.tool or list(tools.TOOLS)
    try:
        title = "Other tools: " + ", ".join(f"{name} {version(name)}" for name in [*chosen, "torch"])
    except PackageNotFoundError as missing:
        parser.error(f"{missing.name} is not installed; {Path(tools.__file__).name} says how, --tool leaves others out")
    with workers(options.jobs) as apply:
        # Tools are put into the loops of the bases; a program of the zoo has a loop of its own
        programs = jobs(options.part, options.base, options.fault, group="bases")
        results = list(apply(measure, [(tool, job) for tool in chosen for job in programs]))
    text = report(results, title)
    print(text)
    if options.markdown:
        options.markdown.write_text(text, encoding="utf-8")
    if options.json:
        options.json.write_text(json.dumps([asdict(result) for result in results], indent=1), encoding="utf-8")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m benchmarks.diagnosis_torch.others",
                                     description="Other tools on the programs of the fault matrix.")  # fmt: skip
    parser.add_argument("part", choices=PARTS, nargs="?", default="develop")
    parser.add_argument("--tool", choices=tools.TOOLS, action="append", metavar="NAME", help="this one; may come again")
    parser.add_argument("--jobs", type=int, default=2, help="processes (2)")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there, too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was heard there")
    parser.add_argument("--base", choices=BASES, metavar="NAME", default="", help="of this base")
    parser.add_argument("--fault", choices=FAULTS, metavar="NAME", default="", help="of this fault")
    return parser


if __name__ == "__main__":
    sys.exit(main())
