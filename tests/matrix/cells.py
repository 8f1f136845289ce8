"""One cell of the matrix: a fault under a configuration, cut in a way, through a door; and what must hold of it.

A surface is a function that asks once and returns what was seen (`Seen`); `check` holds that against the oracle and the
invariants. A violation is a sentence.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from streamguard.budgets.ledger import Balance
from streamguard.engine.runtime import Runtime
from streamguard.errors import CallError, StreamguardError
from streamguard.events import BlockStarted, BlockStopped, Delta, Event, Ping, Restarted, Started
from streamguard.outcome import CallRecord, Outcome
from streamguard.pace.hedge import LOST
from streamguard.policy.model import Policy
from streamguard.testing.faults import Fault
from streamguard.testing.oracle import Door, Expectation, RacedExpectation
from streamguard.testing.play import Chunk
from streamguard.testing.record import Exchange
from streamguard.testing.scripted import Script
from streamguard.testing.steps import gather
from tests.matrix.configs import Config

EVENT_BYTES = 8192
"""The bound on one event in the matrix: small, so that the faults about it are cheap."""

JITTER = 0.5
CANARY = "sk-ant-canary-8f3b2c9d7e1a4056"
"""The key that the matrix's clients use: it must be nowhere in what comes out."""

CHUNKS: tuple[tuple[str, Chunk], ...] = (("event", "event"), ("byte", "byte"), ("random", 7))
"""How streams are cut. Over sockets each byte is a chunk of its own, and so a read of its own for the package; some
twenty chunks share a packet, as a packet each would be most of the matrix's time."""
TIMES: tuple[tuple[str, int | None], ...] = (("always", None), ("once", 1))


REFUSED = (401, 403, 404, 413, 429)
"""Statuses of requests that were refused before any work on them, whoever says so: nothing is billed."""

REFUSED_BY_TYPE = {400: "invalid_request_error", 529: "overloaded_error"}
"""The same for statuses that mean it only with the provider's own word."""


class Seen(NamedTuple):
    """What came of asking."""

    outcome: Outcome | None
    error: BaseException | None
    events: Sequence[Event]
    exchanges: Sequence[Exchange]
    seconds: float
    leaks: Sequence[str] = ()
    runtime: Runtime | None = None
    telemetry: Sequence[Any] = ()
    balances: Sequence[Balance] = ()

    @property
    def record(self) -> CallRecord | None:
        if self.outcome is not None:
            return self.outcome
        return self.error.record if isinstance(self.error, CallError) else None


class Question(NamedTuple):
    """What a surface is asked: a script, under a policy."""

    script: Script
    policy: Policy
    request: Mapping[str, Any]
    chunk: Chunk = None
    event_bytes: int = EVENT_BYTES


class Surface(NamedTuple):
    """A way into the package."""

    name: str
    ask: Callable[[Question], Awaitable[Seen | None]]
    """`None`: the question does not come up there."""
    door: Door = "run"
    deliver: str | None = None
    sees_bytes: bool = True
    sockets: bool = False
    chunks: Sequence[tuple[str, Chunk]] = CHUNKS
    """The ways in which streams are cut for it."""
    adapt: Callable[[Policy], Policy] = lambda policy: policy
    """What a policy must be to be usable there."""
    fits: Callable[[Fault, Config], bool] = lambda fault, config: True
    races: bool = False
    """Whether two requests of a call may be under way at once."""
    swaps: bool = False
    """Whether a passing fault meets the second request instead of the first."""


class Cell(NamedTuple):
    """One cell."""

    fault: Fault
    config: Config
    chunk: tuple[str, Chunk]
    times: tuple[str, int | None]
    surface: Surface

    @property
    def name(self) -> str:
        parts = (self.fault.id, self.config.name, self.chunk[0], self.times[0], self.surface.name)
        return " / ".join(parts)

    @property
    def question(self) -> Question:
        script = self.fault.script(self.config.shape, times=self.times[1], event_bytes=EVENT_BYTES)
        if self.surface.sockets and self.chunk[1] == "byte":
            script = Script(tuple((gather(128), *items) for items in script.attempts))
        if self.surface.swaps and len(script.attempts) > 1:
            script = Script((script.attempts[1], script.attempts[0], *script.attempts[1:]))
        policy = self.surface.adapt(self.config.policy)
        return Question(script, policy, self.config.request, self.chunk[1])


async def violations(cell: Cell) -> list[str]:
    """Ask, and say what does not hold."""
    question = cell.question
    seen = await cell.surface.ask(question)
    if seen is None:
        return []
    return [f"{cell.name}: {wrong}" for wrong in check(question, cell.surface, seen)]


def expectation(question: Question, surface: Surface) -> Expectation:
    """What the oracle makes of a question."""
    kind = RacedExpectation if surface.races else Expectation
    return kind(
        question.script,
        question.policy,
        question.request,
        door=surface.door,
        deliver=surface.deliver,
        event_bytes=question.event_bytes,
        sees_bytes=surface.sees_bytes,
        jitter=JITTER,
    )


def check(question: Question, surface: Surface, seen: Seen) -> Iterator[str]:
    """Everything that does not hold of what was seen."""
    yield from seen.leaks
    if not isinstance(seen.error, CallError | None):
        yield f"I1: {type(seen.error).__name__}: {seen.error}"
        return
    record = seen.record
    if (seen.outcome is None) == (seen.error is None) or record is None:
        yield "I1: not exactly one of an outcome and an error"
        return
    yield from (f"oracle: {wrong}" for wrong in expectation(question, surface).check(record, seen.error))
    yield from _bounded(question, seen, record)
    yield from _amplified(question, seen, record)
    yield from _usage(surface, seen, record)
    yield from _view(question, surface, seen)
    yield from _secrets(seen)
    yield from _budgets(question, seen)


def _bounded(question: Question, seen: Seen, record: CallRecord) -> Iterator[str]:
    total = question.policy.timeouts.total
    if total is not None and seen.seconds > total + 0.1:
        yield f"I2: {seen.seconds:.3f} s, and timeouts.total is {total}"
    if record.lag > 0.05:
        yield f"I2: lag {record.lag}"


def _sent(record: CallRecord) -> list[Any]:
    """The attempts that were sent, in the order in which they were."""
    return sorted((one for one in record.attempts if getattr(one.ended, "sent", True)), key=lambda one: one.number)


def _amplified(question: Question, seen: Seen, record: CallRecord) -> Iterator[str]:
    if len(seen.exchanges) > question.policy.retry.attempts:
        yield f"I9: {len(seen.exchanges)} requests; retry.attempts is {question.policy.retry.attempts}"
    sent = _sent(record)
    if len(seen.exchanges) != len(sent):
        yield f"I9: {len(seen.exchanges)} requests for {len(sent)} attempts"
    for made, exchange in zip(sent, seen.exchanges, strict=False):
        # From scratch: an attempt's request is the first one with its own patch and hint, and nothing of an answer goes
        # into it.
        body, first = dict(exchange.body), dict(seen.exchanges[0].body)
        if made.hint is not None:
            first["messages"] = _with_hint(first["messages"], made.hint)
        for field in ("max_tokens", *(made.patch or {})):
            body.pop(field, None)
            first.pop(field, None)
        if body != first:
            yield f"I9: attempt {made.number} asked {body}, the first {first}"
    open_ = [one.number for one in seen.exchanges if one.open]
    if open_:
        yield f"I6: attempts {open_} are still open"


def _with_hint(messages: Sequence[Any], hint: str) -> list[Any]:
    """What messages whose last turn is a user's text become with a hint."""
    *before, last = messages
    blocks = [{"type": "text", "text": last["content"]}, {"type": "text", "text": hint}]
    return [*before, {**last, "content": blocks}]


def _usage(surface: Surface, seen: Seen, record: CallRecord) -> Iterator[str]:
    """The truth lies in every attempt's interval (I1), and in that of all together."""
    sent = _sent(record)
    for made, exchange in zip(sent, seen.exchanges, strict=False):
        bill, low, high = exchange.bill, made.usage.low, made.usage.high
        word = REFUSED_BY_TYPE.get(exchange.status or 0)
        # Who lost a race had hung up before it could hear of a refusal.
        heard = getattr(made.ended, "reason", None) != LOST
        refused = heard and (
            exchange.status in REFUSED or (word is not None and getattr(made.ended, "type", None) == word)
        )
        if refused and (high.input_tokens, high.output_tokens) != (0, 0):
            yield f"I1: attempt {made.number} was refused, and {high} is told"
        output = bill.output_tokens if made.usage.exact else _made(exchange)
        if exchange.facts is not None and exchange.facts.deltas == 0 and exchange.facts.truth is None:
            continue  # nothing was made piece by piece, so nobody can say how much of it by then
        if exchange.facts and exchange.facts.truth and not exchange.facts.truth.stops and not exchange.complete:
            # A backend that goes on after a disconnect: nobody can tell, so budgets, not intervals, cover it.
            continue
        if output < (low.output_tokens or 0):
            yield f"I1: attempt {made.number} made {output} tokens, at least {low.output_tokens} are told"
        # A script on a socket writes as fast as it can, far ahead of whoever reads; a model does not.
        ahead = surface.sockets and exchange.disconnected_at is not None
        if high.output_tokens is not None and output > high.output_tokens and not ahead:
            yield f"I1: attempt {made.number} made {output} tokens, at most {high.output_tokens} are told"
        read = bill.input_tokens + bill.cache_read_tokens + bill.cache_write_tokens
        told = [high.input_tokens, high.cache_read_tokens or 0, high.cache_write_tokens or 0]
        if high.input_tokens is not None and read > sum(count or 0 for count in told):
            yield f"I1: attempt {made.number} read {read} tokens, at most {told} are told"


def _view(question: Question, surface: Surface, seen: Seen) -> Iterator[str]:
    """What the consumer was shown: never two attempts mixed, and no tool's input before it was checked."""
    deliver = surface.deliver or question.policy.deliver
    shown: list[list[Event]] = [[]]
    for event in seen.events:
        if isinstance(event, Restarted):
            shown.append([])
        elif not isinstance(event, Ping):
            shown[-1].append(event)
    if len(shown) > 1 and deliver != "restarting":
        yield f"I1: a restart was shown under deliver: {deliver}"
    if deliver == "committed" and seen.outcome is None and shown[-1]:
        yield f"I1: {len(shown[-1])} events were shown of a call without an outcome"
    for events in shown:
        yield from _inputs(question, events)
    # A start that is said again, with nothing between, begins nothing.
    places = [at for at, one in enumerate(shown[-1]) if isinstance(one, Started)]
    starts = sum(at == 0 or shown[-1][at - 1] != shown[-1][at] for at in places)
    if starts > 1 and seen.outcome is not None and seen.outcome.completed:
        yield "I1: two messages were shown as one"
    if surface.door != "run" and seen.outcome is not None and seen.outcome.completed == "whole":
        text = "".join(one.text for one in shown[-1] if isinstance(one, Delta) and one.kind == "text")
        if text != seen.outcome.attempts[-1].text:
            yield f"I1: {text[:60]!r} was shown, and {seen.outcome.attempts[-1].text[:60]!r} accepted"


def _inputs(question: Question, events: Sequence[Event]) -> Iterator[str]:
    section = question.policy.json_document
    if section is None or section.where == "text" or (section.mode or question.policy.mode) == "observe":
        return
    names = {one.index: one.name for one in events if isinstance(one, BlockStarted)}
    ended = {one.index for one in events if isinstance(one, BlockStopped)}
    inputs: dict[int, str] = {}
    for one in events:
        if isinstance(one, Delta) and one.kind == "tool_input":
            inputs[one.index] = inputs.get(one.index, "") + one.text
    for index, text in inputs.items():
        if index not in ended:
            yield f"I3: input of the tool {names.get(index)} was shown before its block ended"
        try:
            json.loads(text)
        except ValueError:
            yield f"I3: broken input of the tool {names.get(index)} was shown"


def _secrets(seen: Seen) -> Iterator[str]:
    kept = (seen.outcome, seen.error, getattr(seen.error, "record", None), seen.telemetry, seen.runtime)
    if any(CANARY in text for one in kept for text in (repr(one), str(one))):
        yield "I10: the key stands in what came out"
    record = seen.record
    if record is not None:
        plain = msgspec.structs.replace(record, message=None) if isinstance(record, Outcome) else record
        if CANARY in json.dumps(msgspec.to_builtins(plain, enc_hook=repr)):
            yield "I10: the key stands in the record"


def _budgets(question: Question, seen: Seen) -> Iterator[str]:
    """Nothing is held any more, and what was charged covers what was truly spent (I5, I6)."""
    charged = [one for made in (seen.record.attempts if seen.record else ()) for one in made.charged]
    if question.policy.budgets:
        true = sum(_micro_usd(one) for one in seen.exchanges)
        covered = sum(one.settled + one.uncertain for one in charged)
        if true > covered:
            yield f"I5: {true} micro-USD were spent, {covered} are covered"
    for balance in seen.balances:
        if balance.held:
            yield f"I6: {balance} still holds"
        if balance.taken > balance.cap:
            yield f"I5: {balance} is exceeded"


def _made(exchange: Exchange) -> int:
    """Output tokens: a script may say more than a provider makes, who keeps to the request's own limit."""
    limit = exchange.body.get("max_tokens")
    return min(exchange.bill.output_tokens, limit) if isinstance(limit, int) else exchange.bill.output_tokens


def _micro_usd(exchange: Exchange) -> int:
    bill = exchange.bill
    dear = bill.input_tokens * 3 + _made(exchange) * 15
    return round(dear + bill.cache_read_tokens * 0.3 + bill.cache_write_tokens * 3.75)


async def balances(runtime: Runtime) -> list[Balance]:
    """What the ledgers of a runtime say."""
    ledgers = [admission.ledger for admission in runtime.accounts._open.values()]
    return [await ledger.balance(scope.key) for ledger in ledgers for scope in await ledger.scopes()]


class Tasks:
    """The tasks of the running loop, before and after."""

    def __init__(self) -> None:
        self._before = self._all()

    @staticmethod
    def _all() -> set[Any]:
        try:
            return set(asyncio.all_tasks())
        except RuntimeError:
            # On trio no task outlives its nursery.
            return set()

    def leaks(self) -> list[str]:
        return [f"I6: the task {task!r} is left" for task in self._all() - self._before]


async def asked(ask: Callable[[], Awaitable[Outcome | None]]) -> tuple[Outcome | None, BaseException | None]:
    """An outcome, or the package's own error; anything else escapes as what it is."""
    try:
        return await ask(), None
    except StreamguardError as error:
        return None, error
    except Exception as error:  # what must not happen is reported with its cell
        return None, error
