"""The hint of a retry rule: in words of ours, why the last answer was rejected.

In charge of the template as it is written, and of what its placeholders stand for. No text of the model's answer goes
into a hint, and none of the source: only reasons, places that the schema or the policy names, and what these ask for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Final, NamedTuple

from streamguard.files.json_pointer import parse_pointer, pointer
from streamguard.files.suggest import did_you_mean
from streamguard.verdict import REASONS, Trip

MAX_HINT: Final = 300
"""Characters of a hint, as written and as sent."""

MAX_EXPECTED: Final = 80
"""Characters of what a schema or a check asks for."""

NAMES: Final = ("reason", "pointer", "message", "expected")
"""What may stand in braces."""

NEVER: Final = ("timeout", "transport", "provider", "budget", "operator", "source", "guard")
"""Prefixes of reasons that are not the answer's: a model can do nothing about them."""

MESSAGES: Final[Mapping[str, str]] = {
    "json.malformed": "it was not valid JSON",
    "json.schema": "it did not satisfy the JSON Schema",
    "json.model": "the value did not pass validation",
    "json.ungrounded": "the value does not occur in the source text",
    "json.duplicate_name": "a name stood twice in one object",
    "json.fence": "the JSON stood in a code fence",
    "json.preamble": "there was text before the JSON",
    "json.trailing": "there was text after the JSON",
    "json.depth": "it was nested too deeply",
    "json.number": "a number had too many digits",
    "json.size": "it was too large",
    "json.incomplete": "it ended before the JSON was complete",
    "stop.max_tokens": "it was cut off at max_tokens",
    "repetition.whitespace": "it had a long run of whitespace",
    "repetition.loop": "it repeated itself",
}
"""Reason → what was wrong with the answer. For the others it is the reason's meaning."""

EXPECTED: Final[Mapping[str, str]] = {
    "json.malformed": "one JSON document and nothing else",
    "json.ungrounded": "the source's own words, or null where it has none",
    "json.duplicate_name": "each name once",
    "json.fence": "the JSON without a code fence",
    "json.preamble": "the JSON from the first character on",
    "json.trailing": "nothing after the JSON",
    "json.incomplete": "the whole JSON document",
    "stop.max_tokens": "a shorter answer",
}
"""Reason → what would have been right. An invention is not answered by another one: `null` is always offered."""

_BRACES = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_INDEX = re.compile(r"[0-9]{1,6}")
_WORD = re.compile(r"[^\W\d]\w*")


class Misplaced(NamedTuple):
    """A mistake in a hint as it is written."""

    key: str
    at: int
    """The character, from 0."""
    problem: str


def mistakes(template: str) -> Iterator[Misplaced]:
    """What is wrong with the braces of a template."""
    for found in _BRACES.finditer(template):
        name = found[1]
        if name is not None and name not in NAMES:
            there = ", ".join(f"{{{one}}}" for one in NAMES)
            advice = did_you_mean(name, NAMES) or f"; there are {there}"
            yield Misplaced("hint", found.start(), f"{{{name}}} stands for nothing{advice}")
        elif found[0] in ("{", "}"):
            what = "{ is never closed" if found[0] == "{" else "} closes nothing"
            yield Misplaced("hint", found.start(), f"{what}; a brace itself is {found[0] * 2}")


def not_the_answers(patterns: Iterable[str]) -> list[str]:
    """The patterns that match reasons about which a model can do nothing."""
    never = [reason for reason in REASONS if reason.partition(".")[0] in NEVER]
    return [
        pattern
        for pattern in patterns
        if pattern.partition(".")[0] in NEVER or any(fnmatchcase(reason, pattern) for reason in never)
    ]


def written(template: str, trip: Trip, names: Iterable[str], schemas: Sequence[Mapping[str, Any]]) -> str:
    """Return the hint to send after a trip.

    :param names: of members that the policy itself speaks of.
    :param schemas: those that the document may be held to.
    """
    known = frozenset(names).union(*map(_names, schemas))
    values = {
        "reason": lambda: trip.reason,
        "pointer": lambda: _place(trip, known),
        "message": lambda: _message(trip),
        "expected": lambda: _expected(trip, schemas),
    }
    text = _BRACES.sub(lambda found: found[0][0] if found[1] is None else values[found[1]](), template)
    return _cut(text.strip(), MAX_HINT)


def words(texts: Iterable[str | None]) -> frozenset[str]:
    """Return the names in texts that a policy's author wrote, such as pointers and expressions."""
    return frozenset(name for text in texts if text is not None for name in _WORD.findall(text))


def _names(schema: Any) -> frozenset[str]:
    """Every name of a member that a schema knows."""
    found: set[str] = set()
    queue = [schema]
    while queue:
        node = queue.pop()
        if isinstance(node, Mapping):
            members = node.get("properties")
            found.update(members if isinstance(members, Mapping) else ())
            queue.extend(node.values())
        elif isinstance(node, list | tuple):
            queue.extend(node)
    return frozenset(found)


def _place(trip: Trip, known: frozenset[str]) -> str:
    """The value's place. A name that only the model's answer has is `*`."""
    where = trip.where.pointer if trip.where else None
    if not where:
        return "the document"
    return pointer([part if _INDEX.fullmatch(part) or part in known else "*" for part in parse_pointer(where)])


def _message(trip: Trip) -> str:
    reason, keyword = trip.reason, trip.where.keyword if trip.where else None
    if reason == "json.schema" and keyword:
        return f"it did not satisfy {keyword} of the JSON Schema"
    if (check := _check(trip)) is not None:
        return f"{check} does not hold"
    return MESSAGES.get(reason) or REASONS.get(reason) or f"{reason} did not pass"


def _expected(trip: Trip, schemas: Sequence[Mapping[str, Any]]) -> str:
    where = trip.where
    if where is not None and where.keyword and where.schema_pointer and len(schemas) == 1:
        found = _at(schemas[0], where.schema_pointer)
        if found is not None:
            return _cut(f"{where.keyword}: {json.dumps(found[0], ensure_ascii=False, default=_plain)}", MAX_EXPECTED)
    return _check(trip) or EXPECTED.get(trip.reason) or "an answer of which that is not true"


def _check(trip: Trip) -> str | None:
    """The expression of a check, which the policy's author wrote."""
    written_as = trip.limit if trip.guard == "checks" and trip.reason != "guard.failed" else None
    return _cut(written_as, MAX_EXPECTED) if isinstance(written_as, str) else None


def _at(schema: Any, place: str) -> tuple[Any] | None:
    for part in parse_pointer(place):
        if isinstance(schema, Mapping) and part in schema:
            schema = schema[part]
        elif isinstance(schema, list | tuple) and part.isdecimal() and int(part) < len(schema):
            schema = schema[int(part)]
        else:
            return None
    return (schema,)


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else str(value)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
