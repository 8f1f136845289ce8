"""How long a token takes to be refused says nothing about the tokens that there are."""

from __future__ import annotations

import random
import statistics
import time

import pytest

from streamguard.http.refusals import Refused
from streamguard.proxy.access import Access
from streamguard.proxy.config import Client, ProxyConfig

TOKEN = "Zq3v-client-token-0123456789abcdefABCDEF"
NAMES = [f"client{number}" for number in range(20)]
REQUESTS = 100_000


def presented() -> dict[str, str]:
    """Wrong tokens of the same length: nothing of a real one right, half of it, all but the last character."""
    return {
        "nothing": "".join("#" for _ in TOKEN),
        "half": TOKEN[:20] + "#" * (len(TOKEN) - 20),
        "all but one": TOKEN[:-1] + "#",
    }


@pytest.mark.slow
def test_a_token_that_is_nearly_right_takes_as_long_as_another() -> None:
    """Over 100,000 requests in random order: medians and quartiles differ by less than a fiftieth."""
    clients = tuple(Client(name=name, token_env=f"STREAMGUARD_{name.upper()}") for name in NAMES)
    config = ProxyConfig(clients=clients)
    tokens = {name: TOKEN if at == 10 else f"{at:02}-another-token-0123456789abcdef" for at, name in enumerate(NAMES)}
    access = Access(config, tokens, has_key=True)
    headers = {name: [(b"host", b"localhost"), (b"x-api-key", token.encode())] for name, token in presented().items()}
    times: dict[str, list[int]] = {name: [] for name in headers}
    order = list(headers) * (REQUESTS // len(headers) + 1)
    random.Random(1).shuffle(order)
    clock = time.perf_counter_ns
    for name in order:
        given = headers[name]
        began = clock()
        try:
            access.caller(given)
        except Refused:
            times[name].append(clock() - began)
    assert sum(map(len, times.values())) == len(order)
    for points in zip(*(statistics.quantiles(found, n=4) for found in times.values()), strict=True):
        assert max(points) / min(points) < 1.02, dict(zip(times, points, strict=True))
