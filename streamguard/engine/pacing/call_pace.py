"""One call and its pace: the turn of each attempt, from the wait for it to the report of what it took.

In charge of owing nothing: every turn is reported once, as used, refused or returned. When turns come is the pacer's
business.
"""

from __future__ import annotations

from typing import Final

from streamguard.engine.attempt import RunningAttempt
from streamguard.engine.clock import CallClock
from streamguard.engine.pacing.local import GivenTurn, Pacer
from streamguard.engine.runtime import Runtime
from streamguard.events import Failed
from streamguard.guards.transcript import Transcript
from streamguard.pace.limits import Limits
from streamguard.pace.reports import Began, Late, Refused, Report, Returned, Seen, Settled
from streamguard.pace.sharing import Ask
from streamguard.pace.spec import PaceSpec
from streamguard.request import Request

REFUSALS: Final = {"provider.rate_limited": True, "provider.overloaded": False}
"""Reasons of refusals that the pace is told, and whether they are about rates."""

SILENT: Final = frozenset({"timeout.first_token", "timeout.connect", "timeout.alive"})
"""Reasons that, before any output, speak of a provider with a queue."""

BYTES_A_TOKEN: Final = 4
"""What input is guessed by. The pace learns how far off that is."""


class CallPace:
    """See the module. Used by one task.

    :param spec: `None` for no pace: then every turn is there at once, and nothing is reported.
    :param patient: whether the call is one of a job.
    """

    def __init__(self, spec: PaceSpec | None, runtime: Runtime, clock: CallClock, *, patient: bool) -> None:
        self._spec = spec
        self._runtime = runtime
        self._clock = clock
        self._patient = patient
        self._pacer: Pacer | None = None
        self._turn: GivenTurn | None = None
        self._begun = False

    async def take_turn(self, request: Request | None, base_url: str | None) -> None:
        """Wait for a turn, unless there is one already. A cancelled wait uses none up."""
        if self._spec is None or self._turn is not None:
            return
        self._pacer = self._runtime.pacer(self._spec, request.model if request else None, base_url)
        ask = Ask(
            input_tokens=0.0 if request is None else request.input_bytes / BYTES_A_TOKEN,
            max_tokens=_most_output(request),
            patient=self._patient,
        )
        self._begun = False
        self._turn = await self._pacer.turn(self._clock, ask)

    def keep_time_by(self, clock: CallClock) -> None:
        """Go on with another clock of the same call."""
        self._clock = clock

    def give_back(self) -> None:
        """Return a turn that is not used, if there is one."""
        if self._turn is not None:
            self._end(Returned(at=self._clock.now(), cost=self._turn.cost))

    def stated(self, limits: Limits) -> None:
        """Tell what a response states."""
        if self._pacer is not None:
            self._pacer.report(Seen(at=self._clock.now(), limits=limits))

    def began(self, running: RunningAttempt) -> None:
        """Tell of the first token, and how much the input was. Once an attempt."""
        turn = self._turn
        if turn is None or self._begun or self._pacer is None:
            return
        self._begun = True
        transcript = running.panel.transcript
        at = transcript.first_token_at
        counted = _counted(transcript)
        self._pacer.report(
            Began(
                at=self._clock.now(),
                sent=running.began,
                seconds=-1.0 if at is None else at - running.began,
                cost=turn.cost,
                guessed=turn.guessed if counted >= 0 else 0.0,
                counted=counted,
            ),
            alone=turn.alone,
        )

    def ended(self, running: RunningAttempt, output_tokens: float | None) -> None:
        """Tell how an attempt ended that was sent.

        :param output_tokens: what it took, as far as somebody knows.
        """
        turn = self._turn
        if turn is None:
            return
        end, now = running.ended, self._clock.now()
        output = running.panel.transcript.first_token_at is not None
        if isinstance(end, Failed) and end.reason in REFUSALS and not output:
            self._end(Refused(at=now, sent=running.began, cost=turn.cost, limited=REFUSALS[end.reason]))
        elif not running.sent or not running.billable:
            self._end(Returned(at=now, cost=turn.cost))
        elif end is not None and end.reason in SILENT and not output:
            self._end(Late(at=now, sent=running.began, cost=turn.cost))
        else:
            self.began(running)
            took = -1.0 if output_tokens is None else float(output_tokens)
            self._end(Settled(at=now, cost=turn.cost, output=took, seconds=now - running.began))

    def _end(self, report: Report) -> None:
        turn, self._turn = self._turn, None
        if self._pacer is not None and turn is not None:
            self._pacer.report(report, alone=turn.alone)


def _most_output(request: Request | None) -> float | None:
    most = None if request is None else request.max_tokens
    return float(most) if isinstance(most, int) and most > 0 else None


def _counted(transcript: Transcript) -> float:
    """The input tokens that count against a limit, as the provider counts them; below 0 if it did not say."""
    usage = transcript.usage
    if usage.input_tokens is None:
        return -1.0
    return float(usage.input_tokens + (usage.cache_write_tokens or 0))
