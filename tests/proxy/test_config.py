"""Configurations: what can be said, and what is refused before anything is served."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from streamguard.errors import ConfigError
from streamguard.proxy.config import Listen, ProxyConfig
from streamguard.proxy.configfile import ProxyConfigError, read_config, read_setup

FILE = """\
version: 1
listen: "0.0.0.0:9000"
upstream: https://api.example.com/anthropic/
upstream_addresses: public
key_env: ANTHROPIC_API_KEY
clients:
  - {name: n8n, token_env: STREAMGUARD_N8N}
  - {name: ops, token_env: STREAMGUARD_OPS, operator: true}
hosts: [gateway.internal]
policy: streamguard:interactive_chat
policies:
  invoices: invoices.yaml
  raw: off
routes:
  - {path: /invoices, policy: invoices}
  - {model: "claude-haiku-*", policy: raw}
by_header: [invoices]
forward_headers: [x-request-source]
keep_alive: {stream: 10, json: 30}
limits: {body_bytes: 1048576, head_seconds: 5}
drain: 20
"""
ENVIRONMENT = {
    "ANTHROPIC_API_KEY": "sk-ant-0123456789",
    "STREAMGUARD_N8N": "n8n-0123456789abcdef",
    "STREAMGUARD_OPS": "ops-0123456789abcdef",
}


def written(folder: Path, text: str = FILE, policy: str = "version: 1\ntimeouts: {total: 60}\n") -> str:
    (folder / "invoices.yaml").write_text(policy)
    (folder / "proxy.yaml").write_text(text)
    return str(folder / "proxy.yaml")


def test_a_file_says_everything(tmp_path: Path) -> None:
    """Every key, read, with its policies, key and tokens; nothing secret in the setup's `repr`."""
    config, folder = read_config(written(tmp_path), {"drain": 5.0})
    made = read_setup(config, folder, environment=ENVIRONMENT)
    assert config.listen == Listen(host="0.0.0.0", port=9000)
    assert (config.upstream, config.drain) == ("https://api.example.com/anthropic", 5.0)
    assert sorted(made.policies) == ["interactive_chat", "invoices", "off", "raw"]
    assert made.policies["raw"] is made.policies["off"] is None
    assert made.default == "interactive_chat"
    assert made.key == ENVIRONMENT["ANTHROPIC_API_KEY"]
    assert made.tokens == {"n8n": ENVIRONMENT["STREAMGUARD_N8N"], "ops": ENVIRONMENT["STREAMGUARD_OPS"]}
    assert not [secret for secret in ENVIRONMENT.values() if secret in f"{made!r}{made}{config}"]


def test_nothing_said_is_a_proxy_on_loopback() -> None:
    """The defaults: this machine only, the provider, a policy for chats, the clients' own keys."""
    config, folder = read_config(None, {})
    made = read_setup(config, folder, environment={})
    assert (str(config.listen), config.upstream) == ("127.0.0.1:8787", "https://api.anthropic.com")
    assert (made.default, made.key, made.tokens) == ("interactive_chat", None, {})


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("drain: 20", "drian: 20", '21:1: /drian: unknown key; did you mean "drain"?'),
        ("0.0.0.0:9000", "0.0.0.0:99999", "2:9: /listen: '0.0.0.0:99999' must be like"),
        ("head_seconds: 5", "head_seconds: 0", "/limits/head_seconds: must be more than 0"),
        ("token_env: STREAMGUARD_N8N", "token_env: HOME", "7:28: /clients/0/token_env: 'HOME' must be an environment"),
        (
            "key_env: ANTHROPIC_API_KEY",
            "key_env: AWS_SECRET_ACCESS_KEY",
            "5:10: /key_env: 'AWS_SECRET_ACCESS_KEY' must",
        ),
        (
            "https://api.example.com",
            "https://me:secret@api.example.com",
            "/upstream: must have no user and no password",
        ),
        ("https://api.example.com", "http://api.example.com", "would carry the key in plain text over the network"),
        ("https://api.example.com", "ftp://api.example.com", "/upstream: must be like https://api.example.com"),
        (
            "https://api.example.com/anthropic/",
            "https://api.example.com/v1/",
            "/upstream: must not end in /v1, which the proxy adds itself: leave /v1 out (https://api.example.com)",
        ),
        (
            "https://api.example.com/anthropic/",
            "https://api.example.com/a/v1/messages",
            "/upstream: must not end in /v1/messages, which the proxy adds itself: leave /v1/messages out (https://api.example.com/a)",
        ),
        ("https://api.example.com/anthropic/", "https://api.example.com/?a=b", "/upstream: must be like"),
        ("https://api.example.com/anthropic/", "https://api.example.com/../x", "/upstream: must have a plain path"),
        ("name: ops", "name: n8n", "two clients are called 'n8n'"),
        ("path: /invoices", "path: /v1/invoices", "'/v1/invoices' must be like /extraction"),
        ("{path: /invoices, policy: invoices}", "{policy: invoices}", "a route needs a path, a model or both"),
        ("policy: raw}", "policy: rwa}", "policy 'rwa' is not in `policies`"),
        ("x-request-source", "authorization", "authorization is never passed on as it is"),
        ("x-request-source", "X-Upper", "'X-Upper' must be a header's name in lower case"),
        ("gateway.internal", "Gateway:80", "'Gateway:80' must be a host's name"),
        ("hosts: [gateway.internal]", "origins: ['*']", "'*' must be like https://app.example.com"),
        ("version: 1", "version: 2", "/version: must be 1"),
        ("version: 1", "version: &a 1", "anchor"),
    ],
)
def test_a_mistake_has_its_place(tmp_path: Path, old: str, new: str, message: str) -> None:
    """File, line, column and pointer; and never the value of a password."""
    assert old in FILE
    with pytest.raises(ProxyConfigError) as caught:
        read_config(written(tmp_path, FILE.replace(old, new, 1)), {})
    assert message in str(caught.value)
    assert "secret@" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"listen": Listen(host="0.0.0.0")}, "lets others in: name at least one client with a token"),
        ({"listen": Listen(host="192.168.1.5")}, "lets others in"),
        ({"upstream": "http://127.0.0.1:8787"}, "is this proxy itself"),
        ({"upstream": "http://gateway.example.com"}, "plain text over the network"),
    ],
)
def test_what_would_be_dangerous_is_refused(overrides: dict[str, object], message: str) -> None:
    """An open relay, a loop, a key in plain text."""
    with pytest.raises(ValidationError, match=message):
        ProxyConfig(**overrides)


def test_what_is_near_may_be_plain() -> None:
    """A sidecar, a cluster's service, a server on this machine."""
    for upstream in ("http://127.0.0.1:11434", "http://ollama:11434", "http://10.0.0.5", "http://gateway.internal"):
        assert ProxyConfig(upstream=upstream).upstream == upstream


@pytest.mark.parametrize(
    ("policy", "pointer", "message"),
    [
        ("version: 1", "/timeouts/total", "a proxy needs a limit on the time of each call"),
        ("timeouts: {total: 9}\ndeliver: restarting", "/deliver", "restarting needs a client"),
        (
            "timeouts: {total: 9}\nretry: {attempts: 2, rules: [{when: [json.*], base_url: 'https://b.example'}]}",
            "/retry/rules/0/base_url",
            "its one upstream only",
        ),
        (
            "timeouts: {total: 9}\nbudgets: [{name: a, per: 'tenant:{team}', cost_usd: '1'}]",
            "/budgets/0/per",
            "no label 'team'; a proxy's calls have client, policy",
        ),
        ("timeouts: {total: 9}\njson: {enough_when: [/a]}", "/json/enough_when", "leaves unfinished"),
        (
            "timeouts: {total: 9}\njson: {grounded: [{at: /a, in: row.text}]}",
            "/json/grounded/0/in",
            "row.text is a field of a job's row, and a proxy has only requests: say in: request",
        ),
        ("timeouts: {total: 9}\njson: {schema: {type: 5}}", None, "type"),
        ("timeouts: {idle: 9}", "/timeouts/idle", "unknown key"),
    ],
)
def test_a_policy_that_no_proxy_can_keep_is_refused(
    tmp_path: Path, policy: str, pointer: str | None, message: str
) -> None:
    """With the policy's own file and the key that is wrong."""
    policy = policy if policy.startswith("version") else f"version: 1\n{policy}"
    config, folder = read_config(written(tmp_path, policy=policy), {})
    with pytest.raises(ConfigError) as caught:
        read_setup(config, folder, environment=ENVIRONMENT)
    assert message in str(caught.value)
    assert pointer is None or caught.value.pointer == pointer
    assert "invoices.yaml" in str(caught.value.file)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"ANTHROPIC_API_KEY": ""}, "the environment variable ANTHROPIC_API_KEY is not set"),
        ({"STREAMGUARD_N8N": "canary"}, "the token in STREAMGUARD_N8N is shorter than 16 characters"),
        ({"STREAMGUARD_N8N": "canary canary canary"}, "STREAMGUARD_N8N has characters that no header can carry"),
        ({"STREAMGUARD_N8N": ENVIRONMENT["STREAMGUARD_OPS"]}, "two clients have the same token"),
    ],
)
def test_a_secret_that_cannot_be_used_is_named_and_not_shown(
    tmp_path: Path, changed: dict[str, str], message: str
) -> None:
    """The variable's name, never its value."""
    config, folder = read_config(written(tmp_path), {})
    with pytest.raises(ProxyConfigError) as caught:
        read_setup(config, folder, environment=ENVIRONMENT | changed)
    assert message in str(caught.value)
    assert "canary" not in str(caught.value)


def test_a_policy_of_the_default_may_be_a_file_or_a_name(tmp_path: Path) -> None:
    """A path, a shipped one, one of `policies`, or off."""
    written(tmp_path)
    for policy, name in (("invoices.yaml", "default"), ("named", "named"), ("off", "off")):
        config = ProxyConfig(policy=policy, policies={"named": "streamguard:agent"})
        assert read_setup(config, tmp_path, environment={}).default == name


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("127.0.0.1:80", Listen(host="127.0.0.1", port=80)),
        ("[::1]:80", Listen(host="::1", port=80)),
        ("localhost", Listen(host="localhost")),
        (":80", None),
        ("http://a:80", None),
        ("::1:80", None),
    ],
)
def test_addresses_are_read(text: str, found: Listen | None) -> None:
    """`HOST:PORT`, `[V6]:PORT`, `HOST`; and they read back."""
    if found is None:
        with pytest.raises(ValueError, match="must be like"):
            Listen.parse(text)
        return
    assert Listen.parse(text) == found == Listen.parse(str(found))
