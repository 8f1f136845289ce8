"""Grounded values whose trip need not end the answer: a guard beside the section `json`, which judges the rest.

Those that are only observed, and those of a policy that keeps such answers and marks them. In charge of reading the
same documents by their syntax alone, and of the first value that does not stand in the source. Whatever else is wrong
with a document is the section's business.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import msgspec

from streamguard.events import Event
from streamguard.guards.base import AttemptContext, BaseWatch, Mode
from streamguard.guards.document.guard import JsonDocument
from streamguard.guards.document.reader import GUARD
from streamguard.guards.document.watches import TextWatch, ToolWatch
from streamguard.guards.grounding.follower import REASON
from streamguard.verdict import Trip

OBSERVED: Final = "grounded"
"""The guard's name in trips that are only observed: they do not void the document."""


class GroundingBeside(msgspec.Struct, frozen=True):
    """The entries of a section's `grounded`, as a guard of their own.

    :ivar observed: whether the entries are meant that say `mode: observe`, instead of the others.
    """

    section: JsonDocument
    observed: bool

    @property
    def name(self) -> str:
        return OBSERVED if self.observed else GUARD

    @property
    def mode(self) -> Mode | None:
        return "observe" if self.observed else self.section.mode

    def watch(self, ctx: AttemptContext, now: float) -> GroundingWatch:
        """Return the state for one attempt.

        :raises PolicyError: there is no source.
        """
        return GroundingWatch(_syntax(self.section).watching(ctx, observed=self.observed), self.name)


class GroundingWatch(BaseWatch):
    """The state for one attempt.

    :param guard: the name in its trips.
    """

    of_values = True

    def __init__(self, watch: TextWatch | ToolWatch, guard: str) -> None:
        self.wants = watch.wants
        self._guard = guard
        self._watch: TextWatch | ToolWatch | None = watch

    def feed(self, event: Event, now: float) -> Trip | None:
        if self._watch is None:
            return None
        verdict = self._watch.feed(event, now)
        if not isinstance(verdict, Trip):
            return None
        self._watch = None
        return msgspec.structs.replace(verdict, guard=self._guard) if verdict.reason == REASON else None


@lru_cache(maxsize=64)
def ungrounded(section: JsonDocument) -> JsonDocument:
    """Return the section without its grounded values."""
    return section.replace(grounded=())


@lru_cache(maxsize=64)
def _syntax(section: JsonDocument) -> JsonDocument:
    """The section without its schema: what is judged by that is judged already."""
    expect = section.expect or ("object" if section.schema_ is None else "any")
    usual = JsonDocument()
    return section.replace(
        schema=None,
        schema_file=None,
        expect=expect,
        enough_when=(),
        model=usual.model,
        field_validators=usual.field_validators,
        trailing="allow" if section.trailing == "cut" else section.trailing,
    )
