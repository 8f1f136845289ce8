"""What there is to see of a runtime, and what is remembered: in virtual time, on both backends."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import anyio
import pytest

import streamguard
from streamguard import JsonDocument, Policy, Retry, Rule, Runtime, Timeouts
from streamguard.budgets.spec import BudgetSpec
from streamguard.events import BlockStarted, Delta, Started, Usage
from streamguard.pricing.price import PriceSpec
from streamguard.testing import answer, pause, script, stall, tool_answer
from streamguard.view import board as board_module
from streamguard.view.board import Board, now
from streamguard.view.rows import END, HEAD, Kept

GOOD, BAD = '{"total": 12}', '{"total" 12}'
REQUEST = {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": "x"}]}
PRICES = {"m": PriceSpec(input="1.00", output="5.00")}
AGAIN = Policy(json=JsonDocument(), retry=Retry(attempts=3, rules=[Rule(when=["*"], wait=10)]), prices=PRICES)


async def call(runtime: Runtime, source: Any, policy: Policy = AGAIN, **about: Any) -> None:
    with contextlib.suppress(streamguard.CallError):
        await streamguard.run(source, policy=policy, runtime=runtime, **about)


def test_a_call_from_its_beginning_to_its_end(run_virtual) -> None:
    """A call is shown while it runs, between its attempts and when it is over, with its labels, sums and reasons."""

    async def main() -> None:
        runtime = Runtime()
        board = Board(runtime)
        source = script(
            answer(BAD), [*answer(GOOD, thinking="hm")[:6], pause(5), *answer(GOOD, thinking="hm")[6:]], request=REQUEST
        )
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: call(runtime, source, labels={"row": 7}, group="agent"))
            await anyio.sleep(4)
            [(name, row)] = board.overview()["running"].items()
            assert {key: row[key] for key in ("state", "group", "labels", "attempt", "attempts", "reasons")} == {
                "state": "waiting",
                "group": "agent",
                "labels": {"row": "7"},
                "attempt": 2,
                "attempts": 3,
                "reasons": ["json.malformed"],
            }
            assert row["clock"] == {"knob": "retry", "limit": 10, "due": round(now() + 6, 1)}
            await anyio.sleep(8)
            row = board.overview()["running"][name]
            assert (row["state"], row["attempt"], row["kind"], row["tail"]) == ("writing", 2, "text", '{"to')
            assert row["cost"] > 0
            detail = board.detail(name)
            assert list(detail["attempts"]) == ["1"]
            assert detail["now"]["number"] == 2
            assert detail["now"]["input_tokens"] == 12
            assert [clock["knob"] for clock in detail["now"]["clocks"]] == ["progress"]
            number, look = board.pieces(name)
            assert (number, ["".join(block.pieces) for block in look.blocks]) == (2, ["hm", '{"to'])
        state = board.overview()
        assert state["running"] == {}
        row = state["finished"][name]
        assert (row["completed"], row["reason"], row["attempts"], row["reasons"]) == (
            "whole",
            None,
            2,
            ["json.malformed"],
        )
        assert row["tokens"]["exact"] is False
        assert state["sums"]["retries"] == state["sums"]["aborted"] == state["sums"]["completed"] == 1
        assert state["reasons"] == {"whole": 1}
        detail = board.detail(name)
        first, second = detail["attempts"]["1"], detail["attempts"]["2"]
        assert first["ended"]["reason"] == "json.malformed"
        assert first["ended"]["where"] == {"offset": 9, "pointer": "/total", "keyword": "malformed", "event": 4}
        assert [(block["kind"], block["mark"]) for block in first["blocks"]] == [("text", 9)]
        assert first["decision"]["action"] == "retry"
        assert first["decision"]["wait"] == 10
        assert [block["text"] for block in second["blocks"]] == ["hm", GOOD]
        assert (second["ended"], second["completed"]) == (None, "whole")
        assert ["retry.attempts", "3"] in detail["policy"]
        json.dumps([state, detail])

    run_virtual(main)


def test_how_calls_end(run_virtual) -> None:
    """Completed, given up, interrupted, or left by their consumer: each is counted and shown by its reason."""

    async def main() -> None:
        runtime = Runtime()
        board = Board(runtime)
        await call(runtime, script(answer(GOOD)))
        await call(runtime, script(answer("x")[:-1]), Policy())
        async with streamguard.stream(
            script(answer("Hello")), policy=Policy(), deliver="live", runtime=runtime
        ) as events:
            await anext(events)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: call(runtime, script([stall()])))
            await anyio.sleep(1)
            [name] = board.overview()["running"]
            assert board.interrupt(name, "the test")
        state = board.overview()
        assert state["reasons"] == {"whole": 1, "transport.incomplete": 1, "left": 1, "operator.interrupt": 1}
        assert [(row["completed"], row["reason"]) for row in state["finished"].values()] == [
            ("whole", None),
            (None, "transport.incomplete"),
            (None, "left"),
            (None, "operator.interrupt"),
        ]
        assert "the test" in state["finished"][name]["message"]
        assert not board.interrupt(name, "the test")
        [left] = [name for name, row in state["finished"].items() if row["reason"] == "left"]
        assert board.detail(left)["attempts"]["1"]["blocks"][0]["text"]
        assert board._open == {}
        assert board.detail("no such call") is None
        assert board.pieces("no such call") is None

    run_virtual(main)


def test_tools_and_dead_bytes_in_them(run_virtual) -> None:
    """What a tool call said is kept as well, with its name, and the dead byte in its input."""

    async def main() -> None:
        runtime = Runtime()
        board = Board(runtime)
        policy = Policy(json=JsonDocument(where="tools"))
        await call(runtime, script(tool_answer("look_up", '{"a" 1}', text="So:")), policy)
        [name] = board.overview()["finished"]
        said = board.detail(name)["attempts"]["1"]["blocks"]
        assert [(one["kind"], one["name"], one["text"], one["mark"]) for one in said] == [
            ("text", None, "So:", None),
            ("tool_input", "look_up", '{"a" 1}', 5),
        ]

    run_virtual(main)


def test_paused(run_virtual) -> None:
    """A paused runtime says by whom; calls that wait for it are queued."""

    async def main() -> None:
        runtime = Runtime()
        board = Board(runtime)
        runtime.pause("the operator")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: call(runtime, script(answer(GOOD))))
            await anyio.sleep(1)
            state = board.overview()
            assert state["paused"] == "the operator"
            assert [row["state"] for row in state["running"].values()] == ["queued"]
            runtime.resume()
        assert board.overview()["paused"] is None
        assert board.overview()["reasons"] == {"whole": 1}

    run_virtual(main)


def test_memory_is_bounded(run_virtual, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many calls end, and however long their answers are, what is kept is bounded; the oldest goes first."""
    monkeypatch.setattr(board_module, "MOST_FINISHED", 5)
    monkeypatch.setattr(board_module, "MOST_TEXT", 250)

    async def main() -> None:
        runtime = Runtime()
        board = Board(runtime)
        for number in range(9):
            await call(runtime, script(answer(f"{number}" * 100, chunk=50)), Policy())
        finished = board.overview()["finished"]
        assert [row["number"] for row in finished.values()] == [5, 6, 7, 8, 9]
        kept = [board.detail(name)["attempts"]["1"]["blocks"][0] for name in finished]
        assert [(len(block["text"]), block["omitted"]) for block in kept] == [(0, 100)] * 3 + [(100, 0)] * 2
        assert board.overview()["sums"]["completed"] == 9
        assert len(board._open) == 0

    run_virtual(main)


def test_many_running(run_virtual, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of very many running calls some are shown and all are counted."""
    monkeypatch.setattr(board_module, "MOST_RUNNING", 3)

    async def main() -> None:
        runtime = Runtime()
        board = Board(runtime)
        async with anyio.create_task_group() as tasks:
            for _ in range(8):
                tasks.start_soon(lambda: call(runtime, script([stall()]), Policy()))
            await anyio.sleep(1)
            state = board.overview()
            assert (len(state["running"]), state["hidden"], state["sums"]["running"]) == (3, 5, 8)
            tasks.cancel_scope.cancel()

    run_virtual(main)


def test_budgets(run_virtual) -> None:
    """Budgets of calls that run are shown with what is spent, held and uncertain, asked for once a second at most."""

    async def main() -> None:
        runtime = Runtime(job="nightly")
        board = Board(runtime)
        budgets = [
            BudgetSpec(name="invoices", cost_usd="1.00", tokens=90_000),
            BudgetSpec(name="own", per="call", tokens=9_000),
        ]
        policy = Policy(budgets=budgets, prices=PRICES)
        await board.balances.refresh()
        assert board.overview()["budgets"] == {}
        asked = []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: call(runtime, script([stall()], request=REQUEST), policy))
            await anyio.sleep(1)
            await board.balances.refresh()
            shown = board.overview()["budgets"]
            assert list(shown) == ["invoices/job:nightly/micro_usd", "invoices/job:nightly/tokens"]
            account = shown["invoices/job:nightly/micro_usd"]
            assert (account["name"], account["cap"], account["settled"], account["uncertain"]) == (
                "invoices",
                10**6,
                0,
                0,
            )
            assert account["held"] > 0
            admission = await runtime.accounts.ledger("memory:")
            balance = admission.ledger.balance

            async def counted(key: str) -> Any:
                asked.append(key)
                return await balance(key)

            admission.ledger.balance = counted
            for _ in range(20):
                await anyio.sleep(0.1)
                await board.balances.refresh()
            assert len(asked) in (2, 4)
            tasks.cancel_scope.cancel()

    run_virtual(main)


def test_a_ledger_that_does_not_answer(run_virtual) -> None:
    """A budget whose ledger does not answer is shown as unknown, and nobody waits for it long."""

    async def main() -> None:
        runtime = Runtime()
        board = Board(runtime)
        policy = Policy(budgets=[BudgetSpec(name="invoices", cost_usd="1.00")], prices=PRICES)
        await call(runtime, script(answer(GOOD), request=REQUEST), policy)
        admission = await runtime.accounts.ledger("memory:")

        async def never(key: str) -> Any:
            await anyio.sleep_forever()

        admission.ledger.balance = never
        began = anyio.current_time()
        await board.balances.refresh()
        assert anyio.current_time() - began < 1
        assert board.overview()["budgets"] == {"invoices/job/micro_usd": {"name": "invoices"}}

    run_virtual(main)


def test_letting_go(run_virtual) -> None:
    """A board that is closed takes no more records, and leaves the runtime's other hooks alone."""

    async def main() -> None:
        own = []
        runtime = Runtime(hooks=[own.append])
        board = Board(runtime)
        assert len(runtime.hooks) == 2
        board.close()
        assert len(runtime.hooks) == 1
        await call(runtime, script(answer(GOOD)))
        assert board.overview()["finished"] == {}
        assert own

    run_virtual(main)


def test_a_call_that_ran_before_the_view_came(run_virtual) -> None:
    """A board that comes late shows what runs already."""

    async def main() -> None:
        runtime = Runtime()
        source = script(
            [
                Started("m", "model", Usage(input_tokens=3)),
                BlockStarted(0, "text", "text"),
                Delta(0, "text", "Hello"),
                stall(),
            ]
        )
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: call(runtime, source, Policy(timeouts=Timeouts(progress=30))))
            await anyio.sleep(5)
            board = Board(runtime)
            [(name, row)] = board.overview()["running"].items()
            assert (row["tail"], row["state"]) == ("Hello", "writing")
            assert row["tokens"] > 0
            assert board.detail(name)["now"]["number"] == 1
        assert board.overview()["reasons"] == {"timeout.progress": 1}

    run_virtual(main)


@pytest.mark.parametrize(
    ("mark", "kept"),
    [
        (None, None),
        (0, 0),
        (HEAD - 1, HEAD - 1),
        (HEAD, None),
        (HEAD + 99, None),
        (HEAD + 100, HEAD),
        (HEAD + END + 99, HEAD + END - 1),
    ],
)
def test_long_texts(mark: int | None, kept: int | None) -> None:
    """Of a long text the start and the end are kept, and the mark stays on its character, unless that was left out."""
    text = "".join(chr(0x4E00 + i % 5000) for i in range(HEAD + END + 100))
    block = Kept.of(text, mark, index=0, kind="text", type="text")
    assert (len(block.text), block.omitted, block.cut, block.mark) == (HEAD + END, 100, HEAD, kept)
    assert kept is None or block.text[kept] == text[mark]
