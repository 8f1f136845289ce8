"""A job: everything that is checked before the first request is sent, and what is left to do.

In charge of putting the parts together, of finding every mistake in all of them at once, and of going on from what the
journal knows. It does not send.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec

from streamguard.budgets.spec import BudgetSpec
from streamguard.errors import ConfigError, JobError, PolicyError, Problem
from streamguard.files.frozen_json import FrozenJson
from streamguard.files.schema_file import read_schema
from streamguard.guards.base import AttemptContext
from streamguard.guards.document.guard import JsonDocument
from streamguard.jobs.amount import Amount
from streamguard.jobs.input.formats import open_input, same_file, shown_name
from streamguard.jobs.input.input import Check, Input, RowRequest
from streamguard.jobs.input.plan import Entry, Plan
from streamguard.jobs.input.template import Template, read_template
from streamguard.jobs.problems import Problems
from streamguard.jobs.store.fingerprint import Fingerprint, differences, fingerprint
from streamguard.jobs.store.journal import Journal, copied_journal, journal_path, open_journal
from streamguard.jobs.store.journal_records import Known
from streamguard.jobs.store.output import Output, open_output, writable
from streamguard.jobs.store.results import poison_line
from streamguard.jobs.store.resume import POISON, Fate, Rules, fate
from streamguard.policy.file import PolicyFile, read_policy
from streamguard.policy.model import Policy
from streamguard.pricing.book import PriceBook, unknown_price
from streamguard.request import Request

TOTAL = "a job needs a limit on the time of each call, waiting and retries included: set timeouts.total, in seconds"
LEDGER = ".ledger"
"""Where a job's budgets are kept that name no ledger: beside the output, so that what was spent carries over."""
DEAD = ".dead"
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


class Job:
    """A job that can be started: checked, its output locked, its journal open. Close it.

    :param dry: only look: nothing is created, changed or locked, and it cannot be started.
    :raises JobError: every mistake in policy, schema, template, input and output at once; or what was kept from before
        answers another question.
    """

    def __init__(self, spec: JobSpec, *, dry: bool = False) -> None:
        self.spec = spec
        self.notices: list[str] = []
        """What is worth knowing before it starts, in sentences."""
        self.fates: Counter[Fate] = Counter()
        """What becomes of the rows."""
        self.failed_before: Counter[str] = Counter()
        """Rows that failed before and are not asked now, by reason."""
        self.left_out = 0
        """Rows that are not asked in this run because of `limit` or `sample`."""
        self._dry = dry
        problems = Problems()
        policy = self._policy(problems)
        template = _template(spec, problems)
        with ExitStack() as stack:
            rows = _input(spec, policy, problems, template, stack)
            if (problem := writable(spec.out)) is not None:
                problems.add(problem)
            elif same_file(spec.input, spec.out):
                problems.add(Problem(file=spec.out, problem="is the input; results go to a file of their own"))
            if policy is not None and rows is not None:
                problems.extend(_unpriced(_with_budgets(policy, spec), rows))
            problems.raise_any()
            assert policy is not None and rows is not None  # noqa: PT018  else there were problems
            self.input: Input = rows
            self.plan: Plan = rows.plan
            self.question = fingerprint(policy, None if template is None else template.text, _overrides(spec))
            self.output, self.journal = self._open(stack)
            self.name = spec.name or self.journal.about("name") or f"{Path(spec.out).stem}-{secrets.token_hex(4)}"
            self.policy: Policy = _with_budgets(policy, spec)
            self._resume()
            self._files = stack.pop_all()

    def close(self) -> None:
        """Close the files, and free the output's lock."""
        self._files.close()

    @property
    def rows(self) -> int:
        """Rows of the input."""
        return len(self.plan)

    @property
    def todo(self) -> int:
        """Rows to ask in this run."""
        return self._todo

    @property
    def kept(self) -> int:
        """Rows that had succeeded before and stay."""
        return self.fates["kept"]

    def requests(self) -> Iterator[RowRequest]:
        """The requests of the rows to ask, in order. Those of turn `ALONE_FROM` on are to be asked alone."""
        return self.input.requests()

    def start(self) -> None:
        """A run begins: note what it is about."""
        said = {**msgspec.to_builtins(msgspec.structs.replace(self.spec, budgets=()), str_keys=True)}
        self.journal.say(
            name=self.name,
            question=msgspec.to_builtins(self.question),
            spec={**said, "budgets": [budget.model_dump(mode="json") for budget in self.spec.budgets]},
            folder=str(Path.cwd()),
        )
        self.journal.start(self.rows, self.todo)

    def restore(self) -> None:
        """Put back into the output what stood there of rows that the run did not come to.

        :raises OutputError: the disk is full, or the like. The journal has everything.
        """
        for key, line in self.journal.lines(before=self.journal.run):
            if self.plan.is_chosen(key):
                self.output.append(line)

    def finish(self) -> None:
        """The run is over: the output says what the journal says, and the dead rows stand beside it.

        :raises OutputError: as `restore`.
        """
        self.restore()
        self.output.sync()
        self._bury()

    # Checks

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

    # Going on

    def _open(self, stack: ExitStack) -> tuple[Output, Journal]:
        """The output with its lock, and the journal, in which is whatever the output alone had."""
        spec = self.spec
        if self._dry:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            journal = stack.enter_context(copied_journal(spec.out, folder))
            output = Output(Path(spec.out), spec.out, -1)
            if spec.fresh:
                return output, stack.enter_context(open_journal(str(Path(folder) / "fresh")))
        else:
            output = stack.enter_context(open_output(spec.out))
            if spec.fresh and journal_path(spec.out).exists():
                output = self._put_aside(output, stack)
            journal = _opened(spec.out, stack)
        if (lost := journal.take_over_crash()) and not self._dry:
            self.notices.append(
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
            self.notices.append(f"{spec.out}: {adopted:,} results that its journal did not have are kept")
        return output, journal

    def _put_aside(self, output: Output, stack: ExitStack) -> Output:
        """Begin anew, under a lock. What was paid for is not thrown away."""
        out = self.spec.out
        with open_journal(out) as journal:  # takes in its log
            worth_it = any(kind == "succeeded" for kind, _ in journal.counts())
        if worth_it:
            journal_path(out).replace(journal_path(out + OLD))
            Path(out).replace(out + OLD)
            self.notices.append(f"{out}: begun anew; the results so far are in {out + OLD}")
            output.close()
            return stack.enter_context(open_output(out))
        journal_path(out).unlink()
        output.mirror(())
        return output

    def _resume(self) -> None:
        """Decide about every row, and make the output say what stays."""
        self._refuse_other_questions()
        rules, crashes = self.spec.rules, self.journal.crashes()
        problems = Problems()
        poisoned: list[Entry] = []
        matched = 0
        for page in self.plan.pages():
            known = self.journal.known(entry.custom_id for entry in page)
            matched += len(known)
            turns: list[tuple[int, int | None]] = []
            for entry in page:
                about = known.get(entry.custom_id)
                deaths = crashes.get(entry.custom_id, 0)
                what, turn = fate(entry.custom_id, about, deaths, rules)
                self.fates[what] += 1
                if what == "dead" and deaths >= rules.max_row_failures and (about is None or about.reason != POISON):
                    poisoned.append(entry)
                    about = msgspec.structs.replace(about or _NOTHING, reason=POISON)
                if what == "kept" and about is not None:
                    self._same_question(entry, about, problems)
                if what in ("failed", "dead"):
                    self.failed_before[(about and about.reason) or "unknown"] += 1
                turns.append((entry.line, turn))
            self.plan.choose(turns)
        problems.raise_any()
        strangers = self.journal.count() - matched
        if strangers:
            self.notices.append(f"{self.spec.out}: {strangers:,} results of rows that are not in the input; they stay")
        if self.spec.sample is not None:
            self.left_out += self.plan.keep_sample(self.spec.sample.of(self.rows), _rank)
        if self.spec.limit is not None:
            self.left_out += self.plan.keep_first(self.spec.limit)
        self._todo = self.plan.chosen
        if self._dry:
            return
        for entry in poisoned:
            self._record_poison(entry)
        if rules.only is not None:
            self.journal.forgive(entry.custom_id for entry, _ in self.plan.todo())
        self.output.mirror(line for key, line in self.journal.lines() if not self.plan.is_chosen(key))
        if self.output.torn:
            self.notices.append(f"{self.spec.out}: a torn last line of {self.output.torn:,} bytes was cut")

    def _refuse_other_questions(self) -> None:
        """:raises JobError: what is kept answers another question than is asked now, as far as all rows share it."""
        said = self.journal.about("question")
        kept = sum(count for (kind, _), count in self.journal.counts().items() if kind == "succeeded")
        if said is None or not kept:
            return
        before = msgspec.convert(said, Fingerprint)
        changed = list(differences(before, self.question))
        if changed:
            out = self.spec.out
            raise JobError(
                [
                    *(Problem(file=out, problem=f"{one}") for one in changed),
                    Problem(
                        file=out,
                        problem=f"so its {kept:,} results answer another question than this job asks; name another "
                        "--out, or ask for all rows again with --fresh (clocks, caps, retries and budgets may change)",
                    ),
                ]
            )

    def _same_question(self, entry: Entry, known: Known, problems: Problems) -> None:
        """The same for one row."""
        if known.fingerprint is None or known.fingerprint == entry.fingerprint:
            return
        said = json.dumps(entry.custom_id, ensure_ascii=False)
        what = (
            f"the result of {said} answers another request or schema than {self.input.name}:{entry.line} and the "
            "policy now ask for; name another --out, or ask for all rows again with --fresh"
        )
        problems.add(Problem(file=self.spec.out, problem=what))

    def _record_poison(self, entry: Entry) -> None:
        line = poison_line(entry.custom_id, self.spec.rules.max_row_failures, entry.fingerprint)
        self.journal.finish(entry.custom_id, line, type="errored", reason=POISON, fingerprint=entry.fingerprint)

    def _bury(self) -> None:
        """Write the rows that are not asked any more beside the output, as they came in: to be mended and run again."""
        path = Path(self.spec.out + DEAD)
        keys = self.journal.dead(self.spec.rules.max_row_failures)
        entries = [entry for key in keys if (entry := self.plan.entry(key)) is not None]
        if not entries:
            path.unlink(missing_ok=True)
            return
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            for entry in entries:
                file.write(json.dumps(self.input.row(entry).data) + "\n")
        Path(file.name).replace(path)


_NOTHING = Known(type="errored", reason=None, fingerprint=None, failures=0)


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


def _rank(key: str) -> int:
    """A number by chance, and always the same for a key."""
    return int.from_bytes(hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()[:7], "big")


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
    rows = Input(
        file,
        shown_name(spec.input),
        template=template,
        overrides=_overrides(spec),
        salt=_salt(policy),
        check=_request_check(policy),
    )
    stack.callback(rows.close)
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
