"""What is known of the use of an attempt that is over: for the budgets that held its cost, and for the pace."""

from __future__ import annotations

from streamguard.budgets.spec import Aborted, Billed, Evidence, Lost, NotBilled
from streamguard.engine.attempt import RunningAttempt
from streamguard.engine.runtime import Runtime
from streamguard.guards.metering import input_upper, is_final, output_upper
from streamguard.pace.hedge import LOST
from streamguard.policy.model import Policy


def output_tokens(running: RunningAttempt, runtime: Runtime) -> float | None:
    """≈ The output tokens of an attempt; `None` if it never began, and nobody knows why."""
    transcript = running.panel.transcript
    if transcript.metered and transcript.usage.output_tokens is not None:
        return transcript.usage.output_tokens
    if transcript.first_token_at is None:
        lost = running.ended is not None and running.ended.reason == LOST
        return 0.0 if lost else None
    model = running.request.model if running.request else transcript.model
    return sum(transcript.weights().values()) * runtime.calibration.scale(model).mid


def evidence(running: RunningAttempt, runtime: Runtime, policy: Policy, now: float) -> Evidence:
    """What budgets are told of an attempt.

    :param now: on the running backend's clock.
    """
    transcript = running.panel.transcript
    if not running.sent or not running.billable:
        return NotBilled()
    model = running.request.model if running.request else transcript.model
    scale = runtime.calibration.scale(model)
    if is_final(transcript, running.request):
        book = runtime.pricebook(policy.prices)
        return Billed(transcript.usage, book.for_answer(running.request, transcript.model, transcript.usage))
    if transcript.metered:
        return Lost()  # a count that cannot be true is none
    if running.stream is None:
        # Accepted perhaps, and at work unseen.
        return Aborted(output_tokens=None)
    silent = 0.0 if transcript.output_at is None else now - transcript.output_at
    read = input_upper(transcript, running.request, scale)
    return Aborted(
        output_tokens=output_upper(transcript, running.request, scale, silent),
        input_tokens=read.tokens if read else None,
        cache_writes=read.cache_writes if read else True,
    )
