"""Job files: YAML → what is to be run, with every mistake at once, each as `file:line:column: /pointer: what`.

In charge of the format and of paths, which are relative to the file. It does not look at what the paths name, and it
knows nothing of a command line; what is said there wins over the file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from pydantic import Discriminator, Field, Tag, ValidationError, field_validator

from streamguard.budgets.spec import BudgetSpec
from streamguard.errors import JobError, Problem
from streamguard.files.json_pointer import pointer
from streamguard.files.mistakes import Mistake, mistakes
from streamguard.files.python_names import is_python_name
from streamguard.files.yaml import MAX_BYTES, Loaded, load
from streamguard.guards.base import Settings
from streamguard.jobs.amount import Amount, parse_amount
from streamguard.jobs.store.resume import MAX_ROW_FAILURES
from streamguard.policy.json_schema import DIALECT, model_schema
from streamguard.pricing.price import Usd

SHIPPED = "streamguard:"
STDIN = "-"

FilePath = Annotated[str, Field(min_length=1, max_length=4096)]


class JobBudget(BudgetSpec):
    """What the job may spend, beside the policy's own budgets."""

    name: Annotated[str, Field(min_length=1, max_length=100)] = "job"


def _amount_or_budget(value: Any) -> str:
    return "budget" if isinstance(value, Mapping | BudgetSpec) else "amount"


Budget = Annotated[
    Annotated[Usd, Tag("amount")] | Annotated[JobBudget, Tag("budget")], Discriminator(_amount_or_budget)
]


class JobFile(Settings):
    """A job: which rows, how they become requests, under which policy, and where the results go.

    Paths are relative to this file. What the command line says wins.
    """

    version: Literal[1] = 1
    name: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """By which budgets `per: job` know it, over all its runs. By default one of its own, until it is begun anew."""
    input: FilePath
    """A file of rows: JSON Lines or CSV, plain or gzip; `-` is standard input."""
    output: FilePath
    """One result per row; its journal stands beside it."""
    template: FilePath | None = None
    """A Jinja2 text that makes the user's message of a row. Batch lines need none."""
    schema_: Annotated[FilePath | None, Field(alias="schema")] = None
    """The path of a JSON Schema, or a type as module:Name if imports are allowed; instead of the policy's own."""
    policy: FilePath
    """The path of a policy, or `streamguard:NAME` for a shipped one."""
    allow_imports: bool = False
    """Whether policy and schema need Python code (guards of your own, a type); `--allow-imports` must say so, too."""
    model: Annotated[str, Field(min_length=1)] | None = None
    """For every row, whatever it or the template says; so is `max_tokens`."""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    budget: Budget | None = None
    """What the job may spend over all its runs: an amount of USD in quotes, or a budget as a policy has it."""
    concurrency: Annotated[int, Field(ge=1, le=1000)] | Literal["auto"] | None = None
    """Rows at a time at most. By default `auto`: as many as the provider's limits allow (the policy's `pace`)."""
    workers: Annotated[int, Field(ge=1, le=64)] | Literal["auto"] | None = None
    """Processes that make the calls, or `auto` for the cores less one; by default the one that runs the job."""
    lane: Literal["stream", "batch", "batch,stream"] | None = None
    """`batch`: rows go to Message Batches first, at half the price; what those leave goes to streams, the default."""
    deadline: Annotated[float, Field(gt=0, le=2_592_000, allow_inf_nan=False)] | str | None = None
    """When batches are canceled and the rest is streamed: seconds, or a duration such as 6h. By default never."""
    base_url: Annotated[str, Field(pattern=r"^https?://[^\s/@?]+[^\s@?]*$")] | None = None
    """Of the API; without it the environment's ANTHROPIC_BASE_URL, or the provider's. Its host must be allowed by the
    command line (`--allow-host`), since it gets the key."""
    max_event_bytes: Annotated[int, Field(ge=1024, le=1024**3)] | None = None
    """The most bytes of one event of an answer; 16 MiB by default. A larger one ends the attempt."""
    retry_failed: bool = True
    """Whether rows that failed in an earlier run are asked again."""
    max_row_failures: Annotated[int, Field(ge=1, le=1000)] = MAX_ROW_FAILURES
    """Runs in which a row may fail for a reason of its own before it is not asked any more."""
    fail_on: Annotated[int, Field(ge=1)] | str | None = None
    """From how many failed rows on the exit code is 3: a number, or a share such as "1%". By default from the first."""
    stop_on: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    """Rows in a row that fail by the provider's or the line's fault, until the job stops; 20 by default, 0: never."""
    drain: Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)] | None = None
    """Seconds that what runs may still take after a signal; 10 by default."""
    partials: Literal["keep", "discard"] = "discard"
    """Whether the output has the text of rejected attempts, too."""

    @field_validator("input", "output", "template", "schema_", "policy")
    @classmethod
    def _is_a_path(cls, value: str | None) -> str | None:
        if value is not None and not value.isprintable():
            raise ValueError("no file can have such a name")
        return value

    @field_validator("fail_on")
    @classmethod
    def _is_a_share(cls, value: int | str | None) -> int | str | None:
        if isinstance(value, str):
            try:
                share = parse_amount(value)
            except ValueError:
                share = Amount()
            if share.percent is None:
                raise ValueError(f'must be a number of rows from 1, or a share of them such as "1%", not {value!r}')
        return value

    @field_validator("budget")
    @classmethod
    def _is_shared(cls, budget: Decimal | JobBudget | None) -> Decimal | JobBudget | None:
        if isinstance(budget, JobBudget) and budget.per == "call":
            raise ValueError("per: call is for a policy; what a job may spend is shared by its rows")
        return budget

    @property
    def budgets(self) -> tuple[BudgetSpec, ...]:
        """The job's own budget, if it has one."""
        if self.budget is None:
            return ()
        return (self.budget if isinstance(self.budget, JobBudget) else JobBudget(cost_usd=self.budget),)


class ReadJob(msgspec.Struct, frozen=True):
    """A job file, its paths as they are from here."""

    file: str
    job: JobFile


def read_job(name: str | os.PathLike[str]) -> ReadJob:
    """Read a job file.

    :raises JobError: every mistake at once, in order of position.
    """
    file, path = os.fspath(name), Path(name)
    try:
        if not path.is_file():
            raise JobError(Problem(file=file, problem="not a file" if path.exists() else "no such file"))
        with path.open("rb") as opened:
            text = opened.read(MAX_BYTES + 1)
    except OSError as mistake:
        raise JobError(Problem(file=file, problem=f"cannot be read: {mistake.strerror or mistake}")) from mistake
    except ValueError as mistake:
        raise JobError(Problem(file=file, problem="no file can have such a name")) from mistake
    return ReadJob(file, parse_job(text, file, path.parent))


def parse_job(text: str | bytes, file: str = "<string>", folder: Path | None = None) -> JobFile:
    """The same from a text.

    :param folder: what relative paths are relative to; the current folder, if `None`.
    :raises JobError: every mistake at once.
    """
    loaded = load(text, file, error=JobError)
    try:
        job = JobFile.model_validate(loaded.data)
    except ValidationError as error:
        found = [_placed(one, loaded) for one in mistakes(error.errors(include_url=False), loaded.data, _schema())]
        raise JobError(sorted(found, key=lambda one: (one.line or 0, one.column or 0))) from error
    if folder is None:
        return job
    paths = {name: _beside(folder, getattr(job, name)) for name in ("input", "output", "template", "schema_", "policy")}
    return job.model_copy(update=paths)


def is_job(path: Path) -> bool:
    """Whether a YAML file looks like a job, not like a policy: it says where rows come from or results go."""
    try:
        data: Mapping[str, Any] = load(path.read_bytes()[: MAX_BYTES + 1], str(path), error=JobError).data
    except (JobError, OSError):
        return False
    return "input" in data or "output" in data


def _beside(folder: Path, name: str | None) -> str | None:
    if name is None or name == STDIN or name.startswith(SHIPPED) or is_python_name(name):
        return name
    return os.path.normpath(folder / name)


def _placed(mistake: Mistake, loaded: Loaded) -> Problem:
    path = mistake.path
    while path not in loaded.positions and path:
        path = path[:-1]
    span = loaded.positions.get(path)
    at = None if span is None else (span.key if mistake.at_key else span.value)
    return Problem(
        file=at.file if at else None,
        line=at.line if at else None,
        column=at.column if at else None,
        pointer=pointer(mistake.path) or None,
        problem=mistake.problem,
    )


@cache
def _schema() -> dict[str, Any]:
    return job_schema(describe=False)


def job_schema(*, describe: bool = True) -> dict[str, Any]:
    """The JSON Schema (2020-12) of job files, for editors.

    :param describe: whether to put the docstrings in, for which the package's source is read.
    """
    schema = model_schema(JobFile, describe=describe)
    return {"$schema": DIALECT, **schema, "title": "streamguard job"}


def schema_text() -> str:
    """The same as the text of `job.schema.json`."""
    return json.dumps(job_schema(), indent=1, ensure_ascii=False) + "\n"
