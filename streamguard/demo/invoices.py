"""Read back what stands in an invoice of `demo.documents`, from whatever prompt the invoice is in. Knows no model."""

from __future__ import annotations

import re
from typing import Any

_HEAD = re.compile(
    r"^(?P<supplier>[^\n]+)\nInvoice (?P<number>[A-Z]{2}-\d{5}), (?P<day>\d\d)\.(?P<month>\d\d)\.(?P<year>\d{4}), "
    r"for (?P<category>\w+)\n",
    re.MULTILINE,
)
_LINE = re.compile(r" *(\d+) x (.+?) +(\d+\.\d\d) +\d+\.\d\d")
_TOTAL = re.compile(r"Total ([A-Z]{3}) (\d+\.\d\d)")


def found(prompt: str) -> dict[str, Any] | None:
    """Return the record of the last invoice in a text; `None` if there is none."""
    heads = list(_HEAD.finditer(prompt))
    if not heads:
        return None
    head = heads[-1]
    rest = prompt[head.end() :].split("\n")
    lines: list[dict[str, Any]] = []
    for place, text in enumerate(rest):
        if (line := _LINE.fullmatch(text)) is not None:
            lines.append({"what": line[2], "quantity": int(line[1]), "price": float(line[3])})
        elif (total := _TOTAL.fullmatch(text)) is not None:
            after = rest[place + 1].strip() if place + 1 < len(rest) else ""
            return {
                "number": head["number"],
                "supplier": head["supplier"],
                "issued": f"{head['year']}-{head['month']}-{head['day']}",
                "currency": total[1],
                "category": head["category"],
                "lines": lines,
                "total": float(total[2]),
                "note": after or None,
            }
    return None
