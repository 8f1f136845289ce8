"""`streamguard check --ground`: for one's own data, which values could be grounded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from streamguard.cli.ground import notes
from streamguard.errors import JobError
from streamguard.guards.grounding.coverage import Coverage, add
from streamguard.guards.grounding.source import SourceText
from tests.data import path


def shares(gold: str) -> dict[str, list[str]]:
    """The table of the advisories, by place: the number of values, and the shares."""
    table = notes(str(path("advisories", "advisories.jsonl")), text="text", gold=gold)
    return {line.split()[0]: line.split()[1:] for line in table[2:] if "grounded" not in line}


def test_the_advisories() -> None:
    """What stands in 400 texts as it was recorded, and what does not: packages do, functions do not."""
    gold, source = shares("gold"), shares("source")
    assert gold["/package"] == ["400", *["100.0"] * 5]
    assert gold["/functions/*"] == ["241", *["11.2"] * 5]
    assert source["/title"] == ["400", *["100.0"] * 5, "-"]
    assert source["/date"] == ["400", *["100.0"] * 6]
    assert source["/aliases/*"] == ["478", *["4.6"] * 5, "-"]


def rows(folder: Path, *data: object) -> str:
    (folder / "rows.jsonl").write_text("".join(json.dumps(one) + "\n" for one in data))
    return str(folder / "rows.jsonl")


def test_a_table(tmp_path: Path) -> None:
    """Every way of comparing that is about all values of a place, what to do, and an example of what would be lost."""
    text = "Globex  CORP-\nORATION: “A” 1.234,50 EUR, 2 January 2026"
    name = rows(
        tmp_path,
        {
            "doc": {"body": text},
            "right": {"name": "globex corporation", "sum": 1234.5, "day": "2026-01-02", "no": None},
        },
        {"doc": {"body": text}, "right": {"name": '"A"', "sum": "1,234.50", "day": "2026-01-02", "tags": ["Q", ""]}},
    )
    assert notes(name, text="doc.body", gold="right") == [
        f"{name}: 2 rows; right values that stand in their doc.body, in percent",
        "            values  exact  case, space  + dashes, quotes  + markup  word edges  number   date",
        "  /name          2    0.0          0.0             100.0     100.0       100.0       -      -",
        "  /sum           2      -            -                 -         -           -   100.0      -",
        "  /day           2    0.0          0.0               0.0       0.0         0.0       -  100.0",
        "  /tags/*        1    0.0          0.0               0.0       0.0         0.0       -      -",
        "  /name    could be grounded (word edges)",
        "  /sum     could be grounded (number)",
        "  /day     could be grounded (date)",
        "  /tags/*  not to be grounded: 1 right values of 1 would be ended, such as 'Q'",
    ]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"right": {}}, "the row has no 'text', which is to be its source"),
        ({"text": 5, "right": {}}, "the row has no 'text', which is to be its source"),
        ({"text": "a"}, "the row has no 'right', which is to be its right answer"),
    ],
)
def test_rows_that_cannot_be_counted(tmp_path: Path, row: dict[str, object], problem: str) -> None:
    """With their line."""
    name = rows(tmp_path, {"text": "a", "right": {}}, row)
    with pytest.raises(JobError) as refused:
        notes(name, text="text", gold="right")
    assert str(refused.value) == f"{name}:2: {problem}"


def test_what_is_counted() -> None:
    """Texts, numbers and dates; no booleans, nulls or empty texts."""
    found: dict[str, Coverage] = {}
    add(found, {"a": True, "b": None, "c": "", "d": [1, "1", "x"]}, SourceText("1 x"))
    assert {at: (one.values, one.stand["number"], one.stand["exact"]) for at, one in found.items()} == {
        "/d/*": (3, 2, 2)
    }
