"""Ways to feed one text."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from streamguard.viability import Dead, Prefix

Split = Callable[[str], Iterable[str]]


def whole(text: str) -> Iterable[str]:
    return [text] if text else []


def each(text: str) -> Iterable[str]:
    return text


def pieces(seed: int, sizes: tuple[int, ...] = (1, 2, 3, 4, 7, 20)) -> Split:
    """Pieces of random sizes."""

    def split(text: str) -> Iterator[str]:
        rng = random.Random(seed)
        i = 0
        while i < len(text):
            size = rng.choice(sizes)
            yield text[i : i + size]
            i += size

    return split


SPLITS: tuple[Split, ...] = (whole, each, pieces(1), pieces(2))


def feed(prefix: Prefix, text: str, split: Split) -> Dead | None:
    """The verdict on a whole text."""
    for piece in split(text):
        if dead := prefix.feed(piece):
            assert prefix.feed("x") is dead
            assert prefix.close() is dead
            return dead
    return prefix.close()


def offset(dead: Dead | None) -> int | str | None:
    return None if dead is None else dead.offset


def shuffled(value: Any, rng: random.Random) -> Any:
    """The value with the members of every object in another order."""
    if isinstance(value, dict):
        items = list(value.items())
        rng.shuffle(items)
        return {name: shuffled(inner, rng) for name, inner in items}
    return [shuffled(inner, rng) for inner in value] if isinstance(value, list) else value


def spellings(value: Any, seed: int = 0) -> tuple[str, ...]:
    """Compact, pretty, with escapes, and with shuffled members."""
    return (
        json.dumps(value, separators=(",", ":"), ensure_ascii=False),
        json.dumps(value, indent=2),
        json.dumps(shuffled(value, random.Random(seed))),
    )
