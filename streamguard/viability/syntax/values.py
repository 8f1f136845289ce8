"""The finished values of an unfinished document, by ijson.

In charge of: what a prefix that the scanner has passed already says for certain. It never judges: it is fed what is
known to be the beginning of a JSON text, and acceptance is a full parse elsewhere. It does not know schemas.

ijson (`yajl2_c` where there is one) is fast and has traps; this file is where they are kept away from it:

* it lexes an unfinished token again on every push, so it gets finished tokens only (`Prefix.token_start` tells where
  the unfinished one begins) and is never pushed nothing;
* lone surrogate escapes make it raise (`"\\udc00"`) or read another character (`"\\ud800\\u0041"`), and an exponent
  with many digits overflows its decimals, so such tokens go through `json.loads` and a stand-in takes their place;
* integers with thousands of digits crash it: the caller's `max_digits` must be at most `MOST_DIGITS`.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections import deque
from collections.abc import Iterable
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final

import ijson

from streamguard.files.json_pointer import Path

MOST_DIGITS: Final = 4300
"""Digits in one number that CPython converts (`sys.int_info.default_max_str_digits`), and ijson survives."""

_STAND_IN: Final = "\x00"
# Strings with an escaped surrogate or with the stand-in's own character; surrogates that came unescaped; exponents.
_RISKY: Final = re.compile(r"\\u(?:[dD][89a-fA-F]|0000)|[\ud800-\udfff]|[eE][+-]?[0-9]{4}")
_TOKEN: Final = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|-?[0-9][0-9.eE+-]*+')


class FinishedValues:
    """Builds the value of a prefix, and finds the finished values at some paths.

    :param wanted: paths to find. Once every one of them is found nothing more is built, so that `value` then holds what
        had finished when the last of them did, and the containers around it.
    """

    def __init__(self, wanted: Iterable[Path] = ()) -> None:
        self.value: Any = None
        """What has finished so far; containers that are still open hold what finished in them. `None` for nothing."""
        self.found: dict[Path, Any] = {}
        """The finished values of the wanted paths. A repeated name counts when it stands first."""
        self.lost = False
        """Whether the parser gave up on a text, so that what comes after it is not seen."""
        self._wanted = frozenset(wanted)
        self._depths = frozenset(map(len, self._wanted))
        self._stack: list[Any] = []  # open containers
        self._path: list[str | int] = []  # per open container: the name or index of its current value
        self._replaced: deque[Any] = deque()
        self._events = ijson.sendable_list()
        self._parser = _backend().basic_parse_coro(self._events)

    @property
    def satisfied(self) -> bool:
        """Whether every wanted path was found (never, if none is wanted)."""
        return bool(self._wanted) and len(self.found) == len(self._wanted)

    def feed(self, text: str) -> None:
        """Take more of the document: finished tokens and what stands between them, passed by the scanner.

        The last piece may end inside a token, which is then ignored.
        """
        if not text or self.lost or self.satisfied:
            return
        if _RISKY.search(text) is not None:
            text = _TOKEN.sub(self._replace, text)
        try:
            # What is left of raw surrogates is in an unfinished string.
            self._parser.send(text.encode("utf-8", "replace"))
        except (ijson.JSONError, ValueError, ArithmeticError):
            # The scanner has passed this text and is right by definition. Nothing more is found here: the rest of the
            # document is known only when it is parsed in full.
            self.lost = True
        events = list(self._events)
        self._events.clear()
        for event, value in events:
            self._take(event, value)
            if self.satisfied:
                return

    def __del__(self) -> None:
        # The pure Python backend complains, when it is thrown away, that its input is incomplete. It is meant to be.
        with contextlib.suppress(ijson.JSONError, AttributeError):
            self._parser.close()

    def _replace(self, token: re.Match[str]) -> str:
        text = token.group()
        if _RISKY.search(text) is None:
            return text
        self._replaced.append(json.loads(text))
        return '"\\u0000"'

    def _take(self, event: str, value: Any) -> None:
        if value.__class__ is str:
            if value == _STAND_IN:
                value = self._replaced.popleft()
        elif value.__class__ is Decimal:
            value = float(value)
        if event == "map_key":
            self._path[-1] = value
        elif event == "start_map":
            self._open({}, "")
        elif event == "start_array":
            self._open([], -1)
        elif event in ("end_map", "end_array"):
            self._path.pop()
            self._finished(self._stack.pop())
        else:
            self._put(value)
            self._finished(value)

    def _open(self, container: Any, key: str | int) -> None:
        self._put(container)
        self._stack.append(container)
        self._path.append(key)

    def _put(self, value: Any) -> None:
        """Hang a value where it belongs."""
        if not self._stack:
            self.value = value
            return
        container, key = self._stack[-1], self._path[-1]
        if isinstance(key, int):
            self._path[-1] = key + 1
            container.append(value)
        else:
            container[key] = value

    def _finished(self, value: Any) -> None:
        if len(self._path) in self._depths:
            path = tuple(map(str, self._path))
            if path in self._wanted:
                self.found.setdefault(path, value)


@lru_cache(maxsize=1)
def _backend() -> Any:
    try:
        return ijson.get_backend("yajl2_c")
    except ImportError:
        return ijson.get_backend("python")
