"""The extractor: rows, lists and columns, one loop for all copies, and what ends the work."""

from __future__ import annotations

import json
import pickle
import threading
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
import trio

from streamguard.batch import Extractor, JournalLost, Stopped, core
from streamguard.batch.claims import Claims
from streamguard.batch.columns import ADDED
from streamguard.batch.core import NAME
from streamguard.batch.journal.contract import JournalEmptied
from streamguard.batch.journal.sqlite import SqliteJournal
from streamguard.errors import ConfigError
from tests.batch.batches import POLICY, extractor, provider, request, rows


def budgeted(tokens: int, path: Path) -> str:
    """The policy with a budget that all processes share."""
    return f"{POLICY}budgets: [{{name: all, tokens: {tokens}, ledger: 'sqlite:{path}'}}]\n"


def test_rows_come_with_their_results_as_they_end() -> None:
    """Every column is there and of its type, for successes and for failures alike."""
    with provider() as server, extractor(server.base_url) as extract:
        found = {row["id"]: row for row in extract.rows(rows("row 7", "bad 1", "row 9"))}
    assert {key: list(row) for key, row in found.items()} == {key: ["id", "text", *ADDED] for key in range(3)}
    assert [found[key]["output"] for key in range(3)] == ['{"n":7}', None, '{"n":9}']
    assert [found[key]["completed"] for key in range(3)] == ["whole", None, "whole"]
    assert [found[key]["reason"] for key in range(3)] == [None, "json.schema", None]
    assert all(row["asked"] is True and row["attempts"] == 1 for row in found.values())
    kinds = {"string": str, "int64": int, "bool": bool}
    for row in found.values():
        for name, kind in extract.schema.items():
            assert row[name] is None or type(row[name]) is kinds[kind], name


@pytest.mark.parametrize("run", [anyio.run, trio.run], ids=["asyncio", "trio"])
def test_awaited_rows_come_in_their_order(run: Any) -> None:
    """On the caller's loop nothing is done but waiting."""
    with provider() as server, extractor(server.base_url, concurrency=3) as extract:
        found = run(extract, rows(*(f"row {n}" for n in range(20))))
        alone = run(extract.one, {"id": "x", "text": "row 5"})
    assert [json.loads(row["output"])["n"] for row in found] == list(range(20))
    assert alone["output"] == '{"n":5}'


def test_columns_in_and_out() -> None:
    """Lists and arrays come back as what they were, with the added columns beside them."""
    numpy = pytest.importorskip("numpy", reason="numpy is not installed: no arrays to try")
    columns = {"id": numpy.arange(6), "text": numpy.array([f"row {n}" for n in range(6)]), "note": list("abcdef")}
    with provider() as server, extractor(server.base_url, concurrency=2) as extract:
        parts = list(extract.columns(columns))
    assert all(list(part) == ["id", "text", "note", *ADDED] for part in parts)
    assert all(type(part["id"]) is numpy.ndarray for part in parts)
    found = sorted(
        (int(key), note, json.loads(output)["n"])
        for part in parts
        for key, note, output in zip(part["id"], part["note"], part["output"], strict=True)
    )
    assert found == [(n, "abcdef"[n], n) for n in range(6)]


def test_copies_share_one_loop_and_one_limit() -> None:
    """Pickled copies and extractors of the same configuration are one in a process, whatever thread uses them."""
    with provider(delay=0.05) as server, extractor(server.base_url, concurrency=4) as extract:
        copies = [pickle.loads(pickle.dumps(extract)) for _ in range(3)]
        alike = Extractor(extract._setup.policy, request=request, base_url=server.base_url, concurrency=4)
        most, seen = 0, []

        def work(one: Extractor) -> None:
            seen.extend(one.rows(rows(*(f"row {n}" for n in range(8)))))

        threads = [threading.Thread(target=work, args=(one,)) for one in (*copies, alike)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            most = max(most, sum(exchange.open for exchange in list(server.server.exchanges)))
        assert [thread.name for thread in threading.enumerate()].count(NAME) == 1
        assert len(seen) == 32
        assert most <= 4
    assert NAME not in [thread.name for thread in threading.enumerate()]


def test_another_configuration_has_a_loop_of_its_own() -> None:
    """Whatever differs, differs."""
    with provider() as server, extractor(server.base_url) as extract, extractor(server.base_url, model="x") as other:
        assert extract._setup.name != other._setup.name


def test_an_iterator_that_is_left_interrupts_its_calls(tmp_path) -> None:
    """Nothing goes on in the background, and the rows are free again at once."""
    options = {"journal": f"sqlite:{tmp_path / 'rows'}", "job": "j", "concurrency": 4}
    with provider() as server, extractor(server.base_url, **options) as extract:
        found = extract.rows([{"id": 0, "text": "row 0"}, *({"id": n, "text": f"slow {n}"} for n in (1, 2, 3))])
        assert next(found)["id"] == 0
        found.close()
        assert not any(exchange.complete for exchange in server.server.exchanges if "slow" in str(exchange.body))
        server.slow = 0.0
        assert [row["asked"] for row in extract.rows([{"id": 1, "text": "slow 1"}])] == [True]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"template": "no.md"}, "no.md"),
        ({"concurrency": 0}, "concurrency must be from 1"),
        ({"lease": 0.1}, "lease must be"),
        ({"on_budget": "wait"}, "on_budget must be"),
        ({"journal": "sqlite:x"}, "needs the name of the job"),
        ({"journal": "mongo:x", "job": "j"}, "unknown kind of row journal 'mongo'"),
        ({"base_url": "localhost:1"}, "base_url begins with neither"),
        ({"client": object()}, "client must be a function"),
        ({"schema": {"type": "nothing"}}, "nothing"),
        ({"schema": {}, "output": int}, "give one of them"),
    ],
)
def test_mistakes_of_configuration_are_raised(options: dict[str, Any], said: str) -> None:
    """Before anything is sent, in words."""
    with pytest.raises(ConfigError, match=said), extractor(**{"base_url": "http://127.0.0.1:9", **options}) as extract:
        list(extract.rows(rows("row 1")))


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"text": "row 1"}, "no column 'id'"),
        ({"id": None, "text": "row 1"}, "must be a text or a whole number, got None"),
        ({"id": 1.5, "text": "row 1"}, "got 1.5"),
        ({"id": "a\0", "text": "row 1"}, "Unicode"),
        ({"id": 1, "text": "row 1", "output": ""}, "names that results add: output"),
    ],
)
def test_a_row_without_a_key_is_a_mistake_of_configuration(row: dict[str, Any], said: str) -> None:
    """It is raised after the rows that were under way."""
    with provider() as server, extractor(server.base_url) as extract:
        found = extract.rows([{"id": "good", "text": "row 1"}, row])
        assert next(found)["output"] == '{"n":1}'
        with pytest.raises(ConfigError, match=said):
            next(found)


def test_a_row_of_which_no_request_can_be_made_is_a_failed_row() -> None:
    """One bad row does not end a data set."""
    with provider() as server, extractor(server.base_url) as extract:
        found = {row["id"]: row for row in extract.rows([{"id": 1}, {"id": 2, "text": ""}, {"id": 3, "text": "row 3"}])}
    assert found[1]["reason"] == "source.error"
    assert found[1]["message"] == "not sent: request() raised KeyError: 'text'"
    assert found[3]["output"] == '{"n":3}'


def test_refused_credentials_end_the_work() -> None:
    """What would be every row's end is nobody's result."""
    with provider(refuse=401) as server, extractor(server.base_url, concurrency=2) as extract:
        with pytest.raises(Stopped) as stopped:
            list(extract.rows(rows(*(f"row {n}" for n in range(10)))))
        assert stopped.value.reason == "provider.authentication"
        assert server.asked.total() <= 2


def test_a_shared_budget_without_room_ends_the_work_and_nothing_of_it_is_journaled(tmp_path) -> None:
    """Rows that were not asked are asked when there is room again."""
    low, high = (budgeted(tokens, tmp_path / "ledger") for tokens in (400, 100_000))
    options = {"journal": f"sqlite:{tmp_path / 'rows'}", "job": "j", "concurrency": 2}
    given = rows(*(f"row {n}" for n in range(12)))
    with provider() as server:
        with extractor(server.base_url, low, **options) as extract:
            before = []
            with pytest.raises(Stopped) as stopped:
                for row in extract.rows(given):
                    before.append(row)
            assert stopped.value.reason == "budget.denied"
            assert all(row["reason"] is None for row in before)
            assert list(extract.failures()) == []
        with extractor(server.base_url, high, **options) as extract:
            after = {row["id"]: row for row in extract.rows(given)}
        assert {row["reason"] for row in after.values()} == {None}
        assert [after[row["id"]]["asked"] for row in before] == [False] * len(before)
        assert set(server.asked.values()) == {1}


def test_a_shared_budget_without_room_gives_rows_where_that_is_wanted(tmp_path) -> None:
    """`on_budget="rows"`: every row that is left says so, and none is kept."""
    policy = budgeted(10, tmp_path / "ledger")
    options = {"journal": f"sqlite:{tmp_path / 'rows'}", "job": "j", "on_budget": "rows"}
    with provider() as server, extractor(server.base_url, policy, **options) as extract:
        found = list(extract.rows(rows("row 1", "row 2")))
        assert [row["reason"] for row in found] == ["budget.denied"] * 2
        assert list(extract.failures()) == []


def test_a_journal_keeps_successes_and_own_faults(tmp_path) -> None:
    """The second run asks nothing; a failure is asked again once it is forgotten."""
    options = {"journal": f"sqlite:{tmp_path / 'rows'}", "job": "j"}
    given = rows("row 1", "bad 2", "row 3")
    with provider() as server, extractor(server.base_url, **options) as extract:
        first = {row["id"]: row for row in extract.rows(given)}
        second = {row["id"]: row for row in extract.rows(given)}
        assert [row["asked"] for row in second.values()] == [False] * 3
        assert [{**first[key], "asked": False} for key in range(3)] == [second[key] for key in range(3)]
        assert [failure["key"] for failure in extract.failures()] == ["1"]
        assert extract.forget() == 1
        assert [row["asked"] for row in extract.rows(given[1:2])] == [True]
        assert server.asked == {"row 1": 1, "bad 2": 2, "row 3": 1}
        with pytest.raises(ConfigError, match="another request"):
            list(extract.rows([{"id": 0, "text": "row 100"}]))


def test_a_journal_that_is_back_is_used_again_and_its_outages_are_no_deaths(tmp_path, monkeypatch) -> None:
    """Each use in an outage says so; the next one goes on, and no row is given up for it."""
    outages, finish = 4, SqliteJournal.finish

    def failing(self: SqliteJournal, results: Any) -> Any:
        nonlocal outages
        outages -= 1
        if outages >= 0:
            raise JournalLost("no answer")
        return finish(self, results)

    monkeypatch.setattr(SqliteJournal, "finish", failing)
    monkeypatch.setattr(core, "Claims", partial(Claims, patience=0.0))
    options = {"journal": f"sqlite:{tmp_path / 'rows'}", "job": "j"}
    with provider() as server, extractor(server.base_url, **options) as extract:
        for _ in range(4):
            with pytest.raises(JournalLost, match="no answer"):
                list(extract.rows(rows("row 1")))
        assert [(row["output"], row["asked"]) for row in extract.rows(rows("row 1"))] == [('{"n":1}', True)]
        assert server.asked == {"row 1": 5}
        assert [thread.name for thread in threading.enumerate()].count(NAME) == 1


def test_a_journal_that_was_emptied_is_not_begun_anew(tmp_path) -> None:
    """What was paid for would be paid again: the work stops, however often it is tried."""
    path = tmp_path / "rows"
    with provider() as server, extractor(server.base_url, journal=f"sqlite:{path}", job="j") as extract:
        assert [row["output"] for row in extract.rows(rows("row 1"))] == ['{"n":1}']
        for name in ("rows", "rows-wal", "rows-shm"):
            (tmp_path / name).unlink(missing_ok=True)
        for _ in range(2):
            with pytest.raises(JournalEmptied, match="removed or replaced"):
                list(extract.rows(rows("row 1")))
        assert server.asked == {"row 1": 1}


def test_a_row_that_stands_twice_is_asked_once(tmp_path) -> None:
    """Whoever comes second gets the result of the first."""
    options = {"journal": f"sqlite:{tmp_path / 'rows'}", "job": "j"}
    with provider(delay=0.05) as server, extractor(server.base_url, **options) as extract:
        found = list(extract.rows([{"id": 1, "text": "row 1"}] * 5))
        assert sorted(row["asked"] for row in found) == [False] * 4 + [True]
        assert server.asked == {"row 1": 1}


def test_the_providers_message_is_kept_on_demand() -> None:
    """As JSON text; and an answer without a document is its text."""
    policy = "version: 1\ntimeouts: {total: 60}\n"
    with provider() as server, extractor(server.base_url, policy, keep_message=True) as extract:
        (row,) = extract.rows(rows("row 1"))
    assert json.loads(row["output"]) == '{"n": 1}'
    assert json.loads(row["provider_message"])["content"][0]["text"] == '{"n": 1}'


def test_answers_are_held_against_the_fields_of_their_rows() -> None:
    """Each row is the source of its own answer."""
    policy = "version: 1\ntimeouts: {total: 60}\njson: {grounded: [{at: /n, as: number, in: row.doc}]}\nretry: {attempts: 1}\n"
    data = [{"id": n, "text": f"row {n}", "doc": f"it says {n if n % 2 else 99}"} for n in range(4)]
    with provider() as server, extractor(server.base_url, policy) as extract:
        found = {row["id"]: row["reason"] for row in extract.rows(data)}
    assert found == {0: "json.ungrounded", 1: None, 2: "json.ungrounded", 3: None}
