"""The demo's documents: short invoices as text, what is to be found in each, and the schema of that.

Made up by a seed, so that nothing has to be downloaded and every run has the same ones. In charge of nothing else: it
knows no model.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from typing import Any, Final

import msgspec

CURRENCIES: Final = ("EUR", "USD", "GBP", "CHF", "SEK")
CATEGORIES: Final = ("office", "travel", "software", "hardware", "services", "freight")

SCHEMA: Final[Mapping[str, Any]] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Invoice",
    "type": "object",
    "additionalProperties": False,
    "required": ["number", "supplier", "issued", "currency", "category", "lines", "total", "note"],
    "properties": {
        "number": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{5}$"},
        "supplier": {"type": "string", "minLength": 1, "maxLength": 80},
        "issued": {"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"},
        "currency": {"enum": list(CURRENCIES)},
        "category": {"enum": list(CATEGORIES)},
        "lines": {
            "type": "array",
            "minItems": 1,
            "maxItems": 8,
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["what", "quantity", "price"],
                "properties": {
                    "what": {"type": "string", "minLength": 1, "maxLength": 80},
                    "quantity": {"type": "integer", "minimum": 1},
                    "price": {"type": "number", "minimum": 0},
                },
            },
        },
        "total": {"type": "number", "minimum": 0},
        "note": {"type": ["string", "null"], "maxLength": 240},
    },
}
"""What every answer has to satisfy."""


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """One invoice."""

    id: str
    text: str
    record: Mapping[str, Any]
    """What is to be found in it."""


_SUPPLIERS: Final = (
    *("Alder & Finch Ltd", "Brückner Logistik GmbH", "Cobalt Systems Inc.", "Dupont-Lévêque SARL", "Ekström AB"),
    *("Fairweather Travel", "Grünwald Bürobedarf", "Harbour Street Print", "Ingots & Iron", "Jura Instruments SA"),
)
_THINGS: Final[Mapping[str, tuple[str, ...]]] = {
    "office": ("copy paper A4", "toner black", "desk lamp", "ring binders", "whiteboard markers"),
    "travel": ("rail fare Basel to Lyon", "hotel night", "airport transfer", "city tax", "seat reservation"),
    "software": ("editor licence, yearly", "build minutes", "storage per TB", "support, silver", "seats, monthly"),
    "hardware": ("27 inch monitor", "docking station", "NVMe disk 2 TB", "patch cable 3 m", "rack shelf"),
    "services": ("translation, per page", "window cleaning", "consulting day", "proof reading", "night watch"),
    "freight": ("pallet Hamburg to Gothenburg", "customs papers", "fuel surcharge", "lift gate", "waiting time"),
}
_NOTES: Final = (
    "Please pay within thirty days and name the number of this invoice with your payment.",
    "Goods remain the property of the supplier until they are paid in full.",
    "Two items of the order are on back order and will follow with an invoice of their own.",
    "The discount that was agreed by telephone has been taken off each line already.",
    None,
)


def documents(count: int, seed: int) -> list[Document]:
    """So many invoices; the same for the same seed, and the first ones the same whatever the count."""
    return [_document(number, random.Random(f"{seed}/document/{number}")) for number in range(1, count + 1)]  # noqa: S311


def _document(number: int, source: random.Random) -> Document:
    category = source.choice(CATEGORIES)
    lines: list[dict[str, Any]] = [
        {"what": what, "quantity": source.randint(1, 24), "price": source.randint(150, 48_000) / 100}
        for what in source.sample(_THINGS[category], source.randint(2, 5))
    ]
    record = {
        "number": f"{source.choice('ABDFGK')}{source.choice('MNRSTX')}-{source.randint(10_000, 99_999)}",
        "supplier": source.choice(_SUPPLIERS),
        "issued": f"2026-{source.randint(1, 10):02}-{source.randint(1, 28):02}",
        "currency": source.choice(CURRENCIES),
        "category": category,
        "lines": lines,
        "total": round(sum(line["quantity"] * line["price"] for line in lines), 2),
        "note": source.choice(_NOTES),
    }
    return Document(id=f"invoice-{number:04}", text=_text(record), record=record)


def _text(record: Mapping[str, Any]) -> str:
    """The invoice as its reader sees it."""
    year, month, day = record["issued"].split("-")
    rows = (
        f"{line['quantity']:>4} x {line['what']:<30} {line['price']:>9.2f} {line['quantity'] * line['price']:>11.2f}"
        for line in record["lines"]
    )
    return "\n".join(
        (
            record["supplier"],
            f"Invoice {record['number']}, {day}.{month}.{year}, for {record['category']}",
            "",
            *rows,
            "",
            f"Total {record['currency']} {record['total']:.2f}",
            *([record["note"]] if record["note"] else []),
        )
    )


def answer(record: Mapping[str, Any]) -> str:
    """A record as a model writes it."""
    return json.dumps(record, ensure_ascii=False, indent=1)


def prompt(document: Document) -> str:
    """What the model is asked: the task, two examples, and the document. For models that were taught to follow
    instructions and for plain ones alike."""
    return f"{_TASK}{''.join(map(_example, _EXAMPLES))}Invoice:\n{document.text}\n\nJSON:\n"


STOP: Final = "\n###"
"""What stands between two examples, and ends an answer."""

_TASK: Final = (
    "Invoices, and the JSON record extracted from each one. Currencies: "
    f"{', '.join(CURRENCIES)}. Categories: {', '.join(CATEGORIES)}. The note is null if there is none.\n\n"
)


def _example(document: Document) -> str:
    return f"Invoice:\n{document.text}\n\nJSON:\n{answer(document.record)}\n{STOP[1:]}\n\n"


_EXAMPLES: Final = tuple(_document(0, random.Random(f"example/{number}")) for number in (1, 6))  # noqa: S311
