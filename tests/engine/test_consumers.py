"""Consumers that sleep, break, raise or are cancelled, at every event, at every door: nothing trips, nothing leaks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, get_args

import anthropic
import anyio
import pytest

import streamguard
from streamguard import GaveUp, Interrupted, Policy, Retry, Rule, Timeouts
from streamguard.api import GuardedStream
from streamguard.events import BlockStarted, Delta, Event, Failed, Ping, Restarted, Started
from streamguard.policy.model import Deliver
from streamguard.testing import (
    BACKENDS,
    ScriptedServer,
    ScriptedSource,
    pause,
    script,
    stall,
    status,
    tool_answer,
    wire,
)
from tests.clients import plain_client

TEXT, INPUT = "calling", '{"total": 12}'
GOOD = tool_answer("save", INPUT, text=TEXT)
BROKEN = Failed(reason="provider.overloaded", message="…")


class Mine(Exception):
    """The consumer's own."""


SHORT = Timeouts(connect=1, first_token=1, first_token_per_1k_input=0, progress=1, alive=1)
DELIVER: tuple[Deliver, ...] = get_args(Deliver)
LEAVING = ("break", "raise", "cancel", "cut")

EACH_DELIVER = pytest.mark.parametrize("deliver", DELIVER)
EACH_LEAVING = pytest.mark.parametrize("leaving", LEAVING)


def two_attempts(deliver: Deliver, *, between: float = 0.0) -> ScriptedSource:
    """An attempt that fails, as late as it may be retried, and a good one; so many seconds before each event."""
    begun = [Started(), BlockStarted(0, "text"), Ping(), Delta(0, "text", "cal")]
    first = [begun[0], begun[2]] if deliver == "live" else begun
    spaced = [[pause(between), event] if between else event for event in GOOD]
    return script([*first, BROKEN], [Ping(), *spaced], chunk=None if between else "event")


def policy(deliver: Deliver, timeouts: Timeouts = SHORT) -> Policy:
    return Policy(deliver=deliver, timeouts=timeouts, retry=Retry(attempts=2, rules=[Rule(when=["*"])]))


def tasks() -> int:
    """How many tasks the running loop has."""
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:
        import trio

        return trio.lowlevel.current_statistics().tasks_living


async def undisturbed(source: ScriptedSource, policy: Policy) -> list[Event]:
    async with streamguard.stream(source, policy=policy) as events:
        return [event async for event in events]


def expected(deliver: Deliver) -> list[Event]:
    """What the consumer of `two_attempts` sees."""
    failed = {
        "committed": [Ping()],
        "live": [Ping()],
        "restarting": [Ping(), Started(), BlockStarted(0, "text"), Delta(0, "text", "cal")],
    }
    restarted = [Restarted] if deliver == "restarting" else []
    return [*failed[deliver], *restarted, Ping(), *GOOD]


async def leave(events: GuardedStream, leaving: str, at: int) -> None:
    """Read `at` events, then leave: by a break, an exception, a cancellation, or after a read that was cut short."""
    with anyio.CancelScope() as scope, suppress(Mine):
        async with events:
            for _ in range(at):
                await anext(events)
            if leaving == "raise":
                raise Mine
            if leaving == "cancel":
                scope.cancel()
                await anyio.sleep(1)
            if leaving == "cut":
                with anyio.move_on_after(0.01):
                    await anext(events, None)
    assert scope.cancelled_caught == (leaving == "cancel")


@EACH_DELIVER
def test_undisturbed(run_virtual, deliver: Deliver) -> None:
    """What the tests below disturb: each mode gives its events, and the good attempt's outcome."""

    async def main() -> None:
        source = two_attempts(deliver)
        seen = await undisturbed(source, policy(deliver))
        assert [Restarted if isinstance(event, Restarted) else event for event in seen] == expected(deliver)

    run_virtual(main)


@EACH_DELIVER
def test_a_consumer_that_sleeps(run_virtual, deliver: Deliver) -> None:
    """An hour of the consumer's time after any event, or after each, is no second of the provider's."""

    async def main() -> None:
        count = len(expected(deliver))
        for at in (*range(count), None):
            source = two_attempts(deliver)
            seen: list[Event] = []
            async with streamguard.stream(source, policy=policy(deliver)) as events:
                async for event in events:
                    if at in (len(seen), None):
                        await anyio.sleep(3600)
                    seen.append(event)
            assert (len(seen), events.outcome.completed, events.outcome.reasons) == (
                count,
                "whole",
                ("provider.overloaded",),
            )
            assert source.opened == source.closed == 2

    run_virtual(main)


@EACH_DELIVER
@EACH_LEAVING
def test_a_consumer_that_leaves(run_virtual, deliver: Deliver, leaving: str) -> None:
    """Left at any event, in any way: all is closed, and the same task can call again, and wait."""

    async def main() -> None:
        before = tasks()
        for at in range(len(expected(deliver)) + 1):
            source = two_attempts(deliver)
            await leave(streamguard.stream(source, policy=policy(deliver)), leaving, at)
            assert source.opened == source.closed
            assert tasks() == before
            again = await streamguard.run(two_attempts(deliver), policy=policy(deliver))
            assert again.completed == "whole"
            await anyio.sleep(1)

    run_virtual(main)


@EACH_DELIVER
def test_a_read_that_is_cancelled(run_virtual, deliver: Deliver) -> None:
    """A read that the consumer cancels ends the call: nothing stays open, and to read on is an error and no request."""

    async def main() -> None:
        patient = policy(deliver, Timeouts())
        count = len(await undisturbed(two_attempts(deliver, between=2), patient))
        for at in range(count):
            source = two_attempts(deliver, between=2)
            cut = False
            async with streamguard.stream(source, policy=patient) as events:
                for _ in range(at):
                    await anext(events)
                with anyio.move_on_after(1):
                    await anext(events)
                    continue  # this one was ready
                cut = True
                opened = source.opened
                with pytest.raises(RuntimeError, match="a read of it was cancelled"):
                    await anext(events)
                assert source.opened == source.closed == opened
                assert events.outcome is None
            assert cut
            await anyio.sleep(1)

    run_virtual(main)


def test_a_stream_that_was_left_or_never_entered(run_virtual) -> None:
    """A stream is read inside of its context only: before and after it, nothing is asked and nothing ends silently."""

    async def main() -> None:
        source = two_attempts("restarting")
        events = streamguard.stream(source, policy=policy("restarting"))
        with pytest.raises(RuntimeError, match="enter it first"):
            await anext(events)
        assert source.opened == 0
        async with events:
            await anext(events)
        for read in (events.__anext__, events.batch):
            with pytest.raises(RuntimeError, match="it was left"):
                await read()
        assert source.opened == source.closed == 1

    run_virtual(main)


def test_another_task_leaves(run_virtual) -> None:
    """Whoever leaves a stream that another task reads ends that read: the reader is told, and all is closed."""

    async def main() -> None:
        source = script([*GOOD[:3], stall()])
        told: list[Interrupted] = []

        async def read(events: GuardedStream) -> None:
            with pytest.raises(Interrupted) as caught:
                async for _ in events:
                    pass
            told.append(caught.value)

        async with anyio.create_task_group() as group:
            async with streamguard.stream(source, policy=Policy()) as events:
                group.start_soon(read, events)
                await anyio.sleep(3)
                with pytest.raises(RuntimeError, match="one call has one reader"):
                    await anext(events)
            assert source.opened == source.closed == 1
        assert [error.by for error in told] == ["the task that left the stream"]
        assert len(told[0].attempts) == 1

    run_virtual(main)


def test_a_failed_call_says_so_again(run_virtual) -> None:
    """Asked again after its end, a call that failed fails the same way, and one that stands is over."""

    async def main() -> None:
        async with streamguard.stream(script([BROKEN]), policy=Policy()) as events:
            for _ in range(2):
                with pytest.raises(GaveUp, match=r"provider\.overloaded"):
                    await anext(events)
        async with streamguard.stream(script(GOOD), policy=Policy()) as events:
            assert [event async for event in events] == GOOD
            assert await events.batch() is None

    run_virtual(main)


# Over sockets


@asynccontextmanager
async def served(items: list[Any]) -> AsyncIterator[tuple[ScriptedServer, anthropic.AsyncAnthropic]]:
    async with (
        ScriptedServer(items) as server,
        plain_client(server.url) as client,
    ):
        yield server, client


REQUEST: dict[str, Any] = {
    "model": wire.MODEL,
    "max_tokens": 64,
    "messages": [{"role": "user", "content": "Extract."}],
}


async def seen_by_the_server(server: ScriptedServer, since: float) -> None:
    """The server sees the end of the connection within 50 ms."""
    exchange = server.exchanges[-1]
    with anyio.fail_after(5):
        while exchange.open:  # noqa: ASYNC110  what the server writes down has no event
            await anyio.sleep(0.001)
    assert exchange.disconnected_monotonic is not None
    assert exchange.disconnected_monotonic - since < 0.05


FRAMES = wire.tool_stream("save", INPUT, preamble=TEXT)
SHOWN = next(place for place, frame in enumerate(FRAMES) if b"input_json_delta" in frame)
"""Events that can be had before the end: a tool's input waits for what the message says next."""
DOORS = [("stream", deliver) for deliver in DELIVER]
DOORS += [(door, deliver) for door in ("guarded create", "guarded stream") for deliver in ("committed", "live")]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("door", "deliver"), DOORS)
@EACH_LEAVING
def test_leaving_a_socket(backend: str, door: str, leaving: str, deliver: Deliver) -> None:
    """Left at any event that can be had before the end, at any door: the server sees it, and no task is left."""

    async def opened(client: anthropic.AsyncAnthropic, policy: Policy) -> GuardedStream:
        if door == "guarded create":
            return streamguard.guarded(await client.messages.create(**REQUEST, stream=True), policy=policy)
        return streamguard.stream(streamguard.messages(client, **REQUEST), policy=policy)

    async def main() -> None:
        plain = Policy(deliver=deliver)
        # Committed: pings only, and the SDK's own streams hide those. Else all but what the end holds back.
        most = (1 if door == "stream" else 0) if deliver == "committed" else SHOWN
        if door != "stream":
            most = max(0, most - 1)
        async with served([*FRAMES[:-1], stall()]) as (server, client):
            for at in range(most + 1):
                before = tasks()
                if door == "guarded stream":
                    async with client.messages.stream(**REQUEST) as entered:
                        await leave(streamguard.guarded(entered, policy=plain), leaving, at)
                else:
                    await leave(await opened(client, plain), leaving, at)
                left = time.monotonic()
                if at == 0 and door == "stream":
                    # Nothing was read, so nothing was asked; a read that was cut may not have come to asking.
                    assert server.exchanges == [] or leaving == "cut"
                    continue
                await seen_by_the_server(server, left)
                assert tasks() <= before
            assert len(server.exchanges) == most + (door != "stream") or leaving == "cut"

    anyio.run(main, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("how", ["run", "committed", "live", "restarting", "guarded"])
def test_a_full_read_keeps_the_connection(backend: str, how: str) -> None:
    """After an answer that was read to its end the next call uses the same connection, at every door."""

    async def main() -> None:
        async with served(FRAMES) as (server, client):
            for _ in range(3):
                source = streamguard.messages(client, **REQUEST)
                if how == "run":
                    outcome = await streamguard.run(source, policy=Policy())
                else:
                    guarded = how == "guarded"
                    events = (
                        streamguard.guarded(await client.messages.create(**REQUEST, stream=True), policy=Policy())
                        if guarded
                        else streamguard.stream(source, policy=Policy(), deliver=how)
                    )
                    async with events:
                        async for _event in events:
                            pass
                    outcome = events.outcome
                assert (outcome.completed, outcome.text) == ("whole", TEXT)
            assert (len(server.exchanges), server.connections) == (3, 1)

    anyio.run(main, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_slow_consumer_of_a_socket(backend: str) -> None:
    """Over a socket too: clocks of 40 ms, a consumer that takes 60 ms for an event, and nothing trips."""

    async def main() -> None:
        clocks = Timeouts(first_token=1, progress=0.04, alive=0.04)
        async with served(FRAMES) as (_, client):
            source = streamguard.messages(client, **REQUEST)
            async with streamguard.stream(source, policy=Policy(deliver="live", timeouts=clocks)) as events:
                async for event in events:
                    if isinstance(event, Delta) and event.kind == "text":
                        await anyio.sleep(0.06)
            assert events.outcome.completed == "whole"

    anyio.run(main, backend=backend)


# asyncio's own cancellation, which passes shields


STAGES: dict[str, list[Any]] = {
    "opening": [stall(), status()],
    "before output": [status(), stall()],
    "reading": [*FRAMES[:-1], stall()],
    "after the end": [*FRAMES, stall()],
}


@pytest.mark.parametrize("cancels", [1, 2, 3, 4])
@pytest.mark.parametrize("stage", STAGES)
def test_a_task_that_is_cancelled_again_and_again(stage: str, cancels: int) -> None:
    """`Task.cancel`, repeated while the call cleans up: the connection is closed, and no task is left."""

    async def main() -> None:
        async with served(STAGES[stage]) as (server, client):
            before = tasks()
            call = asyncio.create_task(streamguard.run(streamguard.messages(client, **REQUEST), policy=Policy()))
            with anyio.fail_after(5):
                while not server.exchanges:  # noqa: ASYNC110  as above
                    await asyncio.sleep(0.001)
                await asyncio.sleep(0.02)
            for _ in range(cancels):
                call.cancel()
                await asyncio.sleep(0)
            with pytest.raises(asyncio.CancelledError):
                await call
            await seen_by_the_server(server, time.monotonic())
            assert tasks() == before

    asyncio.run(main())


@pytest.mark.parametrize("stage", STAGES)
def test_asyncio_s_own_timeouts(stage: str) -> None:
    """`asyncio.timeout` and `wait_for` around a call end it like any other cancellation."""

    async def main() -> None:
        async with served(STAGES[stage]) as (server, client):
            source = streamguard.messages(client, **REQUEST)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.15):
                    await streamguard.run(source, policy=Policy())
            await seen_by_the_server(server, time.monotonic())
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(streamguard.run(source, policy=Policy()), 0.15)
            await seen_by_the_server(server, time.monotonic())
            await asyncio.sleep(0)

    asyncio.run(main())
