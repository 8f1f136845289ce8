"""Chapter I: what other servers of the Messages API really send. Most of it is odd, and most of the odd is all right.

The shapes are those of recorded answers and of issue threads; the words are this file's own.
"""

from __future__ import annotations

import functools
import json
from typing import Any

from streamguard.testing import wire
from streamguard.testing.faults.base import GOOD, TOOL, Catalogue, Items, Say, tokens
from streamguard.testing.steps import pause, status, truth

CHAPTER = Catalogue()
fault = CHAPTER.fault

_DONE = b"data: [DONE]\n\n"
_NAMELESS = wire.Style(named=False)


def _data(said: Any) -> bytes:
    """Data without a name."""
    return b"data: %b\n\n" % (said if isinstance(said, bytes) else json.dumps(said).encode())


def _behind() -> None:
    late = wire.message_delta(None, usage={"output_tokens": tokens(GOOD)})
    cases = {
        "done": ("`data: [DONE]`, OpenAI's end mark.", _DONE),
        "named": ("`event: done`, whose data is no JSON.", b"event: done\ndata: [DONE]\n\n"),
        "stop": ("A second `message_stop`.", wire.message_stop()),
        "usage": ("Usage once more.", late),
        "heartbeat": ("A heartbeat as data.", _data({})),
        "torn": ("The beginning of an event.", _data(b'{"type": "content_block_del')),
    }
    for name, (title, data) in cases.items():
        must = "keep an answer that is complete, whatever follows its end"
        CHAPTER.add(
            f"F84-{name}", f"Behind `message_stop`: {title}", must, functools.partial(_tail, data), conforms=True
        )


def _tail(data: bytes, say: Say) -> Items:
    return [*say.answer(), data]


_behind()


def _between() -> None:
    cases = {
        "braces": ("An empty object.", _data({})),
        "word": ("A word.", _data(b"ping")),
        "blank": ("A blank.", _data(b" ")),
        "number": ("A list.", _data([1])),
        "done": ("OpenAI's end mark, too early.", _DONE),
        "foreign": ("An event of another protocol.", _data({"choices": [], "usage": None})),
        "named": ("A name of its own, and text.", b"event: heartbeat\ndata: alive\n\n"),
        "still": ("An object with a message.", _data({"message": "still at work"})),
    }
    for name, (title, data) in cases.items():
        must = "pass over what is no event and carries no output"
        written = functools.partial(_amid, data)
        CHAPTER.add(f"F85-{name}", f"Heartbeats among the events: {title}", must, written, conforms=True)


def _amid(data: bytes, say: Say) -> Items:
    return [part for frame in say.answer() for part in (data, frame)]


_between()


@fault("F86-done-instead", "take no other protocol's end mark for the message's end, unless told to")
def done_instead(say: Say) -> Items:
    """`data: [DONE]` in place of `message_stop`; the stop reason has come."""
    return [*say.answer()[:-1], _DONE]


@fault("F87-said-again", "take a start with the same id, before anything else, for the same start", conforms=True)
def said_again(say: Say) -> Items:
    """`message_start` comes twice."""
    return [*say.start(), *say.answer()]


@fault("F87-another", "never join two answers")
def another(say: Say) -> Items:
    """`message_start` comes twice, with two ids: another answer begins."""
    return [*say.start(id="msg_another"), *say.answer()]


@fault("F88-split-end", "keep a stop reason until another comes", conforms=True)
def split_end(say: Say) -> Items:
    """The end comes in two parts: the stop reason, then the usage alone."""
    first, last = wire.message_delta(say.stop_reason, usage={}), wire.message_delta(None, usage=_counts())
    return [*say.opened(), *say.pieces(GOOD), wire.block_stop(), first, last, say.stop()]


def _counts() -> dict[str, int]:
    return {"output_tokens": tokens(GOOD)}


@fault("F89-whole-start", "show every guard what a start holds", conforms=True)
def whole_start(say: Say) -> Items:
    """`message_start` holds all content, with stop reason and usage; then the end."""
    return [_started(say, GOOD), say.stop()]


@fault("F89-bad-start", "the same: a document there is a document")
def bad_start(say: Say) -> Items:
    """`message_start` holds all content, and its document is of the wrong form."""
    return [_started(say, '{"id": "seven", "kind": "invoice", "lines": []}'), say.stop()]


def _started(say: Say, text: str) -> bytes:
    block = {"type": "text", "text": text}
    if say.shape == "tool":
        block = {"type": "tool_use", "id": wire.TOOL_ID, "name": TOOL, "input": json.loads(text)}
    start = json.loads(say.start()[0].split(b"data: ")[1])
    start["message"] |= {"content": [block], "stop_reason": say.stop_reason}
    start["message"]["usage"] |= {"output_tokens": tokens(text)}
    return wire.frame("message_start", start)


@fault("F90-cut-then-said", "wait for the stop reason before an unfinished document is judged")
def cut_then_said(say: Say) -> Items:
    """The answer is cut at `max_tokens`; the block closes before the message says so."""
    return say.answer(GOOD[:-14], "max_tokens")


@fault("F90-error-behind", "the same for the provider's own error")
def error_behind(say: Say) -> Items:
    """The server closes the block of an unfinished document, then says that it is overloaded."""
    return [*say.half(), wire.block_stop(), wire.error("overloaded_error")]


@fault("F91-stop", "know the words of other APIs", conforms=True)
def other_words(say: Say) -> Items:
    """The stop reason in OpenAI's words, of an answer that ends well."""
    return say.answer(GOOD, "stop" if say.shape == "text" else "tool_calls")


@fault("F91-length", "the same: `length` is a cut")
def length(say: Say) -> Items:
    """The stop reason is `length`, behind a whole document."""
    return say.answer(GOOD, "length")


@fault("F91-filter", "the same: `content_filter` is a refusal")
def filtered(say: Say) -> Items:
    """The stop reason is `content_filter`, behind a whole document."""
    return say.answer(GOOD, "content_filter")


@fault("F91-no-sequence", "take no stop sequence for one where none was asked for and none is named")
def no_sequence(say: Say) -> Items:
    """The stop reason is `stop_sequence`, without one: how a gateway says that a filter struck."""
    return say.answer(GOOD, "stop_sequence")


def _usage() -> None:
    told = tokens(GOOD)
    cases: dict[str, tuple[str, dict[str, Any]]] = {
        "zero": ("Counts are 0, which means that nobody counted.", {"input_tokens": 0, "output_tokens": 0}),
        "text": ("Counts are texts and floats.", {"input_tokens": 12.0, "output_tokens": str(told)}),
        "words": ("Counts are no numbers at all.", {"input_tokens": None, "output_tokens": "many"}),
    }
    for name, (title, counts) in cases.items():
        must = "let no answer die of a count, and no 0 stand for what was not counted"
        CHAPTER.add(f"F92-{name}", title, must, functools.partial(_metered, counts), conforms=True)


def _metered(counts: dict[str, Any], say: Say) -> Items:
    end = wire.message_delta(say.stop_reason, usage=counts)
    body = [*say.opened(), *say.pieces(GOOD), wire.block_stop(), end, say.stop()]
    return [truth(input=wire.INPUT_TOKENS, output=tokens(GOOD)), *body]


_usage()


@fault("F92-falls", "know that cumulative counts cannot fall", conforms=True)
def falls(say: Say) -> Items:
    """A later count is lower than an earlier one."""
    first = wire.message_delta(None, usage={"input_tokens": 400, "output_tokens": tokens(GOOD)})
    last = wire.message_delta(say.stop_reason, usage={"input_tokens": 3, "output_tokens": 2})
    body = [*say.opened(), *say.pieces(GOOD), wire.block_stop(), first, last, say.stop()]
    return [truth(input=400, output=tokens(GOOD)), *body]


@fault("F92-in-stop", "take a count that comes with the end", conforms=True)
def in_stop(say: Say) -> Items:
    """The usage stands in `message_stop` only."""
    stop = wire.frame("message_stop", {"type": "message_stop", "usage": _counts()})
    end = wire.message_delta(say.stop_reason, usage={})
    body = [*say.opened(), *say.pieces(GOOD), wire.block_stop(), end, stop]
    return [truth(output=tokens(GOOD)), *body]


def _errors() -> None:
    cases = {
        "text": ("as a text", {"error": "no room"}),
        "typed-text": ("as a text beside its type", {"type": "error", "error": "no room"}),
        "message": ("as its message", {"type": "error", "message": {"type": "api_error", "message": "no room"}}),
        "detail": ("as a detail", {"detail": "no room"}),
        "list": ("in a list", {"errors": [{"message": "no room"}]}),
        "code": ("with a status as a text", {"error": {"message": "slow down", "code": "429"}}),
        "unknown": ("of an unknown type", {"error": {"type": "internal_error", "message": "no room"}}),
        "untyped": ("of an empty type", {"type": "error", "error": {"type": "", "message": "no room"}}),
    }
    must = "keep the words of an error, whatever its form, and ask again as for any other"
    for name, (title, body) in cases.items():
        CHAPTER.add(f"F93-{name}", f"An error in the stream, {title}.", must, functools.partial(_mid, _data(body)))
    heads = {
        "bare": (
            "A bare error under `text/event-stream`.",
            200,
            "text/event-stream",
            {"error": {"message": "no room"}},
        ),
        "page": ("A web page under `text/event-stream`.", 200, "text/event-stream", b"<html>502</html>"),
        "frame": ("A 500 whose body is an event.", 500, "text/event-stream", wire.error("overloaded_error")),
        "key": ("A 401 of a type that says nothing.", 401, "application/json", wire.error_body("api_error")),
        "request": ("A 400 of a type that says nothing.", 400, "application/json", wire.error_body("api_error")),
        "limit": ("A 429 of a type that says nothing.", 429, "application/json", wire.error_body("api_error")),
        "plain": ("A 503 that is a line of text.", 503, "text/plain", b"upstream connect error"),
    }
    for name, (title, code, kind, answer) in heads.items():
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        items = [status(code, {"content-type": kind}, data)]
        CHAPTER.add(f"F93-{name}", title, must, functools.partial(_fixed, items))


def _mid(data: bytes, say: Say) -> Items:
    return [*say.half(), data]


def _fixed(items: Items, _say: Say) -> Items:
    return items


_errors()


def _types() -> None:
    for name, kind in {"plain": "text/plain", "json": "application/json", "bytes": "application/octet-stream"}.items():
        title = f"The stream is labelled `{kind}`."
        head = status(200, {"content-type": kind})
        must = "know a stream by its first bytes"
        CHAPTER.add(f"F94-{name}", title, must, functools.partial(_labelled, head), conforms=True)


def _labelled(head: Any, say: Say) -> Items:
    return [head, *say.answer()]


_types()


@fault("F95-nameless", "read the type where it stands", conforms=True)
def nameless(say: Say) -> Items:
    """Events without their `event:` lines."""
    return [b"\n".join(line for line in frame.split(b"\n") if not line.startswith(b"event:")) for frame in say.answer()]


@fault("F95-typeless", "the same for the name, where the type is left out", conforms=True)
def typeless(say: Say) -> Items:
    """Events without their type in the JSON."""
    made = []
    for frame in say.answer():
        name, data = frame.split(b"\n")[:2]
        event = {field: value for field, value in json.loads(data[6:]).items() if field != "type"}
        made.append(wire.frame(name[7:].decode(), event))
    return made


@fault("F96-sentence", "keep a gateway's last words")
def sentence(say: Say) -> Items:
    """A gateway says in a sentence that it is over, and ends the body in good order."""
    return [*say.half(), _data(b"upstream request timeout")]


@fault("F96-object", "the same for an object that only an error is")
def said_object(say: Say) -> Items:
    """A gateway says in an object of its own that it is over."""
    return [*say.half(), _data({"message": "upstream request timeout"})]


@fault("F97-no-pings", "take no silence of a server that never pings for a dead connection", conforms=True, slow=True)
def no_pings(say: Say) -> Items:
    """The head comes at once, then 70 s of nothing at all, then the whole answer."""
    return [status(), pause(70), *[frame for frame in say.answer() if frame != wire.ping()]]


@fault("F97-late-head", "let the wait for a head be the wait for the first token", conforms=True, slow=True)
def late_head(say: Say) -> Items:
    """The head comes with the first token, after 40 s: the connection stood at once."""
    return [pause(40), status(), *say.answer()]


@fault("F97-long-value", "wait for a value of a call's input: it comes whole", conforms=True, slow=True)
def long_value(say: Say) -> Items:
    """The block is open for 70 s, pings come, and then the whole document at once."""
    return [
        *say.opened(),
        *(item for _ in range(5) for item in (wire.ping(), pause(14))),
        *say.pieces(GOOD, chunk=len(GOOD)),
        *say.closed(),
    ]


def _no_objects() -> None:
    cases = {
        "list": ("a list", "[1]"),
        "text": ("a text", '"rm -rf"'),
        "words": ("an object with words behind it", '{"id": 7} and more'),
        "constant": ("an object with `NaN`", '{"id": NaN}'),
        "cut": ("half an object", '{"id": 7, "kind": '),
    }
    for name, (title, text) in cases.items():
        must = "hand out no call whose input the model did not write"
        CHAPTER.add(f"F98-{name}", f"A closed call whose input is {title}.", must, functools.partial(_called, text))


def _called(text: str, say: Say) -> Items:
    tool = Say("tool")
    before = [*say.block(), *say.pieces(GOOD), wire.block_stop()] if say.shape == "text" else []
    index = 1 if before else 0
    call = [*tool.block(index), *tool.pieces(text, index), wire.block_stop(index)]
    return [*say.start(), *before, *call, *say.closed("tool_use", output=tokens(GOOD + text))[1:]]


_no_objects()
