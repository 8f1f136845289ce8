"""A job beside the loop that people write: `python -m bench.jobs [--records N]`.

The same records against the same provider and the same seeded failures, in one run:

* `loop`: asyncio over the SDK, `messages.create(stream=True)` read to its end, then `json.loads` and `jsonschema`, up
  to three attempts, the SDK's own retries on; time-outs 10 s a read and 60 s an attempt;
* `job`: the body of `streamguard run`: the shipped extraction policy with the schema, three attempts, its journal and
  its output on disk, over the HTTP client and event loop that the command picks (aiohttp and uvloop, where installed).

Two mixes: `recorded`, every attempt one of sixty recorded answers of a small model, forty times as fast as it was; and
`few`, good answers with 5 % failures of six kinds. The provider is the scripted server in a process of its own, on a
core of its own. Tokens are the provider's count; wasted are those of attempts that gave no valid record.

`--memory` measures the memory of jobs of growing size instead.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio

ATTEMPTS = 3
CONCURRENCY = 100
SEED = 7
FASTER = 40.0
"""How many times as fast the recorded answers are played."""
MODEL = "claude-haiku-4-5"
READ_TIMEOUT, ATTEMPT_TIMEOUT = 10.0, 60.0
"""Seconds: the loop's time-outs. The job's are the shipped policy's."""
LAG_TOKENS = 8
"""Tokens that the provider still generates, and bills, after a disconnect."""

BATCH, TOKENS_PER_SECOND = 8, 200.0
"""Deltas that the provider of `few` sends together, and how fast it is."""

FEW = ("missing_comma", "wrong_type", "runaway", "cut_at_limit", "ends_early", "reset")
"""The failures of `few`, in equal shares. The first three can be seen before the answer ends; the others cost what they
cost."""

FAILING = 0.05
"""Their share of all attempts."""

RUNAWAY = 50
"""Times that a runaway says the same line: until the 1,000 tokens that the request allows."""

SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["invoice", "vendor", "currency", "lines", "total"],
    "properties": {
        "invoice": {"type": "string", "pattern": "^INV-[0-9]{6}$"},
        "vendor": {"type": "string"},
        "currency": {"enum": ["EUR", "USD", "GBP"]},
        "lines": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["text", "quantity", "price"],
                "properties": {
                    "text": {"type": "string"},
                    "quantity": {"type": "integer"},
                    "price": {"type": "number"},
                },
            },
        },
        "total": {"type": "number"},
    },
}


# The provider


def invoice(row: str) -> str:
    """A good answer, of some 120 tokens."""
    dice = random.Random(f"{SEED}/{row}")
    lines = [
        {
            "text": f"{dice.choice(('bolts', 'nuts', 'washers'))} no. {dice.randrange(1000)}",
            "quantity": dice.randrange(1, 50),
            "price": dice.randrange(1, 9999) / 100,
        }
        for _ in range(6)
    ]
    document = {"invoice": f"INV-{dice.randrange(10**6):06}", "vendor": "Miller & Sons", "currency": "EUR"}
    return json.dumps({**document, "lines": lines, "total": 12.5})


def few() -> Callable[[str, int], tuple[Any, bool]]:
    """Good answers with a few failures: the script of a row's attempt, and whether it is good."""
    from streamguard.testing import wire
    from streamguard.testing.scripted import Script
    from streamguard.testing.steps import fin, pause, rst, status, truth

    kinds, shares = [*FEW, "good"], [FAILING / len(FEW)] * len(FEW) + [1 - FAILING]

    def answer(text: str, stop: str = "end_turn", end: int | None = None, tail: list[Any] | None = None) -> Script:
        pieces = [text[at : at + 6] for at in range(0, len(text), 6)]
        tokens = len(pieces[:end]) * 2
        frames: list[Any] = [
            truth(input=400, output=tokens, lag=LAG_TOKENS),
            status(),
            wire.message_start(usage={"input_tokens": 400, "output_tokens": 1}),
            wire.block_start(),
        ]
        for first in range(0, len(pieces[:end]), BATCH):
            frames.append(b"".join(wire.text_delta(piece) for piece in pieces[:end][first : first + BATCH]))
            frames.append(pause(BATCH * 2 / TOKENS_PER_SECOND))
        closing = [
            wire.block_stop(),
            wire.message_delta(stop, usage={"output_tokens": tokens}),
            wire.message_stop(),
        ]
        return Script.of([*frames, *(closing if tail is None else tail)])

    def choose(row: str, attempt: int) -> tuple[Script, bool]:
        dice = random.Random(f"{SEED}/{row}/{attempt}")
        text = invoice(row)
        again = ', {"text": "bolts", "quantity": 1, "price": 0.5}' * RUNAWAY
        at = dice.randrange(20, len(text) // 2)
        kind = dice.choices(kinds, shares)[0]
        made: dict[str, Callable[[], Script]] = {
            "good": lambda: answer(text),
            "missing_comma": lambda: answer(text[:at] + text[at:].replace(", ", " ", 1)),
            "wrong_type": lambda: answer(text.replace('"quantity": ', '"quantity": "a few", "', 1)),
            "runaway": lambda: answer(text.replace("], ", again, 1), "max_tokens"),
            "cut_at_limit": lambda: answer(text, "max_tokens", end=-10),
            "ends_early": lambda: answer(text, end=-10, tail=[fin()]),
            "reset": lambda: answer(text, end=at // 6, tail=[rst()]),
        }
        return made[kind](), kind == "good"

    return choose


def recorded() -> Callable[[str, int], tuple[Any, bool]]:
    """Recorded answers in a seeded order: the script of a row's attempt, and whether it is valid by its schema."""
    import jsonschema

    from streamguard.testing.scripted import Script
    from streamguard.testing.steps import pause, status, truth
    from tests.data import path

    judge = jsonschema.Draft202012Validator(advisories())
    streams: list[tuple[Script, bool]] = []
    with zipfile.ZipFile(path("real_sse", "gemma270m-advisories.zip")) as archive:
        for name in sorted(archive.namelist()):
            if not name.endswith(".sse"):
                continue
            body, about = archive.read(name), json.loads(archive.read(name.removesuffix(".sse") + ".json"))
            tokens = about["usage"]["output_tokens"]
            items: list[Any] = [truth(input=300, output=tokens, lag=LAG_TOKENS), status()]
            at, offset = 0.0, 0
            for seconds, size in about["chunks"]:
                # On a grid: thousands of timers a second would measure the server.
                ahead = round((seconds / FASTER - at) * 100) / 100
                if ahead > 0:
                    items.append(pause(ahead))
                    at += ahead
                items.append(body[offset : offset + size])
                offset += size
            streams.append((Script.of(items), valid(about["text"], judge) and about["stop_reason"] != "max_tokens"))
    return lambda row, attempt: random.Random(f"{SEED}/{row}/{attempt}").choice(streams)


def advisories() -> dict[str, Any]:
    """The schema that the recorded answers were asked for."""
    from tests.data import path

    found: dict[str, Any] = json.loads(path("advisories", "advisory.schema.json").read_text(encoding="utf-8"))
    return found


MIXES: Mapping[str, Callable[[], Callable[[str, int], tuple[Any, bool]]]] = {"recorded": recorded, "few": few}


def serve(mix: str) -> None:
    """Serve a mix until standard input ends; then print what was generated, as JSON."""
    from streamguard.testing.server import ScriptedServer

    choose = MIXES[mix]()
    attempts: dict[str, int] = {}
    good: list[tuple[str, bool]] = []

    def script_for(exchange: Any) -> Any:
        row = exchange.body["messages"][0]["content"].partition(":")[0]
        attempts[row] = attempts.get(row, 0) + 1
        script, is_good = choose(row, attempts[row])
        good.append((row, is_good))
        exchange.headers[ATTEMPT_HEADER] = "1"
        return script

    async def main() -> dict[str, Any]:
        async with ScriptedServer(script_for=script_for, attempt_header=ATTEMPT_HEADER) as server:
            sys.stdout.write(server.url + "\n")
            sys.stdout.flush()
            await anyio.to_thread.run_sync(sys.stdin.buffer.read)
        bills = [exchange.bill.output_tokens for exchange in server.exchanges]
        useful = sum(tokens for tokens, (_, is_good) in zip(bills, good, strict=True) if is_good)
        return {"requests": len(bills), "generated": sum(bills), "useful": useful, "errors": server.errors[:3]}

    pin(1)
    found = anyio.run(main)
    sys.stdout.write(json.dumps(found) + "\n")


ATTEMPT_HEADER = "x-bench-attempt"


def pin(core: int) -> None:
    """Run on one core, where the platform has a say in it."""
    if hasattr(os, "sched_setaffinity") and (os.cpu_count() or 1) > core:
        os.sched_setaffinity(0, {core})


# The two sides


def request(row: str) -> dict[str, Any]:
    """What is asked for a record."""
    text = f"{row}: Extract the document below as JSON.\n\n" + "Lorem ipsum dolor sit amet, " * 40
    return {"model": MODEL, "max_tokens": 1000, "messages": [{"role": "user", "content": text}]}


def schema_of(mix: str) -> dict[str, Any]:
    """By which schema answers are judged."""
    return advisories() if mix == "recorded" else SCHEMA


def valid(text: str, judge: Any) -> bool:
    """At the end: is it JSON, and does it satisfy the schema?"""
    try:
        return bool(judge.is_valid(json.loads(text)))
    except ValueError:
        return False


def loop(mix: str, url: str, records: int, folder: Path) -> int:
    """The loop that people write; how many records are valid."""
    import anthropic
    import httpx2
    import jsonschema

    judge = jsonschema.Draft202012Validator(schema_of(mix))
    todo = iter(range(records))
    out = (folder / "out.jsonl").open("w")

    async def extract(client: Any, row: str) -> str | None:
        for _ in range(ATTEMPTS):
            try:
                async with asyncio.timeout(ATTEMPT_TIMEOUT):
                    text, stop = "", None
                    async for event in await client.messages.create(**request(row), stream=True):
                        if event.type == "content_block_delta":
                            text += event.delta.text
                        elif event.type == "message_delta":
                            stop = event.delta.stop_reason
            except (anthropic.APIError, httpx2.HTTPError, TimeoutError):
                continue
            if stop in ("end_turn", "stop_sequence") and valid(text, judge):
                return text
        return None

    async def main() -> int:
        done = 0
        timeout = httpx2.Timeout(READ_TIMEOUT)
        async with anthropic.AsyncAnthropic(api_key="x", base_url=url, timeout=timeout) as client:

            async def work() -> None:
                nonlocal done
                for number in todo:
                    text = await extract(client, f"r{number}")
                    out.write(json.dumps({"id": f"r{number}", "output": text and json.loads(text)}) + "\n")
                    done += text is not None

            async with asyncio.TaskGroup() as group:
                for _ in range(CONCURRENCY):
                    group.create_task(work())
        return done

    with out:
        return asyncio.run(main())


def job(mix: str, url: str, records: int, folder: Path) -> int:
    """The same as a job, by the command's own body; how many records are valid."""
    from streamguard.cli.commands.run import Options, execute
    from streamguard.jobs.opening import JobSpec
    from streamguard.jobs.store.journal import read_journal

    with (folder / "in.jsonl").open("w") as rows:
        for number in range(records):
            rows.write(json.dumps({"custom_id": f"r{number}", "params": request(f"r{number}")}) + "\n")
    (folder / "schema.json").write_text(json.dumps(schema_of(mix)))
    out = str(folder / "out.jsonl")
    spec = JobSpec(
        input=str(folder / "in.jsonl"),
        out=out,
        policy="streamguard:extraction",
        schema=str(folder / "schema.json"),
    )
    execute(spec, Options(base_url=url, concurrency=CONCURRENCY, quiet=True))
    journal = read_journal(out)
    assert journal is not None
    with journal:
        return journal.counts().get(("succeeded", None), 0)


SIDES: Mapping[str, Callable[[str, str, int, Path], int]] = {"loop": loop, "job": job}


def side(name: str, mix: str, url: str, records: int) -> None:
    """Run one side and print what it took, as JSON."""
    import anthropic  # noqa: F401  loading it is not what is measured
    import jsonschema  # noqa: F401

    pin(0)
    with tempfile.TemporaryDirectory() as folder:
        began, cpu = time.perf_counter(), time.process_time()
        good = SIDES[name](mix, url, records, Path(folder))
        found = {
            "valid": good,
            "seconds": time.perf_counter() - began,
            "cpu": time.process_time() - cpu,
            "rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        }
    sys.stdout.write(json.dumps(found) + "\n")


def memory(records: int) -> None:
    """Run a job against a provider in memory and print how much of it this process took, as JSON."""
    from streamguard.engine.clock import backend_clock
    from streamguard.engine.runtime import Runtime
    from streamguard.jobs.asking import LocalAsker
    from streamguard.jobs.job import Job
    from streamguard.jobs.opening import JobSpec
    from streamguard.jobs.progress.summary import Tally
    from streamguard.jobs.runner import Runner
    from streamguard.jobs.store.results import About
    from streamguard.testing import answer, script

    events, bad = answer(invoice("r0"), chunk=40), answer(invoice("r0")[:60], chunk=40)

    def source(params: Mapping[str, Any]) -> Any:
        number = int(params["messages"][0]["content"].partition(":")[0][1:])
        return script(bad if number % 20 == 0 else events, request=params, messages=True)

    async def main(folder: Path) -> int:
        policy = "version: 1\ntimeouts: {total: 60}\njson: {expect: object}\n"
        (folder / "policy.yaml").write_text(policy)
        with (folder / "in.jsonl").open("w") as rows:
            for number in range(records):
                rows.write(json.dumps({"custom_id": f"r{number}", "params": request(f"r{number}")}) + "\n")
        spec = JobSpec(
            input=str(folder / "in.jsonl"), out=str(folder / "out.jsonl"), policy=str(folder / "policy.yaml")
        )
        job = Job.open(spec)
        try:
            tally = Tally(job.rows, job.kept, backend_clock())
            runtime = Runtime(hooks=[tally.hook])
            asker = LocalAsker(source, job.policy, runtime, About(policy=spec.policy))
            await Runner(job, asker, tally=tally, runtime=runtime, concurrency=CONCURRENCY).run()
            return tally.done
        finally:
            job.close()

    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        done = anyio.run(main, Path(folder))
        seconds = time.perf_counter() - began
    found = {"records": done, "seconds": seconds, "rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    sys.stdout.write(json.dumps(found) + "\n")


# Putting them beside each other


def measured(name: str, mix: str, records: int) -> dict[str, Any]:
    """One side against a provider of its own: a process each."""
    me = [sys.executable, "-m", "bench.jobs"]
    server = subprocess.Popen([*me, "serve", mix], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with server:
        assert server.stdin is not None
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        done = subprocess.run([*me, name, mix, url, str(records)], capture_output=True, text=True, check=True)
        server.stdin.close()
        served = json.loads(server.stdout.readline())
    found = {**json.loads(done.stdout), **served}
    assert not found["errors"], found["errors"]
    return found


def compare(mix: str, records: int, rounds: int) -> None:
    """Both sides, in turns, and what one is in terms of the other."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in SIDES}
    for turn in range(rounds):
        for name in [*SIDES] if turn % 2 == 0 else [*reversed(SIDES)]:
            found[name].append(measured(name, mix, records))
    print(f"\n{mix}: {records:,} records, {CONCURRENCY} at a time, {rounds} round{'' if rounds == 1 else 's'}")
    print("         valid  requests     tokens    wasted  seconds  records/s  CPU ms")
    best: dict[str, dict[str, float]] = {}
    for name, runs in found.items():
        run = min(runs, key=lambda one: float(one["seconds"]))
        cpu = min(one["cpu"] for one in runs) / records * 1000
        wasted = run["generated"] - run["useful"]
        best[name] = {"rate": records / run["seconds"], "wasted": wasted, "cpu": cpu}
        print(
            f"{name:>6} {run['valid'] / records:>7.1%} {run['requests']:>9,} {run['generated']:>10,} {wasted:>9,} "
            f"{run['seconds']:>8.1f} {records / run['seconds']:>10.1f} {cpu:>7.2f}"
        )
    a, b = best["job"], best["loop"]
    print(
        f"   job / loop: {a['rate'] / b['rate']:.2f} x records per second, {a['wasted'] / b['wasted']:.2f} x wasted "
        f"tokens, {a['cpu'] / b['cpu']:.2f} x CPU per record"
    )


def memories(sizes: Sequence[int]) -> None:
    """Resident memory of jobs of these sizes, a process each."""
    print("\nmemory, with a provider in the same process")
    for size in sizes:
        done = subprocess.run(
            [sys.executable, "-m", "bench.jobs", "memory", str(size)], capture_output=True, text=True, check=True
        )
        found = json.loads(done.stdout)
        print(f"{found['records']:>9,} records: {found['rss']:6.1f} MiB at the most, {found['seconds']:.1f} s")


def main(argv: list[str] | None = None) -> None:
    """All of it, or a part that another process asked for."""
    given = sys.argv[1:] if argv is None else argv
    if given[:1] == ["serve"]:
        serve(given[1])
    elif given[:1] == ["memory"]:
        memory(int(given[1]))
    elif given[:1] and given[0] in SIDES:
        side(given[0], given[1], given[2], int(given[3]))
    else:
        parser = argparse.ArgumentParser(prog="python -m bench.jobs")
        parser.add_argument("--records", type=int, default=10_000)
        parser.add_argument("--rounds", type=int, default=1)
        parser.add_argument("--mix", choices=[*MIXES], action="append")
        parser.add_argument("--memory", type=int, nargs="*", help="measure jobs of these sizes: 1000 100000")
        options = parser.parse_args(given)
        if options.memory is not None:
            memories(options.memory or (1_000, 10_000, 100_000))
            return
        for mix in options.mix or MIXES:
            compare(mix, options.records, options.rounds)


if __name__ == "__main__":
    main()
