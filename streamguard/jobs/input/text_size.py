"""How long texts come to be, before they are made. Pure.

In charge of numbers alone: a list that stands a thousand times in a list takes little memory, and its text takes all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from jinja2.exceptions import SecurityError

MAX_CHARACTERS: Final = 32 * 1024 * 1024
"""Of a rendered text, and of any text on the way to it: the Messages API takes no larger request."""

MAX_NUMBER: Final = 1_000_000
"""The largest number that a width, a count or a range may be."""

_WIDTH: Final = re.compile(r"\d{5,}|\*")


def text_size(value: Any) -> int:
    """About how many characters a value has as a text; of what lists and objects hold, every time that it stands there.

    :raises SecurityError: more than `MAX_CHARACTERS`.
    """
    size, waiting = 0, [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            size += len(one)
        elif isinstance(one, Mapping):
            size += 4 * len(one) + 2
            waiting += one.keys()
            waiting += one.values()
        elif isinstance(one, list | tuple | set | frozenset):
            size += 2 * len(one) + 2
            waiting += one
        elif isinstance(one, int):
            size += one.bit_length() // 3 + 1
        elif one is not None:
            size += 16
        if size > MAX_CHARACTERS:
            raise SecurityError("a text on the way is too long")
    return size


def check_numbers(values: Iterable[Any]) -> None:
    """Refuse numbers that are too large for a width or a count.

    :raises SecurityError: one is.
    """
    for value in values:
        if isinstance(value, int) and abs(value) > MAX_NUMBER:
            raise SecurityError(f"{shown(value)} is more than {MAX_NUMBER:,}")


def check_format(text: Any, values: Iterable[Any], mark: str) -> int:
    """How long a formatted text may come to be.

    :param mark: what every place of a value begins with.
    :raises SecurityError: too long, or a width is.
    """
    values = list(values)
    if not isinstance(text, str):
        return 0
    if _WIDTH.search(text) and mark in text:
        raise SecurityError("a format with a width of five digits, or of an argument")
    if mark == "{":
        check_numbers(values)
        if re.search(r"\{[^{}]*:[^{}]*\{", text):
            raise SecurityError("a format with a width of an argument")
    largest = max(map(text_size, values), default=0)
    size = len(text) + text.count(mark) * (largest + 9_999 if re.search(r"\d{3}", text) else largest + 999)
    if size > MAX_CHARACTERS:
        raise SecurityError("a text on the way is too long")
    return len(text) + text.count(mark) * largest


def shown(number: int) -> str:
    """A number for a person."""
    return f"{number:,}" if abs(number) < 10**15 else "a number of sixteen digits or more"
