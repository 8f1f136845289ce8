"""Small jobs for tests: an input, a policy, and a provider in memory that plays a script for each row."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from streamguard.engine.clock import backend_clock
from streamguard.engine.runtime import Runtime
from streamguard.jobs.asking import LocalAsker
from streamguard.jobs.job import Job
from streamguard.jobs.opening import JobSpec
from streamguard.jobs.progress.summary import Summary, Tally
from streamguard.jobs.runner import Runner
from streamguard.jobs.store.results import About
from streamguard.testing import ScriptedSource, script

POLICY = """
version: 1
timeouts: {total: 60}
json: {schema: {type: object, properties: {n: {type: integer}}, required: [n], additionalProperties: false}}
retry:
  attempts: 2
  rules:
    - {when: [json.*, transport.*, provider.overloaded], wait: none}
"""

GOOD = '{"n": 1}'
DEAD = '{"n": "'


def batch_line(custom_id: str, text: str | None = None, **params: Any) -> dict[str, Any]:
    """A line of a Message Batch, whose user says the id unless told otherwise."""
    messages = [{"role": "user", "content": custom_id if text is None else text}]
    return {"custom_id": custom_id, "params": {"model": "m", "max_tokens": 100, "messages": messages, **params}}


def write_job(folder: Path, *lines: Mapping[str, Any] | str, policy: str = POLICY) -> JobSpec:
    """An input of these lines (ids are batch lines), and a policy."""
    rows = [batch_line(line) if isinstance(line, str) else line for line in lines]
    (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "policy.yaml").write_text(policy)
    return JobSpec(input=str(folder / "in.jsonl"), out=str(folder / "out.jsonl"), policy=str(folder / "policy.yaml"))


def results(folder: Path) -> dict[str, str]:
    """What became of each id, in the file's order; every id stands once."""
    found: dict[str, str] = {}
    for line in (folder / "out.jsonl").read_text().splitlines():
        value = json.loads(line)
        assert value["custom_id"] not in found
        result = value["result"]
        found[value["custom_id"]] = result["error"]["error"]["type"] if result["type"] == "errored" else result["type"]
    return found


class Provider:
    """Plays a script for each row, chosen by what its user says; keeps every source that was made."""

    def __init__(self, **scripts: Any) -> None:
        self.scripts = scripts
        self.sources: list[ScriptedSource] = []
        self.open = 0
        self.most_open = 0
        self.on_made: Callable[[str], None] = lambda name: None

    def __call__(self, params: Mapping[str, Any]) -> ScriptedSource:
        name = params["messages"][-1]["content"]
        made = script(*self.scripts.get(name, self.scripts.get("other", ())), request=params, messages=True)
        self.sources.append(made)
        self.on_made(name)
        return made

    @property
    def asked(self) -> list[str]:
        """What every attempt asked, in order of the rows."""
        return [one.request.body["messages"][-1]["content"] for one in self.sources for _ in one.exchanges]

    @property
    def left_open(self) -> int:
        """Streams that were opened and not closed."""
        return sum(one.opened - one.closed for one in self.sources)


def make_runner(job: Job, provider: Provider, *, partials: bool = False, **options: Any) -> tuple[Runner, Tally]:
    """A runner for the loop that runs."""
    tally = Tally(job.rows, job.kept, backend_clock())
    runtime = Runtime(job=job.name, hooks=[tally.hook])
    asker = LocalAsker(provider, job.policy, runtime, About(policy=job.spec.policy, partials=partials))
    return Runner(job, asker, tally=tally, runtime=runtime, **options), tally


async def run_job(spec: JobSpec, provider: Provider, **options: Any) -> tuple[Runner, Summary]:
    """A job from its checks to a finished output; no row is left running."""
    job = Job.open(spec)
    try:
        runner, tally = make_runner(job, provider, **options)
        try:
            await runner.run()
        finally:
            await runner._runtime.aclose()
    finally:
        job.close()
    assert tally.running == 0
    return runner, tally.summary(runner.stopped)
