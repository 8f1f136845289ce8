"""Link the glossary's words where each first stands on a page of the site."""

from __future__ import annotations

import re
from collections.abc import Iterator

FORMS = {
    "attempt": "attempts?",
    "call": "calls?",
    "guard": "guards?",
    "trip": "trips?|tripped",
    "abort": "aborts?|aborted",
    "dead": "dead",
    "cut": "cut",
    "whole": "`whole`",
    "reason": "`reason`",
    "hold": "holds?|held",
    "settle": "settles?|settled|uncertain",
    "ledger": "ledgers?",
}
"""Each word of `docs/glossary.md`, and the forms it stands in; in code, where it is a plain word as well."""

_PARTS = re.compile(r"```.*?```|<!--.*?-->|^#.*?$|`[^`\n]+`|!?\[[^\]]*\]\([^)]*\)|<[^>\n]+>", re.DOTALL | re.MULTILINE)
"""What is not prose: code, comments, headings, links, tags."""


def _prose(text: str) -> Iterator[tuple[bool, str]]:
    """The text in pieces, each with whether it is prose."""
    end = 0
    for part in _PARTS.finditer(text):
        yield True, text[end : part.start()]
        yield False, part[0]
        end = part.end()
    yield True, text[end:]


def linked(text: str, glossary: str) -> str:
    """A page whose glossary words are links where they first stand.

    :param glossary: the address of the glossary, seen from the page.
    """
    open_ = {
        word: re.compile(rf"(?<![\w-])({forms})(?![\w-])", re.IGNORECASE)
        for word, forms in FORMS.items()
        if f"{glossary}#{word}" not in text
    }
    pieces = []
    for is_prose, piece in _prose(text):
        found = sorted(
            (match.start(), match.end(), word)
            for word, form in open_.items()
            if is_prose != FORMS[word].startswith("`") and (match := form.search(piece))
        )
        for start, stop, word in reversed(found):
            piece = f"{piece[:start]}[{piece[start:stop]}]({glossary}#{word}){piece[stop:]}"  # noqa: PLW2901
            del open_[word]
        pieces.append(piece)
    return "".join(pieces)
