"""Result lines: their shape, and that a line is a line whatever a model says."""

from __future__ import annotations

import json

import pytest

from streamguard.errors import DeadlineExceeded, GaveUp, Interrupted
from streamguard.events import Failed, Usage
from streamguard.jobs.store.results import About, dumps, result_line
from streamguard.outcome import AttemptRecord, CallRecord, Cost, Outcome, Times
from streamguard.usage import UsageRange
from streamguard.verdict import Decision, Trip, Where

ABOUT = About(policy="streamguard:extraction")
DEAD = AttemptRecord(
    number=1,
    model="m",
    ended=Trip(
        reason="json.schema",
        message="no such name",
        knob="json.schema",
        where=Where(offset=10, pointer="/a", keyword="additionalProperties"),
    ),
    text='{"a": {"b',
    request_id="msg_1",
    usage=UsageRange(low=Usage(input_tokens=1, output_tokens=3), high=Usage(output_tokens=9), exact=False),
    cost=Cost(12, None),
    times=Times(head=0.1, first_token=0.25, dead=0.5, end=0.512345),
    saved_tokens=40,
    decision=Decision(
        action="retry",
        reason="json.schema",
        why="retry.rules[0]: attempt 2 of 3",
        rule=0,
        wait=0.5,
        patch={"max_tokens": 20},
    ),
)
GOOD = AttemptRecord(
    number=2,
    patch={"max_tokens": 20},
    model="m",
    completed="whole",
    stop_reason="end_turn",
    request_id="msg_2",
    text='{"a": 1}',
    usage=UsageRange.of(Usage(input_tokens=1, output_tokens=5)),
    cost=Cost(30, 30),
    times=Times(head=0.1, first_token=0.2, end=1.0),
)
BOTH = {
    "attempts": (DEAD, GOOD),
    "usage": UsageRange.total([DEAD.usage, GOOD.usage]),
    "cost": Cost(42, None),
    "seconds": 1.6,
}


def line(came, about: About = ABOUT) -> dict:
    raw = result_line("row 1", came, about, "f00")
    assert raw.endswith(b"\n")
    assert raw.count(b"\n") == 1
    return json.loads(raw)


def test_a_success_has_the_message_the_value_and_every_attempt() -> None:
    """The batch API's shape, and under `streamguard` what it took to get there."""
    outcome = Outcome(**BOTH, completed="whole", value={"a": 1}, text='{"a": 1}', message={"id": "msg_2"})
    assert line(outcome) == {
        "custom_id": "row 1",
        "result": {"type": "succeeded", "message": {"id": "msg_2"}},
        "streamguard": {
            "output": {"a": 1},
            "completed": "whole",
            "attempts": [
                {
                    "number": 1,
                    "model": "m",
                    "patch": None,
                    "completed": None,
                    "reason": "json.schema",
                    "message": "no such name",
                    "knob": "json.schema",
                    "limit": None,
                    "observed": None,
                    "offset": 10,
                    "pointer": "/a",
                    "keyword": "additionalProperties",
                    "status": None,
                    "stop_reason": None,
                    "request_id": "msg_1",
                    "output_tokens": [3, 9],
                    "saved_tokens": 40,
                    "cost_usd": [0.000012, None],
                    "first_token_seconds": 0.25,
                    "seconds": 0.512,
                    "decision": {
                        "action": "retry",
                        "rule": 0,
                        "wait_seconds": 0.5,
                        "patch": {"max_tokens": 20},
                        "why": "retry.rules[0]: attempt 2 of 3",
                    },
                },
                {
                    "number": 2,
                    "model": "m",
                    "patch": {"max_tokens": 20},
                    "completed": "whole",
                    "reason": None,
                    "message": None,
                    "knob": None,
                    "limit": None,
                    "observed": None,
                    "offset": None,
                    "pointer": None,
                    "keyword": None,
                    "status": None,
                    "stop_reason": "end_turn",
                    "request_id": "msg_2",
                    "output_tokens": [5, 5],
                    "saved_tokens": None,
                    "cost_usd": [0.00003, 0.00003],
                    "first_token_seconds": 0.2,
                    "seconds": 1.0,
                    "decision": None,
                },
            ],
            "reasons": ["json.schema"],
            "usage": {"input_tokens": [2, None], "output_tokens": [8, 14], "exact": False},
            "cost_usd": [0.000042, None],
            "saved_tokens": 40,
            "ms": 1600,
            "policy": "streamguard:extraction",
            "fingerprint": "f00",
        },
    }


RECORD = CallRecord(attempts=(DEAD,), usage=DEAD.usage, cost=Cost(None, None), seconds=0.5)
FAILURES = [
    (
        GaveUp("gave up: why", reason="json.schema", record=RECORD),
        {"type": "errored", "error": {"type": "error", "error": {"type": "json.schema", "message": "gave up: why"}}},
    ),
    (
        DeadlineExceeded("too late", reason="timeout.total", record=RECORD, knob="timeouts.total"),
        {"type": "errored", "error": {"type": "error", "error": {"type": "timeout.total", "message": "too late"}}},
    ),
    (Interrupted("stopped", reason="operator.interrupt", record=RECORD, by="SIGINT"), {"type": "canceled"}),
]


@pytest.mark.parametrize(("error", "result"), FAILURES)
def test_a_failure_says_why_in_the_batch_apis_shape(error, result) -> None:
    """Reason and message where batch readers look; no price is `null`, not zero."""
    found = line(error)
    own = found["streamguard"]
    assert (found["result"], own["output"], own["completed"], own["cost_usd"]) == (result, None, None, None)


def test_readers_of_batch_results_can_read_it() -> None:
    """The SDK's own type takes an errored line, and gives the reason."""
    from anthropic.types.messages import MessageBatchIndividualResponse

    read = MessageBatchIndividualResponse.model_validate(
        {key: value for key, value in line(FAILURES[2][0]).items() if key != "streamguard"}
    )
    assert (read.custom_id, read.result.type) == ("row 1", "canceled")
    read = MessageBatchIndividualResponse.construct(**line(FAILURES[0][0]))
    assert read.result.error.error.type == "json.schema"


def test_partial_text_is_written_only_on_demand() -> None:
    """Rejected text stays out of the file, unless the job says `partials`; accepted text is in the message anyway."""
    outcome = Outcome(**BOTH, completed="whole", message=None)
    texts = [
        [attempt.get("text") for attempt in line(outcome, about)["streamguard"]["attempts"]]
        for about in (ABOUT, About(policy="p", partials=True))
    ]
    assert texts == [[None, None], ['{"a": {"b', None]]


def test_failures_of_the_provider_carry_their_status() -> None:
    """And a limit that is no number or text is put in words."""
    failed = Failed(reason="provider.overloaded", message="busy", status=529)
    tripped = Trip(reason="stop.unknown", message="?", limit=("end_turn",), observed=1.5)
    attempts = tuple(
        AttemptRecord(number=number, ended=ended, usage=UsageRange.nothing())
        for number, ended in enumerate((failed, tripped), 1)
    )
    found = line(GaveUp("x", reason="stop.unknown", record=CallRecord(attempts=attempts, usage=UsageRange.nothing())))
    picked = [(one["status"], one["limit"], one["observed"]) for one in found["streamguard"]["attempts"]]
    assert picked == [(529, None, None), (None, "('end_turn',)", 1.5)]


NASTY = [
    "line\u2028separators\u2029and\x85others",
    "\x1b[2J\x07\r\n\x00",
    "half a pair \ud83d, and \u202eright to left",
    {"\u2028": ["\ud800"]},
    10**400,
    -0.1,
]


@pytest.mark.parametrize("value", NASTY)
def test_a_line_is_a_line(value) -> None:
    """Whatever a model says comes back as it was, in ASCII, without anything that ends a line or moves a cursor."""
    raw = result_line("\u2028\x1b", Outcome(**BOTH, completed="whole", value=value), ABOUT, "f")
    assert raw.isascii()
    assert min(raw[:-1]) >= 0x20
    assert json.loads(raw)["streamguard"]["output"] == value


def test_numbers_beyond_floats_stay_json() -> None:
    """`1e400` is valid JSON that Python reads as infinity; what is written reads the same, and is JSON."""
    value = {"a": [float("inf"), -float("inf"), 1.5], "b": "inf"}
    text = dumps(value)
    assert text == '{"a":[1e999,-1e999,1.5],"b":"inf"}'
    assert json.loads(text) == value
