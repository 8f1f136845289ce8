"""Every byte prefix of a stream as a truncation: is it ever taken for a complete answer?

One pass per stream: after each byte the decoder, the translator and the panel are what they would be if the stream had
ended there, so that asking the panel is the same as ending it. `through_the_engine` asks the whole way, cut by cut.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from streamguard import api
from streamguard.adapters.anthropic.events import Translator
from streamguard.adapters.sse.decoder import Decoder
from streamguard.errors import CallError
from streamguard.events import Failed
from streamguard.guards.base import AttemptContext
from streamguard.guards.panel import Panel
from streamguard.policy.model import Policy
from streamguard.request import Request
from streamguard.testing import faults, fin, run_virtual, status
from streamguard.testing.faults import SHAPES, Say
from streamguard.testing.scripted import Script, ScriptedSource
from streamguard.verdict import Enough, Trip
from tests.data import path

STYLES = (b"\n", b"\r\n", b"\r")


class Stream(NamedTuple):
    """One stream to cut."""

    name: str
    data: bytes


class Cuts(NamedTuple):
    """What became of the cuts of a stream."""

    tried: int
    accepted: list[int]
    """Where a cut was taken for a whole answer."""
    ended_at: int | None
    """Where the answer was complete by the provider's own word; cuts behind it are none."""


def synthetic() -> Iterator[Stream]:
    """The answers of the catalogue that conform, in both shapes and with all line ends."""
    for shape in SHAPES:
        for fault in faults.ALL:
            items = fault.attempt(shape, event_bytes=2048)
            if fault.conforms and all(isinstance(item, bytes) for item in items):
                data = b"".join(items)  # type: ignore[arg-type]
                yield from (Stream(f"{fault.id} {shape} {end!r}", data.replace(b"\n", end)) for end in STYLES)
        yield Stream(f"good {shape}", b"".join(Say(shape).answer()))


def samples() -> Iterator[Stream]:
    """The documented samples; skips the calling test where the data is absent."""
    for file in sorted(path("sse").glob("*.sse")):
        yield Stream(file.name, file.read_bytes())


def recordings() -> Iterator[Stream]:
    """Streams recorded from a real model; skips the calling test where the data is absent."""
    with zipfile.ZipFile(path("real_sse", "gemma270m-advisories.zip")) as archive:
        for name in archive.namelist():
            if name.endswith(".sse"):
                yield Stream(name, archive.read(name))


def cut_everywhere(stream: Stream, policy: Policy, request: dict[str, Any]) -> Cuts:
    """End the stream after each of its bytes."""
    decoder, translator = Decoder(), Translator()
    context = AttemptContext(request=Request(request))
    panel = Panel(policy.panel_guards, context, 0.0)
    accepted: list[int] = []
    for at in range(len(stream.data)):
        over = _over(panel, translator.translate(decoder.feed(stream.data[at : at + 1])))
        if over == "ended":
            return Cuts(at, accepted, at + 1)
        if over == "aborted":
            return Cuts(len(stream.data), accepted, None)
        if not isinstance(panel.end(0.0), Trip):
            accepted.append(at + 1)
    return Cuts(len(stream.data), accepted, None)


def _over(panel: Panel, events: Sequence[Any]) -> str | None:
    for event in events:
        if isinstance(event, Failed):
            return "aborted"
        verdict = panel.feed(event, 0.0)
        if isinstance(verdict, Trip):
            return "aborted"
        if isinstance(verdict, Enough) or panel.stopped:
            return "ended"
    return None


def through_the_engine(stream: Stream, policy: Policy, request: dict[str, Any], every: int = 1) -> Cuts:
    """End the stream after each of its bytes, or of every so many, in a call of its own."""
    ended_at = cut_everywhere(stream, policy, request).ended_at
    cuts = range(1, len(stream.data) if ended_at is None else ended_at, every)

    async def all_of_them() -> list[int]:
        accepted = []
        for at in cuts:
            script = Script.of([status(framing="eof"), stream.data[:at], fin()])
            try:
                await api.run(ScriptedSource(script, request=request), policy=policy)
            except CallError:
                continue
            accepted.append(at)
        return accepted

    return Cuts(len(cuts), run_virtual(all_of_them, within=1e12), ended_at)
