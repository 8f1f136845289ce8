"""`streamguard replay`: recorded streams through a policy, offline.

In charge of what is printed: a table for people, or one JSON object a line. What a recording is and what a policy makes
of it is `recordings`' and `replay`'s business. The SDK is not loaded.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from streamguard.cli.commands.exits import Exit, complain
from streamguard.errors import ConfigError, JobError, Problem
from streamguard.guards.base import AttemptContext, AwaitedWatch
from streamguard.policy.model import Policy
from streamguard.replay import Replayed, recordings, replay
from streamguard.replay.recording import MOST_BYTES
from streamguard.terminal import print_result, printable, put, silence
from streamguard.verdict import REASONS

PLAIN_WIDTH = 160
"""Columns of a table that goes to no terminal."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line says beside the recordings."""

    policy: str
    schema: str | None = None
    fail_on: str | None = None
    as_json: bool = False
    allow_imports: bool = False


def main(files: Sequence[str], options: Options, source_text: str | None = None) -> int:
    """Replay every recording. What cannot be read is said at the end, and does not keep the others from being judged.

    :param source_text: a file with the text that grounded values are held against.
    :raises ConfigError: a mistake in the policy, the schema or a recording.
    """
    too_many = _too_many(options.fail_on)
    policy = _policy(options)
    source = None if source_text is None else _source(source_text)
    judged: list[Replayed] = []
    problems: list[Problem] = []
    for one in _judged(files, policy, source, problems):
        judged.append(one)
        if options.as_json and not put(sys.stdout, json.dumps(as_object(one)) + "\n"):
            silence(sys.stdout)
            return 128 + 13
    if judged and not options.as_json:
        _show(judged)
    if problems:
        complain(problems)
        return Exit.INPUT
    failed = sum(one.reason is not None for one in judged)
    return Exit.FAILED if too_many(failed, len(judged)) else Exit.OK


def _too_many(fail_on: str | None) -> Callable[[int, int], bool]:
    """Whether so many of so many are too many."""
    if fail_on is None:
        return lambda failed, _: failed > 0
    from streamguard.cli.commands.run import threshold  # half of the package; replaying itself needs little

    return threshold(fail_on).reached


def as_object(one: Replayed) -> dict[str, Any]:
    """A verdict as JSON has it: what identifies it first, the sentence and what was only observed last."""
    told: Mapping[str, Any] = msgspec.to_builtins(one)
    return {name: told[name] for name in (*_FIRST, *(name for name in told if name not in _FIRST))}


_FIRST = ("file", "reason", "pointer", "offset", "char", "event", "tokens_after", "completed")


def _policy(options: Options) -> Policy:
    from streamguard.policy.file import read_policy

    found = read_policy(options.policy, allow_imports=options.allow_imports)
    complain(msgspec.structs.replace(warning, problem=f"warning: {warning.problem}") for warning in found.warnings)
    policy = found.policy
    if options.schema is not None:
        from streamguard.jobs.opening import check_schema, read_schema_or_type, with_schema

        schema = read_schema_or_type(options.schema, allow_imports=options.allow_imports)
        if isinstance(schema, Problem):
            raise JobError(schema)
        policy = with_schema(policy, schema)
        try:
            check_schema(policy)
        except ConfigError as error:
            raise JobError(
                msgspec.structs.replace(one, file=one.file or options.schema) for one in error.problems
            ) from error
    own = (*policy.checks, *policy.guards)
    unasked = [guard.name for guard in own if isinstance(guard.watch(AttemptContext(), 0.0), AwaitedWatch)]
    if unasked:
        put(sys.stderr, f"not asked, since they are asynchronous: {printable(', '.join(unasked))}\n")
    return policy


def _source(name: str) -> str:
    """The text of a file."""
    from streamguard.files.reading import read_bytes

    read = read_bytes(Path(name), MOST_BYTES)
    if isinstance(read, str):
        raise JobError(Problem(file=name, problem=read))
    try:
        return read.decode("utf-8-sig")
    except UnicodeDecodeError as mistake:
        raise JobError(Problem(file=name, problem=f"not UTF-8 at byte {mistake.start:,}")) from None


def _judged(files: Sequence[str], policy: Policy, source: str | None, problems: list[Problem]) -> Iterator[Replayed]:
    """What the policy makes of each recording; what is wrong with any goes into `problems`."""
    try:
        for recording in recordings(files):
            try:
                yield replay(recording, policy, source_text=source)
            except ConfigError as error:
                problems += (msgspec.structs.replace(one, file=recording.file) for one in error.problems)
    except JobError as error:
        problems += error.problems


def _show(judged: Sequence[Replayed]) -> None:
    """The table, and the sums below it."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    table.add_column("recording", overflow="fold")
    table.add_column("verdict", no_wrap=True)
    table.add_column("at byte", justify="right", no_wrap=True)
    table.add_column("≈ tokens after", justify="right", no_wrap=True)
    table.add_column("why", overflow="fold")
    folder = _common_folder([one.file for one in judged])
    for one in judged:
        table.add_row(
            Text(printable(one.file[len(folder) :])),
            Text(_verdict(one), style="" if one.reason is None else "red"),
            Text("" if one.offset is None else str(one.offset)),
            Text(f"{one.tokens_after:,}"),
            Text(printable(_why(one))),
        )
    console = Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)
    with console.capture() as captured:
        console.print(table)
    lines = [line.rstrip() for line in captured.get().splitlines()]
    text = "\n".join(line for line in lines if line) + "\n\n" + "\n".join(sums(judged)) + "\n"
    print_result(text)


def _common_folder(files: Sequence[str]) -> str:
    """What all names begin with, up to a slash: shown once for all it would only be noise."""
    if len(files) < 2:
        return ""
    first, last = min(files), max(files)
    same = next((at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return first[: first.rfind("/", 0, same) + 1]


def _verdict(one: Replayed) -> str:
    return one.reason or one.completed or "not claimed"


def _why(one: Replayed) -> str:
    if one.message is not None:
        return one.message + ("" if one.hint is None else f"; asked again with the hint: {one.hint}")
    return "; ".join(
        [*(f"marked {mark.reason}" for mark in one.marked), *(f"observed {seen.reason}" for seen in one.observed)]
    )


def sums(judged: Sequence[Replayed]) -> Iterator[str]:
    """The sums of all verdicts, a line each."""
    standing, ended = Counter[str](), Counter[str]()
    for one in judged:
        (standing if one.reason is None else ended)[_verdict(one)] += 1
    noun = "recording" if len(judged) == 1 else "recordings"
    yield f"{len(judged):,} {noun}: {standing.total():,} stand{_by(standing)}, {ended.total():,} end{_by(ended)}"
    whole = sum(one.tokens for one in judged)
    for what, some in (
        ("after the reason to end", [one for one in judged if one.reason is not None]),
        ("after a complete answer", [one for one in judged if one.reason is None]),
    ):
        after = sum(one.tokens_after for one in some)
        if after:
            share = f"{after / whole:.0%}" if after * 100 >= whole else "under 1%"
            yield f"≈ {after:,} of {whole:,} output tokens ({share}) came {what}"
    if marked := Counter(mark.reason for one in judged if one.reason is None for mark in one.marked):
        yield f"kept and marked: {_listed(marked)}"
    observed = Counter(seen.reason for one in judged for seen in one.observed)
    if observed:
        yield f"observed only: {_listed(observed)}"
    if known := [reason for reason, _ in (ended + observed).most_common() if reason in REASONS]:
        yield f"what to do: streamguard reason {known[0]}"


def _by(counts: Counter[str]) -> str:
    return f" ({_listed(counts)})" if counts else ""


def _listed(counts: Counter[str]) -> str:
    named: Iterable[tuple[str, int]] = counts.most_common()
    return ", ".join(f"{printable(name)} {count:,}" for name, count in named)
