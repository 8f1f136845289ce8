"""`streamguard budget`: an operator looks at a ledger and corrects it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from streamguard.budgets.spec import Scope, Settlement
from streamguard.budgets.stores.sqlite import SqliteStore
from streamguard.cli import main
from streamguard.cli.commands.exits import Exit

MONEY = Scope(key="nightly/job:x/micro_usd", unit="micro_usd", cap=5_000_000)
TOKENS = Scope(key="nightly/job:x/tokens", unit="tokens", cap=1000, window="day")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A ledger in which something was spent, is held and is uncertain."""
    path = tmp_path / "budget.db"
    store = SqliteStore(path)
    store.configure([MONEY, TOKENS])
    store.reserve("a", {MONEY.key: 2_000_000, TOKENS.key: 400}, 60)
    store.settle("a", {MONEY.key: Settlement(1_250_000, 250_000), TOKENS.key: Settlement(100)})
    store.reserve("b", {MONEY.key: 1_000_000}, 60)
    store.close()
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, output, errors."""
    with pytest.raises(SystemExit) as caught:
        main.main(["budget", *map(str, arguments)])
    output = capsys.readouterr()
    code = caught.value.code
    assert isinstance(code, int)
    return code, output.out, output.err


def test_show(file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The table has a line a scope, in dollars or tokens, and says what uncertain means."""
    monkeypatch.setenv("COLUMNS", "140")
    code, out, err = run(capsys, "show", file)
    lines = [line.split() for line in out.splitlines()]
    assert (code, err) == (Exit.OK, "")
    assert lines[0] == ["scope", "window", "spent", "held", "uncertain", "left", "cap"]
    assert lines[1] == ["nightly/job:x/micro_usd", "-", "$1.250000", "$1.000000", "$0.250000", "$2.500000", "$5.000000"]
    assert lines[2][0] == "nightly/job:x/tokens"
    assert lines[2][2:] == ["100", "tokens", "0", "tokens", "0", "tokens", "900", "tokens", "1,000", "tokens"]
    assert "$0.250000 uncertain in 1 attempt aborted or cut before the provider counted" in out
    assert "uncertain: calls that were aborted or crashed" in out


@pytest.mark.parametrize("width", [20, 40, 80, 120])
def test_a_scope_stays_in_one_piece(
    tmp_path: Path, width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However narrow the terminal: what is to be copied into `reconcile` is never broken, nor is an amount."""
    keys = [f"nightly/client:{'ü' * 60}-{number}/micro_usd" for number in range(3)] + [MONEY.key]
    path = tmp_path / "budget.db"
    store = SqliteStore(path)
    store.configure([Scope(key=key, unit="micro_usd", cap=123_456_789_012, window="month") for key in keys])
    store.reserve("a", dict.fromkeys(keys, 2_000_000), 60)
    store.settle("a", dict.fromkeys(keys, Settlement(1_250_000, 250_000)))
    store.close()
    monkeypatch.setenv("COLUMNS", str(width))
    code, out, _ = run(capsys, "show", path)
    lines = out.splitlines()
    assert code == Exit.OK
    assert [line for line in lines if line in keys] == sorted(keys)
    figures = [line for line in lines if line.startswith("  ")]
    assert "".join(figures).count("cap $123456.789012") == len(keys)
    assert [line for line in lines if len(line) > width and len(line.split()) > 1 and width >= 40] == []


def test_show_json(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One object a line, for machines."""
    code, out, _ = run(capsys, "show", f"sqlite:{file}", "--json")
    first, second = map(json.loads, out.splitlines())
    assert (code, second["scope"], second["available"]) == (Exit.OK, TOKENS.key, 900)
    [kind] = first.pop("uncertain_kinds")
    assert {**kind, "since": 0} == {"kind": "aborted", "holds": 1, "amount": 250_000, "since": 0}
    assert first == {
        "scope": MONEY.key,
        "unit": "micro_usd",
        "cap": 5_000_000,
        "settled": 1_250_000,
        "held": 1_000_000,
        "uncertain": 250_000,
        "window": "",
        "available": 2_500_000,
    }


def test_reconcile_and_set(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What was uncertain becomes what it cost; a cap can be held down; both are seen by the next who look."""
    assert run(capsys, "reconcile", file, MONEY.key, "--settled", "0.10") == (
        Exit.OK,
        f"{MONEY.key}: what was uncertain now is settled at $0.100000\n",
        "",
    )
    code, out, _ = run(capsys, "set", file, MONEY.key, "--cap", "$2.5")
    assert (code, out.split(". ")[0]) == (Exit.OK, f"{MONEY.key}: the cap is $2.500000 now, it was $5.000000")
    store = SqliteStore(file)
    balance = store.balance(MONEY.key)
    store.close()
    assert (balance.settled, balance.held, balance.uncertain, balance.cap) == (1_350_000, 1_000_000, 0, 2_500_000)
    code, out, _ = run(capsys, "set", file, MONEY.key, "--unset")
    assert (code, out.split(", ")[0]) == (Exit.OK, f"{MONEY.key}: the cap is $5.000000 now")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "memory:"], "a ledger in memory lives in its own process: name a file or a Redis server"),
        (["show", "{folder}/none.db"], "{folder}/none.db: there is no such file"),
        (["set", "{file}", "nightly", "--cap", "1"], "this ledger has no scope 'nightly'; it has nightly/job:x/micro_usd, nightly/job:x/tokens"),
        (["set", "{file}", MONEY.key, "--cap", "much"], "--cap 'much': give US dollars, such as \"12.50\""),
        (["set", "{file}", MONEY.key, "--cap", "-1"], "--cap '-1': give US dollars, such as \"12.50\""),
        (["set", "{file}", MONEY.key, "--cap", "nan"], "--cap 'nan': give US dollars, such as \"12.50\""),
        (["set", "{file}", TOKENS.key, "--cap", "1.5"], "--cap '1.5': give whole tokens, such as 250000"),
        (["set", "{file}", MONEY.key], "give --cap AMOUNT, or --unset"),
        (["set", "{file}", MONEY.key, "--cap", "1", "--unset"], "give --cap AMOUNT, or --unset"),
        (["reconcile", "{file}", MONEY.key, "--settled", "1", "--before", "noon"], "--before 'noon': give a time such as 2026-12-01T03:00 (UTC)"),
        (["reconcile", "{file}", TOKENS.key, "--settled", "1"], "nightly/job:x/tokens: nothing is uncertain now"),
        (["reconcile", "{file}", MONEY.key, "--settled", "1", "--hold", "zz"], "nightly/job:x/micro_usd: nothing is uncertain of hold zz"),
    ],
)  # fmt: skip
def test_refusals(file: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    """Each mistake has its sentence and exit code 2, and nothing is made or changed."""
    places = {"file": file, "folder": file.parent}
    code, out, err = run(capsys, *[argument.format(**places) for argument in arguments])
    assert (code, out, err) == (Exit.INPUT, "", message.format(**places) + "\n")
    assert sorted(path.name for path in file.parent.iterdir()) == ["budget.db"]
