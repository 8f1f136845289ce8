"""The matrix's ways in through the edges: a job of one row, and the proxy as the application that a server calls."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

import anyio

from streamguard.adapters.anthropic.events import Translator
from streamguard.adapters.sse.decoder import Decoder
from streamguard.engine.clock import backend_clock
from streamguard.engine.runtime import Runtime
from streamguard.engine.telemetry import CallCompleted, CallGaveUp
from streamguard.errors import CallError, DeadlineExceeded, GaveUp
from streamguard.events import Event, Failed
from streamguard.jobs.asking import LocalAsker
from streamguard.jobs.job import Job
from streamguard.jobs.opening import JobSpec
from streamguard.jobs.progress.summary import Tally
from streamguard.jobs.runner import Runner
from streamguard.jobs.store.results import About
from streamguard.outcome import Outcome
from streamguard.policy.model import Policy
from streamguard.proxy.app import Proxy
from streamguard.proxy.config import ProxyConfig
from streamguard.proxy.configfile import Setup
from streamguard.testing.faults import Fault
from streamguard.testing.scripted import ScriptedSource
from streamguard.testing.server import ScriptedServer
from tests.matrix.cells import CANARY, CHUNKS, JITTER, Question, Seen, Surface, Tasks, balances
from tests.matrix.configs import Config
from tests.matrix.surfaces import makes_a_message, no_sockets


def came_of(told: list[Any]) -> tuple[Outcome | None, CallError | None]:
    """The end of a call, as hooks are told it."""
    for record in told:
        if isinstance(record, CallCompleted):
            return record.outcome, None
        if isinstance(record, CallGaveUp):
            about: dict[str, Any] = {"reason": record.reason, "record": record.record}
            if record.reason == "timeout.total":
                return None, DeadlineExceeded(record.message, knob="timeouts.total", **about)
            return None, GaveUp(record.message, **about)
    return None, None


async def _job(question: Question) -> Seen:
    """A job of one row, on a provider in memory: its one line says what became of it."""
    told, sources, tasks, leaks = [], [], Tasks(), []

    def ask(params: Mapping[str, Any]) -> ScriptedSource:
        options = {"chunk": question.chunk, "max_event_bytes": question.event_bytes, "messages": True}
        sources.append(ScriptedSource(question.script, request=params, **options))
        return sources[-1]

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        row = {"custom_id": "row", "params": dict(question.request)}
        (folder / "in.jsonl").write_text(json.dumps(row) + "\n")
        (folder / "policy.yaml").write_text("version: 1\ntimeouts: {total: 60}\n")
        spec = JobSpec(**{key: str(folder / file) for key, file in _FILES.items()})
        job = Job.open(spec)
        job.policy = question.policy
        tally = Tally(job.rows, job.kept, backend_clock())
        runtime = Runtime(job=job.name, jitter=lambda: JITTER, hooks=[tally.hook, told.append])
        began = anyio.current_time()
        try:
            asker = LocalAsker(ask, job.policy, runtime, About(policy=spec.policy))
            await Runner(job, asker, tally=tally, runtime=runtime).run()
        finally:
            job.close()
        seconds = anyio.current_time() - began
        lines = (folder / "out.jsonl").read_text().splitlines()
        left = [(folder / one).read_bytes() for one in os.listdir(folder) if "." in one]
    if any(CANARY.encode() in data for data in left):
        leaks.append("I10: the key stands in a file of the job")
    outcome, error = came_of(told)
    types = [json.loads(line)["result"]["type"] for line in lines]
    if types != ["succeeded" if outcome is not None else "errored"]:
        leaks.append(f"I7: the output says {types}, and the call {'ended well' if outcome else 'failed'}")
    exchanges = [one for source in sources for one in source.exchanges]
    return Seen(
        outcome, error, (), exchanges, seconds, [*leaks, *tasks.leaks()], runtime, told, await balances(runtime)
    )


_FILES = {"input": "in.jsonl", "out": "out.jsonl", "policy": "policy.yaml"}


async def _asked_proxy(question: Question, *, stream: bool) -> Seen:
    """One request to the proxy's application, with an upstream on a socket."""
    told: list[Any] = []
    leaks: list[str] = []
    tasks = Tasks()
    async with ScriptedServer(question.script, chunk=question.chunk) as server:
        config = ProxyConfig(upstream=server.url, policies={"default": "x"})
        policies: dict[str, Policy | None] = {"default": question.policy}
        runtime = Runtime(jitter=lambda: JITTER, hooks=[told.append])
        proxy = Proxy(
            Setup(config=config, policies=policies, default="default", key=CANARY, tokens={}), runtime=runtime
        )
        began = anyio.current_time()
        status, body, finished = await _answered(proxy, {**question.request, "stream": stream})
        seconds = anyio.current_time() - began
        with anyio.move_on_after(0.5):
            while any(one.open for one in server.exchanges):  # noqa: ASYNC110  the server is as its users see it
                await anyio.sleep(0.01)
        await proxy._upstream.aclose()
    outcome, error = came_of(told)
    events: list[Event] = []
    if stream and status == 200:
        events = Translator().translate(Decoder().feed(body))
        ended_well = not any(isinstance(one, Failed) for one in events)
        events = [one for one in events if not isinstance(one, Failed)]
    else:
        # A body without its last chunk is a failure for every client, whatever stands in it.
        ended_well = status == 200 and finished and json.loads(body)["type"] == "message"
    if ended_well != (outcome is not None):
        leaks.append(f"I1: status {status} and {body[-200:]!r}, and the call {'ended well' if outcome else 'failed'}")
    if CANARY.encode() in body:
        leaks.append("I10: the key stands in the response")
    return Seen(outcome, error, events, server.exchanges, seconds, [*leaks, *tasks.leaks()], runtime, told)


async def _answered(proxy: Proxy, body: Mapping[str, Any]) -> tuple[int, bytes, bool]:
    """Call the application as a server does, for a client that stays: status, body, and whether the body ended."""
    content, status, received = json.dumps(body).encode(), 0, b""
    asked = finished = False

    async def receive() -> MutableMapping[str, Any]:
        nonlocal asked
        if asked:
            await anyio.sleep_forever()
        asked = True
        return {"type": "http.request", "body": content, "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        nonlocal status, received, finished
        if message["type"] == "http.response.start":
            status = message["status"]
        else:
            received += message.get("body", b"")
            finished = not message.get("more_body", False)

    headers = {"content-type": "application/json", "content-length": str(len(content)), "host": "127.0.0.1"}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/v1/messages",
        "raw_path": b"/v1/messages",
        "root_path": "",
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
        "state": {},
    }
    await proxy(scope, receive, send)
    return status, received, finished


async def _proxy(question: Question) -> Seen:
    return await _asked_proxy(question, stream=False)


async def _proxy_stream(question: Question) -> Seen:
    return await _asked_proxy(question, stream=True)


def _own_limits(fault: Fault, config: Config) -> bool:
    """The proxy's bound on events is its own configuration's business."""
    return fault.number != "F56"


def _whole_message(fault: Fault, config: Config) -> bool:
    return _own_limits(fault, config) and makes_a_message(fault, config)


def _live(policy: Policy) -> Policy:
    return policy.model_copy(update={"deliver": "live"})


JOB = Surface("job", _job, chunks=CHUNKS[:1], fits=no_sockets)
PROXY = Surface("proxy", _proxy, sockets=True, fits=_whole_message)
PROXY_STREAM = Surface("proxy stream", _proxy_stream, "stream", sockets=True, fits=_own_limits)
PROXY_LIVE = Surface("proxy live", _proxy_stream, "stream", "live", sockets=True, adapt=_live, fits=_own_limits)
EDGES = (JOB, PROXY, PROXY_STREAM, PROXY_LIVE)
