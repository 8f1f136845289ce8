"""`streamguard check` on what no other test looks at: a proxy's configuration, and budgets against rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamguard.cli import main

CONFIG = """version: 1
listen: 127.0.0.1:8787
upstream: https://gateway.example
key_env: STREAMGUARD_KEY
clients: [{name: one, token_env: STREAMGUARD_ONE}, {name: two, token_env: STREAMGUARD_TWO}]
policy: p.yaml
"""


def check(capfd, *names: str) -> tuple[int, str, str]:
    """Run the command."""
    with pytest.raises(SystemExit) as caught:
        main.main(["check", *names])
    said = capfd.readouterr()
    return caught.value.code or 0, said.out, said.err


@pytest.fixture(autouse=True)
def _files(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "proxy.yaml").write_text(CONFIG)
    (tmp_path / "p.yaml").write_text("version: 1\ntimeouts: {total: 60}\n")


def test_a_proxys_configuration_is_known_by_its_keys(capfd, monkeypatch) -> None:
    """It is fine where its policies are; variables that are set only where it runs are named."""
    monkeypatch.setenv("STREAMGUARD_ONE", "0123456789abcdef")
    assert check(capfd, "proxy.yaml") == (
        0,
        (
            "proxy.yaml: fine, a proxy in front of https://gateway.example (policies: default)\n"
            "  not set here: STREAMGUARD_KEY, STREAMGUARD_TWO\n"
        ),
        "",
    )


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("upstream:", "upstreem:", 'proxy.yaml:3:1: /upstreem: unknown key; did you mean "upstream"?\n'),
        ("p.yaml", "q.yaml", "q.yaml: no such file\n"),
        ("STREAMGUARD_TWO", "STREAMGUARD_ONE", "proxy.yaml: /clients: two clients have the same token\n"),
    ],
)
def test_its_mistakes_have_their_places(tmp_path: Path, capfd, old: str, new: str, said: str) -> None:
    """As `streamguard proxy` would say them, before anything listens."""
    (tmp_path / "proxy.yaml").write_text(CONFIG.replace(old, new))
    assert check(capfd, "proxy.yaml") == (2, "", said)


def test_a_policy_and_a_job_are_no_proxy(tmp_path: Path, capfd) -> None:
    """A policy stays a policy."""
    assert check(capfd, "p.yaml") == (0, "p.yaml: fine\n", "")


ROW = (
    '{"custom_id": "%s", "params": {"model": "m", "max_tokens": %d, "messages": [{"role": "user", "content": "a"}]}}\n'
)
BUDGET = """version: 1
timeouts: {total: 60}
budgets: [{name: b, cost_usd: "1.00"}]
prices: {m: {input: "1", output: "10", cache_read: "1", cache_write: "1"}}
"""


def test_what_budgets_hold_for_rows(tmp_path: Path, capfd) -> None:
    """Hold, usual cost, how many at once, and what can be spent; nothing is sent and no ledger is made."""
    (tmp_path / "b.yaml").write_text(BUDGET)
    (tmp_path / "rows.jsonl").write_text(ROW % ("a", 1000) + ROW % ("b", 1000))
    code, out, _ = check(capfd, "b.yaml", "--budget", "rows.jsonl", "--usual-output", "100")
    labels = [line.strip().split("  ")[0] for line in out.splitlines()[1:]]
    assert (code, labels) == (0, ["budget b", "held for one", "usual cost", "at once", "spendable"])
    assert "with 100 tokens of output" in out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.yaml", "p.yaml", "proxy.yaml", "rows.jsonl"]


def test_rows_that_are_none_are_told(tmp_path: Path, capfd) -> None:
    """Mistakes of the rows are mistakes of the check; a policy without budgets says so."""
    (tmp_path / "b.yaml").write_text(BUDGET)
    (tmp_path / "rows.jsonl").write_text("no row\n")
    code, _, err = check(capfd, "b.yaml", "--budget", "rows.jsonl")
    assert (code, "rows.jsonl:1" in err) == (2, True)
    assert "the policy has no budgets" in check(capfd, "p.yaml", "--budget", "rows.jsonl")[1]


def test_a_proxy_s_mistakes_in_order(tmp_path, monkeypatch, capsys) -> None:
    """From the top of the file to its end, as of every other file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "px.yaml").write_text("upstream: http://127.0.0.1:1\npolcy: off\nlisten: 1\n")
    with pytest.raises(SystemExit) as caught:
        main.main(["check", "px.yaml"])
    assert caught.value.code == 2
    assert capsys.readouterr().err.splitlines() == [
        'px.yaml:2:1: /polcy: unknown key; did you mean "policy"?',
        "px.yaml:3:9: /listen: must be a mapping, got 1",
    ]
