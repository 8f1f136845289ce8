"""Is streaming worth it when a machine reads the answer? `python -m bench.experiment` (or `make experiment`).

The same seeded documents and failures are asked for in five ways:

* `plain`: `messages.create()`, parsed and validated at the end, else once more;
* `streamed`: the SDK's `messages.stream()` to its end, then the same;
* `instructor`: instructor over the SDK, with its own retries (where it is installed);
* `syntax`: streamguard without a schema, and the schema judged at the end;
* `schema`: streamguard with the schema.

Where answers are valid and wrong, also in two more:

* `grounded`: values that must stand in the invoice (`json.grounded`);
* `meaning`: these, and checks of sums.

Mixes of failures, and sixty recorded answers of a small model with their own timing. Time is simulated, so
latencies are the provider's; what a client costs is measured apart, with the provider in a process of its own and no
waits. Tokens and money are the provider's count. The table goes to standard output, `--html FILE` writes the plot.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import random
import statistics
import time
import zipfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import jsonschema

import streamguard
from streamguard import CallError, Runtime
from streamguard.demo import documents as invoices
from streamguard.demo.sides import params
from streamguard.demo.simulated import MAX_TOKENS, MOST_ATTEMPTS, Mix, attempt
from streamguard.engine.clock import backend_clock
from streamguard.policy.file import loads_policy
from streamguard.pricing.book import PriceBook
from streamguard.pricing.price import cost
from streamguard.testing.clock import run_virtual
from streamguard.testing.record import Exchange
from streamguard.testing.scripted import Script
from streamguard.testing.server import ScriptedServer
from streamguard.testing.steps import pause, status, truth

MODEL = "claude-haiku-4-5"
DOCUMENTS = 200
TRIES = 4
CONCURRENCY = 20
SEED = 1
GRACE = 0.001
LAG_TOKENS = 8


class Asked(NamedTuple):
    """One document as all sides ask for it."""

    id: str
    request: dict[str, Any]
    text: str = ""
    """The document's own text."""
    record: Mapping[str, Any] | None = None
    """The right answer, if it is known."""


class Case(NamedTuple):
    """What is asked, and how the provider answers."""

    name: str
    schema: Mapping[str, Any]
    asked: Sequence[Asked]
    script_for: Callable[[Exchange], Script]
    ways: Sequence[str]


def _invoices(name: str, mix: Mix, count: int, ways: Sequence[str]) -> Case:
    made = invoices.documents(count, SEED)
    by_prompt = {invoices.prompt(document): document for document in made}
    scripts: dict[str, Script] = {}

    def choose(exchange: Exchange) -> Script:
        document = by_prompt[exchange.body["messages"][0]["content"]]
        if document.id not in scripts:
            numbers = range(1, MOST_ATTEMPTS + 1)
            scripts[document.id] = Script.of(*(attempt(document, number, SEED, mix) for number in numbers))
        return scripts[document.id]

    asked = [Asked(one.id, params(one, MODEL, MAX_TOKENS), one.text, one.record) for one in made]
    return Case(name, invoices.SCHEMA, asked, choose, ways)


def _recorded(count: int) -> Case | None:
    """Documents whose every attempt is answered by one of the recorded answers, drawn by a seed."""
    from tests.data import path

    folder = path("real_sse")
    schema = json.loads(path("advisories", "advisory.schema.json").read_text(encoding="utf-8"))
    streams: list[Script] = []
    with zipfile.ZipFile(folder / "gemma270m-advisories.zip") as archive:
        for name in sorted(archive.namelist()):
            if name.endswith(".sse"):
                body = archive.read(name)
                chunks = json.loads(archive.read(name.removesuffix(".sse") + ".json"))["chunks"]
                streams.append(_timed(body, chunks))

    scripts: dict[str, Script] = {}

    def choose(exchange: Exchange) -> Script:
        asked = exchange.body["messages"][0]["content"]
        if asked not in scripts:
            drawn = (random.Random(f"{SEED}/{asked}/{number}").choice(streams) for number in range(MOST_ATTEMPTS))
            scripts[asked] = Script.of(*(one.attempts[0] for one in drawn))
        return scripts[asked]

    requests = [
        Asked(str(n), {"model": MODEL, "max_tokens": 400, "messages": [{"role": "user", "content": f"document {n}"}]})
        for n in range(count)
    ]
    return Case("recorded", schema, requests, choose, _ways())


def _timed(body: bytes, chunks: Sequence[tuple[float, int]]) -> Script:
    """A recorded answer with the pauses between its chunks, on a grid of a sixteenth of a second."""
    tokens = next(
        json.loads(line[6:])["usage"]["output_tokens"]
        for line in body.decode().splitlines()
        if line.startswith("data: ") and '"message_delta"' in line
    )
    items: list[Any] = [truth(input=300, output=tokens, lag=LAG_TOKENS), status()]
    at, offset = 0.0, 0
    for seconds, size in chunks:
        ahead = max(0.0, round((seconds - at) * 16) / 16)
        if ahead:
            items.append(pause(ahead))
            at += ahead
        items.append(body[offset : offset + size])
        offset += size
    return Script.of(items)


# The ways. Each asks for one document until its answer is valid, and gives the value; `None` if none is.

Ask = Callable[[Asked], Awaitable[Any]]


def _text(message: Any) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def _valid(text: str, validator: Any) -> Any:
    """The value of a text; `None` if it is not valid."""
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if validator.is_valid(value) else None


def plain(client: Any, schema: Mapping[str, Any]) -> Ask:
    validator = jsonschema.Draft202012Validator(schema)

    async def ask(asked: Asked) -> Any:
        for _ in range(TRIES):
            try:
                message = await client.messages.create(**asked.request)
            except Exception:  # whatever an SDK and its HTTP client raise: such code tries again
                continue
            if (value := _valid(_text(message), validator)) is not None:
                return value
        return None

    return ask


def streamed(client: Any, schema: Mapping[str, Any]) -> Ask:
    validator = jsonschema.Draft202012Validator(schema)

    async def ask(asked: Asked) -> Any:
        for _ in range(TRIES):
            try:
                async with client.messages.stream(**asked.request) as stream:
                    async for _event in stream:
                        pass
                    message = await stream.get_final_message()
            except Exception:  # as above
                continue
            if (value := _valid(_text(message), validator)) is not None:
                return value
        return None

    return ask


def with_instructor(client: Any, schema: Mapping[str, Any]) -> Ask:
    import instructor
    from pydantic import RootModel, field_validator

    validator = jsonschema.Draft202012Validator(schema)

    class Answer(RootModel[dict[str, Any]]):
        @field_validator("root")
        @classmethod
        def _is_valid(cls, value: dict[str, Any]) -> dict[str, Any]:
            for error in validator.iter_errors(value):
                raise ValueError(error.message)
            return value

    logging.getLogger("instructor").disabled = True
    patched = instructor.from_anthropic(client, mode=instructor.Mode.ANTHROPIC_JSON)

    async def ask(asked: Asked) -> Any:
        try:
            made = await patched.messages.create(**asked.request, response_model=Answer, max_retries=TRIES - 1)
        except Exception:  # as above
            return None
        return made.root

    return ask


def syntax(client: Any, schema: Mapping[str, Any]) -> Ask:
    runtime, validator = Runtime(jitter=random.Random(SEED).random), jsonschema.Draft202012Validator(schema)
    policy = loads_policy("extends: streamguard:extraction\n")

    async def ask(asked: Asked) -> Any:
        left = TRIES
        while left:
            source = streamguard.messages(client, **asked.request)
            retry = policy.retry.model_copy(update={"attempts": left})
            try:
                outcome = await streamguard.run(
                    source, policy=policy.model_copy(update={"retry": retry}), runtime=runtime
                )
            except CallError:
                return None
            if validator.is_valid(outcome.value):
                return outcome.value
            left -= len(outcome.attempts)
        return None

    return ask


def with_schema(client: Any, schema: Mapping[str, Any], more: str = "") -> Ask:
    runtime = Runtime(jitter=random.Random(SEED).random)
    text = (
        f"extends: streamguard:extraction\nretry: {{attempts: {TRIES}}}\njson: {{schema: {json.dumps(schema)}{more}\n"
    )
    policy = loads_policy(text if more else text.rstrip() + "}\n")

    async def ask(asked: Asked) -> Any:
        source = streamguard.messages(client, **asked.request)
        try:
            return (await streamguard.run(source, policy=policy, runtime=runtime, source_text=asked.text)).value
        except CallError:
            return None

    return ask


GROUNDED = """, grounded: [{at: /number, edges: word}, {at: /supplier}, {at: /issued, as: date}, {at: "/lines/*/what"},
 {at: "/lines/*/price", as: number}, {at: /total, as: number}, {at: /note}]}"""
CHECKS = """
checks: [{reason: check.total, that: abs(doc.total - sum(l.quantity * l.price for l in doc.lines)) < 0.005}]"""


def grounded(client: Any, schema: Mapping[str, Any]) -> Ask:
    return with_schema(client, schema, GROUNDED)


def meaning(client: Any, schema: Mapping[str, Any]) -> Ask:
    return with_schema(client, schema, GROUNDED + CHECKS)


WAYS: dict[str, Callable[[Any, Mapping[str, Any]], Ask]] = {
    "plain": plain,
    "streamed": streamed,
    "instructor": with_instructor,
    "syntax": syntax,
    "schema": with_schema,
    "grounded": grounded,
    "meaning": meaning,
}
OWN = ("syntax", "schema", "grounded", "meaning")
WRONG = ("plain", "schema", "grounded", "meaning")
"""The ways in which what is valid and wrong is asked for: the others find no more than these."""


class Result(NamedTuple):
    """What one way came to."""

    way: str
    documents: int
    valid: float
    right: float | None
    requests: int
    tokens: int
    usd: float | None
    p50: float
    p99: float
    seconds: float


async def _all(ask: Ask, asked: Sequence[Asked]) -> tuple[dict[str, Any], list[float], float]:
    clock, seconds = backend_clock(), []
    valid: dict[str, Any] = {}
    todo, began = iter(asked), backend_clock()()

    async def work() -> None:
        for one in todo:
            start = clock()
            if (value := await ask(one)) is not None:
                valid[one.id] = value
                seconds.append(clock() - start)

    async with anyio.create_task_group() as group:
        for _ in range(CONCURRENCY):
            group.start_soon(work)
    return valid, sorted(seconds), clock() - began


def _client(url: str, way: str) -> Any:
    import anthropic

    # The SDK's own defaults for the ways that rest on them.
    options: dict[str, Any] = {"max_retries": 0} if way in OWN else {}
    http = anthropic.DefaultAsyncHttpxClient(verify=False)
    return anthropic.AsyncAnthropic(api_key="none", base_url=url, http_client=http, **options)


def latencies(case: Case, way: str) -> Result:
    """On a simulated clock: valid answers, tokens, money and time."""

    async def main() -> Result:
        async with ScriptedServer(script_for=case.script_for) as server:
            async with _client(server.url, way) as client:
                valid, seconds, whole = await _all(WAYS[way](client, case.schema), case.asked)
            bills = [exchange.bill for exchange in server.exchanges]
        price = PriceBook().price(MODEL)
        money = [cost(price, bill.usage) for bill in bills] if price else [None]
        known = [one for one in money if one is not None]
        return Result(
            way,
            len(case.asked),
            len(valid) / len(case.asked),
            _right(case, valid),
            len(bills),
            sum(bill.output_tokens for bill in bills),
            sum(known) / 1e6 if len(known) == len(money) else None,
            statistics.median(seconds) if seconds else 0.0,
            seconds[min(len(seconds) - 1, round(0.99 * len(seconds)))] if seconds else 0.0,
            whole,
        )

    return run_virtual(main, grace=GRACE)


def _right(case: Case, valid: Mapping[str, Any]) -> float | None:
    """The share of documents whose answer is the right one; `None` where nobody knows it."""
    if any(one.record is None for one in case.asked):
        return None
    return sum(valid.get(one.id) == one.record for one in case.asked) / len(case.asked)


def client_cpu(answers: int, deltas: int) -> dict[str, float]:
    """CPU milliseconds of the client for a good answer, with the provider in a process of its own and without waits.
    The ways take turns."""
    text = json.dumps({"a": "word " * deltas})
    made = ScriptedServer([status(), *_good(text)])
    asked = Asked("x", {"model": MODEL, "max_tokens": 9999, "messages": [{"role": "user", "content": "x"}]})
    spent: dict[str, list[float]] = {way: [] for way in _ways()}

    async def main(url: str) -> None:
        schema = {"type": "object", "required": ["a"], "properties": {"a": {"type": "string"}}}
        clients = {way: _client(url, way) for way in spent}
        asks = {way: WAYS[way](client, schema) for way, client in clients.items()}
        for way in spent:
            await asks[way](asked)
        order = list(spent) * answers
        random.Random(SEED).shuffle(order)
        for way in order:
            began = time.process_time()
            await asks[way](asked)
            spent[way].append((time.process_time() - began) * 1000)
        for client in clients.values():
            await client.close()

    with made.in_process() as server:
        anyio.run(main, server.url)
    return {way: statistics.median(found) for way, found in spent.items()}


def _good(text: str) -> list[Any]:
    from streamguard.testing.scripted import answer

    return [answer(text, chunk=5)]


def _ways() -> list[str]:
    there = importlib.util.find_spec("instructor") is not None
    return [way for way in WAYS if way not in ("grounded", "meaning") and (way != "instructor" or there)]


def _cases(count: int) -> list[Case]:
    quiet = {"bad_service": False}
    usual = _ways()
    cases = [
        _invoices("bad 0 %", Mix(bad_answers=0.0, **quiet), count, usual),
        _invoices("bad 2 %", Mix(bad_answers=0.02, **quiet), count, usual),
        _invoices("bad 16 %, service faults", Mix(), count, usual),
        _invoices("valid but wrong 16 %", Mix(bad_answers=0.0, wrong_values=0.16, **quiet), 5 * count, WRONG),
    ]
    try:
        recorded = _recorded(count // 2)
    except BaseException as error:  # pytest's own way of saying that the data is not here
        print(f"without the recorded streams: {error}")
        recorded = None
    return [*cases, *([recorded] if recorded else [])]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--documents", type=int, default=DOCUMENTS)
    options.add_argument("--html", type=Path)
    options.add_argument("--case", help="only the cases whose name has this")
    given = options.parse_args()
    if "instructor" not in _ways():
        print("instructor is not installed, so that way is left out\n")
    found: dict[str, list[Result]] = {}
    for case in _cases(given.documents):
        if given.case and given.case not in case.name:
            continue
        print(f"{case.name}: {len(case.asked)} documents, {CONCURRENCY} at a time, up to {TRIES} tries; simulated time")
        heads = f"{'way':<11}{'valid':>8}{'right':>8}{'requests':>10}{'tokens':>9}{'USD':>9}{'p50 s':>8}{'p99 s':>9}"
        print(f"  {heads}{'all s':>8}")
        for way in case.ways:
            result = latencies(case, way)
            found.setdefault(case.name, []).append(result)
            usd = "-" if result.usd is None else f"{result.usd:.4f}"
            right = "-" if result.right is None else f"{result.right:.1%}"
            print(
                f"  {way:<11}{result.valid:>8.1%}{right:>8}{result.requests:>10}{result.tokens:>9}{usd:>9}"
                f"{result.p50:>8.1f}{result.p99:>9.1f}{result.seconds:>8.0f}"
            )
    if given.case:
        return
    print("\nclient CPU for one good answer, ms (median; no waits, deltas of five characters, each sent by itself)")
    cpu = {deltas: client_cpu(30, deltas) for deltas in (30, 300)}
    for deltas, costs in cpu.items():
        told = "   ".join(f"{way} {ms:.2f} ({ms / costs['plain']:.2f}x)" for way, ms in costs.items())
        print(f"  {deltas:>4} deltas   {told}")
    if given.html:
        from bench.experiment_plot import page

        given.html.write_text(page(found, cpu), encoding="utf-8")
        print(f"\n{given.html}")


if __name__ == "__main__":
    main()
