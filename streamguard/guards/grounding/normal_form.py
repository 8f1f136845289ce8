"""The one spelling in which a source and a value are compared: `NormalForm`, of whole texts and of unfinished ones.

In charge of what counts as the same. The form of an unfinished text is a prefix of the form of every continuation: what
a next character could still change is held back. So marks wait for the next base character (they are put in order), and
blanks wait for what follows them.

Always the same: composed and decomposed characters, ligatures, wide and narrow forms, and texts with and without
invisible characters such as soft hyphens. The rest is `ignore`:

* `case`: `ß` is `ss`, `Σ` is `ς`.
* `space`: any run of blanks is one blank; none at either end.
* `dashes`: left out, and the blanks after a dash with them, so that a word hyphenated at a line's end is whole.
* `quotes`: every quotation mark and apostrophe is the same one.
* `markup`: HTML's tags and entities, and the characters by which Markdown marks emphasis, code and headings.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Final, Literal, NamedTuple
from unicodedata import combining, normalize

from streamguard.guards.grounding.markup import held_back, plain

Ignored = Literal["case", "space", "dashes", "quotes", "markup"]

_SMALL: Final = 32
"""Characters of a piece whose form is kept: tokens come again and again."""

_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u180b-\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufe00-\ufe0f\ufeff"
    "\U000e0100-\U000e01ef]+"
)
"""Characters that show nothing: hyphenation points, joiners, directions, variation selectors, byte order marks."""
_ACUTE: Final = "\u00b4"
"""Typed for an apostrophe; its compatibility form would be a blank with a mark."""
_QUOTES: Final = (
    '"`\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u201f\u2032\u2033\u2035\u00ab\u00bb\u2039\u203a\u02b9\u02bb\u02bc'
    "\u275b\u275c\u275d\u275e\u300c\u300d\u300e\u300f\u301d\u301e\u301f"
)
_DASHES: Final = (
    "\u2010\u2011\u2012\u2013\u2014\u2015\u2043\u2212\u02d7\u058a\u05be\u1806\u2e17\u2e1a\u2e3a\u2e3b\u301c\u30a0\ufe58"
)
_MARKS: Final = "*_`~#\\"


_BLANK, _DASH = 1, 2

_ENDS = re.compile(r"[\s-]*").match
_RUN_AT_END = re.compile(r"[\s-]+\Z").search
_DASH_AND_BLANKS = re.compile(r"-\s*")
_OPEN_DASH = re.compile(r"-\s*\Z").search


class _Piece(NamedTuple):
    """The form of a piece, before what surrounds it is known."""

    core: str
    """Without blanks and dashes at its ends, where those do not count."""
    before: int
    """What the blanks and dashes in front of it begin with: `_BLANK`, `_DASH`, or 0 for neither."""
    after: int
    """The same of those behind it."""
    marks: str
    """Marks at the end, whose order a next character could still change."""


class NormalForm:
    """How texts are compared. Made by `normal_form`.

    :ivar ignore: what does not count.
    """

    __slots__ = ("_mapped", "_memo", "case", "dashes", "ignore", "markup", "quotes", "space")

    def __init__(self, ignore: frozenset[str]) -> None:
        self.ignore = ignore
        self.case = "case" in ignore
        self.space = "space" in ignore
        self.dashes = "dashes" in ignore
        self.quotes = "quotes" in ignore
        self.markup = "markup" in ignore
        mapped: dict[str, str] = {}
        if self.quotes:
            mapped |= dict.fromkeys(_QUOTES, "'")
        if self.dashes:
            mapped |= dict.fromkeys(_DASHES, "-")
        if self.markup:
            mapped |= dict.fromkeys(_MARKS, "")
        self._mapped = tuple(mapped.items())
        self._memo: Callable[[str], _Piece] = lru_cache(maxsize=8192)(self._piece)

    def whole(self, text: str) -> str:
        """Return the form of a whole text."""
        text = self._spelled(self._decomposed(text))
        if self.space:
            text = " ".join(text.split())
            if self.dashes:
                text = text.replace("- ", "").replace("-", "").strip(" ")
            return text
        return _DASH_AND_BLANKS.sub("", text) if self.dashes else text

    def piece(self, text: str) -> _Piece:
        """Return the form of a piece of a text."""
        return self._memo(text) if len(text) <= _SMALL else self._piece(text)

    def last(self, text: str) -> _Piece:
        """Return the form of a text's last piece, with its marks."""
        return self._framed(self._spelled(self._decomposed(text)), "")

    def _piece(self, text: str) -> _Piece:
        text = self._decomposed(text)
        end = len(text)
        if end and not text.isascii():
            while end and combining(text[end - 1]):
                end -= 1
        return self._framed(self._spelled(text[:end]), text[end:])

    def _decomposed(self, text: str) -> str:
        """Without what shows nothing, every character taken apart."""
        if self.markup:
            text = plain(text)
        if text.isascii():
            return text
        if _INVISIBLE.search(text):
            text = _INVISIBLE.sub("", text)
        if self.quotes and _ACUTE in text:
            text = text.replace(_ACUTE, "'")
        return normalize("NFKD", text)

    def _spelled(self, text: str) -> str:
        """The form of each character of a decomposed text, but for blanks and dashes."""
        ascii_only = text.isascii()
        if self.case:
            text = text.lower() if ascii_only else normalize("NFKD", text.casefold())
        for char, instead in self._mapped:
            if char in text:
                text = text.replace(char, instead)
        return text

    def _framed(self, text: str, marks: str) -> _Piece:
        """A piece whose blanks and dashes are put in order, apart from those at its ends."""
        if not self.space:
            return _Piece(text, 0, 0, marks)
        if not self.dashes:
            core = " ".join(text.split())
            blank = core != text and (text[:1].isspace(), text[-1:].isspace())
            return _Piece(core, _BLANK if blank and blank[0] else 0, _BLANK if blank and blank[1] else 0, marks)
        begin = _ENDS(text).end()  # type: ignore[union-attr]  # matches the empty string
        before = 0 if not begin else _BLANK if text[0].isspace() else _DASH
        if begin == len(text):
            return _Piece("", before, before, marks)
        run = _RUN_AT_END(text)
        end = len(text) if run is None else run.start()
        after = 0 if run is None else _BLANK if text[end].isspace() else _DASH
        core = " ".join(text[begin:end].split())
        if "-" in core:
            core = core.replace("- ", "").replace("-", "")
        return _Piece(core, before, after, marks)


State = tuple[str, str, int, bool]
"""Of a `NormalText`: what may become markup, marks, what blanks and dashes begin with, whether anything came."""


class NormalText:
    """The form of one text that comes in pieces.

    `feed` returns what is certain of it: a prefix of the form of every continuation.
    """

    __slots__ = ("_begun", "_form", "_gap", "_held", "_marks")

    def __init__(self, form: NormalForm) -> None:
        self._form = form
        self._held = ""
        """The end of what was fed, which may become markup."""
        self._marks = ""
        self._gap = 0
        """What the blanks and dashes behind the latest character begin with."""
        self._begun = False

    @property
    def state(self) -> State:
        """What is kept of the text so far."""
        return self._held, self._marks, self._gap, self._begun

    def resumed(self, state: State) -> NormalText:
        """Return a text in a state that this one was in."""
        other = NormalText(self._form)
        other._held, other._marks, other._gap, other._begun = state
        return other

    def feed(self, text: str) -> str:
        """Take the next piece.

        :returns: what is now certain, and was not before.
        """
        form = self._form
        if form.markup:
            text = self._held + text
            begin = len(text) - held_back(text)
            self._held = text[begin:]
            text = text[:begin]
        if self._marks:
            text = self._marks + text
        piece = form.piece(text)
        self._marks = piece.marks
        return self._joined(piece)

    def finish(self) -> str:
        """Return what was held back, now that the text has ended."""
        text, self._held, self._marks = self._marks + self._held, "", ""
        return self._joined(self._form.last(text)) if text else ""

    def _joined(self, piece: _Piece) -> str:
        form, core = self._form, piece.core
        if not form.space:
            return self._without_dashes(core) if form.dashes else core
        if not core:
            self._gap = self._gap or piece.before
            return ""
        gap = self._gap or piece.before
        self._gap = piece.after
        if gap == _BLANK and self._begun:
            core = " " + core
        self._begun = True
        return core

    def _without_dashes(self, text: str) -> str:
        """Where blanks count: without dashes and the blanks behind them."""
        if self._gap:
            text = text.lstrip()
            if not text:
                return ""
        self._gap = _DASH if _OPEN_DASH(text) else 0
        return _DASH_AND_BLANKS.sub("", text)


@lru_cache(maxsize=64)
def normal_form(ignore: Iterable[str] = ()) -> NormalForm:
    """Return the form that ignores these.

    :param ignore: a tuple or frozen set of `case`, `space`, `dashes`, `quotes`, `markup`.
    """
    return NormalForm(frozenset(ignore))


def joins(char: str) -> bool:
    """Return whether a character belongs to the one before it: a mark, or a later part of a syllable."""
    return combining(char) != 0 or "\u1160" <= char <= "\u11ff"


def in_word(char: str) -> bool:
    """Return whether a character is part of a word that blanks would end. Some scripts write words without blanks."""
    if char >= "\u0e00":
        return (char.isalnum() or combining(char) != 0) and not any(low <= char <= high for low, high in _NO_BLANKS)
    return char.isalnum() or char == "_" or combining(char) != 0


_NO_BLANKS: Final = (
    ("\u0e00", "\u0eff"),
    ("\u1000", "\u109f"),
    ("\u1100", "\u11ff"),
    ("\u1780", "\u17ff"),
    ("\u2e80", "\u9fff"),
    ("\ua960", "\ua97f"),
    ("\uac00", "\ufaff"),
    ("\U00020000", "\U0003ffff"),
)
"""Thai and Lao, Burmese, Korean (with its particles), Khmer, Chinese and Japanese."""
