"""Programs that know nothing of this package, with and without the guard in their client: same results on good streams,
typed errors or clean retries on each fault."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import anyio
import anyio.to_thread
import pytest

from streamguard import CallError, Completion, GuardMiddleware, JsonDocument, Policy, Repetition, Retry, Rule, Timeouts
from streamguard.testing import ScriptedServer, faults
from streamguard.testing.scripted import Script

# The programs


async def extraction(client: anthropic.AsyncAnthropic) -> Any:
    """One answer in text, as a document."""
    message = await client.messages.create(**faults.request("text"))
    return json.loads(message.content[0].text)  # type: ignore[union-attr]


async def agent(client: anthropic.AsyncAnthropic) -> Any:
    """One step of a loop with tools: what it shows meanwhile, and the calls it would make."""
    shown = []
    async with client.messages.stream(**faults.request("tool")) as stream:
        async for event in stream:
            if event.type == "text":
                shown.append(event.text)
        message = await stream.get_final_message()
    return "".join(shown), [(block.name, block.input) for block in message.content if block.type == "tool_use"]


def blocking_extraction(client: anthropic.Anthropic) -> Any:
    """The same in a thread."""
    message = client.messages.create(**faults.request("text"))
    return json.loads(message.content[0].text)  # type: ignore[union-attr]


PROGRAMS = {"text": extraction, "tool": agent}
GOOD: dict[str, Any] = {
    "text": json.loads(faults.GOOD),
    "tool": ("", [(faults.TOOL, json.loads(faults.GOOD))]),
}

# Everything is asked again once, so that a fault that goes away is either a clean retry or a typed error.
WORTH_IT = ["json.*", "stop.*", "transport.*", "provider.*", "timeout.*", "repetition.*", "cap.*", "source.error"]


def policy(shape: str, **clocks: Any) -> Policy:
    return Policy(
        timeouts=Timeouts(**{"total": 10, **clocks}),
        json=JsonDocument(where="tools" if shape == "tool" else "text", schema="request"),
        completion=Completion(accept=["end_turn", "tool_use", "stop_sequence"]),
        repetition=Repetition(),
        retry=Retry(attempts=2, rules=[Rule(when=WORTH_IT)]),
    )


async def result_of(program: Any, played: Script, middleware: list[Any]) -> tuple[Any, ScriptedServer]:
    """What a program gives, or the exception it ends with."""
    async with (
        ScriptedServer(played) as server,
        anthropic.AsyncAnthropic(
            api_key="x",
            base_url=server.url,
            max_retries=0,
            middleware=middleware,
            http_client=anthropic.DefaultAsyncHttpxClient(verify=False),
        ) as client,
    ):
        try:
            return await program(client), server
        except Exception as error:
            return error, server


FAST = [fault for fault in faults.ALL if not fault.slow and fault.id != "F27-one-second"]


@pytest.mark.parametrize("shape", faults.SHAPES)
@pytest.mark.parametrize("deliver", ["committed", "live"])
def test_a_good_stream_gives_the_same_with_and_without(shape: str, deliver: Any) -> None:
    """One request, and the same result, be it an ordinary message or a stream."""

    async def main() -> None:
        guard = GuardMiddleware(policy(shape), deliver=deliver)
        good = faults.Say(shape).answer()  # type: ignore[arg-type]
        plain, _ = await result_of(PROGRAMS[shape], Script.of(good), [])
        guarded, server = await result_of(PROGRAMS[shape], Script.of(good), [guard])
        assert plain == guarded == GOOD[shape]
        assert len(server.exchanges) == 1
        assert server.violations == []

    anyio.run(main)


@pytest.mark.parametrize(
    ("fault", "shape"),
    [
        pytest.param(fault, faults.SHAPES[at % 2], id=f"{fault.id}-{faults.SHAPES[at % 2]}")
        for at, fault in enumerate(FAST)
    ],
)
def test_a_fault_is_a_clean_retry_or_a_typed_error(fault: faults.Fault, shape: Any) -> None:
    """What is odd but right comes through as it does without a guard. What is wrong is asked again, or said."""

    async def main() -> None:
        guard = GuardMiddleware(policy(shape), deliver="committed")
        guarded, server = await result_of(PROGRAMS[shape], fault.script(shape, times=1), [guard])
        assert server.violations == []
        assert len(server.exchanges) <= 2
        if fault.conforms:
            plain, _ = await result_of(PROGRAMS[shape], fault.script(shape, times=1), [])
            assert guarded == plain or guarded == GOOD[shape] or type(guarded) is type(plain) is ValueError
        elif isinstance(guarded, Exception):
            assert isinstance(guarded, CallError)
            assert guarded.__cause__ is None
            assert len(guarded.attempts) >= len(server.exchanges)
        else:
            assert guarded == GOOD[shape]

    anyio.run(main)


@pytest.mark.parametrize("fault", FAST[1::5])
def test_live_a_fault_after_the_first_output_is_a_typed_error(fault: faults.Fault) -> None:
    """A stream that has been shown is never begun anew: its fault is raised where the program iterates."""

    async def main() -> None:
        guard = GuardMiddleware(policy("tool"), deliver="live")
        guarded, _ = await result_of(agent, fault.script("tool", times=1), [guard])
        if fault.conforms:
            plain, _ = await result_of(agent, fault.script("tool", times=1), [])
            assert guarded == plain or guarded == GOOD["tool"] or type(guarded) is type(plain) is ValueError
        elif isinstance(guarded, Exception):
            assert isinstance(guarded, CallError)
        else:
            assert guarded == GOOD["tool"]

    anyio.run(main)


@pytest.mark.parametrize("fault", FAST[::6])
def test_a_synchronous_program_sees_the_same(fault: faults.Fault) -> None:
    """The synchronous client: the same results and the same errors."""

    async def main() -> None:
        async with ScriptedServer(fault.script("text", times=1)) as server:

            def program() -> Any:
                guard = GuardMiddleware(policy("text"))
                http = anthropic.DefaultHttpxClient(verify=False)
                with anthropic.Anthropic(
                    api_key="x", base_url=server.url, max_retries=0, middleware=[guard], http_client=http
                ) as client:
                    try:
                        return blocking_extraction(client)
                    except Exception as error:
                        return error

            guarded = await anyio.to_thread.run_sync(program)
        if isinstance(guarded, Exception):
            assert isinstance(guarded, CallError)
            assert guarded.__cause__ is None
        elif not fault.conforms:
            assert guarded == GOOD["text"]

    anyio.run(main)


def test_what_never_ends_without_a_guard_ends_by_its_clocks() -> None:
    """Every fault that is about time, against both programs at once, with clocks of a quarter of a second: each ends in
    time, in a good result or a typed error."""
    clocks = {"connect": 0.25, "first_token": 0.25, "progress": 0.25, "alive": 0.25, "close_grace": 0.1, "total": 1.5}
    slow = [fault for fault in faults.ALL if fault.slow]
    ended: dict[str, Any] = {}

    async def one(fault: faults.Fault, shape: Any) -> None:
        guard = GuardMiddleware(policy(shape, **clocks), deliver="committed")
        ended[f"{fault.id} {shape}"] = (await result_of(PROGRAMS[shape], fault.script(shape), [guard]))[0]

    async def main() -> None:
        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                for at, fault in enumerate(slow):
                    tasks.start_soon(one, fault, faults.SHAPES[at % 2])

    anyio.run(main)
    assert len(ended) == len(slow)
    wrong = {
        name: result
        for name, result in ended.items()
        if not isinstance(result, CallError) and result != GOOD[name.split()[1]]
    }
    assert wrong == {}
