"""The state of the `json:` section on one attempt: which deltas are a document's, and what its reader says of them.

`TextWatch` joins the text blocks to one document, `ToolWatch` has one for the input of each call. Both let other
watches follow their documents: see `subscriptions`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from typing import Any, Final

import msgspec

from streamguard.events import BlockStarted, BlockStopped, Delta, Event, Stopped
from streamguard.files.json_pointer import Path
from streamguard.guards.base import BaseWatch, Document
from streamguard.guards.document.followers import Follower
from streamguard.guards.document.lookahead import Ahead
from streamguard.guards.document.reader import GUARD, DocumentReader, Plan
from streamguard.guards.document.subscriptions import Followed, Subscriptions
from streamguard.request import Request
from streamguard.verdict import Enough, Trip, Where

NOTHING: Final = "{}"
"""The input of a call without arguments. The adapter says it, too, of a call whose input never came."""


def _choice(request: Request) -> Mapping[str, Any]:
    choice = request.body.get("tool_choice")
    return choice if isinstance(choice, Mapping) else {}


OwnFollowers = Callable[[], Sequence[Follower]]
"""Makes what follows one more document on the section's own behalf."""


class TextWatch(BaseWatch):
    """The text blocks of one attempt as one document.

    :param own: makes what follows the document on the section's own behalf.
    """

    wants = (Delta, BlockStarted, Stopped)

    def __init__(self, plan: Plan, request: Request | None, own: OwnFollowers = tuple) -> None:
        self._own = own
        self._may_end = request is None or not request.body.get("tools") or _choice(request).get("type") == "none"
        self._plan = plan
        self._prefill = "" if request is None else request.prefill
        self._subscriptions = Subscriptions()
        self._followed: list[tuple[Followed]] = []
        self._begin()

    def _begin(self) -> None:
        finished = self._subscriptions.finished()
        followers = (*self._own(), *finished)
        self._reader = DocumentReader(self._plan, may_end=self._may_end, followers=followers)
        self._ahead = Ahead(self._reader, *finished)
        # What the request put in the model's mouth is the beginning of the document.
        self._early = self._reader.feed(self._prefill) if self._prefill else None
        self.hopeless = self._early if isinstance(self._early, Trip) else None

    def subscribe(self, places: Sequence[Path]) -> int:
        """Ask for the finished values at some places. Before the first event."""
        number = self._subscriptions.add(places)
        self._begin()
        self._followed = [(Followed(self._ahead, one),) for one in range(number + 1)]
        return number

    def followed(self, subscription: int) -> Sequence[Followed]:
        """The document."""
        return self._followed[subscription]

    @property
    def begun(self) -> Sequence[tuple[int | None, Ahead]]:
        """The document, and how far it was read."""
        return ((None, self._ahead),)

    @property
    def schema(self) -> Any:
        """The compiled schema of the document."""
        return self._plan.schema

    @property
    def repeats(self) -> bool:
        """Whether a later value may replace an earlier one."""
        return self._plan.duplicate_names == "allow"

    def feed(self, event: Event, now: float) -> Trip | Enough | None:
        verdict: Trip | Enough | None = None
        if type(event) is Delta:
            if event.kind == "text":
                verdict = self._ahead.take(event.text) if self._ahead.left else self._reader.feed(event.text)
            if verdict is None and self._early is None:
                return None
        elif type(event) is Stopped:
            verdict = self._reader.finish()
        elif type(event) is BlockStarted and event.kind == "tool_input":
            self._reader.may_end = False
        if self._early is not None:
            verdict, self._early = self._early, None
        return _placed(verdict, getattr(event, "index", None), now) if isinstance(verdict, Trip) else verdict

    def ahead(self, deltas: Sequence[Delta]) -> None:
        """Read what will come next, all from one read."""
        pieces = [event.text for event in takewhile(lambda event: event.kind == "text", deltas)]
        if len(pieces) > 1 and self._early is None:
            self._ahead.read(pieces)

    def document(self) -> Document:
        """The document so far."""
        return self._ahead.document()


class ToolWatch(BaseWatch):
    """The inputs of tool calls of one attempt, each as a document.

    :param name: the tool whose calls count; `None` for any.
    :param plan_for: gives how to read the input of a tool.
    :param own: makes what follows each document on the section's own behalf.
    :param typed: whether a type makes instances of the inputs.
    """

    wants = (Delta, BlockStarted, BlockStopped, Stopped)

    def __init__(
        self,
        name: str | None,
        plan_for: Callable[[str], Plan],
        request: Request | None,
        own: OwnFollowers = tuple,
        *,
        typed: bool,
    ) -> None:
        self._own = own
        self._name = name
        self._plan_for = plan_for
        self._typed = typed
        self._only = request is not None and _choice(request).get("disable_parallel_tool_use") is True
        self._forced = request is not None and _choice(request).get("type") in ("any", "tool")
        self._blocks: dict[int, BlockStarted] = {}
        self._readers: dict[int, DocumentReader] = {}
        self._aheads: dict[int, Ahead] = {}
        self._subscriptions = Subscriptions()
        self._followed: list[list[Followed]] = []
        self._accepted = False
        self._closed: set[int] = set()
        self._pending: dict[int, Trip] = {}  # of documents that may only have been cut off: see the module
        if self._name is not None:
            self._plan_for(self._name)  # what is wrong with the schema is said before the attempt

    def feed(self, event: Event, now: float) -> Trip | Enough | None:
        if type(event) is Delta:
            ahead = self._aheads.get(event.index)
            if ahead is None or event.kind != "tool_input":
                return None
            reader = self._readers[event.index]
            if event.text == NOTHING and reader.empty:
                verdict = reader.feed(event.text)  # all there is, perhaps, of an input cut before its first character
                if isinstance(verdict, Trip):
                    self._pending[event.index] = self._blamed(verdict, event.index, now)
                    verdict = None
                return None if verdict is None else self._named(verdict, event.index, now)
            if (trip := self._pending.get(event.index)) is not None:
                return trip
            verdict = ahead.take(event.text) if ahead.left else self._readers[event.index].feed(event.text)
            return None if verdict is None else self._named(verdict, event.index, now)
        if type(event) is BlockStarted:
            if self._pending and (trip := self._settled()) is not None:
                return trip
            self._opened(event)
        elif type(event) is BlockStopped:
            trip = self._close(event.index, now)
            if trip is None or trip.reason != "json.incomplete":
                return trip
            self._pending.setdefault(event.index, trip)
        elif type(event) is Stopped:
            return self._stopped(now)
        return None

    def ahead(self, deltas: Sequence[Delta]) -> None:
        """Read what will come next, all from one read."""
        block = deltas[0].index
        ahead = self._aheads.get(block)
        pieces = [one.text for one in takewhile(lambda one: one.index == block and one.kind == "tool_input", deltas)]
        if len(pieces) > 1 and ahead is not None:
            ahead.read(pieces)

    def document(self) -> Document:
        """The document so far, or all of them."""
        found = [(index, ahead.document()) for index, ahead in sorted(self._aheads.items())]
        if self._name is None:
            calls = [
                ({"id": self._blocks[index].id, "name": self._blocks[index].name}, document)
                for index, document in found
            ]
            return Document(
                text="\n".join(document.text for _, document in calls),
                value=[{**call, "input": document.value} for call, document in calls],
                complete=self._accepted,
                instance=[{**call, "input": document.result} for call, document in calls]
                if self._typed and self._accepted
                else msgspec.UNSET,
            )
        if not found:
            return Document(text="")
        first = found[0][1]
        complete = all(document.complete for _, document in found)
        return Document(text=first.text, value=first.value, complete=complete, instance=first.instance)

    def subscribe(self, places: Sequence[Path]) -> int:
        """Ask for the finished values at some places of each input. Before the first event."""
        self._followed.append([])
        return self._subscriptions.add(places)

    def followed(self, subscription: int) -> Sequence[Followed]:
        """The inputs that have begun."""
        return self._followed[subscription]

    @property
    def begun(self) -> Sequence[tuple[int | None, Ahead]]:
        """The inputs that have begun, in order, each with its content block."""
        return tuple(self._aheads.items())

    @property
    def schema(self) -> Any:
        """The compiled schema of the inputs, where one tool is meant."""
        return None if self._name is None else self._plan_for(self._name).schema

    @property
    def repeats(self) -> bool:
        """Whether a later value may replace an earlier one."""
        return self._plan_for(self._name or "").duplicate_names == "allow"

    def _opened(self, block: BlockStarted) -> None:
        if block.kind != "tool_input":
            return
        may_end = self._only and not self._blocks
        for reader in self._readers.values():
            reader.may_end = False
        self._blocks[block.index] = block
        if self._name in (None, block.name):
            finished = self._subscriptions.finished()
            reader = self._readers[block.index] = DocumentReader(
                self._plan_for(block.name or ""), may_end=may_end, followers=(*self._own(), *finished)
            )
            ahead = self._aheads[block.index] = Ahead(reader, *finished)
            for subscription, followed in enumerate(self._followed):
                followed.append(Followed(ahead, subscription, block.index))

    def _settled(self) -> Trip | None:
        """The first document that was closed and was not whole, now that the message goes on or has ended."""
        return next((trip for index, trip in sorted(self._pending.items()) if index in self._closed), None)

    def _close(self, index: int, now: float) -> Trip | None:
        reader = self._readers.get(index)
        self._closed.add(index)
        if reader is None or index in self._pending:
            return None
        verdict = reader.feed("{}") if reader.empty else None
        trip = verdict if isinstance(verdict, Trip) else reader.finish()
        return None if trip is None else self._blamed(trip, index, now)

    def _stopped(self, now: float) -> Trip | None:
        if self._pending:
            return self._settled() or next(iter(self._pending.values()))
        for index, reader in self._readers.items():
            if not reader.complete and (trip := self._close(index, now)) is not None:
                return trip
        if not self._readers and (self._name is not None or self._forced):
            what = "no tool" if self._name is None else f"the tool {self._name!r} never"
            called = ", ".join(sorted({repr(block.name) for block in self._blocks.values()})) or "nothing"
            problem = f"{what} was called, so there is no document: the answer called {called}"
            return Trip(
                reason="json.incomplete",
                message=problem,
                knob="json.where",
                where=Where(offset="eof"),
                at=now,
                guard=GUARD,
            )
        self._accepted = all(reader.complete for reader in self._readers.values())
        return None

    def _named(self, verdict: Trip | Enough, index: int, now: float) -> Trip | Enough:
        if isinstance(verdict, Enough):
            self._accepted = self._readers[index].complete
            return verdict
        return self._blamed(verdict, index, now)

    def _blamed(self, trip: Trip, index: int, now: float) -> Trip:
        message = f"input of the tool {self._blocks[index].name!r}: {trip.message}"
        return msgspec.structs.replace(_placed(trip, index, now), message=message)


def _placed(trip: Trip, block: int | None, now: float) -> Trip:
    """The trip with its block and time."""
    where = msgspec.structs.replace(trip.where or Where(), block=block)
    return msgspec.structs.replace(trip, where=where, at=now)
