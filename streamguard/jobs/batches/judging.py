"""A result of a batch → what came of its row: judged by the policy's own guards, as a stream would be.

In charge of one result at a time. An answer goes through the same panel, schema, checks and completion rules as a
call's, as its one attempt; an error gets the provider's words. What a row that is not done yet gets is `None`: nothing
was billed, and it is asked again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from streamguard.adapters.anthropic import failures
from streamguard.adapters.anthropic.whole import WholeAnswer
from streamguard.engine.call import Call
from streamguard.errors import CallError, GaveUp
from streamguard.guards.timeouts import Timeouts
from streamguard.jobs.asking import Ended, ended
from streamguard.jobs.batches.prices import BatchRuntime
from streamguard.jobs.input.input import RowRequest
from streamguard.jobs.store.results import About
from streamguard.outcome import AttemptRecord, CallRecord, Cost, Outcome, Times
from streamguard.policy.model import Policy
from streamguard.pricing.bill import all_tokens
from streamguard.request import Request
from streamguard.usage import UsageRange

NO_CLOCKS: Final = Timeouts(
    connect=None, first_token=None, progress=None, progress_thinking=None, progress_tool=None, alive=None
)
"""An answer that is there already waits for nothing."""

NOT_DONE: Final = frozenset({"canceled", "expired"})
"""Results of requests that were not worked on. Nothing is billed for them."""


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a row in a batch."""

    ended: Ended
    micro_usd: int | None
    """What it costs, exactly; `None` if the provider's count does not say."""
    tokens: int | None
    """All its tokens, exactly; `None` likewise."""


class Judge:
    """Judges the results of one job's batches.

    :param policy: the job's. Of it the guards count, not clocks, retries, budgets and pace.
    """

    def __init__(self, policy: Policy, about: About) -> None:
        off = {"timeouts": NO_CLOCKS, "retry": Policy().retry, "budgets": (), "pace": None}
        self._policy = policy.model_copy(update=off)
        self._about = about
        self._runtime = BatchRuntime()

    async def judge(self, request: RowRequest, result: Mapping[str, Any], batch: str, seconds: float) -> Judged | None:
        """Judge one result.

        :param result: the result's object, which has a `type`.
        :param batch: the provider's id of the batch.
        :param seconds: from the batch's submission to its end.
        :returns: `None` for a request that was not worked on.
        """
        kind = result.get("type")
        if kind in NOT_DONE:
            return None
        came: Outcome | CallError
        if kind == "succeeded":
            came = _timed(await self._call(request, result.get("message")), seconds)
        else:
            failed = failures.from_body(result.get("error") or dict(result), status=None)
            nothing, free = UsageRange.nothing(), Cost(0, 0)  # errors are not billed
            attempt = AttemptRecord(number=1, ended=failed, usage=nothing, cost=free, times=Times(end=seconds))
            record = CallRecord(attempts=(attempt,), usage=nothing, cost=free, seconds=seconds)
            came = GaveUp(failed.message, reason=failed.reason, record=record)
        entry = request.entry
        about = msgspec.structs.replace(self._about, batch=batch)
        told = ended(entry.custom_id, came, about, entry.fingerprint, request.params, self._policy)
        took = came.record if isinstance(came, CallError) else came
        if not took.usage.exact:
            return Judged(ended=told, micro_usd=None, tokens=None)
        tokens = all_tokens(took.usage.high)
        return Judged(ended=told, micro_usd=0 if tokens == 0 else took.cost.high, tokens=tokens)

    async def _call(self, request: RowRequest, message: Any) -> Outcome | CallError:
        source = WholeAnswer(Request(request.params), message if isinstance(message, Mapping) else {})
        labels = {"custom_id": request.entry.custom_id}
        call = Call(source, self._policy, self._runtime, keep=False, labels=labels, source_text=request.row)
        try:
            return await call.run()
        except CallError as error:
            return error


def _timed(came: Outcome | CallError, seconds: float) -> Outcome | CallError:
    """With the time that the batch took. When its first token came nobody knows."""
    record = came.record if isinstance(came, CallError) else came
    attempts = tuple(msgspec.structs.replace(one, times=Times(end=seconds)) for one in record.attempts)
    timed = msgspec.structs.replace(record, attempts=attempts, seconds=seconds)
    if isinstance(came, CallError):
        came.record = timed
        return came
    assert isinstance(timed, Outcome)
    return timed
