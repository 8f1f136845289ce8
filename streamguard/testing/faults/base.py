"""What a fault is, and what a provider says: the words that the catalogue is written in.

In charge of `Fault`, of registering faults in the order of the catalogue, and of answers in two shapes, so that each
fault is written once for an answer in text and for one in a tool's input. It knows no policy: whether a fault matters
is for a policy to say, and what may come of it for the oracle.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec

from streamguard.testing import wire
from streamguard.testing.scripted import Script, ScriptedSource
from streamguard.testing.steps import Item, Truth, as_items, truth

Shape = Literal["text", "tool"]
"""Where the document stands: in the answer's text, or in the input of a call of the tool `TOOL`."""

SHAPES: tuple[Shape, ...] = ("text", "tool")

TOOL = "record"

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "id": {"type": "integer"},
        "kind": {"enum": ["invoice", "receipt"]},
        "lines": {"type": "array", "items": {"type": "string"}},
        "name": {"type": "string", "minLength": 4},
    },
    "required": ["id", "kind", "lines"],
    "additionalProperties": False,
}
"""What the documents of the catalogue are to satisfy. The flawed ones say in what they do not."""

GOOD = '{"id": 7, "kind": "invoice", "lines": ["pen", "ink"]}'
"""A document that satisfies it."""

EVENT_BYTES = 1_048_576
"""The bound on one event that the faults of event sizes are about: the default of every source."""

CHUNK = 8
"""Characters of one delta, unless a fault says else."""


def request(shape: Shape = "text", *, max_tokens: int = 1024, **more: Any) -> dict[str, Any]:
    """A request whose answer has this shape; the schema stands in it where the Messages API has a place for it."""
    body: dict[str, Any] = {
        "model": wire.MODEL,
        "max_tokens": max_tokens,
        "messages": [{"role": "user", "content": "Extract the record."}],
    }
    if shape == "tool":
        body["tools"] = [{"name": TOOL, "description": "Records.", "input_schema": SCHEMA}]
    else:
        body["output_config"] = {"format": {"type": "json_schema", "schema": SCHEMA}}
    return body | more


_TOKENS = re.compile(r"[a-zA-Z]{1,5}|[0-9]{1,2}|[ -~]|\s{1,8}|[^\x00-\x7f]")


def tokens(text: str) -> int:
    """About as many tokens as a text has, by a rule of the thumb: what the scripted provider counts."""
    return max(
        1,
        sum(
            1 if piece.isascii() else -(-len(piece.encode("utf-8", "surrogatepass")) // 2)
            for piece in _TOKENS.findall(text)
        ),
    )


class Say:
    """What a provider says, in one shape: lists of frames.

    :param event_bytes: the bound on one event that the client is set to.
    """

    def __init__(self, shape: Shape = "text", *, event_bytes: int = EVENT_BYTES) -> None:
        self.shape = shape
        self.event_bytes = event_bytes
        self.stop_reason = "end_turn" if shape == "text" else "tool_use"
        """Of an answer that ends well."""

    def start(self, **fields: Any) -> list[bytes]:
        """The message's start."""
        return [wire.message_start(**fields)]

    def block(self, index: int = 0) -> list[bytes]:
        """The start of the block that the document stands in."""
        if self.shape == "text":
            return [wire.block_start(index), wire.ping()]
        return [wire.block_start(index, "tool_use", name=TOOL), wire.ping(), wire.input_json_delta("", index)]

    def opened(self, **fields: Any) -> list[bytes]:
        """Both."""
        return [*self.start(**fields), *self.block()]

    def pieces(self, text: str, index: int = 0, *, chunk: int = CHUNK, style: wire.Style = wire.PLAIN) -> list[bytes]:
        """Some of the document."""
        delta = wire.text_delta if self.shape == "text" else wire.input_json_delta
        return [delta(piece, index, style=style) for piece in wire.pieces(text, chunk)]

    def half(self, text: str = GOOD) -> list[bytes]:
        """The message up to the middle of the document."""
        return [*self.opened(), *self.pieces(text[: len(text) // 2])]

    def closed(self, stop_reason: str | None = "", *, output: int | None = None, **usage: Any) -> list[bytes]:
        """The end of the block and of the message: that of a good answer, and the tokens of the good document, unless
        given."""
        reason = self.stop_reason if stop_reason == "" else stop_reason
        counts = {"output_tokens": tokens(GOOD) if output is None else output, **usage}
        return [wire.block_stop(), wire.message_delta(reason, usage=counts), self.stop()]

    def stop(self) -> bytes:
        """The message's end."""
        return wire.message_stop()

    def answer(self, text: str = GOOD, stop_reason: str | None = "", *, chunk: int = CHUNK) -> list[bytes]:
        """A whole answer. The count is what the text may well come to."""
        return [*self.opened(), *self.pieces(text, chunk=chunk), *self.closed(stop_reason, output=tokens(text))]


Items = Sequence[Item]
"""What an attempt is written as."""

Written = Callable[[Say], Items]
"""What the provider does in an attempt with the fault."""


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that goes wrong between a client and a provider, as a script. Frozen; made by this package."""

    id: str
    """The catalogue's number, and which variant: `F13-eof`."""
    title: str
    """What goes wrong."""
    must: str
    """What a client must make of it."""
    conforms: bool = False
    """Whether the stream is all right, however odd: a client that takes it for an error is wrong."""
    slow: bool = False
    """Whether it is about time: the script waits, and wants a virtual clock."""
    sockets: bool = False
    """Whether only a socket can show it: there is no HTTP in memory."""
    written: Written

    @property
    def __name__(self) -> str:
        """What pytest calls a case of `@pytest.mark.parametrize("fault", faults.ALL)`."""
        return self.id

    @property
    def number(self) -> str:
        """The catalogue's number alone."""
        return self.id.partition("-")[0]

    def attempt(self, shape: Shape = "text", *, event_bytes: int = EVENT_BYTES) -> tuple[Item, ...]:
        """One attempt with the fault, for a script of one's own."""
        return with_truth(as_items(list(self.written(Say(shape, event_bytes=event_bytes)))))

    def script(self, shape: Shape = "text", *, times: int | None = None, event_bytes: int = EVENT_BYTES) -> Script:
        """The fault at each attempt; or `times` times, and good answers from then on."""
        bad = self.attempt(shape, event_bytes=event_bytes)
        if times is None:
            return Script.of(bad)
        return Script.of(*[bad] * times, Say(shape).answer())

    def source(
        self, shape: Shape = "text", *, times: int | None = None, event_bytes: int = EVENT_BYTES, **options: Any
    ) -> ScriptedSource:
        """The same as a source in memory; `options` are those of `ScriptedSource`."""
        script = self.script(shape, times=times, event_bytes=event_bytes)
        given: dict[str, Any] = {"request": request(shape), "max_event_bytes": event_bytes} | options
        return ScriptedSource(script, **given)


_PIECES = re.compile(rb'"(?:text|thinking|partial_json)":("(?:[^"\\]|\\.)*")\}\}')


_TOLD = re.compile(rb'"type":"message_delta".*"output_tokens":(\d+)')


def with_truth(items: tuple[Item, ...]) -> tuple[Item, ...]:
    """The items, with what the provider bills where they do not say: what is told at the end is true, and without an
    end it is as many tokens as the text may well come to."""
    data = b"".join(item for item in items if isinstance(item, bytes))
    over = b'"stop_reason":"' in data or any(isinstance(item, Truth) for item in items)
    if over or b"content_block_delta" not in data:
        return items
    text = "".join(json.loads(piece) for piece in _PIECES.findall(data))
    return (truth(output=max(tokens(text), *map(int, _TOLD.findall(data)), 0)), *items)


class Catalogue:
    """The faults of one chapter, in the order in which they are written."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []

    def add(self, id: str, title: str, must: str, written: Written, **marks: bool) -> None:  # noqa: A002
        """Register a fault."""
        self.faults.append(Fault(id=id, title=title, must=must, written=written, **marks))

    def fault(self, id: str, must: str, **marks: bool) -> Callable[[Written], Written]:  # noqa: A002
        """Register a fault: the function says what the provider does, its docstring what goes wrong."""

        def register(written: Written) -> Written:
            self.add(id, " ".join((written.__doc__ or "").split()), must, written, **marks)
            return written

        return register

    def documents(self, number: str, must: str, cases: dict[str, tuple[str, str]], **marks: bool) -> None:
        """Register a whole answer for each of some documents: variant → what is wrong with it, and the document."""
        for name, (title, text) in cases.items():
            self.add(f"{number}-{name}", title, must, functools.partial(_answer, text), **marks)


def _answer(text: str, say: Say) -> list[bytes]:
    return say.answer(text, chunk=CHUNK if len(text) < 200 else 8 * CHUNK)
