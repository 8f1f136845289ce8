"""Who may ask: tokens, operators, names and origins; and whose credentials go where."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import pytest

from streamguard.http.refusals import Refused
from streamguard.proxy.access import Access, Caller
from streamguard.proxy.config import Client, Listen, ProxyConfig
from streamguard.testing import wire
from tests.proxy.running import KEY, Running, error_of, with_proxy

ALICE, OPS = "alice-0123456789abcdef", "ops-0123456789abcdefgh"
CLIENTS = (
    Client(name="alice", token_env="STREAMGUARD_ALICE"),
    Client(name="ops", token_env="STREAMGUARD_OPS", operator=True),
)
TOKENS = {"alice": ALICE, "ops": OPS}
GOOD = [wire.text_stream("fine")]
OURS: dict[str, Any] = {"key": KEY, "key_env": "ANTHROPIC_API_KEY", "tokens": TOKENS, "clients": CLIENTS}


def access(*, clients: tuple[Client, ...] = (), has_key: bool = False, **config: Any) -> Access:
    return Access(ProxyConfig(clients=clients, **config), TOKENS, has_key=has_key)


def judged(access: Access, **headers: str) -> Caller | str:
    """The caller of a request with these headers, or the refusal's name."""
    given = {"host": "localhost", **{name.replace("_", "-"): value for name, value in headers.items()}}
    try:
        return access.caller([(name.encode(), value.encode()) for name, value in given.items()])
    except Refused as refusal:
        return refusal.name


@pytest.mark.parametrize(
    ("headers", "with_key", "without_key"),
    [
        ({}, "no_token", "no_token"),
        ({"x_streamguard_token": ALICE}, "alice", "alice"),
        ({"x_api_key": ALICE}, "alice", "no_token"),
        ({"authorization": f"Bearer {ALICE}"}, "alice", "no_token"),
        ({"authorization": f"bearer  {OPS} "}, "ops", "no_token"),
        ({"authorization": f"Basic {ALICE}"}, "no_token", "no_token"),
        ({"x_streamguard_token": "wrong", "x_api_key": ALICE}, "wrong_token", "wrong_token"),
        ({"x_api_key": ALICE[:-1]}, "wrong_token", "no_token"),
        ({"x_api_key": ""}, "no_token", "no_token"),
    ],
)
def test_a_token_names_its_client(headers: dict[str, str], with_key: str, without_key: str) -> None:
    """SDKs send the token as a key, where the proxy has the key; else the token has a header of its own."""
    for has_key, wanted in ((True, with_key), (False, without_key)):
        found = judged(access(clients=CLIENTS, has_key=has_key), **headers)
        assert (found if isinstance(found, str) else found.name) == wanted


def test_two_tokens_are_none() -> None:
    """Who sends two may mean either, and gets neither."""
    both = [(b"host", b"localhost"), *[(b"x-streamguard-token", token.encode()) for token in (ALICE, OPS)]]
    with pytest.raises(Refused, match="client token is needed"):
        access(clients=CLIENTS).caller(both)


def test_without_clients_everybody_on_the_machine_is_local() -> None:
    """And an operator, too: it is their own machine."""
    assert judged(access()) == Caller("local", operator=True)


LOCAL = ["localhost", "localhost:8787", "127.0.0.1:1", "[::1]", "[::1]:8787", "LOCALHOST"]
FOREIGN = ["attacker.example", "localhost.attacker.example", "127.0.0.1.attacker.example:8787", "10.0.0.1", "[::2]"]


@pytest.mark.parametrize(("host", "fine"), [*((host, True) for host in LOCAL), *((host, False) for host in FOREIGN)])
def test_on_loopback_only_its_own_names_are_served(host: str, fine: bool) -> None:
    """A page whose name leads to 127.0.0.1 asks under its own name, and is refused (DNS rebinding)."""
    found = judged(access(), host=host)
    assert (found == Caller("local", operator=True)) if fine else (found == "wrong_host")


def test_beyond_loopback_names_are_judged_where_they_are_given() -> None:
    """With `hosts` those, and the address itself; without, the token alone protects."""
    listen = Listen(host="0.0.0.0")
    anywhere = access(clients=CLIENTS, listen=listen)
    named = access(clients=CLIENTS, listen=listen, hosts=("gateway.internal",))
    token = {"x_streamguard_token": ALICE}
    assert judged(anywhere, host="whatever.example", **token) == Caller("alice")
    assert judged(named, host="gateway.internal:443", **token) == Caller("alice")
    assert judged(named, host="whatever.example", **token) == "wrong_host"


@pytest.mark.parametrize(
    ("headers", "fine"),
    [
        ({"origin": "http://localhost"}, True),
        ({"origin": "https://app.example.com"}, True),
        ({"origin": "http://localhost:3000"}, False),
        ({"origin": "https://app.example.com.attacker.example"}, False),
        ({"origin": "null"}, False),
        ({"sec_fetch_site": "same-origin"}, True),
        ({"sec_fetch_site": "none"}, True),
        ({"sec_fetch_site": "cross-site"}, False),
        ({"sec_fetch_site": "same-site"}, False),
    ],
)
def test_pages_of_other_origins_are_refused(headers: dict[str, str], fine: bool) -> None:
    """A browser says which page sends a request; only our own, and those that are named, may."""
    found = judged(access(origins=("https://app.example.com",)), **headers)
    assert (found == Caller("local", operator=True)) if fine else (found == "cross_origin")


@pytest.mark.parametrize("header", ["x-api-key", "authorization", "x-streamguard-token"])
def test_a_clients_token_is_never_forwarded_and_the_proxys_key_is(header: str) -> None:
    """Upstream sees one credential, the proxy's; the client never sees it."""

    async def test(running: Running) -> None:
        token = f"Bearer {ALICE}" if header == "authorization" else ALICE
        response = await running.ask(headers={header: token})
        assert response.status_code == 200
        sent = running.upstream.exchanges[0].headers
        assert (sent["x-api-key"], sent.get("authorization")) == (KEY, None)
        assert ALICE not in str(sent)
        assert KEY not in f"{response.headers}{response.text}"

    with_proxy(GOOD, test, **OURS)


def test_a_wrong_token_is_refused_before_anything_is_read() -> None:
    """401 in the provider's form, for any path but `/healthz`, and nothing goes upstream."""

    async def test(running: Running) -> None:
        for path in ("/v1/messages", "/v1/models", "/metrics", "/nothing"):
            for headers, name in (({}, "no_token"), ({"x-api-key": "wrong" * 5}, "wrong_token")):
                response = await running.http.get(f"{running.url}{path}", headers=headers)
                assert (response.status_code, response.headers["x-streamguard-refused"]) == (401, name)
                assert response.headers["www-authenticate"] == "Bearer"
                assert error_of(response.content)["type"] == "authentication_error"
        assert (await running.http.get(f"{running.url}/healthz")).json() == {"status": "ok"}
        assert running.upstream.connections == 0

    with_proxy(GOOD, test, **OURS)


def test_without_a_key_of_its_own_the_clients_credentials_go_upstream_and_the_token_does_not() -> None:
    """A proxy in front of clients that have keys: the token has its own header."""

    async def test(running: Running) -> None:
        response = await running.ask(headers={"x-api-key": KEY, "x-streamguard-token": ALICE})
        assert response.status_code == 200
        sent = running.upstream.exchanges[0].headers
        assert sent["x-api-key"] == KEY
        assert ALICE not in str(sent)

    with_proxy(GOOD, test, tokens=TOKENS, clients=CLIENTS)


def test_metrics_and_the_live_view_are_for_operators() -> None:
    """A client's token opens neither; the view's page holds nothing and asks for a token itself."""

    async def test(running: Running) -> None:
        async def status(path: str, token: str) -> int:
            headers = {"authorization": f"Bearer {token}"}
            return (await running.http.get(f"{running.url}{path}", headers=headers)).status_code

        assert [await status("/metrics", token) for token in (ALICE, OPS)] == [403, 200]
        assert [await status("/_streamguard/state", token) for token in (ALICE, OPS, "none")] == [401, 200, 401]
        assert (await running.http.get(f"{running.url}/_streamguard/")).status_code == 200

    with_proxy(GOOD, test, **OURS)


def test_without_operators_there_is_no_view() -> None:
    """Nobody could look, so there is nothing to look at."""

    async def test(running: Running) -> None:
        response = await running.http.get(f"{running.url}/_streamguard/", headers={"x-streamguard-token": ALICE})
        assert response.status_code == 404

    with_proxy(GOOD, test, tokens=TOKENS, clients=CLIENTS[:1])


def test_the_view_shows_this_machine_what_runs() -> None:
    """Without clients anybody on the machine may look, under a name of the machine's."""

    async def test(running: Running) -> None:
        await running.ask()
        state = (await running.http.get(f"{running.url}/_streamguard/state")).json()
        assert "default" in str(state)
        rebound = await running.http.get(f"{running.url}/_streamguard/state", headers={"host": "attacker.example"})
        assert rebound.status_code == 403

    with_proxy(GOOD, test)


@pytest.mark.slow
@pytest.mark.timeout(90)
def test_the_time_says_nothing_of_a_token() -> None:
    """Over 100,000 requests: a token that is right but for its last character takes as long as one that is all wrong."""
    judge = access(clients=CLIENTS, has_key=True)
    guesses = {"near": ALICE[:-1] + "~", "far": "~" * len(ALICE), "first": ALICE[0] + "~" * (len(ALICE) - 1)}
    heads = {name: [(b"host", b"localhost"), (b"x-api-key", guess.encode())] for name, guess in guesses.items()}
    best = dict.fromkeys(guesses, 1e9)
    for _ in range(100_000 // 500 // len(guesses)):
        for name, head in heads.items():
            began = time.thread_time()
            for _ in range(500):
                with contextlib.suppress(Refused):
                    judge.caller(head)
            best[name] = min(best[name], time.thread_time() - began)
    assert max(best.values()) < 1.15 * min(best.values())
