"""Recorded answers of real servers, and of the real API, come out as the documentation says."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from streamguard import Policy
from tests import servers


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")
@pytest.mark.parametrize("server", servers.SERVERS)
def test_the_page_says_what_comes_out(server: str) -> None:
    """`docs/reference/servers.md` has every recording with its verdicts; write it anew with `python -m tests.servers`."""
    page = servers.PAGE.read_text(encoding="utf-8")
    section = page.partition(f"### {servers.SERVERS[server]}\n")[2].partition("\n#")[0]

    async def rows() -> list[str]:
        return [await servers.row(server, scenario, raw) for scenario, raw in servers.recordings(server)]

    found = anyio.run(rows)
    assert len(found) >= 1
    assert [line for line in section.splitlines() if line.startswith("| ")][2:] == found


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")
@pytest.mark.parametrize("server", servers.SERVERS)
def test_the_middleware_says_the_same_and_messages_are_the_sdks(server: str) -> None:
    """One reader behind every door. Content and usage of an accepted answer are those of the SDK alone."""

    async def main() -> None:
        for scenario, raw in servers.recordings(server):
            ours, message = await servers.guarded(raw, Policy())
            assert (await servers.through_middleware(raw, Policy()))[0] == ours, scenario
            theirs, plain = await servers.plain(raw)
            if message is not None and theirs == "accepted":
                assert told(message)["content"] == told(plain)["content"], scenario

    anyio.run(main)


REFUSED = {"076.sse": "`stop.refusal`", "086.sse": "`transport.decode`"}
"""A refusal, and a fixture of two answers that were joined."""


@pytest.mark.parametrize("part", range(5))
def test_the_real_api_passes_as_the_sdk_has_it(part: int) -> None:
    """Message, usage and stop reason of every recording are the plain SDK's."""

    async def main() -> None:
        for name, body in servers.api_recordings()[part::5]:
            ours, message = await servers.guarded(servers.head(body), Policy())
            assert ours == REFUSED.get(name, "whole"), name
            if message is not None:
                theirs, plain = await servers.plain(servers.head(body))
                assert (theirs, told(message)) == ("accepted", told(plain)), name

    anyio.run(main)


def told(message: Any) -> dict[str, Any]:
    """A message as plain data, without what `messages.stream()` adds for structured outputs."""
    body: dict[str, Any] = message.to_dict(warnings=False)
    for block in body["content"]:
        block.pop("parsed_output", None)
        if block["type"] == "tool_use":
            block["input"] = block.get("input") or {}  # a call without arguments, on servers that leave it out
    return body
