"""One row's story, and the words around the byte that killed an answer."""

from __future__ import annotations

import msgspec
import pytest

from streamguard.errors import GaveUp
from streamguard.events import Failed
from streamguard.guards.document.guard import JsonDocument
from streamguard.jobs.report.excerpt import Excerpt, excerpt, excerpts
from streamguard.jobs.report.timeline import timeline
from streamguard.jobs.store.results import About, poison_line, result_line
from streamguard.outcome import CallRecord, Outcome
from streamguard.usage import UsageRange
from streamguard.verdict import Trip, Where
from tests.jobs.store.test_results import BOTH, DEAD

ABOUT = About(policy="p.yaml")


def test_a_row_that_was_asked_twice() -> None:
    """Why, by which rule, after what wait, with what change; and where in its own words the first answer died."""
    outcome = Outcome(**BOTH, completed="whole", value={"a": 1}, text='{"a": 1}', message={})
    detail = msgspec.json.encode({1: Excerpt('{"a": {"', 'b": 1', cut_after=True)})
    head, *told = timeline(result_line("inv-7", outcome, ABOUT, "f"), detail)
    assert head.split("; ") == [
        "inv-7: succeeded (whole)",
        "2 attempts in 1.60 s",
        "≈ 8 to 14 output tokens",
        "≥ $0.000042",
        "≈ 40 output tokens not generated",
    ]
    assert told.pop(3).split(", ") == [
        "             byte 10",
        "at /a",
        "keyword additionalProperties",
        "knob json.schema",
        "≈ 3 to 9 output tokens",
        "≈ 40 not generated",
    ]
    assert told == [
        "     0.00 s  attempt 1: m",
        "     0.25 s  first token",
        "     0.51 s  json.schema: no such name",
        '             {"a": {"▶b": 1…',
        '             → retry by rule 0, after 0.5 s: retry.rules[0]: attempt 2 of 3; patch {"max_tokens": 20}',
        '     1.01 s  attempt 2: m, patch {"max_tokens": 20}',
        "     1.21 s  first token",
        "     2.01 s  accepted (whole), 5 output tokens",
    ]


def test_a_row_that_failed() -> None:
    """The provider's status and the error's own sentence; without details nothing is made up."""
    busy = Failed(reason="provider.overloaded", message="busy", status=529)
    attempt = msgspec.structs.replace(DEAD, ended=busy, decision=None, saved_tokens=None)
    error = GaveUp("gave up: busy", reason=busy.reason, record=CallRecord(attempts=(attempt,), usage=DEAD.usage))
    told = list(timeline(result_line("r", error, ABOUT, "f")))
    assert told[0].startswith("r: errored, provider.overloaded: gave up: busy; 1 attempt in 0.00 s; ≈ 3 to 9 output")
    assert told[3:] == [
        "     0.51 s  provider.overloaded: busy",
        "             status 529, ≈ 3 to 9 output tokens",
        "             no decision is on record",
    ]


def test_a_row_that_was_never_asked_again() -> None:
    """Poison has a story, too."""
    (told,) = timeline(poison_line("r", 3, "f"))
    assert told == (
        "r: errored, job.poison: not asked: the process died 3 times while this row was under way; to ask it again: "
        "streamguard retry; 0 attempts in 0.00 s"
    )


def at(offset, char=None) -> Where:
    return Where(offset=offset, char=offset if char is None else char)


@pytest.mark.parametrize(
    ("text", "where", "section", "prefill", "expected"),
    [
        ('{"a" 1}', at(5), {}, "", ('{"a" ', "1}")),
        ('{"ä" 1}', at(6, 5), {}, "", ('{"ä" ', "1}")),
        ('"a" 1}', at(5), {}, "{", ('{"a" ', "1}")),
        ('```json\n{"a" 1}\n```', at(5), {"fence": "strip"}, "", ('{"a" ', "1}\n```")),
        ('Here: {"a" 1}', at(5), {"preamble": "skip"}, "", ('{"a" ', "1}")),
        ("Here it is", at(0), {}, "", ("", "Here it is")),
        ('{"a": 1', at("eof"), {}, "", ('{"a": 1', "")),
        ('{"a" 1}', at(5, 4), {}, "", None),
        ('{"a" 1}', at(50), {}, "", None),
        ('{"a" 1}', None, {}, "", None),
        ('{"a" 1}', at(5), {"where": "tools"}, "", None),
        ('{"a" 1}', at(5), None, "", None),
    ],
)
def test_the_words_around_the_dead_byte(text, where, section, prefill, expected) -> None:
    """Behind fences, words and prefills; and nothing, where bytes and characters do not agree."""
    found = excerpt(text, where, None if section is None else JsonDocument(**section), prefill)
    assert (found and (found.before, found.after)) == expected


def test_a_long_answer_is_cut() -> None:
    """Enough to find the place, marked where there is more."""
    text = '{"a": "' + "x" * 500 + "\n" + "y" * 500
    found = excerpt(text, at(507), JsonDocument())
    assert found == Excerpt("x" * 120, "\n" + "y" * 39, cut_before=True, cut_after=True)


def test_only_attempts_that_died_in_their_text_have_words() -> None:
    """By the attempt's number."""
    died = msgspec.structs.replace(DEAD, text='{"a" 1', ended=Trip(reason="json.malformed", message="m", where=at(5)))
    slow = msgspec.structs.replace(DEAD, number=2, ended=Trip(reason="timeout.total", message="m"))
    busy = msgspec.structs.replace(DEAD, number=3, ended=Failed(reason="provider.overloaded", message="busy"))
    record = CallRecord(attempts=(died, slow, busy), usage=UsageRange.nothing())
    assert excerpts(record, JsonDocument()) == {1: Excerpt('{"a" ', "1")}
