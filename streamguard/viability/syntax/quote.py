"""Quote a little content for a person."""

from __future__ import annotations

import json


def quote(text: object, most: int = 40) -> str:
    """A value as JSON, shortened to about `most` characters."""
    if isinstance(text, str) and len(text) > most:
        text = text[: most + 1]
    try:
        shown = json.dumps(text, ensure_ascii=False)
    except RecursionError:
        shown = "[…]" if isinstance(text, list) else "{…}"
    except ValueError:  # an integer with more digits than Python turns into text
        shown = "a number of thousands of digits"
    shown = shown.encode("utf-8", "backslashreplace").decode()  # a lone surrogate cannot be printed
    return shown if len(shown) <= most else shown[: most - 1] + "…"
