"""The catalogue: every installed check, nndiag's own and third parties', through the `nndiag.checks` entry points."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from nndiag.check import Check
from nndiag.errors import NndiagError, UnknownName


@cache
def catalogue() -> dict[str, type[Check]]:
    """Check classes by code, in the order of their codes. Raises NndiagError if two have one code or name."""
    return collect(
        (entry.dist.name if entry.dist else entry.value, _load(entry)) for entry in entry_points(group="nndiag.checks")
    )


def _load(entry: EntryPoint) -> Callable[[], Iterable[type[Check]]]:
    try:
        loaded: Callable[[], Iterable[type[Check]]] = entry.load()
    except ImportError as fault:
        raise NndiagError(f"the checks of {entry.value} cannot be imported: {fault}") from fault
    return loaded


def collect(sources: Iterable[tuple[str, Callable[[], Iterable[type[Check]]]]]) -> dict[str, type[Check]]:
    """Check classes by code from (owner, function that gives them) pairs."""
    owners: dict[str, str] = {}
    found: dict[str, type[Check]] = {}
    for owner, checks in sources:
        for check in checks():
            check.validate()
            for identity in (check.code, check.name):
                if identity in owners:
                    raise NndiagError(f"two checks are called {identity}: one of {owners[identity]}, one of {owner}")
                owners[identity] = owner
            found[check.code] = check
    return dict(sorted(found.items(), key=lambda item: (item[0].startswith("NDP"), item[0])))


def chosen(wanted: str | Iterable[str], known: Iterable[type[Check]]) -> set[str]:
    """Codes of the checks that `wanted` names: codes, their beginnings, or names, comma-separated or one by one.

    Raises UnknownName for a word that matches none.
    """
    if not isinstance(wanted, Iterable):
        raise TypeError(f"wanted codes, beginnings of codes or names of checks, got {wanted!r}")
    known = list(known)
    words = [word for part in ([wanted] if isinstance(wanted, str) else wanted) for word in part.split(",")]
    codes: set[str] = set()
    for word in (word.strip() for word in words):
        matching = {check.code for check in known if _is(check, word) or (word and check.code.startswith(word.upper()))}
        if not matching:
            raise _unknown(word, known)
        codes |= matching
    return codes


def find(word: str) -> type[Check]:
    """The check of that code or name. Raises UnknownName."""
    for check in catalogue().values():
        if _is(check, word):
            return check
    raise _unknown(word, catalogue().values())


def _is(check: type[Check], word: str) -> bool:
    return word.lower() in (check.code.lower(), check.name)


def _unknown(word: str, known: Iterable[type[Check]]) -> UnknownName:
    close = get_close_matches(word, [name for check in known for name in (check.code, check.name)], n=2)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    return UnknownName(f"no check is called {word!r}; {hint}`nndiag checks` lists codes and names")
