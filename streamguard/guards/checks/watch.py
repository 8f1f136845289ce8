"""The state of one check on one attempt: what it has gathered of each document, and its trip.

In charge of turning a decision into a verdict. It is fed after the watch of the documents, which it follows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any, Final, Literal

import msgspec

from streamguard.events import BlockStopped, Delta, Event, Stopped
from streamguard.files.json_pointer import Path, pointer
from streamguard.guards.base import BaseWatch
from streamguard.guards.checks.gathering import Due, Gathering, read
from streamguard.guards.checks.program import Program
from streamguard.guards.checks.values import Absent, Unusable
from streamguard.guards.document.finished import FinishedValue, exact, values_at
from streamguard.guards.document.subscriptions import Followed, Publisher
from streamguard.verdict import Trip, Where

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
        self._places: tuple[Path, ...] = ()
        self._repeats = False
        self._closed: set[int] = set()

    def follow(self, publisher: Publisher) -> None:
        """Follow the documents of another watch, before the first event.

        :raises PolicyError: the documents have no such values.
        """
        self._publisher = publisher
        self._places = self.places(publisher.schema)
        self._subscription = publisher.subscribe(self._places)
        self._repeats = publisher.repeats

    def places(self, schema: Any) -> tuple[Path, ...]:
        """What to follow in documents of a compiled schema; `None` for none.

        :raises PolicyError: the documents have no such values.
        """
        raise NotImplementedError

    def whole(self, text: str) -> Any:
        """Read an accepted document, where nothing is decided before."""
        return exact(text)

    def told(self) -> Iterator[tuple[int, Followed, int, FinishedValue]]:
        """What the events so far have completed, in order: the document's number, the document, place and value."""
        if self._publisher is None:
            return
        for number, document in enumerate(self._publisher.followed(self._subscription)):
            if not self._repeats:
                for place, value in document.take():
                    yield number, document, place, value
            elif document.accepted and number not in self._closed:
                self._closed.add(number)
                for place, value in values_at(self.whole(document.text), self._places):
                    yield number, document, place, value

    def where(self, by: FinishedValue, pointer: str, document: Followed, event: Event) -> Where:
        """The place of a trip: the character that showed that a value is complete, if that is what was waited for."""
        block: int | None = document.block if document.block is not None else getattr(event, "index", None)
        if self._repeats:
            return Where(pointer=pointer, block=block)
        char = by.at - 1
        return Where(
            offset=len(document.text[:char].encode("utf-8", "surrogatepass")), char=char, pointer=pointer, block=block
        )


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
        self._gathered: dict[int, Gathering] = {}

    def places(self, schema: Any) -> tuple[Path, ...]:
        """The places that the check reads."""
        self._program = self._program_for(schema)
        return self._program.wanted.paths

    def feed(self, event: Event, now: float) -> Trip | None:
        for number, document, place, value in self.told():
            gathering = self._gathered.get(number)
            if gathering is None:
                gathering = self._gathered[number] = Gathering(self._program.wanted)
            for due in gathering.take(place, value):
                trip = self._decide(gathering, due)
                if trip is not None:
                    where = self.where(due.by, self._about(due), document, event)
                    message = f"{trip.message} ({placed(where)})"
                    return msgspec.structs.replace(trip, message=message, where=where, at=now)
        return None

    def _decide(self, gathering: Gathering, due: Due) -> Trip | None:
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
        return Trip(reason=reason, message=message, knob=GUARD, limit=program.text, observed=observed, guard=GUARD)

    def _about(self, due: Due) -> str:
        """The pointer of what a check is about."""
        return pointer((due.item or due.by).path) if due.item is not None or due.false else self._program.about


def placed(where: Where) -> str:
    """Say for a person where in a document something shows."""
    place = "in the finished document" if where.char is None else f"at character {where.char}"
    return f"{place}{f', in {where.pointer}' if where.pointer else ''}"
