"""Reasons as statuses, types and bodies; costs and balances as headers; the end of a cut answer."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from streamguard.budgets.spec import BudgetSpec
from streamguard.errors import DeadlineExceeded, GaveUp
from streamguard.events import BlockStarted, BlockStopped, Failed, Usage
from streamguard.http.refusals import PHRASES, REFUSALS, TYPES, Refused
from streamguard.outcome import AttemptRecord, CallRecord, Cost, Outcome
from streamguard.proxy.answers import early_end, error_responses, report_headers
from streamguard.testing import wire
from streamguard.usage import UsageRange
from streamguard.verdict import REASONS, Trip, Where

NOTHING = UsageRange.nothing()


def gave_up(ended: Trip | Failed, **more: Any) -> GaveUp:
    attempt = AttemptRecord(number=1, ended=ended, usage=NOTHING, cost=Cost(10, 20))
    record = CallRecord(attempts=(attempt,), usage=NOTHING, cost=Cost(10, 20))
    return GaveUp(f"gave up: {ended.message}", reason=ended.reason, record=record, **more)


@pytest.mark.parametrize("reason", [*REASONS, "content.apology", "house.own"])
def test_every_reason_has_a_status_and_a_type(reason: str) -> None:
    """A status from 400 on, and a type that the provider's SDKs know."""
    assert 400 <= error_responses.status_of(reason) <= 599
    assert error_responses.type_of(reason) in TYPES.values()


@pytest.mark.parametrize(
    ("reason", "status", "kind"),
    [
        ("timeout.progress", 504, "timeout_error"),
        ("json.schema", 502, "api_error"),
        ("content.apology", 502, "api_error"),
        ("transport.reset", 502, "api_error"),
        ("provider.overloaded", 529, "overloaded_error"),
        ("provider.rate_limited", 429, "rate_limit_error"),
        ("provider.spend_limit", 402, "billing_error"),
        ("budget.denied", 402, "billing_error"),
        ("budget.unbounded", 400, "invalid_request_error"),
        ("budget.lost", 503, "overloaded_error"),
        ("operator.interrupt", 503, "overloaded_error"),
        ("guard.failed", 500, "api_error"),
    ],
)
def test_reasons_map_as_documented(reason: str, status: int, kind: str) -> None:
    """The table of `docs/proxy.md`."""
    assert (error_responses.status_of(reason), error_responses.type_of(reason)) == (status, kind)


def test_every_refusal_can_be_said() -> None:
    """A type for each status; a phrase for those that are said before there is a request."""
    for name, (status, _) in REFUSALS.items():
        assert json.loads(Refused(name).body())["error"]["type"] == TYPES[status]
    early = {status for status, _ in REFUSALS.values() if status not in (401, 402, 403, 404, 415, 421, 429)}
    assert early <= set(PHRASES)


def test_a_trip_says_its_place() -> None:
    """Knob, limit, what was seen, offset and pointer; control characters stay escaped."""
    trip = Trip(
        reason="json.schema",
        message="at \x1b[31m/a",
        knob="json.schema",
        limit=3,
        observed=float("inf"),
        where=Where(offset=17, pointer="/a"),
    )
    body = error_responses.body_of(gave_up(trip), "c0ffee")
    assert b"\x1b" not in body
    assert json.loads(body) == {
        "type": "error",
        "error": {
            "type": "api_error",
            "message": "gave up: at \x1b[31m/a",
            "details": {
                "streamguard": {
                    "reason": "json.schema",
                    "what": REASONS["json.schema"],
                    "call": "c0ffee",
                    "attempts": 1,
                    "reasons": ["json.schema"],
                    "knob": "json.schema",
                    "limit": 3,
                    "offset": 17,
                    "pointer": "/a",
                }
            },
        },
    }
    assert error_responses.event_of(body).startswith(b"event: error\ndata: {")
    assert error_responses.event_of(body).count(b"\n") == 3


def test_a_failure_of_the_providers_keeps_its_words() -> None:
    """Type, message and request id as the provider gave them."""
    failed = Failed(reason="provider.overloaded", message="Overloaded", type="overloaded_error", status=200)
    error = gave_up(failed)
    found = json.loads(error_responses.body_of(error, "c"))["error"]
    assert (found["type"], found["message"]) == ("overloaded_error", "Overloaded")


@pytest.mark.parametrize(
    ("reason", "retries", "headers"),
    [
        ("provider.overloaded", False, {}),
        ("provider.overloaded", True, {"x-should-retry": "false"}),
        ("provider.spend_limit", False, {"x-should-retry": "false"}),
        ("transport.reset", False, {}),
        ("json.malformed", False, {"x-should-retry": "false"}),
        ("budget.denied", False, {"x-should-retry": "false"}),
    ],
)
def test_sdks_are_told_whether_to_ask_again(reason: str, retries: bool, headers: dict[str, str]) -> None:
    """One owner of retries: the policy, if it has any; and never what cannot succeed."""
    error = gave_up(Failed(reason=reason, message="m"))
    assert error_responses.retry_headers(error, policy_retries=retries) == headers


def test_when_to_come_back() -> None:
    """Whole seconds, rounded up."""
    later = datetime.now(UTC) + timedelta(seconds=30.5)
    error = gave_up(Failed(reason="provider.rate_limited", message="m"), retry_at=later)
    assert error_responses.retry_headers(error, policy_retries=False)["retry-after"] in ("30", "31")
    late = DeadlineExceeded("m", reason="timeout.total", record=error.record, knob="timeouts.total")
    assert "retry-after" not in error_responses.retry_headers(late, policy_retries=False)


def test_costs_are_exact_or_between() -> None:
    """US dollars; an interval where the provider did not say; nothing where there is no price."""
    assert report_headers.shown_cost(Cost(1_234_567, 1_234_567)) == "1.234567"
    assert report_headers.shown_cost(Cost(0, 45)) == "0.000000..0.000045"
    assert report_headers.shown_cost(Cost(None, 45)) is None


def test_a_report_says_what_is_known_by_now() -> None:
    """In the head before the end, after the end, and as a comment."""
    error = gave_up(Failed(reason="transport.reset", message="m"))
    assert report_headers.beginning("c", error.record) == {
        "x-streamguard-call": "c",
        "x-streamguard-attempts": "2",
        "x-streamguard-reason": "transport.reset",
    }
    told = report_headers.report("c", error.record, {"own": "usd=1.000000;tokens=5"})
    assert told == {
        "x-streamguard-call": "c",
        "x-streamguard-attempts": "1",
        "x-streamguard-reason": "transport.reset",
        "x-streamguard-cost-usd": "0.000010..0.000020",
        "x-streamguard-budget-left": "own;usd=1.000000;tokens=5",
    }
    comment = report_headers.as_comment(told)
    assert comment.startswith(b": x-streamguard-call: c\n")
    assert comment.endswith(b"\n\n")
    assert all(line.startswith(b": ") for line in comment.splitlines()[:-1])


def test_budgets_that_a_client_may_see() -> None:
    """Its own; those of all if it is alone; never those of one call."""
    own = BudgetSpec(name="own", per="tenant:{client}", tokens=5)
    shared, call = BudgetSpec(name="s", tokens=5), BudgetSpec(name="c", per="call", tokens=5)
    assert report_headers.visible([own, shared, call], alone=False) == (own,)
    assert report_headers.visible([own, shared, call], alone=True) == (own, shared)


def outcome(text: str, document: str) -> Outcome:
    usage = UsageRange(low=Usage(output_tokens=3), high=Usage(output_tokens=7), exact=False)
    attempt = AttemptRecord(number=1, completed="cut", text=text, usage=usage)
    return Outcome(attempts=(attempt,), usage=usage, completed="cut", text=document)


def test_a_cut_answer_is_closed() -> None:
    """Open blocks, the reason it would have ended with, and the end; the count is the estimate's upper end."""
    blocks = early_end.OpenBlocks()
    blocks.see([BlockStarted(0, "text", "text"), BlockStopped(0), BlockStarted(1, "tool_input", "tool_use")])
    frames = early_end.closing_frames(blocks, outcome("{}", "{}"))
    events = [json.loads(line[6:]) for line in frames.split(b"\n") if line.startswith(b"data: ")]
    assert events == [
        {"type": "content_block_stop", "index": 1},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "tool_use", "stop_sequence": None},
            "usage": {"output_tokens": 7},
        },
        {"type": "message_stop"},
    ]


def test_what_stands_behind_the_document_is_cut() -> None:
    """However many pieces it came in; what stands before it stays."""
    frames = [wire.text_delta("so: {"), wire.ping(), wire.text_delta("} and"), wire.text_delta(" on")]
    ended = outcome("so: {} and on", "{}")
    assert early_end.surplus(ended) == 7
    kept = early_end.without_surplus(frames, ended, 13)
    assert kept[:2] == frames[:2]
    texts = [json.loads(frame.partition(b"data:")[2])["delta"]["text"] for frame in kept[2:]]
    assert texts == ["}", ""]
    assert early_end.without_surplus(frames, outcome("so: {}", "{}"), 6) is frames
    # One read brought more than was released: the rest of it is in no frame.
    assert early_end.without_surplus(frames[:3], ended, 10)[2] == kept[2]
    content = [{"type": "text", "text": "so: {"}, {"type": "text", "text": "} and on, and more"}]
    message = early_end.closed({"content": content, "usage": {"input_tokens": 4}}, ended)
    assert [block["text"] for block in message["content"]] == ["so: {", "}"]
    assert message["usage"] == {"input_tokens": 4, "output_tokens": 7}
