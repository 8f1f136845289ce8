"""A provider that costs next to nothing: one process, canned bytes, a log of every row that was asked.

For measurements and kill tests that must not be eaten by the provider: some 50 µs of CPU a request. What a request asks
is the number behind `row ` in its body; it is answered `{"n": NUMBER, "by": N}`, where N counts the requests, so that
each answer is told from every other. Half of the delay passes before the first byte, the rest before the others.
`python -m bench.light_provider PORT LOG DELAY DELTAS`.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROW = re.compile(rb"row (\d+)")
LENGTH = re.compile(rb"(?i)content-length: *(\d+)")


def frame(**data: Any) -> bytes:
    """One server-sent event."""
    return f"event: {data['type']}\ndata: {json.dumps(data)}\n\n".encode()


USAGE = {"input_tokens": 20, "output_tokens": 1}
MESSAGE = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None,
    "stop_sequence": None, "usage": USAGE,
}  # fmt: skip
FIRST = frame(type="message_start", message=MESSAGE)
FIRST += frame(type="content_block_start", index=0, content_block={"type": "text", "text": ""})
LAST = frame(type="content_block_stop", index=0)
LAST += frame(
    type="message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage={"output_tokens": 8}
)
LAST += frame(type="message_stop")
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\nrequest-id: r\r\n\r\n"


def deltas(number: bytes, by: int, count: int) -> bytes:
    """The answer's text in so many pieces."""
    text = f'{{"n": {int(number)}, "by": {by}}}' + " " * max(0, count - 3)
    size = max(1, len(text) // max(1, count))
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    return b"".join(
        frame(type="content_block_delta", index=0, delta={"type": "text_delta", "text": piece}) for piece in pieces
    )


class Connection(asyncio.Protocol):
    """One keep-alive connection."""

    def __init__(self, log: int, delay: float, count: int, numbers: Iterator[int]) -> None:
        self._log, self._delay, self._count, self._numbers = log, delay, count, numbers
        self._in = b""

    def connection_made(self, transport: Any) -> None:
        self._out = transport

    def data_received(self, data: bytes) -> None:
        self._in += data
        end = self._in.find(b"\r\n\r\n")
        if end < 0:
            return
        length = int(LENGTH.search(self._in[:end])[1])  # type: ignore[index]
        if len(self._in) < end + 4 + length:
            return
        body, self._in = self._in[end + 4 : end + 4 + length], self._in[end + 4 + length :]
        number = ROW.search(body)[1]  # type: ignore[index]
        os.write(self._log, number + b"\n")
        rest = deltas(number, next(self._numbers), self._count) + LAST
        loop = asyncio.get_running_loop()
        loop.call_later(self._delay / 2, self._out.write, HEAD % (len(FIRST) + len(rest)) + FIRST)
        loop.call_later(self._delay, self._out.write, rest)


async def serve(port: int, log: str, delay: float, count: int) -> None:
    """Serve until killed."""
    fd = os.open(log, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    loop, numbers = asyncio.get_running_loop(), itertools.count(1)
    server = await loop.create_server(lambda: Connection(fd, delay, count, numbers), "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


class LightProvider:
    """The process, from outside."""

    def __init__(self, log: Path, port: int, process: subprocess.Popen[bytes]) -> None:
        self.url, self._log, self._process = f"http://127.0.0.1:{port}", log, process

    @property
    def asked(self) -> Counter[int]:
        """How often each row was asked."""
        return Counter(map(int, self._log.read_text().split())) if self._log.exists() else Counter()

    @property
    def cpu(self) -> float:
        """Seconds of CPU so far (Linux)."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def light_provider(folder: Path, *, delay: float = 0.1, deltas: int = 2) -> Iterator[LightProvider]:
    """Run it while the block runs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / "asked"
    command = [sys.executable, "-m", "bench.light_provider", str(port), str(log), str(delay), str(deltas)]
    process = subprocess.Popen(command)
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield LightProvider(log, port, process)
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]), int(sys.argv[4])))
