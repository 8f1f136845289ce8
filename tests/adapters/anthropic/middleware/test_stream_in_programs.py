"""What programs do with a guarded stream: leave it, drop it, come back to it, run tools with it."""

# ruff: noqa: SIM117  a server, its client and a stream are contexts of their own
from __future__ import annotations

import gc
import json

import anthropic
import anyio
import pytest

from streamguard import GaveUp, GuardMiddleware, JsonDocument, Policy, Retry, Rule, Runtime
from streamguard.testing import ScriptedServer, wire
from tests.adapters.anthropic.middleware.test_guard import BAD, GOOD, POLICY, REQUEST, client, guarded
from tests.adapters.anthropic.middleware.test_stream import ON_BOTH, events_of
from tests.adapters.wire import CHUNKED, HANG, chunk, serving


@ON_BOTH
def test_leaving_early_closes_the_connection(backend: str) -> None:
    """`break` inside `async with`: the provider sees the end at once; reading on is an error, no new request."""

    async def main() -> None:
        guard = GuardMiddleware(Policy(), deliver="live")
        async with serving([CHUNKED, chunk(b"".join(GOOD[:4])), HANG]) as server, client(server.url, guard) as sdk:
            async with await sdk.messages.create(**REQUEST, stream=True) as stream:
                async for event in stream:
                    if event.type == "content_block_delta":
                        break
            with anyio.fail_after(2):
                await server.eof.wait()
            with pytest.raises(RuntimeError, match="it was closed"):
                await stream.__anext__()
            assert guard.runtime.calls == {}
        assert len(server.requests) == 1

    anyio.run(main, backend=backend)


def test_breaking_off_and_coming_back_goes_on_where_it_was() -> None:
    """As with the SDK's own stream: nothing that was ready is lost."""

    async def main() -> None:
        async with guarded(GOOD, guard={"deliver": "committed"}) as (_, sdk):
            async with await sdk.messages.create(**REQUEST, stream=True) as stream:
                seen = [(await stream.__anext__()).type]
                async for event in stream:
                    seen.append(event.type)
                    if len(seen) == 3:
                        break
                seen += [event.type async for event in stream]
        assert seen == [
            "message_start", "content_block_start", "content_block_delta", "content_block_delta", "content_block_stop",
            "message_delta", "message_stop",
        ]  # fmt: skip

    anyio.run(main)


def test_a_stream_that_is_dropped_closes_its_connection() -> None:
    """Nobody closes it and nobody has it any more: the event loop does, as with the SDK's own."""

    async def main() -> None:
        guard = GuardMiddleware(Policy(), deliver="live")
        async with serving([CHUNKED, chunk(b"".join(GOOD[:4])), HANG]) as server, client(server.url, guard) as sdk:
            stream = await sdk.messages.create(**REQUEST, stream=True)
            await stream.__anext__()
            del stream
            gc.collect()
            with anyio.fail_after(2):
                await server.eof.wait()
            assert guard.runtime.calls == {}

    anyio.run(main)


def test_a_read_that_is_cancelled_ends_the_stream_for_good() -> None:
    """The next read is an error, never a silent end and never a new request."""

    async def main() -> None:
        guard = GuardMiddleware(Policy(), deliver="live")
        async with serving([CHUNKED, chunk(b"".join(GOOD[:4])), HANG]) as server, client(server.url, guard) as sdk:
            async with await sdk.messages.create(**REQUEST, stream=True) as stream:
                for _ in range(3):
                    await stream.__anext__()
                with anyio.CancelScope() as scope:
                    scope.cancel()
                    await stream.__anext__()
                with pytest.raises(RuntimeError, match="a read of it was cancelled"):
                    await stream.__anext__()
        assert len(server.requests) == 1

    anyio.run(main)


# Helpers of the SDK


@pytest.mark.parametrize("streaming", [False, True])
def test_the_tool_runner_is_guarded(streaming: bool) -> None:
    """A step with bad tool input is asked again before the tool runs; the loop goes on with the good one."""
    ran = []

    @anthropic.beta_async_tool
    async def record(id: int) -> str:  # noqa: A002
        """Record it."""
        ran.append(id)
        return "done"

    async def main() -> None:
        policy = Policy(
            json=JsonDocument(where="tools", schema="request"), retry=Retry(attempts=2, rules=[Rule(when=["json.*"])])
        )
        steps = [
            wire.tool_stream("record", '{"id": "x"}'),
            wire.tool_stream("record", '{"id": 3}'),
            wire.text_stream("Done."),
        ]
        async with guarded(*steps, policy=policy, guard={"deliver": "committed"}) as (server, sdk):
            runner = sdk.beta.messages.tool_runner(**REQUEST, tools=[record], stream=streaming)
            if streaming:
                async for step in runner:
                    async for _ in step:
                        pass
                    last = await step.get_final_message()
            else:
                last = await runner.until_done()
        assert last.content[0].text == "Done."
        assert ran == [3]
        assert len(server.exchanges) == 3

    anyio.run(main)


def test_the_helper_with_an_output_format_parses() -> None:
    """`messages.stream(output_format=…)`: the schema of the request guards, the helper parses."""
    import pydantic

    class Row(pydantic.BaseModel):
        a: int

    async def main() -> None:
        policy = POLICY.model_copy(update={"json_document": JsonDocument(schema="request")})
        async with guarded(wire.text_stream('{"a": "x"}'), GOOD, policy=policy, guard={"deliver": "committed"}) as (
            _,
            sdk,
        ):
            async with sdk.messages.stream(**REQUEST, output_format=Row) as stream:
                final = await stream.get_final_message()
        assert final.parsed_output == Row(a=1)

    anyio.run(main)


def test_a_runtime_keeps_no_call_that_is_over() -> None:
    """After streams that ended in every way nothing is left in what the calls share."""

    async def main() -> None:
        runtime = Runtime()
        async with guarded(GOOD, BAD, GOOD, guard={"deliver": "live", "runtime": runtime}) as (_, sdk):
            await events_of(sdk)
            with pytest.raises(GaveUp):
                await events_of(sdk)
            async with await sdk.messages.create(**REQUEST, stream=True) as stream:
                await stream.__anext__()
        assert runtime.calls == {}

    anyio.run(main)


def test_streams_of_several_servers_do_not_mix() -> None:
    """Ten streams at once over one client, each read in its own pace, give each its own answer."""

    async def main() -> None:
        answers = {f"s{n}": wire.text_stream(json.dumps({"n": n, "pad": "x" * 40 * n})) for n in range(10)}
        texts: dict[str, str] = {}
        async with ScriptedServer({name: [*answer] for name, answer in answers.items()}) as server:
            guard = GuardMiddleware(POLICY, deliver="live")
            async with client(server.url, guard) as sdk:

                async def read(name: str) -> None:
                    text = []
                    async with sdk.messages.stream(**REQUEST, extra_headers={"x-script": name}) as stream:
                        async for piece in stream.text_stream:
                            text.append(piece)
                            await anyio.lowlevel.checkpoint()
                    texts[name] = "".join(text)

                async with anyio.create_task_group() as tasks:
                    for name in answers:
                        tasks.start_soon(read, name)
        assert {name: json.loads(text)["n"] for name, text in texts.items()} == {f"s{n}": n for n in range(10)}

    anyio.run(main)
