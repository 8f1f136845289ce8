"""Requests that leave the proxy: always the one upstream, never elsewhere, with what belongs there and nothing else."""

from __future__ import annotations

import asyncio
import ipaddress
import shutil
import socket
import ssl
import struct
import subprocess
from pathlib import Path
from typing import Any, ClassVar

import anyio
import httpcore2
import httpx2
import pytest

from streamguard import Policy, Timeouts
from streamguard.events import Failed
from streamguard.http.network import Connection, Network, is_public
from streamguard.proxy.upstream import IDLE_BYTES, MAX_IDLE_EVENTS, UpstreamStream
from streamguard.testing import ScriptedServer, burst, encode, error, fin, pause, raw, run_virtual, stall, status, wire
from tests.proxy.running import COMMITTED, HEADERS, KEY, LIVE, REQUEST, Running, error_of, proxied, until, with_proxy

GOOD = wire.text_stream("fine")


@pytest.mark.parametrize("policy", [None, LIVE])
@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(code: int, policy: Any) -> None:
    """An upstream that points elsewhere, with or without guards: 502, and the other place never sees a request."""

    async def main() -> None:
        async with ScriptedServer(GOOD) as attacker:
            head = {"location": f"{attacker.url}/v1/messages", "content-length": "0"}
            answer = status(code, head, b"")

            async def test(running: Running) -> None:
                for method, path in (("POST", "/v1/messages"), ("GET", "/v1/models")):
                    body = {"json": REQUEST} if method == "POST" else {}
                    response = await running.http.request(method, running.url + path, headers=HEADERS, **body)
                    if path == "/v1/messages":
                        assert response.status_code == 502
                        assert "redirect" in error_of(response.content)["message"]
                    assert "location" not in response.headers
                assert attacker.connections == 0

            async with ScriptedServer([answer]) as upstream, proxied(upstream, policy) as running:
                await test(running)

    anyio.run(main)


def test_nothing_in_a_request_chooses_where_it_goes() -> None:
    """Headers that proxies and gateways obey, and fields of the body: none of them is followed or forwarded."""

    async def main() -> None:
        async with ScriptedServer(GOOD) as attacker:
            host = attacker.url.removeprefix("http://")

            async def test(running: Running) -> None:
                headers = {
                    **HEADERS,
                    "x-forwarded-host": host,
                    "forwarded": f"host={host}",
                    "x-original-url": attacker.url,
                    "x-rewrite-url": attacker.url,
                    "x-base-url": attacker.url,
                    "x-portkey-custom-host": attacker.url,
                    "proxy": attacker.url,
                    "referer": attacker.url,
                    "connection": "x-api-key, anthropic-version",
                    "cookie": "a=b",
                    "te": "trailers",
                }
                response = await running.ask(headers=headers, base_url=attacker.url, api_base=attacker.url)
                assert response.status_code == 200
                sent = running.upstream.exchanges[0].headers
                assert set(sent) == {
                    *("host", "user-agent", "anthropic-version", "content-type", "x-api-key", "accept-encoding"),
                    *("accept", "content-length"),
                }
                assert sent["host"] == running.upstream.url.removeprefix("http://")
                assert (sent["accept-encoding"], sent["x-api-key"]) == ("identity", KEY)
                assert attacker.connections == 0

            async with ScriptedServer(GOOD) as upstream, proxied(upstream, LIVE) as running:
                await test(running)

    anyio.run(main)


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key goes where the configuration says, not where a variable of the environment leads."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")

    async def main() -> None:
        async with (
            ScriptedServer(GOOD) as upstream,
            proxied(upstream, LIVE) as running,
            httpx2.AsyncClient(trust_env=False) as running.http,
        ):
            assert (await running.ask()).status_code == 200

    anyio.run(main)


def test_an_upstream_that_compresses_all_the_same_is_read_in_bounds() -> None:
    """`identity` is asked for; gzip is understood, step by step; what was cut is told."""

    async def test(running: Running) -> None:
        response = await running.ask()
        assert response.content.count(b"event: message_stop") == 1
        assert "content-encoding" not in response.headers

    async def cut(running: Running) -> None:
        response = await running.ask()
        assert response.headers["x-streamguard-reason"] == "transport.decode"

    with_proxy([[encode("gzip"), *GOOD]], test, COMMITTED)
    with_proxy([[encode("gzip", cut=20), *GOOD]], cut, COMMITTED)


def test_without_guards_a_body_that_breaks_breaks_for_the_client_too() -> None:
    """Nothing is ended in good order that was not: the client's own check finds it."""

    async def test(running: Running) -> None:
        with pytest.raises(httpx2.RemoteProtocolError):
            await running.ask()

    with_proxy([[*GOOD[:4], fin()]], test, None)


def test_without_guards_errors_and_json_pass_as_they_are() -> None:
    """Status, body and the headers that matter, byte for byte."""

    async def test(running: Running) -> None:
        direct = await running.http.post(f"{running.upstream.url}/v1/messages", json=REQUEST, headers=HEADERS)
        response = await running.ask(stream=False)
        assert (response.status_code, response.content) == (direct.status_code, direct.content)
        assert response.headers["content-type"] == direct.headers["content-type"]
        assert "set-cookie" not in response.headers

    with_proxy([[error("overloaded_error", headers={"set-cookie": "a=b"})]], test, None)
    with_proxy([GOOD], test, None)


def test_count_tokens_and_models_pass() -> None:
    """The endpoints beside messages, with their queries and no others."""

    async def test(running: Running) -> None:
        counted = await running.http.post(
            f"{running.url}/v1/messages/count_tokens?beta=true", json=REQUEST, headers=HEADERS
        )
        assert counted.json() == {"input_tokens": 12}
        listed = await running.http.get(f"{running.url}/v1/models?limit=5", headers=HEADERS)
        assert listed.json()["data"][0]["id"] == wire.MODEL
        one = await running.http.get(f"{running.url}/v1/models/claude-x-1", headers=HEADERS)
        assert one.json()["id"] == "claude-x-1"
        assert [exchange.path for exchange in running.upstream.others] == [
            "/v1/messages/count_tokens",
            "/v1/models",
            "/v1/models/claude-x-1",
        ]

    with_proxy([GOOD], test)


def test_a_client_that_goes_takes_an_unguarded_request_with_it() -> None:
    """The upstream sees the end at once, guards or not."""

    async def test(running: Running) -> None:
        with anyio.move_on_after(0.3):
            await running.ask()
        (exchange,) = running.upstream.exchanges
        await until(lambda: exchange.disconnected_at is not None, 2)

    with_proxy([[*GOOD[:3], stall()]], test, None)


def test_a_malformed_response_is_no_crash() -> None:
    """Whatever an upstream says that is no HTTP: 502."""

    async def test(running: Running) -> None:
        response = await running.ask()
        assert (response.status_code, response.headers["x-streamguard-reason"]) == (502, "transport.reset")

    with_proxy([[raw(b"NONSENSE\r\n\r\n")]], test)


PUBLIC = ["160.79.104.10", "2607:6bc0::10", "8.8.8.8"]
PRIVATE = [
    *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1"),
    *("::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1"),
    *("2002:7f00:1::", "ff02::1"),
]


@pytest.mark.parametrize(("address", "public"), [*((one, True) for one in PUBLIC), *((one, False) for one in PRIVATE)])
def test_public_addresses_are_told_from_others(address: str, public: bool) -> None:
    """What an address wraps is judged too: mapped, translated and tunnelled ones."""
    assert is_public(address) is public


def test_a_name_that_changes_its_mind_is_not_asked_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: what was judged is what is connected to; a name with private addresses only is refused."""
    answers = iter([["192.0.2.1", "127.0.0.1"], ["127.0.0.1"]])
    connected: list[str] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()

        async def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in next(answers)]

        async def create_connection(factory: Any, host: str, port: int, **_: Any) -> Any:
            connected.append(host)
            raise OSError("not in a test")

        monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
        monkeypatch.setattr(loop, "create_connection", create_connection)
        monkeypatch.setattr(ipaddress.IPv4Address, "is_global", property(lambda self: str(self) == "192.0.2.1"))
        network = Network(public_only=True)
        with pytest.raises(httpcore2.ConnectError, match="not in a test"):
            await network.connect_tcp("upstream.example", 443)
        with pytest.raises(httpcore2.ConnectError, match=r"leads to 127\.0\.0\.1, which is not public"):
            await network.connect_tcp("upstream.example", 443)

    anyio.run(main)
    assert connected == ["192.0.2.1"]


CONNECTING = Policy(deliver="live", timeouts=Timeouts(connect=0.2, first_token=20, total=30))


def test_the_head_belongs_to_the_first_token() -> None:
    """Gateways that send no head before the first token connect at once: `connect` has ended by then."""

    async def main() -> None:
        script = [pause(5), status(), *GOOD]
        async with ScriptedServer(script) as upstream, proxied(upstream, CONNECTING) as running:
            response = await running.ask()
        assert (response.status_code, b"message_stop" in response.content) == (200, True)

    run_virtual(main, grace=0.002)


def test_a_connection_that_does_not_stand_in_time_was_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A typed timeout that names the knob; nothing was asked, and nothing is billed."""

    async def hangs(*_: Any, **__: Any) -> Any:
        await anyio.sleep_forever()

    async def test(running: Running) -> None:
        monkeypatch.setattr(Network, "_addresses", hangs)
        response = await running.ask()
        assert (response.status_code, response.headers["x-streamguard-reason"]) == (422, "timeout.connect")
        assert "timeouts.connect is 0.2 s" in error_of(response.content)["message"]
        assert running.upstream.exchanges == []

    with_proxy([GOOD], test, CONNECTING)


def test_a_private_upstream_is_refused_where_only_public_ones_may_be() -> None:
    """Through the whole proxy: 502, `transport.connect`, and no connection."""

    async def test(running: Running) -> None:
        response = await running.ask()
        assert (response.status_code, response.headers["x-streamguard-reason"]) == (502, "transport.connect")
        assert "not public" in error_of(response.content)["message"]
        assert running.upstream.connections == 0

    with_proxy([GOOD], test, upstream_addresses="public")


def loops() -> list[bool]:
    try:
        import uvloop  # noqa: F401
    except ImportError:
        return [False]
    return [False, True]


@pytest.mark.parametrize("uvloop", loops(), ids=lambda used: "uvloop" if used else "asyncio")
def test_a_fast_upstream_is_held_back_and_a_long_body_sent(uvloop: bool) -> None:
    """More than a buffer in both directions, on every loop that may be used."""

    async def main() -> None:
        with anyio.fail_after(15):
            async with ScriptedServer(burst(20_000)) as upstream, proxied(upstream, LIVE) as running:
                long = [{"role": "user", "content": "x" * 3_000_000}]
                response = await running.ask(messages=long)
                assert response.content.count(b"event: content_block_delta") == 20_000
                assert len(upstream.exchanges[0].body["messages"][0]["content"]) == 3_000_000

    anyio.run(main, backend_options={"use_uvloop": uvloop})


@pytest.mark.parametrize("uvloop", loops(), ids=lambda used: "uvloop" if used else "asyncio")
def test_reads_and_writes_of_a_connection(uvloop: bool) -> None:
    """Bytes in order and in the sizes asked for, the end, a timeout, a reset, and writing after the end."""

    async def main() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(await reader.readexactly(3) + b"defgh")
            if await reader.read(1) == b"r":
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        for last in (b"r", b"x"):
            stream = await Network().connect_tcp("127.0.0.1", port, timeout=2)
            assert isinstance(stream, Connection)
            with pytest.raises(httpcore2.ReadTimeout):
                await stream.read(10, timeout=0.02)
            assert stream.get_extra_info("is_readable") is False
            await stream.write(b"abc")
            got = b""
            while len(got) < 8:
                got += await stream.read(3, timeout=2)
            assert got == b"abcdefgh"
            await stream.write(last)
            if last == b"r":
                with pytest.raises(httpcore2.ReadError):
                    await stream.read(10, timeout=2)
            else:
                assert await stream.read(10, timeout=2) == b""
            assert stream.get_extra_info("is_readable") is True
            with pytest.raises(httpcore2.WriteError):
                await stream.write(b"more")
            await stream.aclose()
        server.close()
        with pytest.raises(httpcore2.ConnectError):
            await Network().connect_tcp("127.0.0.1", 1, timeout=2)

    anyio.run(main, backend_options={"use_uvloop": uvloop})


def test_a_certificate_of_somebody_else_is_refused() -> None:
    """TLS is checked against the configured name; nothing of the request is sent to whom it does not fit."""

    async def main() -> None:
        seen: list[bytes] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            seen.append(await reader.read(100))
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        stream = await Network().connect_tcp("127.0.0.1", port)
        with pytest.raises(httpcore2.ConnectError):
            await stream.start_tls(ssl.create_default_context(), "api.example.com", timeout=2)
        server.close()
        assert KEY.encode() not in b"".join(seen)

    anyio.run(main)


@pytest.mark.parametrize("uvloop", loops(), ids=lambda used: "uvloop" if used else "asyncio")
def test_tls_with_whom_the_certificate_names(uvloop: bool, tmp_path: Path) -> None:
    """A handshake, a request and its answer, a close without a long good-bye; and no handshake with a stranger."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl to make a certificate with")
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    name = ["-subj", "/CN=api.test", "-addext", "subjectAltName=DNS:api.test"]
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *name]
    subprocess.run([*command, "-keyout", key, "-out", cert], check=True, capture_output=True)
    ours = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ours.load_cert_chain(cert, key)
    trusted = ssl.create_default_context(cafile=cert)

    async def main() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write((await reader.readexactly(5))[::-1])
            await reader.read()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=ours)
        port = server.sockets[0].getsockname()[1]
        stream = await Network().connect_tcp("127.0.0.1", port, timeout=2)
        stream = await stream.start_tls(trusted, "api.test", timeout=2)
        await stream.write(b"hello", timeout=2)
        assert await stream.read(100, timeout=2) == b"olleh"
        assert stream.get_extra_info("ssl_object") is not None
        with anyio.fail_after(0.5):
            await stream.aclose()
        stranger = await Network().connect_tcp("127.0.0.1", port)
        with pytest.raises(httpcore2.ConnectError, match=r"api\.example\.com"):
            await stranger.start_tls(trusted, "api.example.com", timeout=2)
        server.close()
        await asyncio.sleep(0.05)

    anyio.run(main, backend_options={"use_uvloop": uvloop})


EMPTY = wire.text_delta("")
WITHOUT_OUTPUT = {
    "pings": (wire.ping(), MAX_IDLE_EVENTS + 1),
    "unknown events": (b'event: later\ndata: {"type": "later"}\n\n', MAX_IDLE_EVENTS + 1),
    "blocks": (wire.block_start(1) + wire.block_stop(1), MAX_IDLE_EVENTS),
    "empty deltas": (EMPTY, (IDLE_BYTES + 16 * 1024 * 1024) // len(EMPTY) + 1000),
}


@pytest.mark.parametrize("name", WITHOUT_OUTPUT)
def test_an_answer_without_output_has_an_end(name: str) -> None:
    """An upstream that sends what is no output for ever is one typed failure, in bounded memory."""
    piece, count = WITHOUT_OUTPUT[name]

    class Endless:
        headers: ClassVar[list[tuple[bytes, bytes]]] = []

        async def pieces(self):
            yield wire.message_start() + wire.block_start()
            data = piece * (16_384 // len(piece) + 1)
            for _ in range(count // (16_384 // len(piece) + 1) + 1):
                yield data

        async def aclose(self) -> None:
            pass

    async def main() -> list[str]:
        stream = UpstreamStream(Endless(), 16 * 1024 * 1024)  # type: ignore[arg-type]
        found = []
        async for batch in stream:
            found = [event.reason for event in batch if isinstance(event, Failed)]
            if found:
                break
        await stream.aclose()
        return found

    assert anyio.run(main) == ["transport.decode"]
