"""Records as structlog events: names, levels and fields, and no content."""

from __future__ import annotations

import json
from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest
import structlog

import streamguard
from streamguard import CallError, Completion, Content, JsonDocument, Policy, Retry, Rule, Runtime, Timeouts
from streamguard.engine.telemetry import AttemptStarted, BudgetDenied, Record
from streamguard.engine.telemetry_structlog import structlog_hook
from streamguard.events import Failed
from streamguard.testing import answer, pause, script

GOOD, BAD = '{"total": 12}', '{"total" 12}'
BUSY = Failed(
    reason="provider.overloaded", message="busy", status=529, billable=False, request_id="req_1", retry_after=3.0
)
SPENT = ("output_tokens_low", "output_tokens_high", "cost_micro_usd_high")
"""Estimates, of which other tests know what is right."""
PRICES = {"claude-sonnet-5-5": {"input": "3.00", "output": "15.00"}}


def captured(**options: Any) -> tuple[Any, list[dict[str, Any]]]:
    """A hook, and the events it logs."""
    entries: list[dict[str, Any]] = []

    def keep(logger: Any, method: str, event: dict[str, Any]) -> Any:
        entries.append({"level": method, **event})
        raise structlog.DropEvent

    return structlog_hook(structlog.wrap_logger(None, processors=[keep]), **options), entries


async def logged(source: Any, policy: Policy, *, content: bool = False, **about: Any) -> list[dict[str, Any]]:
    """What a call logs, without its id."""
    hook, entries = captured(content=content)
    with suppress(CallError):
        await streamguard.run(source, policy=policy, runtime=Runtime(hooks=[hook]), **about)
    assert len({entry.pop("call") for entry in entries}) == 1
    return entries


def test_a_story_of_retries(run_virtual) -> None:
    """Every event of a call that succeeds in the end, whole."""

    async def main() -> None:
        rules = [Rule(when=["provider.*"], respect_retry_after=True), Rule(when=["json.*"])]
        policy = Policy(json=JsonDocument(), retry=Retry(attempts=3, rules=rules), prices=PRICES)
        source = script([BUSY], [pause(2), *answer(BAD)], answer(GOOD), chunk="event")
        about = {"group": "g", "doc": 7}
        entries = await logged(source, policy, labels={"doc": 7}, group="g")
        spent = {name: entries[-1].pop(name) for name in SPENT}
        assert entries == [
            {"level": "info", "event": "streamguard.attempt_started", **about, "attempt": 1, "model": "claude-sonnet-5-5"},
            {"level": "warning", "event": "streamguard.attempt_aborted", **about, "attempt": 1,
             "reason": "provider.overloaded", "status": 529, "request_id": "req_1", "seconds": 0.0},
            {"level": "info", "event": "streamguard.retry_scheduled", **about, "attempt": 2,
             "reason": "provider.overloaded", "rule": 0, "wait": 3.0},
            {"level": "info", "event": "streamguard.attempt_started", **about, "attempt": 2, "model": "claude-sonnet-5-5"},
            {"level": "warning", "event": "streamguard.attempt_aborted", **about, "attempt": 2, "reason": "json.malformed",
             "knob": "json", "request_id": "msg_scripted", "offset": 9, "keyword": "malformed", "seconds": 2.0},
            {"level": "info", "event": "streamguard.retry_scheduled", **about, "attempt": 3,
             "reason": "json.malformed", "rule": 1, "wait": 0.0},
            {"level": "info", "event": "streamguard.attempt_started", **about, "attempt": 3, "model": "claude-sonnet-5-5"},
            {"level": "info", "event": "streamguard.completed", **about, "completed": "whole", "attempts": 3,
             "reasons": ["provider.overloaded", "json.malformed"], "seconds": 5.0},
        ]  # fmt: skip
        assert 4 <= spent["output_tokens_low"] <= spent["output_tokens_high"]
        assert spent["cost_micro_usd_high"] >= 15 * spent["output_tokens_low"]

    run_virtual(main)


def test_giving_up(run_virtual) -> None:
    """A clock's trip with its knob and limit, and the call's end."""

    async def main() -> None:
        entries = await logged(
            script([*answer(GOOD)[:2], pause(99)]), Policy(timeouts=Timeouts(first_token=5, first_token_per_1k_input=0))
        )
        assert entries[1:] == [
            {"level": "warning", "event": "streamguard.attempt_aborted", "attempt": 1, "reason": "timeout.first_token",
             "knob": "timeouts.first_token", "limit": 5.0, "request_id": "msg_scripted", "seconds": 5.0},
            {"level": "error", "event": "streamguard.gave_up", "reason": "timeout.first_token", "attempts": 1,
             "reasons": ["timeout.first_token"], "seconds": 5.0,
             **{name: entries[-1][name] for name in SPENT}},
        ]  # fmt: skip

    run_virtual(main)


def test_what_was_only_observed(run_virtual) -> None:
    """Trips of observing guards stand on the event of the answer that came through all the same."""

    async def main() -> None:
        entries = await logged(script(answer(BAD)), Policy(mode="observe", json=JsonDocument()))
        assert [entry["event"] for entry in entries] == ["streamguard.attempt_started", "streamguard.completed"]
        assert entries[-1]["observed"] == ["json.malformed"]
        assert "completed" not in entries[-1]

    run_virtual(main)


def test_a_denied_budget() -> None:
    """What was asked and what there was, in which unit."""
    hook, entries = captured()
    hook(BudgetDenied(call="c", scope="nightly", asked=900, available=120, unit="micro_usd", labels={"tenant": "a"}))
    assert entries == [
        {
            "level": "warning",
            "event": "streamguard.budget_denied",
            "call": "c",
            "tenant": "a",
            "scope": "nightly",
            "asked": 900,
            "available": 120,
            "unit": "micro_usd",
        }
    ]


def test_labels_keep_out_of_each_other_s_way() -> None:
    """A label whose name is taken, by a field or by structlog, is there under another; values stay what they are."""
    hook, entries = captured()
    labels = {"attempt": "mine", "event": "e", "exc_info": True, "call": 1, "group": 2, "cost": Decimal("1.5")}
    hook(AttemptStarted(call="c", attempt=1, model="m", labels=labels))
    assert entries == [
        {
            "level": "info",
            "event": "streamguard.attempt_started",
            "call": "c",
            "attempt": 1,
            "model": "m",
            "label_attempt": "mine",
            "label_event": "e",
            "label_exc_info": True,
            "label_call": 1,
            "label_group": 2,
            "cost": Decimal("1.5"),
        }
    ]


CANARY = "xyzzyplugh"
SCHEMA = {"type": "object", "additionalProperties": {"type": "object", "additionalProperties": {"type": "integer"}}}
LEAKS: dict[str, tuple[str, Policy]] = {
    "a name that the model chose": ('{"%s": {"%s": "no"}}', Policy(json=JsonDocument(schema=SCHEMA))),
    "text instead of JSON": ("%s", Policy(json=JsonDocument())),
    "a name twice": ('{"%s": 1, "%s": 2}', Policy(json=JsonDocument())),
    "a literal": ('{"a": %s}', Policy(json=JsonDocument())),
    "a forbidden pattern": ("so: %s", Policy(content=[Content(reason="content.magic", pattern="[xyz]{5}")])),
    "a refusal": ("%s", Policy(completion=Completion(accept=("tool_use",)))),
    "an accepted answer": ("%s", Policy()),
    "an observed trip": ("%s", Policy(mode="observe", json=JsonDocument())),
}


@pytest.mark.parametrize("name", LEAKS)
def test_no_content(run_virtual, name: str) -> None:
    """Nothing that the model said is logged, whatever trips; on demand the trip's message and pointer are."""
    text, policy = LEAKS[name]
    said = text.replace("%s", CANARY)

    async def main() -> None:
        policy_ = policy.model_copy(update={"retry": Retry(attempts=2, rules=[Rule(when=["*"])])})
        entries = await logged(script(answer(said, chunk=7)), policy_)
        assert entries[-1]["event"] in ("streamguard.gave_up", "streamguard.completed")
        shown = json.dumps(entries, default=repr)
        assert not [piece for piece in (CANARY, CANARY[:5], CANARY[-5:]) if piece in shown]
        loud = await logged(script(answer(said, chunk=7)), policy_, content=True)
        aborted = [entry for entry in loud if entry["event"] == "streamguard.attempt_aborted"]
        assert all(entry["message"] for entry in aborted)
        if name == "a name that the model chose":
            assert [entry["pointer"] for entry in aborted] == [f"/{CANARY}/{CANARY}"] * 2

    run_virtual(main)


def test_a_record_it_has_no_words_for_is_left_out() -> None:
    """Records yet to be invented do not break a logger of today."""

    class Later(Record, frozen=True, kw_only=True):
        pass

    hook, entries = captured()
    hook(Later(call="c"))
    assert entries == []


def test_the_default_logger() -> None:
    """Without a logger of the caller's it is structlog's own, as configured."""
    with structlog.testing.capture_logs() as entries:
        structlog_hook()(AttemptStarted(call="c", attempt=1, model=None))
    assert entries == [{"event": "streamguard.attempt_started", "log_level": "info", "call": "c", "attempt": 1}]
