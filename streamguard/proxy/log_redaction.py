"""Log lines without secrets, whatever wrote them.

The last step before a line leaves the process: the known secrets by their value, and whatever looks like one. A
formatter sees the whole line, exceptions and their texts included.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from streamguard.redaction import redacted
from streamguard.terminal import printable

LINE_BYTES = 16_384
"""The most of one line."""


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
