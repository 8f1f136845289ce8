"""Follows one document and judges its places as their values close.

In charge of: which place the open value is at, the text of each value that is judged, and the first failure. It is told
by the scanner where values begin and end. What a failure means is the reader's business.

Only a `ValidationError` counts. A validator that raises anything else cannot be run by itself: the judgement of the
whole decides.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from pydantic import ValidationError
from pydantic_core import from_json

from streamguard.files.json_pointer import pointer
from streamguard.models.places import Place
from streamguard.viability.syntax.grammar import ARRAY, NUMBER, STRING
from streamguard.viability.syntax.quote import quote
from streamguard.viability.syntax.scanner import SyntaxPrefix

_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")


class Failure(msgspec.Struct, frozen=True):
    """What a model, or another follower of the document, says against a value."""

    message: str
    pointer: str
    keyword: str
    """Pydantic's type of the error, such as `value_error`."""
    char: int | None = None
    """The character of the document that showed it; `None` for the end."""
    reason: str = "json.model"
    knob: str = "json.schema"
    """The policy key that decides this."""
    limit: Any = None
    observed: Any = None


_Value = tuple[Place | None, int, int, int, str | int | None, int, int]
"""An open value: its place, whether its text is wanted, where it begins, its kind, its key, and in which piece it
begins: the piece's index and the character that it begins with."""


class Following:
    """The state for one document. A `ValueListener` of the scanner.

    It is told of every piece and every value, so this costs as much as all validators together: it keeps the pieces of
    open values itself, and knows of each value the piece in which it begins.

    :ivar failure: the first failure; `None` while there is none.
    """

    __slots__ = ("_end", "_escaped", "_fresh", "_open", "_pieces", "_root", "_start", "_wanted", "failure")

    def __init__(self, root: Place) -> None:
        self.failure: Failure | None = None
        self._root = root
        self._open: list[_Value] = []
        self._fresh = False
        """Whether the innermost open value has had none inside."""
        self._pieces: list[str] = []
        """The latest pieces: all of those in which an open value lies whose text is wanted."""
        self._start = self._end = 0
        """Where the latest piece begins and ends."""
        self._escaped = 0
        """Where the latest piece with a backslash ended."""
        self._wanted = 0
        """How many open values' text is wanted."""

    def feed(self, text: str) -> None:
        """Take the piece that the scanner is about to be fed."""
        if self._wanted:
            self._pieces.append(text)
        else:
            self._pieces = [text]
        self._start = self._end
        self._end += len(text)
        if "\\" in text:
            self._escaped = self._end

    def read(self, until: int) -> None:
        """The scanner has read up to a character: an unfinished value concerns no place."""

    def begin(self, key: str | int | None, at: int, kind: int) -> bool:
        """A value of a kind begins at a character, as the member or item `key`.

        :returns: whether what is inside must be told, too: it need not.
        """
        place: Place | None = self._root
        wanted = 0
        if self._open:
            parent = self._open[-1][0]
            if parent is None:
                place, wanted = None, kind & STRING
            else:
                place = parent.members.get(key, parent.rest) if type(key) is str else parent.below(key)  # type: ignore[arg-type]
                wanted = kind & (STRING if place is None else place.wanted)
            if wanted:
                self._wanted += 1
        self._fresh = True
        self._open.append((place, wanted, at, kind, key, len(self._pieces) - 1, self._start))
        return False

    def end(self, at: int) -> None:
        """The innermost open value has ended before a character."""
        place, wanted, begin, kind, key, first, start = self._open.pop()
        fresh, self._fresh = self._fresh, False
        if wanted:
            self._wanted -= 1
            if self.failure is not None:
                return
            if place is not None and kind & place.judged:
                self._judge(place, begin, at, kind, key, self._text(begin, at, first, start))
            elif self._escaped > begin:
                self._check_escapes(at, key, self._text(begin, at, first, start))
        elif fresh and kind <= ARRAY and place is not None and place.active and self._open and self.failure is None:
            # Read at once, so that what is inside was not told.
            self._judge(place, begin, at, kind, key, self._text(begin, at, first, start))

    def _text(self, begin: int, end: int, first: int, start: int) -> str:
        """A value's own text."""
        pieces = self._pieces
        if first == len(pieces) - 1:
            return pieces[first][begin - start : end - start]
        return "".join(pieces[first:])[begin - start : end - start]

    def _judge(self, place: Place, begin: int, at: int, kind: int, key: str | int | None, text: str) -> None:
        found: Failure | None = None
        try:
            if not place.postponed:
                place.judge(text)
                return
        except ValidationError as error:
            if place.runs:
                found = failure_of(error, text, self._path(key))
                found = msgspec.structs.replace(found, char=at if kind == NUMBER else at - 1)
        except Exception:  # whatever a validator raises that needs the object around it
            found = None
        self.failure = self._earlier(place, text, begin, key, kind) or found

    def _earlier(self, place: Place, text: str, begin: int, key: str | int | None, kind: int) -> Failure | None:
        """What a container that was read at once fails of first, value by value."""
        found = first_failure(place, text) if kind <= ARRAY else None
        if found is None or found.char is None:
            return None
        return Failure(found.message, pointer(self._path(key)) + found.pointer, found.keyword, begin + found.char)

    def _check_escapes(self, at: int, key: str | int | None, text: str) -> None:
        """Half a surrogate pair is JSON, and no text that Pydantic reads."""
        if _SURROGATE.search(text) is None:
            return
        try:
            from_json(text)
        except ValueError as error:
            self.failure = Failure(f"Invalid JSON: {error}", pointer(self._path(key)), "json_invalid", at - 1)

    def _path(self, key: str | int | None) -> list[str | int]:
        keys = [value[4] for value in self._open]
        return [part for part in (*keys, key) if part is not None]


def first_failure(place: Place, text: str) -> Failure | None:
    """Judge the places below one, value by value, in a text that is JSON.

    :returns: the first failure, with its character.
    """
    following = Following(place)
    prefix = SyntaxPrefix(max_depth=None, max_digits=None, duplicate_names="allow")
    prefix.values = following
    for char in text:
        following.feed(char)
        prefix.feed(char)
        if following.failure is not None:
            break
    return following.failure


def failure_of(error: ValidationError, text: str, path: Sequence[str | int] = ()) -> Failure:
    """Put a `ValidationError` into the words of a verdict.

    :param text: what was validated.
    :param path: where that stands in the document.
    """
    details = error.errors(include_url=False, include_context=False, include_input=False)
    first = details[0]
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    at = [*path, *_inside(first["loc"], value)]
    more = "" if len(details) == 1 else f" (and {len(details) - 1} more)"
    missing = f": {quote(first['loc'][-1])}" if first["type"] == "missing" and first["loc"] else ""
    return Failure(f"{first['msg']}{missing}{more}", pointer(at), first["type"])


def _inside(loc: Sequence[str | int], value: Any) -> list[str | int]:
    """The path of an error below a value. Pydantic's own steps, such as the names of a union's branches, are none."""
    path: list[str | int] = []
    for part in loc:
        inside_object = isinstance(value, dict) and part in value
        inside_array = isinstance(value, list) and isinstance(part, int) and 0 <= part < len(value)
        if inside_object or inside_array:
            value = value[part]
            path.append(part)
    return path
