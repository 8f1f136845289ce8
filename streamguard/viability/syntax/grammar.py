"""The grammar of RFC 8259 as tables and patterns: kinds of values, states of the scanner, numbers.

Knows nothing of how they are walked.
"""

from __future__ import annotations

import re
from typing import Final

# Kinds of a value, as known from its first character. Powers of two, so that a set of kinds is a number.
OBJECT: Final = 1
ARRAY: Final = 2
STRING: Final = 4
NUMBER: Final = 8
TRUE: Final = 16
FALSE: Final = 32
NULL: Final = 64
ANY: Final = 127

KIND_NAMES: Final = {
    OBJECT: "object",
    ARRAY: "array",
    STRING: "string",
    NUMBER: "number",
    TRUE: "true",
    FALSE: "false",
    NULL: "null",
}
TYPES: Final = KIND_NAMES | {TRUE: "boolean", FALSE: "boolean"}

FIRST: Final = {
    "{": OBJECT,
    "[": ARRAY,
    '"': STRING,
    "t": TRUE,
    "f": FALSE,
    "n": NULL,
    **dict.fromkeys("-0123456789", NUMBER),
}
EXPECT: Final = {"any": None, "object": OBJECT, "array": ARRAY}
CONSTANTS: Final = {TRUE: True, FALSE: False, NULL: None}
LITERALS: Final = {TRUE: "true", FALSE: "false", NULL: "null"}

# States between tokens. `AT_FIRST_*` differ by allowing the container to close at once.
AT_VALUE, AT_FIRST_VALUE, AT_NAME, AT_FIRST_NAME, AT_COLON, AFTER_VALUE, DONE = range(7)
# States inside tokens.
IN_STRING, IN_ESCAPE, IN_LITERAL, IN_NUMBER = range(7, 11)
INSIDE: Final = {IN_STRING: "a string", IN_ESCAPE: "a string", IN_LITERAL: "a literal", IN_NUMBER: "a number"}

WANTED: Final = {
    AT_VALUE: "a value",
    AT_FIRST_VALUE: 'a value or "]"',
    AT_NAME: "a name in double quotes",
    AT_FIRST_NAME: 'a name in double quotes or "}"',
    AT_COLON: 'a ":"',
}

SPACE = re.compile(r"[ \t\n\r]*+").match
RUN = re.compile(r'[^"\\\x00-\x1f]*+(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*+)*+').match
SPECIAL = re.compile(r'["\\\x00-\x1f]').search
NAME = re.compile(r'"([^"\\\x00-\x1f]*+)" ?: ?').match
"""A whole name without escapes, and its colon."""
SCALAR = re.compile(
    r'"([^"\\\x00-\x1f]*+)"|(-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?)(?=[,}\] \t\n\r])|(true|false|null)|(\[ ?\])'
).match
"""A whole string without escapes, a whole number without an exponent, a literal, or an empty array."""
WHOLE: Final = 8
"""Characters that must be left in a piece before it is worth looking for something whole in it."""
CONTAINER: Final = 24
"""The same for an object or array."""
EXPONENT = re.compile(r"[0-9][eE][-+0-9]").search
"""Looks for what may be a number with an exponent."""
DIGITS = re.compile(r"[0-9]*+").match
SPACES: Final = frozenset(" \t\n\r")
ESCAPED: Final = frozenset('"\\/bfnrt')
HEXDIGITS: Final = frozenset("0123456789abcdefABCDEF")

# RFC 8259, section 6, as a table: state of the number → character → state.
NUM_START, NUM_MINUS, NUM_ZERO, NUM_INT, NUM_DOT, NUM_FRACTION, NUM_E, NUM_SIGN, NUM_EXPONENT = range(9)
NUMBERS: Final[tuple[dict[str, int], ...]] = (
    {"-": NUM_MINUS, "0": NUM_ZERO, **dict.fromkeys("123456789", NUM_INT)},
    {"0": NUM_ZERO, **dict.fromkeys("123456789", NUM_INT)},
    {".": NUM_DOT, "e": NUM_E, "E": NUM_E},
    {".": NUM_DOT, "e": NUM_E, "E": NUM_E, **dict.fromkeys("0123456789", NUM_INT)},
    dict.fromkeys("0123456789", NUM_FRACTION),
    {"e": NUM_E, "E": NUM_E, **dict.fromkeys("0123456789", NUM_FRACTION)},
    {"+": NUM_SIGN, "-": NUM_SIGN, **dict.fromkeys("0123456789", NUM_EXPONENT)},
    dict.fromkeys("0123456789", NUM_EXPONENT),
    dict.fromkeys("0123456789", NUM_EXPONENT),
)
NUMBER_ENDS: Final = frozenset({NUM_ZERO, NUM_INT, NUM_FRACTION, NUM_EXPONENT})
RUNNING: Final = frozenset({NUM_INT, NUM_FRACTION, NUM_EXPONENT})
WANTED_IN_NUMBER: Final = {
    NUM_MINUS: "a digit",
    NUM_ZERO: 'the end of the number, "." or an exponent',
    NUM_INT: "the end of the number",
    NUM_DOT: "a digit",
    NUM_FRACTION: "the end of the number",
    NUM_E: "a digit or a sign",
    NUM_SIGN: "a digit",
    NUM_EXPONENT: "the end of the number",
}
WORD: Final = frozenset("0123456789.+-_abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
"""What after a top-level number is taken as a part of it, wrongly written."""
