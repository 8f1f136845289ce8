"""Loops: the same text over and over, or nothing but blanks. Models that fall into one go on to `max_tokens`.

In charge of two signs of it in raw text, whatever the text is. It does not parse: whitespace in a JSON string counts
like any other. Both signs are *heuristic*: an answer may want to repeat itself.

* `repetition.whitespace`: more than `max_whitespace` whitespace characters in a row.
* `repetition.loop`: the text ends in one unit of at most `max_period` characters, repeated without the least difference
  at least `min_repeats` times and for at least `SHORTEST` characters. The length is for rules and tables (`-----`,
  `| | |`), zeros in numbers and hashes, rows of `null` and other short repetition that is meant.

Loops that count ("item 1, item 2") or change a little each time are no exact repetition and not seen.

Rates at the defaults. False alarms: none in 400 advisories in Markdown, their gold records in three JSON layouts, and
the 41 recorded answers that ended by themselves; in Python source, 6 of 168 modules of the standard library, all for
their alignment (`repetition.whitespace`). Found: 7 of the 19 recorded answers that ran into `max_tokens`; the others
count, vary, or had not yet repeated themselves eight times after 400 tokens.

Text is looked at in steps of `STEP` characters from its start, so a verdict does not depend on how a stream is cut, and
comes at most that many characters late. The work per step is bounded by the window of `min_repeats * max_period`.
"""

from __future__ import annotations

import re
from typing import Final, Literal

from pydantic import field_validator, model_validator

from streamguard.events import Delta, DeltaKind, Event
from streamguard.guards.base import AttemptContext, BaseWatch, Mode, Spec
from streamguard.guards.knobs import Ceiling, Count
from streamguard.verdict import Trip, Where

STEP: Final = 64
"""Characters between looks."""

SHORTEST: Final = 256
"""Characters that a loop must have lasted: about 85 tokens, where loops that were reported ran for 30,000 and more."""

MOST_WINDOW: Final = 20_000
"""Characters that are kept at the most."""

_KEY: Final = 32
"""Characters at the text's end that are looked up before it: where they stand again, a loop may have its period."""

_TRIES: Final = 16
"""Candidates for the period per look. Ends such as `-----` stand again everywhere; a later look has another end."""

_SPARE: Final = SHORTEST // STEP - 1
_SPARE_REPEATS: Final = 8
"""Where the key does not stand again, no loop ends within the next three steps. A loop of period p lasts 8 p
characters and at least 256. At each of its last four looks the key stands one period before, because 3 STEP + KEY + p
is no more than that. Fewer repeats than eight do not allow it."""


class Repetition(Spec):
    """When an answer counts as a loop; `None` turns a sign off.

    ```python
    Repetition(max_whitespace=64, max_period=200, min_repeats=8)
    ```
    """

    max_whitespace: Ceiling = 64
    """Whitespace characters in a row."""
    max_period: Ceiling = 200
    """The longest unit of a loop, in characters."""
    min_repeats: Count = 8
    """How often a unit stands in a row in a loop."""
    where: Literal["text", "thinking", "tool_input", "any"] = "any"
    """Which output is watched. With `any` each kind is a text of its own."""
    mode: Mode | None = None

    @field_validator("min_repeats")
    @classmethod
    def _more_than_twice(cls, repeats: int) -> int:
        if repeats < 3:
            raise ValueError(f"min_repeats must be 3 or more, not {repeats}: saying something twice is no loop")
        return repeats

    @model_validator(mode="after")
    def _bounded(self) -> Repetition:
        if self.min_repeats < 3:
            raise ValueError(
                f"min_repeats must be 3 or more, not {self.min_repeats}: saying something twice is no loop"
            )
        if (self.max_period or 0) * self.min_repeats > MOST_WINDOW:
            raise ValueError(
                f"max_period times min_repeats must be {MOST_WINDOW} characters or less, not "
                f"{self.max_period} x {self.min_repeats}: so much text is kept to compare"
            )
        if (self.max_whitespace or 0) > MOST_WINDOW:
            raise ValueError(f"max_whitespace must be {MOST_WINDOW} or less, not {self.max_whitespace}")
        return self

    @property
    def name(self) -> str:
        return "repetition"

    def watch(self, ctx: AttemptContext, now: float) -> RepetitionWatch:
        """Return the state for one attempt.

        :param ctx: what is known of the attempt: its request and model.
        :param now: seconds on the running loop\'s clock.
        """
        return RepetitionWatch(self)


class RepetitionWatch(BaseWatch):
    """The ends of the texts of one attempt."""

    wants = (Delta,)

    def __init__(self, spec: Repetition) -> None:
        kinds: tuple[DeltaKind, ...] = ("text", "thinking", "tool_input") if spec.where == "any" else (spec.where,)
        self._texts = {kind: _Text(spec, kind) for kind in kinds}

    def feed(self, event: Event, now: float) -> Trip | None:
        if type(event) is Delta:
            text = self._texts.get(event.kind)
            if text is not None:
                piece = event.text
                text.pieces.append(piece)
                waiting = text.waiting = text.waiting + len(piece)
                if waiting >= STEP:
                    return text.look(event.index)
        return None


class _Text:
    """The end of one kind of text."""

    def __init__(self, spec: Repetition, kind: str) -> None:
        self._spec = spec
        self._kind = kind
        self.pieces: list[str] = []
        self.waiting = 0
        """Characters in `pieces`."""
        self._tail = ""
        self._seen = 0
        """Characters looked at so far."""
        blanks = spec.max_whitespace
        self._blanks = None if blanks is None else re.compile(rf"(?<!\s)\s{{{blanks + 1}}}")
        self._overlap = blanks or 0
        self._spare = _SPARE if spec.min_repeats >= _SPARE_REPEATS else 0
        self._rest = 0
        """Steps at which no loop can be found yet."""
        self._window = max((spec.max_period or 0) * spec.min_repeats, SHORTEST, self._overlap)

    def look(self, block: int) -> Trip | None:
        """Look at every whole step that is there."""
        new = "".join(self.pieces)
        whole = len(new) - len(new) % STEP
        text = self._tail + new[:whole]
        longest = self._spec.max_period
        for end in range(len(self._tail) + STEP, len(text) + 1, STEP):
            self._seen += STEP
            # So many blanks in a row are either in this step or began before it.
            if self._blanks is not None:
                start = max(0, end - STEP - self._overlap)
                if (self._overlap < STEP or text[end - STEP - 1 : end - STEP].isspace()) and self._blanks.search(
                    text[start:end]
                ):
                    return self._whitespace(block)
            if longest is not None and end >= SHORTEST:
                if self._rest:
                    self._rest -= 1
                elif (period := self._period(text, end, longest)) is not None:
                    return self._loop(period, block)
        self._tail = text[-self._window :]
        self.pieces[:] = (new[whole:],) if whole < len(new) else ()
        self.waiting = len(new) - whole
        return None

    def _period(self, text: str, stop: int, longest: int) -> int | None:
        """The period of the loop that ends before `stop`."""
        end = stop - _KEY
        first = max(0, end - longest)
        key = text[end:stop]
        # Searching forwards costs a third of searching backwards, and most looks find nothing.
        if text.find(key, first, stop - 1) < 0:
            self._rest = self._spare
            return None
        place = text.rfind(key, first, stop - 1)
        for _ in range(_TRIES):
            if place < 0:
                return None
            period = end - place
            begin = stop - self._length(period)
            if begin >= 0 and text[begin + period : stop] == text[begin : stop - period]:
                return period
            place = text.rfind(key, first, place + _KEY - 1)
        return None

    def _length(self, period: int) -> int:
        """How long a loop of a period must have lasted."""
        return max(self._spec.min_repeats * period, SHORTEST)

    def _whitespace(self, block: int) -> Trip:
        limit = self._spec.max_whitespace
        return Trip(
            reason="repetition.whitespace",
            message=f"more than {limit} whitespace characters in a row in {self._kind}"
            f" (repetition.max_whitespace is {limit})",
            knob="repetition.max_whitespace",
            limit=limit,
            observed=(limit or 0) + 1,
            where=Where(block=block, char=self._seen),
            guard="repetition",
        )

    def _loop(self, period: int, block: int) -> Trip:
        repeats = self._length(period) // period
        return Trip(
            reason="repetition.loop",
            message=f"{self._kind} repeats the same {period} character{'s' * (period > 1)} {repeats} times in a row"
            f" (repetition.min_repeats is {self._spec.min_repeats}, and at least {SHORTEST} characters)",
            knob="repetition.min_repeats",
            limit=self._spec.min_repeats,
            observed=repeats,
            where=Where(block=block, char=self._seen),
            guard="repetition",
        )
