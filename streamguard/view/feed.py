"""What one browser is told: the board once, then what changes.

In charge of differences: a JSON merge patch (RFC 7396) of everything but texts, and of the texts what was added. As
server-sent events, several times a second, as long as somebody looks; without a change nothing goes out but a comment
now and then. It knows no HTTP.
"""

from __future__ import annotations

import math
from types import TracebackType
from typing import Any, Final, Self

import anyio

from streamguard.relay.frames import KEEP_ALIVE, json_bytes
from streamguard.view.board import Board, now

EVERY: Final = 0.15
"""Seconds between two looks: text flows, and the cost is a thousandth of a core per call that is looked at."""

SILENCE: Final = 10.0
"""Seconds without a change after which a comment goes out."""


def merge_patch(old: Any, new: Any) -> dict[str, Any]:
    """What makes `new` of `old`, mappings of plain values. As in RFC 7396 a value of `None` is one that is absent."""
    patch: dict[str, Any] = {}
    for name, value in new.items():
        before = old.get(name)
        if value is before:
            continue
        if isinstance(value, dict) and isinstance(before, dict):
            if inner := merge_patch(before, value):
                patch[name] = inner
        elif value != before:
            patch[name] = value
    patch.update(dict.fromkeys(name for name in old if name not in new))
    return patch


class Feed:
    """The frames for one browser. Enter it with `async with` and iterate.

    :param call: the call whose details are wanted.
    :param closing: set when the view goes; the iteration ends then.
    """

    def __init__(self, board: Board, call: str | None, closing: anyio.Event) -> None:
        self._board = board
        self._call = call
        self._closing = closing
        self._told: dict[str, Any] | None = None
        self._attempt: int | None = None
        self._pieces: dict[int, int] = {}
        self._spoke = -math.inf

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while self._told is not None and not self._closing.is_set():
            with anyio.move_on_after(EVERY):
                await self._closing.wait()
            await self._board.balances.refresh()
            if frame := self._changes():
                return frame
        if self._told is None and not self._closing.is_set():
            await self._board.balances.refresh()
            return self._changes()
        raise StopAsyncIteration

    def _changes(self) -> bytes:
        """What has changed since the last time; perhaps nothing."""
        board, moment = self._board, now()
        state = board.overview()
        state["detail"] = None if self._call is None else board.detail(self._call)
        first, told = self._told is None, self._told or {}
        patch = merge_patch(told, state)
        texts = self._texts()
        self._told = state
        if not first and not patch and not texts:
            if moment - self._spoke < SILENCE:
                return b""
            self._spoke = moment
            return KEEP_ALIVE
        self._spoke = moment
        body = json_bytes({"now": round(moment, 3), "patch": patch, "texts": texts})
        return b"event: %b\ndata: %b\n\n" % (b"state" if first else b"patch", body)

    def _texts(self) -> list[dict[str, Any]]:
        """What was added to the texts of the attempt that runs."""
        running = None if self._call is None else self._board.pieces(self._call)
        if running is None:
            return []
        number, look = running
        if number != self._attempt:
            self._attempt, self._pieces = number, {}
        texts = []
        for block in look.blocks:
            seen, count = self._pieces.get(block.index), len(block.pieces)
            if seen == count:
                continue
            self._pieces[block.index] = count
            texts.append(
                {
                    "attempt": number,
                    "index": block.index,
                    "kind": block.kind,
                    "type": block.type,
                    "name": block.name,
                    "id": block.id,
                    "text": "".join(block.pieces[seen or 0 : count]),
                }
            )
        return texts
