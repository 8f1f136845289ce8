"""`adapters.anthropic.clients`: mistakes on this machine are told before anything is sent, and without the secret."""

from __future__ import annotations

from pathlib import Path

import anthropic
import pytest

from streamguard.adapters.anthropic.clients import certificate_mistake, problems, url_mistake


@pytest.mark.parametrize("name", ["api_key", "auth_token"])
@pytest.mark.parametrize(
    "bad", ["sk-SECRET\r", "sk-SECRET\n", "\nsk-SECRET", "sk-SECRET ", "sk-SEC\0RET", "sk-SECRET\u200b", "sk-SÉCRET"]
)
def test_a_key_that_no_header_carries(name: str, bad: str) -> None:
    """It is told by name, and not repeated."""
    client = anthropic.AsyncAnthropic(base_url="https://api.example.com", **{name: bad})
    [problem] = problems(client, None)
    assert problem.problem.startswith(f"the client's {name} holds a line break")
    assert "SECRET" not in problem.problem
    assert f"ANTHROPIC_{name.upper()}" in problem.problem


@pytest.mark.parametrize("key", ["sk-ant-api03-x_y", "k", "two words", "~!"])
def test_a_key_that_a_header_carries(key: str) -> None:
    """Whatever is printable is sent."""
    assert list(problems(anthropic.AsyncAnthropic(api_key=key, base_url="http://127.0.0.1:8000/v1"), None)) == []


@pytest.mark.parametrize(
    ("url", "mistake"),
    [
        ("https://api.example.com", None),
        ("http://127.0.0.1:65535/v1/", None),
        ("http://[::1]:80", None),
        (" http://a.b", "holds a blank or a line break"),
        ("http://a.b\r", "holds a blank or a line break"),
        ("http://a.b/%20", "holds a blank or a line break"),
        ("http://a b.c", "holds a blank or a line break"),
        ("http://a.b:99999", "has no port from 1 to 65535"),
        ("http://a.b:abc", "has no port from 1 to 65535"),
        ("http://a.b:-1", "has no port from 1 to 65535"),
        ("http://a.b:0", "has no port from 1 to 65535"),
        ("http://[::1", "cannot be read"),
        ("http://", "names no host"),
        ("http://:80", "names no host"),
        ("a.b:80", "begins with neither http:// nor https://"),
        ("", "begins with neither http:// nor https://"),
        ("ftp://a.b", "begins with neither http:// nor https://"),
    ],
)
def test_urls(url: str, mistake: str | None) -> None:
    """What cannot be asked is known before it is asked."""
    assert url_mistake(url) == mistake


def test_a_client_of_such_a_url() -> None:
    """The SDK takes it; the source does not."""
    [problem] = problems(anthropic.AsyncAnthropic(api_key="k", base_url="http://127.0.0.1:99999"), None)
    assert problem.problem == (
        "the client's base_url has no port from 1 to 65535; it must be like https://api.example.com"
    )


def test_certificates(tmp_path: Path) -> None:
    """A file or folder that the environment names is there."""
    there = tmp_path / "ca.pem"
    there.touch()
    assert certificate_mistake({}) is None
    assert certificate_mistake({"SSL_CERT_FILE": "", "SSL_CERT_DIR": str(tmp_path)}) is None
    assert certificate_mistake({"SSL_CERT_FILE": str(there)}) is None
    gone = str(tmp_path / "gone.pem")
    assert certificate_mistake({"SSL_CERT_FILE": gone}) == f"SSL_CERT_FILE names {gone}, which is not there"
    assert certificate_mistake({"SSL_CERT_DIR": str(there)}) == f"SSL_CERT_DIR names {there}, which is not there"
