"""Guarded answers to clients: what is released when, what is said instead, and in which form."""

from __future__ import annotations

import json
import re
import threading
from typing import Any

import anyio
import pytest

from streamguard import Completion, JsonDocument, Policy, Retry, Rule, Timeouts
from streamguard.proxy.config import KeepAlive
from streamguard.retry.rules import Backoff
from streamguard.testing import error, fin, on_attempt, pause, stall, wire
from streamguard.viability import compile as compile_module
from tests.data import path
from tests.proxy.running import COMMITTED, HEADERS, KEY, LIVE, REQUEST, TOTAL, Running, error_of, until, with_proxy

SAMPLES = ("text_json_answer", "thinking_text", "tool_use_fine_grained", "max_tokens_truncated")
ANY = Completion(accept=["end_turn", "stop_sequence", "tool_use", "max_tokens", "refusal"], require_content=False)
LATE = re.compile(rb"(: x-streamguard-[^\n]*\n)+\n\Z")
HALF = [wire.message_start(), wire.block_start(), wire.text_delta('{"a": 1')]
END = [wire.block_stop(), wire.message_delta(), wire.message_stop()]
GOOD = wire.text_stream('{"a": 1}')
BAD = wire.text_stream('{"a" 1}')
DOCUMENT = {"json": JsonDocument(), "timeouts": TOTAL}
AGAIN = Retry(attempts=2, quota=None, rules=[Rule(when=["json.*", "provider.*", "transport.*"], wait="none")])


@pytest.mark.parametrize("policy", [None, "live", "committed"])
@pytest.mark.parametrize("name", SAMPLES)
def test_recorded_streams_pass_byte_for_byte(name: str, policy: str | None) -> None:
    """Without guards every byte; with guards every byte too, and one comment at the end where the head had gone."""
    body = path("sse", f"{name}.sse").read_bytes()
    half = len(body) // 2
    chosen = None if policy is None else Policy(deliver=policy, timeouts=TOTAL, completion=ANY)

    async def test(running: Running) -> None:
        response = await running.ask()
        assert response.status_code == 200
        assert response.content == body if policy != "live" else LATE.sub(b"", response.content) == body
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"

    with_proxy([[body[:half], pause(0.02), body[half:]]], test, chosen)


ODD = (
    b"\xef\xbb\xbf: hello\r\n\r\n"
    + wire.message_start(usage={"input_tokens": 3, "cache_read_input_tokens": 9, "cache_creation": {"x": 1}})
    + wire.block_start(0, "thinking")
    + wire.thinking_delta("hm", 0)
    + wire.signature_delta("c2lnbmVk", 0)
    + wire.block_stop(0)
    + wire.frame("shiny_new", {"type": "shiny_new", "with": {"what": "ever"}})
    + wire.ping()
    + wire.block_start(1, "tool_use", name="look", input={})
    + wire.input_json_delta("", 1)
    + wire.input_json_delta('{"at": "\\ud83d"', 1)
    + b": between\n\n"
    + wire.input_json_delta("}", 1)
    + wire.block_stop(1)
    + wire.block_start(2, "never_seen", odd=True)
    + wire.block_delta(2, {"type": "odd_delta", "value": [1]})
    + wire.block_stop(2)
    + b"id: 7\nretry: 10\n" + wire.message_delta("tool_use", usage={"output_tokens": 9, "cache_read_input_tokens": 9})
    + wire.message_stop()
    + b": goodbye\n\n"
)  # fmt: skip


@pytest.mark.parametrize("policy", [None, LIVE, COMMITTED])
def test_what_nobody_here_has_a_word_for_passes_too(policy: Policy | None) -> None:
    """Signatures, cache fields, tool calls, unknown events, blocks and deltas, comments, ids, a byte order mark."""

    async def test(running: Running) -> None:
        response = await running.ask()
        assert LATE.sub(b"", response.content) == ODD

    with_proxy([[ODD]], test, policy)


def test_a_json_client_gets_the_ordinary_message() -> None:
    """Sent as a stream, guarded, and answered as the provider answers without one: every field, exact usage."""

    async def test(running: Running) -> None:
        direct = await running.http.post(f"{running.upstream.url}/v1/messages", json=REQUEST, headers=HEADERS)
        response = await running.ask(stream=False)
        assert running.upstream.exchanges[1].body["stream"] is True
        assert response.headers["content-type"] == "application/json"
        found = response.json()
        block = found["content"][1]
        assert block == {
            "type": "tool_use",
            "id": wire.TOOL_ID,
            "name": "look",
            "input": {"at": "\ud83d"},
        }
        assert found["usage"]["cache_read_input_tokens"] == 9
        assert found["usage"]["output_tokens"] == 9
        assert found["content"][0] == {"type": "thinking", "thinking": "hm", "signature": "c2lnbmVk"}
        assert {name: found[name] for name in ("id", "model", "role", "stop_reason", "type")} == {
            name: direct.json()[name] for name in ("id", "model", "role", "stop_reason", "type")
        }

    with_proxy([[ODD]], test)


@pytest.mark.parametrize("stream", [True, False])
def test_an_attempt_thrown_away_leaves_no_byte(stream: bool) -> None:
    """The second answer, alone; how many there were, and why, stands in the headers."""

    async def test(running: Running) -> None:
        response = await running.ask(stream=stream)
        assert response.status_code == 200
        told = {name: value for name, value in response.headers.items() if name.startswith("x-streamguard-")}
        del told["x-streamguard-call"]
        cost = told.pop("x-streamguard-cost-usd")
        assert told == {
            "x-streamguard-attempts": "2",
            "x-streamguard-reason": "json.malformed",
            "x-streamguard-completed": "whole",
        }
        low, high = map(float, cost.split(".."))
        assert 0 < low < high
        assert response.content == b"".join(GOOD) if stream else response.json()["content"][0]["text"] == '{"a": 1}'

    with_proxy([BAD, GOOD], test, Policy(deliver="committed", retry=AGAIN, **DOCUMENT))


def test_giving_up_before_anything_was_sent_is_a_status() -> None:
    """The documented status, type, reason and place; and an SDK is told not to ask again by itself."""

    async def test(running: Running) -> None:
        response = await running.ask()
        assert response.status_code == 422
        assert response.headers["x-streamguard-reason"] == "json.malformed"
        assert response.headers["x-streamguard-attempts"] == "2"
        assert response.headers["x-should-retry"] == "false"
        found = error_of(response.content)
        assert found["type"] == "api_error"
        told = found["details"]["streamguard"]
        assert told["reasons"] == ["json.malformed", "json.malformed"]
        assert (told["offset"], told["call"]) == (5, response.headers["x-streamguard-call"])

    with_proxy([BAD], test, Policy(deliver="committed", retry=AGAIN, **DOCUMENT))


def test_giving_up_after_something_was_sent_is_an_error_event() -> None:
    """Live: what was shown stays, then comes `error` with the reason, then the connection ends in good order."""

    async def test(running: Running) -> None:
        response = await running.ask()
        assert response.status_code == 200
        shown, _, _ = response.content.partition(b"event: error\n")
        assert b'{\\"a\\": 1' in shown
        found = error_of(response.content)
        assert found["type"] == "api_error"
        assert found["details"]["streamguard"]["reason"] == "transport.reset"
        assert re.search(rb"\n: x-streamguard-reason: transport.reset\n", response.content)
        assert b"message_stop" not in response.content

    with_proxy([[*HALF, pause(0.02), fin()]], test, Policy(deliver="live", retry=AGAIN, **DOCUMENT))


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("kind", "status", "reason"),
    [
        ("invalid_request_error", 400, "provider.invalid_request"),
        ("authentication_error", 401, "provider.authentication"),
        ("rate_limit_error", 429, "provider.rate_limited"),
        ("overloaded_error", 529, "provider.overloaded"),
        ("api_error", 500, "provider.api_error"),
    ],
)
def test_the_providers_own_errors_pass_as_they_came(kind: str, status: int, reason: str, stream: bool) -> None:
    """Status, body and the headers that SDKs read; the reason beside them."""

    async def test(running: Running) -> None:
        direct = await running.http.post(f"{running.upstream.url}/v1/messages", json=REQUEST, headers=HEADERS)
        response = await running.ask(stream=stream)
        assert (response.status_code, response.content) == (status, direct.content)
        assert response.headers["x-streamguard-reason"] == reason
        assert response.headers["anthropic-organization-id"] == "org"
        assert response.headers["request-id"].startswith("req_")
        # Nobody here has tried again, so whether the client may is for the provider to say.
        assert "x-should-retry" not in response.headers

    answer = error(kind, "no", headers={"anthropic-organization-id": "org", "set-cookie": "a=b"})
    with_proxy([[answer]], test, COMMITTED)


def test_a_retry_after_that_does_not_fit_is_handed_on() -> None:
    """The provider says when; the deadline does not allow it; the client is told both."""

    async def test(running: Running) -> None:
        response = await running.ask()
        assert (response.status_code, response.headers["retry-after"]) == (429, "61")
        assert response.headers["x-should-retry"] == "false"

    rule = Rule(when=["provider.*"], wait=Backoff(), respect_retry_after=True)
    policy = Policy(timeouts=TOTAL, retry=Retry(attempts=3, rules=[rule]))
    with_proxy([[error("rate_limit_error", headers={"retry-after": "61"})]], test, policy)


def test_pings_and_comments_go_on_while_an_answer_is_held_back() -> None:
    """Committed: nothing of the answer before it stands, but nobody's idle timer fires: first we speak, then they."""

    async def test(running: Running) -> None:
        async with running.http.stream(
            "POST", f"{running.url}/v1/messages", json=REQUEST | {"stream": True}, headers=HEADERS
        ) as response:
            assert response.status_code == 200
            pieces = [piece async for piece in response.aiter_raw()]
        early, answer = b"".join(pieces[:-1]), pieces[-1]
        assert early.startswith(b": keep-alive\n\n")
        assert wire.ping() in early
        assert b": theirs\n\n" in early
        assert b"message_start" not in early
        assert LATE.sub(b"", answer).startswith(GOOD[0])
        body = b"".join(pieces)
        assert body.count(wire.ping()) == 3
        assert b": x-streamguard-completed: whole\n" in body

    quiet = [pause(0.15), wire.ping(), pause(0.03), b": theirs\n\n", pause(0.03)]
    ping, rest = GOOD[:2], [frame for frame in GOOD[2:] if frame != wire.ping()]
    with_proxy([[*ping, wire.ping(), *quiet, wire.ping(), pause(0.05), *rest]], test, COMMITTED, **quick())


def quick() -> dict[str, Any]:
    return {"keep_alive": KeepAlive(stream=0.1, json=0.1)}


def test_a_json_client_is_kept_waiting_with_spaces() -> None:
    """White space before a JSON text means nothing, and keeps every hop awake."""

    async def test(running: Running) -> None:
        response = await running.ask(stream=False)
        assert response.content.startswith(b"  ")
        assert response.json()["content"][0]["text"] == '{"a": 1}'
        assert response.headers["content-type"] == "application/json"

    with_proxy([[*GOOD[:3], pause(0.35), *GOOD[3:]]], test, COMMITTED, **quick())


@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_a_failure_after_a_json_client_was_kept_waiting_breaks_the_body_off(version: str) -> None:
    """The status says success and has gone: the body has no last chunk and is no JSON, so that every client fails."""

    async def test(running: Running) -> None:
        body = json.dumps(REQUEST).encode()
        head = f"POST /v1/messages HTTP/{version}\r\nHost: localhost\r\nX-Api-Key: {KEY}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        found = await running.raw(head.encode() + body)
        head_of, _, rest = found.partition(b"\r\n\r\n")
        assert head_of.startswith(b"HTTP/1.1 200 OK")
        assert b"transport.reset" in rest
        assert not rest.endswith(b"0\r\n\r\n")
        if version == "1.0":
            with pytest.raises(ValueError, match="delimiter"):
                json.loads(rest)

    with_proxy([[*HALF, pause(0.25), fin()]], test, COMMITTED, **quick())


def test_keep_alives_of_json_can_be_switched_off() -> None:
    """`keep_alive.json: null` waits without a word, so that a failure is a status."""

    async def test(running: Running) -> None:
        response = await running.ask(stream=False)
        assert (response.status_code, response.json()["error"]["type"]) == (502, "api_error")

    with_proxy([[*HALF, pause(0.25), fin()]], test, COMMITTED, keep_alive=KeepAlive(stream=0.1, json=None))


@pytest.mark.parametrize(
    ("kind", "attempts", "configured", "status"),
    [
        ("overloaded_error", 2, 422, 422),
        ("overloaded_error", 2, None, 529),
        ("overloaded_error", 1, 422, 529),
        ("rate_limit_error", 2, 418, 418),
        ("invalid_request_error", 2, 422, 400),
    ],
)
def test_what_was_given_up_has_a_status_that_nobody_asks_again_after(
    kind: str, attempts: int, configured: int | None, status: int
) -> None:
    """`final_status`, where the policy has asked again itself; the provider's words stay."""

    async def test(running: Running) -> None:
        for stream in (True, False):
            response = await running.ask(stream=stream)
            assert (response.status_code, error_of(response.content)["type"]) == (status, kind)

    rule = Rule(when=["provider.overloaded", "provider.rate_limited"])
    policy = Policy(deliver="committed", timeouts=TOTAL, retry=Retry(attempts=attempts, rules=(rule,)))
    with_proxy([[error(kind)]], test, policy, final_status=configured)


@pytest.mark.parametrize("stream", [True, False])
def test_frames_without_a_name_are_handed_on_with_one(stream: bool) -> None:
    """SDKs drop an event whose frame has no `event:` line; its data says what it is."""
    nameless = [re.sub(rb"^event: .*\n", b"", frame, flags=re.MULTILINE) for frame in GOOD]

    async def test(running: Running) -> None:
        response = await running.ask(stream=stream)
        if stream:
            assert response.content.startswith(b"".join(GOOD))
        else:
            assert response.json()["content"][0]["text"] == '{"a": 1}'

    with_proxy([nameless], test, LIVE)


@pytest.mark.parametrize("tail", ["", "\n\nHope this helps"])
def test_an_answer_that_was_cut_ends_as_a_message_does(tail: str) -> None:
    """`trailing: cut` stops paying when the document closes; the client gets a whole message all the same."""

    async def test(running: Running) -> None:
        for stream in (True, False):
            response = await running.ask(stream=stream)
            assert response.headers["x-streamguard-completed"] == "cut"
            if stream:
                text = response.content
                assert text.endswith(b'event: message_stop\ndata: {"type":"message_stop"}\n\n')
                assert re.search(rb'"stop_reason":"end_turn"', text)
                assert b"and so on" not in text
                assert b"Hope" not in text
                assert b'"text":"}"' in text
                assert text.count(b"event: content_block_stop") == 1
            else:
                found = response.json()
                assert (found["stop_reason"], found["content"][0]["text"]) == ("end_turn", '{"a": 1}')
                assert found["usage"]["output_tokens"] > 1
        assert [exchange.complete for exchange in running.upstream.exchanges] == [False, False]

    document = JsonDocument(trailing="cut")
    script = [*HALF, wire.text_delta("}" + tail), wire.text_delta(" and so on"), stall()]
    with_proxy([script], test, Policy(deliver="committed", json=document, timeouts=TOTAL))


def test_a_tools_input_that_was_cut_ends_as_a_tools_use() -> None:
    """The same where the document is a tool's input."""

    async def test(running: Running) -> None:
        choice = {"type": "tool", "name": "look", "disable_parallel_tool_use": True}
        tools = [{"name": "look", "input_schema": {"type": "object"}}]
        response = await running.ask(stream=False, tools=tools, tool_choice=choice)
        found = response.json()
        assert (found["stop_reason"], found["content"][0]["input"]) == ("tool_use", {"a": 1})
        assert "partial_json" not in found["content"][0]

    document = JsonDocument(where="tool:look", trailing="cut")
    start = [wire.message_start(), wire.block_start(0, "tool_use", name="look"), wire.input_json_delta('{"a": 1}')]
    with_proxy([[*start, stall()]], test, Policy(deliver="committed", json=document, timeouts=TOTAL))


def test_clocks_are_the_policys() -> None:
    """A stall trips the policy's clock: a status if nothing was sent, an event if something was."""
    timeouts = Timeouts(first_token=0.1, progress=0.1, alive=5, total=5)

    async def silent(running: Running) -> None:
        response = await running.ask()
        assert response.status_code == 422
        found = error_of(response.content)
        assert found["type"] == "timeout_error"
        assert found["details"]["streamguard"]["knob"] == "timeouts.first_token"

    async def stalled(running: Running) -> None:
        response = await running.ask()
        assert response.status_code == 200
        assert error_of(response.content)["details"]["streamguard"]["reason"] == "timeout.progress"

    with_proxy([[wire.message_start(), stall()]], silent, Policy(deliver="live", timeouts=timeouts))
    with_proxy([[*HALF, stall()]], stalled, Policy(deliver="live", timeouts=timeouts))


def test_an_upstream_that_is_not_there_is_said_so() -> None:
    """`transport.connect`, after the policy's tries."""

    async def test(running: Running) -> None:
        response = await running.ask()
        assert (response.status_code, response.headers["x-streamguard-reason"]) == (422, "transport.connect")
        assert response.headers["x-streamguard-attempts"] == "2"

    policy = Policy(deliver="live", timeouts=TOTAL, retry=AGAIN)
    with_proxy([GOOD], test, policy, upstream_url="http://127.0.0.1:1")


def test_a_patched_request_is_sent_as_patched_and_an_unpatched_one_as_it_came() -> None:
    """The bytes of the client go upstream, spacing and all; only a rule's patch rewrites them."""

    async def test(running: Running) -> None:
        body = json.dumps(REQUEST | {"stream": True}, indent=3).encode()
        response = await running.http.post(
            f"{running.url}/v1/messages", content=body, headers=HEADERS | {"content-type": "application/json"}
        )
        assert response.status_code == 200
        first, second = running.upstream.exchanges
        assert first.headers["content-length"] == str(len(body))
        assert first.body == REQUEST | {"stream": True}
        assert second.body == REQUEST | {"stream": True, "max_tokens": 200}

    cut = wire.text_stream("cut", stop_reason="max_tokens")
    rule = Rule(when=["stop.max_tokens"], patch={"max_tokens": {"multiply": 2}})
    with_proxy(
        [on_attempt(1, cut), on_attempt(2, GOOD)],
        test,
        Policy(deliver="committed", timeouts=TOTAL, retry=Retry(attempts=2, rules=[rule])),
    )


def test_a_policy_that_does_not_fit_a_request_is_the_requests_fault() -> None:
    """`schema: request` and a request without one: 400, nothing sent."""

    async def test(running: Running) -> None:
        response = await running.ask()
        assert response.status_code == 400
        assert "schema" in error_of(response.content)["message"]
        assert running.upstream.exchanges == []

    with_proxy([GOOD], test, Policy(json=JsonDocument(schema="request"), timeouts=TOTAL))


@pytest.mark.parametrize("reference", ["http://127.0.0.1:9/x.json", "file:///etc/passwd"])
def test_a_clients_schema_fetches_nothing(reference: str) -> None:
    """A reference out of the schema is the request's fault, and nobody follows it."""

    async def test(running: Running) -> None:
        response = await running.ask(output_config={"format": {"type": "json_schema", "schema": {"$ref": reference}}})
        assert response.status_code == 400
        assert reference in error_of(response.content)["message"]
        assert running.upstream.exchanges == []

    with_proxy([GOOD], test, Policy(json=JsonDocument(schema="request"), timeouts=TOTAL))


def test_a_clients_schema_does_not_hold_up_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A schema that takes a second to compile is compiled beside the event loop; an evil pattern is given up on."""
    branches = {"oneOf": [{"type": "object", "required": [f"k{number}"]} for number in range(150)]}
    evil = {"type": "object", "properties": {"a": {"type": "string", "pattern": "^(a|aa)+$"}}}
    compiled: list[tuple[int, int]] = []
    compile_schema = compile_module.compile_schema

    def noted(schema: Any, **options: Any) -> Any:
        compiled.append((len(schema), threading.get_ident()))
        return compile_schema(schema, **options)

    monkeypatch.setattr(compile_module, "compile_schema", noted)

    async def test(running: Running) -> None:
        for schema in (branches, evil):
            response = await running.ask(output_config={"format": {"type": "json_schema", "schema": schema}})
            assert response.status_code in (200, 422)
        ((of_branches, there), (of_evil, here)) = compiled
        assert (of_branches, of_evil) == (len(branches), len(evil))
        assert there != threading.get_ident() == here

    script = wire.text_stream('{"a": "' + "a" * 60 + 'b", "k1": 1}', chunk=8)
    with_proxy([script], test, Policy(deliver="committed", json=JsonDocument(schema="request"), timeouts=TOTAL))


def test_an_interrupt_is_told() -> None:
    """An operator ends a call: the client gets its `error`, the upstream sees the end."""

    async def test(running: Running) -> None:
        async def interrupt() -> None:
            await until(lambda: running.upstream.exchanges and running.upstream.exchanges[0].deltas_sent)
            (call,) = running.proxy.runtime.calls.values()
            call.interrupt("the operator")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(interrupt)
            response = await running.ask()
        found = error_of(response.content)
        assert found["details"]["streamguard"]["reason"] == "operator.interrupt"
        assert response.status_code in (200, 422)

    with_proxy([[*HALF, stall()]], test, LIVE)


def test_a_hundred_answers_at_a_time_are_kept_apart() -> None:
    """Each client gets its own, through one pool of connections."""

    async def test(running: Running) -> None:
        async def one(number: int) -> None:
            response = await running.ask(stream=bool(number % 2), headers={**HEADERS, "x-script": str(number % 5)})
            assert f"answer {number % 5}".encode() in response.content.replace(b'"}}', b"")

        async with anyio.create_task_group() as tasks:
            for number in range(100):
                tasks.start_soon(one, number)

    scripts = {str(number): wire.text_stream(f"answer {number}", chunk=100) for number in range(5)}
    with_proxy([scripts], test, LIVE, forward_headers=("x-script",))
