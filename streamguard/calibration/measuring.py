"""What one recorded answer would have needed of each limit: the least value that would not have ended it.

In charge of one recording at a time: its clocks, its length, its loops, and whether it is a good answer. The clocks and
the search for loops are the guards' own, with limits that nothing reaches, so that a value means what the policy's key
means. Nothing is sent.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from streamguard.adapters.anthropic.events import Translator
from streamguard.adapters.sse.decoder import Decoder, EventTooLarge
from streamguard.events import Delta, Event, Failed
from streamguard.guards.base import AttemptContext
from streamguard.guards.repetition import Repetition
from streamguard.guards.timeouts import Timeouts
from streamguard.policy.model import Policy
from streamguard.replay.recording import Recording
from streamguard.replay.rerun import replay
from streamguard.request import Request

FAR: Final = 1e9
"""Seconds that no answer takes."""

CLOCKS: Final = ("first_token", "progress", "progress_thinking")
"""The clocks of silence that are measured."""

REPEATS: Final = (3, 4, 5, 6, 8, 10, 12, 16, 24, 32, 48, 64)
"""Values of `repetition.min_repeats` that are tried."""

_BLANKS: Final = re.compile(r"\s+")


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One answer."""

    name: str
    good: bool
    """Whether a policy without these limits lets it stand."""
    reason: str | None = None
    """Why not."""
    needs: Mapping[str, float] = {}
    """Knob → the largest value that was reached: a limit must be above it, a ceiling no less. Without an entry
    nothing is known of that knob."""
    tokens: int = 0
    """Output tokens."""


def without_limits(policy: Policy) -> Policy:
    """Return a policy's judgement of answers, without the limits that are calibrated."""
    keep = {"first_token_per_1k_input", "progress_tool_per_1k_max_tokens", "close_grace", "mode"}
    off = {name: None for name in Timeouts.model_fields if name not in keep}
    timeouts = policy.timeouts.model_copy(update=off)
    return policy.model_copy(update={"timeouts": timeouts, "caps": None, "repetition": None})


def measure(recording: Recording, policy: Policy) -> Measured:
    """Measure one recording.

    :param recording: with the times of its reads where clocks are to be calibrated.
    :param policy: judges whether the answer is good, and has `first_token_per_1k_input`.
    :raises ConfigError: the policy needs something that the recording does not have.
    """
    judged = replay(recording, without_limits(policy))
    needs = {**dict(_lengths(recording)), "max_tokens": float(judged.tokens)}
    if recording.chunks is not None:
        needs |= _clocks(recording, policy)
    return Measured(
        name=recording.file, good=judged.reason is None, reason=judged.reason, needs=needs, tokens=judged.tokens
    )


def _events(recording: Recording) -> Iterator[tuple[float, list[Event]]]:
    """The events of each read, with its time."""
    decoder, translator = Decoder(), Translator()
    for seconds, data in recording.reads():
        try:
            yield seconds, translator.translate(decoder.feed(data))
        except EventTooLarge as error:
            yield seconds, translator.translate(error.frames)
            return


def _clocks(recording: Recording, policy: Policy) -> dict[str, float]:
    """The longest silence that each clock would have counted, and the whole attempt."""
    request = None if recording.request is None else Request(recording.request)
    spec = Timeouts(
        connect=FAR, first_token=FAR, first_token_per_1k_input=0, progress=FAR, progress_thinking=FAR, alive=FAR
    )
    watch = spec.watch(AttemptContext(request=request, sees_bytes=True), 0.0)
    found: dict[str, float] = dict.fromkeys(CLOCKS, 0.0)
    now = 0.0
    for seconds, events in _events(recording):
        now = max(now, seconds)
        for clock in watch.clocks(now):
            if clock.knob in CLOCKS:
                found[clock.knob] = max(found[clock.knob], clock.limit - clock.left)
        watch.heard(now)
        for event in events:
            if not isinstance(event, Failed):
                watch.feed(event, now)
        watch.waiting(now)
    if request is not None:
        input_tokens = -(-request.input_bytes // 4)  # as replay and the engine have it
        allowed = policy.timeouts.first_token_per_1k_input * input_tokens / 1000
        found["first_token"] = max(0.0, found["first_token"] - allowed)
    return {**{f"timeouts.{knob}": value for knob, value in found.items()}, "timeouts.attempt": now}


def _lengths(recording: Recording) -> Iterator[tuple[str, float]]:
    """Characters, the longest run of blanks, and how often something was repeated."""
    texts: dict[str, list[str]] = {}
    deltas: list[Delta] = []
    for _, events in _events(recording):
        for event in events:
            if isinstance(event, Delta) and event.text:
                deltas.append(event)
                texts.setdefault(event.kind, []).append(event.text)
    joined = ["".join(pieces) for pieces in texts.values()]
    yield "caps.characters", sum(map(len, joined))
    yield "repetition.max_whitespace", max((len(run) for text in joined for run in _BLANKS.findall(text)), default=0)
    yield "repetition.min_repeats", _repeats(deltas)


def _repeats(deltas: list[Delta]) -> float:
    """The largest `min_repeats` that the answer may have tripped; 2 if none."""
    for repeats in REPEATS:
        watch = Repetition(max_whitespace=None, min_repeats=repeats).watch(AttemptContext(), 0.0)
        if all(watch.feed(delta, 0.0) is None for delta in deltas):
            return repeats - 1
    return math.inf
