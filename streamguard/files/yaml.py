"""YAML text → plain data, and where each key and value stands.

In charge of one thing: a safe, boring subset of YAML 1.2. What comes out is what JSON could say (`str`, `int`, `float`,
`bool`, `None`, `list`, `dict` with `str` keys), so a file means the same to every reader: no tags, anchors, aliases,
merge keys, directives, duplicate keys or second documents, and none of what YAML 1.1 made of `yes`, `on`, `012`, `1:30`
or `2026-11-21`. It does not know what a policy or a job is.

ruamel.yaml's parser gives events; nothing is built from a node tree. The parser is a state machine and the stack here
is a list, so no input reaches Python's recursion limit, and an alias is refused before anything could be copied.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, StringMark, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from streamguard.errors import PolicyError, Problem
from streamguard.files.json_pointer import pointer

MAX_BYTES = 256 * 1024
"""Largest file, in bytes of UTF-8. A policy is a page; no one reviews a longer one."""

MAX_DEPTH = 20
"""Deepest nesting. The deepest thing a policy can say, a JSON Schema written inline, needs about twelve."""

MAX_DIGITS = 400
"""Longest integer, in characters. Python itself refuses more than 4300 digits; nothing here needs 20."""

MAX_PROBLEMS = 100
"""Mistakes after which a text is read no further."""

Path = tuple[str | int, ...]
"""Keys and list indexes from the top to a value; `()` is the whole document."""


class Position(msgspec.Struct, frozen=True):
    """A place in a text."""

    file: str
    line: int
    """1-based."""
    column: int
    """1-based, in characters."""


class Span(msgspec.Struct, frozen=True):
    """Where one value stands."""

    value: Position
    key: Position
    """Where its key stands; for a list's item and for the whole document, the same as `value`."""
    empty: bool = False
    """Whether the key has nothing behind it, not even `null`."""
    written: str = ""
    """The value as the file has it, if it is a text: with quotes, or with the sign of a block."""

    def inside(self, value: str, offset: int) -> Position:
        """Return where a character of the text stands in the file.

        :param value: the text, as it was read.
        :param offset: the character, from 0. Blanks and line breaks are read otherwise than they are written, so it is
            found by what is not blank.
        """
        return _inside(self, value, offset)


Positions = dict[Path, Span]
"""A span for each value of a document, by its path."""


class Loaded(NamedTuple):
    """What a text says, and where."""

    data: dict[str, Any]
    positions: Positions


def load(text: str | bytes, file: str = "<string>", *, error: type[PolicyError] | Any = PolicyError) -> Loaded:
    """Read a document.

    :param text: YAML 1.2, at most `MAX_BYTES` of UTF-8.
    :param file: the name that positions and mistakes carry.
    :param error: the `ConfigError` to raise, so that other files than policies can be read as well.
    :raises PolicyError: (or `error`) every mistake that could be found, in order of position.
    """
    reader = _Reader(file)
    decoded = reader.decode(text)
    if decoded is not None:
        reader.read(decoded)
    if reader.problems:
        raise error(sorted(reader.problems, key=lambda problem: (problem.line or 0, problem.column or 0)))
    return Loaded(reader.top, reader.positions)


class _Open:
    """A list or mapping that is being read."""

    __slots__ = ("items", "key", "path", "skip")

    def __init__(self, items: dict[str, Any] | list[Any], path: Path) -> None:
        self.items = items
        self.path = path
        self.key: tuple[str, Position] | None = None
        """The key that waits for its value."""
        self.skip = False
        """Whether the next value belongs to a key that was refused."""


class _Reader:
    """One pass over the events of one text. Collects mistakes and goes on as long as that makes sense."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self.positions: Positions = {}
        self.top: dict[str, Any] = {}
        self.open: list[_Open] = []
        self.text = ""

    def decode(self, text: str | bytes) -> str | None:
        """The text, if its size and characters can be read at all."""
        raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
        if len(raw) > MAX_BYTES:
            self.refuse_at(1, 1, f"more than {MAX_BYTES:,} bytes")
            return None
        try:
            decoded = raw.decode("utf-8").removeprefix("\ufeff")
        except UnicodeDecodeError as mistake:
            before = raw[: mistake.start].decode("utf-8")
            self.refuse_at(*_line_column(before, len(before)), "not UTF-8; save the file as UTF-8")
            return None
        if (bad := _UNPRINTABLE.search(decoded)) is not None:
            what = "a NUL byte" if bad[0] == "\0" else f"the invisible character U+{ord(bad[0]):04X}"
            self.refuse_at(*_line_column(decoded, bad.start()), f"{what}; remove it")
            return None
        return decoded

    def read(self, text: str) -> None:
        self.text = text
        try:
            for event in self.events(text):
                if not self.take(event):
                    return
                if len(self.problems) >= MAX_PROBLEMS:
                    what = f"more than {MAX_PROBLEMS} mistakes; the rest of the file was not read"
                    self.refuse(event.start_mark, what)
                    return
        except MarkedYAMLError as mistake:
            self.refuse(mistake.problem_mark or mistake.context_mark, _plain_sentence(mistake))
        except YAMLError as mistake:
            self.refuse_at(1, 1, f"not YAML: {str(mistake).splitlines()[0]}")
        else:
            if () not in self.positions and not self.problems:
                self.refuse_at(1, 1, "empty; there have to be lines of `key: value`")

    def events(self, text: str) -> Iterator[Any]:
        """The parser's events. ruamel's "rt" loader gives the same ones, but attaches comments and stumbles on some."""
        end = None
        try:
            for event in YAML(typ="safe", pure=True).parse(text):
                end = event.end_mark
                yield event
        except (ValueError, OverflowError) as mistake:  # the parser's chr() of an escape beyond Unicode
            raise MarkedYAMLError(problem="chr() failed", problem_mark=end) from mistake

    def take(self, event: Any) -> bool:
        """Take one event; `False` to read no further."""
        if isinstance(event, DocumentStartEvent):
            if () in self.positions:
                self.refuse(event.start_mark, "a second document; one file holds one")
                return False
            if event.version or event.tags:
                self.refuse(event.start_mark, "a % directive; leave it out, files are YAML 1.2")
                return False
        elif isinstance(event, MappingEndEvent | SequenceEndEvent):
            self.open.pop()
        elif isinstance(event, AliasEvent):
            self.refuse(event.start_mark, f"an alias (*{_short(event.anchor)}); write the value out")
            self.put(event, None)
        elif isinstance(event, ScalarEvent | MappingStartEvent | SequenceStartEvent):
            self.check_marks_of_danger(event)
            return self.take_node(event)
        return True

    def check_marks_of_danger(self, event: Any) -> None:
        if event.anchor is not None:
            self.refuse(event.start_mark, f"an anchor (&{_short(event.anchor)}); write values out where they are used")
        tag = None if event.ctag is None else str(event.ctag)
        if tag is not None:
            shown = "!" if tag == "!" else tag.replace("tag:yaml.org,2002:", "!!")
            self.refuse(
                event.start_mark, f"a tag ({_short(shown)}); plain values need none, and quotes make text of anything"
            )

    def take_node(self, event: Any) -> bool:
        if isinstance(event, ScalarEvent):
            self.put(event, self.scalar(event))
            return bool(self.open)
        if len(self.open) >= MAX_DEPTH:
            self.refuse(event.start_mark, f"nested more than {MAX_DEPTH} deep")
            return False
        if isinstance(event, SequenceStartEvent) and not self.open:
            self.refuse(event.start_mark, "a list; the top of the file has to be a mapping, lines of `key: value`")
            return False
        items: dict[str, Any] | list[Any] = {} if isinstance(event, MappingStartEvent) else []
        path = self.put(event, items)
        self.open.append(_Open(items, path))
        return True

    def put(self, event: Any, value: Any) -> Path:
        """Put a value, or a key, where it belongs; its path."""
        here = self.position(event.start_mark)
        if not self.open:
            if isinstance(value, dict):
                self.top = value
            else:
                colon = "a space is missing after the colon" if ":" in str(value) else "no mapping"
                what = f"{colon}; the top of the file has to be lines of `key: value`"
                self.refuse(event.start_mark, what)
            self.positions[()] = Span(here, here)
            return ()
        parent = self.open[-1]
        if isinstance(parent.items, list):
            path = (*parent.path, len(parent.items))
            parent.items.append(value)
            self.positions[path] = Span(here, here, written=self.written(event, value))
            return path
        if parent.skip:
            parent.skip = False
            return parent.path
        if parent.key is None:
            self.put_key(parent, event, value, here)
            return parent.path
        name, at = parent.key
        parent.key = None
        parent.items[name] = value
        path = (*parent.path, name)
        empty = value is None and getattr(event, "value", None) == ""
        self.positions[path] = Span(here, at, empty, self.written(event, value))
        return path

    def written(self, event: Any, value: Any) -> str:
        """A text as the file has it."""
        return self.text[event.start_mark.index : event.end_mark.index] if isinstance(value, str) else ""

    def put_key(self, parent: _Open, event: Any, value: Any, here: Position) -> None:
        parent.skip = True
        if not isinstance(value, str):
            self.refuse(event.start_mark, _bad_key(event, value), parent.path)
        elif value == "<<" and event.style is None:
            self.refuse(event.start_mark, "a merge key (<<); use `extends:`, or write the values out", parent.path)
        elif value in parent.items:
            first = self.positions[(*parent.path, value)].key
            what = f'the key "{_short(value)}" stands twice, first in line {first.line}'
            self.refuse(event.start_mark, what, (*parent.path, value))
        else:
            parent.key, parent.skip = (value, here), False

    def scalar(self, event: Any) -> Any:
        """A scalar's value by YAML 1.2's core schema (10.3.2), as long as JSON could say it."""
        text: str = event.value
        if _SURROGATE.search(text):
            try:  # JSON writes a character beyond \\uffff as two escapes
                text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
            except UnicodeDecodeError:
                self.refuse(event.start_mark, "an escape that is half a character (\\ud800 to \\udfff)")
                return ""
        if not event.implicit[0]:  # quoted, a block, or tagged
            return text
        if text in _WORDS:
            return _WORDS[text]
        if _INTEGER.fullmatch(text) is not None:
            if len(text) > MAX_DIGITS:
                self.refuse(event.start_mark, f"an integer of {len(text):,} characters; at most {MAX_DIGITS} are read")
                return 0
            return int(text, _BASES.get(text[:2], 10))
        if _FLOAT.fullmatch(text) is None:
            return text
        value = math.inf if text[-1] in "fFnN" else float(text)
        if not math.isfinite(value):
            self.refuse(event.start_mark, f"{_short(text)} is no finite number")
            return 0.0
        return value

    def position(self, mark: StringMark) -> Position:
        return Position(self.file, mark.line + 1, mark.column + 1)

    def refuse(self, mark: StringMark | None, what: str, path: Path | None = None) -> None:
        line, column = (1, 1) if mark is None else (mark.line + 1, mark.column + 1)
        self.refuse_at(line, column, what, path)

    def refuse_at(self, line: int, column: int, what: str, path: Path | None = None) -> None:
        at = None if path is None else pointer(path)
        self.problems.append(Problem(problem=what, file=self.file, line=line, column=column, pointer=at or None))


_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufdcf\ufdf0-\ufffd\U00010000-\U0010ffff]|\ufeff")
"""YAML 1.2, 5.1: printable characters; without noncharacters, and without a byte-order mark inside the text."""
_SURROGATE = re.compile("[\ud800-\udfff]")
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_BASES = {"0o": 8, "0x": 16}
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


def _inside(span: Span, value: str, offset: int) -> Position:
    written, at = span.written, 0
    if written[:1] in ("|", ">"):
        at = written.find("\n") + 1
    elif written[:1] in ("'", '"'):
        at = 1
    last = at
    for index, char in enumerate(value):
        if char.isspace():
            continue
        size = 1
        while at < len(written) and written[at] != char:
            size = _escape(written, at) if written[0] == '"' else 1
            if size > 1 and written[at + 1] not in _BLANK_ESCAPES:
                break
            at, size = at + size, 1
        last = at
        if index >= offset:
            break
        at += size
        last = at
    line, column = _line_column(written, min(last, len(written)))
    here = span.value
    return Position(here.file, here.line + line - 1, column if line > 1 else here.column + column - 1)


_ESCAPES = {"x": 4, "u": 6, "U": 10}
_BLANK_ESCAPES = "tnrvf LPN_\n\t"


def _escape(written: str, at: int) -> int:
    """How long the escape is that begins at a character between double quotes; 1 if none does."""
    return _ESCAPES.get(written[at + 1 : at + 2], 2) if written[at] == "\\" and at + 1 < len(written) else 1


def _line_column(text: str, at: int) -> tuple[int, int]:
    """1-based line and column of an index."""
    before = text[:at]
    return before.count("\n") + 1, at - before.rfind("\n")


def _short(text: str) -> str:
    """Enough of a text to know it again, and nothing that a terminal would obey."""
    text = text if text.isprintable() else text.encode("unicode_escape").decode("ascii")
    return text if len(text) <= 40 else text[:39] + "…"


def _bad_key(event: Any, value: Any) -> str:
    if isinstance(value, dict | list):
        return f"a {'mapping' if isinstance(value, dict) else 'list'} as a key; keys are text"
    if not getattr(event, "value", ""):
        return "a key without a name"
    return f"the key {_short(event.value)} is no text; write it in quotes"


_SENTENCES = (
    ("character '\\t'", "a tab; indent with spaces"),
    ("character '@'", "@ cannot begin a value; put it in quotes"),
    ("character '`'", "` cannot begin a value; put it in quotes"),
    ("character '%'", "% cannot begin a value; put it in quotes"),
    (
        "mapping values are not allowed",
        "a colon where no key can be: wrong indentation, or a value that has to be in quotes",
    ),
    ("expected <block end>, but found '<block mapping start>'", "indented differently from the lines before"),
    ("expected <block end>, but found '<block sequence start>'", "indented differently from the lines before"),
    ("expected <block end>, but found '-'", "a list's item among the keys of a mapping: wrong indentation"),
    ("expected <block end>, but found '?'", "a key among the items of a list: wrong indentation"),
    ("expected <block end>", "cannot stand here: wrong indentation, or text after a closing quote or bracket"),
    ("could not find expected ':'", "a line that is no `key: value`: the colon, or the space after it, is missing"),
    ("unexpected end of stream", "the file ends inside quotes; the closing quote is missing"),
    ("unexpected document separator", "the quotes are not closed before the line of dashes or dots"),
    ("expected ',' or '}'", "a comma or the closing } is missing"),
    ("expected ',' or ']'", "a comma or the closing ] is missing"),
    ("sequence entries are not allowed", "a list's item cannot begin here; it begins on a line of its own"),
    ("unknown escape character", "an unknown escape after \\; use 'single quotes' to keep backslashes as they are"),
    (
        "escape sequence of",
        "an escape such as \\x41 or \\u0041 lacks digits; use 'single quotes' to keep backslashes as they are",
    ),
    ("chr() failed", "an escape beyond the last character, \\U0010ffff"),
    ("found non-comment content after document end", "text after the end of the document"),
    ("undefined tag handle", "a tag (!); plain values need none, and quotes make text of anything"),
    ("scanning an alias", "an alias (*) or text that begins with *; write the value out, or in quotes"),
    ("scanning an anchor", "an anchor (&) or text that begins with &; write the value out, or in quotes"),
    ("scanning a tag", "a tag (!) or text that begins with !; put it in quotes"),
    ("scanning a directive", "a % directive; leave it out, files are YAML 1.2"),
    ("incompatible YAML document", "a % directive; leave it out, files are YAML 1.2"),
    ("scanning a block scalar", "after | or > only -, +, a digit or a comment can follow"),
)
"""What ruamel.yaml says (a part of context and problem) → what a person is told. First match wins."""


def _plain_sentence(mistake: MarkedYAMLError) -> str:
    said = f"{mistake.context or ''} {mistake.problem or ''}"
    plain = (sentence for part, sentence in _SENTENCES if part in said)
    return "not YAML: " + (next(plain, None) or said.strip())
