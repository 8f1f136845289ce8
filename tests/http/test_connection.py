"""Clients that are slow, many or rude: what becomes of their connections."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import struct
import time

import anyio
import pytest

from streamguard.http.limits import Limits
from streamguard.proxy.config import Client
from streamguard.testing import burst, stall, wire
from tests.proxy.running import KEY, REQUEST, Running, exchange, head_of, received, served, until, with_proxy

TOKEN = "client-token-0123456789"
GOOD = [wire.text_stream("fine")]
BODY = json.dumps(REQUEST | {"stream": True}).encode()
POST = (
    f"POST /v1/messages HTTP/1.1\r\nhost: localhost\r\nx-api-key: {KEY}\r\ncontent-type: application/json\r\n"
    f"content-length: {len(BODY)}\r\n\r\n"
).encode() + BODY


def test_a_head_that_drips_is_not_waited_for() -> None:
    """Slow loris: a byte now and then keeps no connection open beyond the head's time."""

    async def test(running: Running) -> None:
        async with await anyio.connect_tcp("127.0.0.1", running.port) as connection:
            began = anyio.current_time()
            answer = b""
            with anyio.move_on_after(5):
                for byte in b"POST /v1/messages HTTP/1.1\r\nx-a: " + b"b" * 1000:
                    await connection.send(bytes([byte]))
                    with anyio.move_on_after(0.02):
                        answer += await connection.receive()
                        break
            assert head_of(answer)[1]["x-streamguard-refused"] == "slow_head"
            assert 0.15 < anyio.current_time() - began < 1.5

    with_proxy(GOOD, test, limits=Limits(head_seconds=0.2))


def test_a_connection_that_says_nothing_is_closed_without_a_word() -> None:
    """Browsers open connections in advance; nobody is told anything about one that was never used."""

    async def test(running: Running) -> None:
        assert await running.raw(b"") == b""

    with_proxy(GOOD, test, limits=Limits(head_seconds=0.1))


def test_a_connection_between_two_requests_is_kept_for_its_own_time() -> None:
    """The head's clock runs from a request's first byte, not while there is none."""

    async def test(running: Running) -> None:
        async with await anyio.connect_tcp("127.0.0.1", running.port) as connection:
            for _ in range(2):
                await connection.send(POST)
                answer = b""
                while not answer.endswith(b"0\r\n\r\n"):
                    answer += await connection.receive()
                await anyio.sleep(0.25)
        assert len(running.upstream.exchanges) == 2

    with_proxy(GOOD, test, limits=Limits(head_seconds=0.15))


def test_a_reader_that_does_not_read_is_cut_off_and_its_call_aborted() -> None:
    """Neither memory nor an upstream connection is held for a client that takes nothing."""

    async def test(running: Running) -> None:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", running.port))
            client.sendall(POST)
            await until(lambda: running.upstream.exchanges and not running.upstream.exchanges[0].open)
        assert not running.upstream.exchanges[0].complete
        assert running.proxy.runtime.calls == {}

    with_proxy([burst(200_000)], test, limits=Limits(write_seconds=0.3))


SILENT = [wire.message_start(), wire.block_start(), stall()]


def test_more_clients_than_allowed_are_turned_away() -> None:
    """Where every connection has a request of a known client, one more gets 503 and is told when to come back."""

    async def test(running: Running) -> None:
        async with await anyio.connect_tcp("127.0.0.1", running.port) as first:
            await first.send(POST)
            async with await anyio.connect_tcp("127.0.0.1", running.port) as second:
                await second.send(POST)
                await until(lambda: len(running.upstream.exchanges) == 2)
                status, headers, _ = head_of(await running.raw(b""))
                assert (status, headers["x-streamguard-refused"]) == (503, "too_many_connections")
                assert headers["retry-after"] == "1"
        assert len(running.upstream.exchanges) == 2

    with_proxy([SILENT], test, limits=Limits(connections=2))


@pytest.mark.parametrize("held", [b"", POST[:20], POST[:-5], POST])
def test_strangers_make_room_for_who_comes_and_asks(held: bytes) -> None:
    """Connections that nobody is known by hold no place: the oldest goes. One with a known client's request stays."""

    async def test(running: Running) -> None:
        async with contextlib.AsyncExitStack() as stack:
            known = await stack.enter_async_context(await anyio.connect_tcp("127.0.0.1", running.port))
            await known.send(POST.replace(KEY.encode(), TOKEN.encode()))
            await until(lambda: running.upstream.exchanges)
            for _ in range(5):
                stranger = await stack.enter_async_context(await anyio.connect_tcp("127.0.0.1", running.port))
                await stranger.send(held)
                await anyio.sleep(0.01)
            answer = await running.ask(headers={"x-api-key": TOKEN})
            assert (answer.status_code, b"message_stop" in answer.content) == (200, True)
            assert running.upstream.exchanges[0].open
        await until(lambda: not running.upstream.exchanges[0].open)

    options = {"key": KEY, "tokens": {"ada": TOKEN}, "clients": [Client(name="ada", token_env="STREAMGUARD_ADA")]}
    with_proxy([SILENT, GOOD[0]], test, limits=Limits(connections=3), **options)


def test_connections_from_one_address_can_be_limited() -> None:
    """One more than allowed from an address is turned away, whoever it is."""

    async def test(running: Running) -> None:
        async with await anyio.connect_tcp("127.0.0.1", running.port) as first:
            await first.send(POST[:20])
            status, headers, body = head_of(await running.raw(b""))
            assert (status, headers["x-streamguard-refused"]) == (503, "too_many_connections")
            assert b"1 from one address" in body

    with_proxy(GOOD, test, limits=Limits(connections_per_address=1))


NO_TOKEN = POST.replace(f"x-api-key: {KEY}\r\n".encode(), b"")
EARLY = {
    "401, one byte of the body": (NO_TOKEN[: -len(BODY)], b"x"),
    "401, nothing more": (NO_TOKEN[: -len(BODY)], b""),
    "401, the whole body": (NO_TOKEN[: -len(BODY)], BODY),
    "404": (POST[: -len(BODY)].replace(b"/v1/messages", b"/v1/other"), b"x"),
    "405": (POST[: -len(BODY)].replace(b"POST", b"PUT"), b"x"),
    "403": (POST[: -len(BODY)].replace(b"\r\n\r\n", b"\r\norigin: https://a.example\r\n\r\n"), b"x"),
    "415": (POST[: -len(BODY)].replace(b"application/json", b"text/plain"), b"x"),
    "421": (POST[: -len(BODY)].replace(b"host: localhost", b"host: a.example"), b"x"),
    "400": (POST[: -len(BODY)].replace(b"/messages ", b"/messages?a=$ "), b"x"),
    "healthz": (POST[: -len(BODY)].replace(b"/v1/messages", b"/healthz"), b"x"),
    "the view": (POST[: -len(BODY)].replace(b"/v1/messages", b"/_streamguard/nothing"), b"x"),
}


@pytest.mark.parametrize("framed", ["length", "chunked"])
@pytest.mark.parametrize("name", EARLY)
def test_an_answer_before_the_body_ends_the_connection(name: str, framed: str) -> None:
    """Whoever answers early: the client is told so, and its connection ends, whatever it sends or does not send."""

    async def test(running: Running) -> None:
        head, more = EARLY[name]
        if framed == "chunked":
            head = re.sub(rb"content-length: \d+", b"transfer-encoding: chunked", head)
            more = b"%x\r\n%b" % (len(more), more)
        async with await anyio.connect_tcp("127.0.0.1", running.port) as connection:
            await connection.send(head)
            answer = await connection.receive()
            with contextlib.suppress(anyio.BrokenResourceError):
                await connection.send(more)
            answer += await received(connection)
        status, headers, _ = head_of(answer)
        assert (status // 100, headers["connection"], answer.count(b"HTTP/1.1")) == (4, "close", 1)
        assert running.upstream.exchanges == []
        await until(lambda: running.server.connected == 0)

    with_proxy(GOOD, test, limits=Limits(head_seconds=0.3, body_seconds=0.3, idle_seconds=0.3))


@pytest.mark.parametrize("sent", [b"", BODY[:1], BODY[:-1]])
def test_a_body_has_its_time_from_the_end_of_the_head(sent: bytes) -> None:
    """However much of it comes: 408, and the end."""

    async def test(running: Running) -> None:
        status, headers, _ = head_of(await running.raw(POST[: -len(BODY)] + sent))
        assert (status, headers["x-streamguard-refused"]) == (408, "slow_body")
        await until(lambda: running.server.connected == 0)
        assert running.proxy.runtime.calls == {}

    with_proxy(GOOD, test, limits=Limits(body_seconds=0.1))


def test_a_thousand_pipelined_requests_are_answered_in_order() -> None:
    """One at a time, without a frame of the stack for each."""
    with served(GOOD) as running:
        ask = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"
        answer = exchange(running.port, ask * 999 + ask.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
        assert answer.count(b"HTTP/1.1 200 OK") == 1000


def test_a_client_that_breaks_its_request_and_goes_leaves_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """A refusal that nobody waits for is no error of the proxy's."""
    with served(GOOD) as running:
        for data in (b"BROKEN\r\n\r\n", NO_TOKEN[:-5], POST[:-5] + b"BROKEN", POST + b"BROKEN\r\n\r\n"):
            for _ in range(20):
                with socket.create_connection(("127.0.0.1", running.port)) as client:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    client.sendall(data)
        last = POST.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")
        assert exchange(running.port, last).startswith(b"HTTP/1.1 200")
    assert [record.message for record in caplog.records if record.exc_info or record.levelno > 30] == []


def test_the_rest_of_a_refused_body_is_swallowed_so_that_the_refusal_arrives() -> None:
    """A client that sends megabytes reads its 413, not a reset."""
    with served(GOOD) as running:
        head = POST.replace(str(len(BODY)).encode(), b"33554433").removesuffix(BODY)
        answer = exchange(running.port, head + bytes(3_000_000), whole=False)
        assert head_of(answer)[1]["x-streamguard-refused"] == "body_too_large"


def test_responses_leave_without_delay() -> None:
    """No write of a response waits for the client's acknowledgement of another (40 ms by Nagle's algorithm)."""
    with served(GOOD) as running, socket.create_connection(("127.0.0.1", running.port)) as client:
        times = []
        for _ in range(5):
            began = time.perf_counter()
            client.sendall(POST)
            answer = b""
            while not answer.endswith(b"0\r\n\r\n"):
                answer += client.recv(65_536)
            times.append(time.perf_counter() - began)
        assert min(times) < 0.03


def test_a_client_that_goes_ends_its_call_within_50_ms() -> None:
    """Gone in the middle of an answer: the upstream sees it go at once, and nothing is left running."""

    async def test(running: Running) -> None:
        delays = []
        for number in range(5):
            connection = await anyio.connect_tcp("127.0.0.1", running.port)
            await connection.send(POST)
            await connection.receive()
            gone = time.monotonic()
            await connection.aclose()
            exchanged = running.upstream.exchanges[number]
            await until(lambda exchanged=exchanged: exchanged.disconnected_monotonic is not None)
            delays.append(exchanged.disconnected_monotonic - gone)
        assert sorted(delays)[2] < 0.05
        assert running.proxy.runtime.calls == {}
        assert (
            running.proxy.metrics.registry.get_sample_value("streamguard_clients_gone_total", {"policy": "default"})
            == 5.0
        )

    endless = [wire.message_start(), wire.block_start(), wire.text_delta("a")]
    with_proxy([[*endless, stall()]], test)
