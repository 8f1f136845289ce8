"""Every fault of the catalogue that a socket can show, through the proxy: what the oracle allows, told as documented."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from streamguard import Caps, GaveUp, JsonDocument, Policy, Repetition, Retry, Rule, Timeouts
from streamguard.engine.telemetry import CallCompleted, CallGaveUp
from streamguard.proxy.answers.error_responses import final_status, status_of, type_of
from streamguard.testing import faults
from streamguard.testing.oracle import Expectation
from tests.proxy.running import HEADERS, Running, error_of, served

FAST = [fault for fault in faults.ALL if not fault.slow]
GUARDS: dict[str, Any] = {
    "timeouts": Timeouts(connect=2, first_token=3, progress=3, alive=3, total=8, close_grace=0.2),
    "caps": Caps(characters=50_000, tool_calls=4),
    "json": JsonDocument(schema="request"),
    "repetition": Repetition(),
}
POLICIES = {
    "committed": Policy(deliver="committed", **GUARDS),
    "live": Policy(deliver="live", **GUARDS),
    "twice": Policy(deliver="committed", retry=Retry(attempts=2, quota=None, rules=[Rule(when=["*"])]), **GUARDS),
}


class Seen:
    """What the runtime says of calls, as they end."""

    def __init__(self) -> None:
        self.ended: list[Any] = []

    def __call__(self, record: Any) -> None:
        if isinstance(record, CallCompleted | CallGaveUp):
            self.ended.append(record)


@pytest.fixture(scope="module")
def proxy() -> Iterator[tuple[Running, Seen]]:
    """One proxy for all faults; the header `x-script` chooses one, `x-streamguard-policy` the policy."""
    scripts = {f"{fault.id}": fault.script() for fault in FAST}
    scripts |= {f"{fault.id}-once": fault.script(times=1) for fault in FAST}
    seen = Seen()
    with served(
        [scripts],
        POLICIES["committed"],
        policies=POLICIES,
        by_header=tuple(POLICIES),
        max_event_bytes=1_048_576,
        forward_headers=("x-script",),
    ) as running:
        running.proxy.runtime.hooks = (*running.proxy.runtime.hooks, seen)
        yield running, seen


LATE = re.compile(rb"(: x-streamguard-[^\n]*\n)+\n\Z")
END = b'{"type":"message_stop"}'
NAMES = re.compile(rb"^event: ?[a-z_]+\r?\n", re.MULTILINE)
"""What is said in a comment at the end of a stream, where the head had gone."""


@pytest.fixture(scope="module")
def http() -> Iterator[httpx2.Client]:
    with httpx2.Client(timeout=10) as client:
        yield client


def ask(http: httpx2.Client, url: str, script: str, policy: str, *, stream: bool) -> httpx2.Response:
    headers = {**HEADERS, "x-script": script, "x-streamguard-policy": policy}
    body = {**request_of(f"{script}-{policy}-{stream}"), "stream": stream}
    return http.post(f"{url}/v1/messages", json=body, headers=headers)


def request_of(case: str = "") -> dict[str, Any]:
    """A request for a model of its own, so that one fault's cool-down holds back no other."""
    return {**faults.request(), "model": f"claude-{case}"}


def last(proxy: tuple[Running, Seen], call: str) -> Any:
    """What became of a call."""
    return next(record for record in reversed(proxy[1].ended) if record.call == call)


def reason_told(response: httpx2.Response) -> str | None:
    """Why a call failed, as a client can read it; `None` if it did not. Checks the form it is told in."""
    if response.headers["content-type"].startswith("text/event-stream"):
        if b"event: error\n" not in response.content:
            return None
        assert response.content.count(b"event: error\n") == 1
        error = error_of(response.content)
        details = error["details"]["streamguard"]
        tail = response.content.rpartition(b"event: error\n")[2]
        assert f": x-streamguard-reason: {details['reason']}\n".encode() in tail
        return details["reason"]
    if response.status_code == 200:
        assert response.json()["type"] == "message"
        return None
    assert response.headers["x-streamguard-attempts"] >= "1"
    return response.headers["x-streamguard-reason"]


@pytest.mark.parametrize("how", ["committed", "live", "json"])
@pytest.mark.parametrize("fault", FAST)
def test_each_fault_has_its_documented_result(
    fault: faults.Fault, how: str, proxy: tuple[Running, Seen], http: httpx2.Client
) -> None:
    """The call ends as the oracle allows, and the client is told just that, in the form the documentation gives."""
    policy = "live" if how == "live" else "committed"
    response = ask(http, proxy[0].url, fault.id, policy, stream=how != "json")
    record = last(proxy, call_of(response))
    failed = isinstance(record, CallGaveUp)
    wanted = Expectation(fault.script(), POLICIES[policy], request_of(), door="stream", deliver=policy)
    outcome = record.record if failed else record.outcome
    error = GaveUp(record.message, reason=record.reason, record=record.record) if failed else None
    # The machine may be busy; what clocks do exactly is shown in virtual time.
    assert [wrong for wrong in wanted.check(outcome, error) if "it had to within" not in wrong] == []
    assert reason_told(response) == (record.reason if failed else None)
    if failed and response.status_code != 200:
        upstream = outcome.attempts[-1].ended
        own = getattr(upstream, "status", None) or 0
        status = own if own >= 400 else status_of(record.reason)
        final = response.headers.get("x-should-retry") == "false"
        assert response.status_code == (final_status(status, 422) if final else status)
        if own < 400:
            assert response.json()["error"]["type"] in (type_of(record.reason), getattr(upstream, "type", None))
    if how == "json":
        assert response.headers["content-type"] == "application/json"
    elif not failed:
        assert response.content.count(b"event: message_stop") + response.content.count(b'"message_stop"') >= 1


def call_of(response: httpx2.Response) -> str:
    return response.headers["x-streamguard-call"]


# What follows the end is not handed on: a client would take it against an answer that stands.
@pytest.mark.parametrize(
    "fault", [fault for fault in FAST if fault.conforms and not fault.id.startswith(("F17", "F21"))]
)
def test_what_conforms_passes_byte_for_byte(
    fault: faults.Fault, proxy: tuple[Running, Seen], http: httpx2.Client
) -> None:
    """An odd but sound stream is the same with and without the proxy, but for keep-alives that came earlier."""
    headers = {**HEADERS, "x-script": fault.id}
    asked = {**request_of(), "stream": True}
    try:
        direct = http.post(f"{proxy[0].upstream.url}/v1/messages", json=asked, headers=headers).content
    except httpx2.RemoteProtocolError:
        # Sound, though the connection is not: the proxy's is.
        direct = b"".join(item for item in fault.attempt() if isinstance(item, bytes))
    through = ask(http, proxy[0].url, fault.id, "live", stream=True)
    assert isinstance(last(proxy, call_of(through)), CallCompleted)
    content = LATE.sub(b"", through.content)
    if direct.count(b"event:") < direct.count(b"data:"):
        # Frames without a name get the one that their data has, since SDKs drop them otherwise.
        content, direct = NAMES.sub(b"", content), NAMES.sub(b"", direct)
    if fault.id.startswith("F84"):
        # The answer ends with its last event; what stands behind it is nobody's, and may or may not be passed on.
        content, direct = (body.partition(END)[0] for body in (content, direct))
    assert content == direct


@pytest.mark.parametrize("fault", {fault.number: fault for fault in FAST}.values())
def test_what_goes_away_is_not_seen(fault: faults.Fault, proxy: tuple[Running, Seen], http: httpx2.Client) -> None:
    """With one retry and a fault that does not last, the client gets the good answer, and nothing of the bad one."""
    response = ask(http, proxy[0].url, f"{fault.id}-once", "twice", stream=False)
    record = last(proxy, call_of(response))
    if isinstance(record, CallGaveUp):
        # Not everything is worth asking again.
        assert record.reason == "provider.spend_limit"
        return
    assert response.status_code == 200
    if response.headers["x-streamguard-attempts"] == "2":
        assert json.loads(response.json()["content"][-1]["text"]) == json.loads(faults.GOOD)
        assert response.headers["x-streamguard-reason"] == record.outcome.attempts[0].reason
    else:
        assert "x-streamguard-reason" not in response.headers
