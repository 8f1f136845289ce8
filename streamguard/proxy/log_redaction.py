"""Log lines without secrets, whatever wrote them, and no more of them than somebody reads.

The last step before a line leaves the process: the known secrets by their value, and whatever looks like one. A
formatter sees the whole line, exceptions and their texts included. A line that anybody can cause is marked so
(`extra={"strangers": True}`), and of each kind of them only a few a second are written.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable

from streamguard.redaction import redacted
from streamguard.terminal import printable

LINE_BYTES = 8192
"""The most of one line, a traceback with it."""


class RedactingFormatter(logging.Formatter):
    """Formats, then takes secrets and control characters out.

    :param secrets: values that must never appear: keys and tokens.
    """

    def __init__(self, secrets: Iterable[str], fmt: str = "%(asctime)s %(levelname)s %(name)s %(message)s") -> None:
        super().__init__(fmt)
        self._secrets = sorted((secret for secret in secrets if secret), key=len, reverse=True)

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        for secret in self._secrets:
            text = text.replace(secret, "[redacted]")
        return "\n".join(printable(line) for line in redacted(text, LINE_BYTES).split("\n"))


class StrangersFilter(logging.Filter):
    """Leaves lines out that strangers cause, where there are many of one kind; how many, the next one says.

    :param per_second: lines of one kind that are written; as many more at once after a quiet second.
    """

    def __init__(self, per_second: float = 5.0, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._per_second, self._clock = per_second, clock
        self._kinds: dict[str, _Kind] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if not getattr(record, "strangers", False):
            return True
        now = self._clock()
        # The text before its arguments are put in: there are as many kinds as places that log.
        kind = self._kinds.setdefault(str(record.msg), _Kind(2 * self._per_second, now))
        kind.room = min(2 * self._per_second, kind.room + (now - kind.at) * self._per_second)
        kind.at = now
        if kind.room < 1:
            kind.left_out += 1
            return False
        kind.room -= 1
        if kind.left_out:
            record.msg = f"{record.msg} ({kind.left_out} more like this were left out before it)"
            kind.left_out = 0
        return True


class _Kind:
    """The lines of one kind."""

    def __init__(self, room: float, at: float) -> None:
        self.room, self.at, self.left_out = room, at, 0
