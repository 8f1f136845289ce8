"""Wrong answers that a schema allows: a record of an invoice with one value that its invoice does not have.

In charge of the kinds of such mistakes, each made by chance. It knows no guard.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Mapping
from typing import Any, Final

from streamguard.demo.documents import CATEGORIES

Record = dict[str, Any]


def _supplier(record: Record, source: random.Random) -> None:
    record["supplier"] = source.choice(("Acme Corporation", "Globex AG", "Initech Ltd", "Umbra SA"))


def _number(record: Record, source: random.Random) -> None:
    record["number"] = f"{record['number'][:-1]}{(int(record['number'][-1]) + source.randint(1, 9)) % 10}"


def _issued(record: Record, source: random.Random) -> None:
    day = (int(record["issued"][-2:]) + source.randint(0, 26)) % 28 + 1
    record["issued"] = f"{record['issued'][:-2]}{day:02}"


def _what(record: Record, source: random.Random) -> None:
    line = source.choice(record["lines"])
    line["what"] = source.choice(("garden chairs", "coffee beans 1 kg", "annual audit", "hotel breakfast"))


def _price(record: Record, source: random.Random) -> None:
    line = source.choice(record["lines"])
    line["price"] = round(line["price"] + source.randint(1, 900) / 100, 2)


def _quantity(record: Record, source: random.Random) -> None:
    line = source.choice(record["lines"])
    line["quantity"] = line["quantity"] % 24 + 1


def _total(record: Record, source: random.Random) -> None:
    record["total"] = round(record["total"] + source.choice((-1, 1)) * source.randint(1, 999) / 100, 2)


def _note(record: Record, source: random.Random) -> None:
    record["note"] = source.choice(("Delivered in good condition.", "Paid in cash, with thanks."))


def _swapped(record: Record, source: random.Random) -> None:
    first, second = source.sample(record["lines"], 2)
    first["price"], second["price"] = second["price"], first["price"]


def _dropped(record: Record, source: random.Random) -> None:
    record["lines"].remove(source.choice(record["lines"]))


def _category(record: Record, source: random.Random) -> None:
    record["category"] = source.choice([one for one in CATEGORIES if one != record["category"]])


WRONG: Final[Mapping[str, Callable[[Record, random.Random], None]]] = {
    "another company": _supplier,
    "a digit of the number": _number,
    "another day": _issued,
    "a line's text": _what,
    "a line's price": _price,
    "a line's quantity": _quantity,
    "the total": _total,
    "a note where there is none": _note,
    "two lines' prices swapped": _swapped,
    "a line left out": _dropped,
    "another category": _category,
}
"""What is wrong, and how it is done."""


def wrong(record: Mapping[str, Any], kind: str, source: random.Random) -> Record | None:
    """Return the record with one thing wrong; `None` where chance, or the record, left it right.

    :param kind: of `WRONG`.
    """
    changed = copy.deepcopy(dict(record))
    WRONG[kind](changed, source)
    if kind == "a note where there is none" and record["note"] is not None:
        return None
    return None if changed == record else changed
