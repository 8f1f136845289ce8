"""An invoice with every kind of check, and answers that break one of them, by a seed."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from datetime import date
from decimal import Decimal
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationInfo, field_validator, model_validator


class Line(BaseModel):
    description: str = Field(min_length=1, max_length=40)
    qty: int = Field(ge=0, le=1000)
    price: Decimal
    amount: Decimal

    @model_validator(mode="after")
    def _multiplies(self) -> Line:
        if self.qty * self.price != self.amount:
            raise ValueError(f"{self.qty} times {self.price} is not {self.amount}")
        return self


class Invoice(BaseModel):
    number: str = Field(pattern=r"^[A-Z]{2}-\d{4}$")
    kind: Literal["invoice", "credit"]
    date: date
    due: date
    iban: str
    currency: str = Field(min_length=3, max_length=3)
    lines: list[Line] = Field(min_length=1, max_length=30)
    total: Decimal

    @field_validator("iban")
    @classmethod
    def _of_a_bank(cls, value: str) -> str:
        if not value.startswith("DE") or len(value) != 22:
            raise ValueError("not an IBAN of this country")
        return value

    @field_validator("currency", mode="before")
    @classmethod
    def _symbol(cls, value: Any) -> Any:
        if value == "?":
            raise ValueError("no such currency")
        return {"€": "EUR", "$": "USD"}.get(value, value) if isinstance(value, str) else value

    @field_validator("due")
    @classmethod
    def _after_date(cls, value: date, info: ValidationInfo) -> date:
        if value < info.data["date"]:
            raise ValueError("due before its date")
        return value

    @model_validator(mode="after")
    def _adds_up(self) -> Invoice:
        if sum(line.amount for line in self.lines) != self.total:
            raise ValueError("the lines do not add up to the total")
        return self


def good(chance: random.Random) -> dict[str, Any]:
    """An invoice that is right."""
    lines = []
    for number in range(chance.randint(3, 12)):
        qty, price = chance.randint(1, 20), chance.randint(1, 400) / 4
        lines.append({"description": f"item {number}", "qty": qty, "price": price, "amount": qty * price})
    return {
        "number": f"AB-{chance.randint(1000, 9999)}",
        "kind": chance.choice(["invoice", "credit"]),
        "date": "2026-03-01",
        "due": f"2026-04-{chance.randint(10, 28)}",
        "iban": f"DE{chance.randint(10**19, 10**20 - 1)}",
        "currency": chance.choice(["EUR", "€"]),
        "lines": lines,
        "total": sum(line["amount"] for line in lines),
    }


def _line(change: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any], random.Random], None]:
    return lambda invoice, chance: change(chance.choice(invoice["lines"]))


BREAKS: dict[str, Callable[[dict[str, Any], random.Random], Any]] = {
    "type: list for text": lambda invoice, _: invoice.update(number=["AB-1234"]),
    "type: word for a number": _line(lambda line: line.update(qty="two")),
    "type: fraction for a whole number": _line(lambda line: line.update(qty=2.5)),
    "missing in a line": _line(lambda line: line.pop("qty")),
    "constraint: below the least": _line(lambda line: line.update(qty=-1)),
    "constraint: too long": _line(lambda line: line.update(description="x" * 41)),
    "constraint: pattern": lambda invoice, _: invoice.update(number="ab1234"),
    "constraint: no items": lambda invoice, _: invoice.update(lines=[]),
    "literal": lambda invoice, _: invoice.update(kind="bill"),
    "unreadable date": lambda invoice, _: invoice.update(date="the first of March"),
    "field validator": lambda invoice, _: invoice.update(iban="FR7630006000011234567890189"),
    "before validator": lambda invoice, _: invoice.update(currency="?"),
    "cross-field validator": lambda invoice, _: invoice.update(due="2026-02-01"),
    "model validator of a line": _line(lambda line: line.update(amount=line["amount"] + 1)),
    "model validator of the whole": lambda invoice, _: invoice.update(total=invoice["total"] + 1),
}
"""What is broken → how."""


def bad_answers(count: int, seed: int = 0) -> Iterator[tuple[str, str, str]]:
    """What is broken, the bad answer, and the good one that it was made of."""
    names = list(BREAKS)
    for number in range(count):
        chance = random.Random(f"{seed} {number}")
        name = names[number % len(names)]
        invoice = good(chance)
        broken = copy.deepcopy(invoice)
        BREAKS[name](broken, chance)
        yield name, json.dumps(broken, ensure_ascii=False), json.dumps(invoice, ensure_ascii=False)
