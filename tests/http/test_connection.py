"""Clients that are slow, many or rude: what becomes of their connections."""

from __future__ import annotations

import json
import socket
import time

import anyio

from streamguard.http.limits import Limits
from streamguard.testing import burst, stall, wire
from tests.proxy.running import KEY, REQUEST, Running, exchange, head_of, served, until, with_proxy

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


def test_more_clients_than_allowed_are_turned_away() -> None:
    """One more than allowed gets 503 and is told when to come back; the others are served."""

    async def test(running: Running) -> None:
        async with await anyio.connect_tcp("127.0.0.1", running.port) as first:
            await first.send(POST[:20])
            async with await anyio.connect_tcp("127.0.0.1", running.port) as second:
                await second.send(POST[:20])
                await anyio.sleep(0.05)
                status, headers, _ = head_of(await running.raw(b""))
                assert (status, headers["x-streamguard-refused"]) == (503, "too_many_connections")
                assert headers["retry-after"] == "1"
                await second.send(POST[20:])
                assert (await second.receive()).startswith(b"HTTP/1.1 200")
        assert len(running.upstream.exchanges) == 1

    with_proxy(GOOD, test, limits=Limits(connections=2))


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
