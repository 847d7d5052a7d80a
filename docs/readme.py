"""Writes into the README what programs print: the demo's output. Run it as a script."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def printed(commands: str) -> str:
    """What the last of the `nndiag` commands prints, run one after another in an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        for command in commands.split(" && "):
            line = [sys.executable, "-m", *command.split()]
            output = subprocess.run(line, cwd=folder, capture_output=True, text=True, check=False).stdout
    return output.rstrip()


def updated(text: str) -> str:
    """`text` with every marked block of output made anew."""

    def output(match: re.Match[str]) -> str:
        return f"{match[1]}\n```\n{printed(match[2])}\n```"

    return re.sub(r"(<!-- (nndiag .*?) -->)\n```\n.*?```", output, text, flags=re.DOTALL)


if __name__ == "__main__":
    README.write_text(updated(README.read_text(encoding="utf-8")), encoding="utf-8")
