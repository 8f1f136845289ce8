"""One attempt: open the source, read and guard its stream, close it. No retries, no budgets, no policy's decisions.

Time is split as the design asks: a cancel scope is held while we wait for the provider, with the nearest deadline of
each read, and none is ever held while the consumer runs. A read that a scope cancels is the attempt's last, because the
stream below it is finished by the cancellation; so a scope fires only where some watch then trips.
"""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Literal

import anyio
import msgspec

from streamguard.engine.clock import CallClock
from streamguard.engine.delivery import Delivery
from streamguard.events import Delta, Event, Failed
from streamguard.guards.closing import Closing
from streamguard.guards.panel import Panel
from streamguard.outcome import Waited
from streamguard.pace.limits import Limits
from streamguard.redaction import redacted
from streamguard.request import Request
from streamguard.retry.quota import is_outage
from streamguard.source import CLOSE_LIMIT, Attempt, EventStream, Source, SourceFailed
from streamguard.verdict import Completed, Enough, Trip

_log = logging.getLogger("streamguard")

BLOCKED_LOOP = 0.02
"""A timer later than this (seconds) means that the event loop was blocked, so bytes may have arrived that nobody
read."""

GRACE = 0.005
"""Seconds given to such bytes to come up before a clock that they might have satisfied is declared expired."""

End = Trip | Failed | Enough | None
"""How an attempt ended; `None` for an answer that was read to its end and accepted."""


SLOW_CONSUMER = 5.0
"""Seconds without a read from which on a consumer is named beside a connection that broke. The kernel's buffers hold
some seconds of an answer; a server that cannot write for longer may give up."""


class RunningAttempt:
    """One attempt, from opening to closing. Used by one task."""

    def __init__(
        self, number: int, request: Request | None, panel: Panel, delivery: Delivery, clock: CallClock
    ) -> None:
        self.number = number
        self.request = request
        self.panel = panel
        self.delivery = delivery
        self.began = clock.now()
        self.head_at: float | None = None
        self.stream: EventStream | None = None
        self.sent = False
        """Whether anything of the request may have reached the provider."""
        self.billable = True
        """Whether the provider may bill it: False once it refused before it worked."""
        self.failed = False
        """Whether it ended for a reason that speaks of an outage."""
        self.ended: Trip | Failed | None = None
        """Why it was aborted or failed, if it was."""
        self.waited = Waited()
        """What it waited for before it was sent."""
        self.hint: str | None = None
        """What its request says of the answer before."""
        self.max_tokens_knob: str | None = None
        """What lowered the request's `max_tokens`, if something did."""
        self.hedge: Literal["won", "lost"] | None = None
        """What became of it as a second request beside another."""
        self.on_output: Callable[[], None] | None = None
        """Called once output has begun."""
        self.until_output = False
        """Whether `read` returns as soon as output has begun, though there is nothing for the consumer yet."""
        self._clock = clock
        self._context: AbstractAsyncContextManager[EventStream] | None = None
        self._batches: AsyncIterator[Sequence[Event]] | None = None
        self._over = False
        self._drain_once = False
        self._left_at: float | None = None
        """Since when it is the consumer's turn; `None` while it is not."""
        self._slowest = 0.0
        """The longest turn of the consumer, in seconds."""
        self._closing: Closing | None = None
        """What follows a document that ended the answer, once one has."""

    @property
    def request_id(self) -> str | None:
        """The request's id by the response's head, where the source has one."""
        found = getattr(self.stream, "request_id", None)
        return found if isinstance(found, str) else None

    @property
    def limits(self) -> Limits | None:
        """The rate limits that the response's head stated, where the source shows them."""
        found = getattr(self.stream, "limits", None)
        return found if isinstance(found, Limits) else None

    def end(self, end: Trip | Failed) -> None:
        """Note why it is aborted, or has failed."""
        self.ended = end
        self.billable = not isinstance(end, Failed) or end.billable
        self.failed = is_outage(end.reason)

    @property
    def has_output(self) -> bool:
        """Whether its output has begun."""
        return self.panel.transcript.first_token_at is not None

    def keep_time_by(self, clock: CallClock) -> None:
        """Go on with another clock of the same call: for a task of its own, or back from there."""
        self._clock.disarm()
        self._clock = clock

    @property
    def wait_until(self) -> float:
        """When the next read ends at the latest."""
        return min(self.panel.deadline, self._clock.deadline)

    async def open(
        self, source: Source, base_url: str | None = None, *, connect: float | None = None
    ) -> Trip | Failed | None:
        """Ask the source. The reason if that did not work out."""
        clock, panel = self._clock, self.panel
        panel.waiting(clock.now())
        attempt = Attempt(
            number=self.number,
            request=self.request,
            deadline=clock.deadline,
            connect=connect,
            base_url=base_url,
        )
        failed: Failed | None = None
        self.sent = True
        with clock.until(min(panel.deadline, clock.deadline)) as limit:
            try:
                context = source.open(attempt)
                stream = await context.__aenter__()
            except SourceFailed as error:
                failed = error.failed
            except Exception as error:  # whatever a source of one's own raises: the call must end in one typed error
                failed = unexpected(error)
            else:
                self._context, self.stream, self._batches = context, stream, aiter(stream)
        if self.stream is not None:
            self.head_at = clock.now()
            panel.heard(self.head_at)
            return None
        if failed is not None:
            self.sent = failed.sent
            return failed
        return self._expired(limit.deadline) or unexpected(RuntimeError("the source opened nothing"))

    def _explained(self, failed: Failed) -> Failed:
        """A broken connection, with the consumer's part in it: a server drops clients that read slowly."""
        if not failed.reason.startswith("transport.") or self._slowest < SLOW_CONSUMER:
            return failed
        note = f"before that the consumer read nothing for {self._slowest:.0f} s, which may be the reason"
        return msgspec.structs.replace(failed, message=f"{failed.message}; {note}")

    async def read(self, *, busy_until: float = math.inf, wait_until: float = math.inf) -> tuple[bool, End]:
        """Read until the consumer has something to take or the attempt is over, and feed what comes to the panel.

        Reads that bring nothing for the consumer share one scope: entering one costs more than guarding an event.

        :param busy_until: begin no further read after this moment.
        :param wait_until: begin no further read that may last longer.
        :returns: whether the attempt is over, and how.
        """
        clock, panel = self._clock, self.panel
        now = clock.now()
        if self._left_at is not None:
            self._slowest, self._left_at = max(self._slowest, now - self._left_at), None
        deadline = min(panel.begin_read(now), clock.deadline)
        if now >= deadline or clock.interrupted is not None:
            if not self._drain_once or now >= clock.deadline or clock.interrupted is not None:
                trip = self._expired(now)
                if trip is not None:
                    return True, trip
                deadline = min(panel.deadline, clock.deadline)
            else:
                deadline = now + GRACE
        assert self._batches is not None
        batches, delivery = self._batches, self.delivery
        batch: Sequence[Event] | None
        with clock.reading(deadline) as reading:
            while True:
                batch = None
                try:
                    batch = await anext(batches)
                except StopAsyncIteration:
                    self._over = True
                    batch = ()
                except SourceFailed as error:
                    batch = (self._explained(error.failed),)
                except Exception as error:  # see open()
                    batch = (unexpected(error),)
                now = clock.now()
                # A read that outlasted its deadline means a blocked loop: more may lie in the socket's buffer.
                late = now - deadline
                self._drain_once = late > BLOCKED_LOOP
                if self._drain_once:
                    clock.lag = max(clock.lag, late)
                if self._over:
                    return True, panel.end(now)
                if panel.asynchronous:
                    panel.heard(now)
                    break
                panel.bytes_came(now)
                result = self._feed(batch, now)
                if self.on_output is not None and panel.transcript.first_token_at is not None:
                    begun, self.on_output = self.on_output, None
                    begun()
                if result is not None:
                    return result
                if self.until_output and panel.transcript.first_token_at is not None:
                    return False, None
                if delivery.ready:
                    panel.end_read(now)
                    self._left_at = now
                    return False, None  # from here on it is the consumer's time
                deadline = panel.read_on(now)
                if clock.deadline < deadline:
                    deadline = clock.deadline
                if now >= busy_until or deadline > wait_until or now >= deadline or clock.interrupted is not None:
                    return False, None
                reading.move(deadline)
        if batch is None:
            trip = self._expired(reading.deadline)
            return True, trip or unexpected(RuntimeError("a timer fired that no guard had set"))
        return await self._feed_asking(batch, now)

    def _feed(self, batch: Sequence[Event], now: float) -> tuple[bool, End] | None:
        """`None` for "read on"."""
        panel = self.panel
        feed, push = panel.feed, self.delivery.push if self.delivery.keep else None
        many = len(batch) > 2
        if many and (trip := panel.ahead(batch, 0, now)) is not None:
            return True, self._judged(trip, batch, -1, now)
        for place, event in enumerate(batch):
            if type(event) is Failed:
                return True, event
            verdict = feed(event, now)
            if verdict is not None:
                return True, self._judged(verdict, batch, place, now)
            if push is not None:
                push(event)
            if type(event) is not Delta:
                if panel.stopped:
                    self._late(batch[place + 1 :], now)
                    return True, None
                if many and (trip := panel.ahead(batch, place + 1, now)) is not None:
                    return True, self._judged(trip, batch, place, now)
        return None

    def _late(self, events: Sequence[Event], now: float) -> None:
        """Take what came after the provider's own end: nothing there voids the answer, and a count still counts."""
        for event in events:
            if type(event) is Failed:
                _log.debug("after the end of the message: %s: %s", event.reason, event.message)
            else:
                self.panel.feed(event, now)

    async def _feed_asking(self, batch: Sequence[Event], now: float) -> tuple[bool, End]:
        """The same where guards have checks that must be awaited."""
        panel, push = self.panel, self.delivery.push
        for position, event in enumerate(batch):
            if panel.stopped:
                self._late(batch[position:], now)
                break
            if type(event) is Failed:
                return True, event
            verdict = panel.feed(event, now)
            if type(verdict) is not Trip:
                asked = await self._ask_asynchronous()
                if verdict is None and type(asked) is Enough:
                    # The answer ends here for the others too.
                    verdict, asked = asked, panel.last_look(now) or await self._ask_asynchronous()
                if verdict is None or type(asked) is Trip:
                    verdict = asked
            if verdict is not None:
                return True, self._judged(verdict, batch, position, now)
            push(event)
        return panel.stopped, None

    def _judged(self, verdict: Trip | Enough, batch: Sequence[Event], position: int, now: float) -> Trip | Enough:
        if type(verdict) is Enough:
            self.delivery.push(batch[position])
        closing = self._closing = Closing.after(verdict, self.panel, batch[position])
        take = self.panel.transcript.feed if closing is None else closing.feed
        # What the same read brought is paid for already, all of an answer perhaps; and it may say what exactly.
        for later in batch[position + 1 :]:
            take(later, now)
        return verdict

    async def _ask_asynchronous(self) -> Trip | Enough | None:
        """Run the checks that are due. Their time counts for the attempt and the call, not for the provider's
        clocks."""
        clock, panel = self._clock, self.panel
        enough: Enough | None = None
        for watch in panel.asynchronous:
            for view in watch.pending():
                verdict: Trip | Enough | None = None
                with clock.until(min(panel.deadline, clock.deadline)) as limit:
                    verdict = await watch.check(view)
                if limit.ended:
                    return self._expired(limit.deadline)
                if verdict is None or panel.observe(watch, verdict, clock.now()):
                    continue
                if isinstance(verdict, Trip):
                    return panel.stamped(verdict, clock.now())
                enough = verdict
        return enough

    def _expired(self, deadline: float) -> Trip | None:
        """Which limit it was: an interrupt, the call's deadline, or a clock of the panel. In this order."""
        clock = self._clock
        # A timer may fire a tick of the clock early, so it is at least as late as the deadline that fired.
        now = max(clock.now(), deadline)
        if clock.interrupted is not None:
            return self.panel.stamped(interrupt_trip(clock.interrupted), now)
        if now >= clock.deadline:
            return self.panel.stamped(total_trip(clock), now)
        return self.panel.expire(now)

    async def hear_out(self, seconds: float, after_output: float) -> Completed:
        """After a document that closed: read the provider's own end of the message, if it follows.

        Most answers end where their document does. Then the count is exact, models' tokens are learned, and the
        connection can be used again. The first further output ends it: that is what must not be paid for.

        :param seconds: to listen, as long as only closing frames come.
        :param after_output: to listen where the piece that closed the document has more text already.
        :returns: `whole` if the message ended there, else `cut`.
        """
        closing = self._closing
        if closing is None:
            return "cut"
        if self._batches is not None and not self._over:
            await self._listen(closing, seconds if closing.only else after_output)
        if (completed := closing.completed) == "whole":
            for event in closing.events:
                self.delivery.push(event)
        return completed

    async def _listen(self, closing: Closing, seconds: float) -> None:
        clock, batches, only = self._clock, self._batches, closing.only
        assert batches is not None
        with clock.until(min(clock.now() + seconds, max(clock.deadline, clock.now()))):
            try:
                async for batch in batches:
                    now = clock.now()
                    for event in batch:
                        closing.feed(event, now)
                    if only and not closing.only:
                        return
            except SourceFailed as error:
                closing.feed(error.failed, clock.now())
            except Exception as error:
                _log.debug("after the end of the document: %s", error)
            self._over = True

    async def drain(self, seconds: float) -> None:
        """After the provider's own end: read to the socket's end, so that the connection can be used again.

        Whatever comes, the answer stands: end marks of other protocols, a second end, errors of a gateway, a broken
        connection. A late count is taken.
        """
        if self._over or self._batches is None:
            return
        clock = self._clock
        with clock.until(min(clock.now() + seconds, max(clock.deadline, clock.now()))):
            try:
                async for batch in self._batches:
                    self._late(batch, clock.now())
            except Exception as error:  # the answer stands
                _log.debug("after the end of the message: %s", error)
            self._over = True

    async def close(self) -> None:
        """Close the connection, whatever state the attempt or the task is in."""
        self._clock.disarm()
        context, self._context = self._context, None
        if context is None:
            return
        with anyio.CancelScope(shield=True, deadline=self._clock.now() + CLOSE_LIMIT) as scope:
            try:
                await context.__aexit__(None, None, None)
            except Exception as error:
                # The attempt's result stands; a connection that breaks while it is closed is closed all the same.
                _log.debug("closing attempt %d: %s: %s", self.number, type(error).__name__, error)
        if scope.cancelled_caught:
            _log.warning("closing attempt %d took longer than %.2f s and was cut short", self.number, CLOSE_LIMIT)


def unexpected(error: Exception) -> Failed:
    """What a source raised that it should not have."""
    return Failed(reason="source.error", message=f"the source raised {type(error).__name__}: {redacted(str(error))}")


def total_trip(clock: CallClock) -> Trip:
    """The whole call's deadline passed."""
    total = clock.deadline - clock.began
    seconds = clock.now() - clock.began
    return Trip(
        reason="timeout.total",
        message=f"the call took {seconds:.1f} s, waiting and retries included (timeouts.total is {total:g} s)",
        knob="timeouts.total",
        limit=total,
        observed=seconds,
        guard="timeouts",
    )


def interrupt_trip(by: str) -> Trip:
    """Somebody ended the call."""
    return Trip(reason="operator.interrupt", message=f"interrupted by {by}", observed=by)
