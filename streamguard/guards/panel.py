"""All watches of one attempt as one machine.

The panel feeds each event to the watches that want it, in a fixed order, and gives the first verdict. When several
fire on the same event, the order decides: completion, JSON, content, repetition, caps, guards of one's own, clocks. A
`Trip` beats an `Enough` on the same event, whoever is first. Among clocks the one whose deadline came first speaks.

Two rules hold whatever the guards are: an answer without its provider's end is none, and a tool call whose input is no
JSON object is none (`guards.tool_calls`). After the provider's end nothing is judged any more; late counts still count.

It knows nothing of sockets, retries or budgets; the engine and the replay drive it in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any

import msgspec

from streamguard.errors import PolicyError, Problem, StreamguardError
from streamguard.events import Delta, Event, Stopped
from streamguard.guards.base import (
    NEVER,
    AttemptContext,
    AwaitedWatch,
    BaseWatch,
    Document,
    Guard,
    Mode,
    Watch,
    failed,
)
from streamguard.guards.checks.watch import FollowingWatch
from streamguard.guards.completion import CompletionWatch
from streamguard.guards.custom import AsyncWatch, CustomWatch
from streamguard.guards.document.watches import TextWatch, ToolWatch
from streamguard.guards.timeouts import ClockState, TimeoutsWatch
from streamguard.guards.tool_calls import ToolCallWatch
from streamguard.guards.transcript import Transcript
from streamguard.outcome import Observed
from streamguard.verdict import Decision, Enough, Trip, Where

Feed = Callable[[Event, float], Trip | Enough | None]
Accepts = Callable[[Trip], Decision | None]
"""Decides whether an answer is kept although a guard tripped; `None` if it is not."""


class Panel:
    """The watches of one attempt.

    :param guards: in the order in which they speak; see the module.
    :param mode: for guards that have none of their own.
    :param accepts: decides of a trip about finished values whether the answer is kept and marked instead. Left out:
        never.
    """

    def __init__(
        self,
        guards: Iterable[Guard],
        ctx: AttemptContext,
        now: float,
        *,
        mode: Mode = "enforce",
        accepts: Accepts | None = None,
    ) -> None:
        self.transcript = Transcript()
        self._calls = ToolCallWatch(self.transcript)
        self.events = 0
        """Events fed so far."""
        self.observed: list[Observed] = []
        self.marked: list[tuple[Trip, Decision]] = []
        """Trips that were let pass, each with the decision to keep the answer."""
        self.stopped = False
        """Whether the provider's own end of the message was fed."""
        self._watches: list[Watch] = []
        self._names: list[str] = []
        self._clocks: list[Watch] = []
        self._observing_clocks: list[Watch] = []
        self.asynchronous: list[AwaitedWatch] = []
        """Watches with checks that the engine has to await."""
        self._observing: set[int] = set()
        self._recorded: set[int] = set()
        self._accepts = accepts
        for guard in guards:
            watch = _watch(guard, ctx, now)
            observing = (guard.mode or mode) == "observe"
            if not observing and isinstance(watch, BaseWatch) and watch.hopeless is not None:
                raise PolicyError(
                    Problem(
                        pointer=f"/{guard.name}",
                        problem="the text that the request puts in the assistant's mouth can never be accepted: "
                        f"{watch.hopeless}; change the prefill, or the policy",
                    )
                )
            if observing:
                self._observing.add(len(self._watches))
            self._watches.append(watch)
            self._names.append(guard.name)
            if isinstance(watch, AwaitedWatch):
                self.asynchronous.append(watch)
            if _has_clock(watch):
                (self._observing_clocks if observing else self._clocks).append(watch)
        _follow(self._watches)
        # After the guards that know more of the same.
        first = [isinstance(watch, CompletionWatch | TextWatch | ToolWatch) for watch in self._watches]
        self._calls_at = next((index for index, before in enumerate(first) if not before), len(first))
        self._aheads: list[tuple[int, Callable[[Sequence[Delta]], None]]] = [
            (index, watch.ahead)
            for index, watch in enumerate(self._watches)
            if isinstance(watch, BaseWatch) and type(watch).ahead is not BaseWatch.ahead
        ]
        self._routes: dict[type, tuple[Feed, ...]] = {}
        only = self._clocks[0] if len(self._clocks) == 1 and not self._observing_clocks else None
        self._only = only if type(only) is TimeoutsWatch else None
        """The watch that has all the clocks there are, if one has; it can be asked without a detour."""

    @property
    def deadline(self) -> float:
        """When to call `expire()`; `inf` for never. Clocks that only observe never interrupt a wait."""
        return min((watch.deadline for watch in self._clocks), default=NEVER)

    def waiting(self, now: float) -> None:
        """From now on we wait for the provider."""
        for watch in self._clocks:
            watch.waiting(now)
        for watch in self._observing_clocks:
            watch.waiting(now)

    def heard(self, now: float) -> None:
        """Bytes arrived."""
        for watch in self._clocks:
            watch.heard(now)
        for watch in tuple(self._observing_clocks):
            if watch.deadline <= now and (trip := watch.expire(now)) is not None:
                self._record(self._watches.index(watch), trip, now)
            watch.heard(now)

    # One read: `begin_read`, then for each batch `bytes_came`, `feed` …, and `read_on` or `end_read`.

    def begin_read(self, now: float) -> float:
        """Wait for the provider from now on.

        :returns: when the read must end.
        """
        self.waiting(now)
        return self.deadline

    def bytes_came(self, now: float) -> None:
        """A read returned. A single clock is told by `read_on` or `end_read`, which know what follows."""
        if self._only is None:
            self.heard(now)

    def read_on(self, now: float) -> float:
        """The read brought nothing for the consumer: wait for the provider again.

        :returns: when the next read must end.
        """
        only = self._only
        if only is None:
            return self.begin_read(now)
        only.passed(now)
        return only.deadline

    def end_read(self, now: float) -> None:
        """The read is over, and the consumer's time begins."""
        if self._only is not None:
            self._only.heard(now)

    def ahead(self, batch: Sequence[Event], place: int, now: float) -> Trip | None:
        """Show what one read brought, from `place` on and as far as it is output, to watches to whom it is cheaper to
        look at together. It is fed all the same; a trip only for a check that cannot be done."""
        deltas: list[Delta] = []
        for event in islice(batch, place, None) if self._aheads else ():
            if type(event) is not Delta:
                break
            deltas.append(event)
        for index, ahead in self._aheads if len(deltas) > 1 else ():
            if index in self._recorded:
                continue
            try:
                ahead(deltas)
            except Exception as error:  # see feed()
                trip = self._failed(ahead, error)
                if index not in self._observing:
                    return self.stamped(trip, now)
                self._record(index, trip, now)
        return None

    def feed(self, event: Event, now: float) -> Trip | Enough | None:
        """Take the next event; `now` is when its bytes were read."""
        self.events += 1
        try:
            route = self._routes[type(event)]
        except KeyError:
            route = self._route(type(event))
        enough: Enough | None = None
        for feed in route:
            try:
                verdict = feed(event, now)
            except Exception as error:  # a check that did not run has not passed
                return self.stamped(self._failed(feed, error), now)
            if verdict is not None:
                if type(verdict) is Trip:
                    return self.stamped(verdict, now)
                enough = enough or verdict  # type: ignore[assignment]
        return enough if enough is None else self.last_look(now) or enough

    def last_look(self, now: float) -> Trip | None:
        """The answer is ended here, before its own end: whoever waited for more text judges what there is."""
        for index, watch in enumerate(self._watches):
            look: Feed | None = getattr(watch, "last_look", None)
            if look is None:
                continue
            verdict = self._let(index, look)(_END, now)
            if type(verdict) is Trip:
                return self.stamped(verdict, now)
        return None

    def closes(self, event: Event, now: float) -> Trip | None:
        """Hold an event that follows the end of a document against the protocol alone.

        :returns: what is wrong with the event, or with the message's end.
        """
        for watch in self._watches:
            if isinstance(watch, CompletionWatch) and type(event) in watch.wants:
                return watch.feed(event, now)
        return None

    def expire(self, now: float) -> Trip | None:
        """The deadline has passed."""
        for watch in sorted((w for w in self._clocks if w.deadline <= now), key=lambda w: w.deadline):
            trip = watch.expire(now)
            if trip is not None:
                return self.stamped(trip, now)
        return None

    def end(self, now: float) -> Trip | None:
        """The stream ended. A trip unless the provider had said so itself: no message is whole without its stop."""
        if self.stopped or (ending := self._ended_otherwise(now)) is None:
            return None
        if isinstance(ending, Trip):
            return ending
        text = "the stream ended without its message_stop: what came is not a complete answer"
        observed = self.transcript.stop_reason and f"stop reason {self.transcript.stop_reason}, no message_stop"
        trip = Trip(
            reason="transport.incomplete", message=text, observed=observed or "no stop reason", guard="completion"
        )
        return self.stamped(trip, now)

    def _ended_otherwise(self, now: float) -> Trip | bool | None:
        """What to say of an end that is not the provider's: `None` if the policy takes it for one and the answer
        passes, a trip if it does not pass, `False` if it is none."""
        for watch in self._watches:
            if isinstance(watch, CompletionWatch) and watch.ended:
                verdict = self.feed(Stopped(self.transcript.stop_reason), now)
                return verdict if isinstance(verdict, Trip) else None
        return False

    def clocks(self, now: float) -> list[ClockState]:
        """Every clock that counts now, observing ones included: for displays."""
        watches = (*self._clocks, *self._observing_clocks)
        return [clock for watch in watches if isinstance(watch, TimeoutsWatch) for clock in watch.clocks(now)]

    def document(self) -> Document | None:
        """The document, of the first watch that holds one; `None` if no guard looks for one."""
        for watch in self._watches:
            # What `isinstance(watch, HoldsDocument)` looks for, in a hundredth of its time on Python 3.11.
            document: Callable[[], Document] | None = getattr(watch, "document", None)
            if document is not None:
                return document()
        return None

    def stamped(self, trip: Trip, now: float) -> Trip:
        """The trip with its time and the index of the current event filled in."""
        where = trip.where or Where()
        if where.event is None:
            where = msgspec.structs.replace(where, event=max(0, self.events - 1))
        return msgspec.structs.replace(trip, at=now if trip.at is None else trip.at, where=where)

    def observe(self, watch: AwaitedWatch, verdict: Trip | Enough, now: float) -> bool:
        """Record an asynchronous watch's trip if it only observes, or if the answer is kept; whether that is so."""
        index = self._watches.index(watch)
        if index in self._observing:
            if isinstance(verdict, Trip):
                self._record(index, verdict, now)
            return True
        return isinstance(verdict, Trip) and self._may_mark(watch) and self._mark(index, verdict, now)

    def _route(self, kind: type) -> tuple[Feed, ...]:
        """Which watches want an event type: worked out once per type, on its first event."""
        feeds: list[Feed] = []
        handler = self.transcript.routes.get(kind)
        if handler is not None:
            feeds.append(handler)
        if self.stopped:  # the answer is final: what comes now is only counted
            self._routes[kind] = tuple(feeds)
            return self._routes[kind]
        if kind is Stopped:
            feeds.append(self._note_stop)
        for index, watch in enumerate(self._watches):
            if index == self._calls_at and kind in ToolCallWatch.wants:
                feeds.append(self._calls.feed)
            wants: Sequence[type] | None = getattr(watch, "wants", None)
            if wants is None or kind in wants:
                feeds.append(self._let(index, watch.feed))
        if self._calls_at == len(self._watches) and kind in ToolCallWatch.wants:
            feeds.append(self._calls.feed)
        self._routes[kind] = tuple(feeds)
        return self._routes[kind]

    def _note_stop(self, event: Event, now: float) -> None:
        self.stopped = True
        self._routes.clear()  # see _route()

    def _failed(self, feed: Callable[..., Any], error: Exception) -> Trip:
        """What a guard raised, as the trip that it is."""
        own = getattr(feed, "__self__", None)
        name = next((name for name, watch in zip(self._names, self._watches, strict=True) if watch is own), "guards")
        return failed(name, error)

    def _let(self, index: int, asked: Feed) -> Feed:
        """What a watch is asked, as its mode has it."""
        if index in self._observing:
            return self._observing_feed(index, asked)
        return self._marking_feed(index, asked) if self._may_mark(self._watches[index]) else asked

    def _may_mark(self, watch: Watch) -> bool:
        return self._accepts is not None and isinstance(watch, BaseWatch) and watch.of_values

    def _marking_feed(self, index: int, asked: Feed) -> Feed:
        def feed(event: Event, now: float) -> Trip | Enough | None:
            if index in self._recorded:
                return None
            try:
                verdict = asked(event, now)
            except Exception as error:  # see feed()
                return self._failed(asked, error)
            return None if isinstance(verdict, Trip) and self._mark(index, verdict, now) else verdict

        return feed

    def _mark(self, index: int, trip: Trip, now: float) -> bool:
        """Ask whether the answer is kept although a watch tripped; then the watch is not asked again."""
        if index in self._recorded:
            return True
        trip = self.stamped(trip, now)
        decision = None if self._accepts is None else self._accepts(trip)
        if decision is None:
            return False
        self._recorded.add(index)
        self.marked.append((trip, decision))
        return True

    def _observing_feed(self, index: int, asked: Feed) -> Feed:
        def feed(event: Event, now: float) -> None:
            if index not in self._recorded:
                try:
                    verdict = asked(event, now)
                except Exception as error:  # it only observes, and says so
                    verdict = self._failed(asked, error)
                if isinstance(verdict, Trip):
                    self._record(index, verdict, now)

        return feed

    def _record(self, index: int, trip: Trip, now: float) -> None:
        """Keep the first trip of an observing watch; after it the watch is not asked again."""
        if index in self._recorded:
            return
        self._recorded.add(index)
        trip = msgspec.structs.replace(self.stamped(trip, now), guard=trip.guard or self._names[index])
        self.observed.append(Observed(trip=trip, characters=self.transcript.characters))
        self._observing_clocks = [watch for watch in self._observing_clocks if watch is not self._watches[index]]


_END = Stopped()
"""What a last look is shown."""


def _watch(guard: Guard, ctx: AttemptContext, now: float) -> Watch:
    """A guard's state for an attempt.

    :raises PolicyError: a guard of one's own that raised something else than it may.
    """
    try:
        return guard.watch(ctx, now)
    except (StreamguardError, ValueError):
        raise
    except Exception as error:
        name = getattr(guard, "name", type(guard).__name__)
        raise PolicyError(f"guard {name} cannot begin: its watch() raised {type(error).__name__}: {error}") from error


def _follow(watches: Sequence[Watch]) -> None:
    """Let watches that follow the document do so.

    :raises PolicyError: there is no document to follow.
    """
    document = next((watch for watch in watches if isinstance(watch, TextWatch | ToolWatch)), None)
    for watch in watches:
        if document is not None and isinstance(watch, CustomWatch | AsyncWatch):
            watch.follow(document)
        if not isinstance(watch, FollowingWatch):
            continue
        if document is None:
            problem = f"{watch.reason} is a check of a document, and there is none: add a json section"
            raise PolicyError(Problem(pointer="/json", problem=problem))
        watch.follow(document)


def _has_clock(watch: Watch) -> bool:
    """Whether a watch ever has a deadline: it has its own `expire`, or its deadline is set."""
    return not isinstance(watch, BaseWatch) or type(watch).expire is not BaseWatch.expire or watch.deadline != NEVER
