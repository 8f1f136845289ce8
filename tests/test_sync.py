"""The doors for threads: the same results as the async ones, and a call that any thread can end."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from operator import gt
from typing import Any

import anthropic
import httpx2
import pytest
from anyio.from_thread import start_blocking_portal

import streamguard
from streamguard import (
    CallError,
    ConfigError,
    DeadlineExceeded,
    GaveUp,
    Interrupted,
    JsonDocument,
    Outcome,
    Policy,
    PolicyError,
    Retry,
    Rule,
    Runtime,
    Timeouts,
)
from streamguard.events import Delta, Event, Failed, Ping, Restarted
from streamguard.testing import BACKENDS, ScriptedServer, ScriptedSource, answer, run_virtual, script, stall, wire

GOOD, BAD = '{"total": 12, "lines": ["a"]}', '{"total": 12, "lines" ["a"]}'
JSON = JsonDocument()
AGAIN = Retry(attempts=3, rules=[Rule(when=["*"])])
BROKEN = Failed(reason="provider.overloaded", message="…")
REQUEST: dict[str, Any] = {"model": wire.MODEL, "max_tokens": 64, "messages": [{"role": "user", "content": "Extract."}]}

ON_BOTH = pytest.mark.parametrize("backend", BACKENDS)

SCRIPTS: dict[str, tuple[Callable[[], ScriptedSource], Policy]] = {
    "a good answer": (lambda: script(answer(GOOD)), Policy(json=JSON)),
    "a retry": (lambda: script(answer(BAD), answer(GOOD)), Policy(json=JSON, retry=AGAIN)),
    "giving up": (lambda: script(answer(BAD)), Policy(json=JSON, retry=AGAIN)),
    "no head": (lambda: script([BROKEN]), Policy()),
    "a cut": (lambda: script(answer(GOOD + " and so on")), Policy(json=JsonDocument(trailing="cut"))),
    "a refusal": (lambda: script(answer("no", stop_reason="refusal")), Policy()),
    "an incomplete answer": (lambda: script(answer(GOOD)[:-1]), Policy()),
    "a deadline": (lambda: script([*answer(GOOD)[:4], stall()]), Policy(timeouts=Timeouts(total=0.05))),
    "a policy that does not fit": (
        lambda: script(answer(GOOD), sees_bytes=False),
        Policy(timeouts=Timeouts(alive=9)),
    ),
}
"""Scripts that end by themselves at once, but for the deadline."""


def told(result: Outcome | Exception) -> dict[str, Any]:
    """Everything of a result but its times."""
    if isinstance(result, ConfigError):
        return {"type": type(result).__name__, "message": str(result)}
    record = result if isinstance(result, Outcome) else result.record  # type: ignore[attr-defined]
    told: dict[str, Any] = {
        "type": type(result).__name__,
        "attempts": [
            (
                attempt.number,
                attempt.reason,
                attempt.completed,
                attempt.text,
                attempt.usage,
                attempt.decision and attempt.decision.action,
            )
            for attempt in record.attempts
        ],
        "usage": record.usage,
        "labels": dict(record.labels),
        "group": record.group,
    }
    if isinstance(result, Outcome):
        return told | {"completed": result.completed, "value": result.value, "text": result.text}
    return told | {"reason": getattr(result, "reason", None)}


@ON_BOTH
@pytest.mark.parametrize("name", SCRIPTS)
def test_the_same_as_async(name: str, backend: Any) -> None:
    """Each script ends in a thread as it does in a loop, whole record compared; nothing stays open."""
    make, policy = SCRIPTS[name]
    about = {"labels": {"doc": 7}, "group": "g"}

    async def call() -> dict[str, Any]:
        try:
            return told(await streamguard.run(make(), policy=policy, **about))
        except streamguard.StreamguardError as error:
            return told(error)

    source = make()
    try:
        result: Any = streamguard.sync.run(source, policy=policy, backend=backend, **about)
    except streamguard.StreamguardError as error:
        result = error
    assert told(result) == run_virtual(call, backend=backend)
    assert source.opened == source.closed


@ON_BOTH
@pytest.mark.parametrize("deliver", ["committed", "live", "restarting"])
def test_the_same_events(deliver: Any, backend: Any) -> None:
    """`sync.stream` gives the events of `stream`, seam and all, and the same outcome."""

    def make() -> ScriptedSource:
        first = [Ping()] if deliver == "live" else answer(BAD)
        return script([*first, BROKEN], [Ping(), *answer(GOOD)], chunk="event")

    policy = Policy(json=JSON, retry=AGAIN)

    async def call() -> tuple[list[Event], Any]:
        async with streamguard.stream(make(), policy=policy, deliver=deliver) as events:
            return [event async for event in events], told(events.outcome)

    source = make()
    with streamguard.sync.stream(source, policy=policy, deliver=deliver, backend=backend) as events:
        seen = list(events)
        assert list(events) == []
    theirs, outcome = run_virtual(call, backend=backend)
    assert seen == theirs
    assert told(events.outcome) == outcome
    assert len(events.record.attempts) == source.opened == source.closed == 2
    assert any(isinstance(event, Restarted) for event in seen) == (deliver == "restarting")


@ON_BOTH
def test_an_error_comes_out_of_the_iteration(backend: Any) -> None:
    """A trip raises where the thread reads, after the events that went before, as the very error of the async door."""
    source = script(answer(BAD), chunk="event")
    seen: list[Event] = []
    with (
        pytest.raises(GaveUp, match=r"json\.malformed") as caught,
        streamguard.sync.stream(source, policy=Policy(json=JSON, deliver="live"), backend=backend) as events,
    ):
        for event in events:
            seen.append(event)
    text = "".join(event.text for event in seen if isinstance(event, Delta))
    assert (text, caught.value.record.reasons) == (BAD[:20], ("json.malformed",))
    assert source.opened == source.closed == 1


@ON_BOTH
def test_another_thread_ends_a_call(backend: Any) -> None:
    """`abort` from any thread ends a read that waits, at once: who did it stands in the error, and nothing is retried."""
    source = script([*answer(GOOD)[:4], stall()], chunk="event")
    reading = threading.Event()

    def operator(events: Any) -> None:
        assert reading.wait(5)
        events.interrupt("the operator")

    began = time.monotonic()
    with streamguard.sync.stream(
        source, policy=Policy(retry=AGAIN, deliver="live"), deliver="live", backend=backend
    ) as events:
        thread = threading.Thread(target=operator, args=(events,))
        thread.start()
        with pytest.raises(Interrupted) as caught:
            for event in events:
                if isinstance(event, Delta):
                    reading.set()
        thread.join()
    assert (caught.value.by, source.opened, source.closed) == ("the operator", 1, 1)
    assert time.monotonic() - began < 5


@ON_BOTH
def test_an_abort_at_any_time(backend: Any) -> None:
    """Before the first read it counts; after the end, and after leaving, it does nothing."""
    source = script(answer(GOOD))
    with streamguard.sync.stream(source, policy=Policy(), backend=backend) as early:
        early.interrupt("an early bird")
        with pytest.raises(Interrupted, match="an early bird"):
            list(early)
    with streamguard.sync.stream(script(answer(GOOD)), policy=Policy(), backend=backend) as events:
        assert list(events) == answer(GOOD)
        events.interrupt()
        assert list(events) == []
    events.interrupt()
    early.interrupt()
    assert events.outcome is not None
    assert source.opened == 0


@ON_BOTH
def test_an_abort_from_a_hook(backend: Any) -> None:
    """A hook runs in the call's own loop, from where an abort must not wait for that loop."""
    ends: list[Any] = []
    runtime = Runtime(hooks=[lambda record: ends[0].interrupt("the hook") if ends else None])
    source = script([BROKEN], answer(GOOD))
    with streamguard.sync.stream(source, policy=Policy(retry=AGAIN), runtime=runtime, backend=backend) as events:
        ends.append(events)
        with pytest.raises(Interrupted, match="the hook"):
            list(events)
    assert source.opened == source.closed


@ON_BOTH
@pytest.mark.parametrize("leaving", ["break", "raise", "return"])
def test_leaving_early(leaving: str, backend: Any) -> None:
    """Left at any event, in any way, the attempt is closed when the block is left."""

    def leave(source: ScriptedSource, at: int) -> None:
        with streamguard.sync.stream(source, policy=Policy(), deliver="live", backend=backend) as events:
            if at == 0 and leaving == "return":
                return
            for place, _ in enumerate(events, 1):
                if place < at:
                    continue
                if leaving == "raise":
                    raise KeyError
                if leaving == "return":
                    return
                break

    for at in (0, 1, 2, 5):
        source = script([*answer(GOOD)[:-1], stall()], chunk="event")
        if leaving == "raise":
            with pytest.raises(KeyError):
                leave(source, at)
        else:
            leave(source, at)
        assert source.opened == source.closed == (at > 0 or leaving != "return")


@ON_BOTH
@pytest.mark.parametrize("door", ["run", "stream"])
def test_control_c(door: str, backend: Any) -> None:
    """Control-C while the thread waits for the provider ends the call now, not when a clock says so."""
    source = script([*answer(GOOD)[:4], stall()], chunk="event")

    def press() -> None:
        deadline = time.monotonic() + 5
        while not (source.exchanges and source.exchanges[0].deltas_sent == 2) and time.monotonic() < deadline:
            time.sleep(0.001)
        signal.pthread_kill(main, signal.SIGINT)

    main = threading.get_ident()
    presser = threading.Thread(target=press)
    presser.start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        if door == "run":
            streamguard.sync.run(source, policy=Policy(), backend=backend)
        else:
            with streamguard.sync.stream(source, policy=Policy(), deliver="live", backend=backend) as events:
                for _ in events:
                    pass
    presser.join()
    assert time.monotonic() - began < 5
    assert source.opened == source.closed == 1


# Over sockets, with the SDK's clients


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    items = {
        "good": wire.text_stream(GOOD),
        "bad": wire.text_stream(BAD),
        "hang": [*wire.text_stream(GOOD)[:5], stall()],
    }
    with ScriptedServer(items).in_thread() as started:
        yield started


def client(kind: str, url: str) -> Any:
    """A synchronous client, or an asynchronous one that belongs to no loop yet."""
    if kind == "sync":
        return anthropic.Anthropic(api_key="k", base_url=url)
    return anthropic.AsyncAnthropic(api_key="k", base_url=url)


@ON_BOTH
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_clients_of_the_sdk(server: ScriptedServer, kind: str, backend: Any) -> None:
    """Either client will do; a retry uses the connection of its call, and every connection is closed with its call."""
    sdk = client(kind, server.url)
    source = streamguard.messages(sdk, **REQUEST, extra_headers={"x-script": "good"})
    for calls in (1, 2):
        outcome = streamguard.sync.run(source, policy=Policy(json=JSON), backend=backend)
        assert (outcome.completed, outcome.value) == ("whole", {"total": 12, "lines": ["a"]})
        assert outcome.message.content[0].text == GOOD
        assert (len(server.exchanges), server.connections) == (calls, calls)
    bad = streamguard.messages(sdk, **REQUEST, extra_headers={"x-script": "bad"})
    with (
        pytest.raises(GaveUp),
        streamguard.sync.stream(bad, policy=Policy(json=JSON, retry=AGAIN), backend=backend) as events,
    ):
        list(events)
    assert len(server.exchanges) == 5


@ON_BOTH
def test_leaving_closes_the_socket(server: ScriptedServer, backend: Any) -> None:
    """The server sees a thread that leaves, and one whose call ran out of time."""
    source = streamguard.messages(client("sync", server.url), **REQUEST, extra_headers={"x-script": "hang"})
    with streamguard.sync.stream(source, policy=Policy(), deliver="live", backend=backend) as events:
        next(iter(events))
    left = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        streamguard.sync.run(source, policy=Policy(timeouts=Timeouts(total=0.1)), backend=backend)
    over = time.monotonic()
    for exchange, since in zip(server.exchanges, (left, over), strict=True):
        while exchange.open and time.monotonic() < since + 5:
            time.sleep(0.001)
        assert exchange.disconnected_monotonic is not None
        assert exchange.disconnected_monotonic - since < 0.05


@ON_BOTH
def test_threads_share_a_runtime(server: ScriptedServer, backend: Any) -> None:
    """Calls in many threads at once, each with a loop of its own, share what they learn and what they count."""
    runtime = Runtime()
    source = streamguard.messages(client("sync", server.url), **REQUEST, extra_headers={"x-script": "good"})
    outcomes: list[Any] = []

    def call() -> None:
        try:
            outcomes.append(
                streamguard.sync.run(source, policy=Policy(json=JSON), runtime=runtime, backend=backend).completed
            )
        except Exception as error:
            outcomes.append(error)

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == ["whole"] * 8
    assert runtime.lengths.expected(wire.MODEL) == wire.counted(len(GOOD))
    assert runtime.calls == {}


def test_no_thread_and_no_socket_is_left(server: ScriptedServer) -> None:
    """After calls that end well, badly and early, the process has the threads and descriptors it had before."""
    sdk = client("sync", server.url)

    def round_() -> None:
        for name in ("good", "bad", "hang"):
            source = streamguard.messages(sdk, **REQUEST, extra_headers={"x-script": name})
            with streamguard.sync.stream(source, policy=Policy(json=JSON), deliver="live") as events:
                try:
                    for event in events:
                        if name == "hang" and isinstance(event, Delta):
                            break
                except CallError:
                    continue

    def counts() -> tuple[int, int]:
        gc.collect()
        deadline = time.monotonic() + 5
        while any(exchange.open for exchange in server.exchanges) and time.monotonic() < deadline:
            time.sleep(0.001)
        return threading.active_count(), len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0

    def settled(most: tuple[int, int]) -> tuple[int, int]:
        """The counts, once the server and the threads have let go of their ends too."""
        deadline = time.monotonic() + 5
        while any(map(gt, found := counts(), most)) and time.monotonic() < deadline:
            time.sleep(0.001)
        return found

    round_()
    first = counts()
    round_()
    round_()
    assert not any(map(gt, settled(first), first))


def test_a_client_with_an_http_client_of_its_own(server: ScriptedServer) -> None:
    """Connections of an own HTTP client belong to one loop: a thread's call asks how to make another."""
    sdk = anthropic.AsyncAnthropic(api_key="k", base_url=server.url, http_client=httpx2.AsyncClient())
    headers = {"extra_headers": {"x-script": "good"}}
    with pytest.raises(ConfigError, match="pass `http_client=`"):
        streamguard.sync.run(streamguard.messages(sdk, **REQUEST, **headers), policy=Policy())
    source = streamguard.messages(sdk, http_client=httpx2.AsyncClient, **REQUEST, **headers)
    assert streamguard.sync.run(source, policy=Policy()).text == GOOD


def test_a_policy_that_does_not_fit_is_refused_at_entry() -> None:
    """What is refused is refused before the block is entered."""
    source = script(answer(GOOD), request=None, sees_bytes=False)
    with (
        pytest.raises(PolicyError, match=r"timeouts\.alive"),
        streamguard.sync.stream(source, policy=Policy(timeouts=Timeouts(alive=9))),
    ):
        raise AssertionError("entered")
    assert source.opened == 0


@asynccontextmanager
async def _served(*attempts: Any) -> AsyncIterator[str]:
    async with ScriptedServer(*attempts) as server:
        yield server.url


def opened_by(url: str) -> tuple[anthropic.Anthropic, Any]:
    """A synchronous client, and a stream that its caller opened."""
    client = anthropic.Anthropic(api_key="sk-ant-test", base_url=url, max_retries=0)
    return client, client.messages.create(model=wire.MODEL, max_tokens=50, messages=[], stream=True)


def test_a_stream_of_a_synchronous_client_can_be_guarded() -> None:
    """`sync.guarded` reads a stream that a thread has opened: events, outcome, and a trip as an error."""
    policy = Policy(json=JsonDocument(schema={"required": ["total"]}))
    attempts = (wire.text_stream('{"total": 12}'), wire.text_stream('{"total" 12}'))
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(_served(*attempts)) as url:
        client, stream = opened_by(url)
        with client, streamguard.sync.guarded(stream, policy=policy) as events:
            texts = [event.text for event in events if isinstance(event, streamguard.events.Delta)]
        assert ("".join(texts), events.result().value) == ('{"total": 12}', {"total": 12})
        client, stream = opened_by(url)
        with client, pytest.raises(GaveUp, match="expected"), streamguard.sync.guarded(stream, policy=policy) as events:
            list(events)


def test_a_blocked_read_of_a_synchronous_stream_is_ended() -> None:
    """A clock ends a read that blocks in a thread, though nothing comes any more, and the connection with it."""
    policy = Policy(timeouts=Timeouts(first_token=0.2, alive=None))
    attempt = [wire.message_start(), stall()]
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(_served(attempt)) as url:
        client, stream = opened_by(url)
        with client, pytest.raises(GaveUp) as caught, streamguard.sync.guarded(stream, policy=policy) as events:
            list(events)
        assert caught.value.reason == "timeout.first_token"


@pytest.mark.parametrize(("stream", "said"), [([], "list is no stream"), (object(), "object is no stream")])
def test_what_is_no_synchronous_stream_is_refused(stream: Any, said: str) -> None:
    """`sync.guarded` says what it takes."""
    with pytest.raises(ConfigError, match=said):
        streamguard.sync.guarded(stream, policy=Policy())
