"""The words of a check's expression: numbers, texts, names and signs, each with its place.

In charge of characters. A closed set of signs is read; what other languages write instead gets a word of advice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, Literal, NamedTuple

MAX_CHARACTERS: Final = 2_000
"""Longest expression. Nobody reviews a longer one."""

MAX_DIGITS: Final = 100
"""Longest number in an expression, in characters."""

MAX_EXPONENT: Final = 300


class Mistake(NamedTuple):
    """What is wrong with an expression, and where."""

    at: int
    """The character in the expression, from 0."""
    problem: str


class Wrong(Exception):
    """An expression that cannot be read.

    :ivar mistake: what is wrong.
    """

    def __init__(self, at: int, problem: str) -> None:
        super().__init__(problem)
        self.mistake = Mistake(at, problem)


class Token(NamedTuple):
    """One word of an expression."""

    kind: Literal["number", "text", "name", "word", "sign", "end"]
    text: str
    """As written; of a text what stands between its quotes."""
    at: int
    end: int


WORDS: Final = frozenset(("and", "or", "not", "in", "if", "else", "for", "True", "False"))
"""Names that are part of the grammar."""

_RESERVED: Final = frozenset(
    (
        *("None", "as", "assert", "async", "await", "break", "class", "continue", "def", "del", "elif", "except"),
        *("finally", "from", "global", "import", "is", "lambda", "nonlocal", "pass", "raise", "return", "try"),
        *("while", "with", "yield"),
    )
)
"""Names that Python keeps for itself: an expression without them is one of Python's."""

_ADVICE: Final = {
    "None": 'null is no value here: ask has(…), or write == "…"',
    "null": "null is no value here: ask has(…)",
    "true": "write True",
    "false": "write False",
    "is": "write ==",
    "lambda": "there are no functions of one's own",
    "&&": "write and",
    "||": "write or",
    "!": "write not",
    "=": "write == to compare",
    "===": "write ==",
    "!==": "write !=",
    "<>": "write !=",
    "=>": "write >=",
    "=<": "write <=",
    "**": "write x * x",
    ":=": "there are no assignments",
    "{": "there are no braces outside of say",
    "}": "there are no braces outside of say",
    "#": "there are no comments; write them as YAML's",
    ";": "one check is one expression",
    "\\": "a backslash means nothing here",
    "^": "write x * x",
    ":": "there are no slices and no functions of one's own",
    "?": "write x if condition else y",
    "$": "the document is doc",
    "\N{MULTIPLICATION SIGN}": "write *",
    "÷": "write /",
    "\N{MINUS SIGN}": "write -",
    "≤": "write <=",
    "≥": "write >=",
    "≠": "write !=",
}
"""What others write → what is meant here."""

_SPACE = re.compile(r"[ \t\r\n]*")
_NUMBER = re.compile(r"(?:[0-9][0-9_]*(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_PLAIN = re.compile(r"(?:(?:0|[1-9][0-9]*(?:_[0-9]+)*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_NAME = re.compile(r"[^\W\d]\w*")
_TEXT = re.compile(r"'([^'\\]*)'|\"([^\"\\]*)\"")
_SIGN = re.compile(r"<=|>=|==|!=(?!=)|//|[-+*/%<>().,\[\]]")
_FOREIGN = re.compile(r"===|!==|==|!=|<=|>=|//|&&|\|\||\*\*|:=|=>|=<|<>|<<|>>|->|.", re.DOTALL)
_CLOSING: Final = {"(": ")", "[": "]"}


def tokens(text: str) -> list[Token]:
    """Split an expression into its words.

    :raises Wrong: at the first character that is none of the language's.
    """
    if len(text) > MAX_CHARACTERS:
        raise Wrong(MAX_CHARACTERS, f"the expression has {len(text):,} characters; at most {MAX_CHARACTERS:,} are read")
    found = list(_tokens(text))
    _check_brackets(found)
    return found


def _tokens(text: str) -> Iterator[Token]:
    at = 0
    reached = False
    while True:
        at = _SPACE.match(text, at).end()  # type: ignore[union-attr]  # matches the empty string
        if at == len(text):
            yield Token("end", "", at, at)
            return
        token = _number(text, at) or _text(text, at) or _name(text, at) or _sign(text, at)
        if not reached and token.text in _ADVICE and token.kind in ("name", "word"):
            raise Wrong(at, f"{token.text}: {_ADVICE[token.text]}")
        yield token
        at = token.end
        reached = token.kind == "sign" and token.text == "."


def _number(text: str, at: int) -> Token | None:
    found = _NUMBER.match(text, at)
    if found is None:
        return None
    written, end = found[0], found.end()
    if end < len(text) and (text[end].isalnum() or text[end] in "_."):
        raise Wrong(at, f"{_shown(_NAMED.match(text, at)[0])} is no number")  # type: ignore[index]  # a digit is there
    if _PLAIN.fullmatch(written) is None:
        raise Wrong(at, f"{_shown(written)} is no number: leave the zeros and underscores before it out")
    exponent = re.split("[eE]", written)[1:]
    if len(written) > MAX_DIGITS or (exponent and abs(int(exponent[0])) > MAX_EXPONENT):
        raise Wrong(at, f"{_shown(written)} is a number beyond {MAX_DIGITS} digits or an exponent of {MAX_EXPONENT}")
    return Token("number", written.replace("_", ""), at, end)


_NAMED = re.compile(r"[\w.]+")


def _text(text: str, at: int) -> Token | None:
    quote = text[at]
    if quote not in "'\"":
        return None
    if text.startswith(quote * 3, at):
        raise Wrong(at, "three quotes: one is enough")
    found = _TEXT.match(text, at)
    if found is not None:
        return Token("text", found[found.lastindex or 1], at, found.end())
    backslash = text.find("\\", at)
    closing = text.find(quote, at + 1)
    if backslash >= 0 and (closing < 0 or backslash < closing):
        raise Wrong(backslash, "a backslash: there are no escapes; write the character, or use the other quotes")
    raise Wrong(at, f"the closing {quote} is missing")


def _name(text: str, at: int) -> Token | None:
    found = _NAME.match(text, at)
    if found is None:
        return None
    name, end = found[0], found.end()
    if text[end : end + 1] in ("'", '"') and name.lower() in ("f", "b", "r", "u", "rb", "br", "fr", "rf"):
        raise Wrong(at, f"a text with {name} before it: leave the {name} out")
    return Token("word" if name in WORDS or name in _RESERVED else "name", name, at, end)


def _sign(text: str, at: int) -> Token:
    foreign: str = _FOREIGN.match(text, at)[0]  # type: ignore[index]  # one character is always there
    if foreign in _ADVICE:
        raise Wrong(at, f"{_shown(foreign)}: {_ADVICE[foreign]}")
    found = _SIGN.match(text, at)
    if found is None or (len(foreign) > 1 and foreign != found[0]):
        raise Wrong(at, f"{_shown(foreign)} means nothing here")
    return Token("sign", found[0], at, found.end())


def _check_brackets(found: list[Token]) -> None:
    opened: list[Token] = []
    for token in found:
        if token.kind == "sign" and token.text in _CLOSING:
            opened.append(token)
        elif token.kind == "sign" and token.text in ")]":
            if not opened:
                raise Wrong(token.at, f"{token.text} closes nothing")
            last = opened.pop()
            if _CLOSING[last.text] != token.text:
                raise Wrong(token.at, f"{token.text} where {_CLOSING[last.text]} has to close the {last.text} before")
    if opened:
        raise Wrong(opened[-1].at, f"{opened[-1].text} is never closed")


def reserved(token: Token) -> str | None:
    """What to say of a name that Python keeps for itself; `None` for any other."""
    return f"{token.text} means nothing here" if token.text in _RESERVED else None


def _shown(text: str) -> str:
    text = text if text.isprintable() else text.encode("unicode_escape").decode("ascii")
    return text if len(text) <= 40 else text[:39] + "…"
