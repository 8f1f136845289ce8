"""What several commands share: options and arguments with their help, and how a command ends."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

Policy = Annotated[str, typer.Option("--policy", "-p", help="A policy file, or streamguard:NAME for a shipped one.")]
Model = Annotated[str | None, typer.Option("--model", help="For every row, whatever the input or template says.")]
MaxTokens = Annotated[int | None, typer.Option("--max-tokens", help="For every row, likewise.", min=1)]
Template = Annotated[
    str | None, typer.Option("--template", help="A Jinja2 text that makes the user's message of a row of data.")
]
AllowHost = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-host", metavar="HOST", help="Let a job file or policy send rows and the key to this host; repeatable."
    ),
]


def _importable(allowed: bool) -> bool:
    """Let modules of the current folder be imported, as `python -m` does; last, so that they stand before no other."""
    with suppress(OSError):  # the folder is gone
        folder = str(Path.cwd())
        if allowed and not {"", folder} & set(sys.path):
            sys.path.append(folder)
    return allowed


AllowImports = Annotated[
    bool,
    typer.Option(
        "--allow-imports",
        callback=_importable,
        help="Import guards and types that files name, also from modules of the current folder.",
    ),
]
Ground = Annotated[
    bool, typer.Option("--ground", help="Of rows with right answers: count which values stand in their source.")
]
Gold = Annotated[str, typer.Option("--gold", metavar="FIELD", help="With --ground: a row's right answer.")]
SourceField = Annotated[str, typer.Option("--text", metavar="FIELD", help="With --ground: a row's source.")]
BaseUrl = Annotated[str | None, typer.Option("--base-url", help="Of the API; ANTHROPIC_BASE_URL else.")]
Workers = Annotated[
    str | None,
    typer.Option("--workers", metavar="N|auto", help="Processes that make the calls; 1 by default: this one."),
]


def _concurrency(text: str) -> Any:
    """A number of rows, or `auto`."""
    if text == "auto":
        return text
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is neither auto nor a whole number of rows") from None


Concurrency = Annotated[
    Any,
    typer.Option(
        "--concurrency",
        "-j",
        parser=_concurrency,
        metavar="auto|ROWS",
        help="Rows at a time at most; auto: as many as the provider's limits allow [default: auto]",
    ),
]
Lane = Annotated[
    str | None,
    typer.Option("--lane", metavar="stream|batch", help="batch: Message Batches at half the price, then streams."),
]
Deadline = Annotated[
    str | None, typer.Option("--deadline", help="When batches are canceled and the rest is streamed: 90s, 30m, 6h.")
]
FailOn = Annotated[
    str | None, typer.Option("--fail-on", help="Exit with 3 from so many failed rows on: 10, or 1%. By default 1.")
]
StopOn = Annotated[
    int | None,
    typer.Option("--stop-on", help="Failures of the provider in a row until the job stops; 0: never [default: 20]"),
]
Drain = Annotated[
    float | None,
    typer.Option("--drain", help="Seconds that what runs may still take after a signal; 10 by default."),
]
AsJson = Annotated[bool, typer.Option("--json", help="For machines: the result as JSON on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no summary.")]
BudgetRows = Annotated[
    str | None,
    typer.Option(
        "--budget", metavar="ROWS", help="Job input: what the policy's budgets hold for it, and how far they reach."
    ),
]
UsualOutput = Annotated[
    int | None,
    typer.Option("--usual-output", help="Output tokens of a usual answer [default: max_tokens / 4]", min=1),
]
RetryFailed = Annotated[
    bool | None, typer.Option("--retry-failed/--no-retry-failed", help="Ask rows again that failed before.")
]
MaxRowFailures = Annotated[
    int | None, typer.Option("--max-row-failures", min=1, help="Runs a row may fail in before it is left alone; 3.")
]
Partials = Annotated[
    bool | None, typer.Option("--partials/--no-partials", help="Keep the text of rejected attempts in the output.")
]
MaybePolicy = Annotated[
    str | None, typer.Option("--policy", "-p", help="A policy file, or streamguard:NAME for a shipped one.")
]
NewOut = Annotated[
    str | None, typer.Option("--out", "-o", help="One result per row; run again to go on where it stopped.")
]
SchemaFile = Annotated[
    str | None, typer.Option("--schema", help="A JSON Schema, or module:Name, instead of the policy's.")
]
Out = Annotated[str, typer.Argument(metavar="OUT.jsonl", help="A job's output; its journal stands beside it.")]
Trace = Annotated[
    str | None, typer.Option("--show-row", metavar="ID", help="Tell one row's story, attempt by attempt.")
]
LedgerAddress = Annotated[
    str, typer.Argument(metavar="LEDGER", help="A SQLite file, sqlite:PATH, or redis://HOST:PORT/DB?ledger=NAME.")
]
ScopeKey = Annotated[str, typer.Argument(metavar="SCOPE", help="As `show` prints it.")]


def finish(context: typer.Context, body: Callable[[], int]) -> None:
    """Run a command's body and end with its exit code; what it raises becomes a message and a code.

    :raises typer.Exit: always.
    """
    from streamguard.cli.commands.exits import guarded

    raise typer.Exit(guarded(body, debug=bool(context.obj)))


def show_version(wanted: bool) -> None:
    """Print the version and end.

    :raises typer.Exit: if it was wanted.
    """
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            typer.echo(f"streamguard {version('streamguard-llm')}")
        except PackageNotFoundError:
            typer.echo("streamguard, not installed")
        raise typer.Exit
