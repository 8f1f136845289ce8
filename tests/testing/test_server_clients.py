"""A provider over real sockets: which script is played, other endpoints, odd clients, threads and processes."""

from __future__ import annotations

import json
import os
import urllib.parse
import urllib.request
from functools import partial

import anyio
import httpx2
import pytest

import streamguard.testing as kit
from streamguard.events import Delta
from streamguard.testing import ScriptedServer, answer, pause, script, stall, status, wire
from tests.testing.bare_client import ASK, A, Client, connect, events_of, whole


def test_selection_by_header_and_mapping(run_virtual):
    """Scripts are chosen by name and attempts by number, where requests say so; each script counts its own."""

    async def main():
        scripts = {"a": script(answer("a1"), answer("a2")), "b": answer("b1")}
        async with ScriptedServer(scripts, by="x-case") as server:
            texts = []
            for headers in (
                {"x_case": "a"},
                {"x_case": "b"},
                {"x_case": "a"},
                {"x_case": "a", "x_streamguard_attempt": "1"},
            ):
                async with await connect(server) as stream:
                    client = Client(stream)
                    await client.ask({}, connection="close", **headers)
                    await client.read()
                    texts.append(json.loads(client.body)["content"][0]["text"])
            async with await connect(server) as stream:
                client = Client(stream)
                await client.ask({}, x_case="c")
                await client.read()
            return texts, client, server

    texts, client, server = run_virtual(main)
    assert texts == ["a1", "b1", "a2", "a1"]
    assert (client.status, client.end[1]) == (400, "fin")
    assert server.errors == ["script: no script 'c': the header x-case names one of ['a', 'b']"]
    assert server.billed[-1] == kit.Bill()


def test_selection_by_function(run_virtual):
    """A function chooses by the request itself."""

    async def main():
        scripts = {"m": script(answer("one"), answer("two"))}

        def choose(exchange):
            return scripts.get(exchange.body["model"]) or answer(exchange.headers["host"])

        async with ScriptedServer(script_for=choose) as server:
            texts = []
            for model in ("m", "n", "m"):
                async with await connect(server) as stream:
                    client = Client(stream)
                    await client.ask({"model": model}, connection="close")
                    await client.read()
                    texts.append(json.loads(client.body)["content"][0]["text"])
            return texts

    assert run_virtual(main) == ["one", "x", "two"]


def test_script_without_the_attempt(run_virtual):
    """An attempt that is not scripted is told to the client and to the test."""
    client, server = run_virtual(whole, kit.on_attempt(2, A))
    assert (client.status, len(server.errors)) == (400, 1)


@pytest.mark.parametrize(
    ("method", "path", "code", "body"),
    [
        ("POST", "/v1/messages/count_tokens?beta=true", 200, {"input_tokens": 12}),
        (
            "GET",
            "/v1/models/some-model",
            200,
            {"type": "model", "id": "some-model", "display_name": "some-model", "created_at": "2026-01-01T00:00:00Z"},
        ),
        ("GET", "/v1/messages", 404, wire.error_body("not_found_error", "/v1/messages")),
        ("POST", "/v1/complete", 404, wire.error_body("not_found_error", "/v1/complete")),
    ],
)
def test_other_endpoints(run_virtual, method, path, code, body):
    """Counting and models are served, all else is not found; none of them is an attempt."""
    client, server = run_virtual(partial(whole, answer("x"), path=path, method=method))
    assert (client.status, json.loads(client.body)) == (code, body)
    assert (server.exchanges, [one.path for one in server.others]) == ([], [path.partition("?")[0]])


def test_models(run_virtual):
    """The list of models has one."""
    client, _ = run_virtual(partial(whole, answer("x"), path="/v1/models", method="GET", body=None))
    assert [model["id"] for model in json.loads(client.body)["data"]] == [wire.MODEL]


def test_chunked_requests(run_virtual):
    """A request's body may be chunked, and come in pieces."""

    async def main():
        async with ScriptedServer(answer("x")) as server, await connect(server) as stream:
            client = Client(stream)
            head = b"POST /v1/messages HTTP/1.1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
            for piece in (head[:20], head[20:], b'5;x=y\r\n{"a":\r', b"\n2\r\n1}\r\n0\r\nTrailer: x\r\n", b"\r\n"):
                await stream.send(piece)
                await anyio.sleep(1)
            await client.read()
            return client.status, server.requests

    assert run_virtual(main) == (200, [{"a": 1}])


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"POST /v1/messages HTTP/1.1\r\ncontent-length: x\r\n\r\n",
        b"POST /v1/messages HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"POST /v1/messages HTTP/1.1\r\ncontent-length: 99999999999\r\n\r\n",
        b"x" * 70_000,
    ],
)
def test_bad_requests(run_virtual, data):
    """What is no request closes the connection and is recorded."""

    async def main():
        async with ScriptedServer(answer("x")) as server, await connect(server) as stream:
            client = Client(stream)
            await stream.send(data)
            await client.read()
            return client.end is not None, len(server.errors), server.exchanges

    assert run_virtual(main) == (True, 1, [])


@pytest.mark.parametrize("data", [b"", b"POST /v1/mess", b"POST /v1/messages HTTP/1.1\r\ncontent-length: 10\r\n\r\n{"])
def test_clients_that_leave_early(run_virtual, data):
    """A client that closes before its request is whole is nobody's error."""

    async def main():
        async with ScriptedServer(answer("x")) as server:
            async with await connect(server) as stream:
                if data:
                    await stream.send(data)
            await anyio.sleep(1)
            return server.connections, server.errors, server.exchanges

    assert run_virtual(main) == (1, [], [])


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


def test_leaving_closes_everything(run_real):
    """Leaving the server ends stalled and endless attempts and closes every socket, at once."""

    async def main():
        before = descriptors()
        async with ScriptedServer([stall()], [kit.repeat(A)], [A, kit.half_close()], [stall(), status()]) as server:
            streams = [await connect(server) for _ in range(12)]
            for stream in streams:
                await Client(stream).ask()
            while len(server.exchanges) < 12:  # noqa: ASYNC110
                await anyio.sleep(0.001)
        for stream in streams:
            await stream.aclose()
        with anyio.fail_after(5):
            while descriptors() > before:  # noqa: ASYNC110
                await anyio.sleep(0.001)
        return server

    server = run_real(main)
    assert not any(one.open for one in server.exchanges)


def test_a_test_s_own_error_comes_out_bare(run_virtual):
    """What the block raises is not wrapped in an exception group, and a cancelled block stays cancelled."""

    async def fails():
        async with ScriptedServer(stall()) as server, await connect(server):
            raise LookupError("mine")

    async def cancelled():
        with anyio.move_on_after(3) as scope:
            async with ScriptedServer(stall()) as server, await connect(server):
                await anyio.sleep_forever()
        return scope.cancelled_caught, anyio.current_time()

    with pytest.raises(LookupError, match="mine"):
        run_virtual(fails)
    assert run_virtual(cancelled) == (True, 3.0)


def test_serves_again(run_virtual):
    """A server can be entered again after it was left, not twice at once."""

    async def main():
        server = ScriptedServer(answer("x"))
        async with server:
            with pytest.raises(RuntimeError, match="serves already"):
                await server.__aenter__()
        async with server, await connect(server) as stream:
            client = Client(stream)
            await client.ask({}, connection="close")
            await client.read()
        return client.status

    assert run_virtual(main) == 200
    with pytest.raises(ValueError, match="needs attempts"):
        ScriptedServer()


def test_under_a_real_client(run_virtual):
    """httpx2 reads a stream, reuses the connection, and reports a reset as what it is."""

    async def main():
        async with ScriptedServer(answer("hello"), [A, pause(1), kit.rst()]) as server, httpx2.AsyncClient() as client:
            data = b""
            async with client.stream("POST", server.url + "/v1/messages", json=ASK) as response:
                async for piece in response.aiter_raw():
                    data += piece
            with pytest.raises(httpx2.ReadError):
                await client.post(server.url + "/v1/messages", json=ASK)
            return events_of(data), server.connections

    assert run_virtual(main) == (answer("hello"), 1)


def post(server, body):
    request = urllib.request.Request(server.url + "/v1/messages", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=10) as response:
        return response.read()


def test_in_a_thread(backend):
    """From a thread, a server serves synchronous clients, on either backend."""
    with ScriptedServer(answer("hello")).in_thread(backend) as server:
        assert events_of(post(server, ASK)) == answer("hello")
    assert server.requests == [ASK]


def test_in_a_process():
    """From a process of its own, the records come back when it ends."""
    with ScriptedServer({"a": answer("hello"), "": kit.burst(300)}).in_process(core=0) as server:
        events = events_of(post(server, ASK))
        assert sum(isinstance(event, Delta) for event in events) == 300
    assert (server.requests, server.connections, server.errors) == ([ASK], 1, [])
    assert server.billed == [kit.Bill(input_tokens=12, output_tokens=300)]


def test_a_process_takes_no_functions():
    """A function cannot go to another process; that is said before one starts."""
    with pytest.raises(ValueError, match="script_for is a function"), ScriptedServer(script_for=answer).in_process():
        pass


def test_paced(run_virtual):
    """A paced answer has its deltas on a fixed schedule."""
    client, server = run_virtual(whole, kit.paced(20, 10))
    times = sorted({at for at, _ in client.reads})
    assert times == pytest.approx([k / 10 for k in range(20)])
    assert len(client.chunks) == 20 + 5 + 1
    assert server.billed == [kit.Bill(input_tokens=12, output_tokens=20)]


def test_burst_is_few_writes(run_virtual):
    """A burst comes in large reads, each event its own HTTP chunk."""
    client, _ = run_virtual(whole, kit.burst(2000))
    assert len(client.chunks) == 2000 + 5 + 1
    assert len(client.reads) < 50


def test_endless(run_virtual):
    """An endless answer goes on as long as the client does."""

    async def main():
        async with ScriptedServer(kit.endless(per_second=10)) as server:
            async with await connect(server) as stream:
                client = Client(stream)
                await client.ask()
                with anyio.move_on_after(3.05):
                    await client.read()
            await anyio.sleep(1)
            return server.exchanges[0].deltas_sent

    assert run_virtual(main) == 31


def test_a_client_that_does_not_read(run_virtual):
    """The server waits for a client that does not read, goes on when it does, and sees it go inside of a write."""

    async def main():
        async with ScriptedServer([kit.repeat(b"x" * 100_000)]) as server:
            async with await connect(server) as stream:
                client = Client(stream)
                await client.ask()
                await anyio.sleep(5)
                before = server.exchanges[0].bytes_sent
                await anyio.sleep(5)
                assert server.exchanges[0].bytes_sent == before
                read = 0
                while read < before + 100_000:
                    read += len(await stream.receive())
                await anyio.sleep(1)
                assert server.exchanges[0].bytes_sent > before
            await anyio.sleep(1)
            return server.exchanges[0]

    exchange = run_virtual(main)
    assert (exchange.complete, exchange.disconnected_at) == (False, exchange.closed_at)
    assert exchange.disconnected_at == 11.0
