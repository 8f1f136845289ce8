"""Input rows: one line of JSON Lines → a row with an id, or what is wrong with the line.

In charge of bytes and shapes: UTF-8, one strict JSON object a line, which of the known shapes it has, and its id. It
does not know templates, models or what is sent.

Two shapes are taken: a line of a Message Batch (`custom_id` and `params`, nothing else), and any other object, which is
data for a template. Lines of an OpenAI batch are told apart and refused.

A row is known by its `custom_id`, else its `id`, else by what is in it (`content_key`), and never by its line: rows may
move between runs.

A name that stands twice in one object is refused: two readers of the file could see two different rows.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import msgspec

from streamguard.errors import Problem
from streamguard.files import strict_json

MAX_LINE_BYTES = 32 * 1024 * 1024
"""Longest line. The Messages API takes requests of at most 32 MB (docs.claude.com, "Request size limits", 2026-11)."""

MAX_ID = 512
"""Longest id, in characters. Message Batches themselves take 64."""

MAX_DEPTH = 100
"""Deepest nesting of a row. What is sent is copied and walked recursively, and no API takes more."""

_BATCH = frozenset({"custom_id", "params"})
_OPENAI = frozenset({"custom_id", "method", "url", "body"})


class Line(msgspec.Struct, frozen=True):
    """A line of a file as bytes."""

    number: int
    """1-based."""
    offset: int
    """Of the line's first byte in the file."""
    raw: bytes
    """With its line end; cut off after `MAX_LINE_BYTES`."""
    too_long: bool = False

    @property
    def blank(self) -> bool:
        """Nothing but whitespace."""
        return not self.raw.strip() or (self.number == 1 and self.raw.strip() == b"\xef\xbb\xbf")


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the input."""

    custom_id: str | None
    """`None` if the row names none."""
    line: int
    data: dict[str, Any]
    """The whole object."""
    params: dict[str, Any] | None = None
    """The request of a batch line; `None` for data."""


def lines(file: BinaryIO) -> Iterator[Line]:
    """Every line from the file's position on, in bounded memory. Only `\\n` ends a line."""
    number, offset = 0, 0
    while raw := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        length, too_long = len(raw), False
        if not raw.endswith(b"\n") and len(raw) > MAX_LINE_BYTES:
            too_long = True
            while rest := file.readline(1024 * 1024):
                length += len(rest)
                if rest.endswith(b"\n"):
                    break
        yield Line(number, offset, raw, too_long)
        offset += length


def parse(line: Line, file: str) -> Row | Problem:
    """The row of a line that is not blank, or the first thing wrong with it.

    :param file: the name that problems carry.
    """

    def wrong(what: str, column: int | None = None, pointer: str | None = None) -> Problem:
        return Problem(file=file, line=line.number, column=column, pointer=pointer, problem=what)

    if line.too_long:
        return wrong(f"longer than {MAX_LINE_BYTES // 1024**2} MiB, the most that can be sent")
    data = _object(line, wrong)
    if isinstance(data, Problem):
        return data
    names = set(data)
    if names == _OPENAI:
        return wrong(
            "a line of an OpenAI batch; make it a line of a Message Batch, "
            '{"custom_id": …, "params": {"model": …, "max_tokens": …, "messages": […]}}: '
            "a system message becomes params.system, and url and method go"
        )
    batch = names == _BATCH and isinstance(data["params"], dict)
    custom_id = _id(data, batch)
    if isinstance(custom_id, _Wrong):
        return wrong(custom_id.what, pointer=custom_id.pointer)
    return Row(custom_id=custom_id, line=line.number, data=data, params=data["params"] if batch else None)


class _Wrong(msgspec.Struct, frozen=True):
    what: str
    pointer: str | None = None


def content_key(data: dict[str, Any]) -> str:
    """The name of a row without an id: made of what is in it, whatever the order of its fields and their spelling.

    80 bits: among ten million rows two different ones share a name with a probability of 1 in 20 billion.
    """
    text = json.dumps(data, sort_keys=True, separators=(",", ":"))
    return f"row-{hashlib.sha256(text.encode()).hexdigest()[:20]}"


def _id(data: dict[str, Any], batch: bool) -> str | _Wrong | None:
    name = "custom_id" if "custom_id" in data else "id"
    if name not in data:
        return None
    value = data[name]
    if isinstance(value, int) and not isinstance(value, bool) and not batch:
        return str(value)
    if not isinstance(value, str):
        kinds = "a string" if batch else "a string or an integer"
        return _Wrong(f"must be {kinds}, got {kind_of(value)}", f"/{name}")
    if not value:
        return _Wrong("must not be empty", f"/{name}")
    if len(value) > MAX_ID:
        return _Wrong(f"at most {MAX_ID} characters, got {len(value):,}", f"/{name}")
    return value


def _object(line: Line, wrong: Callable[..., Problem]) -> dict[str, Any] | Problem:
    try:
        text = line.raw.decode("utf-8")
    except UnicodeDecodeError as mistake:
        hint = "; it looks like UTF-16" if line.number == 1 and line.raw[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
        return wrong(f"not UTF-8{hint}", len(line.raw[: mistake.start].decode("utf-8")) + 1)
    bom = line.number == 1 and text.startswith("\ufeff")
    text = text[bom:].rstrip("\r\n")
    try:
        value = strict_json.loads(text)
    except json.JSONDecodeError as mistake:
        return wrong(f"not JSON: {mistake.msg[:1].lower()}{mistake.msg[1:]}{_hint(line, text)}", mistake.pos + 1 + bom)
    except RecursionError:
        return wrong(f"nested more than {MAX_DEPTH} deep")
    except strict_json.NotStrict as mistake:
        return wrong(str(mistake))
    except ValueError:  # an integer with more digits than Python converts
        return wrong("a number with too many digits")
    if not isinstance(value, dict):
        return wrong(f"must be a JSON object, got {kind_of(value)}")
    if text.count("{") + text.count("[") > MAX_DEPTH and strict_json.is_deeper(value, MAX_DEPTH):
        return wrong(f"nested more than {MAX_DEPTH} deep")
    if "\\ud" in text.lower() and _SURROGATE.search(json.dumps(value, ensure_ascii=False)):
        return wrong("half of a surrogate pair (an escape such as \\ud83d alone): no character, and cannot be sent")
    return value


_SURROGATE = re.compile("[\ud800-\udfff]")


def _hint(line: Line, text: str) -> str:
    if line.number == 1 and text.strip() in ("[", "{"):
        return "; one object a line is wanted: jq -c '.[]' makes lines of an array, jq -c . of objects over many lines"
    return ""


_KINDS = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}


def kind_of(value: Any) -> str:
    """What a JSON value is, in words."""
    return _KINDS.get(type(value)) or f"the number {str(value)[:20]}"
