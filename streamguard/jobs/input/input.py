"""The input of a job: read once to find every mistake, and again, row by row, to send.

In charge of the two passes, and of the keys by which rows are known. Between the passes only places are held, and those
in the plan, which is no memory's: a job of a million rows needs no more of it than a small one.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec

from streamguard.errors import ConfigError, JobError, Problem
from streamguard.jobs.input.params import RenderError, mistakes
from streamguard.jobs.input.plan import Entry, Plan
from streamguard.jobs.input.rows import Line, Row, content_key, lines, parse
from streamguard.jobs.problems import Problems
from streamguard.jobs.store.fingerprint import request_fingerprint

if TYPE_CHECKING:  # Jinja2 comes with an extra, and rows that are requests need no template
    from streamguard.jobs.input.template import Template

Check = Callable[[Mapping[str, Any], Mapping[str, Any]], None]
"""Looks at a request and the row that it was made of; raises a `ConfigError` if it cannot be guarded."""


class RowRequest(msgspec.Struct, frozen=True):
    """A row's request, ready to be sent."""

    entry: Entry
    params: dict[str, Any]
    turn: int = 0
    row: dict[str, Any] | None = None
    """The row itself, where answers are held against its fields."""


class Input:
    """A job's rows.

    :param file: open, seekable; stays the caller's.
    :param name: what mistakes call it.
    :param template: makes requests of rows that are data.
    :param overrides: fields of every request, whatever the row or the template says.
    :param salt: goes into every fingerprint: what else decides which answer is right.
    :param check: an opinion on each request.
    :param keep_rows: whether each request goes with its row.
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
        keep_rows: bool = False,
    ) -> None:
        self.name = name
        self.plan = Plan()
        """The rows, after `scan()`."""
        self.models: dict[str, int] = {}
        """How many rows ask for each model."""
        self._file = file
        self._template = template
        self._overrides = dict(overrides or {})
        self._salt = salt
        self._check = check
        self._keep_rows = keep_rows
        self._said: set[str] = set()

    def scan(self, problems: Problems) -> None:
        """The first pass: every row is parsed, rendered and checked; nothing of it is kept but its place."""
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
            key = self._key(row)
            first = self.plan.line_of(key)
            if first is not None:
                said = json.dumps(key, ensure_ascii=False)
                problems.add(self._problem(line, f"the id {said} is already on line {first}"))
            fits = self._fits(line, row, problems)
            if first is None:
                params = self._checked(line, row, problems) if fits else None
                self._admit(line, key, params)

    def close(self) -> None:
        """Forget the plan; the file stays the caller's."""
        self.plan.close()

    def _key(self, row: Row) -> str:
        if row.custom_id is not None:
            return row.custom_id
        key = content_key(row.data)
        return f"{key}-{self.plan.occurrence(key)}"

    def requests(self, entries: Iterable[tuple[Entry, int]] | None = None) -> Iterator[RowRequest]:
        """The second pass: the requests of these rows, one at a time.

        :param entries: rows with their turns; those that the plan says are to be asked, unless given.
        :raises JobError: the file has changed since the first pass.
        """
        for entry, turn in self.plan.todo() if entries is None else entries:
            row = self.row(entry)
            yield RowRequest(entry, self._params(row), turn, row.data if self._keep_rows else None)

    def row(self, entry: Entry) -> Row:
        """One row, read again.

        :raises JobError: it is not what it was in the first pass.
        """
        self._file.seek(entry.offset)
        raw = self._file.read(entry.length)
        row = parse(Line(entry.line, entry.offset, raw), self.name) if zlib.crc32(raw) == entry.checksum else None
        if not isinstance(row, Row):
            raise JobError(Problem(file=self.name, line=entry.line, problem="changed while the job ran"))
        return row

    def _checked(self, line: Line, row: Row, problems: Problems) -> dict[str, Any] | None:
        """The row's request, if it can be sent."""
        try:
            params = self._params(row)
            if self._check is not None:
                self._check(params, row.data)
        except RenderError as mistake:
            problems.add(self._problem(line, f"{mistake.place}: {mistake.problem}"))
        except ConfigError as mistake:
            for problem in mistake.problems:
                problems.add(self._problem(line, problem.problem, problem.pointer))
        else:
            return params
        return None

    def _admit(self, line: Line, key: str, params: dict[str, Any] | None) -> None:
        fingerprint = None
        if params is not None:
            fingerprint = request_fingerprint(self._salt, params)
            model = str(params.get("model"))
            self.models[model] = self.models.get(model, 0) + 1
        self.plan.add(key, line.number, line.offset, len(line.raw), zlib.crc32(line.raw), fingerprint)

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
