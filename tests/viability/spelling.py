"""The many ways to write one JSON value."""

from __future__ import annotations

import json
import random
from typing import Any


def spelled(value: Any, rng: random.Random, odd: float = 0.5) -> str:
    """The value as JSON: members in any order, any white space, and with probability `odd` per number and string an
    unusual form: exponents, zeros after the point, escapes where none are needed."""
    space = rng.choice(("", "", " ", "\n\t"))

    def write(value: Any) -> str:
        if isinstance(value, bool) or value is None:
            return json.dumps(value)
        if isinstance(value, (int, float)):
            return number(value, rng) if rng.random() < odd else json.dumps(value)
        if isinstance(value, str):
            return string(value, rng) if rng.random() < odd else json.dumps(value, ensure_ascii=rng.random() < 0.3)
        comma = f"{space},{space}"
        if isinstance(value, list):
            return f"[{space}{comma.join(map(write, value))}{space}]"
        members = [f"{write(name)}{space}:{space}{write(inner)}" for name, inner in value.items()]
        rng.shuffle(members)
        return f"{{{space}{comma.join(members)}{space}}}"

    return write(value)


def number(value: float, rng: random.Random) -> str:
    """A number, otherwise. It reads as the same, though as a float where it was an integer."""
    text = json.dumps(value)
    forms = [text]
    if isinstance(value, int):
        forms += [f"{text}.0", f"{text}e0", f"{text}.00E-0", f"{text}e+00"]
        forms += [f"{text}0e-1", f"{text}00E-2"] if value else ["-0", "0e5", "-0.0", "0.0e-9"]
        if value and value % 10 == 0:
            forms.append(f"{value // 10}e1")
    elif "e" not in text:
        forms += [f"{text}0", f"{text}e0"]
        whole, point = text.split(".")
        if value > 1:
            forms.append(f"{whole}{point}e-{len(point)}")
    return rng.choice([form for form in forms if json.loads(form) == value])


def string(text: str, rng: random.Random) -> str:
    """A string with some of its characters as escapes."""
    found = []
    for char in text:
        if rng.random() < 0.5 or char in '"\\' or char < " ":
            units = char.encode("utf-16-be", "surrogatepass")
            for i in range(0, len(units), 2):
                found.append(rng.choice(("\\u%04x", "\\u%04X")) % int.from_bytes(units[i : i + 2], "big"))
        else:
            found.append(char)
    return f'"{"".join(found)}"'
