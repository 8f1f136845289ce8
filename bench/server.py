"""The benchmarks' provider: answers prepared beforehand, in a process of its own on the other core, at hardly any cost.

`serving` starts it; `python -m bench.server` is the child. It plays what it was given, byte for byte: an answer at full
speed, or paced, each event an HTTP chunk and a socket write of its own. The path says which answer, the request's body
whether as a stream. It knows no faults: those are `streamguard.testing`'s.
"""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from streamguard.testing import wire

HEAD = b"HTTP/1.1 200 OK\r\nrequest-id: req_bench\r\ncontent-type: %b\r\n"
MODEL = "claude-haiku-5-5"


class Answer(NamedTuple):
    """One answer: its frames, and events per second (`None` for full speed)."""

    frames: list[bytes]
    rate: float | None = None

    @property
    def events(self) -> int:
        return len(self.frames)


def text(pieces: Sequence[str], rate: float | None = None) -> Answer:
    """An answer in text deltas."""
    return _framed(wire.block_start(), [wire.text_delta(piece) for piece in pieces], "end_turn", pieces, rate)


def tool(name: str, pieces: Sequence[str], rate: float | None = None) -> Answer:
    """A tool call, its input in these deltas."""
    start = wire.block_start(0, "tool_use", id="toolu_1", name=name, input={})
    return _framed(start, [wire.input_json_delta(piece) for piece in pieces], "tool_use", pieces, rate)


def _framed(start: bytes, deltas: list[bytes], stop: str, pieces: Sequence[str], rate: float | None) -> Answer:
    usage = {"output_tokens": max(1, sum(map(len, pieces)) // 3)}
    end = [wire.block_stop(), wire.message_delta(stop, usage=usage), wire.message_stop()]
    return Answer([wire.message_start(model=MODEL), start, *deltas, *end], rate)


@contextmanager
def serving(answers: dict[str, Answer], core: int | None = 1) -> Iterator[str]:
    """A provider that gives `answers[name]` under `URL/name`; the URL."""
    root = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    with subprocess.Popen(
        [sys.executable, "-m", "bench.server"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": path},
    ) as process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            pickle.dump((answers, core if (os.cpu_count() or 1) > 1 else None), process.stdin)
            process.stdin.flush()
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


class _Connection(asyncio.Protocol):
    """One client's connection: request after request."""

    def __init__(self, answers: dict[str, tuple[list[bytes], bytes, float | None]]) -> None:
        self._answers = answers
        self._data = b""
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, found, body = self._data.partition(b"\r\n\r\n")
        if not found:
            return
        lines = head.split(b"\r\n")
        length = next((int(line[15:]) for line in lines if line.lower().startswith(b"content-length:")), 0)
        if len(body) < length:
            return
        self._data = body[length:]
        chunks, whole, rate = self._answers[lines[0].split(b" ")[1].split(b"/")[1].decode()]
        if b'"stream":true' not in body[:length].replace(b": ", b":"):
            self._transport.write(HEAD % b"application/json" + b"content-length: %d\r\n\r\n" % len(whole) + whole)
            return
        self._transport.write(HEAD % b"text/event-stream" + b"transfer-encoding: chunked\r\n\r\n")
        if rate is None:
            for at in range(0, len(chunks), 400):
                self._transport.write(b"".join(chunks[at : at + 400]))
            return
        loop = asyncio.get_running_loop()
        began = loop.time()

        def send(at: int) -> None:
            if self._transport.is_closing():
                return
            self._transport.write(chunks[at])
            if at + 1 < len(chunks):
                loop.call_at(began + (at + 1) / rate, send, at + 1)

        send(0)


async def _serve(answers: dict[str, Answer]) -> None:
    ready = {}
    for name, answer in answers.items():
        chunks = [b"%x\r\n%b\r\n" % (len(frame), frame) for frame in answer.frames]
        chunks[-1] += b"0\r\n\r\n"
        ready[name] = (chunks, json.dumps(wire.assemble(answer.frames)).encode(), answer.rate)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(ready), "127.0.0.1", 0, backlog=2048)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    # The parent kills us; its death closes our input.
    await asyncio.to_thread(sys.stdin.buffer.read)


def main() -> None:
    """The child."""
    answers, core = pickle.load(sys.stdin.buffer)
    if core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})
    asyncio.run(_serve(answers))


if __name__ == "__main__":
    from bench.server import main as as_module

    # Under the name that the pickles know.
    as_module()
