"""Chapter D: what the model wrote. Each is a whole answer, unless it says else; the schema is `SCHEMA`."""

from __future__ import annotations

import json

from streamguard.testing import wire
from streamguard.testing.faults.base import GOOD, Catalogue, Items, Say, tokens

CHAPTER = Catalogue()
fault, documents = CHAPTER.fault, CHAPTER.documents

_HEAD, _TAIL = '{"id": 7, "kind": "invoice", "lines": ', "}"


def _with(lines: str) -> str:
    return _HEAD + lines + _TAIL


@fault("F36-cut", "take no answer that was cut at `max_tokens` for complete")
def cut(say: Say) -> Items:
    """The answer is cut at `max_tokens`, in the middle of the document."""
    return say.answer(GOOD[:-14], "max_tokens")


@fault("F36-cut-but-whole", "judge by the stop reason too: more may have been to come")
def cut_but_whole(say: Say) -> Items:
    """The answer is cut at `max_tokens`, right behind a whole document."""
    return say.answer(GOOD, "max_tokens")


documents(
    "F37",
    "find the first impossible byte, whatever a parser's message says",
    {
        "comma": ("A comma is missing between two members.", '{"id": 7 "kind": "invoice", "lines": []}'),
        "colon": ("A colon is missing behind a name.", '{"id" 7, "kind": "invoice", "lines": []}'),
        "quotes": ("Names in single quotes.", "{'id': 7, 'kind': 'invoice', 'lines': []}"),
        "bare": ("A name without quotes.", '{id: 7, "kind": "invoice", "lines": []}'),
        "literal": ("A literal of another language.", '{"id": None, "kind": "invoice", "lines": []}'),
        "trailing-comma": ("A comma before the closing brace.", '{"id": 7, "kind": "invoice", "lines": [],}'),
        "newline": ("A raw line end inside a string.", _with('["a\nb"]')),
        "escape": ("An escape that JSON does not have.", _with('["\\x41"]')),
        "brackets": ("Brackets that do not match.", _with('["a"}')),
    },
)


@fault("F38-inside", "bound runs of whitespace where the grammar allows them for ever")
def whitespace_inside(say: Say) -> Items:
    """Line ends for ever inside the document, up to `max_tokens`."""
    return say.answer('{"id": 7' + "\n" * 3000, "max_tokens", chunk=64)


@fault("F38-behind", "the same behind the document")
def whitespace_behind(say: Say) -> Items:
    """Blanks for ever behind the document, up to `max_tokens`."""
    return say.answer(GOOD + " " * 3000, "max_tokens", chunk=64)


def _loops() -> None:
    units = {
        "one": ("a", "One character over and over, in a string of the document."),
        "seven": ("seven, ", "Seven characters over and over."),
        "long": ("".join(f"line {n} of it. " for n in range(12)), "A paragraph over and over."),
    }
    for name, (unit, title) in units.items():
        text = (_HEAD + '["' + unit * 3000)[:2600]
        must = "notice a loop long before `max_tokens`"
        CHAPTER.add(f"F39-{name}", title, must, lambda say, text=text: say.answer(text, "max_tokens", chunk=64))  # type: ignore[misc]


_loops()


@fault("F39-thinking", "look at thinking too: it is output, and billed")
def thinking_in_circles(say: Say) -> Items:
    """Thinking that goes round in circles for long, and then a good answer."""
    thought = "no, that is not it; let me see. " * 90
    return [
        *say.start(),
        wire.block_start(0, "thinking"),
        *(wire.thinking_delta(piece, 0) for piece in wire.pieces(thought, 64)),
        wire.signature_delta(index=0),
        wire.block_stop(0),
        *say.block(1),
        *say.pieces(GOOD, 1),
        wire.block_stop(1),
        *say.closed(output=tokens(thought) + tokens(GOOD))[1:],
    ]


@fault("F39-near-miss", "not take for a loop what only looks like one", conforms=True)
def near_miss(say: Say) -> Items:
    """A long list whose lines differ in their numbers only."""
    lines = [f"item {n}: {n * n} pieces" for n in range(60)]
    return say.answer(_with("[" + ", ".join(map(json.dumps, lines)) + "]"), chunk=64)


documents(
    "F40",
    "decide by policy: reject what stands around a document, or take it off",
    {
        "fence": ("A code fence around the document.", f"```json\n{GOOD}\n```"),
        "fence-open": ("A code fence that is never closed.", f"```json\n{GOOD}\n"),
        "before": ("Words before the document.", f"Here is the JSON you asked for:\n{GOOD}"),
        "after": ("Words behind the document.", f"{GOOD}\nI hope that helps!"),
        "both": ("Words and a fence.", f"Sure!\n\n```json\n{GOOD}\n```\nAnything else?"),
        "bracket-after": ("Words with a bracket behind the document.", f"{GOOD}\n(see [1])"),
    },
)

documents(
    "F41",
    "check the type of each value at its first byte",
    {
        "string": ("An array as a string.", _with('"[1, 2]"')),
        "number": ("A number as a string.", '{"id": "7", "kind": "invoice", "lines": []}'),
        "enum": ("A value that is none of those allowed.", '{"id": 7, "kind": "letter", "lines": []}'),
        "top": ("An array where an object is wanted.", f"[{GOOD}]"),
        "missing": ("A required member is missing.", '{"id": 7, "kind": "invoice"}'),
        "unknown": ("A member that the schema forbids.", '{"id": 7, "kind": "invoice", "lines": [], "total": 3}'),
    },
)

documents(
    "F42",
    "reject a name that stands twice: parsers disagree on which one counts",
    {
        "same": ("A name stands twice.", '{"id": 7, "id": 8, "kind": "invoice", "lines": []}'),
        "escaped": ("A name stands twice, once escaped.", '{"id": 7, "\\u0069d": 8, "kind": "invoice", "lines": []}'),
    },
)

documents(
    "F43",
    "take only the numbers that JSON has, in a range that can be read",
    {
        "nan": ("`NaN`.", '{"id": NaN, "kind": "invoice", "lines": []}'),
        "infinity": ("`-Infinity`.", '{"id": -Infinity, "kind": "invoice", "lines": []}'),
        "huge": ("`1e999`, which most parsers read as infinity.", '{"id": 1e999, "kind": "invoice", "lines": []}'),
        "zero": ("A leading zero.", '{"id": 07, "kind": "invoice", "lines": []}'),
        "plus": ("A leading plus.", '{"id": +7, "kind": "invoice", "lines": []}'),
    },
)

documents(
    "F44",
    "check depth and digits before a parser that would crash",
    {
        "depth": ("A thousand brackets.", _with("[" * 1000)),
        "digits": ("An integer of 5000 digits.", '{"id": ' + "9" * 5000 + ', "kind": "invoice", "lines": []}'),
    },
)

documents(
    "F45",
    "know where the document ends",
    {
        "twice": ("The document twice.", GOOD + GOOD),
        "cumulative": ("The document so far, again and again.", "".join(GOOD[:n] for n in (9, 20, 52))),
    },
)


@fault("F45-two-calls", "take each block for itself: two calls are no document twice", conforms=True)
def two_calls(say: Say) -> Items:
    """Two calls of a tool in one answer, after a text where the document stands in text."""
    begin = 1 if say.shape == "text" else 0
    tool = Say("tool")
    text = [*say.block(), *say.pieces(GOOD), wire.block_stop()] if begin else []
    calls = [
        part
        for index in (begin, begin + 1)
        for part in (*tool.block(index), *tool.pieces(GOOD, index), wire.block_stop(index))
    ]
    return [*say.start(), *text, *calls, *say.closed("tool_use", output=90)[1:]]


documents(
    "F46",
    "take no value from the beginning of a document",
    {
        "number": ("The answer ends well, inside a number of the document.", '{"id": 1'),
        "string": ("The answer ends well, inside a string.", GOOD[:25]),
        "brace": ("The answer ends well, one brace short.", GOOD[:-1]),
    },
)

documents(
    "F47",
    "abort only what no continuation can mend",
    {
        "short-so-far": (
            "A name of four letters or more, which is too short while it is written.",
            '{"name": "Alma", "id": 7, "kind": "receipt", "lines": []}',
        ),
        "late-members": ("Members in any order, the required ones last.", '{"lines": [], "kind": "receipt", "id": 1}'),
        "escapes": (
            "Escapes of all kinds, and odd whitespace.",
            '{ "id":7,\n\t"kind" : "\\u0069nvoice","lines":["\\n\\"\\ud83d\\ude00"]}\n',
        ),
        "numbers": ("An integer written with an exponent.", '{"id": 7e0, "kind": "invoice", "lines": []}'),
        "surrogate": ("Half a surrogate pair in a string, which JSON allows.", _with('["\\udc00"]')),
    },
    conforms=True,
)


@fault("F48-refusal", "know a refusal, and that asking the same model again is in vain")
def refusal(say: Say) -> Items:
    """The model refuses before it has written anything."""
    return [*say.start(), *say.closed("refusal", output=1)[1:]]


@fault("F48-refusal-late", "the same, after text")
def refusal_late(say: Say) -> Items:
    """The model refuses in the middle of the document."""
    return say.answer(GOOD[:20], "refusal")


@fault("F49-unknown", "take a stop reason that nobody knows for no success")
def unknown(say: Say) -> Items:
    """A stop reason yet to be invented."""
    return say.answer(GOOD, "brand_new_reason")


@fault("F49-pause", "the same for a turn that was paused")
def pause_turn(say: Say) -> Items:
    """The provider pauses a long turn."""
    return say.answer(GOOD[:20], "pause_turn")


@fault("F49-window", "the same for a full context window")
def window(say: Say) -> Items:
    """The context window is full in the middle of the document."""
    return say.answer(GOOD[:20], "model_context_window_exceeded")
