"""`streamguard check`: policies, jobs, proxy configurations, schemas, templates and job input. Nothing is sent.

In charge of telling the files apart by their names, and of printing what was found. Every file is looked at, whatever
is wrong with the others.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from streamguard.cli.commands.exits import Exit, complain
from streamguard.errors import ConfigError, JobError, Problem
from streamguard.terminal import columns, fitted, printable

if TYPE_CHECKING:
    from streamguard.cli.commands.hosts import Place
    from streamguard.jobs.input.input import Input
    from streamguard.policy.model import Policy


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line says beside the files."""

    explain: bool = False
    budget: str | None = None
    usual_output: int | None = None
    template: str | None = None
    model: str | None = None
    max_tokens: int | None = None
    allow_imports: bool = False


Notes = list[str]
"""Lines for a person: what is fine, and what is worth knowing about it."""


def main(files: list[str], options: Options, ground: tuple[str, str] | None = None) -> int:
    """Look at every file; mistakes go to standard error, the rest to standard output.

    :param ground: of rows, count which right values stand in their source: the fields of the source and of the right
        answer.
    """
    mistakes = 0
    for name in files:
        try:
            notes = _check(name, options) if ground is None else _grounds(name, *ground)
        except ConfigError as error:
            mistakes += len(error.problems)
            complain(
                problem if problem.file else msgspec.structs.replace(problem, file=name) for problem in error.problems
            )
        else:
            sys.stdout.write("".join(f"{printable(note)}\n" for note in notes))
    sys.stdout.flush()
    return Exit.INPUT if mistakes else Exit.OK


def _check(name: str, options: Options) -> Notes:
    suffix = Path(name).suffix.lower()
    if name.startswith("streamguard:"):
        suffix = ".yaml"
    if suffix not in _KINDS:
        kinds = ", ".join(_KINDS)
        raise JobError(Problem(file=name, problem=f"no file that can be checked, by its name: there are {kinds}"))
    return _KINDS[suffix](name, options)


def _grounds(name: str, text: str, gold: str) -> Notes:
    from streamguard.cli import ground

    return ground.notes(name, text=text, gold=gold)


def _yaml(name: str, options: Options) -> Notes:
    """A job, a proxy's configuration or a policy, by the keys at the top."""
    from streamguard.jobs.jobfile import SHIPPED, is_job
    from streamguard.proxy.configfile import is_config

    if name.startswith(SHIPPED):
        return _policy(name, options)
    if is_job(Path(name)):
        return _job(name, options)
    return _proxy(name, options) if is_config(Path(name)) else _policy(name, options)


class _Environment(dict[str, str]):
    """Environment variables as the proxy would have them: one that is not set here has some value of its own."""

    def get(self, name: str, default: Any = None) -> Any:  # noqa: ARG002  every variable has a value
        return self.setdefault(name, os.environ.get(name) or f"{name}-".ljust(64, "-"))


def _proxy(name: str, options: Options) -> Notes:
    """A proxy's configuration, and every policy that it names. Environment variables need not be set yet."""
    from streamguard.proxy.configfile import read_config, read_setup

    config, folder = read_config(name, {})
    environment = _Environment()
    setup = read_setup(config, folder, environment=environment, allow_imports=options.allow_imports)
    complain(msgspec.structs.replace(warning, problem=f"warning: {warning.problem}") for warning in setup.warnings)
    named = ", ".join(sorted(name for name, policy in setup.policies.items() if policy is not None))
    unset = ", ".join(sorted(variable for variable in environment if not os.environ.get(variable)))
    notes = [f"{name}: fine, a proxy in front of {config.upstream} (policies: {named or 'off'})"]
    return [*notes, f"  not set here: {unset}"] if unset else notes


def _job(name: str, options: Options) -> Notes:
    """A job as `streamguard run` would start it: its files, its rows, and what is kept from earlier runs."""
    from streamguard.cli.commands.hosts import Place, named
    from streamguard.cli.commands.run import Flags, order
    from streamguard.jobs.job import Job
    from streamguard.jobs.report.forecast import prefix_notices

    flags = Flags(
        job=name,
        template=options.template,
        model=options.model,
        max_tokens=options.max_tokens,
        allow_imports=options.allow_imports,
    )
    spec, said = order(flags)
    job = Job.open(spec, dry=True)
    try:
        rows = f"{name}: fine, {job.rows:,} rows, {job.todo:,} to ask"
        places = list(named(job.policy, spec.policy))
        if said.base_url is not None:
            places.insert(0, Place(said.base_url, name, "/base_url"))
        said_too = (*job.notices, *_places(places), *prefix_notices(job))
        return [rows, *(f"  {notice}" for notice in said_too)]
    finally:
        job.close()


def _policy(name: str, options: Options) -> Notes:
    from streamguard.jobs.opening import check_schema
    from streamguard.policy.file import read_policy

    found = read_policy(name, allow_imports=options.allow_imports)
    check_schema(found.policy)
    complain(msgspec.structs.replace(warning, problem=f"warning: {warning.problem}") for warning in found.warnings)
    section = found.policy.json_document
    schema = None if section is None else section.own_schema()
    from streamguard.cli.commands.hosts import named

    output = None if section is None else section.output
    late = _late(schema) if schema is not None and output is None else ()
    notes = [f"{name}: fine", *(f"  {notice}" for notice in _places(named(found.policy, name))), *late]
    if found.policy.guards:
        notes.append("  imports Python code, which may do whatever you may: run takes it with --allow-imports only")
    if options.budget is not None:
        notes += _forecast(found.policy, options.budget, options)
    if not options.explain:
        return notes
    taken = [f"  {one}" for one in found.removed]
    left_open = () if output is None else output.plan().open
    return [*notes, *taken, *_explained(found.policy), *(f"  {place}" for place in left_open)]


def _places(places: Iterable[Place]) -> Iterator[str]:
    """Where rows and the key would go, and whether `run` would send them there."""
    from streamguard.cli.commands.hosts import Allowed

    allowed = Allowed()
    for place in places:
        yield from allowed.notices([place])
        if place not in allowed:
            yield f"{place.file}: {place.pointer}: run sends nothing there without --allow-host {place.host}"


def _schema(name: str, options: Options) -> Notes:  # noqa: ARG001  every kind is called alike
    from streamguard.files.schema_file import read_schema
    from streamguard.jobs.opening import check_schema, with_schema
    from streamguard.policy.model import Policy

    schema = read_schema(Path(name))
    if isinstance(schema, Problem):
        raise JobError(schema)
    check_schema(with_schema(Policy(), schema))
    return [f"{name}: fine", *_late(schema)]


def _late(schema: Mapping[str, Any]) -> Iterator[str]:
    """The keywords of a schema that cannot end an answer early."""
    from streamguard.viability import compile_schema

    compiled = compile_schema(dict(schema))
    yield from (f"  warning: {hint.pointer}: {hint.problem}" for hint in compiled.hints)
    for late in compiled.late_keywords:
        yield f"  judged only when its value ends: {late.pointer} ({late.why})"


def _template(name: str, options: Options) -> Notes:  # noqa: ARG001
    from streamguard.jobs.input.template import read_template

    read_template(Path(name))
    return [f"{name}: fine"]


def _rows(name: str, options: Options) -> Notes:
    with _input(name, options) as rows:
        count = len(rows.plan)
        models = ", ".join(f"{model} {count:,}" for model, count in rows.models.items())
    return [f"{name}: fine, {count:,} rows" + (f" ({models})" if models else "")]


def _forecast(policy: Policy, name: str, options: Options) -> Notes:
    """What the policy's budgets would do with the rows of a job."""
    from streamguard.jobs.report.forecast import budget_lines

    if not policy.budgets:
        return [f"  {name}: the policy has no budgets"]
    with _input(name, options) as rows:
        return [*_aligned([*budget_lines(policy, rows, options.usual_output)])]


@contextmanager
def _input(name: str, options: Options) -> Iterator[Input]:
    """The rows of a job's input, checked.

    :raises JobError: every mistake in them.
    """
    from streamguard.jobs.input.formats import open_input
    from streamguard.jobs.input.input import Input
    from streamguard.jobs.input.template import read_template
    from streamguard.jobs.problems import Problems

    template = None if options.template is None else read_template(Path(options.template))
    overrides = {"model": options.model, "max_tokens": options.max_tokens}
    problems = Problems()
    given = {key: value for key, value in overrides.items() if value is not None}
    with open_input(name) as file, closing(Input(file, name, template=template, overrides=given)) as rows:
        rows.scan(problems)
        problems.raise_any()
        yield rows


_KINDS: dict[str, Callable[[str, Options], Notes]] = {
    ".yaml": _yaml,
    ".yml": _yaml,
    ".json": _schema,
    ".jsonl": _rows,
    ".j2": _template,
    ".jinja": _template,
    ".jinja2": _template,
}


def _explained(policy: Any) -> Iterator[str]:
    """The policy as tables."""
    from streamguard.policy.explain import explain

    told = explain(policy)
    yield f"  mode: {told.mode}, deliver: {told.deliver}, attempts: {told.attempts}"
    sections = (
        *(("clocks", told.clocks), ("caps", told.caps), ("json", told.json)),
        *((f"check {index + 1}", rows) for index, rows in enumerate(told.checks)),
        ("completion", told.completion),
        *(("content", told.content), ("repetition", told.repetition)),
        *((f"budget {index + 1}", rows) for index, rows in enumerate(told.budgets)),
    )
    for title, rows in sections:
        if rows:
            yield f"  {title}"
            yield from _aligned([(row.knob, row.value, "" if row.source == "set" else "(default)") for row in rows])
    if told.guards:
        yield f"  own guards: {', '.join(told.guards)}"
    yield "  reasons"
    yield from _aligned(
        [
            (one.reason, one.decision, one.detail + (f" [rule {one.rule}]" if one.rule is not None else ""))
            for one in told.reasons
        ]
    )


def _aligned(rows: list[tuple[str, ...]]) -> Iterator[str]:
    """Columns. What does not fit the terminal goes on below, in the last column."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    hang = 4 + sum(widths[:-1]) + 2 * len(widths[:-1])
    wide = columns(sys.stdout)
    for row in rows:
        line = "    " + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        yield from fitted(printable(line.rstrip()), hang, wide).split("\n")
