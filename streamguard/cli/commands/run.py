"""`streamguard run`: an extraction job, from its checks to its exit code."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any, Final, Literal

import anyio
import msgspec
from pydantic import ValidationError

from streamguard.adapters.anthropic.environment import checked_url, has_uvloop, make_client
from streamguard.budgets.reservation import Accounts
from streamguard.cli.commands.askers import (
    STREAM,
    batch_lane,
    begun,
    ended_with,
    lane_of,
    local_asker,
    seconds_of,
    worker_pool,
    workers_of,
)
from streamguard.cli.commands.exits import Exit
from streamguard.cli.commands.hosts import Allowed, Place, named
from streamguard.engine.clock import backend_clock
from streamguard.engine.runtime import Runtime
from streamguard.errors import JobError, Problem
from streamguard.jobs.amount import Amount, parse_amount
from streamguard.jobs.asking import Asker
from streamguard.jobs.batches.log import BatchLog
from streamguard.jobs.job import Job
from streamguard.jobs.jobfile import JobBudget, JobFile, read_job
from streamguard.jobs.opening import JobSpec
from streamguard.jobs.progress.budgets import watch_budgets
from streamguard.jobs.progress.progress import Progress, how, summary_text
from streamguard.jobs.progress.summary import Carried, Summary, Tally
from streamguard.jobs.report.timeline import timeline
from streamguard.jobs.runner import STOP_ON, Runner, most_rows
from streamguard.jobs.signals import Signals
from streamguard.jobs.store.results import About
from streamguard.jobs.store.resume import MAX_ROW_FAILURES, Rules
from streamguard.jobs.workers.collecting import rare_collections
from streamguard.terminal import columns, print_result, put, silence

RUNS_CODE = "its policy or schema is Python code, which may do whatever you may: look at it, then say --allow-imports"
"""Why a file's own word is not enough."""

AUTO: Final = "auto"
"""As many rows at a time as the policy's pace lets begin."""

MOST_CONCURRENT = 1000
"""Connections that the SDK's pool has."""

DRAIN = 10.0
"""Seconds that what runs may still take after a signal: most answers end sooner, and are paid for already."""

KEPT_OPTIONS = (
    *("base_url", "max_event_bytes", "concurrency", "workers", "fail_on", "stop_on", "partials", "drain"),
    *("lane", "deadline"),
)
"""What a retry does as the run before it did."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How a job is run, beside what it is."""

    base_url: str | None = None
    base_url_in: str | None = None
    """The file that names `base_url`; `None`: the operator does."""
    allow_hosts: tuple[str, ...] = ()
    max_event_bytes: int | None = None
    concurrency: int | Literal["auto"] = AUTO
    workers: str | int | None = None
    """Processes that make the calls, or `auto`; `None` for this one."""
    lane: str = STREAM
    """`stream`, or `batch`: Message Batches first, streams for what is left."""
    deadline: float | None = None
    """Seconds after which batches are canceled; `None` for as long as they take."""
    fail_on: str | None = None
    stop_on: int = STOP_ON
    partials: bool = False
    as_json: bool = False
    quiet: bool = False
    drain: float = DRAIN
    trace: str | None = None
    view: int | None = None
    """The port of the live view on this machine; 0 for any that is free."""
    dry_run: bool = False


class Flags(msgspec.Struct, frozen=True, kw_only=True):
    """The command line. `None` is what was not said there, and may be said by a job file."""

    job: str
    """A job file (`*.yaml`), or the input itself."""
    out: str | None = None
    policy: str | None = None
    schema: str | None = None
    template: str | None = None
    model: str | None = None
    max_tokens: int | None = None
    name: str | None = None
    budget: str | None = None
    base_url: str | None = None
    concurrency: int | Literal["auto"] | None = None
    workers: str | None = None
    lane: str | None = None
    deadline: str | None = None
    fail_on: str | None = None
    stop_on: int | None = None
    drain: float | None = None
    retry_failed: bool | None = None
    max_row_failures: int | None = None
    partials: bool | None = None
    allow_imports: bool = False
    allow_hosts: tuple[str, ...] = ()
    fresh: bool = False
    limit: int | None = None
    sample: str | None = None
    trace: str | None = None
    view: int | None = None
    dry_run: bool = False
    as_json: bool = False
    quiet: bool = False


def order(flags: Flags) -> tuple[JobSpec, Options]:
    """The job file with what the command line says on top.

    :raises JobError: neither says something that a job needs; or a mistake in either.
    """
    said = {name: value for name, value in msgspec.structs.asdict(flags).items() if value is not None}
    problems: list[Problem] = []
    job: JobFile | None = None
    if Path(flags.job).suffix.lower() in (".yaml", ".yml"):
        job = read_job(flags.job).job

    def pick(name: str, in_file: str | None = None, default: Any = None) -> Any:
        if name in said:
            return said[name]
        value = getattr(job, in_file or name, None)
        return default if value is None else value

    missing = {} if job is not None else {name: f"--{name}" for name in ("policy", "out") if name not in said}
    problems += [Problem(problem=f"name it with {flag}, or give a job file") for flag in missing.values()]
    budgets = job.budgets if job is not None else ()
    if flags.budget is not None:
        budgets = (*(one for one in budgets if one.name != "job"), *_budget(flags.budget, problems))
    sample = None if flags.sample is None else _sample(flags.sample, problems)
    if job is not None and job.allow_imports and not flags.allow_imports:
        problems.append(Problem(file=flags.job, pointer="/allow_imports", problem=RUNS_CODE))
    if problems:
        raise JobError(problems)
    spec = JobSpec(
        input=flags.job if job is None else job.input,
        out=pick("out", "output"),
        policy=pick("policy"),
        schema=pick("schema", "schema_"),
        template=pick("template"),
        model=pick("model"),
        max_tokens=pick("max_tokens"),
        name=pick("name"),
        budgets=budgets,
        rules=Rules(
            retry_failed=pick("retry_failed", default=True),
            max_row_failures=pick("max_row_failures", default=MAX_ROW_FAILURES),
        ),
        limit=flags.limit,
        sample=sample,
        fresh=flags.fresh,
        allow_imports=flags.allow_imports,
    )
    fail_on = pick("fail_on")
    options = Options(
        base_url=pick("base_url"),
        base_url_in=flags.job if flags.base_url is None and job is not None and job.base_url is not None else None,
        allow_hosts=flags.allow_hosts,
        max_event_bytes=pick("max_event_bytes"),
        concurrency=pick("concurrency", default=AUTO),
        workers=pick("workers"),
        lane=lane_of(pick("lane", default=STREAM)),
        deadline=seconds_of(pick("deadline"), "--deadline"),
        fail_on=None if fail_on is None else str(fail_on).replace(" ", ""),
        partials=pick("partials") in (True, "keep"),
        as_json=flags.as_json,
        quiet=flags.quiet,
        stop_on=pick("stop_on", default=STOP_ON),
        drain=pick("drain", default=DRAIN),
        trace=flags.trace,
        view=flags.view,
        dry_run=flags.dry_run,
    )
    return spec, options


def _budget(text: str, problems: list[Problem]) -> tuple[JobBudget, ...]:
    try:
        return (JobBudget.model_validate({"cost_usd": text}),)
    except ValidationError:
        problems.append(Problem(problem=f"--budget must be an amount of USD such as 25.00, got {text!r}"))
        return ()


def _sample(text: str, problems: list[Problem]) -> Amount | None:
    try:
        return parse_amount(text)
    except ValueError:
        what = f"--sample must be a number of rows from 1 (100) or a share of them (5%), got {text!r}"
        problems.append(Problem(problem=what))
        return None


def threshold(text: str | None) -> Amount:
    """Parse `--fail-on`. `10`: from ten failed records on; `1%`: from one in a hundred; nothing: from the first.

    :raises JobError: it is neither.
    """
    try:
        return Amount(count=1) if text is None else parse_amount(text)
    except ValueError:
        what = f"--fail-on must be a number of records from 1 (10) or a share of them (1%), got {text!r}"
        raise JobError(what) from None


def main(flags: Flags) -> int:
    """Read the job, check everything, then run it.

    :raises ConfigError: a mistake that was found before anything was sent.
    """
    return execute(*order(flags))


def execute(spec: JobSpec, options: Options) -> int:
    """Check everything, then run the job.

    :raises ConfigError: a mistake that was found before anything was sent.
    """
    fail_on = threshold(options.fail_on)
    if options.concurrency != AUTO and not 1 <= options.concurrency <= MOST_CONCURRENT:
        raise JobError(f"--concurrency must be auto, or from 1 to {MOST_CONCURRENT}, got {options.concurrency}")
    workers = workers_of(options.workers)
    if options.stop_on < 0:
        raise JobError(f"--stop-on must be a number of rows from 0, got {options.stop_on}")
    if not 0 <= options.drain <= 86_400:
        raise JobError(f"--drain must be from 0 to 86400 seconds, got {options.drain:g}")
    base_url = checked_url(options.base_url)
    notices = _places(_own_place(options), options)
    if options.view is not None:
        from streamguard.view.server import check_installed

        check_installed()
    # A job that begins anew asks whatever it has, so that nothing is put aside for one that cannot be sent.
    client = make_client(base_url) if spec.fresh and not options.dry_run else None
    job = Job.open(spec, dry=options.dry_run)
    try:
        job.notices += [*notices, *_places(named(job.policy, spec.policy), options)]
        if options.dry_run:
            return _dry_run(job, options)
        job.journal.say(options={name: getattr(options, name) for name in KEPT_OPTIONS})
        # With nothing left to do no key is needed, and the SDK not loaded.
        client = client or (make_client(base_url) if job.todo or BatchLog(job.journal).open() else nullcontext())
        with rare_collections():
            outcome = anyio.run(_run, job, client, options, workers, backend_options={"use_uvloop": has_uvloop()})
    finally:
        job.close()
    return _end(job, outcome, fail_on, options)


def _own_place(options: Options) -> list[Place]:
    """The address that a job file, or an earlier run's journal, names."""
    if options.base_url is None or options.base_url_in is None:
        return []
    return [Place(options.base_url, options.base_url_in, "/base_url")]


def _places(places: Iterable[Place], options: Options) -> list[str]:
    """What is worth knowing about the addresses that files name.

    :raises JobError: they are not the operator's.
    """
    places = list(places)
    allowed = Allowed(options.allow_hosts, None if options.base_url_in else options.base_url)
    if problems := list(allowed.problems(places)):
        raise JobError(problems)
    return list(allowed.notices(places))


def _dry_run(job: Job, options: Options) -> int:
    from streamguard.jobs.report.forecast import forecast, forecast_text

    found = forecast(job, options.lane)
    if options.as_json:
        text = json.dumps(msgspec.to_builtins(found), indent=2)
    else:
        text = forecast_text(found, job.notices, columns(sys.stdout))
    print_result(text + "\n")
    return Exit.OK


class _Ran(msgspec.Struct, frozen=True):
    summary: Summary
    signal: int | None


def carried(job: Job) -> Carried:
    """What earlier runs of a job left."""
    runs = job.journal.runs()
    unknown = any(run.cost_unknown or run.lost for run in runs)
    highs = [None if unknown else run.cost_high for run in runs]
    high = None if None in highs else sum(high for high in highs if high is not None)
    return Carried(
        runs=len(runs),
        cost=(sum(run.cost_low for run in runs), high),
        failed=dict(job.failed_before.most_common()),
        left_out=job.left_out + job.fates["unselected"],
    )


def _most(job: Job, options: Options) -> int:
    """Return how many rows are asked at a time, at the most."""
    return most_rows(job.policy.pace, None if options.concurrency == AUTO else options.concurrency)


def _asker(job: Job, client: Any, options: Options, workers: int, tally: Tally, runtime: Runtime) -> Asker:
    if workers > 1 and job.todo:
        return worker_pool(
            job,
            tally,
            runtime,
            count=workers,
            concurrency=_most(job, options),
            view=options.view is not None,
            base_url=options.base_url,
            max_event_bytes=options.max_event_bytes,
            partials=options.partials,
        )
    about = About(policy=job.spec.policy, partials=options.partials)
    return local_asker(job, client, runtime, about, options.max_event_bytes)


async def _run(job: Job, client: Any, options: Options, workers: int) -> _Ran:
    tally = Tally(job.rows, job.kept, backend_clock(), carried=carried(job))
    runtime = Runtime(accounts=Accounts(), job=job.name, hooks=[tally.hook] if workers == 1 else [])
    progress = Progress(tally, how(sys.stderr, quiet=options.quiet, as_json=options.as_json))

    def ended(key: str, line: bytes) -> None:
        if key == options.trace:
            _tell(progress, line, job.journal.detail(key))

    tally.paces = lambda: runtime.paces(tally.clock())
    asker = _asker(job, client, options, workers, tally, runtime)
    tally.cooling = lambda: asker.cooling(tally.clock())
    tally.endpoint = _endpoint(client)
    runner = Runner(
        job,
        asker,
        tally=tally,
        runtime=runtime,
        concurrency=_most(job, options),
        ended=ended,
        stop_on=options.stop_on,
        endpoint=_endpoint(client),
        lane=batch_lane(job, client, options.lane, options.deadline, tally=tally, runtime=runtime, say=progress.say),
    )
    signals = Signals(runner, progress, options.drain)
    for notice in job.notices:
        progress.say(notice)
    _trace_before(job, progress, options.trace)
    failure: Exception | None = None
    try:
        async with (
            client,
            ended_with(asker),
            _viewed(runtime, options.view) as url,
            anyio.create_task_group() as background,
        ):
            if url is not None:
                progress.say(f"live view: {url}")
            await background.start(signals.run)
            background.start_soon(progress.run)
            background.start_soon(watch_budgets, job, runtime, tally)
            try:
                await begun(asker, background)
                await runner.run()
            except Exception as error:
                # Raised below: a task group would wrap it.
                failure = error
            background.cancel_scope.cancel()
    finally:
        progress.close()
        with anyio.CancelScope(shield=True):
            await runtime.aclose()
    summary = tally.summary(runner.stopped)
    if failure is not None:
        if not options.quiet:
            put(sys.stderr, summary_text(summary, columns(sys.stderr)) + "\n")
        raise failure
    return _Ran(summary, signals.first)


def _endpoint(client: Any) -> str | None:
    """Where the client sends requests to, for messages; `None` if there is nothing to send."""
    url = getattr(client, "base_url", None)
    return None if url is None else str(url).rstrip("/")


@asynccontextmanager
async def _viewed(runtime: Runtime, port: int | None) -> AsyncIterator[str | None]:
    """The live view's address while the block runs; `None` if nobody asked for it."""
    if port is None:
        yield None
        return
    from streamguard.view import serve_view

    async with serve_view(runtime, port=port) as url:
        yield url


def _tell(progress: Progress, line: bytes, detail: bytes | None) -> None:
    for said in timeline(line, detail):
        progress.say(said)


def _trace_before(job: Job, progress: Progress, key: str | None) -> None:
    """What is to be said of a traced row before the run: its story, if it is not asked again."""
    if key is None:
        return
    if job.plan.entry(key) is None:
        progress.say(f"--show-row: the input has no row {key!r}")
    elif not job.plan.is_chosen(key):
        line = job.journal.line(key)
        if line is None:
            progress.say(f"--show-row: row {key!r} is not asked in this run")
        else:
            _tell(progress, line, job.journal.detail(key))


def _end(job: Job, ran: _Ran, fail_on: Amount, options: Options) -> int:
    summary = ran.summary
    code = _code(ran, fail_on)
    if options.as_json:
        said = {"input": job.spec.input, "output": job.spec.out, "policy": job.spec.policy, "exit_code": int(code)}
        # ASCII, as every line of ours: it holds texts of the provider's.
        text = json.dumps({**said, **msgspec.to_builtins(summary)}, indent=2)
        if not put(sys.stdout, text + "\n"):
            silence(sys.stdout)
    elif not options.quiet:
        put(sys.stderr, summary_text(summary, columns(sys.stderr)) + "\n")
    return code


def _code(ran: _Ran, fail_on: Amount) -> int:
    summary = ran.summary
    if ran.signal is not None:
        return 128 + ran.signal
    if summary.stopped is not None:
        return _STOPPED[summary.stopped.kind]
    return Exit.FAILED if fail_on.reached(summary.failures, summary.rows) else Exit.OK


_STOPPED = {
    "budget": Exit.BUDGET,
    "refused": Exit.INPUT,
    "failing": Exit.PROVIDER,
    "ledger": Exit.INTERNAL,
}
