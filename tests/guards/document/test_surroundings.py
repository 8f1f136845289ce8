"""`guards.document_frame`: where a document begins, and what may follow it in its fence."""

from __future__ import annotations

from typing import Any

import pytest

from streamguard.guards.document.surroundings import LONGEST_INFO, Fault, Frame
from tests.guards.documents import ways


def _lead(parts: list[str], fence: Any, preamble: Any, opens: Any) -> tuple[str | tuple[str, int] | None, bool]:
    """The document's text to the end of the input, or the fault's reason and place; and whether it is in a fence."""
    frame = Frame(fence=fence, preamble=preamble, opens=opens)
    for index, part in enumerate(parts):
        found = frame.lead(part)
        if isinstance(found, Fault):
            return (found.reason, found.char), frame.fenced
        if found is not None:
            return found + "".join(parts[index + 1 :]), frame.fenced
    return None, frame.fenced


LEADS = [
    # text, fence, preamble, opens → document or fault, fenced
    (" {}", "reject", "reject", "any", " {}", False),
    ("}", "reject", "reject", "any", "}", False),
    ("true", "reject", "reject", "object", "true", False),
    ("no, I", "reject", "reject", "object", "no, I", False),
    ("\ufeff{}", "reject", "reject", "any", ("json.preamble", 0), False),
    (" Sure", "reject", "reject", "any", ("json.preamble", 1), False),
    ("'{}'", "reject", "reject", "any", ("json.preamble", 0), False),
    (" ```", "reject", "reject", "any", ("json.fence", 1), False),
    ("~", "reject", "reject", "any", ("json.fence", 0), False),
    (" \n", "reject", "reject", "any", None, False),
    ("", "reject", "reject", "any", None, False),
    ("```\n{}", "strip", "reject", "any", "{}", True),
    ("``````json5\n\n {}", "strip", "reject", "any", "\n {}", True),
    ("```json\n```\n", "strip", "reject", "any", ("json.preamble", 8), True),
    ("```json and\n{}", "strip", "reject", "any", ("json.fence", 8), False),
    ("~~ {}", "strip", "reject", "any", ("json.fence", 2), False),
    ("```" + "x" * LONGEST_INFO + "\n", "strip", "reject", "any", ("json.fence", 3 + LONGEST_INFO - 1), False),
    ("```json", "strip", "reject", "any", None, False),
    ("Sure: {}", "reject", "skip", "object", "{}", False),
    ("In [1] {}", "reject", "skip", "object", "{}", False),
    ("In [1] {}", "reject", "skip", "any", "[1] {}", False),
    ("In {1} [2]", "reject", "skip", "array", "[2]", False),
    ("42", "reject", "skip", "any", None, False),
    ("`x` ~~~ {}", "reject", "skip", "object", "{}", False),
    ("a\n   ~~~~\n{}", "reject", "skip", "object", ("json.fence", 5), False),
    ("a\n    ~~~~\n{}", "reject", "skip", "object", "{}", False),
    ("a\n``\n{}", "reject", "skip", "object", "{}", False),
    ("a\n~~~~\n{}", "strip", "skip", "object", "{}", True),
    ("```\nx\n```\n{}", "strip", "skip", "object", "{}", False),
    ("```\nx\n~~~\n{}", "strip", "skip", "object", "{}", True),
    ("````\nx\n```\n{}", "strip", "skip", "object", "{}", True),
    ("```\nx\n``` y\n{}", "strip", "skip", "object", "{}", True),
]


@pytest.mark.parametrize(("text", "fence", "preamble", "opens", "expected", "fenced"), LEADS)
def test_where_a_document_begins(text: str, fence: str, preamble: str, opens: str, expected: Any, fenced: bool) -> None:
    """The same place, however the text is cut."""
    results = [_lead(parts, fence, preamble, opens) for parts in ways(text)]
    assert results == [(expected, fenced)] * len(results)


@pytest.mark.parametrize(
    ("opening", "text", "fault"),
    [
        ("```", "\n```\n", None),
        ("```", "```", None),
        ("```", "\n`````\n \t\r\n", None),
        ("```", "", None),
        ("```", "\n``", None),
        ("~~~~", "\n~~~~", None),
        ("~~~~", "\n~~~\n", 4),
        ("~~~", "\n```", 1),
        ("```", "\n``` x", 5),
        ("```", "\n```x", 4),
        ("```", "\n```\n```", 5),
        ("```", " ,", 1),
    ],
)
def test_what_may_follow_a_document_in_its_fence(opening: str, text: str, fault: int | None) -> None:
    """Whitespace, one closing fence at least as long as the opening one, whitespace."""
    for parts in ways(text):
        frame = Frame(fence="strip", preamble="reject", opens="any")
        assert frame.lead(f"{opening}\n{{}}") == "{}"
        found, before = None, 0
        for part in parts:
            found = frame.tail(part)
            if found is not None:
                break
            before += len(part)
        assert (found and before + found.char) == fault
        assert found is None or found.reason == "json.trailing"


def test_a_long_preamble_is_not_kept() -> None:
    """I8: a megabyte of prose on one line leaves no trace but its first characters."""
    frame = Frame(fence="strip", preamble="skip", opens="any")
    for _ in range(10_000):
        assert frame.lead("x" * 100) is None
    assert len(frame._head) == LONGEST_INFO
