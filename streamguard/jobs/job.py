"""A job: everything that is checked before the first request is sent, and what is left to do.

In charge of putting the parts together and of finding every mistake in all of them at once. It does not send.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec

from streamguard.errors import ConfigError, JobError, PolicyError, Problem
from streamguard.frozen import FrozenJson
from streamguard.guards.base import AttemptContext
from streamguard.guards.json_document import JsonDocument
from streamguard.jobs.input import STDIN, Check, Entry, Input, open_input, same_file
from streamguard.jobs.output import Output, open_output, writable
from streamguard.jobs.problems import Problems
from streamguard.jobs.template import Template, read_template
from streamguard.policy import Policy
from streamguard.policyfile import PolicyFile, read_policy
from streamguard.request import Request
from streamguard.schema_file import read_schema

TOTAL = "a job needs a limit on the time of each call, waiting and retries included: set timeouts.total, in seconds"


class JobSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A job as it was ordered."""

    input: str
    """A file of JSON Lines, or `-`."""
    out: str
    policy: str
    """A file, or `streamguard:NAME`."""
    schema: str | None = None
    """A file; instead of the policy's own schema."""
    template: str | None = None
    model: str | None = None
    """For every row, whatever it or the template says; so is `max_tokens`."""
    max_tokens: int | None = None
    fresh: bool = False
    """Whether rows that succeeded before are asked again."""
    allow_imports: bool = False
    """Whether the policy may import Python code (guards of one's own)."""


class Job:
    """A job that can be started: checked, its output open and locked. Close it.

    :raises JobError: every mistake in policy, schema, template, input and output at once.
    """

    def __init__(self, spec: JobSpec) -> None:
        self.spec = spec
        self.notices: list[str] = []
        """What is worth knowing before it starts, in sentences."""
        self.todo: list[Entry] = []
        """The rows to ask for, in the input's order."""
        self.kept = 0
        """Rows that had succeeded before and stay."""
        problems = Problems()
        policy = self._policy(problems)
        template = _template(spec, problems)
        with ExitStack() as stack:
            rows = _input(spec, policy, problems, template, stack)
            if (problem := writable(spec.out)) is not None:
                problems.add(problem)
            elif same_file(spec.input, spec.out):
                problems.add(Problem(file=spec.out, problem="is the input; results go to a file of their own"))
            problems.raise_any()
            assert policy is not None and rows is not None  # noqa: PT018  else there were problems
            self.policy: Policy = policy
            self.input: Input = rows
            self.output: Output = stack.enter_context(open_output(spec.out))
            self._resume()
            self._files = stack.pop_all()

    def close(self) -> None:
        """Close the files, and free the output's lock."""
        self._files.close()

    def _policy(self, problems: Problems) -> Policy | None:
        spec = self.spec
        try:
            file = read_policy(spec.policy, allow_imports=spec.allow_imports)
        except PolicyError as mistake:
            problems.extend(mistake.problems)
            return None
        self.notices += [f"warning: {warning}" for warning in file.warnings]
        self.notices += [said for budget in file.policy.budgets for said in budget.assumptions]
        policy = file.policy
        if policy.timeouts.total is None:
            problems.add(_no_total(spec, file))
        if spec.schema is not None:
            schema = read_schema(Path(spec.schema))
            if isinstance(schema, Problem):
                problems.add(schema)
                return None
            policy = with_schema(policy, schema)
        try:
            check_schema(policy)
        except ConfigError as mistake:
            file_name = spec.schema or spec.policy
            problems.extend(msgspec.structs.replace(one, file=one.file or file_name) for one in mistake.problems)
            return None
        return policy

    def _resume(self) -> None:
        problems = Problems()
        rows = self.output.rows
        for entry in self.input.entries:
            kept = rows.get(entry.custom_id)
            if self.spec.fresh or kept is None or kept.type != "succeeded":
                self.todo.append(entry)
                continue
            self.kept += 1
            if kept.fingerprint is not None and kept.fingerprint != entry.fingerprint:
                said = json.dumps(entry.custom_id, ensure_ascii=False)
                here = f"{self.input.name}:{entry.line}"
                what = (
                    f"the result of {said} answers another request or schema than {here} and the policy now ask for; "
                    "name another --out, or ask for all rows again with --fresh"
                )
                problems.add(Problem(file=self.spec.out, line=kept.line, problem=what))
        problems.raise_any()
        if self.output.torn:
            self.notices.append(
                f"{self.spec.out}: a torn last line of {self.output.torn:,} bytes was cut; its row is asked for again"
            )
        strangers = len(rows.keys() - {entry.custom_id for entry in self.input.entries})
        if strangers:
            self.notices.append(f"{self.spec.out}: {strangers:,} results of rows that are not in the input; they stay")


def _no_total(spec: JobSpec, file: PolicyFile) -> Problem:
    span = file.positions.get(("timeouts", "total")) or file.positions.get(("timeouts",))
    if span is None:
        return Problem(file=spec.policy, pointer="/timeouts/total", problem=TOTAL)
    at = span.key
    return Problem(file=at.file, line=at.line, column=at.column, pointer="/timeouts/total", problem=TOTAL)


def with_schema(policy: Policy, schema: Mapping[str, Any]) -> Policy:
    """The policy with this schema in its `json` section; one with the defaults if it has none."""
    section = policy.json_document or JsonDocument()
    section = section.model_copy(update={"schema_": FrozenJson(schema), "schema_file": None})
    return policy.model_copy(update={"json_document": section})


def check_schema(policy: Policy) -> None:
    """:raises SchemaError: the policy's own schema cannot be used, or nothing at all satisfies it."""
    section = policy.json_document
    if section is not None and section.own_schema() is not None:
        section.plan(section.own_schema())


def _template(spec: JobSpec, problems: Problems) -> Template | None:
    if spec.template is None:
        return None
    try:
        return read_template(Path(spec.template))
    except JobError as mistake:
        problems.extend(mistake.problems)
        return None


def _input(
    spec: JobSpec, policy: Policy | None, problems: Problems, template: Template | None, stack: ExitStack
) -> Input | None:
    try:
        file = stack.enter_context(open_input(spec.input))
    except JobError as mistake:
        problems.extend(mistake.problems)
        return None
    overrides = {"model": spec.model, "max_tokens": spec.max_tokens}
    rows = Input(
        file,
        "stdin" if spec.input == STDIN else spec.input,
        template=template,
        overrides={name: value for name, value in overrides.items() if value is not None},
        salt=_salt(policy),
        check=_request_check(policy),
    )
    # A template that cannot be read says nothing about rows, which would all be mistakes.
    if spec.template is None or template is not None:
        rows.scan(problems)
    return rows


def _salt(policy: Policy | None) -> str:
    """What decides, besides the request, which answer is right: the document's section of the policy."""
    if policy is None or policy.json_document is None:
        return ""
    section = policy.json_document.model_dump(mode="json", by_alias=True, exclude={"mode"})
    return hashlib.sha256(json.dumps(section, sort_keys=True).encode()).hexdigest()


def _request_check(policy: Policy | None) -> Check | None:
    """Where the schema comes from each row's request, whether there is a good one."""
    section = None if policy is None else policy.json_document
    if section is None or section.schema_ != "request":
        return None

    def check(params: Mapping[str, Any]) -> None:
        section.watch(AttemptContext(request=Request(params)), 0.0)

    return check
