"""The full, strict parse that acceptance rests on: RFC 8259 by `json`, without what it accepts beyond that.

Knows nothing of streams. Lone surrogate escapes are valid by the RFC's grammar and stay; so do numbers too large for a
float, which Python reads as infinity.
"""

from __future__ import annotations

import json
from typing import Any, Final

from streamguard.files.strict_json import RepeatedName, no_constant, unique
from streamguard.viability.syntax.protocol import Dead, Duplicates
from streamguard.viability.syntax.quote import quote


class Refused(ValueError):
    """A text that is no JSON document, or not one that is allowed here; `dead` says why."""

    def __init__(self, dead: Dead) -> None:
        self.dead = dead
        super().__init__(str(dead))


def parse(text: str, *, duplicate_names: Duplicates = "reject") -> Any:
    """The value of a JSON text.

    :param duplicate_names: with `allow` the last of several members of one name counts.
    :raises Refused: no JSON text, `NaN` or an infinity by name, a repeated name, nesting or an integer beyond what
        Python can read.
    """
    try:
        return json.loads(
            text, parse_constant=no_constant, object_pairs_hook=unique if duplicate_names == "reject" else None
        )
    except json.JSONDecodeError as error:
        dead = _dead(text, error.pos, "malformed", f"the document is no JSON: {error.msg}")
    except RepeatedName as error:
        dead = _dead(text, None, "duplicate_name", f"the name {quote(error.name)} stands twice in one object")
    except RecursionError:
        dead = _dead(text, None, "depth", "the document is nested too deeply to be read")
    except ValueError as error:  # a constant; an integer with more digits than Python converts
        dead = _dead(text, None, "number", f"the document holds a number that cannot be read: {error}")
    raise Refused(dead) from None


def parse_at(text: str, begin: int) -> tuple[Any, int] | None:
    """The value that begins at a character of the text, and where it ends. `None` for whatever `parse` would refuse,
    and if it does not end within the text."""
    try:
        return _STRICT.raw_decode(text, begin)
    except (ValueError, RecursionError):
        return None


def _dead(text: str, char: int | None, keyword: str, message: str) -> Dead:
    if char is None or char >= len(text):
        return Dead(offset="eof", char="eof", pointer="", keyword=keyword, message=message)
    offset = len(text[:char].encode("utf-8", "surrogatepass"))
    return Dead(offset=offset, char=char, pointer="", keyword=keyword, message=message)


_STRICT: Final = json.JSONDecoder(object_pairs_hook=unique, parse_constant=no_constant)
