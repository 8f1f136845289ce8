"""Where rows and the key go: to the provider and to whom the operator names, whatever a file says."""

from __future__ import annotations

import pytest

from streamguard.cli.commands.hosts import Allowed, Place
from streamguard.testing import answer, status, wire
from tests.cli.commands.test_run import GOOD, JOB, KEY, POLICY, command, scripts_by_text, write

OVERLOADED = status(529, {}, wire.error_body("overloaded_error", "x"))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A job in the working directory, and a key in the environment."""
    write(tmp_path, "good-1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.delenv("ANTHROPIC_BASE_URL", raising=False)
    return tmp_path


def test_a_job_files_address_gets_the_key_by_the_operators_word_only(folder, capfd) -> None:
    """Refused with the host to allow, before anything is opened; allowed, it is said and used."""
    with scripts_by_text(good=[answer(GOOD)]).in_thread() as server:
        (folder / "job.yaml").write_text(JOB + f"base_url: {server.url}\n")
        code, _, err = command(capfd, "run", "job.yaml")
        assert (code, server.exchanges) == (2, [])
        assert f"job.yaml: /base_url: {server.url} would get the rows and the key" in err
        assert "--allow-host 127.0.0.1" in err
        assert not (folder / "out.jsonl").exists()
        code, out, _ = command(capfd, "check", "job.yaml")
        assert code == 0
        assert f"/base_url: rows and the key go to {server.url}" in out
        assert "run sends nothing there without --allow-host 127.0.0.1" in out
        code, _, err = command(capfd, "run", "job.yaml", "--allow-host", "127.0.0.1")
        assert (code, len(server.exchanges)) == (0, 1)
        assert KEY in str(server.exchanges[0].headers)
        assert f"rows and the key go to {server.url}" in err


def test_a_journals_address_is_no_operators_word(folder, capfd) -> None:
    """`retry` goes where the last run went only if the operator says so again."""
    with scripts_by_text(good=[answer("x"), answer(GOOD)]).in_thread() as server:
        (folder / "job.yaml").write_text(JOB + f"base_url: {server.url}\n")
        assert command(capfd, "run", "job.yaml", "-q", "--allow-host", "127.0.0.1")[0] in (0, 3)
        asked = len(server.exchanges)
        code, _, err = command(capfd, "retry", "out.jsonl", "--id", "r0")
        assert (code, len(server.exchanges)) == (2, asked)
        assert "out.jsonl: /base_url:" in err
        assert command(capfd, "retry", "out.jsonl", "--id", "r0", "-q", "--allow-host", "127.0.0.1")[0] in (0, 3)
        assert len(server.exchanges) > asked


def test_a_policys_address_gets_the_key_by_the_operators_word_only(folder, capfd) -> None:
    """A fallback to another host is an address in a file like any other."""
    with (
        scripts_by_text(good=[OVERLOADED]).in_thread() as server,
        scripts_by_text(good=[answer(GOOD)]).in_thread() as other,
    ):
        elsewhere = other.url.replace("127.0.0.1", "localhost")
        rule = f'retry: {{attempts: 2, rules: [{{when: [provider.*], wait: none, base_url: "{elsewhere}"}}]}}\n'
        (folder / "p.yaml").write_text(POLICY[: POLICY.index("retry:")] + rule)
        run = ("run", "in.jsonl", "-p", "p.yaml", "-o", "out.jsonl", "--template", "t.j2", "--base-url", server.url)
        code, _, err = command(capfd, *run)
        assert (code, server.exchanges, other.exchanges) == (2, [], [])
        assert "p.yaml: /retry/rules/0/base_url:" in err
        assert "--allow-host localhost" in err
        assert "run sends nothing there" in command(capfd, "check", "p.yaml")[1]
        command(capfd, *run, "-q", "--allow-host", "localhost")
        assert (len(server.exchanges), len(other.exchanges)) == (1, 1)


def test_a_job_file_runs_no_code_by_itself(folder, capfd) -> None:
    """`allow_imports` in the file asks for `--allow-imports`; before that nothing is imported, not to check it either."""
    (folder / "evil.py").write_text("from pathlib import Path\nPath('ran').touch()\nguard = None\n")
    (folder / "p.yaml").write_text(POLICY + 'guards: ["evil:guard"]\n')
    (folder / "job.yaml").write_text(JOB + "allow_imports: true\n")
    for line in (("run", "job.yaml"), ("run", "job.yaml", "--dry-run"), ("check", "job.yaml"), ("check", "p.yaml")):
        code, _, err = command(capfd, *line)
        assert (code, (folder / "ran").exists()) == (2, False)
        assert "Python code" in err


@pytest.mark.parametrize(
    ("url", "hosts", "allowed"),
    [
        ("https://api.anthropic.com", (), True),
        ("https://api.anthropic.com.evil.example", (), False),
        ("https://api.anthropic.com@evil.example", (), False),
        ("https://evil.example", ("other.example",), False),
        ("https://Good.example:8443/v1", ("good.example",), True),
        ("https://good.example:8443", ("good.example:8443",), True),
        ("https://good.example:8444", ("good.example:8443",), False),
        ("http://127.0.0.1:1", (), False),
        ("http://[::1]:1", ("::1",), True),
        ("http://[::1]:1", ("[::1]:1",), True),
    ],
)
def test_hosts_are_allowed_by_name(monkeypatch, url: str, hosts: tuple[str, ...], allowed: bool) -> None:
    """The provider's own, and those that were named, with a port or for all."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.delenv("ANTHROPIC_BASE_URL", raising=False)
    assert (Place(url, "f", "/p") in Allowed(hosts)) is allowed


def test_what_the_operator_names_is_allowed(monkeypatch) -> None:
    """By option and by environment; and this machine, where there is no key to lose."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "https://gateway.example/v1")
    assert Place("https://gateway.example", "f", "/p") in Allowed()
    assert Place("https://own.example", "f", "/p") in Allowed(base_url="https://own.example:1")
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    monkeypatch.delenv("ANTHROPIC_AUTH_TOKEN", raising=False)
    assert Place("http://localhost:8080", "f", "/p") in Allowed()
    assert Place("http://evil.example", "f", "/p") not in Allowed()


def test_plain_http_is_said() -> None:
    """Whoever is on the way reads it."""
    said = list(Allowed(["far.example"]).notices([Place("http://far.example", "job.yaml", "/base_url")]))
    assert len(said) == 2
    assert "plain http" in said[1]
