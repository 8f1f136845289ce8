"""Templates: a row of data → the request that is sent for it.

A template is a Jinja2 text that renders the user's message, perhaps behind a YAML front matter between two lines of
three dashes: `model`, `max_tokens`, `system` and `prefill` (both templates too), any other field of a request as it
is, and under `extra` fields that this package does not know. `cache: true` marks the end of `system` as the end of what
rows share, so that the provider caches it.

In it stand the row's fields by name, and `row`, the whole object (also where a field is called "row"). Nothing is
escaped: a prompt is no HTML. The sandbox keeps a template from reaching Python; what is undefined is a mistake.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from jinja2 import StrictUndefined, TemplateSyntaxError, UndefinedError
from jinja2 import Template as Compiled
from jinja2.utils import missing as MISSING  # noqa: N812

from streamguard.errors import JobError, Problem
from streamguard.files.suggest import did_you_mean
from streamguard.files.yaml import Loaded, load
from streamguard.jobs.input.params import KNOWN, SDK_ONLY, RenderError, unknown
from streamguard.jobs.input.rows import Row
from streamguard.jobs.input.sandbox import Sandbox

MAX_BYTES = 1024 * 1024
"""Largest template file."""

EPHEMERAL = {"type": "ephemeral"}
"""What marks the end of a prefix that is cached for five minutes, renewed by each read."""

_FENCE = "---"
_OWN = frozenset({"system", "prefill", "extra", "cache"})
_NOT_HERE = {
    "messages": "is what the template itself renders; for other messages send batch lines",
    "stream": "must be left out: every request is sent as a stream",
    "user": "is no field; the text below the front matter is the user's message",
}


class _MissingError(UndefinedError):
    def __init__(self, message: str, name: str | None, within: Any) -> None:
        super().__init__(message)
        self.name = name
        self.within = within
        """What has no such attribute; jinja's marker for none, if a variable is missing."""


class _Missing(StrictUndefined):
    """Undefined, with the name at hand when it fails."""

    __slots__ = ()

    def __init__(
        self, hint: str | None = None, obj: Any = MISSING, name: str | None = None, exc: Any = UndefinedError
    ) -> None:
        if exc is UndefinedError:  # not where the sandbox says no

            def exc(message: str | None = None) -> _MissingError:
                return _MissingError(message or "", name, obj)

        super().__init__(hint, obj, name, exc)


class _Part(msgspec.Struct, frozen=True):
    """One text of the file, compiled."""

    sandbox: Sandbox
    compiled: Compiled
    name: str
    """What its frames carry as their file in a traceback."""
    file: str
    first_line: int
    """Of the text in the file, 1-based."""

    def render(self, data: Mapping[str, Any]) -> str:
        """:raises RenderError: naming the line of the file."""
        try:
            # Positional, so that a field called "self" is just a field.
            return self.sandbox.rendered(self.compiled, {**data, "row": data})
        except UndefinedError as error:
            raise RenderError(self.file, self._line(error), _undefined(error, data)) from error
        except Exception as error:
            # Whatever an expression does with a row's values: a filter's TypeError, a division by zero, the sandbox.
            raise RenderError(self.file, self._line(error), f"{type(error).__name__}: {error}") from error

    def _line(self, error: BaseException) -> int | None:
        """The line of the template that raised: the innermost frame that carries its name."""
        line, traceback = None, error.__traceback__
        while traceback is not None:
            if traceback.tb_frame.f_code.co_filename == self.name:
                line = traceback.tb_lineno
            traceback = traceback.tb_next
        return None if line is None else line + self.first_line - 1


def _undefined(error: UndefinedError, data: Mapping[str, Any]) -> str:
    if not isinstance(error, _MissingError) or error.name is None:
        return f"undefined: {error}"
    if error.within is MISSING or error.within is data:
        return f"{error.name} is undefined: the row has no such field{did_you_mean(error.name, data)}"
    names = error.within if isinstance(error.within, Mapping) else ()
    return f"undefined: {error}{did_you_mean(error.name, names)}"


class Template:
    """A template file, read and compiled.

    :param text: the file's content.
    :param file: the name that mistakes carry.
    :raises JobError: every mistake that can be seen without a row.
    """

    def __init__(self, text: str, file: str) -> None:
        self.file = file
        self.text = text
        """As it was read."""
        self._problems: list[Problem] = []
        self._environment = Sandbox(_Missing)
        front, body, first_line = self._split(text.removeprefix("\ufeff"))
        self.defaults: dict[str, Any] = self._fields(front)
        """The request's fields that are the same for every row."""
        self._cache = front.data.get("cache") is True
        self._system = self._compile_field(front, "system")
        self._prefill = self._compile_field(front, "prefill")
        self._body = self._compile(body, first_line)
        if not body.strip():
            self._problem("the template is empty: its text is the user's message", first_line)
        if self._problems:
            raise JobError(sorted(self._problems, key=lambda problem: (problem.line or 0, problem.column or 0)))

    def params(self, row: Row) -> dict[str, Any]:
        """The request for a row.

        :raises RenderError: the template and the row do not fit.
        """
        assert self._body is not None
        text = self._body.render(row.data)
        if not text.strip():
            raise RenderError(self.file, None, "renders an empty message for this row")
        messages = [{"role": "user", "content": text}]
        if self._prefill is not None:
            prefill = self._prefill.render(row.data)
            if prefill != prefill.rstrip():
                raise RenderError(self.file, None, "prefill must not end with whitespace: the API refuses that")
            if prefill:
                messages.append({"role": "assistant", "content": prefill})
        system: dict[str, Any] = {} if self._system is None else {"system": self._system.render(row.data)}
        if self._cache and system.get("system"):
            system["system"] = [{"type": "text", "text": system["system"], "cache_control": dict(EPHEMERAL)}]
        return {**self.defaults, **system, "messages": messages}

    # Reading

    def _problem(
        self, what: str, line: int | None = None, column: int | None = None, pointer: str | None = None
    ) -> None:
        self._problems.append(Problem(file=self.file, line=line, column=column, pointer=pointer, problem=what))

    def _split(self, text: str) -> tuple[Loaded, str, int]:
        """Front matter, the text below it, and the line that starts with."""
        self._lines = lines = text.splitlines(keepends=True)
        if not lines or lines[0].rstrip() != _FENCE:
            return Loaded({}, {}), text, 1
        end = next((index for index, line in enumerate(lines[1:], 1) if line.rstrip() == _FENCE), None)
        if end is None:
            self._problem("the front matter has no end: a second line of three dashes", 1)
            return Loaded({}, {}), "-", 1
        body, yaml = "".join(lines[end + 1 :]), "".join(lines[1:end])
        if not any(line.strip() and not line.lstrip().startswith("#") for line in lines[1:end]):
            return Loaded({}, {}), body, end + 2
        try:
            # An empty first line stands for the dashes, so that lines are counted right.
            return load("\n" + yaml, self.file, error=JobError), body, end + 2
        except JobError as mistake:
            self._problems += mistake.problems
            return Loaded({}, {}), body, end + 2

    def _fields(self, front: Loaded) -> dict[str, Any]:
        fields = dict(front.data)
        extra = fields.pop("extra", None)
        names = [name for name in fields if name not in _OWN]
        for name in [name for name in names if name in _NOT_HERE]:
            self._at_key(front, name, _NOT_HERE[name])
        for name, what in unknown([name for name in names if name not in _NOT_HERE]):
            how = "" if "did you mean" in what else f"; there are {', '.join(sorted(KNOWN - {'messages'} | _OWN))}"
            self._at_key(front, name, what + how)
        model, limit = fields.get("model"), fields.get("max_tokens")
        if "model" in fields and (not isinstance(model, str) or not model):
            self._at_value(front, "model", f"must be a model's name, got {model!r}")
        if "max_tokens" in fields and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
            self._at_value(front, "max_tokens", f"must be a whole number of tokens from 1, got {limit!r}")
        if not isinstance(extra, dict | None):
            self._at_value(front, "extra", "must be a mapping of a request's fields")
            extra = None
        for name in sorted((SDK_ONLY | set(_NOT_HERE)) & set(extra or ())):
            self._at_value(front, "extra", f"{name} is no field that a request can have here")
        if not isinstance(fields.get("cache", False), bool):
            self._at_value(front, "cache", f"must be true or false, got {fields['cache']!r}")
        elif fields.get("cache") and not isinstance(fields.get("system"), str):
            what = "needs a system text, which it marks as what rows share; in blocks, write cache_control yourself"
            self._at_value(front, "cache", what)
        kept = {name: value for name, value in fields.items() if name not in _OWN}
        system = {"system": fields["system"]} if isinstance(fields.get("system"), list) else {}
        return {**kept, **system, **(extra or {})}

    def _compile_field(self, front: Loaded, name: str) -> _Part | None:
        value = front.data.get(name)
        if isinstance(value, str):
            at = front.positions[name,].value
            # The text of a block scalar begins on the line after its sign.
            block = self._lines[at.line - 1][at.column - 1 : at.column] in ("|", ">")
            return self._compile(value, at.line + block, f"/{name}")
        if value is not None and not (name == "system" and isinstance(value, list)):
            self._at_value(front, name, "must be a text" + (" or a list of blocks" if name == "system" else ""))
        return None

    def _compile(self, text: str, first_line: int, pointer: str | None = None) -> _Part | None:
        name = self.file + (pointer or "")
        try:
            code = self._environment.compile(text, name=name, filename=name)
            compiled = Compiled.from_code(self._environment, code, self._environment.make_globals(None))
        except TemplateSyntaxError as mistake:
            self._problem(f"not a template: {mistake.message}", mistake.lineno + first_line - 1, pointer=pointer)
            return None
        except RecursionError:
            self._problem("not a template: nested too deeply", first_line, pointer=pointer)
            return None
        return _Part(self._environment, compiled, name, self.file, first_line)

    def _at_key(self, front: Loaded, name: str, what: str) -> None:
        at = front.positions[name,].key
        self._problem(what, at.line, at.column, f"/{name}")

    def _at_value(self, front: Loaded, name: str, what: str) -> None:
        at = front.positions[name,].value
        self._problem(what, at.line, at.column, f"/{name}")


def read_template(path: Path) -> Template:
    """A template from a file.

    :raises JobError: it cannot be read, or is no template.
    """
    file = str(path)
    try:
        if not path.is_file():
            raise JobError(Problem(file=file, problem="not a file" if path.exists() else "no such file"))
        with path.open("rb") as opened:
            raw = opened.read(MAX_BYTES + 1)
        text = raw.decode("utf-8")
    except OSError as mistake:
        raise JobError(Problem(file=file, problem=f"cannot be read: {mistake.strerror or mistake}")) from mistake
    except UnicodeDecodeError as mistake:
        line = mistake.object[: mistake.start].count(b"\n") + 1
        raise JobError(Problem(file=file, line=line, problem="not UTF-8")) from mistake
    except ValueError as mistake:
        raise JobError(Problem(file=file, problem="no file can have such a name")) from mistake
    if len(raw) > MAX_BYTES:
        raise JobError(Problem(file=file, problem=f"more than {MAX_BYTES // 1024:,} KiB"))
    return Template(text, file)
