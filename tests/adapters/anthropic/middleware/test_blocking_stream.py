"""Guarded streams of a synchronous client: equal events, clocks, ways to leave, and no thread left behind."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from streamguard import ConfigError, GaveUp, GuardMiddleware, JsonDocument, Policy, Retry, Rule, Timeouts
from streamguard.testing import ScriptedServer, stall, wire
from tests.adapters.anthropic.middleware.test_blocking import against, client, gone, threads
from tests.adapters.anthropic.middleware.test_guard import BAD, GOOD, POLICY, REQUEST
from tests.adapters.anthropic.middleware.test_stream import LENIENT, ODD
from tests.data import ROOT

LIVE = Policy(deliver="live")
SHORT = Timeouts(connect=0.5, first_token=0.3, progress=0.3, alive=None, total=5)
TOOLS = (
    wire.message_start()
    + wire.block_start(0, "tool_use", id="a", name="one", input={})
    + wire.input_json_delta('{"x": 1}', 0)
    + wire.block_start(1, "tool_use", id="b", name="two", input={})
    + wire.input_json_delta('{"y": 2}', 1)
    + wire.block_stop(0)
    + wire.block_stop(1)
    + wire.message_delta("tool_use")
    + wire.message_stop()
)


def events_of(url: str, *middleware: Any, beta: bool = False) -> list[Any]:
    with client(url, *middleware) as sdk:
        messages = sdk.beta.messages if beta else sdk.messages
        with messages.create(**REQUEST, stream=True) as stream:
            return list(stream)


@pytest.mark.parametrize("deliver", ["live", "committed"])
@pytest.mark.parametrize("beta", [False, True])
@pytest.mark.parametrize("script", [GOOD, [ODD], [TOOLS]], ids=["json", "odd", "tools"])
def test_events_are_equal_to_those_of_an_unguarded_stream(script: Any, beta: bool, deliver: Any) -> None:
    """Their classes, values and order; both ways to deliver; beta events, too."""
    guard = GuardMiddleware(LENIENT, deliver=deliver)
    ours, _ = against(script, program=lambda url: events_of(url, guard, beta=beta))
    theirs, _ = against(script, program=lambda url: events_of(url, beta=beta))
    assert [type(one) for one in ours] == [type(one) for one in theirs]
    assert ours == theirs
    assert threads() == []


def test_the_helper_gives_the_final_message() -> None:
    """`messages.stream()`, its text, and retries that nobody saw."""

    def program(url: str) -> Any:
        guard = GuardMiddleware(POLICY, deliver="committed")
        with client(url, guard) as sdk, sdk.messages.stream(**REQUEST) as stream:
            text = "".join(stream.text_stream)
            return text, stream.get_final_message().content[0].text, stream.request_id

    found, server = against(BAD, GOOD, program=program)
    assert found == ('{"a": 1}', '{"a": 1}', "req_scripted_2")
    assert len(server.exchanges) == 2
    assert threads() == []


@pytest.mark.parametrize("deliver", ["live", "committed"])
def test_a_clock_ends_the_readers_wait(deliver: Any) -> None:
    """In time, in the caller's thread; the provider sees the end."""

    def program(url: str) -> Any:
        seen: list[Any] = []
        with client(url, GuardMiddleware(Policy(timeouts=SHORT), deliver=deliver)) as sdk:
            began = time.monotonic()
            with pytest.raises(GaveUp) as caught:
                for event in sdk.messages.create(**REQUEST, stream=True):
                    seen.append(event.type)
            took = time.monotonic() - began
        return caught.value.reason, bool(seen), took, threads()

    (reason, seen, took, left), server = against([*GOOD[:4], stall()], program=program)
    assert (reason, seen, left) == ("timeout.progress", deliver == "live", [])
    assert took < 5
    assert server.exchanges[0].disconnected_at is not None


def leave_by_break(stream: Any) -> None:
    with stream:
        for _ in stream:
            break


def leave_by_close(stream: Any) -> None:
    next(stream)
    stream.close()
    stream.close()
    with pytest.raises(RuntimeError, match="was closed"):
        next(stream)


def leave_by_another_thread(stream: Any) -> None:
    closing = threading.Timer(0.2, stream.close)
    closing.start()
    with pytest.raises(RuntimeError, match="closed"):
        for _ in stream:
            pass
    closing.join()


def leave_by_an_exception(stream: Any) -> None:
    with pytest.raises(LookupError), stream:
        next(stream)
        raise LookupError


@pytest.mark.parametrize("leave", [leave_by_break, leave_by_close, leave_by_another_thread, leave_by_an_exception])
def test_leaving_early_closes_the_connection(leave: Callable[[Any], None]) -> None:
    """Whichever way; no thread is left, and no read goes on."""

    def program(url: str) -> Any:
        with client(url, GuardMiddleware(LIVE)) as sdk:
            leave(sdk.messages.create(**REQUEST, stream=True))
            return threads()

    left, server = against([*GOOD[:4], stall()], program=program)
    assert left == []
    assert server.exchanges[0].disconnected_at is not None


def test_a_stream_that_is_dropped_is_closed() -> None:
    """By its finalizer, which does not wait."""

    def program(url: str) -> Any:
        with client(url, GuardMiddleware(LIVE)) as sdk:
            stream = sdk.messages.create(**REQUEST, stream=True)
            next(stream)
            del stream
            gc.collect()
            gone()
            return threads()

    left, server = against([*GOOD[:4], stall()], program=program)
    assert left == []
    assert server.exchanges[0].disconnected_at is not None


def test_bytes_are_the_providers() -> None:
    """`with_streaming_response` and `with_raw_response`: iterated as bytes, or parsed as a stream."""

    def program(url: str) -> Any:
        with client(url, GuardMiddleware(POLICY, deliver="committed")) as sdk:
            with sdk.messages.with_streaming_response.create(**REQUEST, stream=True) as response:
                body = b"".join(response.iter_bytes())
            raw = sdk.messages.with_raw_response.create(**REQUEST, stream=True)
            events = [event.type for event in raw.parse()]
            return body, events, raw.request_id, threads()

    (body, events, request_id, left), _ = against(BAD, GOOD, GOOD, program=program)
    assert body == b"".join(GOOD)
    assert (events[0], events[-1], request_id, left) == ("message_start", "message_stop", "req_scripted_3", [])


def test_a_failure_before_the_first_event_is_raised_by_the_call() -> None:
    """With the SDK's own error beside it; and a choice of delivery is needed."""
    policy = Policy(retry=Retry(attempts=2, rules=[Rule(when=["json.*"])]), json=JsonDocument())

    def program(url: str) -> Any:
        with client(url, GuardMiddleware(policy)) as sdk, pytest.raises(ConfigError, match="needs a choice"):
            sdk.messages.create(**REQUEST, stream=True)
        with client(url, GuardMiddleware(policy, deliver="committed")) as sdk, pytest.raises(GaveUp) as caught:
            sdk.messages.create(**REQUEST, stream=True)
        return caught.value.reason, len(caught.value.attempts), threads()

    found, _ = against(BAD, BAD, program=program)
    assert found == ("json.malformed", 2, [])


def test_threads_share_one_loop() -> None:
    """Ten streams at once, of one middleware."""

    def program(url: str) -> Any:
        found: list[Any] = []
        with client(url, GuardMiddleware(LIVE)) as sdk:

            def one() -> None:
                with sdk.messages.stream(**REQUEST) as stream:
                    found.append(stream.get_final_text())

            workers = [threading.Thread(target=one) for _ in range(10)]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
        return found, threads()

    assert against([*GOOD], program=program)[0] == (['{"a": 1}'] * 10, [])


PROGRAM = """
import sys, threading
import anthropic
from streamguard import GuardMiddleware, Policy

with anthropic.Anthropic(api_key="x", base_url=sys.argv[1], middleware=[GuardMiddleware(Policy(deliver="live"))]) as sdk:
    try:
        with sdk.messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": "x"}], stream=True) as s:
            for event in s:
                print(event.type, flush=True)
    except KeyboardInterrupt:
        print("interrupted", [t.name for t in threading.enumerate() if t.name.startswith("streamguard")], flush=True)
"""


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")
def test_an_interrupt_of_the_keyboard_ends_the_wait() -> None:
    """Control-C reaches the thread that waits, the call is left, and the process ends by itself."""
    with ScriptedServer([*GOOD[:4], stall()]).in_thread() as server:
        program = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(PROGRAM), server.url], stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        assert program.stdout is not None
        try:
            seen = [program.stdout.readline().strip() for _ in range(3)]
            program.send_signal(signal.SIGINT)
            rest, _ = program.communicate(timeout=20)
        finally:
            program.kill()
    assert (seen[0], rest.strip(), program.returncode) == ("message_start", "interrupted []", 0)
