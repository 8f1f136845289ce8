"""What Prometheus is told."""

from __future__ import annotations

import re

from streamguard import JsonDocument, Policy, Retry, Rule
from streamguard.proxy.metrics import Metrics
from streamguard.testing import wire
from tests.proxy.running import HEADERS, TOTAL, Running, with_proxy

GOOD, BAD = wire.text_stream('{"a": 1}'), wire.text_stream('{"a" 1}')
POLICY = Policy(
    timeouts=TOTAL,
    json=JsonDocument(),
    retry=Retry(attempts=2, quota=None, rules=[Rule(when=["json.*"])]),
)


def samples(text: str) -> dict[str, float]:
    """Every sample of an exposition, but for buckets and creation times."""
    found = re.findall(r"^(streamguard_[a-z_]+(?:\{[^}]*\})?) (\S+)$", text, re.MULTILINE)
    return {name: float(value) for name, value in found if "_quota" not in name and "_created" not in name}


def test_calls_attempts_tokens_and_refusals_are_counted() -> None:
    """One call of two attempts, one refusal: every counter that they move, in the exposition format."""

    async def test(running: Running) -> None:
        await running.ask()
        await running.http.get(f"{running.url}/nothing")
        response = await running.http.get(f"{running.url}/metrics")
        assert response.headers["content-type"].startswith("text/plain")
        found = samples(response.text)
        mine = '{client="local",policy="default"}'
        assert found['streamguard_calls_total{client="local",end="whole",policy="default"}'] == 1
        assert found["streamguard_attempts_total" + mine] == 2
        aborted = 'streamguard_attempts_aborted_total{client="local",policy="default",reason="json.malformed"}'
        assert found[aborted] == 1
        assert found['streamguard_tokens_total{client="local",kind="output",policy="default"}'] > 2
        assert found["streamguard_cost_usd_total" + mine] > 0
        assert found["streamguard_call_seconds_count" + mine] == 1
        assert found["streamguard_first_token_seconds_count" + mine] == 2
        assert found['streamguard_http_requests_total{kind="messages",status="200"}'] == 1
        assert found['streamguard_refused_total{refusal="no_such_path"}'] == 1
        assert found["streamguard_calls_running"] == 0
        assert found["streamguard_client_connections"] >= 1
        opened = await running.http.get(
            f"{running.url}/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"}
        )
        assert opened.text.endswith("# EOF\n")

    with_proxy([BAD, GOOD], test, POLICY)


def test_no_label_is_the_clients_to_choose() -> None:
    """Models, paths and headers are the client's words: as labels they would fill the memory."""

    async def test(running: Running) -> None:
        await running.ask(model="canary-model", headers={**HEADERS, "user-agent": "canary-agent"})
        await running.http.get(f"{running.url}/canary-path")
        assert "canary" not in (await running.http.get(f"{running.url}/metrics")).text

    with_proxy([GOOD], test, POLICY)


def test_two_proxies_count_apart() -> None:
    """Each has a registry of its own."""

    async def test(running: Running) -> None:
        found = samples((await running.http.get(f"{running.url}/metrics")).text)
        assert not [name for name in found if name.startswith("streamguard_calls_total")]

    with_proxy([GOOD], test, POLICY)


def test_an_upstream_chooses_no_labels() -> None:
    """Of all statuses that it may answer with, those with a meaning are told apart."""
    metrics = Metrics()
    for status in range(100, 600):
        metrics.answered("models", status)
    text = metrics.exposition("")[1].decode()
    lines = [line for line in text.splitlines() if line.startswith("streamguard_http_requests_total{")]
    assert len(lines) < 80
    assert any('status="529"' in line for line in lines)
    assert sum(float(line.rpartition(" ")[2]) for line in lines) == 500
