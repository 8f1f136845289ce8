"""The syntax of a JSON text (RFC 8259), one piece at a time: exact, linear, and fast inside strings.

In charge of: finding the first character after which no continuation is JSON, knowing the path to it, and telling a
`Listener` what it passes (the schema part is one). Does not know: schemas, values, what surrounds the document.

A piece is scanned once. Inside a string one regular expression skips to the next character that matters, so a long
string costs the same per character at its end as at its start.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import ClassVar

from streamguard.viability.syntax.grammar import (
    AFTER_VALUE,
    ARRAY,
    AT_COLON,
    AT_FIRST_NAME,
    AT_FIRST_VALUE,
    AT_NAME,
    AT_VALUE,
    CONTAINER,
    DIGITS,
    DONE,
    ESCAPED,
    FIRST,
    HEXDIGITS,
    IN_ESCAPE,
    IN_LITERAL,
    IN_NUMBER,
    IN_STRING,
    INSIDE,
    KIND_NAMES,
    LITERALS,
    NAME,
    NUM_START,
    NUM_ZERO,
    NUMBER,
    NUMBER_ENDS,
    NUMBERS,
    OBJECT,
    RUN,
    RUNNING,
    SCALAR,
    SPACE,
    SPACES,
    SPECIAL,
    STRING,
    TYPES,
    WHOLE,
    WORD,
)
from streamguard.viability.syntax.protocol import Cause, Dead, decode
from streamguard.viability.syntax.quote import quote
from streamguard.viability.syntax.scanner_state import ScannerState
from streamguard.viability.syntax.strict import parse_at


def _brackets(text: str, begin: int, end: int) -> int:
    """At least as many as are ever open at once."""
    return text.count("{", begin, end) + text.count("[", begin, end)


@lru_cache(maxsize=64)
def _long_number(digits: int) -> Callable[[str, int, int], re.Match[str] | None]:
    """Looks for what may be a number of more digits."""
    return re.compile(rf"(?<![0-9.eE+-])[0-9.eE+-]{{{digits + 1}}}").search


class SyntaxPrefix(ScannerState):
    """A `Prefix` that knows the syntax alone.

    `max_depth` bounds open containers, `max_digits` the digits of one number (`None`: no bound), `expect` the kind of
    the top value. `listener` is told of every token. `unsatisfiable` is a reason to be dead at the first character. A
    lone surrogate escape is valid; a byte order mark is not.
    """

    __slots__ = ()

    def feed(self, text: str) -> Dead | None:
        """Take the next piece: see `Prefix.feed`.

        :param text: the next piece, split anywhere.
        :returns: where and why the document is dead, or `None`.
        """
        if self.dead is not None or not text:
            return self.dead
        if self._unsatisfiable is not None:
            return self._stop(text, 0, self._unsatisfiable)
        if self._state == IN_STRING and SPECIAL(text) is None:  # most pieces are the middle of a string
            if self._listener is not None and (cause := self._listener.chars(text)):
                return self._stop(text, cause.at, cause)
            if self._in_name:
                self._parts.append(text)
        else:
            i = self._wasted = 0
            n = len(text)
            while i < n:
                i = self._STEPS[self._state](self, text, i, n)
                if self.dead is not None:
                    return self.dead
        self.consumed += len(text)
        if not text.isascii():
            self._extra += len(text.encode("utf-8", "surrogatepass")) - len(text)
        return None

    def close(self) -> Dead | None:
        """Say that the input has ended.

        :returns: where and why the document is dead, or `None` if it is valid.
        """
        if self.dead is not None or self._state == DONE:
            return self.dead
        if self._state == IN_NUMBER and not self._path and self._number in NUMBER_ENDS:
            self._finish(self.consumed)
            if self._listener is not None and (cause := self._listener.value_close(NUMBER)):
                self._stop("", "eof", cause)
            return self.dead
        if self._state in INSIDE:
            seen = f"the input ended inside {INSIDE[self._state]}"
        elif self._path:
            seen = f"the input ended with {len(self._path)} unclosed object(s) or array(s)"
        else:
            seen = "the input ended before a value" if self.consumed else "the input is empty; expected a JSON value"
        return self._stop("", "eof", Cause(keyword="malformed", schema_pointer=None, message=seen))

    # -- steps: each takes a piece and where to go on in it, and gives where it left off ------------------------------

    def _step_value(self, text: str, i: int, n: int) -> int:
        char = text[i]
        kind = FIRST.get(char)
        if kind is None:
            if char in SPACES:
                return SPACE(text, i).end()  # type: ignore[union-attr]  # matches the empty string
            if char == "]" and self._state == AT_FIRST_VALUE:
                return self._close_container(text, i)
            return self._malformed(text, i)
        told = False
        if self.values is not None:
            told = self.values.begin(self._path[-1] if self._path else None, self.consumed + i, kind)
        if n - i > WHOLE and self._path:
            if kind > OBJECT and (end := self._whole_value(text, i)) > i:
                return end
            if kind <= ARRAY and not told and n - i > CONTAINER and (end := self._whole_container(text, i, n)) > i:
                return end
        if self._expect is not None and kind != self._expect and not self._path:
            message = f"the document is of type {TYPES[kind]}; an {KIND_NAMES[self._expect]} is expected"
            return self._fail(text, i, "type", message)
        listener = self._listener
        if listener is not None and (cause := listener.value_open(kind)):
            self._stop(text, i, cause)
            return n
        self._kind = kind
        if kind == STRING:
            self._in_name = False
            self._state = IN_STRING
            self.token_start = self.consumed + i
            return i + 1
        if kind == NUMBER:
            self._number = NUM_START
            self._digits = 0
            self._state = IN_NUMBER
            self.token_start = self.consumed + i
            return i
        if kind > NUMBER:
            self._rest = LITERALS[kind]
            self._state = IN_LITERAL
            self.token_start = self.consumed + i
            return i
        if self._max_depth is not None and self.depth >= self._max_depth:
            return self._fail(text, i, "depth", f"more than {self._max_depth} objects and arrays are open at once")
        self.depth += 1
        if kind == OBJECT:
            self._path.append(None)
            self._names.append(set())
            self._state = AT_FIRST_NAME
        else:
            self._path.append(0)
            self._names.append(None)
            self._state = AT_FIRST_VALUE
        return i + 1

    def _step_name(self, text: str, i: int, n: int) -> int:
        char = text[i]
        if char == '"':
            if n - i > WHOLE and (end := self._whole_name(text, i)) > i:
                return end
            if self._listener is not None and (cause := self._listener.name_open()):
                self._stop(text, i, cause)
                return n
            self._in_name = True
            self._parts = []
            self._state = IN_STRING
            self.token_start = self.consumed + i
            return i + 1
        if char in SPACES:
            return SPACE(text, i).end()  # type: ignore[union-attr]  # matches the empty string
        if char == "}" and self._state == AT_FIRST_NAME:
            return self._close_container(text, i)
        return self._malformed(text, i)

    def _step_colon(self, text: str, i: int, n: int) -> int:  # noqa: ARG002  # steps share a signature
        char = text[i]
        if char == ":":
            self._state = AT_VALUE
            return i + 2 if text[i + 1 : i + 2] == " " else i + 1  # the usual space, without another step
        if char in SPACES:
            return SPACE(text, i).end()  # type: ignore[union-attr]  # matches the empty string
        return self._malformed(text, i)

    def _step_after(self, text: str, i: int, n: int) -> int:
        char = text[i]
        names = self._names[-1]
        if char == ",":
            if self._listener is not None and (cause := self._listener.comma(ARRAY if names is None else OBJECT)):
                self._stop(text, i, cause)
                return n
            if names is None:
                self._path[-1] += 1  # type: ignore[operator]  # an array's place is an index
                self._state = AT_VALUE
            else:
                self._path[-1] = None
                self._state = AT_NAME
            return i + 2 if text[i + 1 : i + 2] == " " else i + 1  # the usual space, without another step
        if char in SPACES:
            return SPACE(text, i).end()  # type: ignore[union-attr]  # matches the empty string
        if char == ("]" if names is None else "}"):
            return self._close_container(text, i)
        return self._malformed(text, i)

    def _step_done(self, text: str, i: int, n: int) -> int:  # noqa: ARG002  # steps share a signature
        if text[i] in SPACES:
            return SPACE(text, i).end()  # type: ignore[union-attr]  # matches the empty string
        return self._fail(text, i, "trailing", f"{quote(text[i])} after the end of the document")

    def _step_string(self, text: str, i: int, n: int) -> int:
        j = RUN(text, i).end()  # type: ignore[union-attr]  # matches the empty string
        if j > i:
            if self._listener is not None and (cause := self._listener.chars(text[i:j])):
                self._stop(text, i + cause.at, cause)
                return n
            if self._in_name:
                self._parts.append(text[i:j])
            if j == n:
                return n
        char = text[j]
        if char == "\\":
            self._hex = -1
            self._state = IN_ESCAPE
            return self._step_escape(text, j, n)
        if char != '"':
            return self._malformed(text, j)
        if self._in_name:
            self._close_name(text, j)
        else:
            self._finish(self.consumed + j + 1)
            if self._listener is not None and (cause := self._listener.value_close(STRING)):
                self._stop(text, j, cause)
        return j + 1

    def _step_escape(self, text: str, i: int, n: int) -> int:
        """An escape that a piece may end in, or that is wrong. `_hex`: digits to come; 0 before `\\` was followed by
        anything, -1 before the backslash itself."""
        j = i
        bad = False
        while j < n and self._state == IN_ESCAPE:
            char = text[j]
            if self._hex < 0:
                self._hex = 0
            elif self._hex == 0:
                if char == "u":
                    self._hex = 4
                elif char in ESCAPED:
                    self._state = IN_STRING
                else:
                    bad = True
                    break
            elif char in HEXDIGITS:
                self._hex -= 1
                if self._hex == 0:
                    self._state = IN_STRING
            else:
                bad = True
                break
            j += 1
        if j > i:
            if self._listener is not None and (cause := self._listener.chars(text[i:j])):
                self._stop(text, i + cause.at, cause)
                return n
            if self._in_name:
                self._parts.append(text[i:j])
        return self._malformed(text, j) if bad else j

    def _step_number(self, text: str, i: int, n: int) -> int:
        state = self._number
        j = i
        most = self._max_digits
        while j < n:
            char = text[j]
            after = NUMBERS[state].get(char)
            if after is None:
                break
            if after in RUNNING or after == NUM_ZERO:
                k = j + 1 if after == NUM_ZERO else DIGITS(text, j).end()  # type: ignore[union-attr]
                self._digits += k - j
                if most is not None and self._digits > most:
                    k -= self._digits - most
                    if k > i and self._listener is not None and (cause := self._listener.chars(text[i:k])):
                        self._stop(text, i + cause.at, cause)
                        return n
                    return self._fail(text, k, "number", f"a number with more than {most} digits")
                j = k
            else:
                j += 1
            state = after
        self._number = state
        if j > i and self._listener is not None and (cause := self._listener.chars(text[i:j])):
            self._stop(text, i + cause.at, cause)
            return n
        if j == n:
            return n
        if state not in NUMBER_ENDS or (not self._path and text[j] in WORD):
            return self._malformed(text, j)
        self._finish(self.consumed + j)
        if self._listener is not None and (cause := self._listener.value_close(NUMBER)):
            self._stop(text, j, cause)
        return j

    def _step_literal(self, text: str, i: int, n: int) -> int:
        rest = self._rest
        take = min(len(rest), n - i)
        if text[i : i + take] != rest[:take]:
            while text[i] == self._rest[0]:
                i += 1
                self._rest = self._rest[1:]
            return self._malformed(text, i)
        self._rest = rest[take:]
        if not self._rest:
            self._finish(self.consumed + i + take)
        return i + take

    def _whole_name(self, text: str, i: int) -> int:
        """A name that is whole, its colon and a space; where it ends, or `i` if it has to be followed."""
        found = NAME(text, i)
        if found is None:
            return i
        name = found[1]
        names = self._names[-1]
        assert names is not None  # names are read in objects only
        if name in names if self._duplicates else self._listener is not None:
            return i
        if self._listener is not None and not self._listener.whole_name(name):
            return i
        if self._duplicates:
            names.add(name)
        self._path[-1] = name
        self._state = AT_VALUE
        return found.end()

    def _whole_value(self, text: str, i: int) -> int:
        """A scalar or an empty array that is whole; where it ends, or `i` if it has to be followed."""
        found = SCALAR(text, i)
        if found is None:
            return i
        group: int = found.lastindex  # type: ignore[assignment]  # one of the four has matched
        kind = STRING if group == 1 else NUMBER if group == 2 else FIRST[text[i]]
        raw = found[group]
        if kind == NUMBER and self._max_digits is not None and len(raw) > self._max_digits:
            return i
        if kind == ARRAY and self._max_depth is not None and self.depth >= self._max_depth:
            return i
        if self._listener is not None and not self._listener.whole_value(kind, raw):
            return i
        self._finish(self.consumed + found.end())
        return found.end()

    def _whole_container(self, text: str, i: int, n: int) -> int:
        """An object or array that is whole; where it ends, or `i` if it has to be followed.

        What is read in vain is read again, once for each container around it that is no better: so that is bounded.
        """
        if self._wasted > 2 * n:
            return i
        found = parse_at(text, i)
        if found is None:
            self._wasted += n - i
            return i
        value, end = found
        if (
            (self._max_depth is not None and self.depth + _brackets(text, i, end) > self._max_depth)
            or (
                self._max_digits is not None
                and end - i > self._max_digits
                and _long_number(self._max_digits)(text, i, end)
            )
            or (self._listener is not None and not self._listener.whole_container(value, text, i, end))
        ):
            self._wasted += end - i
            return i
        self._finish(self.consumed + end)
        return end

    # -- inside --------------------------------------------------------------------------------------------------------

    def _close_container(self, text: str, i: int) -> int:
        kind = ARRAY if self._names[-1] is None else OBJECT
        if self._listener is not None and (cause := self._listener.value_close(kind)):
            self._path.pop()
            self._stop(text, i, cause)
            return len(text)
        self._path.pop()
        self._names.pop()
        self.depth -= 1
        self._finish(self.consumed + i + 1)
        return i + 1

    def _close_name(self, text: str, i: int) -> None:
        name = decode("".join(self._parts))
        names = self._names[-1]
        assert names is not None  # names are read in objects only
        if self._duplicates:
            if name in names:
                self._path[-1] = name
                self._fail(text, i, "duplicate_name", f"the name {quote(name)} stands twice in one object")
                return
            names.add(name)
        self.token_start = None
        self._state = AT_COLON
        if self._listener is not None and (cause := self._listener.name_close(name)):
            self._path[-1] = name
            self._stop(text, i, cause)
            return
        self._path[-1] = name

    _STEPS: ClassVar = {
        AT_VALUE: _step_value,
        AT_FIRST_VALUE: _step_value,
        AT_NAME: _step_name,
        AT_FIRST_NAME: _step_name,
        AT_COLON: _step_colon,
        AFTER_VALUE: _step_after,
        DONE: _step_done,
        IN_STRING: _step_string,
        IN_ESCAPE: _step_escape,
        IN_LITERAL: _step_literal,
        IN_NUMBER: _step_number,
    }
    """What to do in each state."""
