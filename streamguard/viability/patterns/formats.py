"""The formats that can be asserted: a full check, and for some a pattern that kills a beginning.

The final check of formats not listed here is jsonschema's own, as far as it has one without further packages (`email`,
`idn-email`, `regex`); the others (`iri`, `uri-template`, `idn-hostname` and unknown ones) accept everything.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Final

from jsonschema import FormatChecker

from streamguard.viability.patterns.regexes import Pattern, compile_pattern

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

_H16: Final = rf"{_HEX}{{1,4}}"
_IPV4: Final = rf"(?:{_OCTET}\.){{3}}{_OCTET}"
_LAST_32: Final = rf"(?:{_H16}:{_H16}|{_IPV4})"
_IPV6: Final = "|".join(  # RFC 3986, 3.2.2: so many groups after "::", and at most the rest before it
    [rf"(?:{_H16}:){{6}}{_LAST_32}", rf"::(?:{_H16}:){{5}}{_LAST_32}"]
    + [rf"(?:(?:{_H16}:){{0,{4 - n}}}{_H16})?::(?:{_H16}:){{{n}}}{_LAST_32}" for n in (4, 3, 2, 1, 0)]
    + [rf"(?:(?:{_H16}:){{0,5}}{_H16})?::{_H16}", rf"(?:(?:{_H16}:){{0,6}}{_H16})?::"]
)
_SOME_DATE: Final = r"(?:[0-9]+Y(?:[0-9]+M(?:[0-9]+D)?)?|[0-9]+M(?:[0-9]+D)?|[0-9]+D)"
_SOME_TIME: Final = r"(?:[0-9]+H(?:[0-9]+M(?:[0-9]+S)?)?|[0-9]+M(?:[0-9]+S)?|[0-9]+S)"

# RFC 3986, appendix A.
_FREE: Final = r"A-Za-z0-9._~!$&'()*+,;=\-"
_PCT: Final = rf"%{_HEX}{{2}}"
_PCHAR: Final = rf"(?:[{_FREE}:@]|{_PCT})"
_HOST: Final = rf"(?:\[(?:{_IPV6}|[vV]{_HEX}+\.[{_FREE}:]+)\]|(?:[{_FREE}]|{_PCT})*)"
_AUTHORITY: Final = rf"//(?:(?:[{_FREE}:]|{_PCT})*@)?{_HOST}(?::[0-9]*)?(?:/{_PCHAR}*)*"
_TAIL: Final = rf"(?:\?(?:{_PCHAR}|[/?])*)?(?:#(?:{_PCHAR}|[/?])*)?"
_ABSOLUTE: Final = rf"/(?:{_PCHAR}+(?:/{_PCHAR}*)*)?"
_ROOTLESS: Final = rf"{_PCHAR}+(?:/{_PCHAR}*)*"
_NO_SCHEME: Final = rf"(?:[{_FREE}@]|{_PCT})+(?:/{_PCHAR}*)*"
_URI: Final = rf"[A-Za-z][A-Za-z0-9+.-]*:(?:{_AUTHORITY}|{_ABSOLUTE}|{_ROOTLESS}|){_TAIL}"
_RELATIVE: Final = rf"(?:{_AUTHORITY}|{_ABSOLUTE}|{_NO_SCHEME}|){_TAIL}"
_POINTER: Final = r"(?:/(?:[^/~]|~[01]|\n)*)*"
_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"

_GRAMMARS: Final = {
    "date": _DATE,
    "time": _TIME,
    "date-time": rf"{_DATE}[Tt]{_TIME}",
    "duration": rf"P(?:[0-9]+W|{_SOME_DATE}(?:T{_SOME_TIME})?|T{_SOME_TIME})",
    "ipv4": _IPV4,
    "ipv6": _IPV6,
    "uuid": rf"{_HEX}{{8}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{12}}",
    "hostname": rf"{_LABEL}(?:\.{_LABEL})*",
    "uri": _URI,
    "uri-reference": rf"{_URI}|{_RELATIVE}",
    "json-pointer": _POINTER,
    "relative-json-pointer": rf"(?:0|[1-9][0-9]*)(?:#|{_POINTER})",
}
"""RFC 3339, 2673, 4291, 4122, 1123, 3986 and 6901, each as one regular language."""


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


_EXTRA: Final[dict[str, Callable[[str], bool]]] = {
    "time": _leap,
    "date-time": lambda text: _leap(text[11:]),
    "hostname": lambda text: len(text) <= 253,
}


@functools.cache
def named(name: str) -> Format:
    """The format of that name."""
    if name in _GRAMMARS:
        # \Z, not $: no newline may follow. The prefix pattern ends nowhere in particular.
        full = compile_pattern(rf"^(?:{_GRAMMARS[name]})\Z")
        extra = _EXTRA.get(name)
        return Format(name, lambda text: full.matches(text) and (extra is None or extra(text)), full)
    checker = FormatChecker()
    return Format(name, lambda text: checker.conforms(text, name), None)
