"""Records for hooks: the whole story of a call, frozen, in order; hooks that fail change nothing."""

from __future__ import annotations

import logging
from typing import Any

import anyio
import pytest

import streamguard
from streamguard import (
    CallError,
    JsonDocument,
    Outcome,
    Policy,
    Retry,
    Rule,
    Runtime,
    Timeouts,
)
from streamguard.engine.telemetry import (
    AttemptAborted,
    AttemptStarted,
    BudgetDenied,
    CallCompleted,
    CallGaveUp,
    Record,
    RetryScheduled,
    emit,
    without_content,
)
from streamguard.events import Failed
from streamguard.outcome import CallRecord
from streamguard.testing import answer, pause, script, stall
from streamguard.usage import UsageRange

GOOD, BAD = '{"total": 12}', '{"total" 12}'
BUSY = Failed(reason="provider.overloaded", message="busy", status=529, billable=False)
POLICY = Policy(
    json=JsonDocument(),
    retry=Retry(
        attempts=3,
        rules=[Rule(when=["provider.*"], wait=4), Rule(when=["json.*"], patch={"temperature": 0.5})],
    ),
)


async def story(source: Any, policy: Policy, **options: Any) -> tuple[Outcome | CallError, list[Record]]:
    """A call's end, and what its hook was told."""
    records: list[Record] = []
    try:
        end: Outcome | CallError = await streamguard.run(
            source, policy=policy, runtime=Runtime(hooks=[records.append]), **options
        )
    except CallError as error:
        end = error
    return end, records


def test_a_story_of_retries(run_virtual) -> None:
    """Each attempt's start, end and sequel, with the very records and decisions that the outcome has."""

    async def main() -> None:
        source = script([BUSY], [pause(2), *answer(BAD)], answer(GOOD))
        outcome, records = await story(source, POLICY, labels={"doc": 7}, group="g")
        assert isinstance(outcome, Outcome)
        first, second, third = outcome.attempts
        about = {"call": records[0].call, "labels": {"doc": 7}, "group": "g"}
        model = source.request.model
        assert records == [
            AttemptStarted(attempt=1, model=model, **about),
            AttemptAborted(attempt=first, **about),
            RetryScheduled(attempt=2, decision=first.decision, **about),
            AttemptStarted(attempt=2, model=model, **about),
            AttemptAborted(attempt=second, **about),
            RetryScheduled(attempt=3, decision=second.decision, **about),
            AttemptStarted(attempt=3, model=model, **about),
            CallCompleted(outcome=outcome, **about),
        ]
        assert [(one.decision.wait, one.decision.rule) for one in (first, second)] == [(4, 0), (0, 1)]
        assert (second.patch, third.patch) == (None, {"temperature": 0.5})
        assert (outcome.seconds, third.completed) == (pytest.approx(6, abs=0.01), "whole")

    run_virtual(main)


@pytest.mark.parametrize(
    ("source", "timeouts", "reason"),
    [
        (lambda: script([BUSY]), Timeouts(), "provider.overloaded"),
        (lambda: script([stall()]), Timeouts(total=3, first_token=None, connect=None, alive=None), "timeout.total"),
    ],
)
def test_giving_up_is_told_once(run_virtual, source, timeouts, reason) -> None:
    """The last record of a call without an outcome says what the error says."""

    async def main() -> None:
        error, records = await story(source(), Policy(timeouts=timeouts))
        assert isinstance(error, CallError)
        *_, last = records
        assert [type(record) for record in records] == [AttemptStarted, AttemptAborted, CallGaveUp]
        assert last == CallGaveUp(call=records[0].call, reason=reason, message=str(error), record=error.record)

    run_virtual(main)


def test_calls_are_told_apart(run_virtual) -> None:
    """Every call has an id of its own, the same in all its records."""

    async def main() -> None:
        stories = [await story(script([BUSY], answer(GOOD)), POLICY) for _ in range(3)]
        ids = [{record.call for record in records} for _, records in stories]
        assert [len(one) for one in ids] == [1, 1, 1]
        assert len(set().union(*ids)) == 3

    run_virtual(main)


def test_hooks_that_fail_change_nothing(run_virtual, caplog: pytest.LogCaptureFixture) -> None:
    """A hook that raises is logged by name, the others are called all the same, and the result is the same."""

    def angry(record: Record) -> None:
        raise LookupError("the collector is away")

    async def main() -> None:
        quiet, told = await story(script([BUSY], answer(GOOD)), POLICY)
        records: list[Record] = []
        runtime = Runtime(hooks=[angry, records.append, angry])
        loud = await streamguard.run(script([BUSY], answer(GOOD)), policy=POLICY, runtime=runtime)
        assert [type(record) for record in records] == [type(record) for record in told]
        assert (loud.value, loud.text, loud.usage, loud.reasons) == (
            quiet.value,
            quiet.text,
            quiet.usage,
            quiet.reasons,
        )

    with caplog.at_level(logging.ERROR, logger="streamguard"):
        run_virtual(main)
    assert len(caplog.records) == 2 * 5
    assert "angry" in caplog.records[0].message
    assert caplog.records[0].message.endswith("failed on a AttemptStarted")


def test_what_ends_the_process_is_not_held_back() -> None:
    """Only errors of a hook are caught: control-C in one goes through."""

    def interrupted(record: Record) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        emit([interrupted], AttemptStarted(call="c", attempt=1, model=None))


@pytest.mark.parametrize(
    "record",
    [
        AttemptStarted(call="c", attempt=1, model="m"),
        CallGaveUp(call="c", reason="json.malformed", message="…", record=CallRecord(usage=UsageRange.nothing())),
        BudgetDenied(call="c", scope="s", asked=1, available=None, unit="tokens"),
    ],
)
def test_records_are_frozen(record: Record) -> None:
    """What one hook gets another hook gets too: nobody can write in it."""
    with pytest.raises(AttributeError, match="immutable"):
        record.call = "other"  # type: ignore[misc]
    assert (record.labels, record.group) == ({}, None)


def test_a_record_can_be_had_without_what_the_answer_said() -> None:
    """`without_content` leaves reasons, counts and times, and nothing that the model wrote."""
    secret = "4711-secret"
    seen: list[Any] = []
    policy = Policy(
        json=JsonDocument(),
        retry=Retry(attempts=2, rules=[Rule(when="json.*")]),
    )
    source = script(answer(f'{{"{secret}": {secret}'), answer(f'{{"{secret}": "{secret}"}}'))
    anyio.run(lambda: streamguard.run(source, policy=policy, runtime=Runtime(hooks=[seen.append])))
    anyio.run(_given_up, script(answer(f'{{"{secret}": {secret}')), Runtime(hooks=[seen.append]))
    assert {type(record) for record in seen} >= {AttemptAborted, CallCompleted, CallGaveUp}
    assert secret in repr([record for record in seen if type(record) is CallCompleted])
    assert [record for record in map(without_content, seen) if secret in repr(record)] == []


async def _given_up(source: Any, runtime: Runtime) -> None:
    with pytest.raises(CallError):
        await streamguard.run(source, policy=Policy(json=JsonDocument()), runtime=runtime)
