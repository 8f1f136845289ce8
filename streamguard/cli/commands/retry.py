"""`streamguard retry`: some rows of a job again, as its last run asked them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import msgspec

from streamguard.cli.commands.run import KEPT_OPTIONS, RUNS_CODE, Options, execute
from streamguard.errors import JobError, Problem
from streamguard.jobs.amount import Amount
from streamguard.jobs.jobfile import SHIPPED, STDIN, JobBudget
from streamguard.jobs.opening import JobSpec
from streamguard.jobs.store.journal import read_journal
from streamguard.jobs.store.journal_records import believed
from streamguard.jobs.store.resume import Rules, Selection


class Flags(msgspec.Struct, frozen=True, kw_only=True):
    """The command line. `None` is as in the last run."""

    out: str
    reasons: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    base_url: str | None = None
    allow_hosts: tuple[str, ...] = ()
    allow_imports: bool = False
    concurrency: int | Literal["auto"] | None = None
    fail_on: str | None = None
    drain: float | None = None
    dry_run: bool = False
    trace: str | None = None
    as_json: bool = False
    quiet: bool = False


def main(flags: Flags) -> int:
    """Ask them.

    :raises JobError: there is no job, or its input is gone.
    """
    spec, kept = last_order(flags.out)
    rules = Rules(max_row_failures=spec.rules.max_row_failures, only=Selection(reasons=flags.reasons, ids=flags.ids))
    said = {name: getattr(flags, name) for name in KEPT_OPTIONS if getattr(flags, name, None) is not None}
    if spec.allow_imports and not flags.allow_imports:
        raise JobError(Problem(file=flags.out, problem=RUNS_CODE))
    options = Options(
        **{**kept, **said},
        # Whatever its journal says, where the key goes is the operator's word.
        base_url_in=None if flags.base_url is not None else flags.out,
        allow_hosts=flags.allow_hosts,
        as_json=flags.as_json,
        quiet=flags.quiet,
        trace=flags.trace,
        dry_run=flags.dry_run,
    )
    return execute(
        msgspec.structs.replace(
            spec, rules=rules, limit=None, sample=None, fresh=False, allow_imports=flags.allow_imports
        ),
        options,
    )


def last_order(out: str) -> tuple[JobSpec, dict[str, Any]]:
    """What the last run of a job was told, its paths as they are from here.

    :raises JobError: nobody knows.
    """
    journal = read_journal(out)
    if journal is None:
        raise JobError(Problem(file=out, problem="no journal of a job stands beside it"))
    with journal:
        said, folder, options = journal.about("spec"), journal.about("folder"), journal.about("options")
    if said is None:
        raise JobError(Problem(file=out, problem="its job was never started"))
    with believed(str(journal.path)):
        budgets = tuple(JobBudget.model_validate(one, strict=False) for one in said.pop("budgets"))
        sample = said.pop("sample")
        spec = msgspec.convert(said, JobSpec)
        amount = None if sample is None else msgspec.convert(sample, Amount)
        options = {name: value for name, value in (options or {}).items() if name in KEPT_OPTIONS}
        msgspec.convert(options, Options)
    if spec.input == STDIN:
        what = "the input was standard input, which is gone: run the job again with it, and --retry-failed"
        raise JobError(Problem(file=out, problem=what))
    here = {name: _from_here(getattr(spec, name), folder) for name in ("input", "policy", "schema", "template")}
    return msgspec.structs.replace(spec, **here, out=out, budgets=budgets, sample=amount), options


def _from_here(name: str | None, folder: str | None) -> str | None:
    if name is None or name.startswith(SHIPPED) or folder is None or folder == str(Path.cwd()):
        return name
    return os.path.relpath(Path(folder) / name)
