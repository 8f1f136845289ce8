"""A provider in memory: scripts as a `Source`, in virtual or real time, on both backends.

In charge of playing an attempt's operations to whoever opened it, and of recording what was asked, opened, closed and
would be billed. It knows no sockets; `server` plays the same scripts over them.
"""

from __future__ import annotations

import json
import math
import time
import zlib
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import anyio
import anyio.lowlevel
import msgspec

from streamguard.events import (
    BlockKind,
    BlockStarted,
    BlockStopped,
    Delta,
    Event,
    Failed,
    Metered,
    Ping,
    Started,
    Stopped,
    Usage,
)
from streamguard.pace.limits import Limits
from streamguard.request import Request
from streamguard.source import Attempt, SourceFailed
from streamguard.testing import play, wire
from streamguard.testing.play import Chunk
from streamguard.testing.record import Bill, Exchange
from streamguard.testing.steps import Item, OnAttempt, as_items

if TYPE_CHECKING:
    from streamguard.adapters.anthropic.events import Translator
    from streamguard.adapters.sse.decoder import Decoder

REQUEST = Request(
    {"model": wire.MODEL, "max_tokens": 1024, "messages": [{"role": "user", "content": "Extract."}], "stream": True}
)
"""The request of a scripted source that is given none."""


class Script(msgspec.Struct, frozen=True):
    """What a provider does, attempt by attempt. One definition for memory and sockets."""

    attempts: tuple[tuple[Item, ...], ...]
    """In order; the last one again for all that follow."""
    numbered: tuple[OnAttempt, ...] = ()
    """Attempts by number, which go before."""

    @classmethod
    def of(cls, *attempts: Item | Iterable[Item]) -> Script:
        """Make a script of attempts, each one item or many, and `on_attempt` steps.

        :param attempts: the attempts in order; the last one is played again for all that follow.
        :raises ValueError: no attempts, or a number twice.
        :raises TypeError: an attempt of something that no attempt is made of.
        """
        numbered = tuple(one for one in attempts if isinstance(one, OnAttempt))
        plain = tuple(as_items(one) for one in attempts if not isinstance(one, OnAttempt))
        if not attempts:
            raise ValueError("a script needs at least one attempt")
        numbers = [one.number for one in numbered]
        if len(set(numbers)) < len(numbers):
            raise ValueError(f"on_attempt gives a number twice: {numbers}")
        return cls(plain, numbered)

    def items(self, number: int) -> tuple[Item, ...]:
        """Return the items of attempt `number`.

        :raises LookupError: only other attempts are scripted, by number.
        """
        for one in self.numbered:
            if one.number == number:
                return one.items
        if not self.attempts:
            raise LookupError(f"the script says nothing about attempt {number}, only about {self.numbered}")
        return self.attempts[min(number, len(self.attempts)) - 1]


class ScriptedSource:
    """A `Source` that plays a script. Every `open()` is recorded.

    :param request: what is asked; `None` makes the source opaque.
    :param sees_bytes: whether reads that complete no event, and pings, are shown.
    :param chunk: how the streams are cut; see `Chunk`.
    :param max_event_bytes: the bound on one event of wire steps.
    :param messages: whether streams keep what they said, for `message()`; unbounded for endless scripts.
    """

    def __init__(
        self,
        script: Script,
        *,
        request: Request | Mapping[str, Any] | None = REQUEST,
        sees_bytes: bool = True,
        chunk: Chunk = None,
        max_event_bytes: int = 1_048_576,
        messages: bool = False,
    ) -> None:
        self.script = script
        self.request: Request | None = Request(request) if isinstance(request, Mapping) else request
        self.sees_bytes = sees_bytes
        self.chunk = chunk
        self.max_event_bytes = max_event_bytes
        self.messages = messages
        self.exchanges: list[Exchange] = []
        """Every attempt that was opened, in order."""

    def open(self, attempt: Attempt) -> ScriptedStream:
        """Return the attempt's stream, to be entered once.

        :param attempt: the attempt, by its number.
        """
        return ScriptedStream(self, attempt)

    def rechunked(self, chunk: Chunk) -> ScriptedSource:
        """Return a fresh source of the same script, cut otherwise.

        :param chunk: `whole`, `event`, `byte`, or a seed for random places.
        """
        return ScriptedSource(
            self.script,
            request=self.request,
            sees_bytes=self.sees_bytes,
            chunk=chunk,
            max_event_bytes=self.max_event_bytes,
            messages=self.messages,
        )

    @property
    def opened(self) -> int:
        """How many attempts were opened."""
        return len(self.exchanges)

    @property
    def closed(self) -> int:
        """How many of them are over. Fewer than `opened` after a call: it leaked."""
        return sum(not one.open for one in self.exchanges)

    @property
    def requests(self) -> list[Any]:
        """The request bodies, as patched for each attempt."""
        return [one.body for one in self.exchanges]

    @property
    def billed(self) -> list[Bill]:
        """What the provider bills, attempt by attempt."""
        return [one.bill for one in self.exchanges]

    @property
    def violations(self) -> list[str]:
        """What clients should have done and had not."""
        return [violation for one in self.exchanges for violation in one.violations]


def script(
    *attempts: Item | Iterable[Item],
    request: Request | Mapping[str, Any] | None = REQUEST,
    sees_bytes: bool = True,
    chunk: Chunk = None,
    max_event_bytes: int = 1_048_576,
    messages: bool = False,
) -> ScriptedSource:
    """Make a source that plays one attempt after the other; the last one again for all that follow.

    :param attempts: each one item or many (`steps`), or `on_attempt(n, items)`.
    :param request: the request that the source says it sends.
    :param sees_bytes: whether keep-alives show, as they do on a socket.
    :param chunk: how the stream is cut: `whole`, `event`, `byte`, a seed; as the script has it by default.
    :param max_event_bytes: the most bytes of one event.
    :param messages: whether the source keeps the answer as a message.
    """
    return ScriptedSource(
        Script.of(*attempts),
        request=request,
        sees_bytes=sees_bytes,
        chunk=chunk,
        max_event_bytes=max_event_bytes,
        messages=messages,
    )


def chunkings(source: ScriptedSource, seeds: Sequence[int] = (1, 2)) -> Iterator[tuple[str, ScriptedSource]]:
    """Return the same script whole, per event, per byte and cut at random: a name and a fresh source of each.

    Per byte means per character where the script has neutral events, whose deltas are cut then.

    :param source: the source to cut.
    :param seeds: one random cut for each.
    """
    chunks: tuple[tuple[str, Chunk], ...] = (("whole", "whole"), ("event", "event"), ("byte", "byte"))
    for name, chunk in (*chunks, *((f"seed {seed}", seed) for seed in seeds)):
        yield name, source.rechunked(chunk)


class ScriptedStream:
    """One attempt being played: the context manager that `open()` gives, and the `EventStream` inside it."""

    def __init__(self, source: ScriptedSource, attempt: Attempt) -> None:
        self._source = source
        self._attempt = attempt
        self._ops: Iterator[play.Op] = iter(())
        self._ended = False
        self._eof_ends = False
        self._anchor = 0.0
        self._decoder: Decoder | None = None
        self._translator: Translator | None = None
        self._inflate: Any = None
        self._said: list[Event] = []
        self._stopped = False
        self.exchange: Exchange
        self.limits: Limits | None = None
        """The rate limits that the script's response head states."""

    async def __aenter__(self) -> Self:
        items = self._source.script.items(self._attempt.number)
        request = self._attempt.request
        self.exchange = Exchange(
            number=self._attempt.number,
            body=None if request is None else dict(request.body),
            opened_at=anyio.current_time(),
            arrived_monotonic=time.monotonic(),
            facts=play.facts(items),
        )
        self._source.exchanges.append(self.exchange)
        self._ops = play.operations(
            items,
            sockets=False,
            chunk=self._source.chunk,
            seed=self._attempt.number,
            known=self.exchange.facts,
        )
        try:
            await self._head()
        except BaseException:
            self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        exchange = self.exchange
        if exchange.closed_at is None:
            exchange.closed_at = anyio.current_time()
            if not exchange.complete:
                exchange.disconnected_at = exchange.closed_at
                exchange.disconnected_monotonic = time.monotonic()
        self._ended = True
        self._ops = iter(())

    async def _head(self) -> None:
        await anyio.lowlevel.checkpoint()
        for op in self._ops:
            match op:
                case play.Head():
                    self._answered(op)
                    return
                case play.Raise():
                    self.exchange.complete = True
                    if isinstance(op.error, SourceFailed):
                        failed = op.error.failed
                        self.exchange.refused = not (failed.sent and failed.billable)
                        self.exchange.status = failed.status
                    raise op.error
                case play.Wait():
                    await _sleep(op.seconds)
                case play.Stop():
                    self.exchange.complete = op.how == "end"
                    raise SourceFailed(_broken("the connection ended before the response head", status=None))
                case _:
                    raise ValueError(f"{op!r} stands before the response head of a script; in memory only pauses can")

    def _answered(self, head: play.Head) -> None:
        self.exchange.head_at = anyio.current_time()
        self.exchange.status = head.code
        self._eof_ends = head.framing == "eof"
        headers = {name.lower(): value for name, value in head.headers}
        if (whole := _whole(head)) is not None:
            self._ops = iter((play.Write(whole), play.Stop("end")))
            return
        if head.code != 200 or head.body is not None:
            self.exchange.complete = True
            raise SourceFailed(_refused(head.code, headers, head.body or b""))
        self.limits = _limits(headers)
        if headers.get("content-encoding") == "gzip":
            self._inflate = zlib.decompressobj(wbits=31)

    def __aiter__(self) -> AsyncIterator[Sequence[Event]]:
        return self

    async def __anext__(self) -> Sequence[Event]:
        if self._ended:
            raise StopAsyncIteration
        try:
            await anyio.lowlevel.checkpoint()
            while True:
                batch = await self._next()
                if batch or self._source.sees_bytes:
                    return batch
        except BaseException:
            # A cancelled read ends the iteration, as it does on a real connection.
            self._ended = True
            raise

    async def _next(self) -> Sequence[Event]:
        for op in self._ops:
            match op:
                case play.Emit():
                    self.exchange.deltas_sent += sum(isinstance(one, Delta) for one in op.events)
                    return self._keep(op.events)
                case play.Write():
                    self.exchange.deltas_sent += op.deltas
                    self.exchange.bytes_sent += len(op.data)
                    if op.data:
                        return self._keep(self._decoded(op.data))
                case play.Wait():
                    await _sleep(op.seconds)
                case play.Anchor():
                    self._anchor = anyio.current_time()
                case play.Due():
                    await anyio.sleep_until(self._anchor + op.seconds)
                case play.Expect():
                    await _sleep(op.within)
                    self.exchange.violations.append(
                        f"attempt {self.exchange.number}: the client was still there after {op.within:g} s"
                    )
                case play.Raise():
                    self.exchange.complete = True
                    raise op.error
                case play.Stop():
                    return self._end(op)
                case play.Verbatim():
                    raise ValueError("raw() is for sockets: bytes outside of HTTP framing have no meaning in memory")
        raise StopAsyncIteration

    def _keep(self, events: Sequence[Event]) -> Sequence[Event]:
        if not self._stopped and any(isinstance(one, Stopped) for one in events):
            self._stopped = True
        if self._source.messages:
            self._said += events
        if not self._source.sees_bytes:
            events = [one for one in events if not isinstance(one, Ping)]
        return events

    def _end(self, stop: play.Stop) -> Sequence[Event]:
        self.exchange.complete = stop.how in ("end", "cut")
        self._ops = iter(())
        in_order = stop.how == "end" or (stop.how != "rst" and self._eof_ends)
        if in_order or self._stopped:
            # The answer is final at its own end, whatever becomes of the connection.
            last = self._translator.last_words("") if self._translator is not None and in_order else None
            if last is not None:
                return [last]
            raise StopAsyncIteration
        what = "was reset" if stop.how == "rst" else "closed before the body was complete"
        return [_broken(f"the connection {what}")]

    def _decoded(self, data: bytes) -> Sequence[Event]:
        if self._decoder is None or self._translator is None:
            from streamguard.adapters.anthropic.events import Translator
            from streamguard.adapters.sse.decoder import Decoder

            self._decoder, self._translator = Decoder(self._source.max_event_bytes), Translator()
        from streamguard.adapters.sse.decoder import EventTooLarge

        if self._inflate is not None:
            data = self._inflate.decompress(data)
        try:
            return self._translator.translate(self._decoder.feed(data))
        except EventTooLarge as error:
            return [*self._translator.translate(error.frames), error.failed]

    def message(self) -> Any:
        """Return the answer as the provider has it without streaming; `None` unless the source keeps messages."""
        return wire.assemble([wire.encode(one) for one in self._said]) if self._source.messages else None


async def _sleep(seconds: float) -> None:
    if math.isinf(seconds):
        await anyio.sleep_forever()
    await anyio.sleep(seconds)


def _broken(message: str, status: int | None = 200) -> Failed:
    return Failed(reason="transport.reset", message=message, status=status)


def _whole(head: play.Head) -> bytes | None:
    """The event stream of a whole message that came as JSON, as the adapter makes it; `None` for anything else."""
    from streamguard.adapters.anthropic.opening import as_stream, is_message

    try:
        body: object = json.loads(head.body or b"") if head.code == 200 else None
    except ValueError:
        return None
    return b"".join(as_stream(body)) if isinstance(body, dict) and is_message(body) else None


def _limits(headers: Mapping[str, str]) -> Limits | None:
    """The rate limits that a response head states."""
    from streamguard.adapters.anthropic.limits import limits_of

    return limits_of(headers)


def _refused(code: int, headers: Mapping[str, str], body: bytes) -> Failed:
    """What a response is that is no event stream."""
    from streamguard.adapters.anthropic import failures

    try:
        parsed: object = json.loads(body)
    except ValueError:
        parsed = body.decode("utf-8", "backslashreplace")
    if code == 200 and not (isinstance(parsed, dict) and "error" in parsed):
        kind = headers.get("content-type", "no content type")
        return failures.undecodable(f"the response is no event stream but {kind}", body)
    return failures.from_body(parsed, status=code, headers=headers)


def answer(
    text: str,
    *,
    chunk: int = 4,
    thinking: str = "",
    stop_reason: str = "end_turn",
    usage: Usage | None = None,
    index: int = 0,
) -> list[Event]:
    """Return the events of a good answer: a text block, after a thinking block if there is thinking.

    :param chunk: characters of one delta.
    :param usage: the final count; 12 input tokens and a token for every four characters unless given.
    :param text: the whole text.
    :param thinking: the text of a thinking block before it; none by default.
    :param stop_reason: the provider's stop reason.
    :param index: the index of the first block.
    """
    counts = usage or Usage(input_tokens=wire.INPUT_TOKENS, output_tokens=wire.counted(len(thinking) + len(text)))
    events: list[Event] = [_started(counts)]
    if thinking:
        events += _block(index, "thinking", "thinking", thinking, chunk)
        index += 1
    events += _block(index, "text", "text", text, chunk)
    return [*events, Metered(counts, stop_reason), Stopped(stop_reason)]


def tool_answer(
    name: str,
    json_text: str,
    *,
    chunk: int = 4,
    text: str = "",
    stop_reason: str = "tool_use",
    usage: Usage | None = None,
) -> list[Event]:
    """Return the events of a good tool call, after a text block if there is text.

    :param name: the tool's name.
    :param json_text: its input, as JSON.
    :param chunk: characters of one delta.
    :param text: a text block before it; none by default.
    :param stop_reason: the provider's stop reason.
    :param usage: the final count.
    """
    counts = usage or Usage(input_tokens=wire.INPUT_TOKENS, output_tokens=wire.counted(len(text) + len(json_text)))
    before = _block(0, "text", "text", text, chunk) if text else []
    call = _block(1 if text else 0, "tool_input", "tool_use", json_text, chunk, name=name, id=wire.TOOL_ID)
    return [_started(counts), *before, *call, Metered(counts, stop_reason), Stopped(stop_reason)]


def _started(counts: Usage) -> Started:
    return Started(wire.MESSAGE_ID, wire.MODEL, Usage(input_tokens=counts.input_tokens))


def _block(index: int, kind: BlockKind, type_: str, text: str, chunk: int, **names: str) -> list[Event]:
    deltas = [Delta(index, kind, piece) for piece in wire.pieces(text, chunk)]  # type: ignore[arg-type]
    return [BlockStarted(index, kind, type_, **names), *deltas, BlockStopped(index)]
