"""Text that an answer must not contain, as a regular expression.

In charge of finding a pattern soon after it was written, at a cost that does not grow with the answer. It knows nothing
of JSON and quotes nothing of the answer in its trips.

How a stream is searched: text is gathered until there is a batch of it (8 characters at first, 64 later), and the batch
is searched together with the `window` characters before it. So a match is found if it is at most `window` characters
long, at most a batch late. `^` and `\\A` mean the start of the whole text, not of a batch, look-behind sees what is in
the window, and blocks of the same kind are one text. A match that the next character may undo (`sorry$`, `\\bsorry\\b`)
counts once that character has come, or at the end. A look-ahead is judged by what has come so far.

The engine is `regex`, with a timeout for each search, since Python's own can be made to run for hours by a few
characters. A search that does not end is the trip `guard.failed`: a check that did not run has not passed.
"""

from __future__ import annotations

import re
from typing import Any, Final, Literal

import regex
from pydantic import field_validator

from streamguard.events import BlockStopped, Delta, DeltaKind, Event, Stopped
from streamguard.guards.base import AttemptContext, BaseWatch, Mode, Spec
from streamguard.guards.knobs import Count, Items
from streamguard.verdict import Trip, Where
from streamguard.viability.patterns.regexes import retry_timeout

Flag = Literal["ignore_case", "multiline", "dot_all"]

_FLAGS: Final[dict[str, int]] = {
    "ignore_case": regex.IGNORECASE,
    "multiline": regex.MULTILINE,
    "dot_all": regex.DOTALL,
}

TIMEOUT: Final = 0.05
"""Seconds that one search may take. It sees at most two windows of text, for which microseconds are usual."""

FIRST_BATCH: Final = 8
BATCH: Final = 64
"""Characters between searches: as many as the text has already, but between these two."""

RETRIES: Final = 4
"""Matches that the next character may undo, before a batch is left to the next one."""

_NEXT: Final = ("a", "0", " ", "\n", '"', "-")
"""What may come next, one of each kind that `$`, `\\b` and the like tell apart."""


class Content(Spec):
    """One forbidden pattern.

    ```python
    Content(reason="content.apology", pattern="^I'm sorry")
    ```
    """

    reason: str
    """The trip's reason: a name of your own under `content.`."""
    pattern: str
    """In the syntax of the `regex` module, which has all of `re`'s."""
    where: Literal["text", "thinking", "tool_input", "any"] = "text"
    """Which output is searched. With `any` each kind is a text of its own."""
    flags: Items[Flag] = ()
    window: Count = 512
    """The longest match that is sure to be found, in characters."""
    mode: Mode | None = None

    @field_validator("reason")
    @classmethod
    def _own_name(cls, reason: str) -> str:
        if not re.fullmatch(r"content(\.[a-z0-9_]+)+", reason):
            raise ValueError(f"reason must be a name under 'content.', such as 'content.apology', not {reason!r}")
        return reason

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            empty = regex.compile(pattern).search("", timeout=TIMEOUT)
        except regex.error as error:
            place = "" if error.pos is None else f" at position {error.pos}"
            raise ValueError(f"pattern {pattern!r}: {error.msg}{place}") from None
        if empty is not None:
            raise ValueError(f"pattern {pattern!r} matches the empty text, so every answer would trip")
        return pattern

    @property
    def name(self) -> str:
        return self.reason

    def watch(self, ctx: AttemptContext, now: float) -> ContentWatch:
        """Return the state for one attempt.

        :param ctx: what is known of the attempt: its request and model.
        :param now: seconds on the running loop\'s clock.
        """
        return ContentWatch(self)


def _compiled(spec: Content) -> Any:
    flags = 0
    for flag in spec.flags:
        flags |= _FLAGS[flag]
    return regex.compile(spec.pattern, flags)  # cached by the module


class ContentWatch(BaseWatch):
    """One pattern over the texts of one attempt."""

    wants = (Delta, BlockStopped, Stopped)

    def __init__(self, spec: Content) -> None:
        pattern = _compiled(spec)
        kinds: tuple[DeltaKind, ...] = ("text", "thinking", "tool_input") if spec.where == "any" else (spec.where,)
        self._texts = {kind: _Text(spec, pattern, kind) for kind in kinds}

    def feed(self, event: Event, now: float) -> Trip | None:
        if type(event) is Delta:
            text = self._texts.get(event.kind)
            if text is None:
                return None
            text.pieces.append(event.text)
            text.waiting += len(event.text)
            return text.search(event.index) if text.waiting >= text.batch else None
        for text in self._texts.values():
            trip = text.search(getattr(event, "index", None), over=type(event) is Stopped)
            if trip is not None:
                return trip
        return None

    def last_look(self, event: Event, now: float) -> Trip | None:
        """The answer is ended here: search what was not searched yet."""
        return self.feed(event, now)


class _Text:
    """The text of one kind so far: the window behind us and what was not searched yet."""

    def __init__(self, spec: Content, pattern: Any, kind: str) -> None:
        self._spec = spec
        self._pattern = pattern
        self._kind = kind
        self.pieces: list[str] = []
        self.waiting = 0
        """Characters in `pieces`."""
        self.batch = FIRST_BATCH
        self._tail = ""
        """The end of what was searched: the window, and one character before it."""
        self._start = 0
        """Where `_tail` starts in the whole text."""

    def search(self, block: int | None, *, over: bool = False) -> Trip | None:
        """Search what came since the last time; with `over` nothing more will come."""
        new = "".join(self.pieces)
        self.pieces.clear()
        self.waiting = 0
        if not new and not over:
            return None
        window = self._spec.window
        # A large piece is searched bit by bit, so that one search never sees more than two windows.
        for at in range(0, len(new) or 1, window):
            part = new[at : at + window]
            trip = self._search(self._tail + part, block, over=over and at + window >= len(new))
            if trip is not None:
                return trip
        self.batch = min(BATCH, max(FIRST_BATCH, self._start + len(self._tail)))
        return None

    def _search(self, text: str, block: int | None, *, over: bool) -> Trip | None:
        # From the second character on, so that ^ does not take a cut for the start of the text.
        position = 1 if self._start else 0
        try:
            found = retry_timeout(self._pattern.search, text, position, timeout=TIMEOUT)
            tries = 0
            # One character before the end counts as the end: $ looks past a line's end.
            near = len(text) - 1
            while found is not None and not over and found.end() >= near and not self._stays(text, found.start()):
                tries += 1
                # What is not found now is found with the next batch: the work for one batch is bounded instead.
                after = found.start() + 1
                found = retry_timeout(self._pattern.search, text, after, timeout=TIMEOUT) if tries < RETRIES else None
        except TimeoutError:
            return Trip(
                reason="guard.failed",
                message=f"pattern {self._spec.pattern!r} took more than {TIMEOUT:g} s on {len(text)} characters; "
                "write it without nested repetition",
                knob="content",
                guard=self._spec.reason,
            )
        if found is not None:
            character = self._start + found.start()
            return Trip(
                reason=self._spec.reason,
                message=f"{self._kind} matches {self._spec.pattern!r} at character {character}",
                knob="content",
                limit=self._spec.pattern,
                where=Where(block=block, char=character),
                guard=self._spec.reason,
            )
        cut = max(0, len(text) - self._spec.window - 1)
        self._tail = text[cut:]
        self._start += cut
        return None

    def _stays(self, text: str, start: int) -> bool:
        """Whether a match up to the end of what has come matches whatever comes next."""
        return all(retry_timeout(self._pattern.match, text + more, start, timeout=TIMEOUT) for more in _NEXT)
