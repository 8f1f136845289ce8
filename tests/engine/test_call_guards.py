"""One call: its guards and caps, and guards and sources that raise. In virtual time, on both backends."""

from __future__ import annotations

import contextlib
from decimal import Decimal

import anyio
import pytest

import streamguard
from streamguard import (
    Caps,
    DeadlineExceeded,
    GaveUp,
    JsonDocument,
    Policy,
    PolicyError,
    Retry,
    Rule,
    Runtime,
    Timeouts,
)
from streamguard.events import (
    BlockStarted,
    BlockStopped,
    Delta,
    Failed,
    Stopped,
)
from streamguard.guards.base import BaseWatch
from streamguard.guards.content import Content
from streamguard.guards.custom import View
from streamguard.testing.clock import run_virtual
from streamguard.testing.scripted import answer, script
from streamguard.testing.steps import pause, stall
from streamguard.verdict import Enough
from tests.engine.calls import AGAIN, BAD, GOOD, JSON, deltas, gave_up, head, outcome, tail


def test_async_guards(virtual) -> None:
    """An async guard is awaited before delivery; its time is not the provider's; what it raises is a trip."""

    @streamguard.guard(reason="house.forbidden", every="delta")
    async def check(view):
        await anyio.sleep(30)
        return "no b here" if "b" in view.text else None

    @streamguard.guard(reason="house.broken", every="block")
    async def broken(view):
        raise LookupError("the moderation service is away")

    async def main() -> None:
        timeouts = Timeouts(progress=5, alive=5, first_token=5)
        attempt = [*head(), *deltas("aaab", 1), *tail()]
        seen = []
        with pytest.raises(GaveUp, match=r"house\.forbidden: no b here"):
            async with streamguard.stream(
                script(attempt, chunk="event"), policy=Policy(guards=[check], timeouts=timeouts, deliver="live")
            ) as events:
                async for event in events:
                    seen.append(event)
        assert [event.text for event in seen if isinstance(event, Delta)] == ["a", "a", "a"]
        error = await gave_up(script(attempt), Policy(guards=[broken]))
        assert error.reason == "guard.failed"
        assert "LookupError: the moderation service is away" in str(error)
        late = await gave_up(script(attempt), Policy(guards=[check], timeouts=Timeouts(total=10)), DeadlineExceeded)
        assert late.record.seconds == pytest.approx(10, abs=0.01)

    virtual(main)


def test_caps_and_cost(virtual) -> None:
    """A cost cap trips mid-stream on an estimate that says so, with own prices from the policy."""

    async def main() -> None:
        prices = {"m": {"input": "1.00", "output": "1000.00"}}
        policy = Policy(caps=Caps(cost_usd=Decimal("0.02")), prices=prices)
        source = script(
            [*head(), *deltas("word " * 500), *tail()], request={"model": "m", "max_tokens": 4096, "messages": []}
        )
        error = await gave_up(source, policy)
        (attempt,) = error.attempts
        assert (error.reason, attempt.ended.estimated) == ("cap.cost", True)
        assert attempt.cost.low is not None
        assert attempt.cost.low < attempt.cost.high

    virtual(main)


def test_saved_tokens_need_experience(virtual) -> None:
    """How much an abort saved is estimated from completed answers of the same runtime, and None before there are any."""

    async def main() -> None:
        runtime = Runtime()
        policy = Policy(json=JSON)
        bad = script([*head(), *deltas(BAD), *tail()], chunk="event")
        assert (await gave_up(bad, policy, runtime=runtime)).attempts[0].saved_tokens is None
        await outcome(script([*head(), *deltas(GOOD), *tail(tokens=100)]), policy, runtime=runtime)
        again = script([*head(), *deltas(BAD), *tail()], chunk="event")
        assert 50 < (await gave_up(again, policy, runtime=runtime)).attempts[0].saved_tokens < 100

    virtual(main)


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (Policy(timeouts=Timeouts(alive=30)), "timeouts.alive: this source does not show pings"),
        (Policy(retry=Retry(attempts=2, rules=[Rule(when=["*"], patch={"model": "x"})])), r"retry.rules\[0\].patch needs a source that shows its request"),
        (Policy(json=JsonDocument(schema="request")), "json.schema: request needs a source that shows its request"),
    ],
)  # fmt: skip
def test_opaque_sources(virtual, policy, message) -> None:
    """What a source cannot give is refused at entry, before anything is sent."""

    async def main() -> None:
        source = script([*head(), *tail()], request=None, sees_bytes=False)
        with pytest.raises(PolicyError, match=message):
            await streamguard.run(source, policy=policy)
        assert source.opened == 0

    virtual(main)


def test_hooks(virtual) -> None:
    """Every step of a call is a record with the call's labels; a hook that raises changes nothing."""
    records = []

    def angry(record) -> None:
        raise RuntimeError("hook")

    async def main() -> None:
        runtime = Runtime(hooks=[angry, records.append])
        source = script([*head(), *deltas(BAD), *tail()], [*head(), *deltas(GOOD), *tail()])
        await outcome(source, Policy(json=JSON, retry=AGAIN), runtime=runtime, labels={"doc": 7}, group="g")

    virtual(main)
    names = [type(record).__name__ for record in records]
    assert names == ["AttemptStarted", "AttemptAborted", "RetryScheduled", "AttemptStarted", "CallCompleted"]
    assert {(record.labels["doc"], record.group) for record in records} == {(7, "g")}
    assert len({record.call for record in records}) == 1


def test_answer_helper(virtual) -> None:
    """The kit's own good answer is good."""

    async def main() -> None:
        assert (await outcome(script(answer(GOOD)), Policy(json=JSON))).value["total"] == 12

    virtual(main)


@pytest.mark.parametrize(
    ("after", "grace", "seconds", "exact", "completed"),
    [
        (tail(), 0, 0.0, True, "whole"),
        ([pause(0.05), *tail()], 0, 0.05, True, "whole"),
        ([[Delta(0, "text", " \n")], *tail()], 0, 0.0, True, "whole"),
        ([step for end in tail() for step in (pause(0.12), end)], 2, 0.36, True, "whole"),
        ([step for end in tail() for step in (pause(0.12), end)], 0, 0.1, False, "cut"),
        (tail("max_tokens"), 2, 0.0, True, "cut"),
        ([stall()], 0, 0.1, False, "cut"),
        ([stall()], 2, 2.0, False, "cut"),
        ([pause(0.01), *deltas("and so on"), pause(5), *tail()], 2, 0.01, False, "cut"),
        ([[Delta(0, "text", " }")], pause(0.09), *tail()], 2, 0.0, False, "cut"),
        ([[BlockStopped(0)], pause(0.01), [BlockStarted(1, "text")], pause(5), *tail()], 2, 0.01, False, "cut"),
        ([pause(0.01), Failed(reason="transport.reset", message="gone")], 2, 0.01, False, "cut"),
        ([*tail(), Failed(reason="transport.reset", message="gone")], 2, 0.0, True, "whole"),
        ([*tail(), *deltas("more")], 2, 0.0, True, "whole"),
    ],
    ids=[
        *("its end", "its end, soon", "blanks", "slow frames", "slow frames, no grace", "another stop reason"),
        *("nothing", "nothing, with grace", "more text", "a brace", "another block", "a reset", "a reset at last"),
        "text after the end",
    ],
)
@pytest.mark.parametrize("deliver", ["committed", "live"])
def test_the_end_right_behind_a_document_is_heard(
    virtual, after, grace: float, seconds: float, exact: bool, completed: str, deliver
) -> None:
    """After a document that closed the provider's own end is waited for as long as nothing more is written; an answer
    that ends there is whole, with all its events."""

    async def main() -> None:
        source = script([*head(), *deltas(GOOD), *after], chunk="event")
        policy = Policy(json=JsonDocument(trailing="cut"), timeouts=Timeouts(close_grace=grace), deliver=deliver)
        async with streamguard.stream(source, policy=policy) as events:
            kinds = [type(event) async for event in events]
        result = events.outcome
        assert (result.completed, result.usage.exact, result.value["total"]) == (completed, exact, 12)
        assert (kinds[-1] is Stopped) == (completed == "whole")
        assert result.seconds == pytest.approx(seconds, abs=1e-6)

    virtual(main)


@pytest.mark.parametrize("padding", [0, 6, 40, 100])
@pytest.mark.parametrize("kind", ["pattern", "block", "async"])
@pytest.mark.parametrize("early", ["cut", "enough"])
@pytest.mark.parametrize("mode", ["enforce", "observe"])
def test_who_waited_for_more_text_judges_before_an_answer_is_cut(padding: int, kind: str, early: str, mode) -> None:
    """Where a document ends the answer, text that was gathered for a later look is looked at, or would pass unseen."""

    def forbids(view: View) -> str | None:
        return "found" if "FORBIDDEN" in view.text else None

    async def asks(view: View) -> str | None:
        return forbids(view)

    content, guards = (), ()
    if kind == "pattern":
        content = (Content(reason="content.found", pattern="FORBIDDEN", mode=mode),)
    else:
        own = streamguard.guard(reason="content.found", every="block", mode=mode)(asks if kind == "async" else forbids)
        guards = (own,)
    json = JsonDocument(trailing="cut") if early == "cut" else JsonDocument(enough_when=["/note"])
    policy = Policy(json=json, content=content, guards=guards)

    async def main() -> None:
        text = '{"note": "' + "x" * padding + 'FORBIDDEN"}'
        source = script([*head(), *deltas(text + ' {"more": 1}', 3), *tail()], chunk="event")
        if mode == "enforce":
            assert (await gave_up(source, policy)).reason == "content.found"
        else:
            result = await outcome(source, policy)
            assert (result.completed, [seen.trip.reason for seen in result.attempts[0].observed]) == (
                early,
                ["content.found"],
            )

    run_virtual(main)


def test_an_observing_check_never_ends_an_answer() -> None:
    """What an asynchronous guard in `mode: observe` has enough of is not acted on."""

    @streamguard.guard(reason="house.enough", mode="observe")
    async def enough(view: View) -> Enough:
        return Enough("enough", len(view.text))

    async def main() -> None:
        result = await outcome(script(answer(GOOD)), Policy(json=JSON, guards=[enough]))
        assert (result.completed, result.text) == ("whole", GOOD)

    run_virtual(main)


class Broken:
    """A guard of one's own that raises where it should judge."""

    def __init__(self, at: str, mode: str | None = None) -> None:
        self.name, self.at, self.mode = "broken", at, mode

    def watch(self, ctx: object, now: float) -> BaseWatch:
        if self.at == "watch":
            raise KeyError("limit")
        watch = BaseWatch()
        watch.wants = (Delta,)

        def feed(event: object, now: float) -> None:
            raise KeyError("limit")

        watch.feed = feed  # type: ignore[method-assign]
        return watch


def test_a_guard_that_raises_is_a_typed_error() -> None:
    """A guard of one's own that raises ends the call like any other trip; one that only observes is recorded."""

    async def main() -> None:
        error = await gave_up(script(answer(GOOD)), Policy(guards=[Broken("feed")]))
        assert (error.reason, "KeyError: 'limit'" in str(error)) == ("guard.failed", True)
        result = await outcome(script(answer(GOOD)), Policy(guards=[Broken("feed", "observe")]))
        assert (result.completed, [seen.trip.reason for seen in result.attempts[0].observed]) == (
            "whole",
            ["guard.failed"],
        )
        with pytest.raises(PolicyError, match=r"guard broken cannot begin: its watch\(\) raised KeyError: 'limit'"):
            await streamguard.run(script(answer(GOOD)), policy=Policy(guards=[Broken("watch")]))

    run_virtual(main)


@pytest.mark.parametrize("at", ["open", "message"])
def test_a_source_that_raises_is_a_typed_error(at: str) -> None:
    """Whatever a source of one's own raises, and wherever, the call ends in one error that has its attempts."""

    class Raises:
        request, sees_bytes = None, True

        def __init__(self) -> None:
            self.inner = script(answer(GOOD))

        def open(self, attempt):
            if at == "open":
                raise LookupError("mine")
            return self.opened(attempt)

        @contextlib.asynccontextmanager
        async def opened(self, attempt):
            async with self.inner.open(attempt) as stream:
                yield Stream(stream)

    class Stream:
        def __init__(self, stream) -> None:
            self.stream = stream

        def __aiter__(self):
            return aiter(self.stream)

        def message(self):
            raise LookupError("mine")

    async def main() -> None:
        with pytest.raises(GaveUp) as caught:
            await streamguard.run(Raises(), policy=Policy())
        error = caught.value
        assert (error.reason, len(error.attempts)) == ("source.error", 1)
        assert "the source raised LookupError: mine" in str(error)

    run_virtual(main)


def test_what_others_raise_is_told_without_keys(virtual) -> None:
    """The text of an exception of somebody else's code may hold a credential; records and errors do not."""

    async def main() -> None:
        key = "sk-ant-" + "x" * 20

        @streamguard.guard(reason="house.check")
        def check(view):
            raise ValueError(f"api_key={key}")

        source = [*head(), *deltas("x"), RuntimeError(f"Bearer {key}")]
        for error in (
            await gave_up(script(source), Policy()),
            await gave_up(script([*head(), *deltas(GOOD), *tail()]), Policy(guards=[check])),
        ):
            assert key not in f"{error} {error.record}"
            assert "[redacted]" in str(error)

    virtual(main)
