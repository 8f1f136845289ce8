"""Message Batches of one client: create, look at, list, cancel, and read results as they are on the wire.

In charge of the five requests and of naming what goes wrong with them, as `failures` does for calls. It does not know
rows, journals or budgets. Results are given line by line, unparsed: what is in a line is its reader's business.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import anyio
import msgspec

from streamguard.adapters.anthropic import failures
from streamguard.events import Failed
from streamguard.source import CLOSE_LIMIT, SourceFailed

TIMEOUT: Final = 120.0
"""Seconds for one request: a part is up to 256 MB, and its upload is in them."""

MOST_LINE: Final = 64 * 1024 * 1024
"""Bytes of the longest result that is read: over a hundred times the longest answers there are."""

PAGE: Final = 100
"""Batches of one page of a list."""


class BatchState(msgspec.Struct, frozen=True, kw_only=True):
    """A batch as the provider describes it."""

    id: str
    status: str
    """`in_progress`, `canceling` or `ended`."""
    created: float
    """Unix seconds."""
    counts: Mapping[str, int]
    """Requests by what became of them: `processing`, `succeeded`, `errored`, `canceled`, `expired`."""

    @property
    def total(self) -> int:
        """Requests in it."""
        return sum(self.counts.values())

    @property
    def ended(self) -> bool:
        """Whether its results can be read."""
        return self.status == "ended"


class MessageBatches:
    """The Message Batches of a client. Every method is one request, or two; none is repeated by itself.

    :param client: an asynchronous client of the SDK.
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    async def create(self, requests: Sequence[Mapping[str, Any]]) -> BatchState:
        """Submit a batch.

        :param requests: objects with `custom_id` and `params`.
        :raises SourceFailed: `failed.billable` says whether the provider may have taken it all the same.
        """
        return self._state(await self._ask("create", requests=list(requests)))

    async def retrieve(self, batch: str) -> BatchState:
        """Look at a batch.

        :raises SourceFailed: the request failed.
        """
        return self._state(await self._ask("retrieve", batch))

    async def cancel(self, batch: str) -> BatchState:
        """Ask that a batch end soon. What is done of it keeps its results.

        :raises SourceFailed: the request failed; a batch that has ended cannot be canceled.
        """
        return self._state(await self._ask("cancel", batch))

    async def since(self, created: float) -> AsyncGenerator[BatchState]:
        """Give the batches that were created at a time or later, the newest first.

        :param created: Unix seconds, by the provider's clock.
        :raises SourceFailed: a request failed.
        """
        after: dict[str, str] = {}
        while True:
            body = await self._ask("list", limit=PAGE, **after)
            entries = body.get("data")
            for entry in entries if isinstance(entries, list) else ():
                state = self._state(entry)
                if state.created < created:
                    return
                yield state
            last = body.get("last_id")
            if body.get("has_more") is not True or not isinstance(last, str):
                return
            after = {"after_id": last}

    async def results(self, batch: str) -> AsyncGenerator[bytes]:
        """Give the lines of a batch's results, in the provider's order; the last one may be cut.

        :raises SourceFailed: the request failed, or the answer broke off.
        """
        resource = self._resource()
        opened: Any = None
        try:
            opened = await resource.with_streaming_response.results(batch, timeout=TIMEOUT).__aenter__()
            rest = b""
            async for data in opened.http_response.aiter_bytes():
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    yield line
                if len(rest) > MOST_LINE:
                    what = f"a result of batch {batch} is longer than {MOST_LINE:,} bytes"
                    raise SourceFailed(Failed(reason="transport.decode", message=what))
            if rest:
                yield rest
        except Exception as error:
            raise _named(error, in_stream=opened is not None) from error
        finally:
            if opened is not None:
                with anyio.CancelScope(shield=True, deadline=anyio.current_time() + CLOSE_LIMIT):
                    await opened.http_response.aclose()

    def _resource(self) -> Any:
        return self._client.with_options(max_retries=0).messages.batches

    async def _ask(self, method: str, *args: Any, **options: Any) -> dict[str, Any]:
        try:
            answer = await getattr(self._resource().with_raw_response, method)(*args, **options, timeout=TIMEOUT)
            text = answer.http_response.content
        except Exception as error:
            raise _named(error, in_stream=False) from error
        try:
            body = json.loads(text)
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise SourceFailed(failures.undecodable(f"batches.{method} gave no JSON object", text, limit=200))
        return body

    def _state(self, body: Any) -> BatchState:
        try:
            counts = {name: int(count) for name, count in body["request_counts"].items()}
            return BatchState(
                id=str(body["id"]),
                status=str(body["processing_status"]),
                created=datetime.fromisoformat(str(body["created_at"])).timestamp(),
                counts=counts,
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise SourceFailed(
                failures.undecodable(f"no description of a batch ({error!r})", json.dumps(body).encode(), limit=200)
            ) from error


def _named(error: Exception, *, in_stream: bool) -> Exception:
    """What went wrong in the words of `failures`; the error itself if it is a mistake of the program."""
    if isinstance(error, SourceFailed):
        return error
    failed = failures.from_exception(error, in_stream=in_stream)
    if failed is None and type(error).__module__.partition(".")[0] == "anthropic":
        failed = Failed(reason="transport.decode", message=str(error), status=200)  # an answer that the SDK cannot use
    return error if failed is None else SourceFailed(failed)
