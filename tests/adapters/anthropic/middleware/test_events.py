"""The wire decoder against the SDK's own: every sample and every recorded stream, whole, per event and per byte."""

from __future__ import annotations

import zipfile
from contextlib import suppress
from functools import lru_cache
from typing import Any

import anthropic
import anyio
import pytest

from streamguard.adapters.anthropic.events import Translator
from streamguard.adapters.anthropic.middleware.events import SdkEvents
from streamguard.adapters.sse.decoder import Decoder
from tests.adapters.anthropic.middleware.test_guard import REQUEST, client
from tests.adapters.wire import mocked
from tests.data import path

SAMPLES = (
    *("dropped_no_message_stop", "error_overloaded_midstream", "max_tokens_truncated", "text_json_answer"),
    *("thinking_text", "tool_use_fine_grained"),
)


@lru_cache(maxsize=1)
def recordings() -> dict[str, bytes]:
    """The recorded streams, byte for byte."""
    with zipfile.ZipFile(path("real_sse", "gemma270m-advisories.zip")) as archive:
        return {name: archive.read(name) for name in archive.namelist() if name.endswith(".sse")}


async def theirs(stream: bytes) -> list[Any]:
    """The SDK's own events; of a stream that breaks, those before."""
    events: list[Any] = []
    async with client("http://x", http_client=mocked(stream)) as sdk:
        with suppress(anthropic.APIStatusError):
            async for event in await sdk.messages.create(**REQUEST, stream=True):
                events.append(event)
    return events


def ours(pieces: list[bytes]) -> list[Any]:
    """The same events by the way that the middleware takes."""
    decoder, translator = Decoder(), Translator()
    for piece in pieces:
        translator.translate(decoder.feed(piece))
    return SdkEvents(beta=False).of(translator.kept)


def cuts(stream: bytes) -> dict[str, list[bytes]]:
    """Whole, per event and per byte."""
    return {
        "whole": [stream],
        "per event": [part + b"\n\n" for part in stream.split(b"\n\n") if part]
        if stream.endswith(b"\n\n")
        else [stream],
        "per byte": [stream[at : at + 1] for at in range(len(stream))],
    }


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_decode_as_in_the_sdk(name: str) -> None:
    """Equal objects with equal dumps. The input of a call that never closed is no one's to run, and is not told."""
    stream = path("sse", f"{name}.sse").read_bytes()
    expected = anyio.run(theirs, stream)
    if name == "dropped_no_message_stop":
        expected = [event for event in expected if event.type != "content_block_delta"]
    assert len(expected) > 1
    for how, pieces in cuts(stream).items():
        found = ours(pieces)
        assert found == expected, how
        assert [event.model_dump() for event in found] == [event.model_dump() for event in expected], how


@pytest.mark.parametrize("part", range(6))
def test_recorded_streams_decode_as_in_the_sdk(part: int) -> None:
    """All sixty; per byte every sixth."""
    for number, (name, stream) in enumerate(recordings().items()):
        if number % 6 != part:
            continue
        expected = [event.model_dump() for event in anyio.run(theirs, stream)]
        assert len(expected) > 5
        for how, pieces in cuts(stream).items():
            if how != "per byte" or number % 36 == part:
                assert [event.model_dump() for event in ours(pieces)] == expected, (name, how)
