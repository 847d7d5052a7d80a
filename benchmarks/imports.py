"""What `import nndiag` costs beyond `import numpy`, in CPU time of a fresh process: run it as a script."""

from __future__ import annotations

import resource
import subprocess
import sys
from statistics import median

ROUNDS = 40
MOST = 0.030


def cpu_seconds(code: str) -> float:
    """User and system time of a new interpreter that runs `code`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> int:
    """Print the medians of interleaved rounds; 1 if the difference is above the limit."""
    pairs = [(cpu_seconds("import numpy"), cpu_seconds("import numpy, nndiag")) for _ in range(ROUNDS)]
    beyond = median(with_nndiag - bare for bare, with_nndiag in pairs)
    print(f"import numpy   {1e3 * median(bare for bare, _ in pairs):6.1f} ms")
    print(f"import nndiag  {1e3 * beyond:6.1f} ms more (limit {1e3 * MOST:.0f})")
    return int(beyond > MOST)


if __name__ == "__main__":
    raise SystemExit(main())
