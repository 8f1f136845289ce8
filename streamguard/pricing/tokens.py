"""Text to tokens, while the provider has not counted yet.

The provider says how many tokens an answer took once, at its end. Until then this file estimates: text has a *weight*,
from the classes of its characters, and the weight becomes tokens by a scale that is learned, per model,
from completed answers whose usage is exact. Everything here is an estimate and is called one wherever it is shown.

Pure: `Calibration` is the one mutable thing, kept by the `Runtime`; an attempt gets a frozen `TokenScale`.
"""

from __future__ import annotations

import math
import re
import statistics
from collections import OrderedDict, deque
from typing import Final

import msgspec


class TokenScale(msgspec.Struct, frozen=True):
    """Tokens per unit of weight: a low, a middle and a high value, for one model.

    The defaults are the prior, for a model nobody has seen. They hold with room for every answer of 60 streams recorded
    from a small model and for samples of prose, JSON, code, hashes, base64 and fifteen languages under the one
    tokenizer that Anthropic has published: ratios from 0.69 (English in capitals) to 1.72 (base64). Under the newer
    ones, by a reconstruction (`ctok` 1.3.0), English comes to 1.6 and base64 to 2.3.
    """

    low: float = 0.6
    """Fewer tokens are all but impossible."""
    mid: float = 1.0
    """For display."""
    high: float = 2.5
    """More tokens are all but impossible, hidden thinking aside."""
    samples: int = 0
    """Completed answers it was learned from; 0 for the prior."""


CALL_FRAMING: Final = 30.0
"""Weight of a tool call beside its name and its input: marks around it that no event shows, and which are billed.
Measured on 26 recorded answers of the API with calls: 16 to 69 tokens a call, mostly 32 to 48. With these, the ratios
of all 26 are 0.67 to 1.52, as those of text are (0.85 to 1.41); without them, they are 1.2 to 33."""

_UNIT: Final = 64
"""Weights are whole 64ths of a token: they fit a byte, and sums of them are exact in a float."""

_CLASSES: Final[tuple[tuple[int, int, float], ...]] = (
    (0x00, 0x1F, 1.0),  # control characters
    (0x09, 0x0D, 0.6),  # line ends and tabs: mostly one token with the indentation behind it
    (0x20, 0x20, 0.06),  # a space goes into the token of the word behind it
    (0x21, 0x7F, 0.6),  # punctuation; narrowed by the next three
    (0x30, 0x39, 0.65),  # digits: one to three to a token
    (0x41, 0x5A, 0.5),  # capitals: names in code, hashes, base64
    (0x61, 0x7A, 0.25),  # small letters
    (0x80, 0xBF, 0.0),  # second and later bytes: a character is weighed by its first
    (0xC0, 0xCD, 0.95),  # accented Latin, combining marks: they break words up
    (0xCE, 0xCF, 1.2),  # Greek
    (0xD0, 0xD5, 0.6),  # Cyrillic, Armenian
    (0xD6, 0xDF, 1.1),  # Hebrew, Arabic and their neighbours
    (0xE0, 0xE0, 1.6),  # scripts of India, Thai, Lao
    (0xE1, 0xE1, 1.6),  # Georgian, Ethiopic, Khmer and others
    (0xE2, 0xE2, 1.2),  # typographic signs, arrows, box drawing
    (0xE3, 0xE9, 1.15),  # kana, Chinese characters
    (0xEA, 0xED, 1.3),  # Hangul; surrogates
    (0xEE, 0xEF, 1.6),  # private use, full width forms, variation selectors
    (0xF0, 0xFF, 2.4),  # emoji and everything beyond the basic plane
)
"""First byte of a character in UTF-8, from, to (included), and tokens. Later rows win.

Fitted by hand so that medians of the samples named at `TokenScale` lie near 1: prose 0.97, indented JSON 1.02 to 1.06,
dense JSON 0.83, code 0.89, numbers 0.9 to 1.0, Chinese 0.96, Korean 1.03, Russian 0.99, German 1.18, Turkish 1.41,
UUIDs 1.32, base64 1.64, emoji 1.02."""


def _table() -> bytes:
    table = bytearray(256)
    for first, last, tokens in _CLASSES:
        for byte in range(first, last + 1):
            table[byte] = round(tokens * _UNIT)
    return bytes(table)


_TABLE: Final = _table()


_SLICE: Final = 262_144


def weigh(text: str) -> float:
    """The weight of a text: about its number of tokens, before any calibration.

    Linear, about 10 ns a character. The same however a text is cut into pieces, but for runs of blanks: four in a row
    weigh as one, so pieces weigh as much as the whole or a little more. Lone surrogates are weighed, not refused.
    """
    return weigh_bytes(text.encode("utf-8", "surrogatepass"))


def weigh_least(text: str) -> float:
    """The weight of a text in which runs of one sign or letter count as one: some tokens take a hundred of them in."""
    return weigh(_RUNS.sub(r"\1", text))


_RUNS: Final = re.compile(r"([\x00-\x7f\u2000-\u2bff\u3000\uff00-\uff0f])\1{3,}")


def weigh_bytes(data: bytes) -> float:
    """The weight of a text in UTF-8. In slices, so that a thread that weighs megabytes lets others have their turn."""
    return sum(_weigh(data[at : at + _SLICE]) for at in range(0, len(data), _SLICE)) / _UNIT


def _weigh(data: bytes) -> int:
    return sum(data.replace(b"    ", b" ").replace(b"\n\n\n\n", b"\n").translate(_TABLE))


class Calibration:
    """What completed answers taught about each model's tokens: the last `window` ratios of at most `models` models.

    A fact about models, not about calls: one `Runtime` holds one for all its calls on one event loop.
    """

    SMALLEST: Final = 16.0
    """Lighter answers are left out: a token or two of framing would be a large part of them."""
    ENOUGH: Final = 8
    """With fewer samples a scale contains the prior's; from here on it may be narrower."""
    PRIOR_SAMPLES: Final = 2
    """The prior's middle counts as much as that many samples."""

    def __init__(self, *, window: int = 256, models: int = 64, prior: TokenScale | None = None) -> None:
        self._window = window
        self._models = models
        self._prior = prior or TokenScale()
        self._ratios: OrderedDict[str, deque[float]] = OrderedDict()
        self._scales: dict[str, TokenScale] = {}

    def observe(self, model: str | None, weighed: float, tokens: int) -> None:
        """Learn from one completed answer.

        :param weighed: `weigh` of all its visible output.
        :param tokens: the provider's own count of that same output. An answer with thinking that may be hidden or
            summarised must not be given, nor one that was cut off.
        """
        if model is None or not (self.SMALLEST <= weighed < math.inf) or tokens <= 0:
            return
        self._ratios.setdefault(model, deque(maxlen=self._window)).append(tokens / weighed)
        self._ratios.move_to_end(model)
        self._scales.pop(model, None)
        if len(self._ratios) > self._models:
            forgotten, _ = self._ratios.popitem(last=False)
            self._scales.pop(forgotten, None)

    def scale(self, model: str | None) -> TokenScale:
        """The scale for a model: the prior for one without samples.

        `mid` is the median, drawn to the prior by `PRIOR_SAMPLES`. `low` and `high` are the extremes of the window,
        which the next answer leaves with a probability of 2 in n + 1; a margin of 1.2 + 0.8 / n is for those.
        """
        if model is None or model not in self._ratios:
            return self._prior
        if model not in self._scales:
            self._scales[model] = self._learned(sorted(self._ratios[model]))
        return self._scales[model]

    def _learned(self, ratios: list[float]) -> TokenScale:
        n = len(ratios)
        margin = 1.2 + 0.8 / n
        low, high = ratios[0] / margin, ratios[-1] * margin
        trust = n / (n + self.PRIOR_SAMPLES)
        mid = statistics.median(ratios) ** trust * self._prior.mid ** (1 - trust)
        if n < self.ENOUGH:
            low, high = min(low, self._prior.low), max(high, self._prior.high)
        return TokenScale(low=min(low, mid), mid=mid, high=max(high, mid), samples=n)
