"""Routes: paths that are served, and the policy that a request gets."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from streamguard import JsonDocument, Policy
from streamguard.http.refusals import Refused
from streamguard.proxy.config import ProxyConfig, Route
from streamguard.proxy.routes import Endpoint, Routes, checked_query, group_of
from streamguard.testing import wire
from tests.proxy.running import HEADERS, LIVE, REQUEST, TOTAL, Running, with_proxy

CONFIG = ProxyConfig(
    policies={"invoices": "x", "chat": "x", "cheap": "x"},
    by_header=("chat", "off"),
    routes=(
        Route(policy="cheap", path="/invoices", model="claude-haiku-*"),
        Route(policy="invoices", path="/invoices"),
        Route(policy="chat", model="claude-opus-*"),
    ),
)
ROUTES = Routes(CONFIG, "default")


def result(call: Callable[[], object]) -> object:
    """What a call gives, or the name of its refusal."""
    try:
        return call()
    except Refused as refusal:
        return refusal.name


@pytest.mark.parametrize(
    ("method", "path", "found"),
    [
        ("POST", "/v1/messages", Endpoint("messages", "/v1/messages", "")),
        ("POST", "/invoices/v1/messages", Endpoint("messages", "/v1/messages", "/invoices")),
        ("POST", "/v1/messages/count_tokens", Endpoint("count_tokens", "/v1/messages/count_tokens", "")),
        ("GET", "/v1/models", Endpoint("models", "/v1/models", "")),
        ("GET", "/invoices/v1/models/claude-x", Endpoint("models", "/v1/models/claude-x", "/invoices")),
        ("POST", "/messages", Endpoint("messages", "/v1/messages", "")),
        ("POST", "/v1/v1/messages", Endpoint("messages", "/v1/messages", "")),
        (
            "POST",
            "/invoices/v1/v1/v1/messages/count_tokens",
            Endpoint("count_tokens", "/v1/messages/count_tokens", "/invoices"),
        ),
        ("GET", "/models", Endpoint("models", "/v1/models", "")),
        ("GET", "/v1/messages", "wrong_method"),
        ("HEAD", "/v1/models", "wrong_method"),
        ("POST", "/v1/messages/", "no_such_path"),
        ("POST", "/invoices", "no_such_path"),
        ("POST", "/invoices/invoices/v1/messages", "no_such_path"),
        ("POST", "/V1/messages", "no_such_path"),
        ("POST", "/v1/complete", "no_such_path"),
        ("GET", "/v1/models/a/b", "no_such_path"),
        ("GET", "/v1/models/..", "no_such_path"),
        ("GET", "/", "no_such_path"),
    ],
)
def test_only_listed_paths_are_served(method: str, path: str, found: object) -> None:
    """Exactly; what goes upstream is the listed path, not the client's."""
    assert result(lambda: ROUTES.endpoint(method, path)) == found


@pytest.mark.parametrize(
    ("path", "cause"),
    [
        ("/v1/chat/completions", "OpenAI"),
        ("/responses", "OpenAI"),
        ("/v1//messages", "slash is too many"),
        ("/v1/messages/", "slash is too many"),
        ("/v1", "a base URL"),
        ("/v1/messages/v1/messages", "adds a path to its base URL"),
        ("/v1/messages/batches", "not passed on"),
        ("/elsewhere", "GET /v1/models, each also under /invoices"),
    ],
)
def test_a_path_that_is_not_served_is_explained(path: str, cause: str) -> None:
    """The refusal names the path, what is served, and why it was asked for, as a rule."""
    with pytest.raises(Refused) as raised:
        ROUTES.endpoint("POST", path)
    assert path in raised.value.message
    assert "POST /v1/messages, " in raised.value.message
    assert cause in raised.value.message


@pytest.mark.parametrize(
    ("header", "prefix", "model", "policy"),
    [
        (None, "", "claude-sonnet-5", "default"),
        (None, "", "claude-opus-5", "chat"),
        (None, "/invoices", "claude-opus-5", "invoices"),
        (None, "/invoices", "claude-haiku-5", "cheap"),
        ("chat", "/invoices", "claude-haiku-5", "chat"),
        ("off", "", "claude-opus-5", "off"),
        ("invoices", "", "claude-opus-5", "unknown_policy"),
        ("", "", "claude-opus-5", "unknown_policy"),
    ],
)
def test_a_policy_is_chosen_by_header_then_by_route(header: str | None, prefix: str, model: str, policy: str) -> None:
    """The header only among those it may choose; of routes the first that matches; else the default."""
    headers = [] if header is None else [(b"x-streamguard-policy", header.encode())]
    assert result(lambda: ROUTES.policy(headers, prefix, model)) == policy


def test_a_policy_named_twice_is_none() -> None:
    """Two headers, two meanings: refused."""
    with pytest.raises(Refused):
        ROUTES.policy([(b"x-streamguard-policy", b"chat")] * 2, "", "m")


def test_each_route_has_its_policy() -> None:
    """Through the proxy: by path, by model and by header, told apart by what they let through."""
    prose = wire.text_stream("Certainly! Here it is.")

    async def test(running: Running) -> None:
        async def status(path: str = "", model: str = "claude-sonnet-5-5", **headers: str) -> int:
            body = {**REQUEST, "model": model, "stream": True}
            response = await running.http.post(f"{running.url}{path}/v1/messages", json=body, headers=HEADERS | headers)
            return response.status_code

        strict = {"x-streamguard-policy": "strict"}
        assert [await status(), await status("/strict"), await status(model="claude-json-1")] == [200, 422, 422]
        assert [await status(**strict), await status(**{"x-streamguard-policy": "other"})] == [422, 400]

    with_proxy(
        [prose],
        test,
        LIVE,
        policies={"strict": Policy(json=JsonDocument(), timeouts=TOTAL), "other": LIVE},
        by_header=("strict",),
        routes=(Route(policy="strict", path="/strict"), Route(policy="strict", model="claude-json-*")),
    )


@pytest.mark.parametrize(
    ("query", "fine"),
    [(b"", True), (b"beta=true&limit=5", True), (b"after_id=a%3Ab", True), (b"a=$(id)", False), (b"a" * 1025, False)],
)
def test_queries_are_plain_or_refused(query: bytes, fine: bool) -> None:
    """A query cannot choose the host, and is passed on as it is, so it has plain characters only."""
    assert result(lambda: checked_query(query)) == (query if fine else "bad_query")


@pytest.mark.parametrize(
    ("value", "group"), [(b"run 7", "run 7"), (b"", None), (b"<b>", None), (b"a" * 101, None), (b"caf\xe9", None)]
)
def test_a_group_is_a_short_plain_name(value: bytes, group: str | None) -> None:
    """It is shown to operators; anything else is left out."""
    assert group_of([(b"x-streamguard-group", value)]) == group
