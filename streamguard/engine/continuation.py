"""Going on with an answer that the line cut, instead of beginning again: prose only, and only where a rule says so.

The partial answer goes back as the model's own turn, with an instruction in a turn of the user's: current models refuse
an answer that is begun for them. In charge of that request, and of the stream that comes back. It is handed on as one
whole answer: what was there already, then the new text without what it repeats. So every guard judges the whole.

A joined answer is two samples of the model's. What must parse or be called is never joined: no document, no tools.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from streamguard.events import BlockStarted, BlockStopped, Delta, Event, Failed
from streamguard.guards.transcript import Transcript
from streamguard.pricing.tokens import weigh
from streamguard.request import Request
from streamguard.source import Attempt, EventStream, Source
from streamguard.verdict import Trip

INSTRUCTION: Final = (
    "Your last answer was cut off by a network failure. Continue it exactly where it stopped: begin with the very next "
    "character, repeat nothing, and add no introduction and no comment."
)
"""What the user's turn says."""

CUT: Final = frozenset({"transport.reset", "transport.incomplete"})
"""Reasons that say that an answer was going well until the line broke."""

MIN_OVERLAP: Final = 12
"""Characters from which a repetition at the seam is one: shorter ones are chance, a blank or a common word."""

MAX_OVERLAP: Final = 2000
"""The most characters that are looked for: a model that repeats more has begun again."""


def continuation(end: Trip | Failed, transcript: Transcript, request: Request | None) -> Continuation | None:
    """Return what a cut attempt is continued from; `None` if it has to begin again.

    It can be continued if it is one block of text so far, and the request has no tools, no output format and no answer
    begun by the caller.
    """
    if end.reason not in CUT or request is None or transcript.stopped or transcript.stop_reason is not None:
        return None
    if request.body.get("tools") or request.output_schema is not None or request.prefill or request.thinking:
        return None
    if [block.kind for block in transcript.blocks.values()] != ["text"] or not transcript.text.strip():
        return None
    return Continuation(transcript.text)


class Continuation:
    """An answer so far, and how it goes on.

    :param text: the text that came before the line broke.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.weight = weigh(text)
        """What it counts as output: an earlier attempt has paid for it."""
        self.given: Delta | None = None
        """The piece that stands for it in the new stream, once it was put there."""

    def request(self, original: Request) -> Request:
        """Return the request for the rest.

        :param original: the request for the whole.
        """
        turns = [
            *original.body.get("messages", ()),
            {"role": "assistant", "content": self.text},
            {"role": "user", "content": INSTRUCTION},
        ]
        return original.with_body({**original.body, "messages": turns})

    def source(self, source: Source) -> Source:
        """Return a source whose streams are whole answers: this text, then what `source` gives."""
        return _Continued(source, self)


class Seam:
    """Where new text joins the old: what the new one repeats of the old one's end is left out. Fed piece by piece."""

    def __init__(self, before: str) -> None:
        self._before = before[-MAX_OVERLAP:]
        self._held: str | None = ""

    def feed(self, text: str) -> str:
        """Return what goes out now; text that may be a repetition waits."""
        if self._held is None:
            return text
        self._held += text
        held, before = self._held, self._before
        # Where all of it stands in the old text, short of its end, it may repeat from there on.
        at = before.find(held)
        return "" if 0 <= at < len(before) - len(held) else self.end()

    def end(self) -> str:
        """Return what waited, without the repetition."""
        held, self._held = self._held or "", None
        for size in range(min(len(held), len(self._before)), MIN_OVERLAP - 1, -1):
            if self._before.endswith(held[:size]):
                return held[size:]
        return held


class _Continued:
    """A source of the rest of an answer."""

    def __init__(self, source: Source, continuation: Continuation) -> None:
        self._source = source
        self._continuation = continuation
        self.request = source.request
        self.sees_bytes = source.sees_bytes
        self.times_connection = getattr(source, "times_connection", False) is True

    @asynccontextmanager
    async def open(self, attempt: Attempt) -> AsyncIterator[EventStream]:
        async with self._source.open(attempt) as stream:
            yield _Stream(stream, self._continuation)


class _Stream:
    """The rest of an answer, as the whole."""

    def __init__(self, stream: EventStream, continuation: Continuation) -> None:
        self._stream = stream
        self._batches = aiter(stream)
        self._continuation = continuation
        self._seam = Seam(continuation.text)
        self._block: int | None = None
        self._new: list[str] = []

    @property
    def request_id(self) -> Any:
        """The request's id, where the source has one."""
        return getattr(self._stream, "request_id", None)

    def __aiter__(self) -> AsyncIterator[Sequence[Event]]:
        return self

    async def __anext__(self) -> Sequence[Event]:
        return [made for event in await anext(self._batches) for made in self._whole(event)]

    def _whole(self, event: Event) -> list[Event]:
        if type(event) is BlockStarted and event.kind == "text" and self._block is None:
            self._block = event.index
            self._continuation.given = given = Delta(event.index, "text", self._continuation.text)
            return [event, given]
        if type(event) is Delta and event.index == self._block and event.kind == "text":
            return self._joined(self._seam.feed(event.text))
        if type(event) is BlockStopped and event.index == self._block:
            return [*self._joined(self._seam.end()), event]
        return [event]

    def _joined(self, text: str) -> list[Event]:
        if not text or self._block is None:
            return []
        self._new.append(text)
        return [Delta(self._block, "text", text)]

    def message(self) -> Any:
        """The provider's message of the rest, with the whole text in its place; its usage is the rest's."""
        message = self._stream.message()
        content = message.get("content") if isinstance(message, Mapping) else getattr(message, "content", None)
        if self._block is None or not content or self._block >= len(content):
            return message
        block, text = content[self._block], self._continuation.text + "".join(self._new)
        if isinstance(block, dict):
            block["text"] = text
        else:
            block.text = text
        return message
