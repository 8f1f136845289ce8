"""The doors of the library: deadlines, loops, threads."""

from __future__ import annotations

import gc
import threading
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anthropic
import anyio
import httpx2
import pytest

import streamguard
from streamguard import (
    CallError,
    GaveUp,
    Interrupted,
    Policy,
    PolicyError,
    Retry,
    Rule,
    Runtime,
    Timeouts,
)
from streamguard.events import BlockStarted, Delta, Failed, Started
from streamguard.source import Attempt, SourceFailed
from streamguard.testing import answer, pause, script, stall, status, wire
from tests.api_calls import AGAIN, BAD, BROKEN, JSON, REQUEST, TEXT
from tests.clients import loopback

# guarded


# I2: never later than the deadline and 100 ms


class Hanging:
    """A source whose opening or closing never ends by itself."""

    request = None
    sees_bytes = True

    def __init__(self, where: str) -> None:
        self.where = where
        self.closed = False

    @asynccontextmanager
    async def open(self, attempt: Attempt) -> AsyncIterator[Any]:
        try:
            if self.where == "open":
                await anyio.sleep_forever()
            yield self
        finally:
            self.closed = True
            if self.where == "close":
                await anyio.sleep_forever()

    async def __aiter__(self) -> AsyncIterator[list[Any]]:
        yield [Started(), BlockStarted(0, "text", "text"), Delta(0, "text", "{")]
        await anyio.sleep_forever()

    def message(self) -> None:
        return None


class StuckBody(httpx2.AsyncByteStream):
    """A body that stalls, of a connection that does not close."""

    def __init__(self) -> None:
        self.closing = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"".join(wire.text_stream(TEXT)[:4])
        await anyio.sleep_forever()

    async def aclose(self) -> None:
        self.closing += 1
        await anyio.sleep_forever()


class StuckTransport(httpx2.AsyncBaseTransport):
    """A transport that answers with such bodies, and does not close either."""

    def __init__(self) -> None:
        self.bodies: list[StuckBody] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.bodies.append(StuckBody())
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=self.bodies[-1])

    async def aclose(self) -> None:
        await anyio.sleep_forever()


WAITING = Retry(attempts=9, rules=[Rule(when=["*"], wait=4)])
BACKOFF = Retry(attempts=9, rules=[Rule(when=["*"], wait={"initial": 2.0, "jitter": "none"})])
LATE_CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "a read": (lambda: script([*answer(TEXT)[:4], stall()]), {}),
    "a drip": (lambda: script([*answer(TEXT)[:2], *[part for _ in range(99) for part in (pause(0.7), Delta(0, "text", "x"))]]), {}),
    "a wait": (lambda: script([BROKEN]), {"retry": WAITING}),
    "a backoff": (lambda: script([BROKEN]), {"retry": BACKOFF}),
    "a wait after time was lost": (lambda: script([pause(3), BROKEN]), {"retry": WAITING}),
    "an open that hangs": (lambda: Hanging("open"), {}),
    "a head that hangs": (lambda: script([stall(), status()]), {}),
    "a close that hangs": (lambda: Hanging("close"), {}),
    "each close hangs": (lambda: Hanging("close"), {"retry": AGAIN, "timeouts": {"attempt": 4}}),
}  # fmt: skip


@pytest.mark.parametrize("name", LATE_CASES)
def test_no_call_outlasts_its_deadline(run_virtual, name: str) -> None:
    """I2: whatever hangs, a call of 10 s is over after 10.1 s, and says by how much its timers were late."""
    make, sections = LATE_CASES[name]
    timeouts = {"connect": None, "first_token": None, "progress": None, "alive": None, "total": 10}
    timeouts |= sections.get("timeouts", {})
    policy = Policy(timeouts=Timeouts(**timeouts), **{k: v for k, v in sections.items() if k != "timeouts"})

    async def main() -> CallError:
        source = make()
        with pytest.raises(CallError) as caught:
            await streamguard.run(source, policy=policy)
        assert anyio.current_time() <= 10.1
        assert source.closed == (True if isinstance(source, Hanging) else source.opened)
        return caught.value

    error = run_virtual(main)
    assert error.record.seconds <= 10.1
    assert error.record.lag < 0.05
    assert error.reason in ("timeout.total", "provider.overloaded", "timeout.attempt")


@pytest.mark.parametrize("how", ["run", "synchronous client", "guarded create"])
def test_a_connection_that_does_not_close_holds_up_nothing(run_virtual, how: str) -> None:
    """I2 with the SDK's own client over a transport whose connections hang when they are closed."""
    transport = StuckTransport()
    policy = Policy(timeouts=Timeouts(total=10, progress=None, alive=None, first_token=None))

    async def drive(client: Any) -> None:
        if how == "guarded create":
            raw = await client.messages.create(**REQUEST, stream=True)
            async with streamguard.guarded(
                raw, policy=policy.model_copy(update={"timeouts": Timeouts(total=10)})
            ) as events:
                async for _ in events:
                    pass
        else:
            pool = None if how == "run" else lambda: httpx2.AsyncClient(transport=transport)
            await streamguard.run(streamguard.messages(client, http_client=pool, **REQUEST), policy=policy)

    async def main() -> None:
        if how == "synchronous client":
            client: Any = anthropic.Anthropic(api_key="k")
        else:
            client = anthropic.AsyncAnthropic(api_key="k", http_client=httpx2.AsyncClient(transport=transport))
        with pytest.raises(CallError) as caught:
            await drive(client)
        assert caught.value.reason == "timeout.total"
        assert anyio.current_time() <= 10.1
        assert [body.closing for body in transport.bodies] == [1]

    run_virtual(main)


def test_leaving_a_connection_that_does_not_close(run_virtual) -> None:
    """A consumer that leaves such a stream is let go within 100 ms too, read or not."""

    async def main() -> None:
        transport = StuckTransport()
        client = anthropic.AsyncAnthropic(api_key="k", http_client=httpx2.AsyncClient(transport=transport))
        for reads in (0, 2):
            raw = await client.messages.create(**REQUEST, stream=True)
            began = anyio.current_time()
            async with streamguard.guarded(raw, policy=Policy()) as events:
                for _ in range(reads):
                    await anext(events)
            assert anyio.current_time() - began <= 0.1

    run_virtual(main)


def test_a_deadline_that_has_passed_sends_nothing(run_virtual) -> None:
    """Time that is used up before the first read counts: nothing is sent any more."""

    async def main() -> None:
        source = script(answer(TEXT))
        events = streamguard.stream(source, policy=Policy(timeouts=Timeouts(total=5)))
        await anyio.sleep(6)
        async with events:
            with pytest.raises(CallError) as caught:
                await anext(events)
        assert caught.value.reason == "timeout.total"
        assert source.opened == 0

    run_virtual(main)


# Loops


def test_a_call_needs_a_loop() -> None:
    """Outside of an event loop the doors say so, and what to use there."""
    for door in (streamguard.stream, streamguard.guarded):
        with pytest.raises(RuntimeError, match=r"inside a running event loop; .* use streamguard\.sync"):
            door(SdkLike() if door is streamguard.guarded else script(answer(TEXT)), policy=Policy())


class SdkLike:
    """As much of an open stream as is looked at before it is read."""

    async def __anext__(self) -> None:
        raise StopAsyncIteration


def two_loops(url: str) -> streamguard.Outcome:
    """What a call comes to whose client was used in another loop before."""
    client = anthropic.AsyncAnthropic(api_key="k", base_url=url, http_client=loopback())
    source = streamguard.messages(client, **REQUEST)

    async def call(policy: Policy) -> streamguard.Outcome:
        return await streamguard.run(source, policy=policy)

    assert anyio.run(call, Policy()).text == TEXT
    return anyio.run(call, Policy(retry=AGAIN))


def test_a_client_of_a_loop_that_has_ended(scripted_server) -> None:
    """A client that was used in another loop has connections nobody can read: that is said, a retry gets through, and
    the request that went out all the same counts as sent."""
    server = scripted_server(wire.text_stream(TEXT))
    with warnings.catch_warnings():
        # Sockets of a loop that has ended can only be collected, and warn of it.
        warnings.simplefilter("ignore", ResourceWarning)
        outcome = two_loops(server.url)
        gc.collect()
    failed = outcome.attempts[0].ended
    assert isinstance(failed, Failed)
    assert (failed.reason, failed.sent, failed.billable) == ("transport.reset", True, True)
    assert failed.message.startswith(
        "Event loop is closed: the client has kept connections of another event loop; make"
    )
    assert (outcome.text, len(outcome.attempts), len(server.exchanges)) == (TEXT, 2, 3)


def test_a_runtime_forgets_calls_that_are_over(run_virtual) -> None:
    """However a call ends, its runtime does not keep it."""

    async def main() -> None:
        runtime = Runtime()
        await streamguard.run(script(answer(TEXT)), policy=Policy(), runtime=runtime)
        with pytest.raises(GaveUp):
            await streamguard.run(script([BROKEN]), policy=Policy(), runtime=runtime)
        async with streamguard.stream(script(answer(TEXT)), policy=Policy(), runtime=runtime) as events:
            await anext(events)
        with anyio.move_on_after(1):
            async with streamguard.stream(script([stall()]), policy=Policy(), runtime=runtime) as events:
                await anext(events)
        events = streamguard.stream(script(answer(TEXT)), policy=Policy(), runtime=runtime)
        assert runtime.calls == {}
        async with events:
            await anext(events)

    run_virtual(main)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_another_thread_can_interrupt(backend: str) -> None:
    """`events.interrupt()` from a thread ends a call that waits for the provider, at once."""

    async def main() -> float:
        source = script([*answer(TEXT)[:3], stall()])
        began = anyio.current_time()
        with pytest.raises(Interrupted):
            async with streamguard.stream(source, policy=Policy(), deliver="live") as events:
                async for _ in events:
                    threading.Timer(0.05, events.interrupt, ["a thread"]).start()
        return anyio.current_time() - began

    assert anyio.run(main, backend=backend) < 5


def test_no_outcome_no_result() -> None:
    """`result()` before the end, after leaving and after an error: it raises, and never gives an Optional."""

    async def main() -> None:
        async with streamguard.stream(script(answer(TEXT)), policy=Policy(json=JSON)) as events:
            with pytest.raises(RuntimeError, match="read the events to their end first"):
                events.result()
        with pytest.raises(RuntimeError, match="it was left"):
            events.result()
        async with streamguard.stream(script(answer(BAD)), policy=Policy(json=JSON)) as events:
            with pytest.raises(GaveUp):
                [event async for event in events]
            with pytest.raises(GaveUp):
                events.result()

    anyio.run(main)


def test_equal_policies_behave_equally() -> None:
    """What a policy does is in its values: spelling out a default changes nothing, wherever it is used."""

    class Blind:
        sees_bytes = False
        request = None

        def open(self, attempt: Attempt) -> Any:
            return script(answer(TEXT)).open(attempt)

    for policy in (Policy(), Policy(timeouts=Timeouts(alive=60.0)), Policy.model_validate({"timeouts": {}})):
        assert policy == Policy()
        assert streamguard.sync.run(Blind(), policy=policy).text == TEXT
    with pytest.raises(PolicyError, match="timeouts\\.alive"):
        streamguard.sync.run(Blind(), policy=Policy(timeouts=Timeouts(alive=30.0)))


def test_a_replaced_section_is_checked() -> None:
    """`replace` and `model_copy(update=…)` take a section by either name, and refuse what is none."""
    for changed in (Policy().replace(json=JSON), Policy().model_copy(update={"json": JSON})):
        assert changed == Policy(json=JSON)
        assert changed.replace(json=None) == Policy()
    with pytest.raises(PolicyError, match='/jsn: unknown key; did you mean "json"'):
        Policy().model_copy(update={"jsn": JSON})
    with pytest.raises(PolicyError, match="/deliver: must be"):
        Policy().replace(deliver="sometimes")


def test_an_attempt_that_waits_for_its_consumer_says_so(run_virtual) -> None:
    """`timeouts.attempt` counts the consumer's time as well, and the trip tells how much of it there was."""

    async def main() -> str:
        source = script([*answer(TEXT)[:4], pause(2), *answer(TEXT)[4:]])
        policy = Policy(timeouts=Timeouts(attempt=10))
        with pytest.raises(GaveUp) as caught:
            async with streamguard.stream(source, policy=policy, deliver="live") as events:
                async for _ in events:
                    await anyio.sleep(9)
        return caught.value.attempts[0].ended.message

    assert "of it the consumer's, who was not ready to read on" in run_virtual(main)


@pytest.mark.parametrize(("slow", "named"), [(1.0, False), (60.0, True)])
def test_a_connection_that_broke_while_nobody_read_is_not_the_provider_s_alone(run_virtual, slow, named) -> None:
    """A server drops clients that read too slowly: the failure says how long the consumer did not read."""

    class Dropping:
        sees_bytes = True
        request = None

        @asynccontextmanager
        async def open(self, attempt: Attempt) -> AsyncIterator[Any]:
            yield Broken()

    class Broken:
        async def __aiter__(self) -> AsyncIterator[Any]:
            yield answer(TEXT)[:3]
            raise SourceFailed(Failed(reason="transport.reset", message="the connection broke"))

        def message(self) -> None:
            return None

    async def main() -> str:
        with pytest.raises(GaveUp) as caught:
            async with streamguard.stream(Dropping(), policy=Policy(), deliver="live") as events:
                async for _ in events:
                    await anyio.sleep(slow)
        return caught.value.attempts[0].ended.message

    said = run_virtual(main)
    assert said.startswith("the connection broke")
    assert ("the consumer read nothing for" in said) is named
