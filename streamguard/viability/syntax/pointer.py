"""JSON Pointers (RFC 6901), and quoting a little content for a person."""

from __future__ import annotations

import json
from collections.abc import Iterable


def escape(part: str | int) -> str:
    """One reference token."""
    return str(part).replace("~", "~0").replace("/", "~1")


def pointer(parts: Iterable[str | int]) -> str:
    """The pointer of a path; the empty string is the whole document."""
    return "".join("/" + escape(part) for part in parts)


def quote(text: object, most: int = 40) -> str:
    """A value as JSON, shortened to about `most` characters."""
    if isinstance(text, str) and len(text) > most:
        text = text[: most + 1]
    shown = json.dumps(text, ensure_ascii=False)
    shown = shown.encode("utf-8", "backslashreplace").decode()  # a lone surrogate cannot be printed
    return shown if len(shown) <= most else shown[: most - 1] + "…"
