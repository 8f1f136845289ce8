"""Real clients through the proxy: the same as without it on good streams, the documented result on faults.

The official TypeScript SDK needs `node` and its package: `make clients` puts it where these tests look
(`STREAMGUARD_NODE_MODULES`, or `build/clients`). curl, Node's fetch and PHP's curl extension are used where they are.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from streamguard import Completion, Policy, Retry, Rule, Timeouts
from streamguard.testing import error, fin, pause, rst, stall, wire
from streamguard.testing.scripted import Script
from tests.data import ROOT
from tests.proxy.running import KEY, Running, served

HERE = Path(__file__).parent / "clients"
LATE = re.compile(r"(: x-streamguard-[^\n]*\n)+\n\Z")
HALF = [wire.message_start(), wire.block_start(), wire.text_delta("half an answer")]
GOOD_TEXT = "Good: ünïcödé, 漢字, 🙂, \u2028 and \\ all the rest."

ODD = (
    wire.message_start(usage={"input_tokens": 3, "cache_read_input_tokens": 9, "cache_creation_input_tokens": 4})
    + wire.block_start(0, "thinking")
    + wire.thinking_delta("let me see", 0)
    + wire.signature_delta("c2lnbmVk", 0)
    + wire.block_stop(0)
    + wire.ping()
    + b": a comment\n\n"
    + wire.frame("shiny_new", {"type": "shiny_new"})
    + wire.block_start(1, "tool_use", name="look", input={})
    + wire.input_json_delta("", 1)
    + wire.input_json_delta('{"at": [1, 2]', 1)
    + wire.input_json_delta("}", 1)
    + wire.block_stop(1)
    + wire.message_delta("tool_use", usage={"output_tokens": 31})
    + wire.message_stop()
)  # fmt: skip

GOOD: dict[str, Any] = {
    "text": [frame for piece in wire.text_stream(GOOD_TEXT, chunk=3) for frame in (piece, pause(0.002))],
    "burst": wire.text_stream(GOOD_TEXT * 20),
    "odd": [ODD],
    "crlf": wire.text_stream(GOOD_TEXT, style=wire.STYLES["crlf"]),
}
FAULTS: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    # what goes wrong: (script, what a streaming client is told, what a JSON client is told)
    "overloaded_before": ([error("overloaded_error")], {"status": 529}, {"status": 529}),
    "invalid": ([error("invalid_request_error", "no")], {"status": 400}, {"status": 400}),
    "overloaded_inside": (
        [*HALF, pause(0.03), wire.error("overloaded_error")],
        {"status": 200, "type": "overloaded_error", "reason": "provider.overloaded"},
        {"status": 529, "type": "overloaded_error", "reason": "provider.overloaded"},
    ),
    "cut": (
        [*HALF, pause(0.03), fin()],
        {"status": 200, "type": "api_error", "reason": "transport.reset"},
        {"status": 502, "type": "api_error", "reason": "transport.reset"},
    ),
    "reset": (
        [*HALF, pause(0.03), rst()],
        {"status": 200, "type": "api_error", "reason": "transport.reset"},
        {"status": 502, "type": "api_error", "reason": "transport.reset"},
    ),
    "no_stop": (
        [*HALF, pause(0.03)],
        {"status": 200, "type": "api_error", "reason": "transport.incomplete"},
        {"status": 502, "type": "api_error", "reason": "transport.incomplete"},
    ),
    "stalled": (
        [*HALF, stall()],
        {"status": 200, "type": "timeout_error", "reason": "timeout.progress"},
        {"status": 422, "type": "timeout_error", "reason": "timeout.progress"},
    ),
    "silent": (
        [wire.message_start(), stall()],
        {"status": 422, "type": "timeout_error", "reason": "timeout.first_token"},
        {"status": 422, "type": "timeout_error", "reason": "timeout.first_token"},
    ),
    "cut_off": (
        [*HALF, pause(0.03), wire.block_stop(), wire.message_delta("max_tokens"), wire.message_stop()],
        {"status": 200, "type": "api_error", "reason": "stop.max_tokens"},
        {"status": 422, "type": "api_error", "reason": "stop.max_tokens"},
    ),
    "no_stream": (
        [b"<html>"],
        {"status": 502, "type": "api_error"},
        {"status": 502, "type": "api_error"},
    ),
}  # fmt: skip
MORE = {
    "heals": Script.of(error("api_error"), wire.text_stream("at last")),
    "api_error": [error("api_error")],
}
POLICY = Policy(
    deliver="live",
    timeouts=Timeouts(first_token=0.25, progress=0.25, alive=10, total=15),
    completion=Completion(accept=["end_turn", "stop_sequence", "tool_use"]),
)


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    scripts: dict[str, Any] = {**GOOD, **{name: script for name, (script, *_) in FAULTS.items()}, **MORE}
    again = Policy(
        deliver="committed",
        timeouts=POLICY.timeouts,
        retry=Retry(attempts=2, quota=None, rules=[Rule(when=["provider.*"])]),
    )
    with served(
        [scripts], POLICY, policies={"again": again}, by_header=("again", "default"), forward_headers=("x-script",)
    ) as running:
        yield running


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no {name} on this machine")
    return found


def program(command: list[str], url: str, scripts: list[str], **environment: str) -> Any:
    """What a client program finds at `url`, script by script."""
    known = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    env = {**known, "BASE_URL": url, "KEY": KEY, "SCRIPTS": json.dumps(scripts), "NO_PROXY": "127.0.0.1", **environment}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def by_curl(url: str, scripts: list[str]) -> Any:
    """The same by curl itself, a process for each request."""
    curl, found = tool("curl"), {}
    for script in scripts:
        found[script] = {}
        for how, stream in (("stream", True), ("json", False)):
            body = {"model": f"claude-{script}-{how}", "max_tokens": 100, "stream": stream}
            body["messages"] = [{"role": "user", "content": "Hi"}]
            headers = ["content-type: application/json", f"x-api-key: {KEY}", f"x-script: {script}"]
            command = [curl, "-sS", "-N", "--noproxy", "*", "-w", "\n%{http_code}", f"{url}/v1/messages"]
            command += [part for header in headers for part in ("-H", header)]
            done = subprocess.run([*command, "-d", json.dumps(body)], capture_output=True, text=True, timeout=20)
            text, _, status = done.stdout.rpartition("\n")
            found[script][how] = (
                {"status": int(status), "body": text} if done.returncode == 0 else {"error": f"curl {done.returncode}"}
            )
    return found


def by_fetch(url: str, scripts: list[str]) -> Any:
    return program([tool("node"), str(HERE / "fetch.mjs")], url, scripts)


def by_php(url: str, scripts: list[str]) -> Any:
    php = tool("php")
    if "curl" not in subprocess.run([php, "-m"], capture_output=True, text=True, check=True).stdout.split():
        pytest.skip("this PHP has no curl extension")
    return program([php, str(HERE / "curl.php")], url, scripts)


PLAIN: dict[str, Callable[[str, list[str]], Any]] = {"curl": by_curl, "fetch": by_fetch, "php": by_php}


@pytest.mark.parametrize("client", PLAIN)
def test_good_streams_are_the_same_with_and_without_the_proxy(client: str, running: Running) -> None:
    """Golden diff: status and body, byte for byte, but for the one comment at the end of a live stream."""
    direct = PLAIN[client](running.upstream.url, list(GOOD))
    through = PLAIN[client](running.url, list(GOOD))
    for name in GOOD:
        assert through[name]["stream"]["status"] == direct[name]["stream"]["status"] == 200
        assert LATE.sub("", through[name]["stream"]["body"]) == direct[name]["stream"]["body"]
        assert content(through[name]["json"]["body"]) == content(direct[name]["json"]["body"])


def content(body: str) -> Any:
    """A message, without what a server that never streamed would not say."""
    message = json.loads(body)
    return {name: value for name, value in message.items() if value is not None}


@pytest.mark.parametrize("client", PLAIN)
def test_faults_have_their_documented_result(client: str, running: Running) -> None:
    """A status where nothing was sent, an `error` event where something was; never a silent end."""
    found = PLAIN[client](running.url, list(FAULTS))
    for name, (_, stream, plain) in FAULTS.items():
        for how, wanted in (("stream", stream), ("json", plain)):
            result = found[name][how]
            assert told(result) | wanted == told(result), (name, how, result)


def told(result: dict[str, Any]) -> dict[str, Any]:
    """Status, type and reason that a client was told."""
    body = result["body"]
    if "event: error\n" in body:
        body = body.rpartition("event: error\ndata: ")[2].partition("\n")[0]
    failed = json.loads(body)["error"]
    reason = failed.get("details", {}) or {}
    return {
        "status": result["status"],
        "type": failed["type"],
        "reason": reason.get("streamguard", {}).get("reason"),
    }


@pytest.fixture(scope="module")
def sdk(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """The official TypeScript SDK as a client."""
    node = tool("node")
    places = [os.environ.get("STREAMGUARD_NODE_MODULES"), str(ROOT / "build" / "clients" / "node_modules")]
    modules = next((Path(one) for one in places if one and (Path(one) / "@anthropic-ai" / "sdk").is_dir()), None)
    if modules is None:
        pytest.skip("the npm package @anthropic-ai/sdk is not here: `make clients` fetches it")
    folder = tmp_path_factory.mktemp("sdk")
    (folder / "node_modules").symlink_to(modules)
    shutil.copy(HERE / "sdk.mjs", folder)
    return lambda url, scripts, **more: program([node, str(folder / "sdk.mjs")], url, scripts, **more)


def test_the_typescript_sdk_gets_the_same_with_and_without_the_proxy(running: Running, sdk: Any) -> None:
    """`create`, `stream().finalMessage()` and the raw events: equal, field by field."""
    direct, through = sdk(running.upstream.url, list(GOOD)), sdk(running.url, list(GOOD))
    for name in GOOD:
        for how in ("stream", "events"):
            assert "error" not in direct[name][how]
            assert through[name][how] == direct[name][how], (name, how)
        created, wanted = through[name]["create"]["message"], direct[name]["create"]["message"]
        assert content(json.dumps(created)) == content(json.dumps(wanted))


def test_the_typescript_sdk_raises_its_own_errors(running: Running, sdk: Any) -> None:
    """Every fault raises: by the status where there is one, by the `error` event in a stream; never a half message."""
    found = sdk(running.url, list(FAULTS))
    for name, (_, stream, plain) in FAULTS.items():
        created = found[name]["create"]
        assert created["status"] == plain["status"], name
        assert created["error"].endswith("Error"), name
        assert created["reason"] == plain.get("reason", created["reason"])
        for how in ("stream", "events"):
            raised = found[name][how]
            assert "error" in raised, (name, how, raised)
            if stream["status"] == 200:
                assert (raised["type"], raised["reason"]) == (stream["type"], stream["reason"]), (name, how)
            else:
                assert raised["status"] == stream["status"]


def test_the_sdk_does_not_ask_again_where_the_policy_has(running: Running, sdk: Any) -> None:
    """One owner of retries: what the proxy gives up on after its own attempts, an SDK does not repeat."""
    for policy, requests, status in (("default", 3, 500), ("again", 2, 422)):
        before = len(running.upstream.exchanges)
        options = {"POLICY": policy, "MAX_RETRIES": "2", "HOWS": '["create"]'}
        found = sdk(running.url, ["api_error"], **options)
        assert found["api_error"]["create"]["status"] == status
        assert len(running.upstream.exchanges) - before == requests


def test_what_heals_is_not_noticed(running: Running, sdk: Any) -> None:
    """A fault that goes away, under a policy that asks again: the SDK sees the good answer only."""
    found = sdk(running.url, ["heals"], POLICY="again", HOWS='["create"]')
    assert found["heals"]["create"]["message"]["content"][0]["text"] == "at last"
