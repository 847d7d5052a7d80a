"""`python -m nndiag` is the command `nndiag`."""

from nndiag.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
