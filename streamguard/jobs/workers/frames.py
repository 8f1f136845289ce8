"""What a job's parent and its worker processes say to each other: messages, and frames of them on a socket.

In charge of the words and of their bytes: four bytes of length, then MessagePack. Messages that are sent while the
socket is busy go out together. Both ends are this package, and the socket is inherited: nobody else can speak on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import anyio
import anyio.abc
import msgspec

from streamguard.jobs.asking import Ended
from streamguard.retry.breaker import BreakerView

LENGTH: Final = 4
"""Bytes of a frame's length."""

READ: Final = 256 * 1024
"""Bytes of one read."""


class Begin(msgspec.Struct, tag=True):
    """Parent: what the job is. The first message."""

    spec: bytes
    """The `JobSpec`, pickled."""
    job: str
    question: str
    """The digest of what all rows ask, as the parent has read it."""
    options: Mapping[str, Any]
    """`base_url`, `max_event_bytes`, `partials`."""
    view: bool = False
    """Whether somebody looks at the calls."""


class Ready(msgspec.Struct, tag=True):
    """Child: it takes rows."""

    endpoint: str | None


class Ask(msgspec.Struct, tag=True):
    """Parent: ask for a row."""

    number: int
    key: str
    fingerprint: str
    params: bytes
    """The request as JSON."""
    row: bytes | None = None
    """The row as JSON, where answers are held against its fields."""


class Sent(msgspec.Struct, tag=True):
    """Child: the first attempt of a row is about to be sent."""

    number: int


class Answered(msgspec.Struct, tag=True):
    """Child: what came of a row."""

    number: int
    ended: Ended


class Broke(msgspec.Struct, tag=True):
    """Child: an error that is no row's."""

    kind: str
    """`ledger`, or `job` for everything else."""
    message: str


class Withdraw(msgspec.Struct, tag=True):
    """Parent: interrupt what has sent nothing."""

    by: str


class Interrupt(msgspec.Struct, tag=True):
    """Parent: interrupt every call, or one."""

    by: str
    call: str | None = None


class Pause(msgspec.Struct, tag=True):
    """Parent: send nothing new, or go on (`None`)."""

    by: str | None


class Happened(msgspec.Struct, tag=True):
    """Child: what has happened inside of calls since the last time."""

    attempts: int = 0
    retries: dict[str, int] = {}
    """By the reason of the attempt before."""
    first_tokens: list[float] = []
    """Seconds."""
    cooling: float = 0.0
    """Seconds for which the provider is to be left alone."""
    down: list[BreakerView] = []
    """What is down and asked nowhere else. With something in it, it is told again and again."""
    limits: list[bytes] = []
    """Rate limits that answers stated, pickled."""


class Seen(msgspec.Struct, tag=True):
    """Child: the calls that run, and what telemetry said since the last time; pickled."""

    calls: bytes
    records: list[bytes]


Message = Begin | Ready | Ask | Sent | Answered | Broke | Withdraw | Interrupt | Pause | Happened | Seen

_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(Message)


class Frames:
    """Messages over a socket. `write` must run beside."""

    def __init__(self, stream: anyio.abc.ByteStream) -> None:
        self._stream = stream
        self._out = bytearray()
        self._more = anyio.Event()
        self._in = bytearray()

    def send(self, message: Message) -> None:
        """Send a message soon, after those before it."""
        body = _ENCODER.encode(message)
        self._out += len(body).to_bytes(LENGTH, "big")
        self._out += body
        self._more.set()

    async def write(self) -> None:
        """Write what is sent, until the other end is gone or this is cancelled."""
        try:
            while True:
                await self._more.wait()
                self._more = anyio.Event()
                out, self._out = self._out, bytearray()
                await self._stream.send(bytes(out))
        except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
            return  # the reader sees the end, too

    async def flush(self) -> None:
        """Write what is left, without `write` beside."""
        out, self._out = self._out, bytearray()
        try:
            await self._stream.send(bytes(out))
        except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
            return

    async def receive(self) -> list[Message]:
        """Return the messages that came with one read; none at the other end's end.

        A message that its sender could not finish is none.
        """
        while True:
            try:
                self._in += await self._stream.receive(READ)
            except (OSError, anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
                return []
            if found := self._whole():
                return found

    def _whole(self) -> list[Message]:
        found, at, data = [], 0, self._in
        while len(data) - at >= LENGTH:
            end = at + LENGTH + int.from_bytes(data[at : at + LENGTH], "big")
            if end > len(data):
                break
            found.append(_DECODER.decode(memoryview(data)[at + LENGTH : end]))
            at = end
        if at:
            self._in = data[at:]
        return found
