"""Whose work comes next, in passes of the event loop."""

from __future__ import annotations

import asyncio

from streamguard.http.turns import AT_ONCE, STRANGERS_AT_ONCE, Turns


def passes(work: list[str | None]) -> list[list[str | None]]:
    """What is done in each pass, of work that is all there at once."""

    async def main() -> list[list[str | None]]:
        turns, done = Turns(), []
        for client in work:
            turns.add(client, lambda client=client: done.append(client))
        found = []
        while sum(map(len, found)) < len(work):
            await asyncio.sleep(0)
            found.append(done[:])
            done.clear()
        return [one for one in found if one]

    return asyncio.run(main())


def test_clients_come_by_turns_and_strangers_last() -> None:
    """Who has much to do waits for who has little."""
    assert passes(["busy"] * 5 + [None] * 2 + ["ada", "bob", "ada"]) == [
        ["busy", "ada", "bob", "busy", "ada", "busy", "busy", "busy", None, None]
    ]


def test_a_pass_has_an_end() -> None:
    """However much there is to do, others have their turn in between: of strangers' work there is little in a pass."""
    found = passes([None] * 10 + ["ada"] * (AT_ONCE + 3))
    strangers = [None] * STRANGERS_AT_ONCE
    assert found == [["ada"] * AT_ONCE + strangers, ["ada"] * 3 + strangers, [None] * (10 - 2 * STRANGERS_AT_ONCE)]


def test_work_makes_work() -> None:
    """What is added while somebody has its turn comes in its order; after a rest, too."""

    async def main() -> list[str]:
        turns, done = Turns(), []
        turns.add("ada", lambda: (done.append("first"), turns.add("ada", lambda: done.append("second"))))
        for _ in range(5):
            await asyncio.sleep(0)
        turns.add(None, lambda: done.append("third"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return done

    assert asyncio.run(main()) == ["first", "second", "third"]
