"""Calls whose last answer is kept and marked, since asking again cannot mend what the source says."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest

import streamguard
from streamguard import Caps, Check, GaveUp, Grounded, JsonDocument, Outcome, Policy, Retry, Rule, Timeouts
from streamguard.errors import CallError, DeadlineExceeded
from streamguard.events import Delta, Stopped
from streamguard.testing import ScriptedServer, answer, pause, script, tool_answer, wire
from tests.clients import plain_client

TOTAL = Check(reason="check.total", that="doc.total == sum(l.amount for l in doc.lines)")
LINE = Check(reason="check.line", at="/lines/*", that="it.amount >= 0", say="line {index} has {it.amount}")
WRONG = json.dumps({"total": 4, "lines": [{"amount": 1}, {"amount": -2}, {"amount": 2.5}], "note": "and so on"})
LINE_AT, TOTAL_AT = WRONG.index("-2}") + 2, WRONG.index("]")
RIGHT = json.dumps({"total": 3.5, "lines": [{"amount": 1}, {"amount": 2.5}], "note": "and so on"})
ONCE_MORE = Rule(when="check.*", max_uses=1, accept="marked")
POLICY = Policy(
    json=JsonDocument(),
    checks=[LINE, TOTAL],
    retry=Retry(attempts=3, rules=[ONCE_MORE, Rule(when=["json.*", "stop.*"])]),
)
REQUEST = {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": "An invoice of Globex: 4"}]}


def source(*texts: str, **fields: Any) -> Any:
    return script(*(answer(text) for text in texts), request={**REQUEST, **fields}, messages=True)


def run(made: Any, policy: Policy = POLICY, **options: Any) -> Outcome:
    """The outcome of `run`; every stream is closed."""

    async def main() -> Outcome:
        return await streamguard.run(made, policy=policy, **options)

    try:
        return anyio.run(main)
    finally:
        assert made.opened == made.closed


def test_a_source_that_is_itself_wrong() -> None:
    """The first answer dies at the wrong line; the second is read to its end, kept, and says everything that is wrong."""
    outcome = run(source(WRONG, WRONG))
    assert (outcome.completed, outcome.value, outcome.text) == ("whole", json.loads(WRONG), WRONG)
    assert [(mark.reason, mark.message) for mark in outcome.marked] == [
        ("check.line", f"line 1 has -2 (at character {LINE_AT}, in /lines/1)"),
        (
            "check.total",
            f"{TOTAL.that} does not hold: doc.total is 4, sum(l.amount for l in doc.lines) is 1.5 (at character {TOTAL_AT}, in /total)",
        ),
    ]
    first, last = outcome.attempts
    assert (first.reason, first.marked, first.completed) == ("check.line", (), None)
    assert (last.reason, last.marked, last.completed) == (None, outcome.marked, "whole")
    assert outcome.reasons == ("check.line",)
    assert last.decision is not None
    assert (last.decision.action, last.decision.rule) == ("accept", 0)
    assert last.decision.why == (
        "retry.rules[0] was used 1 of 1 times; the attempt before failed in the same way, so the source itself may be "
        "wrong; the answer is kept, and marked (accept: marked)"
    )
    assert len(first.text) < len(last.text)


def test_an_answer_that_is_right_has_no_mark() -> None:
    """At the first attempt or at the second."""
    for answers in ((RIGHT,), (WRONG, RIGHT)):
        outcome = run(source(*answers))
        assert (outcome.value, outcome.marked, outcome.attempts[-1].decision) == (json.loads(RIGHT), (), None)


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize("trailing", ["reject", "cut"])
def test_every_way_of_cutting_it(size: int, trailing: Any) -> None:
    """The marks are the same, and the answer is whole, however the stream comes."""
    policy = POLICY.replace(json=JsonDocument(trailing=trailing), retry=Retry(rules=[ONCE_MORE]))
    made = script(answer(WRONG, chunk=size), request=REQUEST, messages=True)
    outcome = run(made, policy)
    assert (outcome.completed, outcome.value) == ("whole", json.loads(WRONG))
    assert [(mark.reason, mark.where and mark.where.char) for mark in outcome.marked] == [
        ("check.line", LINE_AT),
        ("check.total", TOTAL_AT),
    ]


def test_what_is_no_document_is_never_kept() -> None:
    """A later trip of another kind aborts the attempt that has a mark, and what it was marked with is on the record."""
    broken = WRONG[:-1] + "]"
    with pytest.raises(GaveUp) as gave_up:
        run(source(WRONG, broken, broken))
    assert gave_up.value.reason == "json.malformed"
    assert [attempt.reason for attempt in gave_up.value.attempts] == ["check.line", "json.malformed", "json.malformed"]
    assert [[mark.reason for mark in one.marked] for one in gave_up.value.attempts] == [
        [],
        ["check.line", "check.total"],
        ["check.line", "check.total"],
    ]


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        (POLICY.replace(caps=Caps(characters=70)), "cap.characters"),
        (POLICY.replace(timeouts=Timeouts(progress=5)), "timeout.progress"),
        (POLICY.replace(timeouts=Timeouts(total=5)), "timeout.total"),
    ],
)
def test_caps_and_clocks_end_an_attempt_that_has_a_mark(run_virtual, policy: Policy, reason: str) -> None:
    """Nothing is kept that did not come whole."""
    stalled = [*answer(WRONG, chunk=10)[:-5], pause(60), *answer(WRONG, chunk=10)[-5:]]
    answers = [answer(WRONG), answer(WRONG) if reason.startswith("cap") else stalled]

    async def main() -> None:
        with pytest.raises(CallError) as ended:
            await streamguard.run(script(*answers, request=REQUEST), policy=policy)
        assert ended.value.reason == reason
        assert isinstance(ended.value, DeadlineExceeded if reason == "timeout.total" else GaveUp)
        assert [mark.reason for mark in ended.value.attempts[-1].marked] == ["check.line", "check.total"]

    run_virtual(main)


def test_a_check_that_cannot_be_evaluated_is_no_mark() -> None:
    """It has not failed: nobody knows."""
    with pytest.raises(GaveUp) as gave_up:
        run(
            source('{"total": "four", "lines": []}'),
            POLICY.replace(checks=[Check(reason="check.t", that="doc.total + 1 > 0")]),
        )
    assert gave_up.value.reason == "guard.failed"


def test_another_check_may_still_ask_again() -> None:
    """A rule that gives up, or has uses left, ends an attempt that another rule would keep."""
    rules = [Rule(when="check.line", max_uses=0, accept="marked"), Rule(when="check.total")]
    outcome = run(source(WRONG, WRONG, RIGHT), POLICY.replace(retry=Retry(attempts=3, rules=rules)))
    assert (outcome.reasons, outcome.marked) == (("check.total", "check.total"), ())
    assert [mark.reason for mark in outcome.attempts[1].marked] == ["check.line"]


def test_output_that_was_delivered_is_kept() -> None:
    """`deliver: live` cannot begin again unseen, so the answer goes on and its outcome is marked."""

    async def main() -> tuple[str, Outcome]:
        policy = POLICY.replace(deliver="live")
        async with streamguard.stream(script(answer(WRONG), request=REQUEST), policy=policy) as events:
            text = "".join([event.text async for event in events if type(event) is Delta])
            return text, events.result()

    text, outcome = anyio.run(main)
    assert (text, len(outcome.attempts)) == (WRONG, 1)
    assert [mark.reason for mark in outcome.marked] == ["check.line", "check.total"]


def test_a_consumer_gets_every_event_of_a_marked_answer() -> None:
    """Committed output is the whole answer, up to its end."""

    async def main() -> list[Any]:
        made = script(answer(WRONG), answer(WRONG), request=REQUEST)
        async with streamguard.stream(made, policy=POLICY) as events:
            return [event async for event in events]

    found = anyio.run(main)
    assert "".join(event.text for event in found if type(event) is Delta) == WRONG
    assert isinstance(found[-1], Stopped)


@pytest.mark.parametrize("size", [1, 4, 1000])
def test_values_that_stand_nowhere(size: int) -> None:
    """The attempt after which none is left is read to its end; the first such value is the mark."""
    text = json.dumps({"supplier": "Globex", "buyer": "Initech Ltd", "total": 4})
    policy = Policy(
        json=JsonDocument(
            grounded=[Grounded(at="/supplier"), Grounded(at="/buyer"), Grounded(at="/total", as_="number")]
        ),
        retry=Retry(attempts=2, rules=[Rule(when="json.ungrounded", accept="marked"), Rule(when="json.*")]),
    )
    pieces = answer(text, chunk=size)
    made = script(pieces, pieces, request=REQUEST, messages=True)
    outcome = run(made, policy)
    assert (outcome.completed, outcome.value, outcome.reasons) == ("whole", json.loads(text), ("json.ungrounded",))
    [mark] = outcome.marked
    assert (mark.reason, mark.guard, mark.where and mark.where.pointer) == ("json.ungrounded", "json", "/buyer")
    dead = outcome.attempts[0].ended
    assert isinstance(dead, streamguard.Trip)
    assert (dead.message, dead.where and dead.where.char) == (mark.message, mark.where and mark.where.char)


@pytest.mark.parametrize("mode", ["entry", "section", "policy"])
def test_what_only_observes_marks_nothing(mode: str) -> None:
    """It is on the record as observed, at the first attempt."""
    entry = Grounded(at="/a", mode="observe" if mode == "entry" else None)
    section = JsonDocument(grounded=[entry], mode="observe" if mode == "section" else None)
    policy = Policy(
        json=section,
        checks=[Check(reason="check.a", that="doc.a == 1", mode="observe")],
        mode="observe" if mode == "policy" else "enforce",
        retry=Retry(rules=[Rule(when=["json.ungrounded", "check.*"], accept="marked")]),
    )
    outcome = run(source('{"a": "Hooli"}'), policy)
    assert (outcome.marked, len(outcome.attempts)) == ((), 1)
    assert sorted(seen.trip.reason for seen in outcome.attempts[0].observed) == ["check.a", "json.ungrounded"]


def test_inputs_of_tools() -> None:
    """Checks and grounded values of a tool's input are marks, too."""
    policy = Policy(
        json=JsonDocument(where="tool:book", grounded=[Grounded(at="/from")]),
        checks=[Check(reason="check.total", that="doc.total > 9")],
        completion=streamguard.Completion(accept=["tool_use"]),
        retry=Retry(rules=[Rule(when=["json.ungrounded", "check.*"], accept="marked")]),
    )
    tools = [{"name": "book", "input_schema": {"type": "object"}}]
    made = script(
        tool_answer("book", '{"from": "Hooli", "total": 4}'), request={**REQUEST, "tools": tools}, messages=True
    )
    outcome = run(made, policy)
    assert outcome.value == {"from": "Hooli", "total": 4}
    assert {mark.reason for mark in outcome.marked} == {"json.ungrounded", "check.total"}


def test_a_stream_that_is_open_already() -> None:
    """It has one attempt: what the policy would keep in the end is kept, and nothing else."""

    async def main(text: str) -> Outcome:
        async with ScriptedServer(wire.text_stream(text)) as server, plain_client(server.url) as client:
            raw = await client.messages.create(**REQUEST, stream=True)
            async with streamguard.guarded(raw, policy=POLICY) as events:
                async for _ in events:
                    pass
                return events.result()

    assert [mark.reason for mark in anyio.run(main, WRONG).marked] == ["check.line", "check.total"]
    with pytest.raises(GaveUp, match=r"json\.malformed"):
        anyio.run(main, WRONG.replace(":", ";"))


@pytest.mark.parametrize("asynchronous", [False, True])
def test_checks_that_are_functions(asynchronous: bool) -> None:
    """Plain or async, with a reason of the house's own; one that raises is no mark."""

    def judge(total: Any) -> bool:
        return bool(total < 4)

    async def judge_later(total: Any) -> bool:
        await anyio.lowlevel.checkpoint()
        return judge(total)

    checked = streamguard.check(needs=["/total"], reason="house.total")(judge_later if asynchronous else judge)
    rules = [Rule(when="house.*", max_uses=1, accept="marked")]
    policy = Policy(json=JsonDocument(), checks=[checked], retry=Retry(attempts=2, rules=rules))
    outcome = run(source(WRONG, WRONG), policy)
    assert (outcome.completed, outcome.value, outcome.reasons) == ("whole", json.loads(WRONG), ("house.total",))
    assert [mark.reason for mark in outcome.marked] == ["house.total"]
    with pytest.raises(GaveUp) as gave_up:
        run(source('{"total": []}'), policy)
    assert gave_up.value.reason == "guard.failed"
