"""What the tests of the library doors share: texts, rules, a request, an open stream."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from streamguard import (
    JsonDocument,
    Retry,
    Rule,
)
from streamguard.events import Failed
from streamguard.testing import ScriptedServer, wire
from tests.clients import plain_client

TEXT = '{"total": 12}'


BAD = '{"total" 12}'


JSON = JsonDocument()


AGAIN = Retry(attempts=2, rules=[Rule(when=["*"])])


REQUEST: dict[str, Any] = {"model": wire.MODEL, "max_tokens": 64, "messages": [{"role": "user", "content": "Extract."}]}


BROKEN = Failed(reason="provider.overloaded", message="…", status=529, sent=True, billable=False)


@asynccontextmanager
async def opened(items: Any, door: str = "create") -> AsyncIterator[tuple[ScriptedServer, Any]]:
    """A stream of the SDK, opened by the caller."""
    async with ScriptedServer(items) as server, plain_client(server.url) as client:
        if door == "create":
            yield server, await client.messages.create(**REQUEST, stream=True)
        else:
            async with client.messages.stream(**REQUEST) as entered:
                yield server, entered
