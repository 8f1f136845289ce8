"""The live view's own server: the same strict reader and the same clocks as the proxy's."""

from __future__ import annotations

import anyio
import pytest

from streamguard.engine.runtime import Runtime
from streamguard.http.connection import ClientConnection
from streamguard.view import serve_view
from tests.proxy.running import head_of, received


async def answered(url: str, data: bytes) -> bytes:
    """What comes back for raw bytes."""
    port = int(url.split(":")[2].split("/", maxsplit=1)[0])
    async with await anyio.connect_tcp("127.0.0.1", port) as connection:
        await connection.send(data)
        return await received(connection)


@pytest.mark.parametrize(
    ("data", "refusal"),
    [
        (b"GET / HTTP/1.1\nhost: localhost\n\n", "bad_line_end"),
        (b"GET /_streamguard/ HTTP/1.1\r\nhost: localhost\r\nhost: localhost\r\n\r\n", "bad_host"),
        (b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n", "two_lengths"),
        (b"GET /_streamguard/ HTTP/1.1\r\nhost: loc", "slow_head"),
    ],
)  # fmt: skip
def test_requests_are_framed_and_timed(data: bytes, refusal: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the proxy refuses is refused here; half a head is not waited for."""
    monkeypatch.setattr(ClientConnection, "_seconds", lambda self, clock: 0.2)

    async def main() -> None:
        with anyio.fail_after(5):
            async with serve_view(Runtime(), port=0) as url:
                assert head_of(await answered(url, data))[1]["x-streamguard-refused"] == refusal

    anyio.run(main)


def test_leaving_ends_open_connections() -> None:
    """Whoever looks on, and whoever says nothing, is let go when the block ends."""

    async def main() -> None:
        async with serve_view(Runtime(), port=0) as url:
            port = int(url.split(":")[2].split("/")[0])
            silent = await anyio.connect_tcp("127.0.0.1", port)
            looking = await anyio.connect_tcp("127.0.0.1", port)
            await looking.send(b"GET /_streamguard/events HTTP/1.1\r\nhost: localhost\r\n\r\n")
            assert (await looking.receive()).startswith(b"HTTP/1.1 200")
        with anyio.fail_after(5):
            for connection in (silent, looking):
                await received(connection)
                await connection.aclose()

    anyio.run(main)
