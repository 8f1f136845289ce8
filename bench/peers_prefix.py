"""`python -m bench.peers_prefix`: the same texts in the same pieces through peers, in one run.

What each costs per piece, where it notices that a document is dead, and whether it lets a valid document pass whose
members stand in another order. llguidance and instructor are no dependencies of the project: where one is not
installed, that is printed and the others go on.
"""

from __future__ import annotations

import importlib
import json
import random
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jsonschema

from streamguard.viability import SyntaxPrefix, compile_schema

Feed = Callable[[str], bool]
"""Takes a piece; whether the document still stands."""
PIECE = 4
BEST_OF = 5


class Peer(NamedTuple):
    """One way to watch a document. `start` begins one; `finish` is asked at the end of the text, if at all."""

    name: str
    start: Callable[[], Feed]
    finish: Callable[[str], bool] | None = None


class Absent(Exception):
    """A package that is not installed here."""


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Absent(f"{name.partition('.')[0]} is not installed here ({error})") from None


def syntax(schema: dict[str, Any]) -> Peer:  # noqa: ARG001  # it needs none
    def start() -> Feed:
        feed = SyntaxPrefix().feed
        return lambda piece: feed(piece) is None

    return Peer("streamguard, syntax alone", start)


def ours(schema: dict[str, Any]) -> Peer:
    compiled = compile_schema(schema)

    def start() -> Feed:
        feed = compiled.prefix().feed
        return lambda piece: feed(piece) is None

    return Peer("streamguard, schema prefix", start)


def at_the_end(schema: dict[str, Any]) -> Peer:
    validator = jsonschema.Draft202012Validator(schema)
    return Peer(
        "json.loads and jsonschema, at the end",
        lambda: lambda _: True,
        lambda text: validator.is_valid(json.loads(text)),
    )


def parse_again(schema: dict[str, Any]) -> Peer:  # noqa: ARG001
    jiter = _module("jiter")

    def start() -> Feed:
        parts = bytearray()

        def feed(piece: str) -> bool:
            parts.extend(piece.encode())
            try:
                jiter.from_json(bytes(parts), partial_mode="trailing-strings")
            except ValueError:
                return False
            return True

        return feed

    return Peer("jiter, all of it parsed again", start)


def instructor_partial(schema: dict[str, Any]) -> Peer:  # noqa: ARG001  # it takes models: the same record as one
    partial = _module("instructor.dsl.partial").Partial
    model = partial[advisory_model()]

    def start() -> Feed:
        todo: list[str] = []
        chunks = model.model_from_chunks(_queue(todo))

        def feed(piece: str) -> bool:
            todo.append(piece)
            try:
                next(chunks)
            except ValueError:  # pydantic's and jiter's both are
                return False
            return True

        return feed

    return Peer("instructor, partial model", start)


def _queue(todo: list[str]) -> Iterator[str]:
    while todo:
        yield todo.pop(0)


def advisory_model() -> Any:
    """The schema of one advisory as a pydantic model."""
    pydantic = _module("pydantic")
    from typing import Annotated, Literal

    short = Annotated[str, pydantic.Field(min_length=1, max_length=80)]
    fields: dict[str, Any] = {
        "package": (Annotated[str, pydantic.Field(pattern="^[A-Za-z0-9_-]{1,64}$")], ...),
        "kind": (Literal["vulnerability", "unsound", "unmaintained", "notice"], ...),
        "categories": (Annotated[list[str], pydantic.Field(max_length=4)], ...),
        "fixed_in": (str | None, ...),
        "functions": (Annotated[list[short], pydantic.Field(max_length=8)], ...),
        "alternatives": (Annotated[list[short], pydantic.Field(max_length=8)], ...),
        "summary": (Annotated[str, pydantic.Field(min_length=10)], ...),
    }
    return pydantic.create_model("Advisory", __config__=pydantic.ConfigDict(extra="forbid"), **fields)


class _Bytes:
    """A vocabulary of single bytes."""

    eos_token_id = 256
    bos_token_id = None
    tokens = (*(bytes([i]) for i in range(256)), b"<eos>")
    special_token_ids = (256,)

    def __call__(self, text: bytes | str) -> list[int]:
        return list(text.encode() if isinstance(text, str) else text)


def llguidance(schema: dict[str, Any]) -> Peer:
    package = _module("llguidance")
    tokenizer = package.LLTokenizer(package.TokenizerWrapper(_Bytes()), slices=[])
    # Lenient: it refuses a schema with uniqueItems otherwise, and so leaves that unchecked.
    options = {"whitespace_flexible": True, "lenient": True}
    grammar = package.LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=options)

    def start() -> Feed:
        matcher = package.LLMatcher(tokenizer, grammar, log_level=0)
        if matcher.is_error():
            raise Absent(f"llguidance cannot use the schema: {matcher.get_error()}")
        return lambda piece: bool(matcher.consume_tokens(list(piece.encode())))

    return Peer("llguidance, lenient: without uniqueItems", start)


PEERS: tuple[Callable[[dict[str, Any]], Peer], ...] = (
    syntax,
    ours,
    at_the_end,
    parse_again,
    instructor_partial,
    llguidance,
)


def pieces(text: str) -> list[str]:
    return [text[i : i + PIECE] for i in range(0, len(text), PIECE)]


def cost(peer: Peer, text: str) -> float:
    """Microseconds of CPU per piece, the end included; the best of some runs."""
    parts = pieces(text)
    best = float("inf")
    for _ in range(BEST_OF):
        began = time.process_time()
        loops = 0
        while loops < 3 or time.process_time() - began < 0.02:
            feed = peer.start()
            for part in parts:
                if not feed(part):
                    break
            if peer.finish is not None:
                peer.finish(text)
            loops += 1
        best = min(best, (time.process_time() - began) / loops)
    return best / len(parts) * 1e6


def notices(peer: Peer, text: str) -> str:
    """The first character that it refuses."""
    feed = peer.start()
    for at, char in enumerate(text):
        if not feed(char):
            return f"character {at}"
    return "at the end" if peer.finish is not None and not peer.finish(text) else "never"


def record(**more: Any) -> dict[str, Any]:
    """A valid record of the advisory schema."""
    found = {
        "package": "some-package",
        "kind": "vulnerability",
        "categories": ["memory-corruption", "denial-of-service"],
        "fixed_in": "1.2.3",
        "functions": ["crate::module::function", "other::name"],
        "alternatives": ["one", "two"],
        "summary": "What is wrong with this package, in some two hundred characters, as such summaries go. " * 2,
    }
    return found | more


def shuffled(value: dict[str, Any]) -> dict[str, Any]:
    items = list(value.items())
    random.Random(1).shuffle(items)
    return dict(items)


def table(schema: dict[str, Any]) -> Iterable[str]:
    """The comparison, line by line."""
    text = json.dumps(record(), indent=1)
    long = json.dumps(record(functions=[f"crate::module::function_{i:050}" for i in range(8)]), indent=1)
    dead = json.dumps(record(kind="unsafe"), indent=1)
    other = json.dumps(shuffled(record()), indent=1)
    at = dead.index("unsafe") + 3
    yield f"  {PIECE} characters a piece; the wrong kind dies at character {at} of {len(dead)}"
    sizes = f"{f'µs/piece, {len(text)}':>16}{f'µs/piece, {len(long)}':>16}"
    yield f"  {'':<40}{sizes}{'wrong kind noticed':>22}  other order"
    for make in PEERS:
        try:
            peer = make(schema)
            peer.start()
        except Absent as why:
            yield f"  {make.__name__:<40} left out: {why}"
            continue
        passes = notices(peer, other)
        order = "passes" if passes == "never" else f"refused, {passes}"
        yield (f"  {peer.name:<40}{cost(peer, text):>16.2f}{cost(peer, long):>16.2f}{notices(peer, dead):>22}  {order}")


def main() -> None:
    """Print the table for the advisory schema of the shared test data."""
    from bench.prefix_report import advisory

    print("Peers on the same text, in one run")
    for line in table(advisory()):
        print(line)


if __name__ == "__main__":
    main()
