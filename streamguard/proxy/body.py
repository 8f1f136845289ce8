"""A client's request body: read within limits, decompressed within limits, parsed so that nobody could read it
otherwise.

In charge of one thing: from ASGI messages to `Asked`, what the guards need to know of a request, or a refusal. The
bytes as they came are kept: they are what goes upstream wherever nothing has to change.
"""

from __future__ import annotations

import contextlib
import json
import zlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any, Final, TypeVar

import anyio
import anyio.to_thread
import msgspec
from anyio.lowlevel import RunVar

from streamguard.budgets.upper_bound import most_input
from streamguard.files.strict_json import RepeatedName, finite, no_constant, unique
from streamguard.guards.metering import input_signs, input_weight
from streamguard.http.limits import Limits
from streamguard.http.refusals import Refused
from streamguard.proxy.access import Headers, value
from streamguard.proxy.memory import Hold, counted
from streamguard.request import Request

T = TypeVar("T")
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

IN_A_THREAD: Final = 64 * 1024
"""Bytes from which a body is parsed beside the event loop, whose other streams go on meanwhile."""

INFLATE_STEP: Final = 1_048_576

KINDS: Final[Mapping[str, tuple[type | tuple[type, ...], str]]] = {
    "model": (str, "a text"),
    "max_tokens": (int, "a whole number"),
    "messages": (list, "a list"),
    "stream": (bool, "true or false"),
    "system": ((str, list), "a text or a list"),
    "tools": (list, "a list"),
    "thinking": (dict, "an object"),
    "output_config": (dict, "an object"),
    "output_format": (dict, "an object"),
}
"""The fields that routes, guards and budgets read, and what they must be where they are given."""

NEEDED: Final = ("model", "messages")


class ClientGone(Exception):
    """The client went away before its request was complete."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A Messages request."""

    raw: bytes
    """The body as it came, decompressed."""
    request: Request

    @property
    def body(self) -> Mapping[str, Any]:
        """The body, parsed."""
        return self.request.body

    @property
    def model(self) -> str:
        """The model asked for."""
        model: str = self.body["model"]
        return model

    @property
    def streams(self) -> bool:
        """Whether the client wants server-sent events."""
        return self.body.get("stream") is True


async def read_body(headers: Headers, receive: Receive, limits: Limits, hold: Hold) -> bytes:
    """The body, decompressed.

    :param hold: takes what it needs of memory.
    :raises Refused: it is too large, or of a kind that is not taken.
    :raises ClientGone: it never came.
    """
    kind = (value(headers, b"content-type") or "").partition(";")[0].strip().lower()
    if kind != "application/json":
        # It also keeps browsers from sending a request without asking first (CORS).
        raise Refused("bad_content_type")
    encoding = (value(headers, b"content-encoding") or "identity").strip().lower()
    if encoding not in ("identity", "gzip", "x-gzip") or sum(name == b"content-encoding" for name, _ in headers) > 1:
        raise Refused("bad_content_encoding", headers={"accept-encoding": "gzip, identity"})
    pieces: list[bytes] = []
    size, more = 0, True
    # How long it may take is the connection's business (`http.connection`), whoever reads it.
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        piece: bytes = message.get("body", b"")
        size += len(piece)
        if size > limits.body_bytes:
            raise Refused("body_too_large", f"at most {limits.body_bytes} bytes")
        hold.body(size)
        pieces.append(piece)
        more = message.get("more_body", False)
    if encoding != "identity":
        content = await _beside(inflated, pieces, limits.body_bytes)
        hold.body(len(content))
        return content
    return b"".join(pieces)


def inflated(pieces: Iterable[bytes], most: int) -> bytes:
    """A gzip body, decompressed step by step: never more than a step beyond `most` is in memory.

    :raises Refused: it is broken, cut, or larger than `most` bytes.
    """
    gzip = zlib.decompressobj(zlib.MAX_WBITS | 16)
    out: list[bytes] = []
    size = 0
    for piece in pieces:
        rest = piece
        while rest:
            if gzip.eof:
                raise Refused("bad_compression", "something follows its end")
            try:
                out.append(gzip.decompress(rest, INFLATE_STEP))
            except zlib.error:
                raise Refused("bad_compression") from None
            size += len(out[-1])
            if size > most:
                raise Refused("body_too_large", f"at most {most} bytes, decompressed too")
            rest = gzip.unused_data or gzip.unconsumed_tail
    while not gzip.eof:
        # A full last step may have left output behind.
        try:
            out.append(gzip.decompress(b"", INFLATE_STEP))
        except zlib.error:
            raise Refused("bad_compression") from None
        size += len(out[-1])
        if size > most:
            raise Refused("body_too_large", f"at most {most} bytes, decompressed too")
        if not out[-1]:
            raise Refused("bad_compression", "it ends before its end mark")
    return b"".join(out)


async def asked(raw: bytes, limits: Limits, hold: Hold) -> Asked:
    """A body, understood.

    :param hold: takes what its values need of memory.
    :raises Refused: it is no Messages request, or has too many values.
    """
    if len(raw) < IN_A_THREAD:
        hold.values(len(raw), counted(raw, limits.body_values))
        body = parsed(raw)
    else:
        hold.values(len(raw), await _beside(counted, raw, limits.body_values))
        body = await _beside(parsed, raw)
    return Asked(raw=raw, request=Request.owning(body))


_heavy: RunVar[anyio.CapacityLimiter] = RunVar("streamguard_heavy_bodies")


async def _beside(work: Callable[..., T], *arguments: Any) -> T:
    """Do heavy work in a thread, one piece of it at a time: the loop's thread shares its lock with one other only."""
    limiter = _heavy.get(None)
    if limiter is None:
        limiter = anyio.CapacityLimiter(1)
        _heavy.set(limiter)
    return await anyio.to_thread.run_sync(work, *arguments, limiter=limiter)


def parsed(raw: bytes) -> dict[str, Any]:
    """The JSON object of a body, which every reader reads alike: UTF-8, no name twice, no `NaN`.

    :raises Refused: it is none, or a field that we read is of another kind.
    """
    try:
        body = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=unique,
            parse_constant=no_constant,
            parse_int=_integer,
            parse_float=finite,
        )
    except RepeatedName as error:
        raise Refused("duplicate_name", json.dumps(error.name[:80])) from None
    except UnicodeDecodeError as error:
        raise Refused("bad_json", f"it is no UTF-8 at byte {error.start}") from None
    except (ValueError, RecursionError) as error:
        said = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise Refused("bad_json", said) from None
    if not isinstance(body, dict):
        raise Refused("bad_json", "it is something else than an object")
    for name in NEEDED:
        if name not in body:
            raise Refused("bad_request", f"`{name}` is missing")
    for name, (kind, said) in KINDS.items():
        given = body.get(name)
        if (given is None and name not in NEEDED) or (isinstance(given, kind) and not _is_bool_for_int(given, kind)):
            continue
        raise Refused("bad_request", f"`{name}` must be {said}")
    return body


def _is_bool_for_int(given: object, kind: object) -> bool:
    return kind is int and isinstance(given, bool)


async def measure(asked: Asked) -> None:
    """Work out beside the loop what is asked of a large request again and again: its bytes, its weight, its bound."""
    if len(asked.raw) < IN_A_THREAD:
        return
    for work in (input_weight, input_signs, lambda request: request.input_bytes, most_input):
        with contextlib.suppress(TypeError, ValueError, RecursionError):  # which is said when a budget asks
            await _beside(work, asked.request)


async def content_of(asked: Asked, body: Mapping[str, Any]) -> bytes:
    """`streaming`, beside the loop where the body is large."""
    if len(asked.raw) < IN_A_THREAD or (asked.streams and body is asked.body):
        return streaming(asked, body)
    return await _beside(streaming, asked, body)


def streaming(asked: Asked, body: Mapping[str, Any]) -> bytes:
    """The bytes of a request for a stream: the client's own where they say just that."""
    if asked.streams and (body is asked.body or body == asked.body):
        return asked.raw
    text = {**body, "stream": True}
    try:
        return json.dumps(text, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8")
    except UnicodeEncodeError:
        # A lone surrogate: half an emoji that somebody cut.
        return json.dumps(text, allow_nan=False, separators=(",", ":")).encode("ascii")


def _integer(digits: str) -> int:
    if len(digits) > 400:
        raise ValueError("a number with too many digits")
    return int(digits)
