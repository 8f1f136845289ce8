"""The proxy in front of Bedrock: plain clients of the Messages API, AWS's requests and streams behind it."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from streamguard import JsonDocument, Policy, Retry, Rule
from streamguard.adapters.aws import bedrock
from streamguard.adapters.aws.signing import Signer
from streamguard.errors import ConfigError
from streamguard.proxy.config import ProxyConfig
from streamguard.source import SourceFailed
from streamguard.testing import wire
from tests.adapters.aws.frames import HEAD, exception, of_sse
from tests.adapters.wire import END, Server, chunk, serving
from tests.proxy.running import COMMITTED, HEADERS, LIVE, TOTAL, Running, error_of, proxied

CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
FRAMES = wire.text_stream('{"a": 1}', chunk=3)
GOOD, BAD = of_sse(FRAMES), of_sse(wire.text_stream("no JSON"))
BETAS = {**HEADERS, "anthropic-beta": "context-1m-2025-08-07,effort-2026-01-01"}


def script(frames: list[bytes]) -> list[Any]:
    return [CHUNKED, *map(chunk, frames), END]


def with_bedrock(
    scripts: list[Any], test: Callable[[Running, Server], Awaitable[None]], policy: Policy = LIVE, **config: Any
) -> None:
    async def main() -> None:
        with anyio.fail_after(10):
            async with serving(lambda number: scripts[number]) as server:
                upstream: Any = server
                options = {"upstream_url": server.url, "upstream_api": "bedrock", **config}
                async with proxied(upstream, policy, **options) as running:
                    await test(running, server)

    anyio.run(main)


def test_a_stream_comes_as_server_sent_events() -> None:
    """The provider's own events, each with its name; the request is Bedrock's, its key a bearer's."""

    async def test(running: Running, server: Server) -> None:
        response = await running.ask(model="anthropic.claude-x:0", headers=BETAS)
        assert response.content.startswith(b"".join(FRAMES))
        assert (response.headers["content-type"], response.headers["request-id"]) == (
            "text/event-stream; charset=utf-8",
            "req_aws",
        )
        head, _, body = server.requests[0].partition(b"\r\n\r\n")
        assert head.startswith(b"POST /model/anthropic.claude-x:0/invoke-with-response-stream HTTP/1.1\r\n")
        assert f"authorization: Bearer {HEADERS['x-api-key']}".encode() in head
        assert b"x-api-key" not in head
        sent = json.loads(body)
        assert (sent["anthropic_version"], sent["anthropic_beta"]) == (
            "bedrock-2023-05-31",
            ["context-1m-2025-08-07", "effort-2026-01-01"],
        )
        assert not {"model", "stream"} & set(sent)

    with_bedrock([script(GOOD)], test)


def test_guards_and_retries_hold() -> None:
    """A rejected answer is asked for again; a client without a stream gets the whole message."""

    async def test(running: Running, server: Server) -> None:
        response = await running.ask(stream=False)
        assert (response.json()["content"][0]["text"], response.headers["x-streamguard-attempts"]) == ('{"a": 1}', "2")
        assert len(server.requests) == 2

    retry = Retry(attempts=2, rules=(Rule(when=["json.*"]),))
    with_bedrock([script(BAD), script(GOOD)], test, Policy(timeouts=TOTAL, json=JsonDocument(), retry=retry))


@pytest.mark.parametrize(
    ("frames", "status", "reason"),
    [
        ([exception("throttlingException", message="Slow down")], 429, "provider.rate_limited"),
        ([*GOOD[:4], GOOD[4][:-2] + b"\0\0"], 502, "transport.decode"),
        ([*GOOD[:4], GOOD[4][:30]], 502, "transport.reset"),
        (GOOD[:4], 502, "transport.incomplete"),
    ],
)
def test_faults_are_told(frames: list[bytes], status: int, reason: str) -> None:
    """By their causes, as long as nothing was sent."""

    async def test(running: Running, server: Server) -> None:
        response = await running.ask()
        found = error_of(response.content)
        assert (response.status_code, found["details"]["streamguard"]["reason"]) == (status, reason)

    with_bedrock([script(frames)], test, COMMITTED)


def test_http_errors_are_in_the_providers_form() -> None:
    """AWS's body has a message alone; its type stands in a header."""
    body = b'{"message":"no access to this model"}'
    head = b"HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\nx-amzn-ErrorType: AccessDeniedException:x\r\n"

    async def test(running: Running, server: Server) -> None:
        response = await running.ask()
        found = error_of(response.content)
        assert (response.status_code, found["type"]) == (403, "permission_error")
        assert "no access to this model" in found["message"]

    with_bedrock([[head + b"Content-Length: %d\r\n\r\n" % len(body) + body]], test)


def test_requests_are_signed_with_credentials_of_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is sent is what was signed: botocore signs the same request alike."""
    credentials = pytest.importorskip("botocore.credentials", reason="SigV4 is botocore's: the extra `bedrock`")
    signer = Signer("eu-west-1", credentials=credentials.Credentials("AKID", "secret", "session"))
    from tests.proxy import running as module

    made = module.Setup
    monkeypatch.setattr(module, "Setup", lambda **given: made(**given, signer=signer))

    async def test(running: Running, server: Server) -> None:
        response = await running.ask(model="a.b")
        assert response.status_code == 200
        head, _, body = server.requests[0].partition(b"\r\n\r\n")
        lines = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
        sent = {name.decode().lower(): value.decode() for name, value in lines.items()}
        assert sent["x-amz-security-token"] == "session"
        assert sent["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKID/")
        assert "x-api-key" not in sent
        url = f"{server.url}/model/a.b/invoke-with-response-stream"
        assert sent["host"] in url
        again = signer.headers(
            "POST", url, {"content-type": "application/json", "X-Amz-Date": sent["x-amz-date"]}, body
        )
        if again["X-Amz-Date"] == sent["x-amz-date"]:
            assert again["Authorization"] == sent["authorization"]

    with_bedrock([script(GOOD)], test, aws_region="eu-west-1")


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"upstream_api": "bedrock"}, "needs its upstream"),
        ({"aws_region": "us-east-1"}, "for upstream_api: bedrock only"),
        (
            {
                "upstream_api": "bedrock",
                "upstream": "https://bedrock-runtime.us-east-1.amazonaws.com",
                "aws_region": "us-east-1",
                "key_env": "AWS_BEARER_TOKEN_BEDROCK",
            },
            "not both",
        ),
        ({"upstream_api": "bedrock", "upstream": "https://x.amazonaws.com", "policy": "off"}, "policy off"),
    ],
)
def test_configurations_that_cannot_be(config: dict[str, Any], problem: str) -> None:
    """Each is refused before anything is served."""
    with pytest.raises(ValueError, match=problem):
        ProxyConfig(**config)


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("anthropic.claude-x:0", "/model/anthropic.claude-x:0/invoke-with-response-stream"),
        ("arn:aws:bedrock:us-east-1:1:p/x", "/model/arn:aws:bedrock:us-east-1:1:p%2Fx/invoke-with-response-stream"),
        ("a?b#c\n", "/model/a%3Fb%23c%0A/invoke-with-response-stream"),
        ("..", None),
        ("", None),
    ],
)
def test_a_models_name_is_one_segment_of_the_path(model: str, path: str | None) -> None:
    """Whatever a client says, the request goes to that endpoint."""
    if path is None:
        with pytest.raises(SourceFailed, match="no name of a Bedrock model"):
            bedrock.path_of(model)
    else:
        assert bedrock.path_of(model) == path


def test_there_is_nothing_to_sign_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """Said before anything is served."""
    session = pytest.importorskip("botocore.session", reason="SigV4 is botocore's: the extra `bedrock`")
    monkeypatch.setattr(session.Session, "get_credentials", lambda _: None)
    with pytest.raises(ConfigError, match="no AWS credentials"):
        Signer("us-east-1")
