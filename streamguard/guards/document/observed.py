"""Grounded values that are only observed: a guard beside the section `json`, which goes on enforcing the rest.

In charge of reading the same documents by their syntax alone, and of recording the first value that does not stand in
the source. Whatever else is wrong with a document is the section's business.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import msgspec

from streamguard.events import Event
from streamguard.guards.base import AttemptContext, BaseWatch
from streamguard.guards.document.guard import JsonDocument
from streamguard.guards.document.watches import TextWatch, ToolWatch
from streamguard.guards.grounding.follower import REASON
from streamguard.verdict import Trip


class ObservedGrounding(msgspec.Struct, frozen=True):
    """The entries of a section's `grounded` that say `mode: observe`."""

    section: JsonDocument

    @property
    def name(self) -> str:
        return "grounded"

    @property
    def mode(self) -> Literal["observe"]:
        return "observe"

    def watch(self, ctx: AttemptContext, now: float) -> ObservedWatch:
        """Return the state for one attempt.

        :raises PolicyError: there is no source.
        """
        return ObservedWatch(_syntax(self.section).watching(ctx, observed=True))


class ObservedWatch(BaseWatch):
    """The state for one attempt."""

    def __init__(self, watch: TextWatch | ToolWatch) -> None:
        self.wants = watch.wants
        self._watch: TextWatch | ToolWatch | None = watch

    def feed(self, event: Event, now: float) -> Trip | None:
        if self._watch is None:
            return None
        verdict = self._watch.feed(event, now)
        if not isinstance(verdict, Trip):
            return None
        self._watch = None
        return msgspec.structs.replace(verdict, guard="grounded") if verdict.reason == REASON else None


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
