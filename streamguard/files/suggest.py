"""Suggest the name that was probably meant. The one did-you-mean of the package."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

CUTOFF = 0.75
"""How alike two names must be, from 0 to 1. Lower ones suggest names that only share a prefix."""


def closest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is most like a name; `None` if none is alike."""
    close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=CUTOFF)
    return close[0] if close else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean "…"?` for the end of a message, or nothing."""
    close = closest(name, known)
    return "" if close is None else f'; did you mean "{close}"?'
