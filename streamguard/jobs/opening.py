"""Open a job: check policy, schema, template, input and output, and find every mistake in all of them at once.

In charge of what a job is ordered with (`JobSpec`) and of its open files (`Parts`). It does not decide about rows and
does not send.
"""

from __future__ import annotations

import re
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from streamguard.budgets.spec import BudgetSpec
from streamguard.budgets.stores import check_installed
from streamguard.errors import ConfigError, JobError, PolicyError, Problem
from streamguard.files.python_names import import_name, is_python_name
from streamguard.files.schema_file import read_schema
from streamguard.guards.base import AttemptContext
from streamguard.guards.document.guard import JsonDocument
from streamguard.guards.grounding.source import SourceTexts
from streamguard.jobs.amount import Amount
from streamguard.jobs.input.formats import open_input, same_file, shown_name
from streamguard.jobs.input.input import Check, Input
from streamguard.jobs.input.templates import open_template
from streamguard.jobs.problems import Problems
from streamguard.jobs.store.fingerprint import Fingerprint, fingerprint, salt
from streamguard.jobs.store.journal import Journal, copied_journal, journal_path, open_journal
from streamguard.jobs.store.output import Output, open_output, writable
from streamguard.jobs.store.resume import Rules
from streamguard.models.model import OutputType
from streamguard.policy.file import PolicyFile, output_type, read_policy
from streamguard.policy.model import Policy
from streamguard.pricing.book import PriceBook, unknown_price
from streamguard.request import Request

if TYPE_CHECKING:
    from streamguard.jobs.input.template import Template

TOTAL = "a job needs a limit on the time of each call, waiting and retries included: set timeouts.total, in seconds"
LEDGER = ".ledger"
"""Where a job's budgets are kept that name no ledger: beside the output, so that what was spent carries over."""
OLD = ".old"


class JobSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A job as it was ordered."""

    input: str
    """A file of rows, or `-`."""
    out: str
    policy: str
    """A file, or `streamguard:NAME`."""
    schema: str | None = None
    """A file; instead of the policy's own schema."""
    template: str | None = None
    model: str | None = None
    """For every row, whatever it or the template says; so is `max_tokens`."""
    max_tokens: int | None = None
    name: str | None = None
    """By which budgets `per: job` know it. By default one of its own, which it keeps until it is begun anew."""
    budgets: tuple[BudgetSpec, ...] = ()
    """Beside the policy's."""
    rules: Rules = Rules()
    limit: int | None = None
    """Rows to ask in this run, at the most."""
    sample: Amount | None = None
    fresh: bool = False
    """Whether everything is asked anew; what there is is put aside."""
    allow_imports: bool = False
    """Whether the policy may import Python code (guards of one's own)."""


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """What an open job is made of."""

    policy: Policy
    """With the job's budgets."""
    input: Input
    question: Fingerprint
    """What all rows ask alike."""
    output: Output
    journal: Journal
    name: str
    notices: list[str]
    """What is worth knowing before the job starts, in sentences."""


def open_parts(spec: JobSpec, stack: ExitStack, *, dry: bool) -> Parts:
    """Check everything that is ordered, then open the output and the journal.

    :param stack: closes what was opened.
    :param dry: create, change and lock nothing.
    :raises JobError: every mistake in policy, schema, template, input and output at once.
    """
    notices: list[str] = []
    problems = Problems()
    policy = _policy(spec, problems, notices)
    template = _template(spec, problems)
    rows = _input(spec, policy, problems, template, stack)
    if (problem := writable(spec.out)) is not None:
        problems.add(problem)
    elif same_file(spec.input, spec.out):
        problems.add(Problem(file=spec.out, problem="is the input; results go to a file of their own"))
    if policy is not None and rows is not None:
        whole = _with_budgets(policy, spec)
        problems.extend(_unpriced(whole, rows))
        problems.extend(_uninstalled(whole))
    problems.raise_any()
    assert policy is not None and rows is not None  # noqa: PT018  else there were problems
    output, journal = _kept(spec, stack, notices, dry=dry)
    return Parts(
        policy=_with_budgets(policy, spec),
        input=rows,
        question=fingerprint(policy, None if template is None else template.text, _overrides(spec)),
        output=output,
        journal=journal,
        name=spec.name or journal.about("name") or f"{Path(spec.out).stem}-{secrets.token_hex(4)}",
        notices=notices,
    )


def _uninstalled(policy: Policy) -> Iterator[Problem]:
    """What a ledger of the policy needs and this machine has not, once each."""
    for address in dict.fromkeys(budget.ledger for budget in policy.budgets):
        try:
            check_installed(address)
        except ConfigError as mistake:
            yield from mistake.problems
            return


def job_policy(spec: JobSpec) -> tuple[Policy, Fingerprint]:
    """Read the policy of a job as it was ordered, with its budgets, and what all rows ask alike. Opens no output.

    :raises JobError: what is wrong with policy, schema or template.
    """
    problems = Problems()
    policy, template = _policy(spec, problems, []), _template(spec, problems)
    problems.raise_any()
    assert policy is not None
    question = fingerprint(policy, None if template is None else template.text, _overrides(spec))
    return _with_budgets(policy, spec), question


def _policy(spec: JobSpec, problems: Problems, notices: list[str]) -> Policy | None:
    try:
        file = read_policy(spec.policy, allow_imports=spec.allow_imports)
    except PolicyError as mistake:
        problems.extend(mistake.problems)
        return None
    notices += [f"warning: {warning}" for warning in file.warnings]
    notices += [said for budget in file.policy.budgets for said in budget.assumptions]
    policy = file.policy
    if policy.timeouts.total is None:
        problems.add(_no_total(spec, file))
    if spec.schema is not None:
        schema = read_schema_or_type(spec.schema, allow_imports=spec.allow_imports)
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


def _kept(spec: JobSpec, stack: ExitStack, notices: list[str], *, dry: bool) -> tuple[Output, Journal]:
    """The output with its lock, and the journal, in which is whatever the output alone had."""
    if dry:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        journal = stack.enter_context(copied_journal(spec.out, folder))
        output = Output(Path(spec.out), spec.out, -1)
        if spec.fresh:
            return output, stack.enter_context(open_journal(str(Path(folder) / "fresh")))
    else:
        output = stack.enter_context(open_output(spec.out))
        if spec.fresh and journal_path(spec.out).exists():
            output = _put_aside(output, spec.out, stack, notices)
        journal = _opened(spec.out, stack)
    if (lost := journal.take_over_crash()) and not dry:
        notices.append(
            f"{spec.out}: the last run was killed with {lost:,} rows under way; they are asked again, and what "
            "they had cost is unknown"
        )
    adopted = 0
    for head, line in output.strangers(journal if journal.count() else None):
        journal.finish(
            head.custom_id,
            line,
            type=head.result.type,
            reason=head.reason,
            fingerprint=head.streamguard.fingerprint,
        )
        adopted += 1
    if adopted:
        notices.append(f"{spec.out}: {adopted:,} results that its journal did not have are kept")
    return output, journal


def _put_aside(output: Output, out: str, stack: ExitStack, notices: list[str]) -> Output:
    """Begin anew, under a lock. What was paid for is not thrown away."""
    with open_journal(out) as journal:  # takes in its log
        worth_it = any(kind == "succeeded" for kind, _ in journal.counts())
    if worth_it:
        journal_path(out).replace(journal_path(out + OLD))
        Path(out).replace(out + OLD)
        notices.append(f"{out}: begun anew; the results so far are in {out + OLD}")
        output.close()
        return stack.enter_context(open_output(out))
    journal_path(out).unlink()
    output.mirror(())
    return output


def _opened(out: str, stack: ExitStack) -> Journal:
    """The journal. One that was begun for a job that is then refused leaves nothing behind."""
    path = journal_path(out)
    existed = path.exists()
    journal = open_journal(out)

    def leave(kind: type[BaseException] | None, *_: object) -> None:
        journal.close()
        if kind is not None and issubclass(kind, ConfigError) and not existed:
            path.unlink(missing_ok=True)

    stack.push(leave)
    return journal


def _with_budgets(policy: Policy, spec: JobSpec) -> Policy:
    """The policy with the job's budgets, and every balance that outlives a call in a file."""
    ledger = f"sqlite:{spec.out}{LEDGER}"
    budgets = tuple(
        budget.model_copy(update={"ledger": ledger}) if budget.ledger == "memory:" and budget.per != "call" else budget
        for budget in (*policy.budgets, *spec.budgets)
    )
    return policy.model_copy(update={"budgets": budgets})


def _unpriced(policy: Policy, rows: Input) -> Iterator[Problem]:
    """A budget of money means nothing for a model without a price: every such model of the input."""
    named = next((budget.name for budget in policy.budgets if budget.cost_usd is not None), None)
    if named is None:
        return
    book = PriceBook(policy.prices)
    for model, count in rows.models.items():
        if book.price(model) is None:
            what = f"{unknown_price(model, f'budget {named!r}')} ({count:,} rows ask it)"
            yield Problem(file=rows.name, problem=what)


def _overrides(spec: JobSpec) -> dict[str, Any]:
    overrides = {"model": spec.model, "max_tokens": spec.max_tokens}
    return {name: value for name, value in overrides.items() if value is not None}


def _no_total(spec: JobSpec, file: PolicyFile) -> Problem:
    span = file.positions.get(("timeouts", "total")) or file.positions.get(("timeouts",))
    if span is None:
        return Problem(file=spec.policy, pointer="/timeouts/total", problem=TOTAL)
    at = span.key
    return Problem(file=at.file, line=at.line, column=at.column, pointer="/timeouts/total", problem=TOTAL)


def read_schema_or_type(name: str, *, allow_imports: bool) -> Mapping[str, Any] | OutputType | Problem:
    """Read a JSON Schema from a file, or import the type that `module:Name` names.

    :param allow_imports: whether to import; that runs the module's code.
    :returns: the schema, the type, or what is wrong.
    """
    if not is_python_name(name):
        read = read_schema(Path(name))
        if isinstance(read, Problem) and _LIKE_A_TYPE.fullmatch(name) is not None and not Path(name).exists():
            return msgspec.structs.replace(read, problem=f"{read.problem}; a type is named package.module:Name")
        return read
    if not allow_imports:
        what = "is Python code, and nothing may be imported here (allow_imports, --allow-imports)"
        return Problem(file=name, problem=what)
    found = output_type(name, import_name(name))
    return Problem(file=name, problem=found.removeprefix(f"{name} ")) if isinstance(found, str) else found


_LIKE_A_TYPE = re.compile(r"\w+(\.\w+)*(:\w*|\.[A-Z]\w*)")
"""What was meant as `module:Name`, such as `billing.models.Invoice`."""


def with_schema(policy: Policy, schema: Mapping[str, Any] | OutputType) -> Policy:
    """The policy with this schema in its `json` section; one with the defaults if it has none."""
    section = policy.json_document or JsonDocument()
    return policy.replace(json=section.replace(schema=schema, schema_file=None))


def check_schema(policy: Policy) -> None:
    """:raises SchemaError: the policy's own schema cannot be used, or nothing at all satisfies it."""
    section = policy.json_document
    if section is not None and section.own_schema() is not None:
        section.plan(section.own_schema())


def _template(spec: JobSpec, problems: Problems) -> Template | None:
    if spec.template is None:
        return None
    try:
        return open_template(Path(spec.template))
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
    rows = Input(
        file,
        shown_name(spec.input),
        template=template,
        overrides=_overrides(spec),
        salt=salt(policy),
        check=_request_check(policy),
        keep_rows=policy is not None and policy.grounds,
    )
    stack.callback(rows.close)
    # A template that cannot be read says nothing about rows, which would all be mistakes.
    if spec.template is None or template is not None:
        rows.scan(problems)
    return rows


def _request_check(policy: Policy | None) -> Check | None:
    """Where each row has its own schema or source, whether there is a good one."""
    section = None if policy is None else policy.json_document
    if section is None or (section.schema_ != "request" and not section.grounded):
        return None

    def check(params: Mapping[str, Any], row: Mapping[str, Any]) -> None:
        request = Request(params)
        context = AttemptContext(request=request, sources=SourceTexts(row, request))
        for observed in (False, True):
            section.watching(context, observed=observed)

    return check
