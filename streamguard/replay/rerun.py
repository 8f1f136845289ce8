"""Recorded streams through a policy, offline: what would have tripped, where, and what it would have saved.

The same decoder, translator and panel as in a live call, without SDK, sockets or waiting: each recording is judged as
one attempt. Where it is known when the bytes came, the clocks run as they would have; without that no clock runs.
Asynchronous guards of one's own are not asked: what they look up is not offline.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final, Literal

import msgspec

from streamguard.adapters.anthropic.events import Translator
from streamguard.adapters.sse.decoder import Decoder, EventTooLarge
from streamguard.errors import PolicyError, Problem
from streamguard.events import Event, Failed, Other, Ping, Started
from streamguard.guards.base import AttemptContext
from streamguard.guards.closing import Closing
from streamguard.guards.grounding.source import Given, SourceTexts
from streamguard.guards.panel import Panel
from streamguard.policy.hinting import next_hint
from streamguard.policy.model import Policy
from streamguard.pricing.book import PriceBook
from streamguard.pricing.price import Price
from streamguard.pricing.tokens import TokenScale
from streamguard.replay.recording import Recording
from streamguard.request import Request
from streamguard.retry.rules import RetryState, accepted, decide
from streamguard.verdict import Completed, Enough, Trip, Where

SCALE: Final = TokenScale()
"""Tokens by weight, as in an attempt of which nothing has been learned yet."""


class ObservedTrip(msgspec.Struct, frozen=True, kw_only=True):
    """What a guard in `mode: observe` would have aborted the attempt for, or what an answer is marked with."""

    reason: str
    pointer: str | None = None
    offset: int | Literal["eof"] | None = None
    char: int | Literal["eof"] | None = None
    event: int | None = None


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """What a policy makes of a recording."""

    file: str
    reason: str | None
    """Why the attempt would have been aborted, or why it failed; `None` if it stands."""
    pointer: str | None = None
    """JSON Pointer of the value, for reasons that have one."""
    offset: int | Literal["eof"] | None = None
    """Byte offset of the first dead byte from the document's start; `eof` if only the end of the answer decides."""
    char: int | Literal["eof"] | None = None
    """The same, in characters."""
    event: int | None = None
    """0-based index of the event that brought the verdict about; `None` for an empty recording. Pieces without text
    are no events."""
    tokens_after: int = 0
    """≈ Output tokens of the recording that came after that event: what ending there would have saved."""
    completed: Completed | None = None
    """How the answer would have been accepted. `None` if it would not, or if a guard that only observes says no."""
    tokens: int = 0
    """Output tokens of the whole recording: the provider's count if it is in there, else an estimate."""
    keyword: str | None = None
    """The JSON Schema keyword that no continuation can satisfy."""
    message: str | None = None
    """The reason in a sentence."""
    observed: tuple[ObservedTrip, ...] = ()
    """Trips of guards in `mode: observe`, in order."""
    hint: str | None = None
    """What the next request would say of the answer, if the rule that asks again has a hint."""
    marked: tuple[ObservedTrip, ...] = ()
    """What is wrong with an answer that the policy would keep at the first attempt (`accept: marked`)."""


def replay(
    recording: Recording, policy: Policy, request: Request | None = None, *, source_text: Given = None
) -> Replayed:
    """Run one recording through a policy's guards, as one attempt. Nothing is sent.

    :param request: what the recording answers, for `schema: request`, prefills and allowances by length. By default the
        recording's own, if it has one.
    :param source_text: what the values of `json.grounded` are held against, as in `streamguard.run`. By default the
        recording's own, else the request's text.
    :param recording: a recorded answer.
    :param policy: the policy that judges it.
    :returns: what would have become of it: the reason, the place, the tokens that came after it.
    :raises ConfigError: the policy needs a request, a source text or a price that is not known.
    """
    if request is None and recording.request is not None:
        request = Request(recording.request)
    context = AttemptContext(
        request=request,
        sources=SourceTexts(recording.source_text if source_text is None else source_text, request),
        sees_bytes=recording.chunks is not None,
        price=_price(recording, policy, request),
        # As the engine has it: four bytes a token, rounded up.
        input_tokens=-(-request.input_bytes // 4) if request else None,
    )
    first = RetryState(attempt=1)
    panel = Panel(
        policy.panel_guards, context, 0.0, mode=policy.mode, accepts=lambda trip: accepted(policy.retry, trip, first)
    )
    run = _Run(recording, policy, panel)
    verdict = run.verdict()
    at = panel.events - 1 if panel.events else None
    before = sum(panel.transcript.weights().values())
    closed = run.hear_out(verdict)
    completed = None if isinstance(verdict, Trip | Failed) else _completed(panel, verdict, closed)
    observed = tuple(_observed(seen.trip) for seen in panel.observed)
    marked = tuple(_observed(trip) for trip, _ in panel.marked)
    tokens, after = run.tokens(before)
    told: dict[str, Any] = {
        "file": recording.file,
        "tokens": tokens,
        "tokens_after": after,
        "observed": observed,
        "marked": marked,
    }
    if isinstance(verdict, Trip):
        where = verdict.where or Where()
        return Replayed(
            **told,
            reason=verdict.reason,
            pointer=where.pointer,
            offset=where.offset,
            char=where.char,
            event=None if at is None else where.event,
            keyword=where.keyword,
            message=verdict.message,
            hint=next_hint(policy, decide(policy.retry, verdict, first), verdict, request),
        )
    if isinstance(verdict, Failed):
        # What failed is an event, too, though no guard was asked about it.
        return Replayed(**told, reason=verdict.reason, event=panel.events, message=verdict.message)
    return Replayed(**told, reason=None, event=at, completed=completed)


class _Run:
    """A recording being played to a panel: first up to the verdict, then the rest of it for its tokens."""

    def __init__(self, recording: Recording, policy: Policy, panel: Panel) -> None:
        self._recording = recording
        self._panel = panel
        self._connect = policy.timeouts.connect
        self._total = policy.timeouts.total
        self._grace = policy.timeouts.close_grace
        self._events = self._played()
        self._last: tuple[float, Event] | None = None

    def verdict(self) -> Trip | Failed | Enough | None:
        """How the attempt would have ended; `None` if it was read to its end and stands."""
        panel, now = self._panel, 0.0
        for now, event in self._events:
            if isinstance(event, Trip | Failed):
                return None if panel.stopped else event
            if panel.stopped and isinstance(event, Ping | Other):
                continue
            self._last = now, event
            verdict = panel.feed(event, now)
            for watch in panel.asynchronous:
                watch.pending()  # not asked, and not to be kept
            if isinstance(verdict, Trip) or (verdict is not None and not panel.stopped):
                return verdict
        return panel.end(now)

    def hear_out(self, verdict: Trip | Failed | Enough | None) -> Completed | None:
        """As the engine has it: whether the message ended where its document did. `None` without such an end."""
        if not isinstance(verdict, Enough) or self._last is None:
            return None
        since, last = self._last
        closing = Closing.after(verdict, self._panel, last)
        if closing is None:
            return verdict.completed
        for now, event in self._events:
            if isinstance(event, Trip) or now > since + self._grace or not closing.feed(event, now):
                break
        return closing.completed

    def tokens(self, before: float) -> tuple[int, int]:
        """Output tokens of the whole recording, and ≈ those after the verdict, by the weight of the text before it."""
        transcript = self._panel.transcript
        for now, event in self._events:
            if not isinstance(event, Trip | Failed):
                transcript.feed(event, now)
        whole = sum(transcript.weights().values())
        counted = transcript.usage.output_tokens if transcript.metered else None
        tokens = round(whole * SCALE.mid) if counted is None else counted
        return tokens, round(tokens * (1 - before / whole)) if whole else 0

    def _played(self) -> Iterator[tuple[float, Event | Trip]]:
        """The recording's events with the times of their reads. A clock that runs out says so before the next read."""
        decoder, translator, now = Decoder(), Translator(), 0.0
        timed = self._recording.chunks is not None
        if timed:
            yield from self._until(now, head := self._head())
            now = head
        for seconds, data in self._recording.reads():
            if timed:
                yield from self._until(now, then := max(seconds, now))
                now = then
            try:
                events = translator.translate(decoder.feed(data))
            except EventTooLarge as error:
                yield from ((now, event) for event in (*translator.translate(error.frames), error.failed))
                return
            for event in events:
                yield now, event

    def _head(self) -> float:
        """When the response head came. If unknown: as late as its own clock allows, but not after the first bytes, so
        that the clocks before and behind it trip only if they must have."""
        if self._recording.head is not None:
            return self._recording.head
        first = next((seconds for seconds, _ in self._recording.reads()), 0.0)
        return first if self._connect is None else min(first, math.nextafter(self._connect, 0.0))

    def _until(self, now: float, then: float) -> Iterator[tuple[float, Trip]]:
        """Wait for the provider, from `now` until bytes come."""
        panel = self._panel
        panel.waiting(now)
        if (due := min(panel.deadline, self._deadline)) <= then and (trip := self._expired(due)) is not None:
            yield due, trip
        panel.heard(then)

    @property
    def _deadline(self) -> float:
        """Of the whole call, whose first attempt this is; none once the answer is complete."""
        return math.inf if self._total is None or self._panel.stopped else self._total

    def _expired(self, now: float) -> Trip | None:
        if now < self._deadline:
            return self._panel.expire(now)
        trip = Trip(
            reason="timeout.total",
            message=f"this attempt alone took more than {self._total:g} s (timeouts.total is {self._total:g} s)",
            knob="timeouts.total",
            limit=self._total,
            observed=now,
            guard="timeouts",
        )
        return self._panel.stamped(trip, now)


JUDGES: Final = frozenset({"completion", "json"})
"""As the engine has it: the guards whose word `completed` gives."""


def _completed(panel: Panel, verdict: Enough | None, closed: Completed | None) -> Completed | None:
    """How an answer that stands was accepted, as the engine has it: nothing is claimed where a guard that only observes
    would not have let it stand."""
    completed: Completed = "whole" if verdict is None or closed is None else closed
    if any(seen.trip.guard in JUDGES for seen in panel.observed):
        return None
    if completed == "enough" or not panel.observed:
        return completed
    document = panel.document()
    stands = document.complete if document else completed == "whole"
    return completed if stands else None


def _observed(trip: Trip) -> ObservedTrip:
    where = trip.where or Where()
    return ObservedTrip(
        reason=trip.reason, pointer=where.pointer, offset=where.offset, char=where.char, event=where.event
    )


def _price(recording: Recording, policy: Policy, request: Request | None) -> Price | None:
    """The price of the model that answers, where the policy has a ceiling for the cost.

    :raises PolicyError: it has one, and the price is unknown.
    """
    if policy.caps is None or policy.caps.cost_usd is None:
        return None
    prices = PriceBook(policy.prices)
    if request is not None:
        return prices.for_request(request)
    begun = Translator().translate(Decoder().feed(recording.data[:65_536]))
    model = next((event.model for event in begun if isinstance(event, Started)), None)
    price = prices.price(model)
    if price is None:
        what = f"needs the price of the model that was recorded, {model!r}, and no source names it: add it under prices"
        raise PolicyError(Problem(pointer="/caps/cost_usd", problem=what))
    return price
