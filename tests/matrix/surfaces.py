"""The ways into the package that the matrix tries, each one small function."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import anyio
import anyio.to_thread

import streamguard.sync
from streamguard import api
from streamguard.adapters.anthropic.events import Translator
from streamguard.adapters.anthropic.middleware.guard import GuardMiddleware
from streamguard.adapters.anthropic.source import messages
from streamguard.engine.runtime import Runtime
from streamguard.engine.telemetry import CallCompleted
from streamguard.events import Event
from streamguard.outcome import Outcome
from streamguard.policy.model import Deliver, Policy
from streamguard.retry.rules import Retry
from streamguard.testing import faults
from streamguard.testing.faults import Fault
from streamguard.testing.scripted import ScriptedSource
from streamguard.testing.server import ScriptedServer
from tests.clients import loopback
from tests.matrix.cells import CANARY, CHUNKS, JITTER, Question, Seen, Surface, Tasks, asked, balances
from tests.matrix.configs import Config


def _source(question: Question) -> ScriptedSource:
    return ScriptedSource(
        question.script,
        request=dict(question.request),
        chunk=question.chunk,
        max_event_bytes=question.event_bytes,
    )


async def _through(source: Any, question: Question, deliver: Deliver | None, told: list[Any]) -> Seen:
    """`run`, or `stream` in one of its modes."""
    runtime = Runtime(jitter=lambda: JITTER, hooks=[told.append])
    events: list[Event] = []

    async def ask() -> Outcome | None:
        if deliver is None:
            return await api.run(source, policy=question.policy, runtime=runtime)
        async with api.stream(source, policy=question.policy, deliver=deliver, runtime=runtime) as stream:
            async for event in stream:
                events.append(event)
        return stream.outcome

    began = anyio.current_time()
    outcome, error = await asked(ask)
    seconds = anyio.current_time() - began
    return Seen(outcome, error, events, (), seconds, (), runtime, told, await balances(runtime))


def _memory(name: str, deliver: Deliver | None) -> Surface:
    async def ask(question: Question) -> Seen:
        source, tasks = _source(question), Tasks()
        seen = await _through(source, question, deliver, [])
        return seen._replace(exchanges=source.exchanges, leaks=tasks.leaks())

    return Surface(name, ask, "run" if deliver is None else "stream", deliver, fits=no_sockets)


def no_sockets(fault: Fault, config: Config) -> bool:
    return not fault.sockets


@contextlib.asynccontextmanager
async def served(
    question: Question, *middleware: Any
) -> AsyncIterator[tuple[ScriptedServer, anthropic.AsyncAnthropic, list[str]]]:
    """A server of the script and a client of it; and what is left of either afterwards."""
    leaks: list[str] = []
    tasks, files = Tasks(), len(os.listdir("/proc/self/fd"))
    async with ScriptedServer(question.script, chunk=question.chunk) as server:
        http = loopback()
        options = {"api_key": CANARY, "base_url": server.url, "http_client": http, "middleware": middleware}
        async with anthropic.AsyncAnthropic(**options) as client:
            yield server, client, leaks
            # The server hears of a disconnect a moment later.
            with anyio.move_on_after(0.5):
                while any(one.open for one in server.exchanges):  # noqa: ASYNC110  the server is as its users see it
                    await anyio.sleep(0.01)
            leaks += [f"I6: request {one.number} is still open" for one in server.exchanges if one.open]
            busy = [one for one in http._transport._pool.connections if not (one.is_idle() or one.is_closed())]
            leaks += [f"I6: the pool's slot {one} is taken" for one in busy]
    leaks += tasks.leaks()
    if (now := len(os.listdir("/proc/self/fd"))) > files:
        leaks.append(f"I6: {now - files} file descriptors are left")


def _sdk(name: str, deliver: Deliver | None) -> Surface:
    async def ask(question: Question) -> Seen:
        async with served(question) as (server, client, leaks):
            source = messages(client, max_event_bytes=question.event_bytes, **question.request)
            seen = await _through(source, question, deliver, [])
        return seen._replace(exchanges=server.exchanges, leaks=leaks)

    return Surface(name, ask, "run" if deliver is None else "stream", deliver, sockets=True)


def opaque(policy: Policy) -> Policy:
    """A policy for a stream whose request nobody shows us: what needs the request says it itself, or goes."""
    document = policy.json_document
    if document is not None and document.schema_ == "request":
        given = document.model_dump(exclude={"schema_"}) | {"schema": faults.SCHEMA}
        document = type(document)(**given)
    caps = None if policy.caps is None else policy.caps.model_copy(update={"cost_usd": None})
    timeouts = policy.timeouts.model_copy(update={"alive": None})
    update = {"json_document": document, "caps": caps, "timeouts": timeouts, "budgets": (), "retry": Retry()}
    if "deliver" not in policy.model_fields_set:
        update["deliver"] = "live"
    return policy.model_copy(update=update)


async def _guarded(question: Question) -> Seen | None:
    """`guarded` on a stream of the SDK; nothing to see where the SDK itself opens none."""
    told: list[Any] = []
    events: list[Event] = []
    runtime = Runtime(hooks=[told.append])
    async with served(question) as (server, client, leaks):
        with anyio.move_on_after(1e6):
            try:
                opened = await client.with_options(max_retries=0).messages.create(**question.request, stream=True)
            except anthropic.AnthropicError:
                return None

        async def ask() -> Outcome | None:
            given = question.request["messages"][0]["content"] if question.policy.grounds else None
            async with api.guarded(opened, policy=question.policy, runtime=runtime, source_text=given) as stream:
                async for event in stream:
                    events.append(event)
            return stream.outcome

        began = anyio.current_time()
        outcome, error = await asked(ask)
        seconds = anyio.current_time() - began
    return Seen(outcome, error, events, server.exchanges, seconds, leaks, runtime, told)


def _guardable(fault: Fault, config: Config) -> bool:
    """What the SDK shows of a stream: it ends events as it likes, has its own bound on them, and reads names, not types,
    so that it drops or breaks on much of what other servers send."""
    if fault.number >= "F84":
        known = fault.number in ("F86", "F87", "F88", "F90", "F91", "F98") and fault.id != "F91-no-sequence"
        return known and not config.policy.budgets  # without a request nobody knows what it asked for
    return fault.number not in ("F56", "F53", "F21") and fault.id != "F01-no-head" and not config.policy.budgets


async def _sync(question: Question) -> Seen:
    """`sync.run`, in a thread and in real time."""
    source, told = _source(question), []
    runtime = Runtime(jitter=lambda: JITTER, hooks=[told.append])

    async def ask() -> Outcome:
        return await anyio.to_thread.run_sync(
            lambda: streamguard.sync.run(source, policy=question.policy, runtime=runtime)
        )

    outcome, error = await asked(ask)
    seconds = (outcome or error.record).seconds if error is None or hasattr(error, "record") else 0.0
    return Seen(outcome, error, (), source.exchanges, seconds, (), runtime, told, await balances(runtime))


def to_the_end(policy: Policy) -> Policy:
    """A policy as the middleware has it: a message is handed back whole, so nothing is cut."""
    document = policy.json_document
    if document is None or document.trailing != "cut":
        return policy
    return policy.model_copy(update={"json_document": document.model_copy(update={"trailing": "allow"})})


async def _middleware(question: Question) -> Seen:
    """`messages.create()` of a client with the middleware; the record is what its hooks tell."""
    told: list[Any] = []
    runtime = Runtime(jitter=lambda: JITTER, hooks=[told.append])
    guard = GuardMiddleware(question.policy, runtime=runtime, max_event_bytes=question.event_bytes)
    async with served(question, guard) as (server, client, leaks):

        async def ask() -> Outcome:
            message = await client.messages.create(**question.request)
            outcome = next(one.outcome for one in told if isinstance(one, CallCompleted))
            text = "".join(block.text for block in message.content if block.type == "text")
            if text != outcome.attempts[-1].text:
                leaks.append(f"I1: the message says {text[:60]!r}, the outcome {outcome.attempts[-1].text[:60]!r}")
            return outcome

        began = anyio.current_time()
        outcome, error = await asked(ask)
        seconds = anyio.current_time() - began
    return Seen(outcome, error, (), server.exchanges, seconds, leaks, runtime, told, await balances(runtime))


def makes_a_message(fault: Fault, config: Config) -> bool:
    """Without a start there is no message to hand back, whether or not a guard minds."""
    return fault.id != "F22-no-start"


async def _middleware_live(question: Question) -> Seen:
    """`messages.create(stream=True)` of a client with the middleware, handed on at once."""
    told: list[Any] = []
    events: list[Event] = []
    runtime = Runtime(jitter=lambda: JITTER, hooks=[told.append])
    guard = GuardMiddleware(question.policy, runtime=runtime, deliver="live", max_event_bytes=question.event_bytes)
    async with served(question, guard) as (server, client, leaks):

        async def ask() -> Outcome | None:
            translator = Translator()
            async with await client.messages.create(**question.request, stream=True) as stream:
                async for event in stream:
                    events.extend(translator.translate_object(event.to_dict(mode="json", warnings=False)))
            return next((one.outcome for one in told if isinstance(one, CallCompleted)), None)

        began = anyio.current_time()
        outcome, error = await asked(ask)
        seconds = anyio.current_time() - began
    return Seen(outcome, error, events, server.exchanges, seconds, leaks, runtime, told, await balances(runtime))


def _at_once(fault: Fault, config: Config) -> bool:
    """What neither waits nor makes anybody wait."""
    waits = fault.slow or fault.sockets or "F24" <= fault.number <= "F29" or config.name == "everything"
    waits = waits or fault.id in ("F90-error-behind", "F93-code", "F93-frame", "F93-limit", "F93-plain")
    return not waits and fault.id not in ("F14-no-answer", "F21-json-error", "F07-never-closed")


RUN = _memory("run", None)
COMMITTED = _memory("stream committed", "committed")
LIVE = _memory("stream live", "live")
RESTARTING = _memory("stream restarting", "restarting")
SDK = _sdk("sdk run", None)
SDK_LIVE = _sdk("sdk live", "live")
GUARDED = Surface("guarded", _guarded, "guarded", sees_bytes=False, sockets=True, adapt=opaque, fits=_guardable)
SYNC = Surface("sync", _sync, chunks=CHUNKS[:1], fits=_at_once)

MIDDLEWARE = Surface("middleware", _middleware, sockets=True, adapt=to_the_end, fits=makes_a_message)
MIDDLEWARE_LIVE = Surface("middleware live", _middleware_live, "stream", "live", sockets=True, adapt=to_the_end)

IN_MEMORY = (RUN, COMMITTED, LIVE, RESTARTING)
DOORS = (*IN_MEMORY, SYNC, SDK, SDK_LIVE, GUARDED, MIDDLEWARE, MIDDLEWARE_LIVE)
