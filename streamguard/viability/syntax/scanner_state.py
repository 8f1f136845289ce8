"""Where a scan of a JSON text has got to, and how it stops: the state of `scanner.SyntaxPrefix`, without its steps.

In charge of: what is open, what may come next, and the `Dead` of a text that cannot go on. Does not read characters.
"""

from __future__ import annotations

from typing import Final, Literal

from streamguard.files.json_pointer import pointer
from streamguard.viability.syntax.grammar import (
    AFTER_VALUE,
    AT_COLON,
    AT_FIRST_NAME,
    AT_FIRST_VALUE,
    AT_NAME,
    AT_VALUE,
    DONE,
    EXPECT,
    IN_ESCAPE,
    IN_LITERAL,
    IN_NUMBER,
    IN_STRING,
    INSIDE,
    LITERALS,
    NUM_START,
    WANTED,
    WANTED_IN_NUMBER,
)
from streamguard.viability.syntax.protocol import Cause, Dead, Duplicates, Listener, Open, PrefixStatus, ValueListener
from streamguard.viability.syntax.quote import quote

_AT: Final = {
    AT_VALUE: "value",
    AT_FIRST_VALUE: "value",
    AT_NAME: "name",
    AT_FIRST_NAME: "name",
    IN_STRING: "inside",
    IN_ESCAPE: "inside",
    IN_NUMBER: "inside",
    AFTER_VALUE: "between",
    AT_COLON: "between",
}


class ScannerState:
    """What a scanner knows of its document."""

    __slots__ = (
        "_digits",
        "_duplicates",
        "_expect",
        "_extra",
        "_hex",
        "_in_name",
        "_kind",
        "_listener",
        "_max_depth",
        "_max_digits",
        "_names",
        "_number",
        "_parts",
        "_path",
        "_rest",
        "_state",
        "_unsatisfiable",
        "_wasted",
        "complete",
        "consumed",
        "dead",
        "depth",
        "end",
        "token_start",
        "values",
    )

    def __init__(
        self,
        *,
        duplicate_names: Duplicates = "reject",
        max_depth: int | None = 64,
        max_digits: int | None = 400,
        expect: Literal["object", "array", "any"] = "any",
        listener: Listener | None = None,
        unsatisfiable: Cause | None = None,
    ) -> None:
        self.dead: Dead | None = None
        self.complete = False
        self.end: int | None = None
        self.consumed = 0
        self.token_start: int | None = None
        self.depth = 0
        self.values: ValueListener | None = None
        """Told where values begin and end. Set before the first piece."""
        self._duplicates = duplicate_names == "reject"
        self._max_depth = max_depth
        self._max_digits = max_digits
        self._expect = EXPECT[expect]
        self._listener = listener
        self._unsatisfiable = unsatisfiable
        self._state = AT_VALUE
        self._extra = 0  # bytes of what was consumed, less its characters
        self._path: list[str | int | None] = []  # per open container: current index or name
        self._names: list[set[str] | None] = []  # per open container: names used; None for an array
        self._in_name = False  # whether the open string is a name
        self._parts: list[str] = []  # of the open name, undecoded
        self._kind = 0  # of the open scalar
        self._rest = ""  # what is still to come of the open literal
        self._hex = 0  # see `_step_escape`
        self._number = NUM_START
        self._digits = 0  # of the open number
        self._wasted = 0  # characters of the piece at hand that were read for whole containers and were none

    def status(self) -> PrefixStatus:
        """How far the document has got, for a person. Not for a dead one."""
        state = self._state
        at = _AT.get(state, "")
        missing, found = self._listener.expected_next(at) if self._listener is not None and at else ([], ())
        if not found and state in WANTED | {AFTER_VALUE: ""}:
            found = (self._wanted(),)
        pointers = [pointer(part for part in self._path[:i] if part is not None) for i in range(len(self._path) + 1)]
        opened = (
            Open(
                pointer=at, kind="array" if names is None else "object", missing=missing[i] if i < len(missing) else ()
            )
            for i, (at, names) in enumerate(zip(pointers, self._names, strict=False))
        )
        return PrefixStatus(pointer=pointers[-1], open=tuple(opened), inside=INSIDE.get(state), expected=found)

    def _finish(self, end: int) -> None:
        """A value has ended before character `end`."""
        self.token_start = None
        if self.values is not None:
            self.values.end(end)
        if self._path:
            self._state = AFTER_VALUE
        else:
            self._state = DONE
            self.complete = True
            self.end = end

    def _malformed(self, text: str, i: int) -> int:
        state = self._state
        char = quote(text[i])
        if state == IN_LITERAL:
            wanted = f'the rest of {LITERALS[self._kind]}, "{self._rest}"'
        elif state == IN_STRING:
            wanted = "an escape for this control character"
        elif state == IN_ESCAPE:
            wanted = "a hexadecimal digit" if self._hex else "a known escape"
        elif state == IN_NUMBER:
            wanted = WANTED_IN_NUMBER[self._number]
        else:
            wanted = self._wanted()
        return self._fail(text, i, "malformed", f"{char}, expected {wanted}", (wanted,))

    def _wanted(self) -> str:
        """What may come between tokens."""
        if self._state == AFTER_VALUE:
            return '"," or "]"' if self._names[-1] is None else '"," or "}"'
        return WANTED[self._state]

    def _fail(self, text: str, i: int, keyword: str, message: str, expected: tuple[str, ...] = ()) -> int:
        self._stop(text, i, Cause(keyword=keyword, schema_pointer=None, message=message, expected=expected))
        return len(text)

    def _stop(self, text: str, i: int | Literal["eof"], cause: Cause) -> Dead:
        char: int | Literal["eof"] = "eof"
        offset: int | Literal["eof"] = "eof"
        if i != "eof":
            char = self.consumed + i
            offset = char + self._extra + len(text[:i].encode("utf-8", "surrogatepass")) - i + cause.byte
            self.consumed += len(text)
        parts = self._path[: cause.level]
        self.dead = Dead(
            offset=offset,
            char=char,
            pointer=pointer(part for part in parts if part is not None),
            keyword=cause.keyword,
            schema_pointer=cause.schema_pointer,
            message=cause.message,
            expected=cause.expected,
        )
        return self.dead
