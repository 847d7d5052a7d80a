"""Writes into the README what programs print: the demo's output and the table of checks. Run it as a script."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from nndiag.catalogue import catalogue

README = Path(__file__).parent.parent / "README.md"


def demo(*arguments: str) -> str:
    """What `nndiag demo` with `arguments` prints in an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "nndiag", "demo", *arguments]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False).stdout.rstrip()


def table() -> str:
    """The catalogue as a Markdown table."""
    rows = [f"| {check.code} | {check.name} | {check.kind} | {check.summary()} |" for check in catalogue().values()]
    return "\n".join(
        ["| code | name | kind | what is wrong, or for probes what is right |", "| --- | --- | --- | --- |", *rows]
    )


def updated(text: str) -> str:
    """`text` with every marked block of output and the table made anew."""

    def output(match: re.Match[str]) -> str:
        return f"{match[1]}\n```\n{demo(*match[2].split()[2:])}\n```"

    text = re.sub(r"(<!-- demo: (.*?) -->)\n```\n.*?\n```", output, text, flags=re.DOTALL)
    return re.sub(r"^(CHECKS|\| code \|.*?)(?=\n\n)", lambda _: table(), text, count=1, flags=re.DOTALL | re.MULTILINE)


if __name__ == "__main__":
    README.write_text(updated(README.read_text(encoding="utf-8")), encoding="utf-8")
