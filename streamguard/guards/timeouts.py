"""The clocks of one attempt: has it begun, does it go on, is the connection alive, is it over in time.

In charge of which clock runs when, and which one ran out. It reads no clock, knows no socket and stops nothing: the
engine says when the wait for the provider begins (`waiting`) and ends (`heard`), and calls `expire` at its `deadline`.

All clocks but `attempt` count *waiting time*: they stand still while the consumer or a check of one's own has its
turn, so whoever is slow on this side never trips a healthy stream. Bytes end a wait; only `alive` starts anew.

| knob | counts | from | starts anew with | ends with |
| --- | --- | --- | --- | --- |
| `connect` | waiting time | start of the attempt | - | the response head (see there) |
| `first_token` | waiting time | start of the attempt | - | first output |
| `progress` | waiting time | first output | output; the end of thinking, a server tool, a tool's input | `Stopped` |
| `alive` | waiting time | the first keep-alive | any byte | `Stopped` |
| `attempt` | time | start of the attempt | - | `Stopped` |
| `min_rate` | waiting time | first output, and again after thinking or a server tool | - | `Stopped` |

Output is a delta that is not empty. An opened thinking, server-tool or tool block is as good as first output, not as
later. A tool's input comes in whole values unless the tool streams it eagerly (`eager_input_streaming`), so while its
block is open a long value is silence: 78 s for 8,000 tokens and 330 s for 36,000 were seen.

`alive` begins with the first keep-alive of the stream: many servers (vLLM, SGLang, gateways, Bedrock) never send one,
and their silence says nothing of the connection.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Final

import msgspec

from streamguard.events import BlockStarted, BlockStopped, Delta, Event, Ping, Stopped
from streamguard.guards.base import NEVER, AttemptContext, BaseWatch, Mode, Spec
from streamguard.guards.knobs import Positive, Seconds, SecondsOrZero
from streamguard.pricing.tokens import weigh
from streamguard.verdict import Trip


class MinRate(Spec):
    """The slowest output that is still worth waiting for."""

    tokens_per_second: Positive
    """Of all output. Estimated at the upper end (`TokenScale.high`), so that only what is surely slower trips."""
    window: Positive = 10.0
    """Seconds of waiting time that the rate is taken over."""


class Timeouts(Spec):
    """Every timeout, in seconds; `None` turns one off. What each one counts: see the module.

    ```python
    Timeouts(first_token=30, progress=20, total=120)
    ```
    """

    connect: Seconds = 10.0
    """To connect, waiting for a free connection of the client's own included; from then on `first_token` counts. Where
    a source does not say when it has connected: from the start of the attempt to the response head."""
    first_token: Seconds = 60.0
    """From the start of the attempt to the first output."""
    first_token_per_1k_input: SecondsOrZero = 0.1
    """Added to `first_token` per 1000 input tokens, where their number is known: long prompts take long to read. (A
    busy site measured 105 s for 400,000 characters; there 0.5 is right.)"""
    progress: Seconds = 60.0
    """Between output deltas, whatever else arrives."""
    progress_thinking: Seconds = 300.0
    """The same while a thinking block is open or a server tool is at work: healthy thinking is silent for 180 s."""
    progress_tool: Seconds = 60.0
    """The same while a tool's block is open whose input does not stream eagerly: it comes in whole values."""
    progress_tool_per_1k_max_tokens: SecondsOrZero = 25.0
    """Added to `progress_tool` per 1000 tokens of the request's `max_tokens`, which bounds how long one value can be:
    25 s are 40 tokens a second."""
    alive: Seconds = 60.0
    """Between any bytes once a keep-alive was seen in the stream; they come every 15 to 30 s. Off where the source does
    not show them, or sends none."""
    attempt: Seconds = None
    """One attempt, the consumer's time included."""
    total: Seconds = None
    """The whole call, queueing and waits between attempts included. Kept by the engine, not by this watch."""
    min_rate: MinRate | None = None
    close_grace: SecondsOrZero = 2.0
    """From the end of the message to the end of the socket; the answer is final before. After a document that ended its
    answer (`trailing: cut`), as long as only closing frames come. Kept by the engine."""
    mode: Mode | None = None

    @property
    def name(self) -> str:
        return "timeouts"

    def watch(self, ctx: AttemptContext, now: float) -> TimeoutsWatch:
        """Return the state for one attempt.

        :param ctx: what is known of the attempt: its request and model.
        :param now: seconds on the running loop\'s clock.
        """
        return TimeoutsWatch(self, ctx, now)


_OFF: Final = math.inf

_Clock = tuple[str, float, float]
"""A knob, from when it counts, and how long it may; both in seconds of what it counts."""

_WORDS: Final[dict[str, tuple[str, str]]] = {
    "connect": ("timeout.connect", "no response head for {:.1f} s"),
    "first_token": ("timeout.first_token", "no output for {:.1f} s"),
    "progress": ("timeout.progress", "no output for {:.1f} s"),
    "progress_thinking": ("timeout.progress", "no output for {:.1f} s of thinking or of a server tool"),
    "progress_tool": ("timeout.progress", "no output for {:.1f} s of a tool's input"),
    "alive": ("timeout.alive", "no byte for {:.1f} s, not even a keep-alive"),
    "attempt": ("timeout.attempt", "the attempt took {:.1f} s"),
    "min_rate": ("timeout.min_rate", ""),
}
"""Knob → reason and what was seen. Of clocks that ran out at the same moment the first one here speaks."""

_ORDER: Final = {knob: place for place, knob in enumerate(_WORDS)}


def _limit(seconds: float | None) -> float:
    return _OFF if seconds is None else seconds


_SLOW: Final = 0.1
"""The part of an attempt's time from which on it is said to be the consumer's."""


def _tool_limit(spec: Timeouts, ctx: AttemptContext) -> float:
    """How long an open tool block may be silent; without a known `max_tokens` as long as thinking, at the least."""
    most = ctx.request.max_tokens if ctx.request is not None else None
    if type(most) is not int:
        return max(_limit(spec.progress), _limit(spec.progress_tool), _limit(spec.progress_thinking))
    scaled = _limit(spec.progress_tool) + spec.progress_tool_per_1k_max_tokens * most / 1000
    return max(_limit(spec.progress), scaled)


def _eager_tools(ctx: AttemptContext) -> frozenset[str | None]:
    """The tools that stream their input as it is written."""
    tools = ctx.request.body.get("tools") if ctx.request is not None else None
    named = [tool for tool in tools if isinstance(tool, Mapping)] if isinstance(tools, list | tuple) else []
    return frozenset(tool.get("name") for tool in named if tool.get("eager_input_streaming") is True)


class ClockState(msgspec.Struct, frozen=True, kw_only=True):
    """One clock that counts, for whoever looks on."""

    knob: str
    """Such as `progress`; the policy key is `timeouts.progress`."""
    limit: float
    """In seconds."""
    left: float
    """Seconds until it runs out, if nothing happens; below 0 where it only observes and has run out."""
    stands: bool
    """Whether it stands still at the moment, because it is the consumer's turn."""


class TimeoutsWatch(BaseWatch):
    """The clocks of one attempt, which starts, waiting for the provider, when this is made."""

    wants = (Delta, BlockStarted, BlockStopped, Stopped, Ping)

    def __init__(self, spec: Timeouts, ctx: AttemptContext, now: float) -> None:
        self._spec = spec
        input_tokens = ctx.input_tokens or 0
        self._connect: _Clock = ("connect", 0.0, _OFF if ctx.times_connection else _limit(spec.connect))
        first = _limit(spec.first_token) + spec.first_token_per_1k_input * input_tokens / 1000
        self._first: _Clock = ("first_token", 0.0, first)
        self._progress, self._thinking = _limit(spec.progress), _limit(spec.progress_thinking)
        self._tool = _tool_limit(spec, ctx)
        self._eager = _eager_tools(ctx)
        self._alive_limit = _limit(spec.alive) if ctx.sees_bytes else _OFF
        self._alive = _OFF
        """Its limit, once a keep-alive was seen."""
        self._began = now
        self._end = now + _limit(spec.attempt)
        self._waited = 0.0
        """Waiting time up to `_since`, or up to now while we do not wait."""
        self._since: float | None = None
        """Since when we wait for the provider; `None` while we do not."""
        self._heard_at: float | None = None
        """`_waited` at the last bytes; `None` before the first."""
        self._output = False
        """Whether there was output since the last wait began. Feeding must be cheap, so sums are made per wait."""
        self._output_at: float | None = None
        """`_waited` at the last output; `None` before the first."""
        self._thoughts: set[int] = set()
        """Thinking blocks that are open."""
        self._calls: set[int] = set()
        """Blocks of the caller's tools that are open and come in whole values."""
        self._tools = 0
        """Server tools at work. Their results come as blocks of their own, after the calls' blocks have stopped."""
        self._over = False
        self._rate = None if spec.min_rate is None else _Rate(spec.min_rate, ctx.scale.high)
        self.waiting(now)

    def waiting(self, now: float) -> None:
        if self._over:
            return
        if self._since is not None:
            self._waited += now - self._since
        self._since = now
        if self._output:
            self._output = False
            self._output_at = self._waited
        if self._rate is not None:
            self._rate.take(self._waited, paused=bool(self._thoughts or self._tools or self._calls))
        waited, deadline = self._waited, self._end
        for _, start, limit in self._running():
            due = now + (start + limit - waited)
            if due < deadline:
                deadline = due
        self.deadline = deadline

    def heard(self, now: float) -> None:
        if self._since is not None:
            self._waited += now - self._since
            self._since = None
        self._heard_at = self._waited
        if not self._over:
            self.deadline = self._end

    def passed(self, now: float) -> None:
        """`heard` and `waiting` at once: bytes came, and we wait on. For reads that bring the consumer nothing."""
        since = self._since
        if since is None or self._over or self._rate is not None:
            self.heard(now)
            self.waiting(now)
            return
        waited = self._waited + (now - since)
        self._waited = self._heard_at = waited
        self._since = now
        if self._output:
            self._output = False
            self._output_at = waited
        output_at = self._output_at
        if output_at is None:
            due = self._first[1] + self._first[2]
        elif self._thoughts or self._tools:
            due = output_at + self._thinking
        elif self._calls:
            due = output_at + self._tool
        else:
            due = output_at + self._progress
        alive = waited + self._alive
        deadline = now + ((min(due, alive)) - waited)
        self.deadline = min(self._end, deadline)

    def feed(self, event: Event, now: float) -> None:
        if type(event) is Delta:
            if event.text:
                self._output = True
                if self._rate is not None:
                    self._rate.pieces.append(event.text)
        elif type(event) is BlockStarted:
            self._block_started(event)
        elif type(event) is BlockStopped:
            if event.index in self._thoughts or event.index in self._calls:
                self._thoughts.discard(event.index)
                self._calls.discard(event.index)
                # The longer allowance ends here; the silence it allowed must not count against the shorter one.
                self._output = True
        elif type(event) is Ping:
            self._alive = self._alive_limit
        elif type(event) is Stopped:
            self._over = True
            self.deadline = NEVER

    def _block_started(self, event: BlockStarted) -> None:
        was_at_work = self._tools > 0
        if event.kind == "server_tool":
            self._tools += 1
        elif event.kind == "other":
            self._tools = max(0, self._tools - 1)
        else:
            self._tools = 0  # the model goes on only when every tool has answered
        if event.kind == "thinking":
            self._thoughts.add(event.index)
        if event.kind == "tool_input" and event.name not in self._eager:
            self._calls.add(event.index)
        first = self._output_at is None and event.kind in ("thinking", "server_tool", "tool_input")
        if first or (was_at_work and not self._tools):
            self._output = True

    def clocks(self, now: float) -> list[ClockState]:
        """Every clock that counts now. For displays: nothing in here depends on it."""
        if self._over:
            return []
        stands = self._since is None
        waited = self._waited + (0.0 if self._since is None else now - self._since)
        states = [
            ClockState(knob=knob, limit=limit, left=start + limit - waited, stands=stands)
            for knob, start, limit in self._running()
            if limit != _OFF and knob != "min_rate"
        ]
        if self._end != _OFF:
            limit = _limit(self._spec.attempt)
            states.append(ClockState(knob="attempt", limit=limit, left=self._end - now, stands=False))
        return states

    def expire(self, now: float) -> Trip | None:
        if self._over:
            return None
        due: list[tuple[float, int, _Clock]] = []
        if self._end <= now:
            due.append((self._end, _ORDER["attempt"], ("attempt", 0.0, _limit(self._spec.attempt))))
        waited = self._waited
        if self._since is not None:
            for clock in self._running():
                # The same sum as in waiting(), so that the deadline is the very moment at which this trips.
                deadline = self._since + (clock[1] + clock[2] - waited)
                if deadline <= now:
                    due.append((deadline, _ORDER[clock[0]], clock))
            waited += now - self._since
        if not due:
            return None
        _, _, (knob, start, limit) = min(due)
        if knob == "min_rate" and self._rate is not None:
            return self._rate.trip(waited, now)
        observed = now - self._began if knob == "attempt" else waited - start
        # A deadline is a rounded sum: at that very moment the difference may be a hair short of the limit.
        return self._trip(knob, limit, max(observed, limit), start, now)

    def _running(self) -> list[_Clock]:
        """The clocks that count waiting time, while we wait."""
        clocks: list[_Clock] = []
        if self._output_at is None:
            clocks.append(self._first)
        elif self._thoughts or self._tools:
            clocks.append(("progress_thinking", self._output_at, self._thinking))
        elif self._calls:
            clocks.append(("progress_tool", self._output_at, self._tool))
        else:
            clocks.append(("progress", self._output_at, self._progress))
        if self._heard_at is None:
            clocks.append(self._connect)
        else:
            clocks.append(("alive", self._heard_at, self._alive))
        if self._rate is not None:
            clocks.append(("min_rate", 0.0, self._rate.due))
        return clocks

    def _trip(self, knob: str, limit: float, observed: float, start: float, now: float) -> Trip:
        reason, seen = _WORDS[knob]
        notes = []
        quiet = ("first_token", "progress", "progress_thinking", "progress_tool")
        if knob in quiet and (self._heard_at or 0.0) - start > limit / 4:
            # That tells a stalled model from a dead line. The response's head, or a last piece, is no such sign.
            notes.append("bytes such as pings kept coming")
        notes.append(f"timeouts.{knob} is {limit:g} s")
        if knob == "attempt":
            waited = self._waited + (0.0 if self._since is None else now - self._since)
            if (own := observed - waited) > max(_SLOW * observed, _SLOW):
                notes.append(f"{own:.1f} s of it the consumer's, who was not ready to read on")
        if knob == "first_token" and limit != self._spec.first_token:
            notes.append(f"{limit - (self._spec.first_token or 0.0):.1f} s of it for the length of the input")
        if knob == "progress_tool" and limit != self._spec.progress_tool:
            notes.append(f"{limit - (self._spec.progress_tool or 0.0):.1f} s of it for the request's max_tokens")
        return Trip(
            reason=reason,
            message=f"{seen.format(observed)} ({'; '.join(notes)})",
            knob=f"timeouts.{knob}",
            limit=limit,
            observed=observed,
            at=now,
            guard="timeouts",
        )


class _Rate:
    """Tokens per second of waiting time over a sliding window, in amortised constant time per read."""

    def __init__(self, spec: MinRate, scale: float) -> None:
        self._spec = spec
        self._scale = scale
        self._need = spec.tokens_per_second * spec.window
        self.pieces: list[str] = []
        """Output since the last `take`."""
        self.due = _OFF
        """Waiting time at which the window will hold too little, if nothing more comes."""
        self._start: float | None = None
        self._reads: deque[tuple[float, float]] = deque()
        """(waiting time, tokens) of the latest reads; the oldest go as long as the rest suffices."""
        self._sum = 0.0

    def take(self, waited: float, *, paused: bool) -> None:
        """A wait begins. While `paused` no rate is asked for; afterwards the next output starts a new window."""
        if paused:
            self.pieces.clear()
            self._reads.clear()
            self._start, self._sum, self.due = None, 0.0, _OFF
            return
        if not self.pieces:
            return
        if self._start is None:
            self._start = waited
        tokens = weigh("".join(self.pieces)) * self._scale
        self.pieces.clear()
        self._reads.append((waited, tokens))
        self._sum += tokens
        while len(self._reads) > 1 and self._sum - self._reads[0][1] >= self._need:
            self._sum -= self._reads.popleft()[1]
        # With enough in it the window lasts until the oldest read that is needed leaves it.
        oldest = self._reads[0][0] if self._sum >= self._need else self._start
        self.due = oldest + self._spec.window

    def trip(self, waited: float, now: float) -> Trip:
        """What to say when `due` has come."""
        asked, window = self._spec.tokens_per_second, self._spec.window
        # The read that leaves the window at this very moment does not count any more; sums of floats are not exact.
        rate = min(sum(tokens for at, tokens in self._reads if at + window > waited) / window, asked)
        return Trip(
            reason="timeout.min_rate",
            message=f"at most {rate:.1f} tokens per second, estimated, over the last {window:g} s"
            f" (timeouts.min_rate.tokens_per_second is {asked:g})",
            knob="timeouts.min_rate",
            limit=asked,
            observed=rate,
            at=now,
            estimated=True,
            guard="timeouts",
        )
