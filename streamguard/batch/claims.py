"""One owner's claims in a row journal, for async code: verbs in groups, the lease kept alive, what is lost said.

In charge of the owner's name and lease, and of putting verbs that come at the same time into one transaction: under
load a commit serves many rows. A store that does not answer is asked again until `patience` is over; then the journal
is lost for everybody. What nobody waits for any more is put back.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable

import anyio
import anyio.abc
import anyio.to_thread
import msgspec

from streamguard.batch.journal.contract import (
    Answer,
    Ask,
    Done,
    JournalEmptied,
    JournalLost,
    Mine,
    Other,
    Result,
    RowJournal,
)

LEASE = 30.0
"""Seconds after which the rows of a process that says nothing are free."""

FIRST_PAUSE = 0.05
LAST_PAUSE = 2.0
"""Seconds between tries of a store that does not answer: doubled from the first to the last."""


class _Wish(msgspec.Struct, eq=False):
    """A verb that somebody waits for."""

    what: Ask | Result | str
    """A row to claim, a result to keep, or the key of a row to put back."""
    ready: anyio.Event
    answer: Answer | None = None
    error: JournalLost | None = None
    abandoned: bool = False


class Claims:
    """The claims of this process.

    :param lease: seconds; a heartbeat is sent every third of it.
    :param patience: seconds for which a store that does not answer is asked again; the lease, if `None`.
    :param lost: told once when the journal is lost.
    :param owner: this process's name; by default one of its own.
    """

    def __init__(
        self,
        journal: RowJournal,
        *,
        lease: float = LEASE,
        patience: float | None = None,
        lost: Callable[[JournalLost], None] | None = None,
        owner: str | None = None,
    ) -> None:
        self.owner = owner or f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self.held: dict[str, None] = {}
        """Rows that are this process's to ask."""
        self._journal = journal
        self._lease = lease
        self._patience = lease if patience is None else patience
        self._lost = lost
        self._error: JournalLost | None = None
        self._wishes: list[_Wish] = []
        self._wished = anyio.Event()
        self._beat_at = 0.0
        self._idle = anyio.Event()

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled."""
        task_status.started()
        while True:
            with anyio.move_on_at(self._beat_at if self.held else float("inf")):
                await self._wished.wait()
            self._wished = anyio.Event()
            wishes, self._wishes = self._wishes, []
            if wishes or self.held:
                await self._serve(wishes)
            if not self._wishes:
                self._idle.set()

    async def claim(self, key: str, fingerprint: str) -> Answer:
        """Claim a row. One caller at a time for each key.

        :raises JournalLost: the journal cannot be reached, or was emptied.
        """
        wish = _Wish(Ask(key, fingerprint), anyio.Event())
        try:
            return await self._wish(wish)
        except anyio.get_cancelled_exc_class():
            wish.abandoned = True
            if isinstance(wish.answer, Mine):
                self.put_back(key)
            raise

    async def finish(self, result: Result) -> Done | Other:
        """Keep a result. Cancelled or not, it is brought to the store.

        :raises JournalLost: the journal cannot be reached, or was emptied.
        """
        answer = await self._wish(_Wish(result, anyio.Event()))
        assert isinstance(answer, Done | Other)
        return answer

    def put_back(self, key: str) -> None:
        """Let go of a row soon; nobody waits for that."""
        self._add(_Wish(key, anyio.Event()))

    async def leave(self) -> None:
        """Let go of everything, as far as the store can be reached. While `run` still serves."""
        for key in list(self.held):
            self.put_back(key)
        while self._wishes and self._error is None:
            self._idle = anyio.Event()
            await self._idle.wait()
        if self._error is None:
            try:
                await self._call(self._journal.leave, self.owner)
            except JournalLost:
                return  # the lease ends by itself

    def _add(self, wish: _Wish) -> None:
        self._wishes.append(wish)
        self._wished.set()

    async def _wish(self, wish: _Wish) -> Answer:
        if self._error is not None:
            raise self._error
        self._add(wish)
        await wish.ready.wait()
        if wish.error is not None:
            raise wish.error
        assert wish.answer is not None
        return wish.answer

    async def _serve(self, wishes: list[_Wish]) -> None:
        """Do all that is wished, in one go for each verb."""
        until, pause = anyio.current_time() + self._patience, FIRST_PAUSE
        while True:
            try:
                if self._error is not None:
                    raise self._error
                began = anyio.current_time()
                due = bool(self.held) and began >= self._beat_at
                renewed = await self._call(self._do, wishes, due)
            except JournalLost as error:
                if self._error is None and not isinstance(error, JournalEmptied) and anyio.current_time() < until:
                    await anyio.sleep(pause)
                    pause = min(LAST_PAUSE, pause * 2)
                    continue
                self._fail(error, wishes)
                return
            if renewed:
                self._beat_at = began + self._lease / 3
            break
        for wish in wishes:
            key = wish.what if isinstance(wish.what, str) else wish.what.key
            if not isinstance(wish.answer, Mine):
                self.held.pop(key, None)
            elif wish.abandoned:
                self.put_back(key)
            else:
                self.held[key] = None
            wish.ready.set()

    def _do(self, wishes: list[_Wish], due: bool) -> bool:
        """In a thread: results first, so that a row is done before it is asked for again. Whether the lease is new."""
        results = [wish for wish in wishes if isinstance(wish.what, Result)]
        backs = [wish.what for wish in wishes if isinstance(wish.what, str)]
        asks = [wish for wish in wishes if isinstance(wish.what, Ask)]
        journal = self._journal
        if results:
            kept = journal.finish([wish.what for wish in results if isinstance(wish.what, Result)])
            for wish, answer in zip(results, kept, strict=True):
                wish.answer = answer
        if backs:
            journal.put_back(backs, self.owner)
        if asks:
            found = journal.claim([wish.what for wish in asks if isinstance(wish.what, Ask)], self.owner, self._lease)
            for wish, one in zip(asks, found, strict=True):
                wish.answer = one
        elif due:
            journal.beat(self.owner, self._lease)
        return bool(asks) or due

    def _fail(self, error: JournalLost, wishes: list[_Wish]) -> None:
        if self._error is None:
            self._error = error
            if self._lost is not None:
                self._lost(error)
        self.held.clear()
        for wish in wishes:
            wish.error = self._error
            wish.ready.set()

    async def _call(self, verb: Callable[..., object], *args: object) -> object:
        if not self._journal.blocks:
            return verb(*args)
        return await anyio.to_thread.run_sync(verb, *args)
