"""A verdict on one text, told to a person: the text up to where it died with a caret, and what could have come instead.

In charge of: telling dead, unfinished and valid texts apart, and of the layout. Does not know files or terminals; how
foreign text is made harmless is the caller's to say.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from typing import Any, Final, Literal

import msgspec

from streamguard.viability.explain.messages import listed
from streamguard.viability.syntax.protocol import Dead, Duplicates, Open
from streamguard.viability.syntax.quote import quote
from streamguard.viability.syntax.scanner import SyntaxPrefix
from streamguard.viability.syntax.strict import Refused, parse

_LINES: Final = 4
"""Lines shown, at the most."""
_WIDTH: Final = 104
"""Columns of an excerpt, where the caller names none; of a longer line its end is shown."""
_PIECE: Final = 4096


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to say of a text."""

    status: Literal["valid", "incomplete", "dead"]
    """`incomplete`: not valid as it stands, and some continuation of it is."""
    char: int
    """The dead character, 0-based; otherwise the length of the text, in characters."""
    offset: int
    """The same in bytes of UTF-8."""
    line: int
    """Of that character, 1-based."""
    column: int
    """1-based, in characters."""
    pointer: str | None = None
    """JSON Pointer of the value concerned, or where the text stands."""
    keyword: str | None = None
    schema_pointer: str | None = None
    message: str | None = None
    expected: tuple[str, ...] = ()
    """What could have come instead, or can come next."""
    open: tuple[Open, ...] = ()
    """Of an unfinished text: objects and arrays that have not closed, outermost first."""
    inside: str | None = None
    """Of an unfinished text: the token that has begun."""


def tell(text: str, schema: Any = None, *, duplicate_names: Duplicates = "reject") -> Told:
    """Judge a text. `schema`: a compiled one (`viability.Schema`); `None` for the syntax alone."""
    prefix: SyntaxPrefix = SyntaxPrefix(duplicate_names=duplicate_names) if schema is None else schema.prefix()
    for i in range(0, len(text), _PIECE):
        if dead := prefix.feed(text[i : i + _PIECE]):
            return _dead(text, dead)
    standing = prefix.status()
    dead = prefix.close()
    if dead is None:
        try:
            value = parse(text, duplicate_names=duplicate_names)
        except Refused as refused:
            dead = refused.dead
        else:
            dead = None if schema is None else schema.validate(value)
    place = _place(text, len(text))
    if dead is None:
        return Told(status="valid", **place)
    if prefix.complete and standing.inside is None:  # the final judge has found what no prefix shows
        return _dead(text, dead)
    return Told(
        status="incomplete",
        **place,
        pointer=standing.pointer,
        keyword=dead.keyword,
        schema_pointer=dead.schema_pointer,
        message=dead.message,
        expected=standing.expected or dead.expected,
        open=standing.open,
        inside=standing.inside,
    )


def _dead(text: str, dead: Dead) -> Told:
    return Told(
        status="dead",
        **_place(text, len(text) if dead.char == "eof" else dead.char)
        | ({} if dead.offset == "eof" else {"offset": dead.offset}),
        pointer=dead.pointer,
        keyword=dead.keyword,
        schema_pointer=dead.schema_pointer,
        message=dead.message,
        expected=dead.expected,
    )


def _place(text: str, char: int) -> dict[str, Any]:
    before = text[:char]
    return {
        "char": char,
        "offset": len(before.encode("utf-8", "surrogatepass")),
        "line": before.count("\n") + 1,
        "column": char - (before.rfind("\n") + 1) + 1,
    }


def render(name: str, text: str, told: Told, show: Callable[[str], str], width: int | None = None) -> Iterator[str]:
    """Yield the lines to print. The excerpt fits the width; of other lines the caller breaks what is too long.

    :param name: of the text.
    :param show: make text from elsewhere printable in one line.
    :param width: columns of a line.
    """
    if told.status == "valid":
        yield f"{show(name)}: valid, {_bytes(told.offset)}"
        return
    if told.status == "dead":
        yield f"{show(name)}:{told.line}:{told.column}: dead at byte {told.offset:,}"
        yield from _excerpt(text, told, show, show(told.message or ""), width or _WIDTH)
    else:
        yield f"{show(name)}: incomplete, {_bytes(told.offset)}; as far as it goes, it can still become valid"
        yield from _excerpt(text, told, show, "", width or _WIDTH)
    yield from _facts(told, show)


def _facts(told: Told, show: Callable[[str], str]) -> Iterator[str]:
    if told.inside is not None:
        yield f"  inside    {told.inside}"
    yield f"  at        {show(told.pointer or '/')}"
    if told.status == "dead":
        where = f" ({show(told.schema_pointer or '/')} in the schema)" if told.schema_pointer is not None else ""
        yield f"  keyword   {told.keyword}{where}"
    elif not told.open and told.keyword not in (None, "malformed"):
        yield f"  if it ends here: {show(told.message or '')}"
    for i, one in enumerate(told.open):
        needs = f", still needs {', '.join(map(quote, one.missing))}" if one.missing else ""
        yield f"  {'open' if not i else '    '}      {show(one.pointer or '/')} ({one.kind}{show(needs)})"
    if told.expected:
        yield f"  expected  {show(listed(told.expected))}"


def _excerpt(text: str, told: Told, show: Callable[[str], str], note: str, width: int) -> Iterator[str]:
    """The last lines up to the character, it included, and a caret below it."""
    lines = text[: told.char + 1].split("\n")
    if len(lines) > told.line:  # the character itself is the end of a line
        lines = [*lines[: told.line - 1], lines[told.line - 1] + "\n"]
    number = len(str(told.line))
    last = lines[told.line - 1]
    before, at = last[: told.column - 1], last[told.column - 1 :]
    room = max(8, width - number - 5 - _columns(show(at)))
    for i in range(max(0, told.line - _LINES), told.line - 1):
        yield f"  {i + 1:>{number}} | {_cut(lines[i].rstrip(chr(13)), show, room, start=True)}".rstrip()
    shown = _cut(before, show, room)
    yield f"  {told.line:>{number}} | {shown}{show(at)}"
    caret = f"  {'':>{number}} | {' ' * _columns(shown)}^"
    if _columns(f"{caret} {note}") <= width:
        yield f"{caret} {note}".rstrip()
    else:
        yield caret
        yield f"  message   {note}"


def _cut(text: str, show: Callable[[str], str], room: int, *, start: bool = False) -> str:
    """A line, or as much of its start or end as has room."""
    if len(text) <= room and _columns(show(text)) <= room:
        return show(text)
    kept = text[: room - 1] if start else text[1 - room :]
    while _columns(show(kept)) >= room:
        kept = kept[:-1] if start else kept[1:]
    return show(kept) + "…" if start else "…" + show(kept)


def _columns(text: str) -> int:
    """Columns of a terminal that a line takes."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def _bytes(count: int) -> str:
    return "1 byte" if count == 1 else f"{count:,} bytes"
