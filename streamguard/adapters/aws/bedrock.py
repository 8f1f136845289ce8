"""Bedrock's form of the Messages API: a request as AWS takes it, and the answer as server-sent events.

In charge of the two translations. Requests go to `POST /model/MODEL/invoke-with-response-stream`; model and stream
leave the body, the API's version and betas enter it. Events come out in the provider's own JSON, byte for byte; only
the frames around them are ours.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final
from urllib.parse import quote

from streamguard.adapters.aws.event_stream import EventStreamDecoder
from streamguard.adapters.sse.decoder import DecodingStopped, Frame
from streamguard.adapters.sse.frame_names import named
from streamguard.events import Failed
from streamguard.source import SourceFailed

HeaderList = list[tuple[bytes, bytes]]

VERSION: Final = "bedrock-2023-05-31"
"""The version of the Messages API, as Bedrock's bodies name it."""

_REPLACED: Final = frozenset({b"anthropic-version", b"anthropic-beta", b"accept"})


def path_of(model: object) -> str:
    """Return where a model is asked.

    :raises SourceFailed: no path can have that name.
    """
    name = str(model)
    if not name.strip(".") or len(name) > 2048:
        message = f"{name[:80]!r} is no name of a Bedrock model"
        raise SourceFailed(Failed(reason="provider.invalid_request", message=message, sent=False, billable=False))
    return f"/model/{quote(name, safe=':')}/invoke-with-response-stream"


def content_of(body: Mapping[str, Any], headers: HeaderList) -> bytes:
    """Return the body that Bedrock takes.

    :param body: the client's, as patched.
    :param headers: the client's, for its betas.
    """
    betas = [
        beta.strip().decode("latin-1")
        for name, value in headers
        if name == b"anthropic-beta"
        for beta in value.split(b",")
        if beta.strip()
    ]
    kept = {name: value for name, value in body.items() if name not in ("model", "stream")}
    added = {"anthropic_version": VERSION, **({"anthropic_beta": betas} if betas else {})}
    return json.dumps({**added, **kept}, allow_nan=False, separators=(",", ":")).encode("ascii")


def headers_of(headers: HeaderList, *, signed: bool) -> HeaderList:
    """Return the headers that Bedrock takes: a key is a bearer's.

    :param signed: whether the request is signed, and so needs no key.
    """
    out: HeaderList = [(b"accept", b"application/vnd.amazon.eventstream")]
    for name, value in headers:
        if name in _REPLACED or (signed and name in (b"x-api-key", b"authorization")):
            continue
        out.append((b"authorization", b"Bearer " + value) if name == b"x-api-key" else (name, value))
    return out


async def as_sse(pieces: AsyncIterator[bytes], max_event_bytes: int) -> AsyncIterator[bytes]:
    """Yield the events of an AWS event stream as server-sent events.

    :raises SourceFailed: the stream is broken, or was cut inside a message.
    """
    decoder = EventStreamDecoder(max_event_bytes)
    async for piece in pieces:
        try:
            frames = decoder.feed(piece)
        except DecodingStopped as stopped:
            if stopped.frames:
                yield b"".join(map(_frame, stopped.frames))
            raise SourceFailed(stopped.failed) from None
        if frames:
            yield b"".join(map(_frame, frames))
    if decoder.pending:
        message = "the AWS event stream ended inside of a message"
        raise SourceFailed(Failed(reason="transport.reset", message=message, status=200))


def _frame(frame: Frame) -> bytes:
    name, data = frame
    lines = b"".join(b"data: " + line + b"\n" for line in data.splitlines())
    return b"event: " + name + b"\n" + lines + b"\n" if name else named(lines + b"\n")
