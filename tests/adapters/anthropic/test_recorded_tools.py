"""Recorded calls of the real API under their own tools' schemas: no abort where the SDK accepts and the input is valid."""

from __future__ import annotations

import json
import zipfile
from functools import cache
from typing import Any, NamedTuple

import anyio
import jsonschema
import pytest

from streamguard import JsonDocument, Policy
from tests import servers
from tests.data import path

NOT_ASKED = ("stream", "model")
"""What is left out of recorded requests: the SDK warns of models that have been retired since."""


class Recorded(NamedTuple):
    """An answer of the API, and what was asked."""

    name: str
    body: bytes
    request: dict[str, Any]

    @property
    def policies(self) -> list[Policy]:
        """The inputs of its tools, and its text where the request gives that a schema, each as a document."""
        asked = self.request.get("output_config", {}).get("format")
        places = ["tools"] * bool(self.request.get("tools")) + ["text"] * bool(asked)
        return [Policy(json=JsonDocument(where=where, schema="request")) for where in places]


@cache
def recorded() -> tuple[Recorded, ...]:
    """Every recording whose request is known with tools or with a schema of its answer."""
    with zipfile.ZipFile(path("api_recordings.zip")) as archive:
        rows = [json.loads(line) for line in archive.read("index.jsonl").splitlines()]
        found = []
        for row in rows:
            asked = {name: value for name, value in (row.get("request") or {}).items() if name not in NOT_ASKED}
            if asked.get("tools") or asked.get("output_config"):
                found.append(Recorded(row["file"], archive.read(row["file"]), {**servers.REQUEST, **asked}))
    return tuple(found)


def calls(message: Any, request: dict[str, Any]) -> list[tuple[dict[str, Any], Any]]:
    """The schema and the input of each call of one of the caller's tools."""
    schemas = {tool.get("name"): tool.get("input_schema") for tool in request.get("tools", ())}
    used = [block for block in message.content if block.type == "tool_use" and schemas.get(block.name) is not None]
    return [(schemas[block.name], block.input) for block in used]


@pytest.mark.parametrize("part", range(4))
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")
def test_what_its_own_schema_allows_is_accepted(part: int) -> None:
    """The SDK alone accepts, `jsonschema` says valid, and so does the guarded call: whole, at every policy."""

    async def main() -> int:
        judged = 0
        for one in recorded()[part::4]:
            theirs, plain = await servers.plain(servers.head(one.body))
            assert theirs == "accepted", one.name
            for schema, value in calls(plain, one.request):
                jsonschema.Draft202012Validator(schema).validate(value)
                judged += 1
            for policy in one.policies:
                ours, _ = await servers.guarded(servers.head(one.body), policy, one.request)
                assert ours == "whole", (one.name, policy.json_document)
        return judged

    assert anyio.run(main) > 0


def test_the_schemas_do_judge() -> None:
    """The same calls under schemas that they break are refused, every one."""

    async def main() -> list[str]:
        found = []
        for one in recorded():
            _, plain = await servers.plain(servers.head(one.body))
            if not calls(plain, one.request):
                continue
            stricter = [
                {**tool, "input_schema": {"type": "object", "required": ["what nobody sends"]}}
                if "input_schema" in tool
                else tool
                for tool in one.request["tools"]
            ]
            request = {**one.request, "tools": stricter}
            found.append((await servers.guarded(servers.head(one.body), one.policies[0], request))[0])
        return found

    found = anyio.run(main)
    assert set(found) == {"`json.schema`"}
    assert len(found) > 10
