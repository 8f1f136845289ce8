"""The formats that can be asserted: a full check, and for some a pattern that kills a beginning.

The final check of formats not listed here is jsonschema's own, as far as installed; unknown formats accept everything.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Callable
from typing import Final

from jsonschema import FormatChecker

from streamguard.viability.regexes import Pattern, compile_pattern

_LEAP: Final = r"(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)"
_DAYS: Final = (
    r"(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    r"|02-(?:0[1-9]|1[0-9]|2[0-8]))"
)
_DATE: Final = rf"(?:[0-9]{{4}}-{_DAYS}|{_LEAP}-02-29)"
_TIME: Final = (
    r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:(?:[0-5][0-9]|60)(?:\.[0-9]+)?(?:[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
)
_OCTET: Final = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_HEX: Final = r"[0-9a-fA-F]"

_GRAMMARS: Final = {
    "date": _DATE,
    "time": _TIME,
    "date-time": rf"{_DATE}[Tt]{_TIME}",
    "ipv4": rf"(?:{_OCTET}\.){{3}}{_OCTET}",
    "uuid": rf"{_HEX}{{8}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{12}}",
    "duration": r"P(?:[0-9]+W|(?=[0-9T])(?:[0-9]+Y)?(?:[0-9]+M)?(?:[0-9]+D)?"
    r"(?:T(?=[0-9])(?:[0-9]+H)?(?:[0-9]+M)?(?:[0-9]+S)?)?)",
}


class Format:
    """One format."""

    __slots__ = ("check", "name", "prefix")

    def __init__(self, name: str, check: Callable[[str], bool], prefix: Pattern | None) -> None:
        self.name = name
        self.check = check
        self.prefix = prefix


def _leap(text: str) -> bool:
    """A time's leap second is only at 23:59:60 UTC (RFC 3339, 5.7)."""
    if text[6:8] != "60":
        return True
    minutes = int(text[:2]) * 60 + int(text[3:5])
    if text[-1] not in "Zz":
        offset = int(text[-5:-3]) * 60 + int(text[-2:])
        minutes += -offset if text[-6] == "+" else offset
    return minutes % 1440 == 1439


def _ipv6(text: str) -> bool:
    try:
        return not ipaddress.IPv6Address(text).scope_id
    except ValueError:
        return False


_EXTRA: Final[dict[str, Callable[[str], bool]]] = {
    "time": _leap,
    "date-time": lambda text: _leap(text[11:]),
}


@functools.cache
def named(name: str) -> Format:
    """The format of that name."""
    if name in _GRAMMARS:
        # \Z, not $: no newline may follow. The prefix pattern ends nowhere in particular.
        full = compile_pattern(rf"^(?:{_GRAMMARS[name]})\Z")
        extra = _EXTRA.get(name)
        return Format(name, lambda text: full.matches(text) and (extra is None or extra(text)), full)
    if name == "ipv6":
        return Format(name, _ipv6, None)
    checker = FormatChecker()
    return Format(name, lambda text: checker.conforms(text, name), None)
