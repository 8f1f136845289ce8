"""JSON Pointers (RFC 6901): write and parse. The one module for them."""

from __future__ import annotations

import re
from collections.abc import Iterable

Path = tuple[str, ...]
"""A JSON Pointer, parsed. An index is its decimal text."""


def escape(part: str | int) -> str:
    """Write one reference token."""
    return str(part).replace("~", "~0").replace("/", "~1")


def pointer(parts: Iterable[str | int]) -> str:
    """Write the pointer of a path; the empty string is the whole document."""
    return "".join("/" + escape(part) for part in parts)


def parse_pointer(text: str) -> Path:
    """Parse a pointer.

    :raises ValueError: the text is no JSON Pointer.
    """
    if text == "":
        return ()
    if not text.startswith("/") or re.search(r"~(?![01])", text):
        raise ValueError(
            f'{text!r} is no JSON Pointer: it is empty or begins with "/", and "~" stands only in ~0 and ~1'
        )
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in text[1:].split("/"))
