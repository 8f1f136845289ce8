"""The vocabulary of scripts: what a provider does in one attempt, step by step.

In charge of the steps (frozen values) and of the functions that write them. It knows nothing of time, sockets and
sources: `play` makes operations of steps, `scripted` plays them in memory, `server` over sockets.

An attempt is a sequence of items, each of which is

* a neutral `Event`, or a list of them: one batch, one write;
* `bytes`, the same as `send(bytes)`: stream bytes, frames usually;
* an exception: raised to whoever reads (over a socket: the connection is reset);
* a step of this file;
* a `Failed`: before anything else the response head says so (its status), later an error inside the stream; with a
  reason under `transport.` the connection breaks accordingly.

What stands before a `status` step happens before the response head is sent; without one the head comes first.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec

from streamguard.events import Event, Failed, Restarted
from streamguard.testing import wire

Framing = Literal["chunked", "eof"]
"""How the end of a body is told: by its last chunk, or by the end of the connection."""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a provider does."""


class Status(Step, frozen=True):
    """The response head; with a body the whole response, sent with its length."""

    code: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    framing: Framing = "chunked"


class Send(Step, frozen=True):
    """Bytes of the body."""

    data: bytes


class Raw(Step, frozen=True):
    """Bytes on the socket as they are, outside of any HTTP framing. Sockets only."""

    data: bytes


class Split(Step, frozen=True):
    """From here on each write is cut: into `every` bytes, at `offsets` from its start, or at random by `seed`."""

    every: int | None = None
    offsets: tuple[int, ...] = ()
    seed: int | None = None


class Pause(Step, frozen=True):
    """Nothing, for so many seconds. Infinite for a stall."""

    seconds: float


class Drip(Step, frozen=True):
    """From here on the bytes come at this rate. `None` ends it."""

    bytes_per_second: float | None


class Pace(Step, frozen=True):
    """From here on items come at this rate, on a fixed schedule that catches up when late. `None` ends it."""

    per_second: float | None


class Gather(Step, frozen=True):
    """From here on writes are gathered into socket writes of about this many bytes (each still its own HTTP chunk)."""

    size: int


class End(Step, frozen=True):
    """How the connection ends. The rest of the script is void."""

    how: Literal["fin", "rst", "half_close"]


class OmitLastChunk(Step, frozen=True):
    """The script runs to its end, but the body's end is not told: the connection just closes."""


class Repeat(Step, frozen=True):
    """Steps over and over. `times` is `None` for ever."""

    items: tuple[Any, ...]
    times: int | None = None


class Encode(Step, frozen=True):
    """The whole body, wherever this stands, is compressed; the last `cut` bytes of it are never sent."""

    coding: Literal["gzip"] = "gzip"
    cut: int = 0


class ExpectDisconnect(Step, frozen=True):
    """Wait for the client to go; if it has not within so many seconds, that is a violation, and the script goes on."""

    within: float


class Truth(Step, frozen=True, kw_only=True):
    """What the provider bills, whatever it says on the wire.

    An attempt that runs to its end is billed `output`. After a disconnect it is billed the tokens of the deltas that
    were sent, plus `lag`, up to `output`; all of `output` if the backend does not stop.
    """

    input: int | None = None
    """Input tokens; `None`: as the script's own usage says."""
    output: int | None = None
    """Output tokens of the whole answer; `None`: as the script's own usage says."""
    cache_read: int = 0
    cache_write: int = 0
    lag: int = 0
    """Output tokens made between the disconnect and the moment the provider notices."""
    stops: bool = True
    """Whether a disconnect stops the generation. Some backends finish, and bill, every answer."""


class OnAttempt(Step, frozen=True):
    """The items of one attempt, by its number. For `script()`, not inside an attempt."""

    number: int
    items: tuple[Any, ...]


Item = Event | Sequence[Event] | bytes | BaseException | Step
"""What an attempt is made of."""


def status(
    code: int = 200,
    headers: Mapping[str, str] | None = None,
    body: bytes | str | Mapping[str, Any] | None = None,
    *,
    framing: Framing = "chunked",
) -> Status:
    """Answer with a response head. A status of 400 and above without a body has the error body that belongs to it.

    :param body: the whole body; a mapping is sent as JSON. Without one, what follows in the script is the body.
    :param code: the status.
    :param headers: of the response.
    :param framing: how the body's end is told.
    """
    given = dict(headers or {})
    if body is None and code >= 400:
        type_ = next((name for name, number in wire.ERROR_STATUS.items() if number == code), "api_error")
        body = wire.error_body(type_)
    if isinstance(body, Mapping):
        given.setdefault("content-type", "application/json")
        body = json.dumps(body)
    data = body.encode() if isinstance(body, str) else body
    return Status(code=code, headers=tuple(given.items()), body=data, framing=framing)


def error(
    type: str = "overloaded_error",  # noqa: A002
    message: str = "",
    *,
    status_code: int | None = None,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Status:
    """Answer with an error response: the status that belongs to the type, and the JSON. `code` is
    `error.details.error_code`.

    :param type: the provider's type of the error.
    :param message: its words.
    :param status_code: another status than the type's.
    :param headers: of the response.
    """
    return status(status_code or wire.ERROR_STATUS[type], headers, wire.error_body(type, message, code=code))


def send(data: bytes | Iterable[bytes]) -> Send:
    """Send bytes of the body, in one write.

    :param data: the bytes, or pieces of them.
    """
    return Send(data=data if isinstance(data, bytes) else b"".join(data))


def event(type: str, data: Mapping[str, Any] | bytes | str, style: wire.Style = wire.PLAIN) -> Send:  # noqa: A002
    """Send one SSE event, of any type and with any data.

    :param type: its name.
    :param data: its data; a mapping is sent as JSON.
    :param style: how the event is written.
    """
    return Send(data=wire.frame(type, data, style))


def raw(data: bytes) -> Raw:
    """Bytes on the socket as they are: malformed heads, bad chunk sizes. Sockets only.

    A script that begins with them sends no head of its own. The connection is not used again.

    :param data: the bytes.
    """
    return Raw(data=data)


def split(*, every: int | None = None, offsets: Sequence[int] = (), seed: int | None = None) -> Split:
    """Cut each write from here on in pieces, each a write of its own. `split()` ends it.

    :param every: bytes of a piece.
    :param offsets: where to cut, in bytes from the start of a write.
    :param seed: cuts at random places.
    :raises ValueError: more than one of the three, or a piece of no bytes.
    """
    if sum((every is not None, bool(offsets), seed is not None)) > 1:
        raise ValueError("split takes one of every, offsets and seed")
    if every is not None and every < 1:
        raise ValueError(f"split needs at least one byte a piece, not {every}")
    return Split(every=every, offsets=tuple(sorted(offsets)), seed=seed)


def pause(seconds: float) -> Pause:
    """Send nothing for some seconds.

    :param seconds: how long, 0 or more.
    :raises ValueError: a negative number.
    """
    if not seconds >= 0:
        raise ValueError(f"a pause is 0 seconds or longer, not {seconds}")
    return Pause(seconds=seconds)


sleep = pause


def stall() -> Pause:
    """Send nothing any more, with the connection open."""
    return Pause(seconds=float("inf"))


def drip(bytes_per_second: float | None) -> Drip:
    """Send the bytes from here on at this rate: one by one, or about twenty writes a second. `None` ends it.

    :param bytes_per_second: the rate.
    """
    return Drip(bytes_per_second=_rate("drip", bytes_per_second))


def pace(per_second: float | None) -> Pace:
    """Send items from here on at this rate, on a fixed schedule that catches up when late. `None` ends it.

    :param per_second: items a second.
    """
    return Pace(per_second=_rate("pace", per_second))


def _rate(name: str, rate: float | None) -> float | None:
    if rate is not None and not rate > 0:
        raise ValueError(f"{name} needs a rate above 0, not {rate}")
    return rate


def gather(size: int = 65_536) -> Gather:
    """Gather writes from here on into socket writes of about `size` bytes, each still its own HTTP chunk."""
    return Gather(size=size)


def fin() -> End:
    """Close the connection in order, in the middle of whatever was sent. A body without chunks ends well by this."""
    return End(how="fin")


def rst() -> End:
    """Reset the connection."""
    return End(how="rst")


def half_close() -> End:
    """End the provider's side of the connection while the provider still listens: the client sees the end of the
    stream.
    """
    return End(how="half_close")


def omit_last_chunk() -> OmitLastChunk:
    """Run the script to its end, then close the connection without the body's last chunk."""
    return OmitLastChunk()


def repeat(items: Item | Iterable[Item], times: int | None = None) -> Repeat:
    """Send items over and over, `times` times or without an end.

    :param items: one item or many.
    :raises ValueError: there is nothing to repeat.
    """
    many = as_items(items)
    if not many:
        raise ValueError("repeat needs something to repeat")
    return Repeat(items=many, times=times)


def encode(coding: Literal["gzip"] = "gzip", *, cut: int = 0) -> Encode:
    """Compress the whole body, wherever this stands; the last `cut` bytes of it are never sent.

    :param coding: `gzip`.
    """
    return Encode(coding=coding, cut=cut)


def expect_disconnect(within: float) -> ExpectDisconnect:
    """Wait for the client to go; a violation is recorded if it has not within so many seconds.

    :param within: seconds.
    """
    return ExpectDisconnect(within=within)


def truth(
    input: int | None = None,  # noqa: A002
    output: int | None = None,
    *,
    cache_read: int = 0,
    cache_write: int = 0,
    lag: int = 0,
    stops: bool = True,
) -> Truth:
    """Say what the provider bills: see `Truth`.

    :param input: input tokens; as the script's own usage says by default.
    :param output: output tokens of the whole answer; likewise.
    :param cache_read: tokens read from a cache.
    :param cache_write: tokens written to a cache.
    :param lag: output tokens made between a disconnect and the moment the provider notices.
    :param stops: whether a disconnect stops the generation.
    """
    return Truth(input=input, output=output, cache_read=cache_read, cache_write=cache_write, lag=lag, stops=stops)


def on_attempt(number: int, items: Item | Iterable[Item]) -> OnAttempt:
    """Play these items on attempt `number` (1-based), whatever stands at that place in the script.

    :param items: one item or many.
    """
    return OnAttempt(number=number, items=as_items(items))


def as_items(items: Item | Iterable[Item]) -> tuple[Item, ...]:
    """An attempt's items as a flat tuple. A list of events stays one item, a batch; any other list is spliced in.

    :raises TypeError: something that no attempt is made of.
    """
    if isinstance(items, bytes | BaseException | Event | Step):
        if isinstance(items, OnAttempt | Restarted):
            raise TypeError(f"no attempt is made of {items!r}")
        return (items,)
    if isinstance(items, str) or not isinstance(items, Iterable):
        raise TypeError(f"an attempt is made of events, lists of events, bytes, exceptions and steps, not of {items!r}")
    flat: list[Item] = []
    for item in items:
        batch = tuple(item) if isinstance(item, list | tuple) else ()
        if batch and all(isinstance(one, Event) and not isinstance(one, Restarted) for one in batch):
            flat.append(batch)
        else:
            flat += as_items(item)
    return tuple(flat)


def is_early_failure(item: Item) -> bool:
    """Whether an item that comes first stands in place of the response head."""
    return isinstance(item, Failed | BaseException)
