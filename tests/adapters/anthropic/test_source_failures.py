"""Failures of a source: statuses, answers that are no streams, faults of the wire, streams that are left early."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import Sequence
from typing import Any

import anthropic
import anyio
import pytest

from streamguard.adapters.anthropic.source import messages, sdk_events
from streamguard.adapters.sse.content_encoding import STEP
from streamguard.errors import ConfigError
from streamguard.events import BlockStarted, Delta, Event, Failed, Metered, Ping, Started, Stopped, Usage
from streamguard.source import SourceFailed
from tests.adapters.anthropic.test_source import (
    FIRST,
    ON_BOTH,
    REQUEST,
    SDK_LEAVES_ONE,
    SMALL,
    against,
    client,
    decoded,
    flat,
    read,
)
from tests.adapters.wire import CHUNKED, CLOSE, END, HANG, HEAD, RESET, chunk, events, gzipped, mocked, serving
from tests.data import path

REFUSALS = [
    pytest.param(
        429,
        {"retry-after": "7", "request-id": "req_h"},
        {"error": {"type": "rate_limit_error", "message": "slow down"}},
        {"reason": "provider.rate_limited", "type": "rate_limit_error", "retry_after": 7.0, "request_id": "req_h"},
        id="rate-limit",
    ),
    pytest.param(
        429,
        {},
        {"error": {"type": "rate_limit_error", "details": {"error_code": "enforced_spend_limit_reached"}}},
        {"reason": "provider.spend_limit", "type": "rate_limit_error", "code": "enforced_spend_limit_reached"},
        id="spend-limit",
    ),
    pytest.param(
        400,
        {},
        {"error": {"type": "invalid_request_error", "message": "You have reached your specified API usage limits."}},
        {"reason": "provider.spend_limit", "type": "invalid_request_error"},
        id="usage-limits",
    ),
    pytest.param(
        401,
        {},
        {"error": {"type": "authentication_error", "message": "invalid x-api-key"}},
        {"reason": "provider.authentication", "type": "authentication_error"},
        id="key",
    ),
    pytest.param(
        529,
        {"retry-after-ms": "1500", "retry-after": "9"},
        {"error": {"type": "overloaded_error", "message": "Overloaded"}},
        {"reason": "provider.overloaded", "type": "overloaded_error", "retry_after": 1.5},
        id="overloaded",
    ),
    pytest.param(
        500,
        {},
        {"error": {"code": 500, "message": "boom", "type": "server_error"}},
        {"reason": "provider.api_error", "type": "server_error", "billable": True},
        id="llama-cpp",
    ),
    pytest.param(502, {}, "<html>bad gateway</html>", {"reason": "provider.api_error", "billable": True}, id="html"),
    pytest.param(503, {}, "", {"reason": "provider.overloaded", "billable": True}, id="empty"),
    pytest.param(
        413,
        {},
        {"error": {"type": "request_too_large"}},
        {"reason": "provider.request_too_large", "type": "request_too_large"},
        id="413",
    ),
]


@ON_BOTH
@pytest.mark.parametrize(("status", "headers", "body", "expected"), REFUSALS)
def test_an_error_status_is_classified(
    status: int, headers: dict[str, str], body: Any, expected: dict[str, Any], backend: str
) -> None:
    """A refusal has its reason, its wait, and whether it may be billed; it is asked once only."""
    seen: list[Any] = []
    content = body.encode() if isinstance(body, str) else json.dumps(body).encode()

    async def main() -> Failed:
        async with client(mocked(content, status=status, headers=headers, seen=seen), max_retries=5) as sdk:
            with pytest.raises(SourceFailed) as raised:
                await read(messages(sdk, **REQUEST))
            return raised.value.failed

    failed = anyio.run(main, backend=backend)
    facts = {name: getattr(failed, name) for name in failed.__struct_fields__ if name != "message"}
    assert facts == {
        "limits": None,
        "type": None,
        "status": status,
        "code": None,
        "retry_after": None,
        "request_id": None,
        "sent": True,
        "billable": False,
        **expected,
    }
    assert len(seen) == 1


@ON_BOTH
@pytest.mark.parametrize(
    ("content_type", "body", "reason", "message"),
    [
        ("text/html", b"<html>challenge sk-ant-api03-secretsecret</html>" * 999, "transport.decode", "text/html"),
        ("application/json", b'{"error":{"code":500,"message":"m","type":"server_error"}}', "provider.api_error", "m"),
        ("application/json", b'{"id":"msg_1","content":[]}', "transport.decode", "application/json"),
        ("application/json", b'{"error":"who knows"}', "provider.api_error", "who knows"),
    ],
)
def test_an_answer_that_is_no_event_stream(
    content_type: str, body: bytes, reason: str, message: str, backend: str
) -> None:
    """A 200 of another content type fails at once, with a bounded excerpt without secrets."""

    async def main() -> Failed:
        async with client(mocked(body, headers={"content-type": content_type})) as sdk:
            with pytest.raises(SourceFailed) as raised:
                await read(messages(sdk, **REQUEST))
            return raised.value.failed

    failed = anyio.run(main, backend=backend)
    assert (failed.reason, failed.status) == (reason, 200)
    assert message in failed.message
    assert len(failed.message) < 5000
    assert "secret" not in failed.message


# Faults on the wire


PIECES = events(SMALL)
GZIP = HEAD + b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
FAULTS = [
    pytest.param([CHUNKED, *PIECES[:3], CLOSE], "transport.reset", True, id="FIN-without-final-chunk"),
    pytest.param([CHUNKED, *PIECES[:3], RESET], "transport.reset", True, id="RST"),
    pytest.param([HEAD + b"Content-Length: 9999\r\n\r\n", SMALL, CLOSE], "transport.reset", True, id="short-body"),
    pytest.param([CHUNKED, *PIECES[:3], b"zz\r\n", CLOSE], "transport.reset", True, id="broken-chunk"),
    pytest.param([CHUNKED, *PIECES[:3], END], None, True, id="clean-end-is-no-fault-of-the-transport"),
    pytest.param([HEAD + b"Connection: close\r\n\r\n", SMALL[:400], CLOSE], None, True, id="end-by-close"),
    pytest.param([CHUNKED, END], None, True, id="no-bytes-at-all"),
    pytest.param([CHUNKED, *PIECES[:2], chunk(b"data: {nope}\n\n"), HANG], "transport.decode", True, id="no-JSON"),
    pytest.param([CHUNKED, chunk(b"data: \xff\n\n"), HANG], "transport.decode", True, id="no-UTF-8"),
    pytest.param(
        [CHUNKED, chunk(b"data: " + b"x" * 1_100_000) * 16, HANG], "transport.event_too_large", True, id="endless"
    ),
    pytest.param([GZIP, chunk(gzipped(SMALL)[:-9]), END], "transport.decode", True, id="gzip-cut"),
    pytest.param([GZIP, chunk(gzipped(SMALL)[:10] + b"\x07"), HANG], "transport.decode", True, id="gzip-corrupt"),
    pytest.param([GZIP, chunk(b"no gzip at all"), HANG], "transport.decode", True, id="no-gzip"),
    pytest.param([CLOSE], "transport.reset", False, id="closed-before-the-head"),
    pytest.param([RESET], "transport.reset", False, id="reset-before-the-head"),
    pytest.param([b"HTTP/1.1 2", CLOSE], "transport.reset", False, id="half-a-head"),
    pytest.param([b"SSH-2.0-OpenSSH\r\n\r\n", CLOSE], "transport.reset", False, id="no-HTTP"),
]


@pytest.mark.parametrize(("backend", "aiohttp"), [("asyncio", False), ("trio", False), ("asyncio", True)])
@pytest.mark.parametrize(("script", "reason", "in_stream"), FAULTS)
def test_faults_on_the_wire_are_named(
    script: list[Any], reason: str | None, in_stream: bool, backend: str, aiohttp: bool
) -> None:
    """Every break ends the attempt in one `Failed`, before the stream or as its last event; nothing hangs."""
    if aiohttp and b"zz\r\n" in script:
        pytest.skip("aiohttp waits on after a broken chunk: a clock has to end that")

    async def main() -> Failed | None:
        async with against(script, aiohttp=aiohttp) as (_, source):
            with anyio.fail_after(10):
                try:
                    batches, _ = await read(source)
                except SourceFailed as raised:
                    assert not in_stream
                    return raised.failed
                assert in_stream
                found = [event for event in flat(batches) if isinstance(event, Failed)]
                assert found == flat(batches)[-1:] if reason else found == []
                return found[0] if found else None

    failed = anyio.run(main, backend=backend)
    assert (failed.reason if failed else None) == reason
    if failed is not None:
        assert (failed.sent, failed.billable) == (True, True)
        assert (failed.status, failed.request_id) == ((200, "req_wire") if in_stream else (None, None))


@pytest.mark.parametrize(("backend", "aiohttp"), [("asyncio", False), ("trio", False), ("asyncio", True)])
def test_no_connection_means_nothing_was_sent(backend: str, aiohttp: bool) -> None:
    """A refused connection and an unknown host are `transport.connect`: never sent, never billed."""

    async def main() -> Failed:
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        await listener.aclose()
        http = anthropic.DefaultAioHttpClient() if aiohttp else None
        async with client(http, base_url=f"http://127.0.0.1:{port}") as sdk:
            with pytest.raises(SourceFailed) as raised:
                await read(messages(sdk, **REQUEST))
        return raised.value.failed

    failed = anyio.run(main, backend=backend)
    assert (failed.reason, failed.status, failed.sent, failed.billable) == ("transport.connect", None, False, False)


@ON_BOTH
@pytest.mark.parametrize("headers", [{"content-encoding": "gzip"}, {"content-encoding": "x-gzip"}, {}])
def test_a_compressed_stream_reads_like_a_plain_one(headers: dict[str, str], backend: str) -> None:
    """gzip in small pieces, in two members and with a great expansion gives the stream's own events."""
    long = SMALL.replace(b'"Hi"', b'"' + b"x" * 900_000 + b'"')
    middle = len(long) // 2

    async def main() -> None:
        for stream, members in ((SMALL, [SMALL]), (long, [long]), (long, [long[:middle], long[middle:]])):
            body = b"".join(map(gzipped, members)) if headers else stream
            pieces = [body[at : at + 97] for at in range(0, len(body), 97)]
            async with client(mocked(pieces, headers=headers)) as sdk:
                batches, message = await read(messages(sdk, **REQUEST))
            assert flat(batches) == decoded(stream)
            assert message.stop_reason == "end_turn"

    anyio.run(main, backend=backend)


def test_a_flushed_block_comes_whole_before_the_next_read() -> None:
    """Compressed events that a server has flushed are given out without waiting for more bytes, however long."""
    size = 2 * STEP
    for length in (size - 1, size, size + 1):
        stream = (b": " + b"x" * 97 + b"\n\n") * (length // 101 + 1) + SMALL
        compressor = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
        flushed = compressor.compress(stream[-length:]) + compressor.flush(zlib.Z_SYNC_FLUSH)

        async def main(script: Sequence[Any]) -> list[Event]:
            async with against(script) as (_, source), source.open(FIRST) as opened:
                events: list[Event] = []
                with anyio.fail_after(5):
                    while Stopped("end_turn") not in events:
                        events += await anext(opened)
                return events

        assert anyio.run(main, [GZIP, chunk(flushed), HANG]) == decoded(stream[-length:])


def test_a_sdk_stream_of_a_beta_request_gives_its_message() -> None:
    """The events' own classes tell which of the SDK's messages they make; a validation failure is a decoding one."""

    async def main() -> Any:
        async with client(mocked(SMALL)) as sdk:
            opened = await sdk.beta.messages.create(**REQUEST, stream=True)
            async with sdk_events(opened) as stream:
                async for _ in stream:
                    pass
                return stream.message()

    message = anyio.run(main)
    assert isinstance(message, anthropic.types.beta.BetaMessage)
    assert (message.content[0].text, message.stop_reason) == ("Hi", "end_turn")


def test_fields_of_a_wrong_type_fail_the_sdks_stream_too() -> None:
    """The SDK hands on what it does not check; the adapter does not, and says nothing more."""
    odd = SMALL.replace(b'"text":"Hi"', b'"text":7')

    async def main() -> list[Event]:
        async with client(mocked(odd)) as sdk, sdk_events(await sdk.messages.create(**REQUEST, stream=True)) as opened:
            return flat([batch async for batch in opened])

    *_, before, last = anyio.run(main)
    assert isinstance(before, BlockStarted)
    assert isinstance(last, Failed)
    assert (last.reason, "$.delta.text" in last.message) == ("transport.decode", True)


def test_an_error_of_the_callers_own_comes_through() -> None:
    """What neither the transport nor the provider raised is nobody's failure to name."""

    class Pieces:
        def __iter__(self) -> Any:
            yield SMALL[:50]
            raise LookupError

    async def main() -> None:
        async with client(mocked(Pieces())) as sdk:
            async with messages(sdk, **REQUEST).open(FIRST) as stream:
                assert await anext(stream) == []
                with pytest.raises(LookupError):
                    await anext(stream)
            async with sdk_events(await sdk.messages.create(**REQUEST, stream=True)) as opened:
                with pytest.raises(LookupError):
                    await anext(opened)

    anyio.run(main)


# Closing


@pytest.mark.parametrize(("backend", "aiohttp"), [("asyncio", False), ("trio", False), ("asyncio", True)])
@pytest.mark.parametrize("batches", [0, 1, 4])
@pytest.mark.parametrize("leaving", ["plain", "error", "cancelled-outside", "cancelled-read"])
def test_leaving_early_closes_the_connection(batches: int, leaving: str, backend: str, aiohttp: bool) -> None:
    """However an attempt is left, the server sees the end of the connection, and no generator is left behind."""

    async def main() -> None:
        async with against([CHUNKED, *PIECES[:5], HANG], aiohttp=aiohttp) as (server, source):
            with anyio.CancelScope() as outer:
                try:
                    async with source.open(FIRST) as stream:
                        seen = 0
                        while seen < batches:  # aiohttp gives out several chunks at once
                            seen += len(await anext(stream)) or 1
                        if leaving == "error":
                            raise LookupError
                        if leaving == "cancelled-outside":
                            outer.cancel()
                        if leaving == "cancelled-read":
                            await server.sent.wait()
                            with anyio.move_on_after(0.02) as reading:
                                async for _batch in stream:
                                    pass
                            assert reading.cancelled_caught
                            assert [batch async for batch in stream] == []
                except LookupError:
                    pass
            if backend == "asyncio":
                # asyncio closes generators that were left behind in tasks of their own.
                assert [task for task in asyncio.all_tasks() if "async_generator" in repr(task)] == []
            with anyio.fail_after(5):
                await server.eof.wait()

    anyio.run(main, backend=backend)


@ON_BOTH
@pytest.mark.parametrize("door", ["create", "stream"])
def test_leaving_the_sdks_stream_early_closes_it(door: str, backend: str) -> None:
    """Closing the adapter closes the SDK's stream, in the middle and before the first event."""

    async def main() -> None:
        for count in (0, 2):
            async with serving([CHUNKED, *PIECES[:5], HANG]) as server, client(base_url=server.url) as sdk:
                if door == "create":
                    async with sdk_events(await sdk.messages.create(**REQUEST, stream=True)) as opened:
                        for _ in range(count):
                            await anext(opened)
                else:
                    async with sdk.messages.stream(**REQUEST) as entered, sdk_events(entered) as opened:
                        for _ in range(count):
                            await anext(opened)
                with anyio.fail_after(5):
                    await server.eof.wait()

    anyio.run(main, backend=backend)


@ON_BOTH
@SDK_LEAVES_ONE
def test_faults_of_the_sdks_stream_are_named(backend: str) -> None:
    """What the SDK raises in mid-stream, wrapped or not, is the stream's last event."""
    cases = {
        "transport.reset": [CHUNKED, *PIECES[:3], CLOSE],
        "transport.decode": [CHUNKED, *PIECES[:2], chunk(b"event: message_stop\ndata: {nope}\n\n"), END],
        "provider.overloaded": [CHUNKED, *events(path("sse", "error_overloaded_midstream.sse").read_bytes()), END],
    }

    async def main() -> dict[str, Event]:
        ends = {}
        for name, script in cases.items():
            async with (
                serving(script) as server,
                client(base_url=server.url) as sdk,
                sdk_events(await sdk.messages.create(**REQUEST, stream=True)) as opened,
            ):
                ends[name] = flat([batch async for batch in opened])[-1]
        return ends

    ends = anyio.run(main, backend=backend)
    assert {name: getattr(end, "reason", None) for name, end in ends.items()} == {name: name for name in cases}


def test_what_is_no_open_stream_of_the_sdk_is_refused() -> None:
    """A stream that was not awaited, a manager that was not entered and a synchronous stream are told apart."""

    async def main() -> None:
        async with client(mocked(SMALL)) as sdk:
            with pytest.raises(ConfigError, match="not awaited"):
                sdk_events(sdk.messages.create(**REQUEST, stream=True))
            manager = sdk.messages.stream(**REQUEST)
            with pytest.raises(ConfigError, match="enter the manager"):
                sdk_events(manager)
            async with manager:
                pass
        with pytest.raises(ConfigError, match="AsyncAnthropic"):
            sdk_events(iter(()))

    anyio.run(main)


def test_small_stream_in_full() -> None:
    """The stream these tests use says what it should: a check on the tests themselves."""
    assert decoded(SMALL) == [
        Started("msg_1", "m", Usage(input_tokens=3)),
        BlockStarted(0, "text", "text"),
        Ping(),
        Delta(0, "text", "Hi"),
        *decoded(b'data: {"type":"content_block_stop","index":0}\n\n'),
        Metered(Usage(output_tokens=2), "end_turn"),
        Stopped("end_turn"),
    ]
