"""Texts without HTML's tags and entities, whole or in pieces.

In charge of what a tag and an entity are, and of what at the end of a piece may become one. Pure text.
"""

from __future__ import annotations

import html
import re
from typing import Final

_MOST: Final = 200
"""Characters of a tag. What goes on for longer is no tag."""
_MARKUP = re.compile(
    rf"</?([A-Za-z][A-Za-z0-9]*)(?:[\s/][^<>]{{0,{_MOST}}})?>"
    r"|&(?:#[xX][0-9a-fA-F]{1,6}|#[0-9]{1,7}|[A-Za-z][A-Za-z0-9]{0,31});"
)
_UNFINISHED = re.compile(
    rf"(?:</?(?:[A-Za-z][A-Za-z0-9]*(?:[\s/][^<>]{{0,{_MOST}}})?)?"
    r"|&(?:#(?:[xX][0-9a-fA-F]{0,6}|[0-9]{0,7})|[A-Za-z][A-Za-z0-9]{0,31})?)\Z"
)
_INLINE: Final = frozenset(
    (
        *("a", "abbr", "acronym", "b", "bdi", "bdo", "big", "cite", "code", "data", "dfn", "del", "em", "font", "i"),
        *("ins", "kbd", "label", "mark", "q", "s", "samp", "small", "span", "strike", "strong", "sub", "sup", "time"),
        *("tt", "u", "var", "wbr"),
    )
)
"""Tags inside a word or a sentence. All others stand between two."""


def plain(text: str) -> str:
    """Return the text without tags, and with entities as what they stand for."""
    if "<" not in text and "&" not in text:
        return text
    return _MARKUP.sub(_instead, text)


def _instead(found: re.Match[str]) -> str:
    name = found[1]
    if name is None:
        return html.unescape(found[0])
    return "" if name.lower() in _INLINE else "\n"


def held_back(text: str) -> int:
    """Return how many characters at the end may become a tag or an entity."""
    if "<" not in text and "&" not in text:
        return 0
    found = _UNFINISHED.search(text)
    return 0 if found is None else len(text) - found.start()
