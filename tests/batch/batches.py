"""Small extractors for tests: a provider on a socket of this machine, which answers what a row's text says."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from streamguard.batch import Extractor
from streamguard.policy.file import loads_policy
from streamguard.testing import ScriptedServer, answer, pause, script, status
from streamguard.testing.record import Exchange

POLICY = """
version: 1
timeouts: {total: 60}
json: {schema: {type: object, properties: {n: {type: integer}}, required: [n], additionalProperties: false}}
"""


def request(row: Mapping[str, Any]) -> dict[str, Any]:
    """The request of a row: its text is the user's."""
    return {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": row["text"]}]}


class Provider:
    """A server in a thread. A text `bad …` gets an answer that its schema refuses; `slow …` takes a while."""

    def __init__(self, *, refuse: int | None = None, delay: float = 0.0) -> None:
        self.asked: Counter[str] = Counter()
        self.refuse, self.delay, self.slow = refuse, delay, 30.0
        self.server = ScriptedServer(script_for=self._script)

    @property
    def base_url(self) -> str:
        return self.server.url

    def _script(self, exchange: Exchange) -> Any:
        text = exchange.body["messages"][-1]["content"]
        self.asked[text] += 1
        if self.refuse is not None:
            return script([status(self.refuse)])
        delay = self.slow if text.startswith("slow") else self.delay
        wait = [pause(delay)] if delay else []
        if text.startswith("bad"):
            return script([*wait, *answer('{"n": "x"}')])
        return script([*wait, *answer(json.dumps({"n": int(text.split()[-1])}))])


@contextmanager
def provider(**options: Any) -> Iterator[Provider]:
    made = Provider(**options)
    with made.server.in_thread():
        yield made


@contextmanager
def extractor(base_url: str, policy: str = POLICY, **options: Any) -> Iterator[Extractor]:
    """An extractor that is closed."""
    made = Extractor(loads_policy(policy), **{"request": request, "base_url": base_url, **options})
    try:
        yield made
    finally:
        made.close()


def rows(*texts: str) -> list[dict[str, Any]]:
    """Rows with ids from 0."""
    return [{"id": number, "text": text} for number, text in enumerate(texts)]
