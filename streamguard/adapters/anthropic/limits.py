"""Response headers → `Limits`: Anthropic's `anthropic-ratelimit-*`, and the `x-ratelimit-*` of gateways and OpenAI.

In charge of reading what is stated and of refusing what cannot be true. A header that is missing, doubled, negative or
no number changes nothing but its own limit, and nothing here raises.
"""

from __future__ import annotations

import email.utils
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from streamguard.pace.limits import NAMES, Limit, LimitName, Limits

MOST: Final = 10**15
"""Beyond it a limit is a mistake, or none."""

_PREFIXES: Final = ("", "llm_provider-")
"""What gateways put before a provider's own header names; LiteLLM puts the second."""

_ANTHROPIC: Final = "{prefix}anthropic-ratelimit-{name}-{word}"
_GATEWAY: Final = "{prefix}x-ratelimit-{word}-{name}"

_DURATION: Final = re.compile(r"(?:(\d{1,6})h)?(?:(\d{1,6})m(?!s))?(?:(\d{1,9}(?:\.\d{1,9})?)s)?(?:(\d{1,9})ms)?")


def limits_of(headers: Mapping[str, str]) -> Limits | None:
    """Return the limits that a response states, or `None` if it states none.

    Where input and output have limits of their own, the one over both is left out: with Anthropic it is only the
    tighter one of the two, said again.

    :param headers: of a response, with any status; names in any case.
    """
    said = {name.lower(): value for name, value in headers.items() if "ratelimit" in name.lower()}
    if not said:
        return None
    for form in (_ANTHROPIC, _GATEWAY):
        for prefix in _PREFIXES:
            found = {name: limit for name in NAMES if (limit := _limit(said, headers, form, prefix, name)) is not None}
            if "input_tokens" in found or "output_tokens" in found:
                found.pop("tokens", None)
            if found:
                return Limits(**found)
    return None


def _limit(
    said: Mapping[str, str], headers: Mapping[str, str], form: str, prefix: str, name: LimitName
) -> Limit | None:
    def word(word: str) -> str | None:
        return said.get(form.format(prefix=prefix, name=name.replace("_", "-"), word=word))

    per_minute, left = _count(word("limit")), _count(word("remaining"))
    if not per_minute or left is None:
        return None
    return Limit(per_minute, min(left, per_minute), _seconds(word("reset"), headers.get("date")))


def _count(text: str | None) -> int | None:
    """A whole number from 0 to `MOST`, or `None`."""
    text = (text or "").strip()
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(MOST))):
        return None
    number = int(text)
    return number if number <= MOST else None


def _seconds(text: str | None, date: str | None) -> float | None:
    """How far away a reset is: a moment (by the response's own date), or a duration such as `6m0s`, `350ms`, `12`."""
    text = (text or "").strip()
    if not text:
        return None
    if "T" in text:
        return _until(text, date)
    match = _DURATION.fullmatch(text if text[-1:].isalpha() else f"{text}s")
    if match is None:
        return None
    hours, minutes, seconds, milliseconds = (float(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds + milliseconds / 1000


def _until(moment: str, date: str | None) -> float | None:
    now: Any = email.utils.parsedate_tz(date or "")
    if now is None:
        return None
    try:
        reset = datetime.fromisoformat(moment)
        reset = reset if reset.tzinfo is not None else reset.replace(tzinfo=UTC)
        seconds = reset.timestamp() - email.utils.mktime_tz(now)
    except (OverflowError, ValueError):
        return None
    return max(0.0, seconds)
