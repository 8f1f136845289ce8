"""One document of one attempt: from the first character fed to its acceptance.

In charge of: what the document's own text is, the earliest verdict on it, and its value. It feeds every piece exactly
once to a `Prefix`, and accepts only after a full strict parse and the schema's final judgement of the whole. It does
not know events, blocks or requests; those are the watches' (`json_document`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, Protocol

import msgspec

from streamguard.files.json_pointer import Path
from streamguard.guards.base import failed
from streamguard.guards.document.followers import Follower, together
from streamguard.guards.document.surroundings import KINDS, Expect, Fault, Frame
from streamguard.models.following import Failure
from streamguard.models.model import ModelPlan, Raised
from streamguard.verdict import Enough, Trip, Where
from streamguard.viability.syntax.protocol import Dead, Duplicates, Prefix
from streamguard.viability.syntax.quote import quote
from streamguard.viability.syntax.scanner import SyntaxPrefix
from streamguard.viability.syntax.strict import Refused, parse
from streamguard.viability.syntax.values import FinishedValues

GUARD: Final = "json"


class Schema(Protocol):
    """What this file needs of a compiled schema."""

    def prefix(self) -> Prefix:
        """The state for one document."""

    def validate(self, value: Any) -> Dead | None:
        """The final judgement of a whole value; `None` if it is valid."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How to read a document: the options of a policy's `json` section, compiled."""

    expect: Expect
    """What the top value must be, whatever the schema says."""
    opens: Expect
    """What a skipped preamble is searched for."""
    schema: Schema | None
    parts: Mapping[Path, Schema | None]
    """The values of `enough_when`, each with its own subschema if one was found."""
    framed: bool
    """Whether something may stand around the document, as the next three say. Nothing may in a tool's input."""
    fence: Literal["reject", "strip"]
    preamble: Literal["reject", "skip"]
    trailing: Literal["reject", "allow", "cut"]
    duplicate_names: Duplicates
    max_depth: int
    max_digits: int
    max_bytes: int | None
    model: ModelPlan | None = None
    """The type that the document must be, if the policy names one."""
    judged: bool = False
    """Whether the schema has a word on the finished document beside the model: it is the caller's, not the model's."""
    early: bool = True
    """Whether the model's validators judge values as they close."""

    def prefix(self) -> Prefix:
        """The state for one document."""
        if self.schema is not None:
            return self.schema.prefix()
        return SyntaxPrefix(
            duplicate_names=self.duplicate_names, max_depth=self.max_depth, max_digits=self.max_digits, expect="any"
        )


REASONS: Final[Mapping[str, str]] = {
    "malformed": "json.malformed",
    "trailing": "json.trailing",
    "duplicate_name": "json.duplicate_name",
    "depth": "json.depth",
    "number": "json.number",
}
"""Keyword of a `Dead` → reason. Every other keyword is the schema's: `json.schema`."""

KNOBS: Final[Mapping[str, str]] = {
    "json.trailing": "json.trailing",
    "json.duplicate_name": "json.duplicate_names",
    "json.depth": "json.max_depth",
    "json.number": "json.max_digits",
    "json.schema": "json.schema",
    "json.model": "json.schema",
    "json.fence": "json.fence",
    "json.preamble": "json.preamble",
    "json.size": "json.max_bytes",
}
"""Reason → the policy key that decides it. For the others it is the section as such."""

ADVICE: Final[Mapping[str, tuple[str, str]]] = {
    "json.fence": ("fence", "json.fence: strip takes a fence off"),
    "json.preamble": ("preamble", "json.preamble: skip goes on to the first bracket"),
    "json.trailing": ("trailing", "json.trailing: allow ignores it, cut ends the answer there"),
}
"""Reason → the option that decides, and what else it could say."""


class DocumentReader:
    """The state of one document.

    :param may_end: whether the call may be ended before the answer ends (`trailing: cut`, `enough_when`).
    :param followers: what follows the document beside the schema and the model.
    """

    __slots__ = (
        "_begins_at",
        "_begun_at",
        "_died_at",
        "_eager",
        "_following",
        "_frame",
        "_instance",
        "_over",
        "_parsed",
        "_partial",
        "_pieces",
        "_plan",
        "_prefix",
        "_pushed",
        "_room",
        "_seeker",
        "_sized",
        "_step",
        "_tail_at",
        "_unpushed",
        "complete",
        "fed",
        "may_end",
    )

    def __init__(self, plan: Plan, *, may_end: bool, followers: Sequence[Follower] = ()) -> None:
        self.may_end = may_end
        self.complete = False
        """Whether the document was accepted."""
        self.fed = 0
        """Characters fed."""
        self._begins_at = 0  # of these, those before the document
        self._begun_at = 0  # and how many they were when it had begun
        # A function, not a bound method: that would be a cycle, and keep the text until the collector comes by.
        self._step: Callable[[DocumentReader, str], Trip | Enough | None] = DocumentReader._lead
        self._plan = plan
        self._frame = Frame(fence=plan.fence, preamble=plan.preamble, opens=plan.opens)
        self._prefix = plan.prefix()
        model = plan.model.following() if plan.model is not None and plan.early else None
        self._following = together(followers if model is None else (model, *followers))
        if self._following is not None:
            self._prefix.values = self._following
        self._pieces: list[str] = []
        self._died_at: int | None = None  # the first dead character
        self._over = False  # a verdict of no has been given
        self._parsed: Any = None  # by the full parse
        self._instance: Any = msgspec.UNSET  # by the model
        self._partial: Any = None  # what enough was said of, or what is known of a document that is over
        self._room = math.inf if plan.max_bytes is None else plan.max_bytes // 4
        self._sized = (0, 0)  # pieces whose bytes were counted, and their bytes
        self._tail_at = (0, 0)  # where the next piece after the document begins, in characters and bytes
        self._seeker = FinishedValues(plan.parts) if plan.parts else None
        self._unpushed: list[str] = []
        self._pushed = 0  # characters given to the seeker
        self._eager = plan.trailing == "cut" or self._seeker is not None

    def feed(self, text: str) -> Trip | Enough | None:
        """Take the next piece of the text."""
        self.fed += len(text)
        return self._step(self, text)

    @property
    def empty(self) -> bool:
        """Whether not a single character was fed."""
        return self._frame.fed == 0

    @property
    def text(self) -> str:
        """The document's own text so far."""
        if len(self._pieces) > 1:
            self._pieces = ["".join(self._pieces)]
            self._sized = (0, 0)
        text = self._pieces[0] if self._pieces else ""
        return text if self._prefix.end is None else text[: self._prefix.end]

    # -- reading ahead: see `ahead` ------------------------------------------------------------------------------------

    def takes(self, characters: int) -> bool:
        """Whether a verdict on so much at once would be the same as on its pieces, and can be told which one it is of:
        nobody asks where in a piece something stands but by its character."""
        going_on = not self._over and not self.complete and self._partial is None
        return going_on and self._seeker is None and characters < self._room

    @property
    def inside(self) -> bool:
        """Whether the document has begun, and the rest may be fed at once."""
        return self._step is not DocumentReader._lead

    def verdict_at(self, verdict: Trip | Enough | None) -> int:
        """The character, of all that were fed, that a verdict inside the document is about."""
        at = verdict.where.char if isinstance(verdict, Trip) and verdict.where is not None else None
        if at is None:  # what the document's end has brought; a number's shows in the character after it
            at = (self._prefix.end or 1) - (not self.text[-1:].isdigit())
        return self._begins_at + at

    @property
    def read(self) -> int:
        """Characters fed since the document began."""
        return self.fed - self._begins_at if self.inside else 0

    def begun_before(self, back: int) -> bool:
        """Whether the document had begun before the last so many characters were fed."""
        return self.inside and self.fed - back >= self._begun_at

    def text_before(self, back: int) -> str:
        """The document's own text without what the last so many characters fed brought."""
        until = self.fed - back
        return self.text[: until - self._begins_at] if until >= self._begun_at else ""

    def forget(self, back: int) -> None:
        """As if the last so many characters had not been fed, now that a verdict on what is before them has been
        given."""
        self.fed -= back
        self._pieces = ["".join(self._pieces)[: self.fed - self._begins_at]]
        self._sized = (0, 0)

    @property
    def value(self) -> Any:
        """The accepted value; else what enough was said of; else as much as has finished, by the scanner's leave."""
        if self.complete:
            return self._parsed
        if self._partial is None:
            if self._parsed is not None:
                return self._parsed
            values = FinishedValues()
            values.feed(self.text[: self._died_at])
            if not self._over:
                return values.value
            self._partial = values.value
        return self._partial

    @property
    def instance(self) -> Any:
        """What the policy's type made of the accepted document; unset without a type."""
        return self._instance if self.complete else msgspec.UNSET

    def finish(self) -> Trip | None:
        """The text has ended: accept the document, or say why not."""
        if self._over or self.complete:
            return None
        if self._step is DocumentReader._lead:
            return self._trip("json.incomplete", "the answer ended before a JSON document began", Where(offset="eof"))
        dead = self._prefix.close()
        if dead is None or dead.keyword == "trailing":  # trailing text that was let pass
            return self._accept()
        return self._dead(dead)

    # -- steps: each is `feed` for a while ----------------------------------------------------------------------------

    def _lead(self, text: str) -> Trip | Enough | None:
        """Before the document."""
        found = self._frame.lead(text)
        if found is None:
            return None
        if not isinstance(found, Fault):
            self._begins_at, self._begun_at = self.fed - len(found), self.fed
        else:
            # Without a skipped preamble there is nothing but ASCII before it.
            return self._fault(found, found.char, None if self._plan.preamble == "skip" else found.char)
        first = found.lstrip(" \t\r\n")[0]
        expect = self._plan.expect
        if expect not in ("any", KINDS.get(first, expect)):
            at = found.index(first)
            problem = f"the document begins with {quote(first)}, a JSON {KINDS[first]}, where json.expect is {expect}"
            dead = Dead(offset=at, char=at, pointer="", keyword="type", message=problem)
            self._pieces.append(found)
            return self._dead(dead, knob="json.expect", limit=expect, observed=KINDS[first])
        self._step = DocumentReader._body
        return self._body(found)

    def _body(self, text: str) -> Trip | Enough | None:
        """Inside the document."""
        self._pieces.append(text)
        prefix, following = self._prefix, self._following
        if following is not None:
            following.feed(text)
        dead = prefix.feed(text)
        if following is not None:
            following.read(prefix.consumed if dead is None or dead.char == "eof" else dead.char)
        if following is not None and (failure := following.failure) is not None:
            at = failure.char
            if dead is None or (at is not None and dead.char != "eof" and at < dead.char):
                enough = self._seek(text, at) if self._seeker is not None and self.may_end and at is not None else None
                return enough or self._disproved(failure)
        if dead is not None:
            return self._stopped(dead, text)
        room = self._room = self._room - len(text)
        if room < 0 and (trip := self._resized()) is not None:
            return trip
        if self._eager and self.may_end:
            if prefix.complete and self._plan.trailing == "cut":
                return self._cut()
            if self._seeker is not None:
                start = self._prefix.token_start
                return self._seek(text, self._prefix.consumed if start is None else start)
        return None

    def _tail(self, text: str) -> Trip | None:
        """After the document, in its fence."""
        fault = self._frame.tail(text)
        if fault is not None:
            char, offset = self._tail_at[0] + fault.char, self._tail_at[1] + _bytes(text[: fault.char])
            return self._fault(fault, char, offset)
        self._tail_at = (self._tail_at[0] + len(text), self._tail_at[1] + _bytes(text))
        return None

    def _ignore(self, text: str) -> None:
        """After everything that matters."""

    # -- verdicts -----------------------------------------------------------------------------------------------------

    def _stopped(self, dead: Dead, text: str) -> Trip | Enough | None:
        """The prefix has died, with this piece. What stands in front of the dead character still counts."""
        assert dead.char != "eof" and dead.offset != "eof"  # noqa: PT018  # feeding does not end the input
        trailing = dead.keyword == "trailing"
        if trailing and self._plan.trailing == "cut" and self.may_end:
            return self._cut()
        if self._seeker is not None and self.may_end and (enough := self._seek(text, dead.char)) is not None:
            return enough
        if trailing:
            if self._plan.trailing != "reject":
                self._step = DocumentReader._ignore
                return None
            if self._frame.fenced:
                before = sum(map(len, self._pieces)) - len(text)
                self._tail_at = (dead.char, dead.offset)
                self._step = DocumentReader._tail
                return self._tail(text[max(0, dead.char - before) :])
        return self._dead(dead)

    def _cut(self) -> Trip | Enough:
        """The top value has closed, and the rest does not matter."""
        self._step = DocumentReader._ignore
        return self._accept() or Enough("cut", self._prefix.end)

    def _seek(self, text: str, boundary: int) -> Enough | None:
        """Show finished tokens, up to the character `boundary`, to the seeker, and see whether it has everything."""
        self._unpushed.append(text)
        if boundary <= self._pushed or self._seeker is None:
            return None
        known = "".join(self._unpushed)
        take = boundary - self._pushed
        self._unpushed = [known[take:]]
        self._pushed = boundary
        self._seeker.feed(known[:take])
        if not self._seeker.satisfied:
            return None
        values, self._seeker, self._unpushed = self._seeker, None, []
        for path, schema in self._plan.parts.items():
            if schema is not None and schema.validate(values.found[path]) is not None:
                return None  # only the whole document can tell what this means
        self._partial = values.value
        return Enough("enough", boundary)

    def _accept(self) -> Trip | None:
        """The full parse, and the schema's final judgement."""
        try:
            self._parsed = parse(self.text, duplicate_names=self._plan.duplicate_names)
        except Refused as refused:
            return self._dead(refused.dead)
        model = self._plan.model
        if self._plan.schema is not None and (model is None or self._plan.judged):
            dead = self._plan.schema.validate(self._parsed)
            if dead is not None:
                return self._dead(dead, final=True)
        if model is not None:
            found = model.validate(self.text)
            if isinstance(found, Failure):
                return self._disproved(found)
            if isinstance(found, Raised):
                return self._raised(found.error)
            self._instance = found.value
        self.complete = True
        return None

    def _disproved(self, failure: Failure) -> Trip:
        """The model, or another follower, does not accept the document."""
        self._died_at = failure.char
        offset = None if failure.char is None else _bytes(self.text[: failure.char])
        where = Where(offset=offset, char=failure.char, pointer=failure.pointer, keyword=failure.keyword)
        place = "in the finished document" if failure.char is None else f"at character {failure.char}"
        value = f", in {failure.pointer}" if failure.pointer else ""
        known = {"knob": failure.knob, "limit": failure.limit, "observed": failure.observed}
        return self._trip(failure.reason, f"{failure.message} ({place}{value})", where, **known)

    def _raised(self, error: Exception) -> Trip:
        """A validator of the model raised what is no `ValidationError`."""
        self._over = True
        self._step = DocumentReader._ignore
        return failed(GUARD, error)

    def _resized(self) -> Trip | None:
        """The document may have grown too large: count its bytes exactly, each piece once."""
        limit = self._plan.max_bytes
        assert limit is not None  # there is always room without one
        counted, size = self._sized
        size += sum(map(_bytes, self._pieces[counted:]))
        self._sized = (len(self._pieces), size)
        self._room = (limit - size) // 4
        if size <= limit:
            return None
        problem = f"the document is larger than {limit:,} bytes"
        return self._trip("json.size", problem, Where(offset=limit), limit=limit, observed=size)

    def _fault(self, fault: Fault, char: int, offset: int | None) -> Trip:
        return self._trip(fault.reason, fault.message, Where(offset=offset, char=char))

    def _dead(self, dead: Dead, *, final: bool = False, **known: Any) -> Trip:
        reason = REASONS.get(dead.keyword, "json.schema")
        ended = dead.char == "eof"
        self._died_at = None if dead.char == "eof" else dead.char
        if ended and reason == "json.malformed":
            reason = "json.incomplete"
        if reason in ("json.depth", "json.number") and not ended:
            limit = self._plan.max_depth if reason == "json.depth" else self._plan.max_digits
            known = {"limit": limit, "observed": limit + 1}
        where = Where(
            offset=dead.offset,
            char=None if dead.char == "eof" else dead.char,
            pointer=dead.pointer,
            keyword=dead.keyword,
            schema_pointer=dead.schema_pointer,
        )
        place = (
            "in the finished document"
            if final
            else "at the end of the answer"
            if ended
            else f"at character {dead.char}"
        )
        value = f", in {dead.pointer}" if dead.pointer else ""
        return self._trip(reason, f"{dead.message} ({place}{value})", where, **known)

    def _trip(self, reason: str, message: str, where: Where, **known: Any) -> Trip:
        self._over = True
        self._step = DocumentReader._ignore
        option, advice = ADVICE.get(reason, ("", ""))
        if option and self._plan.framed and getattr(self._plan, option) == "reject":
            message += f"; {advice}"
        return Trip(
            reason=reason, message=message, where=where, guard=GUARD, **({"knob": KNOBS.get(reason, "json")} | known)
        )


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
