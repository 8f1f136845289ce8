"""What may stand around a document in an answer's text: a code fence, and words before it.

In charge of: where the document begins, and what may follow it inside a fence. It decides on the earliest character
that decides, and is asked nothing while the document itself goes by. It does not know JSON beyond the first character
of a value; what begins with one is the scanner's business.

Three rules that the policy leaves open, and why:

* Text that begins with a character no JSON value begins with is a preamble (`json.preamble`), but for the structural
  characters `]}:,`, which nobody begins a sentence with: the scanner calls those malformed. A word that begins like
  `true`, `false`, `null` is left to the scanner as well, which sees the difference as soon as there is one.
* With `preamble: skip` the document begins at the first bracket that can begin it, wherever in a line it stands: "The
  result: {…" is the usual form, and a bracket that begins no JSON is then found out within a few characters, while
  looking for one at the start of a line would pay for the whole answer. Only objects and arrays can be found in prose.
* A fence is a line of at least three backticks or tildes (CommonMark 4.5) with at most one info word. The closing one
  may stand on the document's own last line, and may be missing (a stop sequence often takes it away).
"""

from __future__ import annotations

import re
from typing import Final, Literal

import msgspec

from streamguard.viability.syntax.quote import quote

Expect = Literal["object", "array", "any"]
"""What the top value must be."""

KINDS: Final[dict[str, str]] = {
    "{": "object",
    "[": "array",
    '"': "string",
    "t": "boolean",
    "f": "boolean",
    "n": "null",
    **dict.fromkeys("-0123456789", "number"),
}
"""First character of a JSON value → its kind."""

_NOT_SPACE = re.compile(r"[^ \t\r\n]")
_INFO = re.compile(r"[ \t]*[\w.+#-]*[ \t\r]*\n?", re.ASCII)
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_BRACKET: Final = {"object": re.compile(r"\{"), "array": re.compile(r"\["), "any": re.compile(r"[{\[]")}
_STRUCTURE: Final = frozenset("]}:,")
_CLOSED: Final = -1
LONGEST_INFO: Final = 64
"""Characters in the rest of a fence's opening line. Info words are names of languages."""


class Fault(msgspec.Struct, frozen=True):
    """What stands where it may not."""

    reason: Literal["json.fence", "json.preamble", "json.trailing"]
    char: int
    """0-based index in the text that the frame was fed (`lead`), or in the piece (`tail`)."""
    message: str


class Frame:
    """Finds the document in a text that is fed in pieces.

    Feed `lead` until it gives the beginning of the document (or a fault); then, inside a fence, feed `tail` what
    follows the document.
    """

    __slots__ = (
        "_before",
        "_bracket",
        "_closing",
        "_count",
        "_fence",
        "_head",
        "_info",
        "_line",
        "_step",
        "_strip",
        "fed",
        "fenced",
    )

    def __init__(
        self, *, fence: Literal["reject", "strip"], preamble: Literal["reject", "skip"], opens: Expect
    ) -> None:
        """`opens` is what a skipped preamble is searched for."""
        self.fenced = False
        """Whether the document stands in a fence."""
        self.fed = 0
        """Characters fed to `lead`."""
        self._strip = fence == "strip"
        self._bracket = _BRACKET[opens]
        self._before: list[str] = []  # whitespace that belongs to the document if nothing but it comes before it
        self._fence = ""  # the open fence's character
        self._count = 0  # how many of them
        self._info = ""  # of the opening line, what came after them
        self._closing = 0  # how many there are of the closing fence
        self._line = 0  # where the current line of a preamble begins
        self._head = ""  # its first characters
        self._step = Frame._prose if preamble == "skip" else Frame._start

    def lead(self, text: str) -> str | Fault | None:
        """The beginning of the document, as much of it as stands in this piece; `None` while it has not begun."""
        found = self._step(self, text, 0)
        self.fed += len(text)
        return found

    def tail(self, text: str) -> Fault | None:
        """What follows the document inside its fence: whitespace, the closing fence, whitespace."""
        for at, char in enumerate(text):
            if char in " \t\r\n":
                if self._closing >= self._count:
                    self._closing = _CLOSED
                if self._closing <= 0:
                    continue
            elif char == self._fence and self._closing >= 0:
                self._closing += 1
                continue
            what = "closing code fence" if self._closing else "document"
            return Fault("json.trailing", at, f"{quote(char)} after the {what}")
        return None

    # Each step takes the piece and where to go on in it.

    def _start(self, text: str, at: int) -> str | Fault | None:
        """At the very beginning, or right after an opening fence line."""
        match = _NOT_SPACE.search(text, at)
        if match is None:
            self._before.append(text[at:])
            return None
        char = match.group()
        if char in "`~" and not self.fenced:
            if not self._strip:
                return Fault(
                    "json.fence",
                    self.fed + match.start(),
                    f"the answer begins with {quote(char)}, as a code fence does",
                )
            self._fence, self._step = char, Frame._run
            return self._run(text, match.start())
        if char not in KINDS and char not in _STRUCTURE:
            place = "code fence" if self.fenced else "answer"
            problem = f"the {place} begins with {quote(char)}, which no JSON value begins with"
            return Fault("json.preamble", self.fed + match.start(), problem)
        return "".join((*self._before, text[at:]))

    def _run(self, text: str, at: int) -> str | Fault | None:
        """In the run of backticks or tildes of an opening fence."""
        while at < len(text) and text[at] == self._fence:
            self._count += 1
            at += 1
        if at == len(text):
            return None
        if self._count < 3:
            problem = f"the answer begins with {quote(self._fence * self._count)}, which opens no code fence"
            return Fault("json.fence", self.fed + at, problem)
        self._step = Frame._info_word
        return self._info_word(text, at)

    def _info_word(self, text: str, at: int) -> str | Fault | None:
        """In the rest of an opening fence's line: short, so that reading it again costs nothing."""
        known = len(self._info)
        info = self._info + text[at : at + LONGEST_INFO - known]
        end = _INFO.match(info).end()  # type: ignore[union-attr]  # matches the empty string
        if info[:end].endswith("\n"):
            self.fenced = True
            self._before.clear()
            self._step = Frame._start
            return self._start(text, at + end - known)
        if end < len(info) or len(info) >= LONGEST_INFO:
            end = min(end, len(info) - 1)
            problem = f"{quote(info[end])} in the opening line of a code fence, which holds one word at most"
            return Fault("json.fence", self.fed + at + end - known, problem)
        self._info = info
        return None

    def _prose(self, text: str, at: int) -> str | Fault | None:
        """In a preamble that is skipped. Only the head of each line is kept: it tells whether the line is a fence."""
        match = self._bracket.search(text, at)
        stop = match.start() if match else len(text)
        while True:
            newline = text.find("\n", at, stop)
            end = stop if newline < 0 else newline
            if len(self._head) < LONGEST_INFO:
                self._head += text[at:end][: LONGEST_INFO - len(self._head)]
                fence = _FENCE.match(self._head)
                if fence and not self._strip:
                    at = self._line + fence.start(1)
                    return Fault(
                        "json.fence",
                        at,
                        f"a line before the document begins with {quote(fence.group(1)[:3])}, a code fence",
                    )
            if newline < 0:
                break
            self._end_of_line()
            at = newline + 1
            self._line = self.fed + at
        if match is None:
            return None
        self._end_of_line()
        self.fenced = bool(self._fence)
        return text[stop:]

    def _end_of_line(self) -> None:
        fence = _FENCE.match(self._head)
        if fence:
            run = fence.group(1)
            if not self._fence:
                self._fence, self._count = run[0], len(run)
            elif run[0] == self._fence and len(run) >= self._count and not self._head[fence.end() :].strip():
                self._fence = ""
        self._head = ""
