"""A provider over real sockets, seen by a client that is nothing but a socket."""

from __future__ import annotations

import json
import math
import time
import zlib
from functools import partial

import anyio
import pytest

import streamguard.testing as kit
from streamguard.events import Failed
from streamguard.source import Attempt
from streamguard.testing import ScriptedServer, answer, pause, script, stall, status, wire
from tests.testing.bare_client import ASK, FRAME, A, Client, connect, events_of, whole


def test_good_answer(run_virtual):
    """A good answer: its head, a chunk for each event, the last chunk, and the record of it all."""
    client, server = run_virtual(whole, answer("hello"))
    assert client.head.split(b"\r\n") == [
        b"HTTP/1.1 200 OK",
        b"request-id: req_scripted_1",
        b"content-type: text/event-stream; charset=utf-8",
        b"cache-control: no-cache",
        b"transfer-encoding: chunked",
    ]
    assert client.chunks == [*map(wire.encode, answer("hello")), b""]
    assert client.end == (0.0, "fin")
    (exchange,) = server.exchanges
    assert (exchange.number, exchange.body, exchange.headers["connection"]) == (1, ASK, "close")
    assert (exchange.complete, exchange.disconnected_at, exchange.closed_at, exchange.status) == (True, None, 0.0, 200)
    assert exchange.bytes_sent == len(client.data)
    assert server.billed == [kit.Bill(input_tokens=12, output_tokens=2)]
    assert (server.requests, server.errors, server.connections) == ([ASK], [], 1)


ENDS = {
    "last chunk": ([A], [FRAME, b""], "fin"),
    "fin": ([A, kit.fin(), A], [FRAME], "fin"),
    "rst": ([A, pause(1), kit.rst(), A], [FRAME], "rst"),
    "half_close": ([A, kit.half_close(), A], [FRAME], "fin"),
    "omit_last_chunk": ([kit.omit_last_chunk(), A], [FRAME], "fin"),
    "failed": ([A, pause(1), Failed(reason="transport.reset", message="")], [FRAME], "rst"),
    "exception": ([A, pause(1), ValueError("x")], [FRAME], "rst"),
    "repeat": ([kit.repeat([A, b": c\n\n"], 2)], [FRAME, b": c\n\n", FRAME, b": c\n\n", b""], "fin"),
    "split": ([kit.split(every=100), A], [FRAME[:100], FRAME[100:], b""], "fin"),
    "gather": ([kit.gather(), A, A], [FRAME, FRAME, b""], "fin"),
    "gather and fin": ([kit.gather(), A, kit.fin()], [FRAME], "fin"),
}


@pytest.mark.parametrize("name", ENDS)
def test_bodies_and_their_ends(run_virtual, name):
    """What each primitive puts on the wire, chunk by chunk, and how the connection ends."""
    items, chunks, end = ENDS[name]
    client, _ = run_virtual(whole, items)
    assert (client.chunks, client.end[1]) == (chunks, end)


@pytest.mark.parametrize(
    ("items", "end"), [([kit.rst()], "rst"), (LookupError("x"), "rst"), ([kit.fin(), status()], "fin")]
)
def test_no_response(run_virtual, items, end):
    """A connection can end before the head of a response is whole or there."""
    client, _ = run_virtual(whole, items)
    # A reset may overtake the head that was sent before it.
    assert client.body == b""
    assert client.end[1] == end


@pytest.mark.parametrize("ending", [[], [kit.fin()]])
def test_body_delimited_by_the_connection(run_virtual, ending):
    """A body without chunks and length ends with the connection."""
    client, _ = run_virtual(partial(whole, [status(framing="eof"), A, *ending], headers={"connection": "keep-alive"}))
    assert (client.body, client.end) == (FRAME, (0.0, "fin"))
    assert b"connection: close" in client.head
    assert b"chunked" not in client.head


def test_timing(run_virtual):
    """Pauses, drips and paces pass in the loop's own time, one write after the other."""
    items = [pause(1), status(), pause(2), b"a", kit.drip(2), b"bc", kit.drip(None), kit.pace(4), b"d", b"e", b"f"]
    client, _ = run_virtual(whole, items)
    # Writes at the same time may come in one read or in several.
    heard = {at: b"".join(data for when, data in client.reads if when == at) for at, _ in client.reads}
    assert list(heard) == [1.0, 3.0, 3.5, 4.0, 4.25, 4.5]
    assert heard[1.0].endswith(b"\r\n\r\n")
    assert heard[3.0] == b"1\r\na\r\n1\r\nb\r\n"
    assert client.chunks == [b"a", b"b", b"c", b"d", b"e", b"f", b""]


@pytest.mark.parametrize("cut", [0, 4])
def test_gzip(run_virtual, cut):
    """A compressed body says so, and may lack its end."""
    client, _ = run_virtual(whole, [kit.encode("gzip", cut=cut), answer("hello")])
    assert b"content-encoding: gzip" in client.head
    inflate = zlib.decompressobj(wbits=31)
    assert events_of(inflate.decompress(b"".join(client.chunks))) == answer("hello")
    assert inflate.eof == (cut == 0)


def test_raw_bytes(run_virtual):
    """A script may be its own HTTP, from the first byte or from the middle."""
    client, _ = run_virtual(partial(whole, kit.raw(b"HTTP/1.1 200 OK\r\nbroken"), headers={"connection": "keep-alive"}))
    assert (client.data, client.end[1]) == (b"HTTP/1.1 200 OK\r\nbroken", "fin")
    client, _ = run_virtual(whole, [b"x", kit.raw(b"ZZ\r\n"), kit.fin()])
    assert client.body == b"1\r\nx\r\nZZ\r\n"


@pytest.mark.parametrize(
    ("items", "code", "kind", "headers"),
    [
        (kit.error("overloaded_error"), 529, "overloaded_error", b""),
        (status(429, {"retry-after": "3"}), 429, "rate_limit_error", b"retry-after: 3"),
        (
            Failed(reason="provider.rate_limited", message="m", retry_after=2.5, request_id="r"),
            429,
            "rate_limit_error",
            b"retry-after: 2.5\r\nrequest-id: r",
        ),
        (Failed(reason="provider.overloaded", message="m", status=503), 503, "overloaded_error", b""),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
def test_error_responses(run_virtual, items, code, kind, headers, stream):
    """An error response has status, headers, length and JSON, however the request asked."""
    client, server = run_virtual(partial(whole, items, body={"stream": stream}))
    assert (client.status, json.loads(client.body)["error"]["type"]) == (code, kind)
    for header in filter(None, headers.split(b"\r\n")):
        assert header in client.head
    assert server.billed == [kit.Bill()]


def test_keep_alive(run_virtual):
    """A connection serves request after request, each with the next attempt."""

    async def main():
        async with (
            ScriptedServer(answer("one"), kit.error(), answer("three")) as server,
            await connect(server) as stream,
        ):
            bodies = []
            for until in (b"0\r\n\r\n", b"Overloaded", b"0\r\n\r\n"):
                client = Client(stream)
                await client.ask()
                await client.read(until)
                bodies.append(client.status)
            return bodies, server

    bodies, server = run_virtual(main)
    assert bodies == [200, 529, 200]
    assert ([one.number for one in server.exchanges], server.connections) == ([1, 2, 3], 1)


def test_pipelined_requests(run_virtual):
    """A request that comes during a response is answered after it, and is no disconnect."""

    async def main():
        async with ScriptedServer([A, pause(1), A]) as server, await connect(server) as stream:
            client = Client(stream)
            await client.ask()
            await client.read(b"text_delta")
            await client.ask(connection="close")
            await client.read()
            return client, server

    client, server = run_virtual(main)
    assert client.data.count(b"HTTP/1.1 200 OK") == 2
    assert [one.complete for one in server.exchanges] == [True, True]


def test_disconnect(run_virtual):
    """The server sees at once that the client has gone, stops, and bills what was sent and the lag."""

    async def main():
        endless = [kit.truth(input=3, lag=2), kit.pace(1), kit.repeat(A)]
        async with ScriptedServer(endless) as server:
            async with await connect(server) as stream:
                client = Client(stream)
                await client.ask()
                with anyio.move_on_after(4.5):
                    await client.read()
            await anyio.sleep(60)
            return server

    server = run_virtual(main)
    (exchange,) = server.exchanges
    assert (exchange.disconnected_at, exchange.closed_at, exchange.complete) == (4.5, 4.5, False)
    assert exchange.arrived_monotonic <= exchange.disconnected_monotonic <= time.monotonic()
    assert (exchange.deltas_sent, server.billed) == (5, [kit.Bill(input_tokens=3, output_tokens=7)])


def test_bill_of_a_backend_that_does_not_stop(run_virtual):
    """Where a disconnect does not stop the generation, all of it is billed."""

    async def main():
        async with ScriptedServer([kit.truth(stops=False), *answer("x" * 400)[:10], stall()]) as server:
            async with await connect(server) as stream:
                client = Client(stream)
                await client.ask()
                await client.read(b"text_delta")
            await anyio.sleep(1)
            return server.billed

    assert run_virtual(main) == [kit.Bill(input_tokens=12, output_tokens=8)]


def test_expect_disconnect(run_virtual):
    """A client that goes in time is fine, one that stays is a violation."""

    async def main(leaves_after):
        async with ScriptedServer([A, kit.expect_disconnect(2), A]) as server:
            async with await connect(server) as stream:
                client = Client(stream)
                await client.ask()
                with anyio.move_on_after(leaves_after):
                    await client.read()
            await anyio.sleep(10)
            return server

    assert run_virtual(main, 1).violations == []
    assert run_virtual(main, 3).violations == ["attempt 1: the client was still there after 2 s"]


def test_half_close_still_listens(run_virtual):
    """After a half close the client reads the end while the attempt is open, until the client goes."""

    async def main():
        async with ScriptedServer([A, kit.half_close()]) as server:
            async with await connect(server) as stream:
                client = Client(stream)
                await client.ask()
                await client.read()
                await anyio.sleep(5)
                assert server.exchanges[0].open
            await anyio.sleep(1)
            return client.end, server.exchanges[0].closed_at

    assert run_virtual(main) == ((0.0, "fin"), 5.0)


SCRIPTS = {
    "events": answer("Grüße, 世界", thinking="hm"),
    "batches": [answer("hello")],
    "frames": wire.text_stream("hello", style=wire.REAL),
    "tool": kit.tool_answer("t", '{"a": [1, 2]}', text="So"),
    "paused": [*answer("hello")[:3], pause(30), *answer("hello")[3:]],
    "split": [kit.split(seed=3), *wire.text_stream("hello", style=wire.STYLES["crlf"])],
    "error inside": [*answer("hello")[:3], kit.event("error", wire.error_body("overloaded_error", "busy"))],
    "comments": [b": hi\n\n", *answer("hello"), b"retry: 3000\n\n"],
    "repeat": [*answer("")[:2], kit.repeat(A, 5), *answer("")[2:]],
    "dripping": [kit.drip(1000), *wire.text_stream("hello")],
    "no end": answer("hello")[:-1],
}


@pytest.mark.parametrize("chunk", [None, "whole", "byte", 7])
@pytest.mark.parametrize("name", SCRIPTS)
def test_memory_and_sockets_agree(run_virtual, name, chunk):
    """The same script gives the same events, bill and duration in memory and over sockets, however it is cut."""
    source = script(SCRIPTS[name])

    async def in_memory():
        said = []
        async with source.open(Attempt(number=1, request=source.request, deadline=math.inf)) as stream:
            async for batch in stream:
                said += batch
        return said, anyio.current_time()

    async def over_sockets():
        client, server = await whole(source, chunk=chunk)
        return events_of(b"".join(client.chunks)), anyio.current_time(), server.billed

    said, at = run_virtual(in_memory)
    heard, heard_at, billed = run_virtual(over_sockets)
    assert (heard, billed) == (said, source.billed)
    assert heard_at == pytest.approx(at)


@pytest.mark.parametrize("items", [answer("hello"), wire.text_stream("hello"), [kit.encode("gzip"), answer("hello")]])
def test_without_streaming(run_virtual, items):
    """The same answer as one JSON where the request does not ask for a stream, after the same time."""
    client, server = run_virtual(partial(whole, [pause(2), status(), *items], body={"model": "m"}))
    assert client.status == 200
    assert b"content-type: application/json" in client.head
    assert json.loads(client.body)["content"] == [{"type": "text", "text": "hello"}]
    assert (client.reads[0][0], server.billed) == (2.0, [kit.Bill(input_tokens=12, output_tokens=2)])


def test_errors_inside_without_streaming(run_virtual):
    """An error inside a stream is an error response without one; an empty answer is an empty message."""
    client, _ = run_virtual(partial(whole, [A, kit.event("error", wire.error_body("overloaded_error"))], body={}))
    assert (client.status, json.loads(client.body)["error"]["type"]) == (529, "overloaded_error")
    client, _ = run_virtual(partial(whole, [], body={}))
    assert (client.status, json.loads(client.body)["content"]) == (200, [])
