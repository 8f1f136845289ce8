"""A provider over real sockets: a scripted HTTP/1.1 server on loopback that speaks the Messages API.

In charge of choosing the attempt's script for each request, of playing it on the socket, and of recording what was
asked, sent, seen and would be billed. It plays the same scripts as `scripted` does in memory.

It serves `POST /v1/messages` (a stream where the request says `"stream": true`, else the same answer as one JSON),
`POST /v1/messages/count_tokens`, `GET /v1/models` and `GET /v1/models/ID`; 404 otherwise. It runs in the caller's own
loop (`async with`), in a thread (`in_thread`) or on another core (`in_process`).
"""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias
from urllib.parse import parse_qsl

import anyio
import anyio.abc
import anyio.from_thread

from streamguard.testing import play, wire
from streamguard.testing.batches import BatchProvider, Response
from streamguard.testing.connection import Connection, Gone, HttpRequest, json_response, response_head
from streamguard.testing.play import Chunk
from streamguard.testing.record import Bill, Exchange
from streamguard.testing.scripted import Script, ScriptedSource
from streamguard.testing.steps import Encode, Framing, Item, gather, pace, repeat

ATTEMPT_HEADER = "x-streamguard-attempt"
"""A request with this header is answered by the attempt of that number; without, by the order of requests."""

Scripted: TypeAlias = "Script | ScriptedSource | Item | Iterable[Item]"
"""What can be played: a script, the script of a source, or one attempt's items."""


class ScriptedServer:
    """A scripted server on 127.0.0.1. Enter it to serve; leaving closes everything.

    :param attempts: as for `script()`; or one `Script` or scripted source; or one mapping of names to any of those,
        chosen from by the value of the request header `by`.
    :param by: the header whose value names the script, for a mapping.
    :param script_for: chooses the script of each request instead. Attempts are counted for each script it returns.
    :param attempt_header: the header that names the attempt, 1-based, where requests have it.
    :param chunk: how the streams are cut; see `Chunk`. Each piece is a write, and an HTTP chunk, of its own.
    :param input_tokens: the answer of `count_tokens`.
    :param port: the port to listen on; 0 for any free one.
    :param keep: how many of the latest requests are recorded; `None` for all. For a server that serves for hours.
    :param batches: answers requests about Message Batches; without it they are unknown.
    """

    def __init__(
        self,
        *attempts: Scripted | Mapping[str, Scripted],
        by: str = "x-script",
        script_for: Callable[[Exchange], Scripted] | None = None,
        attempt_header: str = ATTEMPT_HEADER,
        chunk: Chunk = None,
        input_tokens: int = wire.INPUT_TOKENS,
        port: int = 0,
        keep: int | None = None,
        batches: BatchProvider | None = None,
    ) -> None:
        self.batches = batches
        """The provider's side of Message Batches, if it has any."""
        self._named: dict[str, Script] | None = None
        self._script: Script | None = None
        if len(attempts) == 1 and isinstance(attempts[0], Mapping):
            self._named = {name: as_script(scripted) for name, scripted in attempts[0].items()}
        elif len(attempts) == 1:
            self._script = as_script(attempts[0])  # type: ignore[arg-type]
        elif attempts:
            self._script = Script.of(*attempts)  # type: ignore[arg-type]
        elif script_for is None:
            raise ValueError("a scripted server needs attempts, a mapping of them or script_for")
        self._by = by
        self._script_for = script_for
        self._attempt_header = attempt_header.lower()
        self._chunk = chunk
        self._input_tokens = input_tokens
        self._port = port
        self._keep = keep
        self._counts: list[tuple[Script, list[int]]] = []
        self._listener: socket.socket | None = None
        self._tasks: anyio.abc.TaskGroup | None = None
        self.url = ""
        """`http://127.0.0.1:PORT`, while it serves and after."""
        self.exchanges: list[Exchange] = []
        """Every request for messages, in order of arrival."""
        self.others: list[Exchange] = []
        """Every other request."""
        self.connections = 0
        """How many connections were accepted."""
        self.errors: list[str] = []
        """What was wrong with requests and scripts, as clients were told by a 400, 404 or 500 of the server's own."""

    @property
    def requests(self) -> list[Any]:
        """The bodies of all requests for messages."""
        return [one.body for one in self.exchanges]

    @property
    def billed(self) -> list[Bill]:
        """What the provider bills, request by request."""
        return [one.bill for one in self.exchanges]

    @property
    def violations(self) -> list[str]:
        """What clients should have done and had not."""
        return [violation for one in self.exchanges for violation in one.violations]

    async def __aenter__(self) -> Self:
        if self._tasks is not None:
            raise RuntimeError("this server serves already")
        self._listener = socket.create_server(("127.0.0.1", self._port), backlog=1024)
        self._listener.setblocking(False)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        self._tasks.start_soon(self._accept, self._listener, self._tasks)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tasks, self._tasks = self._tasks, None
        if tasks is None or self._listener is None:
            return
        tasks.cancel_scope.cancel()
        try:
            # Not the block's own error: it would come out inside of an exception group.
            await tasks.__aexit__(None, None, None)
        finally:
            self._listener.close()

    @contextmanager
    def in_thread(self, backend: Literal["asyncio", "trio"] = "asyncio") -> Iterator[Self]:
        """Serve from a thread with a loop of its own, for synchronous clients.

        :param backend: `asyncio` or `trio`.
        """
        with (
            anyio.from_thread.start_blocking_portal(backend) as portal,
            portal.wrap_async_context_manager(self),
        ):
            yield self

    @contextmanager
    def in_process(self, *, core: int | None = None) -> Iterator[Self]:
        """Serve from a process of its own, for benchmarks. Its records are here once the block is left.

        :param core: the CPU to run on, where the platform has a say in it.
        :raises ValueError: the server has a `script_for`, a function of this process.
        """
        from streamguard.testing.process import serving

        if self._script_for is not None:
            raise ValueError("script_for is a function of this process: in_process() takes scripts")
        options = {
            "by": self._by,
            "attempt_header": self._attempt_header,
            "chunk": self._chunk,
            "input_tokens": self._input_tokens,
        }
        with serving(ScriptedServer, self._named or self._script, options, core) as child:
            self.url = child.url
            yield self
        self.exchanges, self.others = child.exchanges, child.others
        self.connections, self.errors = child.connections, child.errors

    async def _accept(self, listener: socket.socket, tasks: anyio.abc.TaskGroup) -> None:
        while True:
            try:
                accepted, _ = listener.accept()
            except BlockingIOError:
                await anyio.wait_readable(listener)
            else:
                self.connections += 1
                tasks.start_soon(self._serve, accepted)

    async def _serve(self, accepted: socket.socket) -> None:
        with accepted:
            connection = Connection(accepted)
            try:
                while (request := await connection.request()) is not None:
                    if not await self._respond(connection, request):
                        return
            except Gone:
                return
            except ValueError as error:
                self.errors.append(f"request: {error}")

    def _record(self, records: list[Exchange], exchange: Exchange) -> None:
        """Keep a request, and forget those beyond `keep`."""
        records.append(exchange)
        if self._keep is not None and len(records) > self._keep:
            del records[: len(records) - self._keep]

    async def _respond(self, connection: Connection, request: HttpRequest) -> bool:
        """Answer one request. Whether the connection can be used again."""
        exchange = Exchange(
            number=0,
            path=request.path,
            method=request.method,
            headers=request.headers,
            body=request.json,
            opened_at=anyio.current_time(),
            arrived_monotonic=time.monotonic(),
        )
        if (request.method, request.path) != ("POST", "/v1/messages"):
            self._record(self.others, exchange)
            if self.batches is not None:
                query = dict(parse_qsl(request.query))
                now = anyio.current_time()
                if (answer := self.batches.respond(request.method, request.path, query, request.json, now)) is not None:
                    return await self._send_batches(connection, exchange, answer)
            return await self._respond_other(connection, exchange)
        self._record(self.exchanges, exchange)
        try:
            items = self._items(exchange)
        except (LookupError, ValueError, TypeError) as error:
            exchange.closed_at = anyio.current_time()
            return await self._refuse(connection, exchange, 400, "invalid_request_error", f"script: {error}")
        return await _Performance(connection, exchange, items, self._chunk).run()

    async def _respond_other(self, connection: Connection, exchange: Exchange) -> bool:
        model = exchange.path.removeprefix("/v1/models/")
        if exchange.method == "GET" and (exchange.path == "/v1/models" or model != exchange.path):
            name = wire.MODEL if model == exchange.path else model
            entry = {"type": "model", "id": name, "display_name": name, "created_at": "2026-01-01T00:00:00Z"}
            listed = {"data": [entry], "has_more": False, "first_id": name, "last_id": name}
            body: object = listed if model == exchange.path else entry
        elif (exchange.method, exchange.path) == ("POST", "/v1/messages/count_tokens"):
            body = {"input_tokens": self._input_tokens}
        else:
            return await self._refuse(connection, exchange, 404, "not_found_error", exchange.path)
        exchange.status = 200
        await connection.send(json_response(200, body))
        return exchange.headers.get("connection", "").lower() != "close"

    async def _send_batches(self, connection: Connection, exchange: Exchange, answer: Response) -> bool:
        exchange.status = answer.status
        if answer.send == 0:
            return False
        kind = "application/x-jsonl" if exchange.path.endswith("/results") else "application/json"
        head = response_head(answer.status, [("content-type", kind), ("content-length", str(len(answer.body)))])
        await connection.send(head + answer.body[: answer.send])
        return answer.send is None and exchange.headers.get("connection", "").lower() != "close"

    async def _refuse(self, connection: Connection, exchange: Exchange, code: int, type_: str, message: str) -> bool:
        self.errors.append(message)
        exchange.status = code
        await connection.send(json_response(code, wire.error_body(type_, message), [("connection", "close")]))
        return False

    def _items(self, exchange: Exchange) -> tuple[Item, ...]:
        """The script of a request.

        :raises LookupError: there is none.
        """
        chosen: Script | None = self._script
        if self._script_for is not None:
            chosen = as_script(self._script_for(exchange))
        elif self._named is not None:
            name = exchange.headers.get(self._by.lower(), "")
            if name not in self._named:
                raise LookupError(f"no script {name!r}: the header {self._by} names one of {sorted(self._named)}")
            chosen = self._named[name]
        if chosen is None:
            raise LookupError("this server has no script")
        given = exchange.headers.get(self._attempt_header)
        exchange.number = int(given) if given is not None else self._count(chosen)
        return chosen.items(exchange.number)

    def _count(self, script: Script) -> int:
        """How many requests this script has answered, this one included."""
        for known, count in self._counts:
            # By identity: exceptions in scripts do not compare, and two equal scripts are two.
            if known is script:
                count[0] += 1
                return count[0]
        self._counts.append((script, [1]))
        if self._keep is not None:
            del self._counts[: -max(1, self._keep)]
        return 1


def as_script(scripted: Scripted) -> Script:
    """The script of whatever can be played."""
    if isinstance(scripted, ScriptedSource):
        return scripted.script
    return scripted if isinstance(scripted, Script) else Script.of(scripted)


class _Performance:
    """One attempt's script being played on a socket."""

    def __init__(self, connection: Connection, exchange: Exchange, items: tuple[Item, ...], chunk: Chunk) -> None:
        body = exchange.body
        self._streams = isinstance(body, Mapping) and body.get("stream") is True
        if not self._streams:
            items = tuple(one for one in items if not isinstance(one, Encode))
        self._connection = connection
        self._exchange = exchange
        exchange.facts = play.facts(items)
        self._ops = play.operations(items, sockets=True, chunk=chunk, seed=exchange.number, known=exchange.facts)
        self._framing: Framing | None = None
        # Whether the client can tell where the response ends, and wants to go on.
        self._reusable = exchange.headers.get("connection", "").lower() != "close"
        self._whole = False
        self._anchor = anyio.current_time()
        self._gather = 0
        self._gathered = bytearray()
        self._collected = bytearray()

    async def run(self) -> bool:
        """Play it, while the client is there. Whether the connection can be used again."""
        exchange = self._exchange
        again = False
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._watch, tasks.cancel_scope)
                again = await self._play()
                tasks.cancel_scope.cancel()
        finally:
            exchange.closed_at = anyio.current_time()
        return again and exchange.disconnected_at is None

    async def _watch(self, scope: anyio.CancelScope) -> None:
        await self._connection.gone()
        self._left()
        scope.cancel()

    def _left(self) -> None:
        if not self._exchange.complete and self._exchange.disconnected_at is None:
            self._exchange.disconnected_at = anyio.current_time()
            self._exchange.disconnected_monotonic = time.monotonic()

    async def _play(self) -> bool:
        try:
            for op in self._ops:
                if isinstance(op, play.Stop):
                    return await self._stop(op)
                await self._do(op)
        except Gone:
            self._left()
        return False

    async def _do(self, op: play.Op) -> None:
        match op:
            case play.Write():
                self._exchange.deltas_sent += op.deltas
                await self._write(op.data)
            case play.Wait():
                await self._flush()
                await anyio.sleep(op.seconds)
            case play.Anchor():
                self._anchor = anyio.current_time()
            case play.Due():
                if self._anchor + op.seconds > anyio.current_time():
                    await self._flush()
                    await anyio.sleep_until(self._anchor + op.seconds)
            case play.Head():
                await self._head(op)
            case play.Gathering():
                self._gather = op.size
            case play.Verbatim():
                # From here on HTTP is the script's own business.
                self._streams, self._reusable = True, False
                await self._flush()
                await self._send(op.data)
            case play.Expect():
                await self._flush()
                await anyio.sleep(op.within)
                self._exchange.violations.append(
                    f"attempt {self._exchange.number}: the client was still there after {op.within:g} s"
                )

    async def _head(self, op: play.Head) -> None:
        self._exchange.status = op.code
        self._exchange.head_at = anyio.current_time()
        if not self._streams and op.body is None and op.code == 200:
            return
        headers = {name.lower(): value for name, value in op.headers}
        if op.body is not None:
            self._whole = True
            headers = {"content-length": str(len(op.body))} | headers
        else:
            self._framing = op.framing
            kind = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}
            how = {"connection": "close"} if op.framing == "eof" else {"transfer-encoding": "chunked"}
            headers = kind | how | headers
        self._reusable &= headers.get("connection", "").lower() != "close"
        headers = {"request-id": f"req_scripted_{self._exchange.number}"} | headers
        await self._send(response_head(op.code, headers.items()) + (op.body or b""))

    async def _write(self, data: bytes) -> None:
        if not data:
            return
        if not self._streams and self._framing is None:
            self._collected += data
            return
        if self._framing == "chunked":
            data = b"%x\r\n%b\r\n" % (len(data), data)
        if not self._gather:
            await self._send(data)
            return
        self._gathered += data
        if len(self._gathered) >= self._gather:
            await self._flush()

    async def _flush(self) -> None:
        if self._gathered:
            data, self._gathered = bytes(self._gathered), bytearray()
            await self._send(data)

    async def _send(self, data: bytes) -> None:
        await self._connection.send(data)
        self._exchange.bytes_sent += len(data)

    async def _stop(self, op: play.Stop) -> bool:
        if not self._streams and self._framing is None and not self._whole and op.how == "end":
            await self._send_collected()
        await self._flush()
        if op.how == "end" and self._framing == "chunked":
            await self._send(b"0\r\n\r\n")
        self._exchange.complete = op.how in ("end", "cut")
        if op.how == "rst":
            self._connection.reset_on_close()
        elif op.how == "half_close":
            self._connection.half_close()
            # The watch ends this when the client goes.
            await anyio.sleep_forever()
        return op.how == "end" and self._reusable

    async def _send_collected(self) -> None:
        """What was said so far as one JSON response, where the request did not ask for a stream."""
        body = wire.assemble(bytes(self._collected))
        code = 200
        if body.get("type") == "error":
            code = wire.ERROR_STATUS.get(body["error"].get("type"), 500)
        self._exchange.status = code
        await self._send(json_response(code, body, [("request-id", f"req_scripted_{self._exchange.number}")]))


def deltas(count: int, seed: int = 0) -> list[bytes]:
    """Frames of text that never repeats for long: words and numbers."""
    source = random.Random(seed)  # noqa: S311
    words = ("model", "reads", "each", "line", "invoice", "and", "writes", "what", "it", "finds", "as", "words")
    return [wire.text_delta(f"{source.choice(words)} {source.randrange(10_000)} ") for _ in range(count)]


def burst(count: int, *, style: wire.Style = wire.PLAIN) -> list[Item]:
    """Return a good answer of `count` text deltas at full speed, each its own HTTP chunk, hundreds to a socket read.

    :param style: how events are written.
    """
    return [gather(), *_around(count, style, deltas(count))]


def paced(count: int, per_second: float, *, style: wire.Style = wire.PLAIN) -> list[Item]:
    """Return a good answer of `count` text deltas at a fixed rate, each its own socket write, as a live model's.

    :param per_second: deltas a second.
    :param style: how events are written.
    """
    return _around(count, style, [pace(per_second), *deltas(count), pace(None)])


def _around(count: int, style: wire.Style, items: Iterable[Item]) -> list[Item]:
    return [
        wire.message_start(style=style),
        wire.block_start(style=style),
        *items,
        wire.block_stop(style=style),
        wire.message_delta(usage={"output_tokens": count}, style=style),
        wire.message_stop(style=style),
    ]


def endless(per_second: float | None = None) -> list[Item]:
    """Return an answer that never ends: text deltas at a rate, or as fast as they are read.

    :param per_second: deltas a second; as fast as possible by default.
    """
    rate = () if per_second is None else (pace(per_second),)
    return [wire.message_start(), wire.block_start(), *rate, repeat(deltas(1000))]
