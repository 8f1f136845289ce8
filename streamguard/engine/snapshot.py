"""A running call as it is at this moment, for whoever looks on: the live view, a debugger, a status line.

In charge of reading a call's state without touching it: nothing here is on the way of an event, and a call that nobody
looks at pays nothing. Text is given as references to the attempt's own pieces, never copied or joined, so that a look
costs the same however long the answer has become. A snapshot is read in one go, by a task of the call's own loop.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from streamguard.engine.attempt import RunningAttempt
from streamguard.engine.clock import CallClock
from streamguard.events import BlockKind, Usage
from streamguard.guards.timeouts import ClockState
from streamguard.guards.transcript import Transcript
from streamguard.outcome import AttemptRecord

State = Literal["queued", "waiting", "connecting", "listening", "thinking", "writing", "calling", "closing", "ending"]
"""What a call does: it waits for its turn or for room in a budget (`queued`), or between attempts (`waiting`); has no
response head yet (`connecting`), or no output (`listening`); gets thinking, text, a tool's input (`calling`, also while
a server tool works); has the end of the message (`closing`); was interrupted (`ending`)."""

_WORK: Mapping[BlockKind, State] = {"thinking": "thinking", "tool_input": "calling", "server_tool": "calling"}


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """One content block so far."""

    index: int
    kind: BlockKind
    type: str
    name: str | None = None
    """The tool's name, for tools."""
    id: str | None = None
    pieces: Sequence[str] = ()
    """Its text, in the attempt's own pieces: more are appended while it runs."""


class CallSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """One running call."""

    call: str
    labels: Mapping[str, Any]
    group: str | None
    state: State
    began: float
    """When the call began, on the running backend's clock, in seconds."""
    seconds: float
    """Since the call began."""
    attempt: int
    """The number of the attempt that runs, or that is to come."""
    attempts: int
    """The most that the policy allows."""
    model: str | None = None
    clocks: tuple[ClockState, ...] = ()
    """Those that count now; the one of the whole call is last."""
    blocks: tuple[Block, ...] = ()
    """Of the attempt that runs."""
    usage: Usage = Usage()
    """As the provider has counted so far; the output is unknown before its end."""
    before: tuple[AttemptRecord, ...] = ()
    """The attempts that are over."""


def snapshot(
    call: str,
    *,
    about: Mapping[str, Any],
    clock: CallClock,
    running: RunningAttempt | None,
    before: tuple[AttemptRecord, ...],
    attempts: int,
) -> CallSnapshot:
    """Look at a call's parts at this moment; `Call.snapshot` is what others call.

    :param attempts: the most that the policy allows.
    """
    now = clock.now()
    clocks = () if running is None else tuple(running.panel.clocks(now))
    if clock.deadline != math.inf:
        total = clock.deadline - clock.began
        clocks = (*clocks, ClockState(knob="total", limit=total, left=clock.deadline - now, stands=False))
    transcript = None if running is None else running.panel.transcript
    request = None if running is None else running.request
    return CallSnapshot(
        call=call,
        labels=about["labels"],
        group=about["group"],
        state=_state(clock, running, begun=bool(before)),
        began=clock.began,
        seconds=now - clock.began,
        attempt=len(before) + 1 if running is None else running.number,
        attempts=attempts,
        model=request.model if request is not None else transcript.model if transcript is not None else None,
        clocks=clocks,
        blocks=() if transcript is None else blocks(transcript),
        usage=Usage() if transcript is None else transcript.usage,
        before=before,
    )


def blocks(transcript: Transcript) -> tuple[Block, ...]:
    """The content blocks of an attempt, running or over."""
    return tuple(
        Block(index=i, kind=one.kind, type=one.type, name=one.name, id=one.id, pieces=transcript.pieces(i))
        for i, one in transcript.blocks.items()
    )


def _state(clock: CallClock, running: RunningAttempt | None, *, begun: bool) -> State:
    if clock.interrupted is not None:
        return "ending"
    if running is None:
        return "waiting" if begun else "queued"
    transcript = running.panel.transcript
    if running.panel.stopped:
        return "closing"
    if transcript.blocks:
        latest = next(reversed(transcript.blocks.values()))
        return _WORK.get(latest.kind, "writing")
    return "connecting" if running.head_at is None else "listening"
