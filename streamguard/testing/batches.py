"""The provider's side of Message Batches: what it has taken, when each batch ends, and what it bills.

In charge of the batches' life as the API describes it: requests are `processing` until the whole batch ends; results
come in any order; what a cancellation finds undone is `canceled`. Two fronts: `BatchProvider.respond` answers HTTP
requests of a scripted server, `ScriptedDesk` is a desk in memory, for tests in virtual time. Time is an argument, or
the running backend's.

What goes wrong is said in `faults`, by operation: each request of that operation takes the next one.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import anyio
import msgspec

from streamguard.adapters.anthropic import failures
from streamguard.adapters.anthropic.batches import BatchState
from streamguard.events import Failed
from streamguard.source import SourceFailed
from streamguard.testing import wire

Operation = Literal["create", "retrieve", "list", "cancel", "results"]

Fault = int | Literal["lost", "unheard", "cut"] | None
"""An HTTP status; `lost`: the request never arrives; `unheard`: it is carried out, and the answer is lost; `cut`: the
answer breaks off in the middle; `None`: nothing goes wrong."""

Answer = Callable[[Mapping[str, Any], int], Mapping[str, Any]]
"""A request's parameters, and how often they were asked in batches → the result's object, which has a `type`."""


class ProvidedBatch(msgspec.Struct, kw_only=True):
    """A batch as the provider has it."""

    id: str
    created: float
    """Seconds, as all times here."""
    ends: float
    canceled: float | None = None
    requests: list[dict[str, Any]]
    results: list[dict[str, Any]] | None = None
    """Once it has ended, in the order in which they are given."""


class Response(msgspec.Struct, frozen=True):
    """An HTTP answer."""

    status: int
    body: bytes
    send: int | None = None
    """Bytes of the whole response after which the connection breaks; `None` for none."""


class BatchProvider:
    """All batches of one account.

    :param answer: what comes of a request.
    :param seconds: from a batch's creation to its end.
    :param epoch: Unix seconds at time 0, for the times that are said.
    :param seed: of the order of results.
    :param faults: what goes wrong, by operation.
    """

    def __init__(
        self,
        answer: Answer,
        *,
        seconds: float = 5.0,
        epoch: float = 0.0,
        seed: int = 1,
        faults: Mapping[Operation, Sequence[Fault]] | None = None,
    ) -> None:
        self._answer = answer
        self._seconds = seconds
        self._epoch = epoch
        self._dice = random.Random(seed)  # noqa: S311
        self._faults = {operation: list(some) for operation, some in (faults or {}).items()}
        self._asked: Counter[str] = Counter()
        self.batches: dict[str, ProvidedBatch] = {}
        """By id, the first one first."""
        self.usage: Counter[str] = Counter()
        """Tokens of all answers, by the names of the API's usage: what is billed."""

    def fault(self, operation: Operation) -> Fault:
        """Take what goes wrong with the next request of `operation`."""
        some = self._faults.get(operation)
        return some.pop(0) if some else None

    def create(self, requests: Sequence[Mapping[str, Any]], now: float) -> ProvidedBatch:
        """Take a batch of `requests` at the time `now`."""
        batch = ProvidedBatch(
            id=f"msgbatch_{len(self.batches) + 1:06}",
            created=now,
            ends=now + self._seconds,
            requests=[dict(one) for one in requests],
        )
        self.batches[batch.id] = batch
        return batch

    def cancel(self, batch: ProvidedBatch, now: float) -> None:
        """End a `batch` within a second of `now`."""
        if batch.canceled is None and now < batch.ends:
            batch.canceled, batch.ends = now, min(batch.ends, now + 1.0)

    def end(self, batch: ProvidedBatch, now: float) -> bool:
        """Return whether `batch` has ended by `now`; its results are made when it first has."""
        if now < batch.ends:
            return False
        if batch.results is None:
            done = 1.0 if batch.canceled is None else (batch.canceled - batch.created) / max(1e-9, self._seconds)
            most = round(done * len(batch.requests))
            batch.results = [self._result(one, undone=at >= most) for at, one in enumerate(batch.requests)]
            self._dice.shuffle(batch.results)
        return True

    def _result(self, request: Mapping[str, Any], *, undone: bool) -> dict[str, Any]:
        if undone:
            return {"custom_id": request["custom_id"], "result": {"type": "canceled"}}
        key = json.dumps(request["params"], sort_keys=True)
        self._asked[key] += 1
        result = self._answer(request["params"], self._asked[key])
        if result.get("type") == "succeeded":
            for name, count in result["message"].get("usage", {}).items():
                self.usage[name] += count if isinstance(count, int) else 0
        return {"custom_id": request["custom_id"], "result": dict(result)}

    def described(self, batch: ProvidedBatch, now: float) -> dict[str, Any]:
        """Describe `batch` at the time `now` as the API does."""
        ended = self.end(batch, now)
        counts = dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0)
        if ended and batch.results is not None:
            counts |= Counter(one["result"]["type"] for one in batch.results)
        else:
            counts["processing"] = len(batch.requests)
        status = "ended" if ended else "in_progress" if batch.canceled is None else "canceling"
        return {
            "id": batch.id,
            "type": "message_batch",
            "processing_status": status,
            "request_counts": counts,
            "created_at": self._said(batch.created),
            "expires_at": self._said(batch.created + 86_400),
            "ended_at": self._said(batch.ends) if ended else None,
            "cancel_initiated_at": None if batch.canceled is None else self._said(batch.canceled),
            "archived_at": None,
            "results_url": f"/v1/messages/batches/{batch.id}/results" if ended else None,
        }

    def _said(self, seconds: float) -> str:
        return datetime.fromtimestamp(self._epoch + seconds, UTC).isoformat()

    def newest(self) -> list[ProvidedBatch]:
        """Return every batch, the newest first."""
        return list(self.batches.values())[::-1]

    # As a server

    def respond(self, method: str, path: str, query: Mapping[str, str], body: Any, now: float) -> Response | None:
        """Answer an HTTP request.

        :param method: the request's method.
        :param path: its path, without the query.
        :param query: its query, parsed.
        :param body: its JSON body, parsed; `None` for none.
        :param now: the time, in seconds.
        :returns: the answer; `None` for a path that is not of batches.
        """
        parts = path.strip("/").split("/")
        if parts[:3] != ["v1", "messages", "batches"]:
            return None
        name, verb = ([*parts[3:], "", ""])[:2]
        operation = _OPERATIONS.get((method, bool(name), verb))
        if operation is None:
            return _json(404, wire.error_body("not_found_error", path))
        fault = self.fault(operation)
        if fault == "lost":
            return Response(0, b"", send=0)
        if isinstance(fault, int):
            return _json(fault, wire.error_body(_TYPES.get(fault, "api_error"), f"scripted {fault}"))
        answer = self._carried_out(operation, name, query, body, now)
        if fault == "unheard":
            return Response(answer.status, answer.body, send=0)
        return Response(answer.status, answer.body, send=len(answer.body) // 2) if fault == "cut" else answer

    def _carried_out(
        self, operation: Operation, name: str, query: Mapping[str, str], body: Any, now: float
    ) -> Response:
        if operation == "create":
            return _json(200, self.described(self.create(body["requests"], now), now))
        if operation == "list":
            return _json(200, self._page(query, now))
        batch = self.batches.get(name)
        if batch is None:
            return _json(404, wire.error_body("not_found_error", f"no batch {name}"))
        if operation == "cancel":
            self.cancel(batch, now)
        if operation != "results":
            return _json(200, self.described(batch, now))
        if not self.end(batch, now):
            return _json(404, wire.error_body("not_found_error", f"batch {name} has no results yet"))
        return Response(200, b"".join(json.dumps(one).encode() + b"\n" for one in batch.results or ()))

    def _page(self, query: Mapping[str, str], now: float) -> dict[str, Any]:
        found = self.newest()
        if (after := query.get("after_id")) is not None:
            found = found[1 + [one.id for one in found].index(after) :]
        most = int(query.get("limit", "20"))
        data = [self.described(one, now) for one in found[:most]]
        ends = {"first_id": data[0]["id"] if data else None, "last_id": data[-1]["id"] if data else None}
        return {"data": data, "has_more": len(found) > most, **ends}


_OPERATIONS: Mapping[tuple[str, bool, str], Operation] = {
    ("POST", False, ""): "create",
    ("GET", False, ""): "list",
    ("GET", True, ""): "retrieve",
    ("POST", True, "cancel"): "cancel",
    ("GET", True, "results"): "results",
}

_TYPES: Mapping[int, str] = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    429: "rate_limit_error",
    529: "overloaded_error",
}


def _json(status: int, body: Any) -> Response:
    return Response(status, json.dumps(body).encode())


class ScriptedDesk:
    """A desk in memory: the provider's batches without sockets, on the running backend's clock."""

    def __init__(self, provider: BatchProvider) -> None:
        self.provider = provider

    async def create(self, requests: Sequence[Mapping[str, Any]]) -> BatchState:
        """See `MessageBatches.create`."""
        return self._state(await self._ask("create", body={"requests": requests}))

    async def retrieve(self, batch: str) -> BatchState:
        """See `MessageBatches.retrieve`."""
        return self._state(await self._ask("retrieve", f"/{batch}"))

    async def cancel(self, batch: str) -> BatchState:
        """See `MessageBatches.cancel`."""
        return self._state(await self._ask("cancel", f"/{batch}/cancel"))

    async def since(self, created: float) -> AsyncGenerator[BatchState]:
        """See `MessageBatches.since`."""
        for entry in json.loads(await self._ask("list"))["data"]:
            state = self._state(json.dumps(entry).encode())
            if state.created < created:
                return
            yield state

    async def results(self, batch: str) -> AsyncGenerator[bytes]:
        """See `MessageBatches.results`."""
        body, cut = await self._answer("results", f"/{batch}/results", None)
        for line in body.split(b"\n"):
            yield line
        if cut:
            raise SourceFailed(Failed(reason="transport.reset", message="the results broke off"))

    def _state(self, body: bytes) -> BatchState:
        entry = json.loads(body)
        created = datetime.fromisoformat(entry["created_at"]).timestamp()
        return BatchState(
            id=entry["id"], status=entry["processing_status"], created=created, counts=entry["request_counts"]
        )

    async def _ask(self, operation: Operation, rest: str = "", body: Any = None) -> bytes:
        answer, cut = await self._answer(operation, rest, body)
        if cut:
            raise SourceFailed(Failed(reason="transport.reset", message="the answer broke off"))
        return answer

    async def _answer(self, operation: Operation, rest: str, body: Any) -> tuple[bytes, bool]:
        """The body as far as it came, and whether it broke off.

        :raises SourceFailed: nothing of it came, or an error.
        """
        await anyio.lowlevel.checkpoint()
        method = "POST" if operation in ("create", "cancel") else "GET"
        now = anyio.current_time()
        answer = self.provider.respond(method, f"/v1/messages/batches{rest}", {"limit": "1000"}, body, now)
        assert answer is not None
        if answer.send == 0:
            raise SourceFailed(Failed(reason="transport.reset", message="the connection broke"))
        if answer.status != 200:
            raise SourceFailed(failures.from_body(json.loads(answer.body), status=answer.status))
        return answer.body[: answer.send], answer.send is not None
