"""The simulated provider answers whatever a Messages client asks, the same for the same seed."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import jsonschema
import pytest

from streamguard.demo.documents import SCHEMA, documents
from streamguard.demo.provider import Order, provider

GOOD = Order(bad_answers=0, speed=1000)
TOOL = {
    "name": "record",
    "input_schema": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]},
}


def ask(order: Order, text: str, times: int = 1, **more: Any) -> list[anthropic.types.Message]:
    """Ask the provider by the SDK's plain client."""
    request = {"model": "claude-haiku-4-5", "max_tokens": 1024, "messages": [{"role": "user", "content": text}], **more}
    with (
        provider(order).in_thread() as server,
        anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0) as client,
    ):
        return [client.messages.create(**request) for _ in range(times)]


def test_an_invoice_is_extracted() -> None:
    """What stands in the prompt comes back as the record."""
    [document] = documents(1, 5)
    [message] = ask(GOOD, f"Extract this:\n{document.text}")
    assert json.loads(message.content[0].text) == document.record
    assert (message.model, message.stop_reason, message.usage.output_tokens > 20) == (
        "claude-haiku-4-5",
        "end_turn",
        True,
    )


def test_a_tool_is_called_with_what_its_schema_wants() -> None:
    """The first tool, with a value that its schema allows."""
    [message] = ask(GOOD, "hello", tools=[TOOL])
    [block] = message.content
    assert (block.type, block.name, block.input, message.stop_reason) == ("tool_use", "record", {"n": 1}, "tool_use")


@pytest.mark.parametrize("text", ["hello", documents(1, 5)[0].text])
def test_an_output_schema_is_satisfied(text: str) -> None:
    """By the invoice's record where there is one, else by a sample."""
    schema = {name: value for name, value in SCHEMA.items() if name != "$schema"}
    schema["properties"] = {
        name: {"type": value["type"]} if "pattern" in value else value for name, value in schema["properties"].items()
    }
    [message] = ask(GOOD, text, output_config={"format": {"type": "json_schema", "schema": schema}})
    jsonschema.validate(json.loads(message.content[0].text), schema)


def test_an_answer_is_cut_at_max_tokens() -> None:
    """As the API cuts it."""
    [message] = ask(GOOD, documents(1, 5)[0].text, max_tokens=20)
    assert message.stop_reason == "max_tokens"


def test_bad_answers_come_by_the_seed() -> None:
    """The n-th answer to a prompt is the same in every run, and differs from attempt to attempt."""
    text = documents(1, 5)[0].text
    order = Order(bad_answers=1, speed=1000, seed=12)

    def texts() -> list[str]:
        return [one.content[0].text for one in ask(order, text, times=3)]

    first = texts()
    assert texts() == first
    assert len(set(first)) > 1
