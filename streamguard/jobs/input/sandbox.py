"""Where templates are rendered: without Python, and within a bound of output, numbers, steps and time.

A template is its operator's, a row is anybody's: `{{ "-" * row.width }}` with a width of ten billion must be a mistake
of that row, not the end of the machine. In charge of the bounds; what is wrong is raised as an error of the sandbox.

Every pass of a loop and every call is a step, so that what puts out nothing has an end, too. What texts come to is
worked out before they are made (`text_size`), and all that one rendering makes is added up.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from jinja2 import Template, Undefined, nodes
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from streamguard.jobs.input.text_size import MAX_CHARACTERS, MAX_NUMBER, check_format, check_numbers, shown, text_size

MAX_SECONDS: Final = 5.0
"""For one text of one row."""

MAX_STEPS: Final = 1_000_000
"""Steps of one rendering: passes of loops, and calls; and of one range."""

MAX_MADE: Final = 4 * MAX_CHARACTERS
"""Characters of all texts that one rendering makes on its way, which may all be kept."""

_SIZED: Final = ("center", "indent", "slice", "batch", "wordwrap", "truncate", "format", "round")
"""Filters whose numbers make texts or lists of that size."""

_METHODS: Final = frozenset({"center", "ljust", "rjust", "zfill", "expandtabs"})
"""Methods of texts whose numbers make texts of that size."""

_EACH: Final = "streamguard_each"
_JOINED: Final = "streamguard_joined"
"""Names of filters that no template can write: what loops go through, and what `~` does."""


class _Counting(NodeTransformer):
    """Sends what loops go through, and what `~` joins, by way of the sandbox."""

    def visit_For(self, node: nodes.For) -> nodes.For:  # noqa: N802
        self.generic_visit(node)
        text = sum(len(part.data) for part in node.find_all(nodes.TemplateData))
        node.iter = _filter(node.iter, _EACH, nodes.Const(text))
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filter(nodes.List(node.nodes, lineno=node.lineno), _JOINED)


def _filter(node: nodes.Node, name: str, *arguments: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, name, list(arguments), [], None, None, lineno=node.lineno)


class Sandbox(ImmutableSandboxedEnvironment):
    """See the module.

    :param undefined: what stands for a variable that is not there.
    """

    intercepted_binops = frozenset({"*", "**", "+", "%"})

    def __init__(self, undefined: type[Undefined]) -> None:
        super().__init__(undefined=undefined, autoescape=False, finalize=self._put)
        self._steps = self._made = 0
        self._until = float("inf")
        for name in ("lipsum", "cycler", "joiner"):
            self.globals.pop(name, None)
        self.globals["range"] = self._range
        for name, function in list(self.filters.items()):
            self.filters[name] = self._filtered(name, function)
        self.filters[_EACH] = self._each
        self.filters[_JOINED] = self._joined

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        return super()._generate(_Counting().visit(source), *args, **kwargs)

    def rendered(self, template: Template, data: Mapping[str, Any]) -> str:
        """A template with a row in it.

        :raises SecurityError: it takes too much of something.
        """
        self._steps = self._made = 0
        self._until = time.monotonic() + MAX_SECONDS
        pieces: list[str] = []
        size = 0
        for piece in template.generate(data):
            size += len(piece)
            if size > MAX_CHARACTERS:
                raise SecurityError(f"the text is longer than {MAX_CHARACTERS:,} characters")
            pieces.append(piece)
        return "".join(pieces)

    def _step(self, count: int = 1) -> None:
        self._steps += count
        if self._steps > MAX_STEPS:
            raise SecurityError(f"all loops and calls together have more than {MAX_STEPS:,} steps")
        if time.monotonic() > self._until:
            raise SecurityError(f"it takes longer than {MAX_SECONDS:g} s")

    def _make(self, characters: int) -> None:
        self._made += characters
        if self._made > MAX_MADE:
            raise SecurityError(f"all texts on the way are longer than {MAX_MADE:,} characters")

    def _put(self, value: Any) -> Any:
        """A value on its way out, perhaps into a block that is kept."""
        self._make(text_size(value))
        return value

    def _each(self, items: Iterable[Any], text: int) -> Iterator[Any]:
        """What a loop goes through; `text` characters stand in its body."""
        for item in items:
            self._step()
            self._make(text)
            yield item

    def _joined(self, values: list[Any]) -> str:
        self._make(text_size(values))
        return "".join(map(str, values))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """See the base: what multiplies, adds up and formats, within bounds."""
        if operator == "*":
            for sized, count in ((left, right), (right, left)):
                if isinstance(count, int) and hasattr(sized, "__len__"):
                    if len(sized) * count > MAX_CHARACTERS:
                        raise SecurityError(f"{len(sized):,} times {shown(count)} is too much")
                    self._make(len(sized) * max(count, 0))
            if isinstance(left, int) and isinstance(right, int) and left.bit_length() + right.bit_length() > 4096:
                raise SecurityError("a number on the way is too large")
        elif operator == "**":
            if isinstance(left, int) and isinstance(right, int) and left.bit_length() * max(right, 0) > 4096:
                raise SecurityError(f"{shown(left)} ** {shown(right)} is too large a number")
        elif operator == "+":
            if hasattr(left, "__len__") and hasattr(right, "__len__"):
                if len(left) + len(right) > MAX_CHARACTERS:
                    raise SecurityError("a text or list on the way is too long")
                self._make(len(left) + len(right))
        elif operator == "%" and isinstance(left, str):
            self._make(check_format(left, right if isinstance(right, tuple) else (right,), "%"))
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805, PYI063
        """See the base: a step; and the methods of texts that make longer ones, within bounds."""
        __self._step()
        method = getattr(__obj, "__wrapped__", __obj)  # the sandbox has its own `format`
        owner, name = getattr(method, "__self__", None), getattr(method, "__name__", "")
        if isinstance(owner, str):
            given = (*args, *kwargs.values())
            if name in _METHODS:
                check_numbers(given)
            elif name in ("format", "format_map"):
                check_format(owner, given, "{")
            elif name == "replace":
                _check_replace(owner, *args[:3])
            elif name == "join":
                args = (_checked_parts(owner, *args),)
            elif name in ("translate", "maketrans"):
                raise SecurityError("texts are not translated here; use replace")
        result = super().call(__context, __obj, *args, **kwargs)
        if isinstance(result, str) and not isinstance(method, Macro):
            __self._make(len(result))
        return result

    def _range(self, *arguments: int) -> range:
        steps = range(*arguments)
        if abs(max(arguments, key=abs, default=0)) > MAX_NUMBER or len(steps) > MAX_STEPS:
            raise SecurityError(f"a range has more than {MAX_STEPS:,} steps")
        return steps

    def _filtered(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A filter within bounds: of its numbers, of what its texts come to, and of the time."""
        # Some are handed the environment or the context before their value.
        first = 1 if getattr(function, "jinja_pass_arg", None) is not None else 0

        @functools.wraps(function)
        def checked(*args: Any, **kwargs: Any) -> Any:
            self._step()
            value, given = args[first], (*args[first + 1 :], *kwargs.values())
            if name in _SIZED:
                check_numbers(given)
            if name == "format":
                check_format(value, given, "%")
            elif name == "replace":
                _check_replace(str(value), *given[:2])
            elif name == "join":
                separator = args[first + 1] if len(args) > first + 1 else kwargs.get("d", "")
                args = (*args[:first], _checked_parts(separator, value), *args[first + 1 :])
            elif name in _READ_AS_TEXT:
                text_size(value)
            result = function(*args, **kwargs)
            if isinstance(result, str):
                self._make(len(result))
            return result

        return checked


_READ_AS_TEXT: Final = frozenset(
    {
        *("string", "tojson", "pprint", "urlencode", "xmlattr", "upper", "lower", "title", "capitalize", "trim"),
        *("striptags", "escape", "e", "forceescape", "safe", "truncate", "wordcount", "wordwrap", "center", "indent"),
        *("urlize", "unique", "sort", "groupby", "sum"),
    }
)
"""Filters that make a text of whatever they are given, or go through all of it."""


def _check_replace(text: str, old: object = "", new: object = "", *_: object) -> None:
    found, made = str(old), str(new)
    count = text.count(found) if found else len(text) + 1
    if len(text) + count * max(0, len(made) - len(found)) > MAX_CHARACTERS:
        raise SecurityError("a text on the way is too long")


def _checked_parts(separator: Any, parts: Iterable[Any] = ()) -> list[Any]:
    """The parts of a text to be, which come to no more than is allowed."""
    listed = []
    for part in parts:
        listed.append(part)
        if len(listed) > MAX_NUMBER:
            raise SecurityError(f"a list of more than {MAX_NUMBER:,} parts")
    if text_size(listed) + len(listed) * text_size(separator) > MAX_CHARACTERS:
        raise SecurityError("a text on the way is too long")
    return listed
