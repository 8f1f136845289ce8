"""Results as columns: the names and types that are added to each row, always all of them, always the same.

In charge of the way from a result line to plain values, and from rows to columns and back. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from streamguard.jobs.store.results import dumps

ADDED: Mapping[str, str] = {
    "output": "string",
    "completed": "string",
    "marked": "string",
    "reason": "string",
    "message": "string",
    "attempts": "int64",
    "input_tokens_low": "int64",
    "input_tokens_high": "int64",
    "output_tokens_low": "int64",
    "output_tokens_high": "int64",
    "cost_micro_usd_low": "int64",
    "cost_micro_usd_high": "int64",
    "fingerprint": "string",
    "asked": "bool",
}
"""The columns that a result adds, each with its type as Arrow names it. Every one may be null."""

PROVIDER_MESSAGE = "provider_message"
"""The column of the provider's whole message as JSON, where it is kept."""


def types(*, keep_message: bool) -> dict[str, str]:
    """Return the added columns with their types."""
    return {**ADDED, **({PROVIDER_MESSAGE: "string"} if keep_message else {})}


def cells(line: bytes, *, asked: bool, keep_message: bool) -> dict[str, Any]:
    """Return the values of the added columns.

    :param line: the result line.
    :param asked: whether this process asked.
    """
    said = json.loads(line)
    result, own = said["result"], said["streamguard"]
    error = (result.get("error") or {}).get("error") or {}
    usage = own.get("usage") or {}
    cost = own.get("cost_usd") or (None, None)
    good = result["type"] == "succeeded"
    marks = own.get("marked") or ()
    found: dict[str, Any] = {
        "output": dumps(own["output"]) if good else None,
        "completed": own.get("completed"),
        "marked": ", ".join(dict.fromkeys(mark["reason"] for mark in marks)) or None,
        "reason": error.get("type") if not good else None,
        "message": _printed("; ".join(mark["message"] for mark in marks)) if good else _printed(error.get("message")),
        "attempts": len(own["attempts"]),
        "fingerprint": own.get("fingerprint"),
        "asked": asked,
    }
    if result["type"] == "canceled":
        found["reason"], found["message"] = "operator.interrupt", "interrupted"
    for name in ("input_tokens", "output_tokens"):
        found[f"{name}_low"], found[f"{name}_high"] = usage.get(name) or (None, None)
    for end, usd in zip(("low", "high"), cost, strict=True):
        found[f"cost_micro_usd_{end}"] = None if usd is None else round(usd * 1_000_000)
    if keep_message:
        message = result.get("message")
        found[PROVIDER_MESSAGE] = None if message is None else dumps(message)
    return {name: found[name] for name in types(keep_message=keep_message)}


def _printed(message: str | None) -> str | None:
    """A sentence as UTF-8 has it; `None` for none."""
    return str(message).encode("utf-8", "replace").decode() if message else None


def plain(value: Any) -> Any:
    """Return a value as JSON has it: numpy's scalars and arrays as Python's numbers and lists."""
    if isinstance(value, dict):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if value is None or (isinstance(value, str | int | float) and type(value).__module__ != "numpy"):
        return value
    for convert in ("tolist", "as_py", "item"):  # arrays, Arrow's scalars, other scalars
        if callable(found := getattr(value, convert, None)):
            return found()
    return value


def rows_of(columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of columns.

    :raises ValueError: the columns differ in length.
    """
    lists = {name: plain(column) if not isinstance(column, list) else column for name, column in columns.items()}
    lengths = {len(column) for column in lists.values()}
    if len(lengths) > 1:
        raise ValueError(f"columns of different lengths: { {name: len(column) for name, column in lists.items()} }")
    return [dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)]


def columns_of(given: Mapping[str, Any], places: Sequence[int], added: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return columns of some rows: the given ones as they are, and the added ones.

    :param places: the rows of the given columns, in the order wanted.
    :param added: the added cells of each of them.
    """
    cells_ = list(added)
    return {
        **{name: _picked(column, places) for name, column in given.items()},
        **{name: [one[name] for one in cells_] for name in (cells_[0] if cells_ else ())},
    }


def _picked(column: Any, places: Sequence[int]) -> Any:
    if isinstance(column, list | tuple):
        return [column[place] for place in places]
    if callable(getattr(column, "take", None)):  # numpy's arrays, Arrow's, pandas' series
        return column.take(list(places))
    return [column[place] for place in places]
