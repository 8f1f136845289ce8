"""A simulated model: what a provider would answer about the demo's documents, good and bad, by a seed.

In charge of the answers and of what goes wrong with them: scripts for the scripted server, which plays them over
sockets, counts what it makes and bills it. It knows no client.

What goes wrong with the *answers* comes in the proportions of 120 streams recorded from a small model (270 million
parameters, short extraction jobs); how often, and what goes wrong with the *service*, is set here so that about one
answer in five is bad. Each attempt is drawn anew: a document has no memory of the last one.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from streamguard.demo.documents import CATEGORIES, CURRENCIES, Document, answer, prompt
from streamguard.demo.wrong_values import WRONG, wrong
from streamguard.testing import wire
from streamguard.testing.record import Exchange
from streamguard.testing.scripted import Script
from streamguard.testing.server import ScriptedServer
from streamguard.testing.steps import Item, error, fin, pace, pause, rst, stall, status, truth

MAX_TOKENS: Final = 1024
"""What the demo's requests allow. A loop runs up to it."""

CHARACTERS_PER_TOKEN: Final = 2.8
"""Of JSON; measured on the recorded streams."""

DELTA_CHARACTERS: Final = 14
"""Of one event: five tokens, as in recorded streams of large models. Sixteen a second are 80 tokens a second."""

TICK: Final = 1 / 16
"""Seconds: everything the provider does happens on this grid (at the rates above a delta a tick), so that a simulated
clock has few moments to stop at. Binary, so that sums of it are exact."""

FIRST_TOKEN: Final = (0.7, 0.45)
"""Seconds to the first token: the median, and the spread of its logarithm."""

LAG_TOKENS: Final = 8
"""Made after the client has gone and before the model notices: a tenth of a second's worth. They are billed."""

MOST_ATTEMPTS: Final = 12
"""Of one document, that are different from each other."""

BAD_ANSWERS: Final = 0.16
"""Of all attempts: the answer is bad. What is bad about it is in `ANSWER_FAULTS`."""


class Mix(msgspec.Struct, frozen=True, kw_only=True):
    """How much goes wrong."""

    bad_answers: float = BAD_ANSWERS
    """Share of all attempts whose answer is bad."""
    wrong_values: float = 0.0
    """Share of the other attempts whose answer is valid and wrong: see `wrong_values`."""
    bad_service: bool = True
    """Whether attempts are refused, stall and break off."""


USUAL: Final = Mix()


def bad_service(source: random.Random) -> list[Item] | None:
    """An attempt that is turned down before it begins; `None` for nearly all."""
    draw = source.random()
    for share, items in _REFUSALS:
        if draw < share:
            return [error(**items)]
        draw -= share
    return None


_REFUSALS: Final[Sequence[tuple[float, Mapping[str, Any]]]] = (
    (0.010, {"type": "rate_limit_error", "headers": {"retry-after": "3"}}),
    (0.015, {"type": "overloaded_error"}),
)
"""Shares of all attempts: 429 with a wait, 529 without."""

_BREAKS: Final[Sequence[tuple[float, Callable[[], list[Item]]]]] = (
    (0.010, lambda: [stall()]),
    (0.010, lambda: [rst()]),
    (0.005, lambda: [fin()]),
    (0.005, list),
)
"""Shares of all attempts: it stalls, is reset, closes in the middle of a chunk, or ends in good order without
`message_stop`, which the SDK takes for a whole answer."""


class Spoken(msgspec.Struct, frozen=True):
    """What the model says."""

    text: str
    stop_reason: str = "end_turn"

    @property
    def tokens(self) -> int:
        """Of all of it."""
        return math.ceil(len(self.text) / CHARACTERS_PER_TOKEN)


Record = Mapping[str, Any]
Damage = Callable[[Record, random.Random], Spoken]


def _lines(record: Record, pattern: str, source: random.Random) -> tuple[list[str], int]:
    """The answer's lines, and the place of one that matches."""
    lines = answer(record).split("\n")
    return lines, source.choice([place for place, line in enumerate(lines) if re.fullmatch(pattern, line)])


def _missing_comma(record: Record, source: random.Random) -> Spoken:
    lines, place = _lines(record, r' +".*": .*[^{\[,],', source)
    return Spoken("\n".join([*lines[:place], lines[place].removesuffix(","), *lines[place + 1 :]]))


def _missing_comma_in_array(record: Record, source: random.Random) -> Spoken:
    lines, place = _lines(record, r" +},", source)
    return Spoken("\n".join([*lines[:place], lines[place].removesuffix(","), *lines[place + 1 :]]))


def _raw_newline(record: Record, source: random.Random) -> Spoken:
    lines, place = _lines(record, r' +"\w+": ".* .*",?', source)
    name, _, value = lines[place].partition(": ")
    spaces = [at for at, character in enumerate(value) if character == " "]
    at = source.choice(spaces)
    lines[place] = f"{name}: {value[:at]}\n{value[at + 1 :]}"
    return Spoken("\n".join(lines))


def _trailing_comma(record: Record, _: random.Random) -> Spoken:
    return Spoken(answer(record).removesuffix("\n}") + ",\n}")


def _text_after(record: Record, _: random.Random) -> Spoken:
    return Spoken(answer(record) + "\n\nThe total was checked against the sum of the lines.")


_NEAR: Final[Mapping[str, tuple[tuple[str, ...], ...]]] = {
    "currency": (CURRENCIES, ("€", "US$", "Euro", "kr", "Pounds")),
    "category": (CATEGORIES, ("supplies", "transport", "equipment", "licences", "consulting", "other")),
}


def _wrong_enum(record: Record, source: random.Random) -> Spoken:
    field = source.choice(sorted(_NEAR))
    return Spoken(answer({**record, field: source.choice(_NEAR[field][1])}))


def _required_missing(record: Record, source: random.Random) -> Spoken:
    gone = source.choice(sorted(record))
    return Spoken(answer({name: value for name, value in record.items() if name != gone}))


def _too_many(record: Record, source: random.Random) -> Spoken:
    lines = [line for line in record["lines"] for _ in range(9)]
    return Spoken(answer({**record, "lines": lines[: source.randint(9, 14)]}))


def _unknown_key(record: Record, source: random.Random) -> Spoken:
    return Spoken(answer({**record, "vat_id": f"DE{source.randint(10**8, 10**9 - 1)}"}))


def _loop(record: Record, source: random.Random) -> Spoken:
    """From some element of the list on, the same one over and over."""
    lines, place = _lines(record, r" +},", source)
    again = "\n".join(lines[place - 4 : place + 1]) + "\n"
    start = "\n".join(lines[: place + 1]) + "\n"
    most = math.floor(MAX_TOKENS * CHARACTERS_PER_TOKEN)
    return Spoken((start + again * (most // len(again) + 1))[:most], "max_tokens")


ANSWER_FAULTS: Final[Mapping[str, tuple[int, Damage]]] = {
    "a comma missing after a member": (20, _missing_comma),
    "a comma missing in an array": (13, _missing_comma_in_array),
    "a raw newline in a string": (14, _raw_newline),
    "a comma too many": (1, _trailing_comma),
    "text after the answer": (1, _text_after),
    "no value of the enum": (55, _wrong_enum),
    "a required name missing": (8, _required_missing),
    "too many items": (6, _too_many),
    "an unknown name": (1, _unknown_key),
    "a loop to max_tokens": (14, _loop),
}
"""What is wrong with bad answers, how often it was among the recorded streams, and how it is done."""


def spoken(
    record: Record, source: random.Random, bad_answers: float = BAD_ANSWERS, wrong_values: float = 0.0
) -> Spoken:
    """What the model says about a document this time."""
    if source.random() >= bad_answers:
        made = None
        if wrong_values and source.random() < wrong_values:
            made = wrong(record, source.choice(list(WRONG)), source)
        return Spoken(answer(record if made is None else made))
    damages = [damage for _, damage in ANSWER_FAULTS.values()]
    return source.choices(damages, [count for count, _ in ANSWER_FAULTS.values()])[0](record, source)


def attempt(document: Document, number: int, seed: int, mix: Mix = USUAL) -> list[Item]:
    """What the provider does on one attempt at a document: the same for the same seed."""
    source = random.Random(f"{seed}/{document.id}/{number}")  # noqa: S311
    if (refusal := bad_service(source)) is not None and mix.bad_service:
        return refusal
    said = spoken(document.record, source, mix.bad_answers, mix.wrong_values)
    tokens = said.tokens
    asked = math.ceil(len(prompt(document)) / CHARACTERS_PER_TOKEN)
    seconds = source.lognormvariate(math.log(FIRST_TOKEN[0]), FIRST_TOKEN[1])
    ticks = max(2, round(seconds / TICK))
    deltas = [wire.text_delta(piece, style=wire.REAL) for piece in wire.pieces(said.text, DELTA_CHARACTERS)]
    end: list[Item] = [
        wire.block_stop(style=wire.REAL),
        wire.message_delta(said.stop_reason, usage={"output_tokens": said.tokens}, style=wire.REAL),
        wire.message_stop(style=wire.REAL),
    ]
    draw = source.random()
    for share, broken in _BREAKS if mix.bad_service else ():
        if draw < share:
            del deltas[source.randrange(1, len(deltas)) :]
            end = broken()
            tokens = min(tokens, math.ceil(len(deltas) * DELTA_CHARACTERS / CHARACTERS_PER_TOKEN))
            break
        draw -= share
    return [
        truth(input=asked, output=tokens, lag=LAG_TOKENS),
        pause((ticks - 1) * TICK),
        status(),
        wire.message_start(usage={"input_tokens": asked}, style=wire.REAL),
        wire.block_start(style=wire.REAL),
        wire.ping(),
        pause(TICK),
        pace(1 / TICK),
        *deltas,
        pace(None),
        *end,
    ]


def simulated(documents: Sequence[Document], seed: int, mix: Mix = USUAL) -> ScriptedServer:
    """A server of the simulated model. It tells the documents by what it is asked; the n-th request about a document
    gets the same answer whoever asks."""
    by_prompt = {prompt(document): document for document in documents}
    scripts: dict[str, Script] = {}

    def choose(exchange: Exchange) -> Script:
        document = by_prompt[exchange.body["messages"][0]["content"]]
        if document.id not in scripts:
            numbers = range(1, MOST_ATTEMPTS + 1)
            scripts[document.id] = Script.of(*(attempt(document, number, seed, mix) for number in numbers))
        return scripts[document.id]

    return ScriptedServer(script_for=choose)


def in_full(exchange: Exchange) -> int:
    """Output tokens of a request if a provider made, and billed, every answer to its end, whoever has gone."""
    whole = exchange.facts.truth.output if exchange.facts is not None and exchange.facts.truth is not None else None
    return exchange.bill.output_tokens if whole is None else whole
