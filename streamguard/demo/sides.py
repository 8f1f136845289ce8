"""The two sides of the demo: one job, asked by plain SDK code, and asked by the job runner under a policy.

Both ask the same questions of the same model, so many at a time; one judge says which answers satisfy the schema.
In charge of asking and of noting when what came; what it cost is the provider's to say, not the client's.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import anyio
import jsonschema
import msgspec

from streamguard.demo.documents import SCHEMA, STOP, Document, prompt
from streamguard.engine.clock import backend_clock

TRIES: Final = 4
"""For one document, on either side: where one answer in five is bad, two documents in a thousand are left."""

INPUT, SCHEMA_FILE, POLICY, OUTPUT = "invoices.jsonl", "invoice.schema.json", "policy.yaml", "results.jsonl"
"""The files of the guarded side's job."""

POLICY_TEXT: Final = f"""\
# What `streamguard demo` runs with: the shipped policy, as it is, and the schema of the answers.
version: 1
extends: streamguard:extraction
json: {{schema_file: {SCHEMA_FILE}}}
retry: {{attempts: {TRIES}}}
"""


class Side(msgspec.Struct, kw_only=True):
    """What one side saw."""

    rows: int
    valid: set[str] = msgspec.field(default_factory=set)
    """Documents with a valid answer."""
    attempts: int = 0
    seconds: float = 0.0
    """From the first request to the last answer."""
    first_tokens: list[float] = msgspec.field(default_factory=list)
    """Seconds from asking to the first text, of each attempt that came so far. What the SDK retries by itself counts
    as one attempt."""
    row_seconds: list[float] = msgspec.field(default_factory=list)
    """Seconds from taking up a document to being done with it, tries and waits included."""
    again: Counter[str] = msgspec.field(default_factory=Counter)
    """Why attempts were not good enough."""


def params(document: Document, model: str, max_tokens: int) -> dict[str, Any]:
    """The request for a document."""
    return {
        "model": model,
        "max_tokens": max_tokens,
        "stop_sequences": [STOP],
        "messages": [{"role": "user", "content": prompt(document)}],
    }


# Without guards


def _nobody() -> None:
    """Told of each document, where nobody looks on."""


async def unguarded(
    client: Any,
    documents: Sequence[Document],
    *,
    model: str,
    max_tokens: int,
    concurrency: int,
    done: Callable[[], None] = _nobody,
) -> Side:
    """As it is commonly written: stream to the end, parse, validate, else once more. Timeouts and the retries of failed
    requests are the SDK's own, at its defaults.

    :param done: called after each document.
    """
    side, clock = Side(rows=len(documents)), backend_clock()
    validator = jsonschema.Draft202012Validator(SCHEMA)
    todo = iter(documents)
    began = clock()

    async def work() -> None:
        for document in todo:
            start = clock()
            for _ in range(TRIES):
                side.attempts += 1
                if await _ask(client, params(document, model, max_tokens), validator, side, clock):
                    side.valid.add(document.id)
                    break
            side.row_seconds.append(clock() - start)
            done()

    async with anyio.create_task_group() as workers:
        for _ in range(min(concurrency, len(documents))):
            workers.start_soon(work)
    side.seconds = clock() - began
    return side


async def _ask(client: Any, request: Mapping[str, Any], validator: Any, side: Side, clock: Callable[[], float]) -> bool:
    """One try; whether its answer is valid."""
    asked = clock()
    try:
        async with client.messages.stream(**request) as stream:
            first = True
            async for _ in stream.text_stream:
                if first:
                    side.first_tokens.append(clock() - asked)
                    first = False
            message = await stream.get_final_message()
    except Exception as error:  # whatever an SDK and its HTTP client raise; such code tries again
        side.again[type(error).__name__] += 1
        return False
    try:
        value = json.loads("".join(block.text for block in message.content if block.type == "text"))
    except ValueError:
        side.again["no JSON"] += 1
        return False
    if not validator.is_valid(value):
        side.again["not as the schema says"] += 1
        return False
    return True


# With guards


def write_job(folder: Path, documents: Sequence[Document], *, model: str, max_tokens: int) -> None:
    """The job's files, as a person would have them."""
    rows = ({"custom_id": document.id, "params": params(document, model, max_tokens)} for document in documents)
    (folder / INPUT).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / SCHEMA_FILE).write_text(json.dumps(SCHEMA, indent=2) + "\n", encoding="utf-8")
    (folder / POLICY).write_text(POLICY_TEXT, encoding="utf-8")


async def guarded(
    client: Any, folder: Path, *, jitter: Callable[[], float], concurrency: int, done: Callable[[], None] = _nobody
) -> Side:
    """The job in a folder, as `streamguard run` does it.

    :param jitter: makes the random parts of waits.
    :param done: called after each document.
    """
    from streamguard.adapters.anthropic.source import messages
    from streamguard.engine.runtime import Runtime
    from streamguard.jobs.asking import LocalAsker
    from streamguard.jobs.job import Job
    from streamguard.jobs.opening import JobSpec
    from streamguard.jobs.progress.summary import Tally
    from streamguard.jobs.runner import Runner
    from streamguard.jobs.store.results import About

    spec = JobSpec(input=str(folder / INPUT), out=str(folder / OUTPUT), policy=str(folder / POLICY))
    job = Job.open(spec)
    try:
        tally = Tally(job.rows, job.kept, backend_clock())
        runtime = Runtime(hooks=[tally.hook], jitter=jitter)
        about = About(policy=spec.policy)
        asker = LocalAsker(lambda request: messages(client, **request), job.policy, runtime, about)
        runner = Runner(job, asker, tally=tally, runtime=runtime, concurrency=concurrency, ended=lambda *_: done())
        await runner.run()
        summary = tally.summary(runner.stopped)
    finally:
        job.close()
    return Side(
        rows=summary.rows,
        valid=set(_valid(folder / OUTPUT)),
        attempts=summary.attempts,
        seconds=summary.seconds,
        first_tokens=list(tally.first_tokens),
        row_seconds=list(tally.row_seconds),
        again=Counter(summary.retries) + Counter(summary.failed),
    )


def _valid(out: Path) -> Iterator[str]:
    """The documents whose results are valid by the judge of the other side, whatever the lines themselves say."""
    validator = jsonschema.Draft202012Validator(SCHEMA)
    with out.open(encoding="utf-8") as lines:
        for result in map(json.loads, lines):
            if validator.is_valid(result["streamguard"]["output"]):
                yield result["custom_id"]
