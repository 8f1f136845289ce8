"""Where an answer died, in its own words: a little text before the dead character, and a little after it. Pure.

In charge of finding the document inside the answer's text again, as the policy's frame found it, so that the place that
a trip names can be shown. Where the two do not agree to the byte, nothing is shown.
"""

from __future__ import annotations

import msgspec

from streamguard.guards.document.guard import JsonDocument
from streamguard.guards.document.surroundings import Frame
from streamguard.outcome import CallRecord
from streamguard.verdict import Trip, Where

BEFORE = 120
AFTER = 40
"""Characters that are shown."""


class Excerpt(msgspec.Struct, frozen=True):
    """A part of a text, cut at the dead character, which `after` begins with."""

    before: str
    after: str
    cut_before: bool = False
    """Whether there was more before; so for `cut_after`."""
    cut_after: bool = False


def excerpt(text: str, where: Where | None, section: JsonDocument | None, prefill: str = "") -> Excerpt | None:
    """The surroundings of the place; `None` if it is not in the text.

    :param text: the answer's text blocks, as far as they came.
    :param prefill: the beginning of the answer that the request brought along.
    """
    if section is None or section.where != "text" or where is None or where.offset is None:
        return None
    answer = prefill + text
    document = _document(answer, section)
    if where.offset == "eof":
        return _around(document, len(document))
    for base in (document, answer):
        at = where.char
        if at is not None and at <= len(base) and len(base[:at].encode("utf-8", "surrogatepass")) == where.offset:
            return _around(base, at)
    return None


def excerpts(record: CallRecord, section: JsonDocument | None, prefill: str = "") -> dict[int, Excerpt]:
    """The excerpts of a call's attempts that died in their text, by the attempts' numbers."""
    found = {
        attempt.number: excerpt(attempt.text, attempt.ended.where, section, prefill)
        for attempt in record.attempts
        if isinstance(attempt.ended, Trip)
    }
    return {number: one for number, one in found.items() if one is not None}


def _document(answer: str, section: JsonDocument) -> str:
    plan = section.plan(section.own_schema())
    found = Frame(fence=plan.fence, preamble=plan.preamble, opens=plan.opens).lead(answer)
    return found if isinstance(found, str) else answer


def _around(text: str, at: int) -> Excerpt:
    first, last = max(0, at - BEFORE), min(len(text), at + AFTER)
    return Excerpt(before=text[first:at], after=text[at:last], cut_before=first > 0, cut_after=last < len(text))
