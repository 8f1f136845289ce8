"""One thread with one event loop, client, runtime and limit, for all extractors of a process that are alike.

Engines block their own loops for seconds, and make many copies of an extractor: so calls run on a loop of their own,
and copies share it. In charge of that loop's life: begun by the first row, ended by `close`, or with the process.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread
from anyio.from_thread import BlockingPortal

from streamguard.adapters.anthropic.environment import has_uvloop, make_client
from streamguard.adapters.anthropic.source import messages
from streamguard.batch.claims import Claims
from streamguard.batch.columns import cells
from streamguard.batch.journal import open_journal
from streamguard.batch.journal.contract import JournalEmptied, JournalLost
from streamguard.batch.setup import Requests, Setup, Unusable
from streamguard.batch.work import Came, Work
from streamguard.budgets.reservation import Accounts
from streamguard.engine.runtime import Runtime
from streamguard.errors import GaveUp
from streamguard.jobs.asking import Denial, LocalAsker
from streamguard.jobs.store.results import About, result_line
from streamguard.outcome import CallRecord
from streamguard.source import Source
from streamguard.usage import UsageRange

NAME: Final = "streamguard-batch"
"""Of the thread."""

END_LIMIT: Final = 5.0
"""Seconds that the end of the process waits for a loop."""


class Core:
    """A running loop. Made by `core_of`.

    :param owner: the name of the process in the row journal; one of its own, if `None`.
    """

    def __init__(self, setup: Setup, owner: str | None = None) -> None:
        self.owner = owner
        self.lost: JournalLost | None = None
        """The row journal could not be reached, and nothing is asked here any more."""
        self._setup = setup
        self._requests = Requests(setup)
        self._about = About(
            policy=setup.policy_name, message=setup.keep_message, text=setup.policy.json_document is None
        )
        self._portal: BlockingPortal | None = None
        self._work: Work
        self._error: BaseException | None = None
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self._main, name=NAME, daemon=True)

    def start(self) -> None:
        """Begin, and wait until rows can be asked.

        :raises ConfigError: no client or journal can be made of the configuration.
        :raises JournalLost: the row journal cannot be reached.
        """
        self._thread.start()
        self._begun.wait()
        if self._error is not None:
            raise self._error

    @property
    def alive(self) -> bool:
        """Whether it takes rows."""
        return self._thread.is_alive() and self._portal is not None

    def submit(self, row: Mapping[str, Any]) -> Future[dict[str, Any]]:
        """Ask for a row; the future has the cells of the added columns. To cancel it interrupts the call.

        :raises ConfigError: the row has no key.
        :raises JournalLost: the row journal could not be reached.
        """
        key = self._requests.key(row)
        if self._portal is None and self.lost is not None:
            raise self.lost
        assert self._portal is not None
        return self._portal.start_task_soon(self._one, key, row)

    def stop(self, *, interrupt: bool = True) -> bool:
        """End the loop; returns whether it has ended.

        :param interrupt: whether what runs is interrupted and put back; else its end is waited for.
        """
        portal, self._portal = self._portal, None
        if portal is not None:
            portal.start_task_soon(portal.stop, interrupt)
        if threading.current_thread() is not self._thread:
            self._thread.join(END_LIMIT)
        return not self._thread.is_alive()

    async def _one(self, key: str, row: Mapping[str, Any]) -> dict[str, Any]:
        try:
            came = await self._work.one(self._requests.request(key, row))
        except Unusable as error:
            record = CallRecord(usage=UsageRange.nothing())
            failure = GaveUp(f"not sent: {error}", reason="source.error", record=record)
            came = Came(result_line(key, failure, self._about, ""), asked=False)
        return cells(came.line, asked=came.asked, keep_message=self._setup.keep_message)

    def _main(self) -> None:
        try:
            anyio.run(self._serve, backend_options={"use_uvloop": has_uvloop()})
        except BaseException as error:
            self._error = error
        finally:
            self._portal = None
            self._begun.set()

    async def _serve(self) -> None:
        setup = self._setup
        async with AsyncExitStack() as stack:
            client = make_client(setup.base_url, knob="base_url") if setup.client is None else setup.client()
            await stack.enter_async_context(client)
            runtime = Runtime(accounts=Accounts(base=Path(setup.folder)), job=setup.job)
            stack.push_async_callback(runtime.aclose)

            def source(params: Mapping[str, Any]) -> Source:
                return messages(client, **params)

            asker = LocalAsker(source, setup.policy, runtime, self._about, shared=True)
            claims: Claims | None = None
            if setup.journal is not None:
                journal = await anyio.to_thread.run_sync(open_journal, setup.journal, setup.job or "")
                stack.callback(journal.close)
                claims = Claims(journal, lease=setup.lease, lost=self._lost, owner=self.owner)
                self.owner = claims.owner
            self._work = Work(asker, claims, concurrency=setup.concurrency, stops=self._stops)
            async with anyio.create_task_group() as tasks:
                if claims is not None:
                    await tasks.start(claims.run)
                async with BlockingPortal() as portal:
                    self._portal = portal
                    self._begun.set()
                    await portal.sleep_until_stopped()
                if claims is not None:
                    with anyio.move_on_after(END_LIMIT / 2, shield=True):
                        await claims.leave()
                tasks.cancel_scope.cancel()

    def _lost(self, error: JournalLost) -> None:
        self.lost = error
        self._work.lost(error)

    def _stops(self, denial: Denial) -> bool:
        """Whether a denial ends the work: the budget is not the row's own, and nobody wants such rows."""
        name = denial.scope.partition("/")[0]
        own = any(spec.name == name and (spec.per == "call" or "{" in spec.per) for spec in self._setup.policy.budgets)
        return not own and self._setup.on_budget == "stop"


class _Cores:
    """The running loops of this process, by configuration: one for each, however many extractors there are."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._cores: dict[str, Core] = {}

    def core(self, setup: Setup) -> Core:
        with self._lock:
            if self._pid != os.getpid():  # after a fork there are objects without their threads
                self._cores, self._pid = {}, os.getpid()
            core, owner = self._cores.get(setup.name), None
            if core is not None and core.lost is not None and not isinstance(core.lost, JournalEmptied):
                # Its calls were interrupted. Once they are over, the rows that it had are this process's still: an
                # outage of the journal is nobody's death.
                owner, core = (core.owner if core.stop(interrupt=False) else None), None
            if core is None or not core.alive:
                core = Core(setup, owner)
                core.start()
                self._cores[setup.name] = core
            return core

    def close(self, setup: Setup) -> None:
        with self._lock:
            core = self._cores.pop(setup.name, None) if self._pid == os.getpid() else None
        if core is not None:
            core.stop()

    def close_all(self) -> None:
        if self._pid == os.getpid():
            for core in list(self._cores.values()):
                core.stop()


_CORES = _Cores()
"""The one thing that belongs to the process: copies that engines make of an extractor must find each other."""

atexit.register(_CORES.close_all)


def core_of(setup: Setup) -> Core:
    """Return the process's loop for a configuration, begun if it does not run.

    :raises ConfigError: no client or journal can be made of the configuration.
    :raises JournalLost: the row journal cannot be reached.
    """
    return _CORES.core(setup)


def close_core(setup: Setup) -> None:
    """End the process's loop for a configuration, if it runs."""
    _CORES.close(setup)
