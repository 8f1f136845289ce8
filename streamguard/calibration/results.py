"""What a job's own output says of each answer: first tokens, times and lengths, attempt by attempt.

In charge of reading result lines. They have no streams, so that silences, loops and what an earlier end would have
saved are not known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from streamguard.calibration.measuring import Measured


def of_line(line: bytes) -> Iterator[Measured]:
    """Give the attempts of a result line, but for those of batches, whose times nobody knows.

    :param line: one line of a job's output.
    :raises ValueError: it is no result line.
    """
    value = msgspec.json.decode(line)
    own = value.get("streamguard") if isinstance(value, Mapping) else None
    attempts = own.get("attempts") if isinstance(own, Mapping) else None
    if not isinstance(attempts, list) or not isinstance(own, Mapping):
        raise ValueError("no result line of a job")  # noqa: TRY004  to its reader it is one kind of mistake
    if own.get("batch") is not None:
        return
    for attempt in attempts:
        if isinstance(attempt, Mapping) and not str(attempt.get("reason")).startswith(_UNKNOWN):
            yield _measured(str(value.get("custom_id")), attempt)


_UNKNOWN = ("timeout.", "provider.", "transport.", "budget.", "operator.", "cap.", "repetition.")
"""Attempts that a limit ended say nothing of what they would have needed; others have no answer."""


def _measured(name: str, attempt: Mapping[str, Any]) -> Measured:
    needs: dict[str, float] = {}
    for knob, field in (("timeouts.first_token", "first_token_seconds"), ("timeouts.attempt", "seconds")):
        if isinstance(seconds := attempt.get(field), int | float):
            needs[knob] = float(seconds)
    tokens = attempt.get("output_tokens")
    if isinstance(tokens, list) and len(tokens) == 2 and isinstance(tokens[1], int):
        needs["max_tokens"] = tokens[1]
    good = attempt.get("completed") is not None
    reason = None if good else str(attempt.get("reason"))
    counted = int(needs.get("max_tokens", 0))
    return Measured(name=f"{name}#{attempt.get('number')}", good=good, reason=reason, needs=needs, tokens=counted)
