"""The command line: demo, check, report, export, checks, explain. Text to stdout, progress and warnings to stderr."""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nndiag import __version__
from nndiag.errors import NndiagError, RunError

if TYPE_CHECKING:
    from nndiag.report import Report

HEALTHY, SICK, UNJUDGED = 0, 1, 2
"""Exit codes: no FAIL; at least one FAIL; could not judge. Of several runs 2 beats 1 beats 0."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code. Bad input gives one line on stderr and 2, never a traceback."""
    if sys.stdout is None or sys.stderr is None:  # closed by the caller: the exit code says it all
        nowhere = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  # for as long as the process lives
        sys.stdout, sys.stderr = sys.stdout or nowhere, sys.stderr or nowhere
    logging.basicConfig(format="nndiag: %(message)s", level=logging.WARNING)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal may not know every character
    options = parser().parse_args(arguments)
    try:
        code: int = options.run(options)
        sys.stdout.flush()
        return code
    except NndiagError as fault:
        return _refuse(str(fault))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # a closed pager is no error
        return HEALTHY
    except OSError as fault:
        return _refuse(f"{fault.filename or 'input or output'}: {fault.strerror or fault}")
    except KeyboardInterrupt:
        return _refuse("interrupted")


def _refuse(reason: str) -> int:
    from nndiag.plain import printable

    print(f"nndiag: {printable(reason)}", file=sys.stderr)
    return UNJUDGED


def parser() -> argparse.ArgumentParser:
    """The argument parser."""
    top = argparse.ArgumentParser(prog="nndiag", description="The health checker of neural-network training.")
    top.add_argument("--version", action="version", version=f"nndiag {__version__}")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")

    demo = _command(commands, "demo", _demo, "train an MLP on handwritten digits and check it")
    demo.add_argument(
        "--out", type=Path, default=Path("runs/demo"), metavar="DIR", help="run folder (default: runs/demo)"
    )
    demo.add_argument("--epochs", type=_positive, metavar="N", help="passes over the training data")
    demo.add_argument("--seed", type=_natural, default=0, metavar="N", help="seed of data split, weights and shuffling")
    demo.add_argument("--no-probes", action="store_true", help="leave out the probes that run before training")
    demo.add_argument(
        "--fault", metavar="NAME", help="break something: lr-too-high, dead-relu, nan-input, … (--fault list)"
    )

    check = _command(
        commands,
        "check",
        _check,
        "examine runs; exit 0 without FAIL, 1 with, 2 if one cannot be judged or has lost rows",
    )
    check.add_argument("paths", nargs="+", type=Path, metavar="RUN", help="run folder")
    check.add_argument(
        "--format",
        choices=("text", "brief", "json", "markdown", "html"),
        default="text",
        help="default: text; brief: without the list of all checks",
    )
    check.add_argument("--fail-on", choices=("fail", "warn"), default="fail", help="verdict from which to exit with 1")
    check.add_argument("-o", "--output", type=Path, metavar="FILE", help="write there instead of to stdout")
    _selection(check)

    report = _command(
        commands, "report", _report, "write the report on a run as Markdown, or into a file .html as HTML"
    )
    report.add_argument("path", type=Path, metavar="RUN", help="run folder")
    report.add_argument("-o", "--output", type=Path, metavar="FILE", help="write there instead of to stdout")
    _selection(report)

    export = _command(commands, "export", _export, "export a run to TensorBoard, Parquet or CSV")
    export.add_argument("path", type=Path, metavar="RUN", help="run folder")
    export.add_argument("--tensorboard", type=Path, metavar="DIR", help="log directory; the run becomes DIR/NAME")
    export.add_argument("--parquet", type=Path, metavar="DIR", help="folder for one Parquet file a frame, in long form")
    export.add_argument("--csv", type=Path, metavar="DIR", help="folder for one CSV file a frame, in long form")

    _command(commands, "checks", _checks, "list the catalogue of checks")
    explain = _command(commands, "explain", _explain, "print the page of a check")
    explain.add_argument("check", metavar="CODE", help="code or name of a check")
    return top


def _command(commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str,
             run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:  # fmt: skip
    command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    command.set_defaults(run=run)
    return command


def _selection(command: argparse.ArgumentParser) -> None:
    command.add_argument("--select", action="append", metavar="CODES", help="only these codes, beginnings or names")
    command.add_argument("--ignore", action="append", metavar="CODES", help="not these codes, beginnings or names")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, 1 or more")
    return int(text)


def _natural(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, 0 or more")
    return int(text)


def _demo(options: argparse.Namespace) -> int:
    from nndiag.demo import FAULTS, demo

    if options.fault == "list":
        for name, fault in FAULTS.items():
            print(f"{name:20} {fault.__doc__}")
        return HEALTHY
    report, recorder = demo(options.out, fault=options.fault, epochs=options.epochs, seed=options.seed,
                            probes=not options.no_probes, tensorboard=True, progress=True)  # fmt: skip
    accuracy = recorder.run.series("metrics", "accuracy", "validation")
    print(report.to_text(color=_colored()))
    print(f"\nvalidation accuracy  {accuracy.iloc[-1]:.3f}")
    print(f"run folder           {recorder.path}    (nndiag check {recorder.path})")
    print(f"TensorBoard          tensorboard --logdir {recorder.path}/tensorboard --samples_per_plugin scalars=0")
    return _exit_code(report, "fail")


def _check(options: argparse.Namespace) -> int:
    from nndiag.checklist import Checklist
    from nndiag.run import open_run

    checklist = Checklist(options.select, options.ignore)
    reports, codes = [], []
    for path in options.paths:
        try:
            reports.append(checklist.examine(open_run(path)))
            codes.append(_exit_code(reports[-1], options.fail_on))
        except RunError as fault:
            codes.append(_refuse(str(fault)))
    if reports:
        _write(_formatted(reports, options.format, color=options.output is None and _colored()), options.output)
    return max(codes)


def _formatted(reports: list[Report], style: str, color: bool) -> str:
    from nndiag.report import page

    if style == "json":
        texts = [report.to_json() for report in reports]
        return texts[0] if len(texts) == 1 else json.dumps([json.loads(text) for text in texts], indent=1)
    if style == "html":
        return page(reports)
    if style == "markdown":
        return "\n\n".join(report.to_markdown() for report in reports)
    return "\n\n".join(report.to_text(color=color, brief=style == "brief") for report in reports)


def _report(options: argparse.Namespace) -> int:
    from nndiag.checklist import Checklist
    from nndiag.run import open_run

    report = Checklist(options.select, options.ignore).examine(open_run(options.path))
    html = options.output is not None and options.output.suffix.lower() in (".html", ".htm")
    _write(_formatted([report], "html" if html else "markdown", color=False), options.output)
    return HEALTHY


def _export(options: argparse.Namespace) -> int:
    from nndiag import store
    from nndiag.run import open_run

    if options.tensorboard is None and options.parquet is None and options.csv is None:
        raise RunError("export needs a destination: --tensorboard DIR, --parquet DIR or --csv DIR")
    run = open_run(options.path)
    if options.parquet is not None:
        from nndiag.exporters.parquet import pyarrow, to_parquet

        pyarrow()  # before anything is written
    if options.tensorboard is not None:
        from nndiag.checklist import Checklist
        from nndiag.exporters import TensorBoard, replay

        logdir = store.claim(options.tensorboard / options.path.resolve().name)
        replay(run, TensorBoard(logdir), Checklist().examine(run))
        print(f"{logdir}\ntensorboard --logdir {options.tensorboard} --samples_per_plugin scalars=0")
    if options.parquet is not None:
        for file in to_parquet(run, store.claim(options.parquet)):
            print(file)
    if options.csv is not None:
        for file in run.to_csv(store.claim(options.csv)):
            print(file)
    return HEALTHY


def _checks(options: argparse.Namespace) -> int:
    from nndiag.catalogue import catalogue

    for check in catalogue().values():
        print(f"{check.code:6} {check.name:20} {check.kind:14} {check.summary()}")
    return HEALTHY


def _explain(options: argparse.Namespace) -> int:
    from nndiag import pages
    from nndiag.catalogue import catalogue, find

    print(pages.plain(find(options.check), catalogue().values()))
    return HEALTHY


def _write(text: str, output: Path | None) -> None:
    if output is not None:
        output.write_text(text.rstrip("\n") + "\n", encoding="utf-8")
        return
    try:
        print(text, flush=True)
    except BrokenPipeError:  # whoever read it has seen enough; the verdict stands
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _exit_code(report: Report, fail_on: str) -> int:
    from nndiag.check import Verdict

    if report.verdict is Verdict.NOT_CHECKED:
        return UNJUDGED
    if report.verdict.severity >= Verdict(fail_on).severity:
        return SICK
    return UNJUDGED if report.lost else HEALTHY


def _colored() -> bool:
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ
