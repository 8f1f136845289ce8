"""Recorded streams through a policy, offline: what would have tripped, where, and what it would have saved.

Recordings are the bytes of an event stream (`.sse`), one a file or many in a zip. Where a recording's chunk times are
known (`NAME.json` beside `NAME.sse`, with `chunks: [[seconds, bytes], …]`), the clocks are replayed too; without them
no clock runs. The same decoder, translator and panel as in a live call, and no SDK.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from streamguard.adapters.anthropic_events import Translator
from streamguard.adapters.sse import Decoder, EventTooLarge
from streamguard.errors import JobError, Problem
from streamguard.events import Event, Failed
from streamguard.guards.base import AttemptContext
from streamguard.guards.panel import Panel
from streamguard.policy import Policy
from streamguard.request import Request
from streamguard.verdict import Completed, Enough, Trip

MOST_BYTES = 64 * 1024 * 1024
"""The largest recording that is read."""


class Recording(msgspec.Struct, frozen=True, kw_only=True):
    """One recorded stream."""

    file: str
    """Where it is from, for people."""
    data: bytes
    chunks: tuple[tuple[float, int], ...] | None = None
    """Seconds since the request, and bytes, of each read; `None` if not recorded."""

    def reads(self) -> Iterator[tuple[float, bytes]]:
        """The bytes as they were read, with their times; all at second 0 if not recorded."""
        if self.chunks is None:
            yield 0.0, self.data
            return
        start = 0
        for seconds, size in self.chunks:
            yield seconds, self.data[start : start + size]
            start += size
        if start < len(self.data):
            yield (self.chunks[-1][0] if self.chunks else 0.0), self.data[start:]


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """What a policy makes of a recording."""

    file: str
    reason: str | None
    """Why the attempt would have been aborted; `None` if it stands."""
    pointer: str | None = None
    """JSON Pointer of the value, for reasons that have one."""
    offset: int | Literal["eof"] | None = None
    """Byte offset of the first dead byte from the document's start."""
    char: int | Literal["eof"] | None = None
    """The same, in characters."""
    event: int | None = None
    """0-based index of the event that brought the verdict about."""
    tokens_after: int | None = None
    """≈ Output tokens that came after that event."""
    completed: Completed | None = None
    """How the answer would have been accepted."""
    message: str | None = None
    """The verdict in a sentence."""
    keyword: str | None = None
    observed: tuple[str, ...] = ()
    """Reasons of guards in `mode: observe`."""


def replay(recording: Recording, policy: Policy, request: Request | None = None) -> Replayed:
    """Run one recording through a policy's guards, as one attempt.

    :param request: the request that the recording answers, if known: for `schema: request` and prefills.
    """
    context = AttemptContext(request=request, sees_bytes=recording.chunks is not None)
    panel = Panel(policy.panel_guards, context, 0.0, mode=policy.mode)
    events = _events(recording, panel)
    verdict = _verdict(panel, events)
    total, after = _tokens(panel, events)
    common: dict[str, Any] = {
        "file": recording.file,
        "observed": tuple(seen.trip.reason for seen in panel.observed),
    }
    if verdict is None or isinstance(verdict, Enough):
        completed: Completed = "whole" if verdict is None else verdict.completed
        return Replayed(
            **common,
            reason=None,
            completed=None if panel.observed else completed,
            event=panel.events - 1,
            tokens_after=None if total is None else after,
        )
    where = verdict.where if isinstance(verdict, Trip) else None
    return Replayed(
        **common,
        reason=verdict.reason,
        pointer=where.pointer if where else None,
        offset=where.offset if where else None,
        char=where.char if where else None,
        keyword=where.keyword if where else None,
        event=where.event if where else panel.events,
        tokens_after=after,
        message=verdict.message,
    )


def _events(recording: Recording, panel: Panel) -> Iterator[tuple[float, Event | Trip]]:
    """The recording's events in order, driving the panel's clocks where the times are known; a clock's trip ends it."""
    decoder, translator = Decoder(), Translator()
    before = 0.0
    panel.waiting(0.0)
    for seconds, data in recording.reads():
        if recording.chunks is not None:
            now = max(seconds, before)
            panel.waiting(before)
            if panel.deadline <= now:
                trip = panel.expire(panel.deadline)
                if trip is not None:
                    yield panel.deadline, trip
            panel.heard(now)
            before = now
        try:
            frames = decoder.feed(data)
        except EventTooLarge as error:
            yield before, error.failed
            return
        for event in translator.translate(frames):
            yield before, event


def _verdict(panel: Panel, events: Iterator[tuple[float, Event | Trip]]) -> Trip | Failed | Enough | None:
    now = 0.0
    for now, event in events:
        if isinstance(event, Trip | Failed):
            return event
        verdict = panel.feed(event, now)
        if verdict is not None:
            return verdict
        if panel.stopped:
            return None
    return panel.end(now)


def _tokens(panel: Panel, rest: Iterator[tuple[float, Event | Trip]]) -> tuple[int | None, int | None]:
    """≈ Output tokens of the whole recording, and those after the verdict.

    The provider's own count is used where the rest of the recording has it, else the weight of the text.
    """
    transcript = panel.transcript
    before = sum(transcript.weights().values())
    for now, event in rest:
        if not isinstance(event, Trip | Failed):
            transcript.feed(event, now)
    whole = sum(transcript.weights().values())
    counted = transcript.usage.output_tokens if transcript.metered else None
    total = counted if counted is not None else round(whole)
    share = 0.0 if not whole else 1 - before / whole
    return total, round(total * share)


def recordings(paths: Sequence[str | Path]) -> Iterator[Recording]:
    """The recordings in files: `.sse` (or any name) each one, `.zip` all `.sse` inside.

    :raises JobError: a file that cannot be read, a zip without recordings, a recording that is too large.
    """
    for path in map(Path, paths):
        try:
            if zipfile.is_zipfile(path):
                yield from _zipped(path)
            else:
                if path.stat().st_size > MOST_BYTES:
                    raise _problem(path, f"larger than {MOST_BYTES:,} bytes")
                beside = path.with_suffix(".json")
                times = beside.read_bytes() if path.suffix == ".sse" and beside.is_file() else None
                yield Recording(file=str(path), data=path.read_bytes(), chunks=_chunks(times))
        except (OSError, zipfile.BadZipFile) as error:
            raise _problem(path, f"cannot be read: {error}") from error


def _zipped(path: Path) -> Iterator[Recording]:
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(".sse")]
        if not names:
            raise _problem(path, "no .sse file in the zip")
        inside = set(archive.namelist())
        for name in names:
            if archive.getinfo(name).file_size > MOST_BYTES:
                raise _problem(path, f"{name} is larger than {MOST_BYTES:,} bytes")
            beside = name.removesuffix(".sse") + ".json"
            times = archive.read(beside) if beside in inside else None
            yield Recording(file=name, data=archive.read(name), chunks=_chunks(times))


def _chunks(data: bytes | None) -> tuple[tuple[float, int], ...] | None:
    """The chunk times of a sidecar file; `None` if it has none."""
    if data is None:
        return None
    try:
        found = json.loads(data)
        return tuple((float(seconds), int(size)) for seconds, size in found["chunks"])
    except (ValueError, TypeError, KeyError):
        return None


def _problem(path: Path, what: str) -> JobError:
    return JobError(Problem(file=str(path), problem=what))
