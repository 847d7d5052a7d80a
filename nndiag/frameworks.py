"""Finds what an installed integration offers for an object: by the framework that its class comes from, through entry points."""

from __future__ import annotations

from typing import Any

from nndiag.errors import NndiagError, UnknownName


def offered(group: str, target: Any, what: str) -> Any:
    """What the entry points of `group` offer for the first class in the target's `__mro__` whose top-level package has one.

    A user's own subclass lives in a module of its own; the framework's class behind it decides. Raises UnknownName, which
    begins with `what` and names the target, when there is none, and NndiagError when it cannot be imported.
    """
    from importlib.metadata import entry_points

    offers = {entry.name: entry for entry in entry_points(group=group)}
    for cls in type(target).__mro__:
        if entry := offers.get(cls.__module__.partition(".")[0]):
            try:
                return entry.load()
            except ImportError as fault:
                raise NndiagError(f"{entry.value}, installed for {entry.name}, cannot be imported: {fault}") from fault
    if isinstance(target, type):
        raise UnknownName(
            f"{what}, got the class {target.__qualname__} itself; give an object of it: {target.__qualname__}(…)"
        )
    known = ", ".join(sorted(offers)) or "nothing; install nndiag, a bare checkout has no entry points"
    raise UnknownName(f"{what}, got a {type(target).__module__}.{type(target).__qualname__}; installed for: {known}")
