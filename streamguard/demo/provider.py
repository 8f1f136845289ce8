"""The simulated provider as a server of its own: any Messages client can be pointed at it. No key, no download.

In charge of what is answered to a request nobody wrote a script for. Invoices as `streamguard init` writes them are
extracted, well or badly, as the demo's model does it. A request with tools or with an output schema gets a value that
satisfies it; anything else a short JSON object.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import msgspec

from streamguard.demo.invoices import found
from streamguard.demo.sample import sample
from streamguard.demo.simulated import (
    CHARACTERS_PER_TOKEN,
    DELTA_CHARACTERS,
    FIRST_TOKEN,
    LAG_TOKENS,
    TICK,
    Spoken,
    bad_service,
    spoken,
)
from streamguard.testing import wire
from streamguard.testing.batches import BatchProvider
from streamguard.testing.record import Exchange
from streamguard.testing.server import ScriptedServer
from streamguard.testing.steps import Item, pace, pause, status, truth

MAX_PROMPTS = 10_000
"""Prompts that are remembered. The n-th request with the same prompt gets the n-th answer, until it is forgotten."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """How the provider behaves."""

    seed: int = 1
    """Other answers, and other things going wrong."""
    bad_answers: float = 0.16
    """Share of bad answers about invoices, from 0 to 1. Above 0, some requests are refused, too."""
    speed: float = 1.0
    """How much faster than a live model: 1 is 80 tokens a second."""
    refuses: bool = True
    """Whether some requests are refused where some answers are bad."""
    batch_seconds: float = 8.0
    """From a Message Batch's creation to its end, at speed 1. Real ones take minutes to an hour."""


def provider(order: Order, *, port: int = 0, keep: int | None = 0) -> ScriptedServer:
    """Return a server of the simulated provider. Enter it to serve.

    :param port: where to listen on 127.0.0.1; 0 for any free port.
    :param keep: how many of the latest requests are recorded; `None` for all.
    """
    asked: OrderedDict[str, int] = OrderedDict()
    """How often each prompt was asked."""

    def seed(body: Mapping[str, Any]) -> str:
        key = hashlib.sha256(json.dumps(body.get("messages"), sort_keys=True).encode()).hexdigest()
        asked[key] = asked.pop(key, 0) + 1
        if len(asked) > MAX_PROMPTS:
            asked.popitem(last=False)
        return f"{order.seed}/{key}/{asked[key]}"

    def choose(exchange: Exchange) -> list[Item]:
        body = exchange.body if isinstance(exchange.body, Mapping) else {}
        return attempt(body, seed(body), order)

    def answer(params: Mapping[str, Any], _: int) -> Mapping[str, Any]:  # how often it was asked is counted here
        return batched(params, seed(params), order)

    batches = BatchProvider(
        answer,
        seconds=order.batch_seconds / order.speed,
        epoch=time.time() - time.monotonic(),
        seed=order.seed,
    )
    return ScriptedServer(script_for=choose, port=port, keep=keep, batches=batches)


def batched(body: Mapping[str, Any], seed: str, order: Order) -> dict[str, Any]:
    """Return what a request in a Message Batch comes to: an attempt's whole answer. A busy provider is none of it."""
    items = attempt(body, seed, msgspec.structs.replace(order, refuses=False))
    message = wire.assemble(b"".join(item for item in items if isinstance(item, bytes)))
    message["usage"] = {**message["usage"], "service_tier": "batch"}
    return {"type": "succeeded", "message": message}


def attempt(body: Mapping[str, Any], seed: str, order: Order) -> list[Item]:
    """Return what the provider does on one attempt at a request: the same for the same seed."""
    source = random.Random(seed)  # noqa: S311
    text = _prompt(body)
    record = found(text)
    if record is not None and order.refuses and order.bad_answers > 0 and (refusal := bad_service(source)) is not None:
        return refusal
    tool, schema = _wanted(body)
    if tool is not None:
        value = record if record is not None and _fits(record, schema) else sample(schema or {"type": "object"})
        said = Spoken(json.dumps(value, ensure_ascii=False), "tool_use")
    elif schema is not None and not (record is not None and _fits(record, schema)):
        said = Spoken(json.dumps(sample(schema), ensure_ascii=False))
    elif record is not None:
        said = spoken(record, source, order.bad_answers)
    else:
        said = Spoken(json.dumps({"answer": "This is the simulated provider: no model reads what you ask."}))
    said = _within(said, body.get("max_tokens"))
    asked = math.ceil(len(text) / CHARACTERS_PER_TOKEN)
    seconds = source.lognormvariate(math.log(FIRST_TOKEN[0]), FIRST_TOKEN[1]) / order.speed
    start = (
        wire.block_start(style=wire.REAL)
        if tool is None
        else wire.block_start(
            type="tool_use", id=f"toolu_{source.getrandbits(48):012x}", name=tool, input={}, style=wire.REAL
        )
    )
    delta = wire.text_delta if tool is None else wire.input_json_delta
    deltas = [delta(piece, style=wire.REAL) for piece in wire.pieces(said.text, DELTA_CHARACTERS)]
    model = body.get("model")
    return [
        truth(input=asked, output=said.tokens, lag=LAG_TOKENS),
        pause(seconds),
        status(),
        wire.message_start(
            model=model if isinstance(model, str) else wire.MODEL,
            id=f"msg_{source.getrandbits(64):016x}",
            usage={"input_tokens": asked},
            style=wire.REAL,
        ),
        start,
        wire.ping(),
        pace(order.speed / TICK),
        *deltas,
        pace(None),
        wire.block_stop(style=wire.REAL),
        wire.message_delta(said.stop_reason, usage={"output_tokens": said.tokens}, style=wire.REAL),
        wire.message_stop(style=wire.REAL),
    ]


def _within(said: Spoken, max_tokens: Any) -> Spoken:
    """The answer, cut at `max_tokens` as the API cuts it."""
    if not isinstance(max_tokens, int) or said.tokens <= max_tokens:
        return said
    return Spoken(said.text[: math.floor(max_tokens * CHARACTERS_PER_TOKEN)], "max_tokens")


def _prompt(body: Mapping[str, Any]) -> str:
    """All text of the messages."""
    messages = body.get("messages")
    texts: list[str] = []
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, Mapping) else None
        blocks = content if isinstance(content, list) else [{"type": "text", "text": content}]
        for block in blocks:
            text = block.get("text") if isinstance(block, Mapping) else None
            texts += [text] if isinstance(text, str) else []
    return "\n".join(texts)


def _wanted(body: Mapping[str, Any]) -> tuple[str | None, Any]:
    """The tool to call, if one must or may be called first; and the schema of the answer."""
    tools = [tool for tool in body.get("tools") or () if isinstance(tool, Mapping) and "input_schema" in tool]
    choice = body.get("tool_choice")
    kind = choice.get("type") if isinstance(choice, Mapping) else None
    answered = isinstance(messages := body.get("messages"), list) and "tool_result" in json.dumps(messages[-1:])
    if tools and kind != "none" and not answered:
        named = choice.get("name") if isinstance(choice, Mapping) else None
        tool = next((tool for tool in tools if tool.get("name") == named), tools[0])
        return str(tool.get("name")), tool["input_schema"]
    config = body.get("output_config")
    form = config.get("format") if isinstance(config, Mapping) else body.get("output_format")
    return None, form.get("schema") if isinstance(form, Mapping) else None


def _fits(record: Any, schema: Any) -> bool:
    """Whether a record has what a schema of an object asks for, by its names."""
    if schema is None:
        return True
    names = schema.get("properties") if isinstance(schema, Mapping) else None
    return isinstance(names, Mapping) and set(names) <= set(record)
