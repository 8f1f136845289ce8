"""Where in the text of an aborted attempt the first wrong character stands.

In charge of one translation: a trip's place is told in the coordinates of what its guard read (a document behind a
fence and a prefill, all text of one kind), and a display shows blocks. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from streamguard.events import BlockKind
from streamguard.guards.checks.watch import GUARD as CHECKS
from streamguard.guards.document.guard import JsonDocument
from streamguard.guards.document.surroundings import Frame
from streamguard.request import Request
from streamguard.verdict import Trip

Texts = Sequence[tuple[int, BlockKind, str]]
"""The blocks of an attempt: index, kind, whole text."""

_BEFORE_THE_DOCUMENT = ("json.preamble", "json.fence")
"""Reasons whose character is counted from the start of the text, not of the document."""


def mark(trip: Trip, texts: Texts, document: JsonDocument | None, request: Request | None) -> tuple[int, int] | None:
    """The block's index and the character in it (of the block's own text), or `None` if the trip names no character.

    The character is the first wrong one; for a loop or a limit it is the one after the last that was looked at.
    """
    where = trip.where
    if where is None or where.char is None or where.block is None:
        return None
    kinds: Mapping[int, BlockKind] = {index: kind for index, kind, _ in texts}
    kind = kinds.get(where.block)
    if kind is None:
        return None
    of_document = trip.reason.startswith("json.") or trip.knob == CHECKS
    if of_document and kind == "tool_input":
        mine = [(index, text) for index, _, text in texts if index == where.block]
    else:
        mine = [(index, text) for index, its, text in texts if its == kind]
    at = where.char
    if of_document and kind == "text":
        at += _offset(trip.reason, "".join(text for _, text in mine), document, request)
    for index, text in mine:
        if 0 <= at < len(text) or (at == len(text) and index == mine[-1][0]):
            return index, at
        at -= len(text)
    return None


def _offset(reason: str, text: str, document: JsonDocument | None, request: Request | None) -> int:
    """Where the document begins in the text; below 0 if it began in what the request put in the model's mouth."""
    prefill = request.prefill or "" if request is not None else ""
    if (
        document is None
        or reason in _BEFORE_THE_DOCUMENT
        or (document.fence, document.preamble) == ("reject", "reject")
    ):
        return -len(prefill)
    schema = document.own_schema()
    if schema is None and document.schema_ == "request" and request is not None:
        schema = request.output_schema
    plan = document.plan(schema)
    found = Frame(fence=plan.fence, preamble=plan.preamble, opens=plan.opens).lead(prefill + text)
    return len(text) - len(found) if isinstance(found, str) else -len(prefill)
