"""What is fuzzed: functions of bytes that raise only where the package is at fault.

Each gives the package hostile input and takes only typed answers; where a plain reading of the same input exists, the
two must agree.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import re
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import msgspec

from streamguard.adapters.anthropic import failures
from streamguard.adapters.anthropic.events import Translator
from streamguard.adapters.anthropic.message_builder import Assembly
from streamguard.adapters.anthropic.stream import BodyStream
from streamguard.adapters.aws.event_stream import CONTENT_TYPE as AWS_STREAM
from streamguard.adapters.sse.decoder import Decoder, EventTooLarge
from streamguard.errors import PolicyError, SchemaError
from streamguard.events import BlockStarted, BlockStopped, Delta, Event, Failed, Metered, Ping, Started, Stopped, Usage
from streamguard.guards.base import AttemptContext
from streamguard.guards.document.guard import JsonDocument
from streamguard.guards.panel import Panel
from streamguard.jobs.input.rows import Line, Row, parse
from streamguard.jobs.problems import Problem
from streamguard.policy.file import loads_policy
from streamguard.policy.model import Policy
from streamguard.redaction import redacted
from streamguard.replay.recording import Recording
from streamguard.request import Request
from streamguard.testing import faults
from streamguard.verdict import REASONS, Enough, Trip
from streamguard.viability import SyntaxPrefix, compile_schema
from tests.matrix.configs import configs

Target = Callable[[bytes], None]

SMALL = 4096
"""The bound on one event."""


class Found(AssertionError):
    """The package is at fault."""


def pieces(data: bytes) -> Iterator[bytes]:
    """The data cut somehow, the same way each time."""
    rng = random.Random(len(data) * 31 + (data[0] if data else 0))
    at = 0
    while at < len(data):
        size = rng.choice((1, 1, 2, 3, 7, 64, 1024))
        yield data[at : at + size]
        at += size


def plain_frames(data: bytes) -> list[tuple[bytes, bytes]]:
    """Server-sent events by the letter of the standard, in the plainest way."""
    data = data.removeprefix(b"\xef\xbb\xbf")
    lines = re.split(rb"\r\n|\n|\r", data)
    frames, name, found = [], b"", None
    for line in lines[:-1]:
        if not line:
            if found is not None:
                frames.append((name, b"\n".join(found)))
            name, found = b"", None
            continue
        field, _, value = line.partition(b":")
        value = value[1:] if value[:1] == b" " else value
        if field == b"data":
            found = [*(found or []), value]
        elif field == b"event":
            name = value
    return frames


def sse(data: bytes) -> None:
    """Any bytes, in any pieces, are the frames that the standard says."""
    decoder = Decoder(1 << 30)
    frames = [frame for piece in pieces(data) for frame in decoder.feed(piece)]
    if frames != plain_frames(data):
        raise Found(f"{frames!r} instead of {plain_frames(data)!r}")


def wire(data: bytes) -> None:
    """Any bytes become events, of which a failure is the last; under every guard, each verdict is a typed one."""
    decoder, translator = Decoder(SMALL), Translator()
    assembly = Assembly(translator.kept)
    panel = _panel("everything")
    for piece in pieces(data):
        try:
            events = translator.translate(decoder.feed(piece))
        except EventTooLarge as error:
            events = [*translator.translate(error.frames), error.failed]
        for event in events:
            if isinstance(event, Failed):
                if event.reason not in REASONS:
                    raise Found(f"a failure called {event.reason}")
                assembly.message()
                return
            verdict = panel.feed(event, 0.0)
            if verdict is not None:
                _typed(verdict)
                assembly.message()
                return
    if not panel.stopped and not isinstance(panel.end(0.0), Trip):
        raise Found("accepted without an end")
    assembly.message()


def bodies(data: bytes) -> None:
    """The body of a response of status 200, under any label and in any pieces, comes to the same: events of which a
    failure is the last, with a known reason, and one message."""
    label, _, body = data.partition(b"\n")
    headers = {"content-type": label.decode("latin-1")}
    whole = answered(headers, [body])
    again = answered(headers, list(pieces(body)))
    if untimed(whole) != untimed(again):
        raise Found(f"{whole!r}, and {again!r} in pieces")
    for event in whole[0]:
        if isinstance(event, Failed) and event.reason not in REASONS:
            raise Found(f"a failure called {event.reason}")


def aws(data: bytes) -> None:
    """The same for AWS event streams, whose frames have a checksum each."""
    headers = {"content-type": AWS_STREAM}
    whole = answered(headers, [data])
    again = answered(headers, list(pieces(data)))
    if untimed(whole) != untimed(again):
        raise Found(f"{whole!r}, and {again!r} in pieces")


class _Response:
    """A response of the SDK, of which the body is read in given pieces."""

    def __init__(self, headers: dict[str, str], parts: list[bytes]) -> None:
        self.http_response = self
        self.headers = headers
        self.status_code = 200
        self._parts = parts

    async def aiter_bytes(self) -> AsyncIterator[bytes]:
        for part in self._parts:
            yield part

    aiter_raw = aiter_bytes

    async def close(self) -> None:
        pass


async def _answer(headers: dict[str, str], parts: list[bytes]) -> tuple[list[Event], Any]:
    stream = BodyStream(_Response(headers, parts), beta=False, max_event_bytes=SMALL)
    events: list[Event] = []
    try:
        if failed := await stream.refusal():
            return [failed], None
        async for batch in stream:
            events += batch
    finally:
        await stream.aclose()
    if any(isinstance(event, Failed) for event in events[:-1]):
        raise Found("events after a failure")
    return events, stream._assembly.message()


def answered(headers: dict[str, str], parts: list[bytes]) -> tuple[list[Event], Any]:
    """The events and the message of a response whose body is read in these parts."""
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(_answer(headers, parts))
    finally:
        loop.close()


def untimed(answer: tuple[list[Event], Any]) -> tuple[list[Event], Any]:
    """An answer without the words of its failure: how much of a body they quote depends on its pieces."""
    events, message = answer
    if events and isinstance(failed := events[-1], Failed):
        events = [*events[:-1], msgspec.structs.replace(failed, message="")]
    return events, message


def _panel(name: str) -> Panel:
    config = configs()[name]
    return Panel(config.policy.panel_guards, AttemptContext(request=Request(config.request), price=_PRICE), 0.0)


def _typed(verdict: Trip | Enough) -> None:
    if (
        isinstance(verdict, Trip)
        and verdict.reason not in REASONS
        and not verdict.reason.startswith(("content.", "check."))
    ):
        raise Found(f"a trip called {verdict.reason}")


def _price() -> Any:
    from streamguard.pricing.book import PriceBook

    config = configs()["everything"]
    return PriceBook(config.policy.prices).price(config.request["model"])


_PRICE = _price()


def events(data: bytes) -> None:
    """Any order of neutral events is taken by every guard, and nothing is whole that is none."""
    made = list(_events(data))
    for name in ("everything", "tool_input", "off"):
        panel = _panel(name)
        for event in made:
            verdict = panel.feed(event, 0.0)
            if verdict is not None:
                _typed(verdict)
                break
        else:
            document = panel.document()
            if panel.stopped and name == "everything" and (document is None or not document.complete):
                raise Found("whole, and its document is not")


def _events(data: bytes) -> Iterator[Event]:
    kinds = ("text", "thinking", "tool_input")
    for at in range(0, len(data) - 1, 2):
        what, more = data[at], data[at + 1]
        index, kind = more % 3, kinds[more % 3]
        text = data[at + 1 : at + 1 + what % 9].decode("latin-1")
        yield (
            Started("m", "claude-sonnet-5-5", Usage(input_tokens=more)),
            BlockStarted(index, kind, "", "record" if kind == "tool_input" else None, "t"),  # type: ignore[arg-type]
            Delta(index, kind, text),  # type: ignore[arg-type]
            Delta(index, kind, '{"id": 7, "kind": "invoice", "lines": []}'),  # type: ignore[arg-type]
            BlockStopped(index),
            Metered(Usage(output_tokens=more), ("end_turn", "max_tokens", None, "new")[more % 4]),
            Stopped(("end_turn", "tool_use", None)[more % 3]),
            Ping(),
        )[what % 8]


def scanner(data: bytes) -> None:
    """Any text, in any pieces, is dead exactly where it stops being the beginning of a document, and never late: what
    the strict parser takes is never dead, and what is never dead it takes."""
    prefix = SyntaxPrefix(max_depth=32, max_digits=60)
    dead = None
    for piece in pieces(data):
        dead = dead or prefix.feed(piece.decode("latin-1"))
    dead = dead or prefix.close()
    text = data.decode("latin-1")
    good = _strictly(text, digits=50, depth=30)
    if good is not None and good != (dead is None):
        raise Found(f"{text[:200]!r} is {'good' if good else 'bad'}, and dead at {dead}")


def _strictly(text: str, *, digits: int, depth: int) -> bool | None:
    """Whether it is JSON; `None` where it may be near the limits, whose ways of counting this plain check leaves out."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("twice")
        return found

    def no(constant: str) -> Any:
        raise ValueError(constant)

    stripped = re.sub(r'"(?:[^"\\]|\\.)*"?', '""', text, flags=re.DOTALL)
    if re.search(rf"[\d.eE+-]{{{digits}}}", stripped) or stripped.count("[") + stripped.count("{") > depth:
        return None
    try:
        json.loads(text, object_pairs_hook=unique, parse_constant=no)
    except (ValueError, RecursionError):
        return False
    return True


_COMPILED = compile_schema(faults.SCHEMA)


def schema(data: bytes) -> None:
    """The same under a schema: nothing is accepted that the schema's own judge rejects, nothing good is dead."""
    text = data.decode("latin-1")
    panel = Panel([JsonDocument(schema=faults.SCHEMA)], AttemptContext(request=Request(faults.request())), 0.0)
    verdict = panel.feed(Started(), 0.0) or panel.feed(BlockStarted(0, "text", "text"), 0.0)
    for piece in pieces(data):
        verdict = verdict or panel.feed(Delta(0, "text", piece.decode("latin-1")), 0.0)
    verdict = verdict or panel.feed(Stopped("end_turn"), 0.0)
    strict = _strictly(text, digits=390, depth=60)
    if strict is None:
        return
    good = strict and _COMPILED.validate(json.loads(text)) is None
    if good and verdict is not None:
        raise Found(f"{text[:200]!r} is good, and {verdict}")
    if not good and verdict is None:
        raise Found(f"{text[:200]!r} is bad, and accepted")


def policy(data: bytes) -> None:
    """Any text is a policy, or every mistake in it with its place."""
    try:
        made = loads_policy(data.decode("latin-1"), file="fuzz.yaml")
    except PolicyError as error:
        if not error.problems or "fuzz.yaml" not in str(error):
            raise Found(f"an error without a place: {error}") from error
        return
    if not isinstance(made, Policy):
        raise Found(f"{made!r} is no policy")
    hash(made)


def schemas(data: bytes) -> None:
    """Any JSON as a schema is compiled or refused."""
    try:
        made = msgspec.json.decode(data)
    except (ValueError, RecursionError):
        return
    try:
        compiled = compile_schema(made)
    except SchemaError:
        return
    for text in ('{"id": 7, "a": [1, "x"]}', "[1, null]", '"text"', "12"):
        prefix = compiled.prefix() if hasattr(compiled, "prefix") else None
        if prefix is not None:
            prefix.feed(text)
            prefix.close()


def rows(data: bytes) -> None:
    """Any line is a row, or a problem with its line."""
    found = parse(Line(3, 0, data), "in.jsonl")
    if not isinstance(found, Row | Problem):
        raise Found(f"{found!r}")
    if isinstance(found, Problem) and found.line != 3:
        raise Found(f"a problem without its line: {found}")
    if isinstance(found, Row):
        json.dumps(found.data).encode()


def errors(data: bytes) -> None:
    """Any body and any headers of an error are a failure with a known reason."""
    text = data.decode("latin-1")
    headers = {"retry-after": text[:20], "date": text[20:50], "retry-after-ms": text[50:60]}
    try:
        body: object = json.loads(text)
    except (ValueError, RecursionError):
        body = text
    for status in (200, 400, 429, 500, 529, 799, None):
        failed = failures.from_body(body, status=status, headers=headers)
        if failed.reason not in REASONS:
            raise Found(f"a failure called {failed.reason}")
        wait = failed.retry_after
        if wait is not None and not (0 <= wait < math.inf):
            raise Found(f"a wait of {wait}")
    redacted(data)


def recordings(data: bytes) -> None:
    """Any recording is read in pieces that make it up again."""
    sizes = list(pieces(data))
    chunks = tuple((n * 0.1, len(piece)) for n, piece in enumerate(sizes))
    made = Recording(file="x", data=data, chunks=chunks)
    if b"".join(piece for _, piece in made.reads()) != data:
        raise Found("the pieces are not the whole")


TARGETS: dict[str, Target] = {
    "sse": sse,
    "wire": wire,
    "events": events,
    "scanner": scanner,
    "schema": schema,
    "policy": policy,
    "schemas": schemas,
    "rows": rows,
    "errors": errors,
    "recordings": recordings,
    "bodies": bodies,
    "aws": aws,
}
