"""`Extractor`: rows in, rows with results out, for any engine's own function.

In charge of the three ways in which engines hand over rows: an iterator of rows, a list of rows that is awaited, and
columns. The calls themselves are made elsewhere (`core`).
"""

from __future__ import annotations

import asyncio
import os
import queue
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import asynccontextmanager, closing
from typing import Any

import msgspec

from streamguard.api import PolicyLike
from streamguard.batch.claims import LEASE
from streamguard.batch.columns import cells, columns_of, rows_of
from streamguard.batch.core import close_core, core_of
from streamguard.batch.journal import open_journal
from streamguard.batch.setup import OnBudget, Setup
from streamguard.errors import ConfigError

CONCURRENCY = 32
"""Calls at a time in each process."""

LEAVE_LIMIT = 5.0
"""Seconds that an iterator which is left waits for its calls to end."""


class Extractor:
    """Asks for rows under a policy, from any function of any engine. Picklable: what travels is the configuration.

        extract = Extractor("streamguard:extraction", schema="invoice.json", template="invoice.md", model="…")
        for row in extract.rows(rows):
            row["output"]  # JSON text, or None with row["reason"]

    In each process, all extractors of one configuration share one thread with an event loop, one client, and one limit
    of calls. Failures are rows, not exceptions.

    With a row journal each row has one result, which stays. Asked again is only what was under way when a process died:
    at most `concurrency` rows for each killed process. "Exactly one request" is not promised: nobody can, unless the
    provider takes idempotency keys.

    :param policy: a `Policy`, or the name of one: `streamguard:NAME`, or the path of a policy file.
    :param schema: the answer's JSON Schema, as a mapping or the path of a file; instead of the policy's own.
    :param template: the path of a template, as jobs have them; makes the request of a row.
    :param request: instead of a template: returns the request (`model`, `messages` …) of a row. With neither, each row
        has its request in `params`.
    :param output: the type of the answer's document, instead of a schema.
    :param model: for every request; so is `max_tokens`.
    :param key: the column that tells rows apart; `None`: all that is in a row.
    :param job: the job's name, which row journal and budgets `per: job` know it by.
    :param journal: the row journal: `sqlite:PATH`, `redis://…?journal=NAME` or `postgresql://…`; `None` for none.
    :param concurrency: calls at a time in each process, from 1 to 1000.
    :param base_url: of the API; ANTHROPIC_BASE_URL, or the provider's, if `None`.
    :param client: makes the SDK's asynchronous client; instead of `base_url`.
    :param on_budget: what a shared budget without room does: "stop" raises `Stopped`, "rows" gives each row that is
        left the reason `budget.denied`. Neither is journaled.
    :param keep_message: whether rows have the provider's whole message (`provider_message`, JSON text).
    :param lease: seconds after which the rows of a process that says nothing are free for others.
    :raises ConfigError: what cannot be used.
    """

    def __init__(
        self,
        policy: PolicyLike,
        *,
        schema: Mapping[str, Any] | str | os.PathLike[str] | None = None,
        template: str | os.PathLike[str] | None = None,
        request: Callable[[dict[str, Any]], Mapping[str, Any]] | None = None,
        output: Any = None,
        model: str | None = None,
        max_tokens: int | None = None,
        key: str | None = "id",
        job: str | None = None,
        journal: str | None = None,
        concurrency: int = CONCURRENCY,
        base_url: str | None = None,
        client: Callable[[], Any] | None = None,
        on_budget: OnBudget = "stop",
        keep_message: bool = False,
        lease: float = LEASE,
    ) -> None:
        self._setup = Setup.of(
            policy=policy,
            schema=schema,
            template=template,
            request=request,
            output=output,
            model=model,
            max_tokens=max_tokens,
            key=key,
            job=job,
            journal=journal,
            concurrency=concurrency,
            base_url=base_url,
            client=client,
            on_budget=on_budget,
            keep_message=keep_message,
            lease=lease,
        )

    def __getstate__(self) -> dict[str, Any]:
        return {"setup": msgspec.structs.asdict(self._setup)}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self._setup = Setup(**state["setup"])

    @property
    def schema(self) -> dict[str, str]:
        """The columns that are added to each row, always all of them, with their types as Arrow names them. Every one
        may be null; money is whole micro-USD. `pyarrow.schema(extractor.schema)` takes it as it is."""
        return self._setup.added

    def rows(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
        """Ask for rows, and yield each with its result as it ends.

        What ends the work is raised after the rows that were under way: they have their results.

        :param rows: mappings of columns; read as there is room, from the thread that iterates.
        :returns: the rows with their results, each as it ends, in the order of their ends.
        :raises ConfigError: a row has no key, a column of the name of an added one, or the result of another question.
        :raises Stopped: a shared budget has no room, or the provider takes no request.
        :raises JournalLost: the row journal cannot be reached, or was emptied.
        :raises LedgerLost: a budget's ledger cannot be reached.
        """
        for row, added in self._asked(rows):
            yield {**row, **added}

    async def __call__(self, rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Ask for rows, and return them with their results, in the order of the rows. Raises what `rows` raises."""
        core = core_of(self._setup)
        given = [self._checked(row) for row in rows]
        found: list[dict[str, Any]] = []
        async with _futures() as futures:
            futures += [core.submit(row) for row in given]
            error: BaseException | None = None
            for row, future in zip(given, futures, strict=True):
                try:
                    found.append({**row, **await _wait(future)})
                except Exception as failed:
                    error = error or failed
            if error is not None:
                raise error
        return found

    async def one(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Ask for one row, and return it with its result. Raises what `rows` raises.

        :param row: the row, as a mapping.
        :returns: the row with its result.
        """
        return (await self([row]))[0]

    def columns(self, columns: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Ask for the rows of columns, and yield columns of those that have ended, a few rows at a time.

        :param columns: name → list, or array of numpy, Arrow or pandas. They come back as they are, with the added
            ones. Raises what `rows` raises.
        :returns: columns of the rows that have ended.
        """
        given = rows_of(columns)
        places: list[int] = []
        added: list[dict[str, Any]] = []
        most = max(1, min(self._setup.concurrency, len(given)))
        where = {id(row): place for place, row in enumerate(given)}
        for row, its in self._asked(given):
            places.append(where[id(row)])
            added.append(its)
            if len(places) >= most:
                yield columns_of(columns, places, added)
                places, added = [], []
        if places:
            yield columns_of(columns, places, added)

    def failures(self) -> Iterator[dict[str, Any]]:
        """Yield the rows of the job whose kept result is a failure: their key, reason and message.

        :returns: the rows, one mapping each.
        :raises ConfigError: there is no row journal.
        """
        with self._journal() as journal:
            for failure in journal.failures():
                said = cells(failure.line, asked=False, keep_message=False)
                yield {"key": failure.key, "reason": failure.reason, "message": said["message"]}

    def forget(self, keys: Iterable[str] | None = None) -> int:
        """Remove kept failures from the row journal, so that their rows are asked again; returns how many.

        :param keys: only of these rows; `None` for all.
        :returns: how many were removed.
        :raises ConfigError: there is no row journal.
        """
        with self._journal() as journal:
            return int(journal.forget(None if keys is None else list(keys)))

    def close(self) -> None:
        """End the process's loop, connections and claims for this configuration. The next row begins it anew."""
        close_core(self._setup)

    def _journal(self) -> Any:
        if self._setup.journal is None:
            raise ConfigError("there is no row journal: name one with journal=")
        return closing(open_journal(self._setup.journal, self._setup.job or ""))

    def _checked(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        if taken := sorted(set(self._setup.added) & set(row)):
            raise ConfigError(f"rows have columns of the names that results add: {', '.join(taken)}; rename them")
        return row

    def _asked(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, Any], dict[str, Any]]]:
        """Each row with the cells of its result, as they end."""
        core = core_of(self._setup)
        ended: queue.SimpleQueue[Future[dict[str, Any]]] = queue.SimpleQueue()
        under_way: dict[Future[dict[str, Any]], Mapping[str, Any]] = {}
        left: Iterator[Mapping[str, Any]] | None = iter(rows)
        error: BaseException | None = None
        try:
            while True:
                while left is not None and error is None and len(under_way) < self._setup.concurrency:
                    row = next(left, None)
                    if row is None:
                        left = None
                        break
                    try:
                        future = core.submit(self._checked(row))
                    except ConfigError as failed:
                        error = failed
                        break
                    under_way[future] = row
                    future.add_done_callback(ended.put)
                    if not ended.empty():
                        break
                if not under_way:
                    break
                future = ended.get()
                row = under_way.pop(future)
                ends = future.exception()
                if ends is None:
                    yield row, future.result()
                else:
                    error = error or ends
        finally:
            _leave(under_way)
        if error is not None:
            raise error


def _leave(under_way: Iterable[Future[dict[str, Any]]]) -> None:
    """Interrupt what is still under way, and wait for its end."""
    futures = list(under_way)
    for future in futures:
        future.cancel()
    wait(futures, LEAVE_LIMIT)


@asynccontextmanager
async def _futures() -> AsyncIterator[list[Future[dict[str, Any]]]]:
    futures: list[Future[dict[str, Any]]] = []
    try:
        yield futures
    finally:
        for one in futures:
            one.cancel()


async def _wait(future: Future[dict[str, Any]]) -> dict[str, Any]:
    """Wait for the result of another loop, on asyncio or trio. That loop never waits for this one."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        import trio

        event, token = trio.Event(), trio.lowlevel.current_trio_token()
        future.add_done_callback(lambda _: token.run_sync_soon(event.set))
        await event.wait()
        return future.result()
    return await asyncio.wrap_future(future)
