"""Which values of a text stand in the source: by reading the text as it is, every time from its beginning.

In charge of the values at the places of `json.grounded`, finished or not, and of the naive look for them. It knows the
request as the source, and exact texts; nothing here is the guards'.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import regex

_PART = regex.compile(r'"(?:[^"\\]|\\(?:u[0-9a-fA-F]{4}|[^u]))*+"?|[{}\[\],:]|[^\s{}\[\],:"]++', regex.DOTALL)
Stands = Literal["yes", "unsure", "no"]


class GroundedValues:
    """What a section says of grounded values, and the source.

    :raises ValueError: the section says something that this oracle does not know.
    """

    def __init__(self, section: Any, request: Mapping[str, Any] | None) -> None:
        self._places = [tuple(entry.at.split("/")[1:]) for entry in section.grounded]
        for entry in section.grounded:
            plain = (
                entry.as_ == "text" and entry.edges == "any" and entry.in_ in (None, "request") and not entry.between
            )
            if not plain or entry.ignored:
                raise ValueError("the oracle knows exact texts of the request only")
        said = [one["content"] for one in (request or {}).get("messages", ()) if one["role"] == "user"]
        if self._places and not all(isinstance(one, str) for one in said):
            raise ValueError("the oracle knows requests of plain text only")
        self._source = "\n".join(said) if self._places else ""

    def stand(self, text: str) -> Stands:
        """Whether the values of a document's beginning stand in the source."""
        found: Stands = "yes"
        for path, raw, finished in _strings(text) if self._places else ():
            if any(_fits(place, path) for place in self._places):
                stands = self._stands(raw, finished)
                if stands == "no":
                    return "no"
                found = stands if stands == "unsure" else found
        return found

    def _stands(self, raw: str, finished: bool) -> Stands:
        if not finished:
            raw = regex.sub(r"\\(?:u[0-9a-fA-F]{0,3})?\Z", "", raw)
        value = json.loads(f'"{raw}"', strict=False)
        if value.isascii() or finished:
            return "yes" if unicodedata.normalize("NFKD", value) in self._source else "no"
        return "unsure"


def _fits(place: Sequence[str], path: Sequence[str]) -> bool:
    return len(place) == len(path) and all(want in ("*", own) for want, own in zip(place, path, strict=True))


def _strings(text: str) -> Iterator[tuple[tuple[str, ...], str, bool]]:
    """The string values of a beginning of a document: the path, what is between the quotes, and whether it is all."""
    stack: list[tuple[str, str]] = []  # per open container: its bracket, and the name or number of the value at hand
    named = False
    for match in _PART.finditer(text):
        part = match.group()
        if part in ("{", "["):
            stack.append((part, "0" if part == "[" else ""))
            named = False
        elif part in ("}", "]") and stack:
            stack.pop()
        elif part == "," and stack:
            bracket, at = stack[-1]
            stack[-1] = (bracket, str(int(at) + 1) if bracket == "[" else "")
            named = False
        elif part == ":":
            named = True
        elif part[0] == '"':
            finished = len(part) > 1 and part[-1] == '"'
            raw = part[1:-1] if finished else part[1:]
            if stack and stack[-1][0] == "{" and not named:
                stack[-1] = ("{", json.loads(f'"{raw}"', strict=False) if finished else "")
            else:
                yield tuple(at for _, at in stack), raw, finished
