"""`python -m bench.grounding [cost|numbers|invented]`: what grounded values cost, and what they catch.

* `cost`: microseconds of CPU for four characters of a value, and milliseconds to put a source into its form.
* `numbers`: invoices in five formats; right amounts refused, wrong ones refused.
* `invented`: the demo's invoices, answered rightly and with one value made up; what is caught, and how much of the
  answer is read by then.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

from streamguard.demo.documents import SCHEMA, answer, documents
from streamguard.demo.wrong_values import WRONG, wrong
from streamguard.events import Delta, Stopped
from streamguard.files.frozen_json import FrozenJson
from streamguard.guards.base import AttemptContext
from streamguard.guards.document.guard import JsonDocument
from streamguard.guards.grounding.normal_form import normal_form
from streamguard.guards.grounding.numbers import Numbers
from streamguard.guards.grounding.search import Search
from streamguard.guards.grounding.source import SourceTexts
from streamguard.guards.grounding.spec import Grounded
from streamguard.verdict import Trip

USUAL = ("case", "dashes", "quotes", "space")
WORDS = {
    "ASCII": "Invoice from Acme Sons Ltd for the total amount payable within days after receipt of goods",
    "latin": "Rechnung über Straße Café façade naïve Müller Söhne größer élève",
    "Cyrillic": "Счёт фактура общество ограниченной ответственностью сумма итого",
    "Chinese": "发票 金额 公司 有限 总计 北京市 合同 编号",
    "aaaa…": "aaaaaaaaaaaaaaaa",
}


def cost() -> None:
    """Print the cost of values and of sources, by kind of text."""
    form = normal_form(USUAL)
    print("text       characters  µs per 4 characters  build ms")
    for name, words in WORDS.items():
        for size in (1_000, 50_000, 1_000_000):
            text = _prose(words.split(), size)
            built, build = _timed(lambda text=text: form.whole(text))  # type: ignore[misc]
            begin = max(0, size // 2 - 10_000)
            value = text[begin : begin + 20_000]
            pieces = [value[at : at + 4] for at in range(0, len(value), 4)]
            _, spent = _timed(lambda built=built, pieces=pieces: _looked_for(built, pieces))  # type: ignore[misc]
            print(f"{name:10} {size:10,}  {spent / len(pieces) * 1e6:19.2f}  {build * 1e3:8.1f}")
    dense = _dense(1_000_000)
    _, spent = _timed(lambda: Numbers(dense), 2)
    plain = _prose([*WORDS["ASCII"].split(), "1,234.50"], 1_000_000)
    _, usual = _timed(lambda: Numbers(plain), 2)
    print(f"numbers of 1 MB: {spent * 1e3:.0f} ms of nothing but different numbers, {usual * 1e3:.0f} ms of prose")


def _prose(words: list[str], size: int) -> str:
    rng, parts, length = random.Random(3), [], 0
    while length < size:
        word = rng.choice(words) + (str(rng.randint(0, 999)) if rng.random() < 0.3 else "")
        parts += [word, "\n" if rng.random() < 0.08 else " "]
        length += len(word) + 1
    return "".join(parts)[:size]


def _dense(size: int) -> str:
    rng, rows, length = random.Random(2), [], 0
    while length < size:
        amounts = (f"{rng.randint(1, 99_999) / 100:,.2f}", f"{rng.randint(1, 9_999_999) / 100:,.2f}")
        rows.append(f"{rng.randint(1, 99)} {' '.join(amounts)} {rng.randint(1, 10**6)}")
        length += len(rows[-1]) + 1
    return "\n".join(rows)


def _looked_for(source: str, pieces: list[str]) -> None:
    search = Search(source, normal_form(USUAL))
    for piece in pieces:
        assert search.feed(piece) is None


def _timed(call: Callable[[], Any], rounds: int = 4) -> tuple[Any, float]:
    """What a call gives, and the least seconds of CPU that it takes."""
    best, found = float("inf"), None
    for _ in range(rounds):
        began = time.process_time()
        found = call()
        best = min(best, time.process_time() - began)
    return found, best


FORMATS: dict[str, Callable[[Decimal], str]] = {
    "1,234.50": lambda value: f"{value:,.2f}",
    "1.234,50": lambda value: f"{value:,.2f}".translate(str.maketrans(",.", ".,")),
    "1'234.50": lambda value: f"{value:,.2f}".replace(",", "'"),
    "1 234,50": lambda value: f"{value:,.2f}".replace(",", "\u202f").replace(".", ","),
    "1234.50": lambda value: f"{value:.2f}",
}


def numbers() -> None:
    """Print how many right and wrong numbers of 1,000 invoices are refused."""
    right = refused = 0
    wrong: Counter[str] = Counter()
    caught: Counter[str] = Counter()
    for turn in range(1_000):
        rng = random.Random(f"numbers/{turn}")
        write = list(FORMATS.values())[turn % 5]
        lines = [(rng.randint(1, 99), Decimal(rng.randint(100, 500_000)).scaleb(-2)) for _ in range(rng.randint(5, 14))]
        rows = [(quantity, price, quantity * price) for quantity, price in lines]
        total = sum((amount for *_, amount in rows), Decimal(0))
        text = "\n".join(f"{quantity} x Item  {write(price)}  {write(amount)}" for quantity, price, amount in rows)
        found = Numbers(f"Invoice {rng.randint(10_000, 99_999)}\n{text}\nTotal {write(total)} EUR\n")
        values = [value for row in rows for value in row] + [total]
        right += len(values)
        refused += sum(Decimal(value) not in found for value in values)
        for _, _, amount in rows:
            for kind, other in _wrong(amount, total, rng):
                wrong[kind] += 1
                caught[kind] += other not in found
    print(f"{refused} of {right:,} right values refused; wrong ones refused:")
    for kind, count in wrong.items():
        print(f"  {kind:10} {100 * caught[kind] / count:6.2f} % of {count:,}")


def _wrong(amount: Decimal, total: Decimal, rng: random.Random) -> Iterator[tuple[str, Decimal]]:
    digits = list(f"{amount:f}")
    place = rng.choice([at for at, char in enumerate(digits) if char.isdigit()])
    digits[place] = rng.choice([digit for digit in "123456789" if digit != digits[place]])
    yield "digit", Decimal("".join(digits))
    yield "ten times", amount * 10
    yield "100 times", amount * 100
    yield "a 1000th", amount / 1000
    yield "sum + 0.10", total + Decimal("0.10")


ENTRIES = (
    Grounded(at="/number", edges="word"),
    Grounded(at="/supplier"),
    Grounded(at="/issued", as_="date"),
    Grounded(at="/lines/*/what"),
    Grounded(at="/lines/*/price", as_="number"),
    Grounded(at="/total", as_="number"),
    Grounded(at="/note"),
)
INVENTED = [kind for kind in WRONG if kind not in ("a line's quantity", "a line left out", "another category")]
"""What is about a value that may be grounded."""


def invented(right: int) -> None:
    """Print what share of answers with one value made up is ended, and where.

    Args:
        right: How many right answers to hold against their invoices.
    """
    section = JsonDocument(schema=FrozenJson(SCHEMA), grounded=ENTRIES)
    refused = 0
    for document in documents(right, 5):
        refused += _read(section, document.text, answer(document.record), 12)[0] is not None
    print(f"{refused} of {right:,} right answers refused")
    print("one value made up             valid  ended   of the answer read by then")
    schema_only = JsonDocument(schema=FrozenJson(SCHEMA))
    for kind in INVENTED:
        valid = ended = 0
        read = []
        for turn, document in enumerate(documents(1_000, 6)):
            made_up = wrong(document.record, kind, random.Random(f"invented/{kind}/{turn}"))
            if made_up is None:
                continue
            text = answer(made_up)
            valid += _read(schema_only, document.text, text, 12)[0] is None
            trip, share = _read(section, document.text, text, 12)
            if trip is not None:
                assert trip.reason == "json.ungrounded"
                ended += 1
                read.append(share)
        share = f"{100 * sum(read) / len(read):5.0f} %" if read else "    -"
        print(f"{kind:28} {valid:6,} {100 * ended / valid:5.1f} %   {share}")


def _read(section: JsonDocument, source: str, text: str, size: int) -> tuple[Trip | None, float]:
    """The trip of an answer that comes in pieces, and the share of it that was read by then."""
    watch = section.watch(AttemptContext(sources=SourceTexts(source)), 0.0)
    for at in range(0, len(text), size):
        if isinstance(found := watch.feed(Delta(kind="text", index=0, text=text[at : at + size]), 0.0), Trip):
            return found, min(at + size, len(text)) / len(text)
    found = watch.feed(Stopped("end_turn"), 0.0)
    return (found, 1.0) if isinstance(found, Trip) else (None, 1.0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.grounding", description=__doc__)
    parser.add_argument("what", nargs="*", help="cost, numbers, invented; all of them by default")
    parser.add_argument("--right", type=int, default=100_000, help="right answers of `invented` [default: 100,000]")
    options = parser.parse_args()
    for what in options.what or ("cost", "numbers", "invented"):
        {"cost": cost, "numbers": numbers, "invented": lambda: invented(options.right)}[what]()
