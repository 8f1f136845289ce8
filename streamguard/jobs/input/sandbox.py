"""Where templates are rendered: without Python, and within a bound of output, numbers and time.

A template is its operator's, a row is anybody's: `{{ "-" * row.width }}` with a width of ten billion must be a mistake
of that row, not the end of the machine. In charge of the bounds; what is wrong is raised as an error of the sandbox.
"""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from jinja2 import Template, Undefined
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_CHARACTERS: Final = 32 * 1024 * 1024
"""Of a rendered text, and of any text on the way to it: the Messages API takes no larger request."""

MAX_NUMBER: Final = 1_000_000
"""The largest number that a width, a count or a range may be."""

MAX_SECONDS: Final = 5.0
"""For one text of one row."""

MAX_STEPS: Final = 1_000_000
"""Steps of all ranges of one rendering together."""

_SIZED: Final = ("center", "indent", "slice", "batch", "wordwrap", "truncate", "format", "round")
"""Filters whose numbers make texts or lists of that size."""

_METHODS: Final = frozenset(
    {"center", "ljust", "rjust", "zfill", "expandtabs", "format", "format_map", "replace", "join"}
)

_WIDTH: Final = re.compile(r"\d{5,}|\*")


class Sandbox(ImmutableSandboxedEnvironment):
    """See the module.

    :param undefined: what stands for a variable that is not there.
    """

    intercepted_binops = frozenset({"*", "**", "+", "%"})

    def __init__(self, undefined: type[Undefined]) -> None:
        super().__init__(undefined=undefined, autoescape=False)
        self._steps = 0
        for name in ("lipsum", "cycler", "joiner"):
            self.globals.pop(name, None)
        self.globals["range"] = self._range
        for name in _SIZED:
            self.filters[name] = _bounded(self.filters[name])

    def rendered(self, template: Template, data: Mapping[str, Any]) -> str:
        """A template with a row in it.

        :raises SecurityError: it takes too much of something.
        """
        self._steps = 0
        pieces: list[str] = []
        size, until = 0, time.monotonic() + MAX_SECONDS
        for piece in template.generate(data):
            size += len(piece)
            if size > MAX_CHARACTERS:
                raise SecurityError(f"the text is longer than {MAX_CHARACTERS:,} characters")
            if time.monotonic() > until:
                raise SecurityError(f"it takes longer than {MAX_SECONDS:g} s")
            pieces.append(piece)
        return "".join(pieces)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """See the base: what multiplies, adds up and formats, within bounds."""
        if operator == "*":
            for sized, count in ((left, right), (right, left)):
                if isinstance(count, int) and hasattr(sized, "__len__") and len(sized) * count > MAX_CHARACTERS:
                    raise SecurityError(f"{len(sized):,} times {_shown(count)} is too much")
            _check_product(left, right)
        elif operator == "**":
            if isinstance(left, int) and isinstance(right, int) and left.bit_length() * max(right, 0) > 4096:
                raise SecurityError(f"{_shown(left)} ** {_shown(right)} is too large a number")
        elif operator == "+":
            if hasattr(left, "__len__") and hasattr(right, "__len__") and len(left) + len(right) > MAX_CHARACTERS:
                raise SecurityError("a text or list on the way is too long")
        elif operator == "%" and isinstance(left, str):
            _check_format(left)
            _check_numbers(right if isinstance(right, tuple) else (right,)) if "*" in left else None
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805, PYI063
        """See the base: the methods of texts that make longer ones, within bounds."""
        method = getattr(__obj, "__wrapped__", __obj)  # the sandbox has its own `format`
        owner, name = getattr(method, "__self__", None), getattr(method, "__name__", "")
        if isinstance(owner, str) and name in _METHODS:
            _check_numbers((*args, *kwargs.values()))
            if name in ("format", "format_map"):
                _check_format(owner)
            elif name == "replace" and (len(owner) + 1) * len(str(args[-1] if args else "")) > MAX_CHARACTERS:
                raise SecurityError("a text on the way is too long")
        return super().call(__context, __obj, *args, **kwargs)

    def _range(self, *arguments: int) -> range:
        steps = range(*arguments)
        self._steps += len(steps) if abs(max(arguments, key=abs, default=0)) <= MAX_NUMBER else MAX_STEPS + 1
        if self._steps > MAX_STEPS:
            raise SecurityError(f"all ranges together have more than {MAX_STEPS:,} steps")
        return steps


def _bounded(function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that takes no number above `MAX_NUMBER`."""

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        _check_numbers((*args[1:], *kwargs.values()))
        for one in args[:2]:
            if isinstance(one, str) and function.__name__ == "do_format":
                _check_format(one)
        return function(*args, **kwargs)

    return checked


def _check_numbers(values: Iterable[Any]) -> None:
    for value in values:
        if isinstance(value, int) and abs(value) > MAX_NUMBER:
            raise SecurityError(f"{_shown(value)} is more than {MAX_NUMBER:,}")


def _check_product(left: Any, right: Any) -> None:
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() + right.bit_length() > 4096:
        raise SecurityError("a number on the way is too large")


def _check_format(text: str) -> None:
    if _WIDTH.search(text) and ("%" in text or "{" in text):
        raise SecurityError("a format with a width of five digits, or of an argument")


def _shown(number: int) -> str:
    return f"{number:,}" if abs(number) < 10**15 else "a number of sixteen digits or more"
