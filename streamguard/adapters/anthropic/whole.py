"""An answer that has come as a whole, as a source: what judges streams judges it, in the same words.

In charge of giving a message of the API the form of the stream that it would have been. Nothing is sent.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self

from streamguard.adapters.anthropic import failures
from streamguard.adapters.anthropic.events import Translator
from streamguard.adapters.anthropic.message_builder import Assembly
from streamguard.adapters.anthropic.opening import as_stream, is_message
from streamguard.adapters.anthropic.stream import sdk_message
from streamguard.adapters.sse.decoder import Decoder
from streamguard.events import Event
from streamguard.request import Request
from streamguard.source import Attempt, SourceFailed


class WholeAnswer:
    """A source of one answer that is there already.

    :param request: what it answers.
    :param message: the message as JSON.
    """

    sees_bytes = False

    def __init__(self, request: Request, message: Mapping[str, Any]) -> None:
        self._request = request
        self._message = message

    @property
    def request(self) -> Request:
        """The request that was answered."""
        return self._request

    @asynccontextmanager
    async def open(self, attempt: Attempt) -> AsyncIterator[_Played]:  # noqa: ARG002  there is one attempt
        """Give the answer's events.

        :raises SourceFailed: it is no message of the API.
        """
        if not is_message(self._message):
            what = "the answer is no message of the API"
            raise SourceFailed(failures.undecodable(what, str(dict(self._message))))
        yield _Played(self._message)


class _Played:
    """The events of a message, all at once."""

    def __init__(self, message: Mapping[str, Any]) -> None:
        self._translator = Translator()
        self._assembly = Assembly(self._translator.kept)
        self._frames: bytes | None = b"".join(as_stream(message))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Sequence[Event]:
        frames, self._frames = self._frames, None
        if frames is None:
            raise StopAsyncIteration
        return self._translator.translate(Decoder(len(frames)).feed(frames))

    def message(self) -> Any:
        """The SDK's own message."""
        return sdk_message(self._assembly.message(), beta=False)
