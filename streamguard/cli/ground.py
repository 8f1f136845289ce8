"""`streamguard check --ground`: which values of one's own data could be grounded, before any policy does.

In charge of reading rows with their right answers, and of the table. Nothing is sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from streamguard.errors import JobError, Problem
from streamguard.guards.grounding.coverage import WAYS, Coverage, add
from streamguard.guards.grounding.source import SourceText
from streamguard.jobs.input.formats import open_input
from streamguard.jobs.input.rows import Row, lines, parse


def notes(name: str, *, text: str, gold: str) -> list[str]:
    """Return the table of a file of rows.

    :param text: the field of a row that has its source; `a.b` for a field of a field.
    :param gold: the field that has the right answer.
    :raises JobError: a row without them.
    """
    found: dict[str, Coverage] = {}
    rows = 0
    with open_input(name) as file:
        for line in lines(file):
            if line.blank:
                continue
            row = parse(line, name)
            if not isinstance(row, Row):
                raise JobError(row)
            source, right = _field(row.data, text), _field(row.data, gold)
            for value, field, kind in ((source, text, str), (right, gold, (dict, list))):
                if not isinstance(value, kind):
                    what = f"no {field!r}, which is to be its {'source' if field == text else 'right answer'}"
                    raise JobError(Problem(file=name, line=line.number, problem=f"the row has {what}"))
            add(found, right, SourceText(source))
            rows += 1
    return [f"{name}: {rows:,} rows; right values that stand in their {text}, in percent", *_table(found)]


def _field(row: Mapping[str, Any], path: str) -> Any:
    value: Any = row
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _table(found: Mapping[str, Coverage]) -> Iterator[str]:
    width = max(map(len, found), default=0)
    ways = [way for way in WAYS if any(one.is_about(way) for one in found.values())]
    yield f"  {'':<{width}}  {'values':>7}  " + "  ".join(f"{way:>5}" for way in ways)
    for at, one in found.items():
        cells = (f"{_share(one, way):>{max(5, len(way))}}" for way in ways)
        yield f"  {at:<{width}}  {one.values:>7,}  " + "  ".join(cells)
    for at, one in found.items():
        yield f"  {at:<{width}}  {_advice(one)}"


def _share(one: Coverage, way: Any) -> str:
    return f"{100 * one.stand[way] / one.values:.1f}" if one.is_about(way) else "-"


def _advice(one: Coverage) -> str:
    way, most = one.best
    if most == one.values:
        return f"could be grounded ({way})"
    lost = one.values - most
    missing = "" if one.missing is None else f", such as {one.missing[:40]!r}"
    return f"not to be grounded: {lost:,} right values of {one.values:,} would be ended{missing}"
