"""The input of a job: read once to find every mistake, and again, row by row, to send.

In charge of the two passes. Between them only ids and offsets are held, so a job of a million rows fits in memory; what
cannot be read twice (standard input, a pipe) is copied to a temporary file first.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from streamguard.errors import ConfigError, JobError, Problem
from streamguard.jobs.params import mistakes
from streamguard.jobs.problems import Problems
from streamguard.jobs.rows import Line, Row, lines, parse
from streamguard.jobs.template import RenderError, Template

STDIN = "-"
"""The name of standard input."""

Check = Callable[[Mapping[str, Any]], None]
"""Looks at a request; raises a `ConfigError` if it cannot be guarded."""


class Entry(msgspec.Struct, frozen=True):
    """Where a row stands."""

    custom_id: str
    line: int
    offset: int
    length: int
    fingerprint: str
    """Of the row's request."""


class RowRequest(msgspec.Struct, frozen=True):
    """A row's request, ready to be sent."""

    entry: Entry
    params: dict[str, Any]


class Input:
    """A job's rows.

    :param file: open, seekable; stays the caller's.
    :param name: what mistakes call it.
    :param template: makes requests of rows that are data.
    :param overrides: fields of every request, whatever the row or the template says.
    :param salt: goes into every fingerprint: what else decides which answer is right.
    :param check: an opinion on each request.
    """

    def __init__(
        self,
        file: BinaryIO,
        name: str,
        *,
        template: Template | None = None,
        overrides: Mapping[str, Any] | None = None,
        salt: str = "",
        check: Check | None = None,
    ) -> None:
        self.name = name
        self.entries: list[Entry] = []
        """The rows, in order; after `scan()`."""
        self.models: dict[str, int] = {}
        """How many rows ask for each model."""
        self._file = file
        self._template = template
        self._overrides = dict(overrides or {})
        self._salt = salt
        self._check = check
        self._said: set[str] = set()

    def scan(self, problems: Problems) -> None:
        """The first pass: every row is parsed, rendered and checked; nothing of it is kept but its place."""
        places: dict[str, int] = {}
        if self._template is not None:
            problems.extend(self._template_mistakes(self._template))
        self._file.seek(0)
        for line in lines(self._file):
            if line.blank:
                continue
            row = parse(line, self.name)
            if isinstance(row, Problem):
                problems.add(row)
                continue
            first = places.setdefault(row.custom_id, line.number)
            if first != line.number:
                said = json.dumps(row.custom_id, ensure_ascii=False)
                problems.add(self._problem(line, f"the id {said} is already on line {first}"))
            if self._fits(line, row, problems) and first == line.number:
                self._admit(line, row, problems)

    def requests(self, entries: Iterable[Entry]) -> Iterator[RowRequest]:
        """The second pass: the requests of these rows, one at a time.

        :raises JobError: the file has changed since the first pass.
        """
        for entry in entries:
            self._file.seek(entry.offset)
            row = parse(Line(entry.line, entry.offset, self._file.read(entry.length)), self.name)
            if not isinstance(row, Row) or row.custom_id != entry.custom_id:
                raise JobError(Problem(file=self.name, line=entry.line, problem="changed while the job ran"))
            yield RowRequest(entry, self._params(row))

    def _admit(self, line: Line, row: Row, problems: Problems) -> None:
        try:
            params = self._params(row)
            if self._check is not None:
                self._check(params)
        except RenderError as mistake:
            problems.add(self._problem(line, f"{mistake.place}: {mistake.problem}"))
        except ConfigError as mistake:
            for problem in mistake.problems:
                problems.add(self._problem(line, problem.problem, problem.pointer))
        else:
            fingerprint = hashlib.sha256(f"{self._salt}\n{json.dumps(params, sort_keys=True)}".encode()).hexdigest()[
                :16
            ]
            self.entries.append(Entry(row.custom_id, line.number, line.offset, len(line.raw), fingerprint))
            model = str(params.get("model"))
            self.models[model] = self.models.get(model, 0) + 1

    def _params(self, row: Row) -> dict[str, Any]:
        if row.params is not None:
            return {**row.params, **self._overrides}
        assert self._template is not None
        return {**self._template.params(row), **self._overrides}

    def _fits(self, line: Line, row: Row, problems: Problems) -> bool:
        """Whether a request can be made of the row; if not, why not is among the problems."""
        if row.params is not None and self._template is not None:
            self._once(line, "a whole request, for which a template has no use: leave --template out", problems)
            return False
        if row.params is None and self._template is None:
            what = "data, no request: name the --template that makes requests of rows, or send batch lines (params)"
            self._once(line, what, problems)
            return False
        found = list(mistakes({**row.params, **self._overrides})) if row.params is not None else []
        for mistake in found:
            problems.add(self._problem(line, mistake.problem, f"/params{mistake.pointer}"))
        return not found

    def _once(self, line: Line, what: str, problems: Problems) -> None:
        """A mistake of all rows of a kind is shown for the first of them."""
        if what not in self._said:
            self._said.add(what)
            problems.add(self._problem(line, what))

    def _template_mistakes(self, template: Template) -> Iterator[Problem]:
        fields = {**template.defaults, **self._overrides, "messages": [{"role": "user", "content": ""}]}
        for mistake in mistakes(fields):
            yield Problem(file=template.file, pointer=mistake.pointer, problem=mistake.problem)

    def _problem(self, line: Line, what: str, pointer: str | None = None) -> Problem:
        return Problem(file=self.name, line=line.number, pointer=pointer, problem=what)


def open_input(name: str) -> BinaryIO:
    """A file to read twice; `-` is standard input.

    :raises JobError: it cannot be read.
    """
    if name == STDIN:
        return _spooled(sys.stdin.buffer)
    try:
        file = Path(name).open("rb")  # noqa: SIM115  the caller's
    except OSError as mistake:
        raise JobError(Problem(file=name, problem=f"cannot be read: {mistake.strerror or mistake}")) from mistake
    except ValueError as mistake:
        raise JobError(Problem(file=name, problem="no file can have such a name")) from mistake
    if not file.seekable() or not Path(name).is_file():
        with file:
            return _spooled(file)
    return file


def _spooled(stream: Any) -> BinaryIO:
    copy = tempfile.TemporaryFile()  # noqa: SIM115  the caller's
    shutil.copyfileobj(stream, copy, 1024 * 1024)
    return copy


def same_file(one: str, other: str) -> bool:
    """Whether two names are of one file that exists."""
    try:
        return one != STDIN and Path(one).samefile(other)
    except (OSError, ValueError):
        return False
