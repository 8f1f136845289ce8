"""How a provider answers, what it says of it, and what it bills: by the documented rules, whatever it says.

A provider counts what it makes. It delivers text as soon as it is made; thinking it may keep to itself. A connection
that breaks does not stop it, unless the budget's owner declared that it does: then it stops within 256 tokens.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from streamguard.testing import Exchange, pause, repeat, stall, wire
from streamguard.testing.steps import Item, error, omit_last_chunk, rst, status
from tests.matrix.billing.rates import NOTHING, Owed, Sampling
from tests.matrix.billing.requests import Asked

UNITS = {
    "The quick brown fox jumps over the lazy dog near the river bank. ": 24,
    '{"id": 7, "kind": "invoice", "lines": []}\n': 23,
    "发票号码七号请求书。": 10,
    "getHTTPSUrlForXMLHttpRequest();": 20,
    "3141592653589793 ": 7,
}
"""Pieces of answers, and their tokens (`ctok` 1.3.0)."""

LAG = 190
"""Tokens that a provider who stops at a disconnect may still make."""
RATES = (20, 80, 300)
"""Tokens that a model makes in a second."""


class Made(NamedTuple):
    """What a provider makes of a request when nobody goes away."""

    asked: Asked
    unit: str
    units: int
    hidden: int
    """Thinking of which no word is shown."""
    shown: bool
    """Whether there is at least a block of it: gateways leave that out."""
    rate: int
    split: Sampling
    """The input by how it is billed."""
    geo: str
    stops: bool
    """Whether a disconnect stops it."""

    @property
    def visible(self) -> int:
        return self.units * UNITS[self.unit]

    @property
    def output(self) -> int:
        return self.visible + self.hidden

    def owed(self, output: int) -> Owed:
        """The bill for so much output."""
        most = min(output, self.asked.most_output)
        return Owed((self.split._replace(output=most),), speed=self.asked.speed, geo=self.geo)

    def seen(self, exchange: Exchange) -> int:
        """Tokens of the text that was delivered."""
        return exchange.deltas_sent * UNITS[self.unit]

    def until(self, exchange: Exchange, *, thought: int = 0, silent: float = 0.0) -> Owed:
        """The bill of an answer that was left or cut.

        :param thought: thinking that was done by then.
        :param silent: seconds since the last output in which it worked on.
        """
        if not self.stops:
            return self.owed(self.output)
        # What is made in a silence, and then shown, was not made before: no more than the whole.
        done = self.seen(exchange) + thought + round(silent * self.rate) + LAG
        return self.owed(min(self.output, done))

    def read(self, exchange: Exchange, output: int | None = None) -> Owed:
        """The bill of an answer that says all there is, unless its reader left before that.

        :param output: what was made by its end, where that is not what is made otherwise.
        """
        if exchange.complete or not self.stops:
            return self.owed(self.output if output is None else output)
        return self.until(exchange, thought=self.hidden)


class Answer(NamedTuple):
    """One answer."""

    name: str
    items: Sequence[Item]
    bill: Callable[[Exchange], Owed]
    goes_on: bool = False
    """Whether the provider works on where nobody can see it, so that a record cannot tell."""
    unknown: bool = False
    """Whether what it tells of its cost cannot be relied on, so that nothing of it may be called settled or exact."""


def made(chance: random.Random, asked: Asked, *, stops: bool) -> Made:
    """What a provider makes of a request."""
    unit = chance.choice(sorted(UNITS))
    hidden = chance.choice((0, asked.most_output // 2, asked.most_output)) if asked.thinks else 0
    room = (asked.most_output - hidden) // UNITS[unit]
    units = min(room, chance.choice((0, 1, 3, 12, 60, 200)))
    geo = asked.geo or chance.choice(("global", "us"))
    tokens = asked.input_tokens
    shares = {"plain": tokens}
    if asked.lifetimes:
        read, rest = (tokens * chance.choice((0, 3, 10)) // 10 for _ in range(2))
        written = min(rest, tokens - read)
        long = written if asked.lifetimes == ("1h",) else written // 2 if "1h" in asked.lifetimes else 0
        shares = {"read": read, "written_1h": long, "written_5m": written - long, "plain": tokens - read - written}
    split = Sampling(asked.model, **shares)
    shown = chance.random() < 0.5
    return Made(asked, unit, units, hidden, shown, chance.choice(RATES), split, geo, stops)


# The words on the wire


def _input(it: Made, *, how: str = "sum") -> dict[str, Any]:
    """The input's counts.

    :param how: whether writes are told as a sum with its parts, as parts, or as a sum alone.
    """
    split = it.split
    written = split.written_5m + split.written_1h
    counts: dict[str, Any] = {"input_tokens": split.plain, "inference_geo": it.geo}
    if it.asked.lifetimes:
        parts = {"ephemeral_5m_input_tokens": split.written_5m, "ephemeral_1h_input_tokens": split.written_1h}
        counts["cache_read_input_tokens"] = split.read
        if how != "parts":
            counts["cache_creation_input_tokens"] = written
        if how != "alone":
            counts["cache_creation"] = parts
    if it.asked.speed != "standard":
        counts["speed"] = it.asked.speed
    return counts


def _start(it: Made, counts: dict[str, Any]) -> list[Item]:
    return [wire.message_start(model=it.asked.model, usage=counts)]


def _blocks(it: Made, units: int | None = None, *, close: bool = True) -> list[Item]:
    """Thinking without words, and text."""
    items: list[Item] = []
    if it.hidden and it.shown:
        items += [wire.block_start(0, "thinking"), wire.signature_delta(index=0), wire.block_stop(0)]
    at = len(items) and 1
    pieces = [wire.text_delta(it.unit, at) for _ in range(it.units if units is None else units)]
    return [*items, wire.block_start(at, "text"), *pieces, *([wire.block_stop(at)] if close else [])]


def _end(counts: dict[str, Any]) -> list[Item]:
    return [wire.message_delta("end_turn", usage=counts), wire.message_stop()]


def _whole(name: str, it: Made, start: dict[str, Any], end: dict[str, Any]) -> Answer:
    items = [*_start(it, start), *_blocks(it), *_end(end)]
    return Answer(name, items, it.read)


Ending = Callable[[random.Random, Made], Answer]


def _complete(chance: random.Random, it: Made) -> Answer:
    counts = _input(it, how=chance.choice(("sum", "parts", "alone")))
    return _whole("complete", it, counts, counts | {"output_tokens": it.output})


def _output_only(_: random.Random, it: Made) -> Answer:
    return _whole("output only at the end", it, _input(it), {"output_tokens": it.output})


def _late_input(_: random.Random, it: Made) -> Answer:
    return _whole("input only at the end", it, {"input_tokens": 9}, _input(it) | {"output_tokens": it.output})


def _uncounted(_: random.Random, it: Made) -> Answer:
    geo = {"inference_geo": it.geo}
    return _whole("input never counted", it, {"input_tokens": 9} | geo, {"output_tokens": it.output} | geo)


def _iterated(chance: random.Random, it: Made) -> Answer:
    counts = _input(it) | {"output_tokens": it.output}
    one = {name: count for name, count in counts.items() if name not in ("inference_geo", "speed")}
    entry = one | {"type": "message", "model": it.asked.model}
    if chance.random() < 0.5:
        entry["output_tokens"] = "many"
    return _whole("iterations", it, _input(it), counts | {"iterations": [entry]})


LIES: tuple[dict[str, Any], ...] = (
    {"input_tokens": -5},
    {"input_tokens": "-5"},
    {"output_tokens": -1},
    {"output_tokens": 10**12},
    {"output_tokens": 1.5},
    {"cache_read_input_tokens": -4990},
    {"cache_read_input_tokens": "-4990"},
    {"cache_creation_input_tokens": True},
    {"cache_creation_input_tokens": "-1"},
    {"cache_creation_input_tokens": [7]},
    {"cache_creation": {"ephemeral_1h_input_tokens": -7}},
    {"input_tokens": 3, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0},
    {"output_tokens": 0, "output_tokens_details": {"thinking_tokens": 9}},
    {"iterations": "several"},
    {"iterations": [{"type": "message", "input_tokens": -9, "output_tokens": 1}]},
    {"iterations": [{"type": "compaction"}]},
)
"""Counts that cannot be true. Those of the output may hide anything up to the most that the request allows."""

UNPRICED: tuple[dict[str, Any], ...] = (
    {"server_tool_use": {"web_search_requests": -3}},
    {"server_tool_use": {"hologram_requests": 40}},
    {"server_tool_use": {"web_search_requests": "forty"}},
    {"service_tier": "turbo"},
    {"speed": "turbo"},
)
"""What no documented price covers, beside counts that are true."""


def _impossible(chance: random.Random, it: Made) -> Answer:
    lie = chance.choice(LIES)
    told = _input(it) | {"output_tokens": it.output} | lie
    start = {"input_tokens": 9} if chance.random() < 0.5 else _input(it)
    items = [*_start(it, start), *_blocks(it), *_end(told)]
    output = it.output if all("output" not in name and name != "iterations" for name in lie) else it.asked.most_output
    return Answer(f"impossible: {lie}", items, lambda exchange: it.read(exchange, output), unknown=True)


def _unpriced(chance: random.Random, it: Made) -> Answer:
    odd = chance.choice(UNPRICED)
    told = _input(it) | {"output_tokens": it.output} | odd
    answer = _whole(f"unpriced: {odd}", it, _input(it), told)
    return answer._replace(unknown=True)


def _light_output(_: random.Random, it: Made) -> Answer:
    """Less output than was seen."""
    told = _input(it) | {"output_tokens": it.output if it.visible < 250 else 1}
    return _whole("output lighter than its text", it, _input(it), told)


def _cut(chance: random.Random, it: Made) -> Answer:
    """The connection breaks somewhere."""
    items = [*_start(it, chance.choice((_input(it), {"input_tokens": 9}))), *_blocks(it), *_end({"output_tokens": 1})]
    at = chance.randint(0, len(items) - 2)
    items = [*items[:at], chance.choice((rst(), omit_last_chunk()))]
    hidden = it.hidden if at else it.output
    return Answer(
        "cut", items, lambda exchange: it.until(exchange, thought=hidden), goes_on=not it.stops or bool(hidden)
    )


def _silent(chance: random.Random, it: Made) -> Answer:
    """Nothing comes any more, or only keep-alives; perhaps it works on unseen."""
    where = chance.choice(("head", "start", "thinking", "text"))
    before = {
        "head": [],
        "start": _start(it, _input(it)),
        "thinking": [*_start(it, _input(it)), wire.block_start(0, "thinking")],
        "text": [*_start(it, _input(it)), *_blocks(it, close=False)],
    }[where]
    alive: list[Item] = [stall()] if chance.random() < 0.3 else [repeat([wire.ping(), pause(4.0)])]

    def bill(exchange: Exchange) -> Owed:
        seconds = (exchange.closed_at or 0.0) - exchange.opened_at
        thought = it.hidden if where == "text" else 0
        return it.until(exchange, thought=thought, silent=0.0 if where == "text" and not it.hidden else seconds)

    return Answer(f"silent after the {where}", [*before, *alive], bill, goes_on=True)


def _failed_inside(chance: random.Random, it: Made) -> Answer:
    """An error event inside the stream."""
    units = chance.randint(0, it.units)
    kind = chance.choice(("overloaded_error", "api_error", "rate_limit_error", "invalid_request_error"))
    items = [*_start(it, _input(it)), *_blocks(it, units, close=False), wire.error(kind)]
    done = units * UNITS[it.unit] + it.hidden
    return Answer(
        f"{kind} inside", items, lambda exchange: it.read(exchange, done if it.stops else it.output), goes_on=True
    )


def _refused(chance: random.Random, it: Made) -> Answer:
    """Turned down before any work."""
    kinds = ("rate_limit_error", "overloaded_error", "invalid_request_error", "authentication_error", "not_found_error")
    return Answer("refused", [error(chance.choice(kinds))], lambda _: NOTHING)


def _worked(chance: random.Random, it: Made) -> Answer:
    """An error response of somebody in between, or after the model had answered: the work is billed."""
    blocked = wire.error_body("invalid_request_error", "Output blocked by content filtering policy")
    step = chance.choice(
        (
            status(503, {"content-type": "text/plain"}, "upstream connect error or disconnect/reset before headers"),
            status(400, {}, blocked),
            status(500, {}, wire.error_body("api_error")),
            status(502, {"content-type": "text/html"}, "<html>Bad Gateway</html>"),
            status(504, {}, wire.error_body("timeout_error")),
            status(408, {}, "timeout"),
            status(529, {}, "busy"),
            status(409, {}, '{"detail": "conflict"}'),
        )
    )
    return Answer(f"{step.code} after work", [step], lambda _: it.owed(it.output), goes_on=True)


ENDINGS: tuple[Ending, ...] = (
    *(_complete, _complete, _output_only, _late_input, _uncounted, _iterated, _impossible, _impossible, _unpriced),
    *(_light_output, _cut, _cut, _silent, _silent, _failed_inside, _refused, _worked),
)
