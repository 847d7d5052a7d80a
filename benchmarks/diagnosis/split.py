"""Which bases, faults and zoo programs are for developing thresholds, and which are held out: decided by hash of the name.

The salt and the shares were fixed before any check saw a run of these programs, and are not to be changed.
"""

from __future__ import annotations

import hashlib

SALT = "nndiag fault matrix 1"
HELD_OUT = {"base": 1 / 3, "fault": 1 / 4, "zoo": 1 / 2}
"""Share of each kind that is held out, on average."""


def place(kind: str, name: str) -> float:
    """Where the hash of `name` falls, from 0 to 1, evenly spread over names."""
    digest = hashlib.sha256(f"{SALT}/{kind}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def held_out(kind: str, name: str) -> bool:
    """Whether the base, fault or zoo program called `name` is held out."""
    return place(kind, name) < HELD_OUT[kind]


def pair_held_out(base: str, fault: str) -> bool:
    """A pair is held out where its base is, or its fault."""
    return held_out("base", base) or held_out("fault", fault)
