"""Messages under guard: one client's request, as a guarded call upstream, as the response the client asked for.

In charge of the order: open as late as possible, hand on what the engine releases, say how it ended, leave nothing open
when the client goes. What is released when is the policy's `deliver`; a client that did not ask for a stream gets the
whole message as JSON, or an error.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import anyio
import anyio.to_thread
import msgspec

from streamguard.adapters.sse.frame_names import named
from streamguard.adapters.sse.raw_frames import FrameLog
from streamguard.engine.call import Call
from streamguard.engine.runtime import Runtime
from streamguard.errors import CallError, ConfigError, GaveUp, StreamguardError
from streamguard.events import Failed
from streamguard.guards.base import AttemptContext
from streamguard.http.client import HeaderList
from streamguard.http.refusals import error_body
from streamguard.outcome import Outcome
from streamguard.policy.model import Policy
from streamguard.proxy.answers import error_responses, report_headers
from streamguard.proxy.answers.early_end import OpenBlocks, closed, closing_frames, without_surplus
from streamguard.proxy.answers.reply import EVENTS, Reply, gone
from streamguard.proxy.body import Asked, Receive
from streamguard.proxy.config import ProxyConfig
from streamguard.proxy.headers import without
from streamguard.proxy.upstream import UpstreamSource

_log = logging.getLogger("streamguard.proxy")

COMMENT: Final = b": keep-alive\n\n"
"""Said in a stream that is quiet."""

SPACE: Final = b" "
"""Said before a JSON body that is not ready: white space before a JSON text means nothing."""

SMALL_BODY: Final = 2048
"""Bytes of a request up to which its schema is compiled where it is needed: that takes a millisecond or two."""

RATE_LIMITED: Final = 429
"""The status that stays as it is where the upstream said when to come back: that is a time, and no verdict."""

JSON: Final[HeaderList] = [(b"content-type", b"application/json")]


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What one client asks for, and under which policy."""

    asked: Asked
    policy: Policy
    labels: Mapping[str, str]
    group: str | None = None
    alone: bool = False
    """Whether the client may see every budget's balance."""


class GuardedAnswer:
    """One guarded answer to one client."""

    def __init__(
        self, order: Order, source: UpstreamSource, runtime: Runtime, reply: Reply, config: ProxyConfig
    ) -> None:
        self._order = order
        self._source = source
        self._runtime = runtime
        self._reply = reply
        self._keep_alive = config.keep_alive
        self._final_status = config.final_status
        # The order of the wire, as long as the client is not kept waiting.
        self._log = FrameLog(keepalives="in order")
        self._streams = order.asked.streams

    async def run(self, receive: Receive) -> bool:
        """Answer. Whether the client stayed to the end."""
        reply, policy = self._reply, self._order.policy
        try:
            await self._read_schema()
            call = Call(
                self._log.source(self._source) if self._streams else self._source,
                policy,
                self._runtime,
                deliver=policy.deliver if self._streams else "committed",
                keep=self._streams,
                labels=self._order.labels,
                group=self._order.group,
            )
        except ConfigError as error:
            await reply.whole(400, JSON, error_responses.config_body(error))
            return True
        reply.head = lambda: self._head(report_headers.beginning(call.id, call.record))
        answer = self._stream if self._streams else self._json
        token, seconds = (COMMENT, self._keep_alive.stream) if self._streams else (SPACE, self._keep_alive.json_body)
        stayed = True
        async with anyio.create_task_group() as beside:

            async def watch() -> None:
                nonlocal stayed
                await gone(receive)
                stayed = False
                beside.cancel_scope.cancel()

            beside.start_soon(watch)
            if seconds is not None:
                beside.start_soon(reply.keep_alive, seconds, token)
            try:
                await self._answer(answer, call)
            finally:
                await call.close()
            beside.cancel_scope.cancel()
        return stayed or reply.ended

    async def _read_schema(self) -> None:
        """Compile a client's own schema beside the event loop, whose other streams go on meanwhile; the call finds it
        compiled.

        :raises ConfigError: it cannot be used, or there is none.
        """
        section = self._order.policy.json_document
        if section is not None and section.schema_ == "request" and len(self._order.asked.raw) > SMALL_BODY:
            context = AttemptContext(request=self._source.request)
            await anyio.to_thread.run_sync(section.watch, context, 0.0)

    async def _answer(self, answer: Callable[[Call], Awaitable[None]], call: Call) -> None:
        try:
            await answer(call)
        except CallError as error:
            await self._failed(error, call)
        except (ConfigError, ValueError) as error:
            # Found before anything was sent: the policy does not fit this request, or its ledger refuses.
            _log.warning("call %s cannot be made: %s", call.id, error)
            await self._say(400, error_responses.config_body(error))
        except StreamguardError as error:
            _log.error("call %s cannot be made: %s", call.id, error)
            await self._say(503, error_body("overloaded_error", str(error), {"call": call.id}))
        except Exception:
            _log.exception("call %s failed by a mistake of the proxy", call.id)
            await self._say(500, error_body("api_error", "the proxy made a mistake; its log has it", {"call": call.id}))

    # Streams

    async def _stream(self, call: Call) -> None:
        reply, log, blocks = self._reply, self._log, OpenBlocks()
        while (batch := await call.next()) is not None:
            blocks.see(batch)
            if reply.kept_alive:
                log.overtake()
            frames = [named(frame) for frame in log.release(batch)]
            if call.outcome is not None:
                break
            if frames:
                await reply.write(b"".join(frames))
        outcome = call.outcome
        assert outcome is not None
        if batch is None:
            frames = []
        if outcome.completed == "cut":
            frames = [*without_surplus(frames, outcome, blocks.text), closing_frames(blocks, outcome)]
        else:
            frames += map(named, log.rest())
        said = report_headers.report(call.id, outcome, await self._left())
        if reply.status is None:
            await reply.start(200, self._head(said))
            await reply.end(b"".join(frames))
        else:
            await reply.end(b"".join([*frames, report_headers.as_comment(said)]))

    def _head(self, said: Mapping[str, str]) -> HeaderList:
        upstream = without(self._source.headers, [b"content-type"])
        return [*(EVENTS if self._streams else JSON), *upstream, *report_headers.as_list(said)]

    # JSON

    async def _json(self, call: Call) -> None:
        while await call.next() is not None:
            pass
        outcome = call.outcome
        assert outcome is not None
        if outcome.message is None:
            # Possible only where the completion guard does no more than look on.
            text = "the answer has no message_start, so there is no message to hand on"
            raise GaveUp(text, reason="transport.decode", record=outcome)
        body = as_json(outcome)
        if self._reply.status is None:
            said = report_headers.report(call.id, outcome, await self._left())
            await self._reply.whole(200, self._head(said), body)
        else:
            await self._reply.end(body)

    # Failures

    async def _failed(self, error: CallError, call: Call) -> None:
        body = error_responses.body_of(error, call.id)
        said = report_headers.report(call.id, error.record, await self._left())
        said |= error_responses.retry_headers(error, policy_retries=self._order.policy.retry.attempts > 1)
        if self._reply.status is not None:
            await self._say(200, body, said)
            return
        status, own = error_responses.status_of(error.reason), report_headers.as_list(said)
        ended = error.attempts[-1].ended if error.attempts else None
        refused = self._source.refused
        if refused is not None and isinstance(ended, Failed) and ended.status == refused.status >= 400:
            status = refused.status
        as_it_came = refused is not None and status == refused.status and refused.in_form
        waits = refused is not None and refused.says_when and status == RATE_LIMITED
        if said.get("x-should-retry") == "false" and not waits:
            status = error_responses.final_status(status, self._final_status)
        if refused is not None and as_it_came:
            # The provider's own error, as it came.
            names = [name for name, _ in own]
            await self._reply.whole(status, [*without(refused.headers, names), *own], refused.body)
            return
        await self._reply.whole(status, [*JSON, *own], body)

    async def _say(self, status: int, body: bytes, said: Mapping[str, str] | None = None) -> None:
        """An error, in whatever form is left to say it."""
        if self._reply.status is None:
            await self._reply.whole(status, JSON, body)
        elif self._streams:
            await self._reply.end(error_responses.event_of(body) + (report_headers.as_comment(said) if said else b""))
        else:
            # The status says success, and most clients look at nothing else. So the body gets no end, and no last
            # brace either, for hops that take the end of a connection for the end of a body.
            await self._reply.write(body[:-1])

    async def _left(self) -> dict[str, str]:
        budgets = report_headers.visible(self._order.policy.budgets, alone=self._order.alone)
        return await report_headers.budgets_left(self._runtime, budgets, self._order.labels) if budgets else {}


def as_json(outcome: Outcome) -> bytes:
    """The whole message as the provider would have sent it to a client that asked for no stream."""
    message: dict[str, Any] = outcome.message or {}
    if outcome.completed == "cut":
        message = closed(message, outcome)
    try:
        return _dumped(message, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return _dumped(message, ensure_ascii=True).encode("ascii")


def _dumped(message: dict[str, Any], *, ensure_ascii: bool) -> str:
    """Strict JSON: `NaN`, which some servers write where a number is missing, is a `null`."""
    try:
        return json.dumps(message, ensure_ascii=ensure_ascii, separators=(",", ":"), allow_nan=False)
    except ValueError as error:
        if isinstance(error, UnicodeEncodeError):
            raise
        strict = json.loads(json.dumps(message), parse_constant=lambda _: None)
        return json.dumps(strict, ensure_ascii=ensure_ascii, separators=(",", ":"))
