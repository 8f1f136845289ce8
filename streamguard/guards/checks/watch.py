"""The state of one check on one attempt: what it has gathered of each document, and its trip.

In charge of turning a decision into a verdict. It is fed after the watch of the documents, which it follows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any, Final, Literal

import msgspec

from streamguard.events import BlockStopped, Delta, Event, Stopped
from streamguard.files.json_pointer import pointer
from streamguard.guards.base import BaseWatch
from streamguard.guards.checks.gathering import Due, Gathering, read
from streamguard.guards.checks.program import Program, Wanted
from streamguard.guards.checks.values import Absent, Unusable
from streamguard.guards.document.finished import exact, values_at
from streamguard.guards.document.subscriptions import Followed, Publisher
from streamguard.verdict import Enough, Trip, Where

GUARD: Final = "checks"


class FollowingWatch(BaseWatch):
    """A watch that follows documents, and decides something once their values are complete."""

    wants = (Delta, BlockStopped, Stopped)
    of_values = True
    reason: str
    """Of its trips."""

    def __init__(self) -> None:
        self._publisher: Publisher | None = None
        self._subscription = 0
        self._wanted: Wanted
        self._gathered: list[Gathering] = []
        self._repeats = False

    def follow(self, publisher: Publisher) -> None:
        """Follow the documents of another watch, before the first event.

        :raises PolicyError: the documents have no such values.
        """
        self._publisher = publisher
        self._wanted = self._wanted_of(publisher.schema)
        self._subscription = publisher.subscribe(self._wanted.paths)
        self._repeats = publisher.repeats

    def _wanted_of(self, schema: Any) -> Wanted:
        """What to follow in documents of a compiled schema; `None` for none."""
        raise NotImplementedError

    def due(self) -> Iterator[tuple[Gathering, Due, Followed]]:
        """What the events so far have made due."""
        publisher, gathered = self._publisher, self._gathered
        if publisher is None:
            return
        for number, document in enumerate(publisher.followed(self._subscription)):
            if number == len(gathered):
                gathered.append(Gathering(self._wanted))
            gathering = gathered[number]
            if self._repeats:
                if document.accepted and not gathering.closed:
                    gathering.closed = True
                    for place, value in values_at(exact(document.text), self._wanted.paths):
                        for due in gathering.take(place, value):
                            yield gathering, due, document
                continue
            for place, value in document.take():
                for due in gathering.take(place, value):
                    yield gathering, due, document


class CheckWatch(FollowingWatch):
    """An expression on one attempt.

    :param program_for: gives the check, compiled for documents of a schema.
    """

    def __init__(self, reason: str, missing: Literal["skip", "reject"], program_for: Callable[[Any], Program]) -> None:
        super().__init__()
        self.reason = reason
        self.skipped = 0
        """How often it was not evaluated, because a value was absent."""
        self._missing = missing
        self._program_for = program_for
        self._program: Program

    def _wanted_of(self, schema: Any) -> Wanted:
        self._program = self._program_for(schema)
        return self._program.wanted

    def feed(self, event: Event, now: float) -> Trip | Enough | None:
        for gathering, due, document in self.due():
            trip = self._decide(gathering, due, document)
            if trip is not None:
                return msgspec.structs.replace(trip, at=now)
        return None

    def _decide(self, gathering: Gathering, due: Due, document: Followed) -> Trip | None:
        program, item = self._program, due.item
        try:
            doc = gathering.values()
            index = item.path[-1] if item is not None and item.path else None
            scope = program.scope(
                doc,
                gathering.folds,
                None if item is None else read(item),
                Decimal(index) if isinstance(index, int) else index,
            )
            if item is not None and scope.it is None:
                raise Absent
            if not due.false and program.holds(scope):
                return None
            message, observed, reason = program.message(scope), program.values(scope), self.reason
        except Absent:
            self.skipped += 1
            if self._missing == "skip":
                return None
            message, observed, reason = f"{program.text} reads what is absent or null", "absent", self.reason
        except Unusable as error:
            message, observed, reason = f"{self.reason} cannot be evaluated: {error}", str(error), "guard.failed"
        about = pointer((item or due.by).path) if item is not None or due.false else program.about
        at = None if self._repeats else due.by.at - 1
        place = "in the finished document" if at is None else f"at character {at}"
        return Trip(
            reason=reason,
            message=f"{message} ({place}{f', in {about}' if about else ''})",
            knob=GUARD,
            limit=program.text,
            observed=observed,
            where=Where(char=at, pointer=about, block=document.block),
            guard=GUARD,
        )
