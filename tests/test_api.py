"""The doors: what `run`, `stream` and `guarded` take, refuse and give, and that none returns late."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import anthropic
import anyio
import pytest

import streamguard
from streamguard import (
    ConfigError,
    GaveUp,
    Interrupted,
    JsonDocument,
    Policy,
    PolicyError,
    Retry,
    Rule,
    Timeouts,
)
from streamguard.events import BlockStarted, Delta, Ping, Started, Stopped
from streamguard.testing import ScriptedServer, answer, pause, script, stall, status, wire
from tests.api_calls import AGAIN, BAD, BROKEN, JSON, REQUEST, TEXT, opened
from tests.clients import plain_client

# run and stream


def test_a_door_s_deliver_goes_before_the_policy_s(run_virtual) -> None:
    """`stream(deliver=…)` decides for this call; without it the policy does."""

    async def first(**options: Any) -> list[str]:
        source = script([*answer(TEXT)[:3], pause(5), *answer(TEXT)[3:]])
        async with streamguard.stream(source, **options) as events:
            await anext(events)
            return [f"{anyio.current_time() - began:g}", str(events.outcome is not None)]

    async def main() -> None:
        nonlocal began
        seen = {}
        for name, options in {
            "committed": {"policy": Policy()},
            "live": {"policy": Policy(), "deliver": "live"},
            "policy": {"policy": Policy(deliver="live")},
            "back": {"policy": Policy(deliver="live"), "deliver": "committed"},
        }.items():
            began = anyio.current_time()
            seen[name] = await first(**options)
        assert seen == {
            "committed": ["5", "True"],
            "live": ["0", "False"],
            "policy": ["0", "False"],
            "back": ["5", "True"],
        }

    began = 0.0
    run_virtual(main)


def test_batches(run_virtual) -> None:
    """`batch()` gives all that is ready, the rest of a batch that was begun one by one, and None at the end."""

    async def main() -> None:
        good = answer(TEXT, chunk=4)
        async with streamguard.stream(script(good, chunk="whole"), policy=Policy(deliver="live")) as events:
            assert await anext(events) == good[0]
            assert await events.batch() == good[1:]
            assert await events.batch() is None
        async with streamguard.stream(script(good, chunk="event"), policy=Policy(deliver="live")) as events:
            sizes = []
            while (batch := await events.batch()) is not None:
                sizes.append(len(batch))
            assert sizes == [3, *[1] * (len(good) - 3)]  # what precedes the first output waits for it

    run_virtual(main)


def test_the_record_of_a_call_that_runs_or_was_left(run_virtual) -> None:
    """A call can be looked at while it runs; one that was left has its attempts, and claims nothing for the last."""

    async def main() -> None:
        source = script([BROKEN], answer(TEXT), chunk="event")
        policy = Policy(retry=AGAIN, deliver="live")
        async with streamguard.stream(source, policy=policy, labels={"doc": 7}, group="g") as events:
            assert (events.record.attempts, events.record.usage.exact) == ((), True)
            await anext(events)
            assert events.record.reasons == ("provider.overloaded",)
            await anext(events)
            await anext(events)
        record = events.record
        assert [(attempt.reason, attempt.completed) for attempt in record.attempts] == [
            ("provider.overloaded", None),
            (None, None),
        ]
        assert (dict(record.labels), record.group) == ({"doc": 7}, "g")
        assert (record.attempts[-1].text, events.outcome) == (TEXT[:4], None)

    run_virtual(main)


def test_an_abort_before_the_first_read(run_virtual) -> None:
    """An abort counts whenever it comes: before anything was asked, nothing is."""

    async def main() -> None:
        source = script(answer(TEXT))
        async with streamguard.stream(source, policy=Policy(retry=AGAIN)) as events:
            events.interrupt("the operator")
            events.interrupt("somebody later")
            with pytest.raises(Interrupted) as caught:
                await anext(events)
        assert (caught.value.by, source.opened) == ("the operator", 0)

    run_virtual(main)


def test_an_abort_by_the_consumer_itself(run_virtual) -> None:
    """A consumer that aborts in its own loop gets the error at its next read, in every mode."""

    async def main() -> None:
        for deliver in ("committed", "live", "restarting"):
            source = script([Ping(), *answer(TEXT)[:3], stall()], chunk="event")
            async with streamguard.stream(source, policy=Policy(deliver=deliver, retry=AGAIN)) as events:
                await anext(events)
                events.interrupt()
                with pytest.raises(Interrupted, match="interrupted by the consumer"):
                    while True:
                        await anext(events)
            assert source.opened == source.closed == 1

    run_virtual(main)


def test_an_abort_after_the_end(run_virtual) -> None:
    """An answer that stands is not undone."""

    async def main() -> None:
        async with streamguard.stream(script(answer(TEXT)), policy=Policy()) as events:
            seen = [event async for event in events]
            events.interrupt()
            assert await events.batch() is None
        assert (seen, events.outcome.completed) == (answer(TEXT), "whole")

    run_virtual(main)


def test_patched_body_fields_mean_the_same_to_every_source(run_virtual) -> None:
    """`extra_body` in a rule's patch goes into the body, be it a script's or sent by the SDK."""

    async def main() -> None:
        rule = Rule(when=["*"], patch={"temperature": 0.5, "extra_body": {"top_k": 3, "own": [1], "max_tokens": 99}})
        policy = Policy(retry=Retry(attempts=2, rules=[rule]))
        attempts = [status(529)], wire.text_stream(TEXT)
        source = script(*attempts, request={**REQUEST, "stream": True})
        await streamguard.run(source, policy=policy)
        async with ScriptedServer(*attempts) as server, plain_client(server.url) as client:
            await streamguard.run(streamguard.messages(client, **REQUEST), policy=policy)
        plain = {**REQUEST, "stream": True}
        patched = {**plain, "temperature": 0.5, "top_k": 3, "own": [1], "max_tokens": 99}
        assert source.requests == server.requests == [plain, patched]

    run_virtual(main)


# guarded


@pytest.mark.parametrize("door", ["create", "stream"])
def test_guarded_gives_events_and_an_outcome(run_virtual, door: str) -> None:
    """Around an open stream: events as they come, without pings; the checked value and the SDK's own message."""

    async def main() -> None:
        async with opened(wire.text_stream(TEXT, chunk=8), door) as (_, raw):
            async with streamguard.guarded(raw, policy=Policy(json=JSON), labels={"n": 1}, group="g") as events:
                seen = [event async for event in events]
            outcome = events.outcome
        assert [type(event) for event in seen[:3]] == [Started, BlockStarted, Delta]
        assert seen[-1] == Stopped("end_turn")
        assert not any(isinstance(event, Ping) for event in seen)
        assert (outcome.completed, outcome.value, outcome.text) == ("whole", {"total": 12}, TEXT)
        assert (outcome.message.content[0].text, outcome.message.stop_reason) == (TEXT, "end_turn")
        assert (dict(outcome.labels), outcome.group, len(outcome.attempts)) == ({"n": 1}, "g", 1)

    run_virtual(main)


@pytest.mark.parametrize("door", ["create", "stream"])
def test_guarded_trips(run_virtual, door: str) -> None:
    """A trip raises, whatever the policy's retry rules say; the stream is closed, and the server sees it."""

    async def main() -> None:
        async with opened([*wire.text_stream(BAD)[:-3], stall()], door) as (server, raw):
            async with streamguard.guarded(raw, policy=Policy(json=JSON, retry=AGAIN)) as events:
                with pytest.raises(GaveUp, match=r"json\.malformed") as caught:
                    async for _ in events:
                        pass
            await anyio.sleep(0.05)
            (exchange,) = server.exchanges
            assert (exchange.open, exchange.complete) == (False, False)
        assert [attempt.text for attempt in caught.value.attempts] == [BAD[:12]]

    run_virtual(main)


def test_guarded_delivers_live_unless_told(run_virtual) -> None:
    """Events come at once by default; `deliver: committed` in the policy itself holds them back."""

    async def first(policy: Policy) -> float:
        async with opened([*wire.text_stream(TEXT)[:5], pause(5), *wire.text_stream(TEXT)[5:]]) as (_, raw):
            began = anyio.current_time()
            async with streamguard.guarded(raw, policy=policy) as events:
                await anext(events)
                return anyio.current_time() - began

    async def main() -> None:
        waited = [await first(Policy(deliver="committed")), await first(Policy())]
        assert waited == [pytest.approx(5, abs=0.2), pytest.approx(0, abs=0.2)]

    run_virtual(main)


def test_guarded_refuses_what_an_open_stream_does_not_have(run_virtual) -> None:
    """Restarting, pings and the request: refused by name, and the stream stays the caller's."""

    async def main() -> None:
        for policy, message in (
            (Policy(deliver="restarting"), "deliver: restarting needs a source that can be asked again"),
            (Policy(timeouts=Timeouts(alive=9)), r"timeouts\.alive: this source does not show pings"),
            (Policy(json=JsonDocument(schema="request")), "json.schema: request needs a source that shows its request"),
        ):
            async with opened(wire.text_stream(TEXT)) as (_, raw):
                with pytest.raises(PolicyError, match=message):
                    streamguard.guarded(raw, policy=policy)
                async with streamguard.guarded(raw, policy=Policy()) as events:
                    assert len([event async for event in events]) > 5

    run_virtual(main)


def test_guarded_refuses_what_is_no_open_stream(run_virtual) -> None:
    """A stream that was not awaited or entered, and a synchronous one, are refused at the call."""

    async def main() -> None:
        async with plain_client("http://127.0.0.1:9") as client:
            with pytest.raises(ConfigError, match="not awaited"):
                streamguard.guarded(client.messages.create(**REQUEST, stream=True), policy=Policy())
            manager = client.messages.stream(**REQUEST)
            with pytest.raises(ConfigError, match="enter the manager first"):
                streamguard.guarded(manager, policy=Policy())
            with suppress(anthropic.APIConnectionError):
                async with manager:
                    pass
        with pytest.raises(ConfigError, match="use `AsyncAnthropic`"):
            streamguard.guarded(iter(()), policy=Policy())

    run_virtual(main)
