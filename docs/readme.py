"""Writes into the README what programs print: the demo's output. Run it as a script."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def demo(*arguments: str) -> str:
    """What `nndiag demo` with `arguments` prints in an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "nndiag", "demo", *arguments]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False).stdout.rstrip()


def updated(text: str) -> str:
    """`text` with every marked block of output made anew."""

    def output(match: re.Match[str]) -> str:
        return f"{match[1]}\n```\n{demo(*match[2].split()[2:])}\n```"

    return re.sub(r"(<!-- demo: (.*?) -->)\n```\n.*?\n```", output, text, flags=re.DOTALL)


if __name__ == "__main__":
    README.write_text(updated(README.read_text(encoding="utf-8")), encoding="utf-8")
