"""Chapter B: how streams end, and what stands in place of one."""

from __future__ import annotations

from streamguard.testing import wire
from streamguard.testing.faults.base import GOOD, Catalogue, Items, Say, tokens
from streamguard.testing.steps import encode, fin, half_close, omit_last_chunk, raw, rst, status, truth

CHAPTER = Catalogue()
fault = CHAPTER.fault

HTML = b"<!doctype html><title>Just a moment...</title><p>Checking your browser</p>"


@fault("F13-eof", "take no answer without its `message_stop` for complete")
def eof(say: Say) -> Items:
    """The whole document has come when the connection ends, in a body that ends with it; no `message_stop`."""
    return [status(framing="eof"), *say.answer()[:-2]]


@fault("F13-chunked", "the same: the end of a body is not the end of a message")
def chunked(say: Say) -> Items:
    """The body ends in good order, by its last chunk, without `message_stop`."""
    return say.answer()[:-2]


@fault("F13-no-stop", "the same: a stop reason is not the end of a message")
def no_stop(say: Say) -> Items:
    """Everything has come but `message_stop`, even the stop reason."""
    return say.answer()[:-1]


@fault("F13-half-closed", "read to the end of what came, and judge that")
def half_closed(say: Say) -> Items:
    """The provider ends its side in the middle, and goes on listening."""
    return [status(framing="eof"), *say.half(), half_close()]


@fault("F14-cut", "name one kind of error for every way in which a connection breaks")
def cut(say: Say) -> Items:
    """The connection closes in the middle, without the body's last chunk."""
    return [*say.half(), omit_last_chunk()]


@fault("F14-closed", "the same")
def closed(say: Say) -> Items:
    """The connection closes inside an event."""
    return [*say.half(), say.pieces(GOOD)[3][:20], fin()]


@fault("F14-reset", "the same")
def reset(say: Say) -> Items:
    """The connection is reset in the middle."""
    return [*say.half(), rst()]


@fault("F14-no-answer", "the same, and know that the request may have arrived")
def no_answer(_say: Say) -> Items:
    """The connection is reset before a response."""
    return [rst()]


@fault("F14-cut-after-stop", "keep an answer that is complete", conforms=True)
def cut_after_stop(say: Say) -> Items:
    """The connection breaks right after `message_stop`: the body's last chunk never comes."""
    return [*say.answer(), omit_last_chunk()]


@fault("F14-bad-chunk", "the same as a reset", sockets=True)
def bad_chunk(say: Say) -> Items:
    """The framing of the body is broken: a chunk size that is no number."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    data = b"".join(say.half())
    return [truth(output=tokens(GOOD) // 2, stops=False), raw(head + b"%x\r\n%b\r\n" % (len(data), data) + b"zz\r\n")]


@fault("F14-no-http", "the same as a reset", sockets=True)
def no_http(_say: Say) -> Items:
    """What answers is no HTTP server."""
    return [raw(b"SSH-2.0-OpenSSH_9.6\r\n")]


@fault("F15-cut-early", "count what was made, and ask again as the policy says")
def cut_early(say: Say) -> Items:
    """The connection closes after the first pieces of output, which are billed all the same."""
    return [*say.opened(), *say.pieces(GOOD)[:1], omit_last_chunk()]


@fault("F17-error-after-stop", "keep an answer that is complete, whatever follows its end", conforms=True)
def error_after_stop(say: Say) -> Items:
    """A gateway sends an error of its own after `message_stop`."""
    return [*say.answer(), wire.error("api_error")]


@fault("F17-output-after-stop", "the same for output", conforms=True)
def output_after_stop(say: Say) -> Items:
    """Output goes on after `message_stop`."""
    return [*say.answer(), *say.pieces("more")]


@fault("F18-no-tool", "check that what the stop reason says is there")
def no_tool(_say: Say) -> Items:
    """The stop reason is `tool_use`, and no tool was called."""
    text = Say("text")
    return text.answer(GOOD, "tool_use")


@fault("F19-no-reason", "take an end without a reason for what it is")
def no_reason(say: Say) -> Items:
    """The answer is complete but for its stop reason."""
    return say.answer(GOOD, None)


@fault("F20-empty-body", "take nothing for no answer")
def empty_body(_say: Say) -> Items:
    """Status 200 and an empty body."""
    return [status()]


@fault("F20-no-content", "take an answer without content for none")
def no_content(say: Say) -> Items:
    """A message that begins and ends well, without any content."""
    return [*say.start(), *say.closed("end_turn", output=1)[1:]]


@fault("F20-blank", "the same for text that is blank")
def blank(_say: Say) -> Items:
    """A message whose text is a line end."""
    return Say("text").answer("\n")


@fault("F21-html", "check the content type before parsing, and keep an excerpt")
def html(_say: Say) -> Items:
    """Status 200 and a web page."""
    return [status(200, {"content-type": "text/html"}, HTML)]


@fault("F21-json-error", "classify an error whatever the status")
def json_error(_say: Say) -> Items:
    """Status 200 and an error as JSON."""
    return [status(200, None, wire.error_body("overloaded_error"))]


@fault("F21-json-message", "take an answer in one piece for the answer that it is", conforms=True)
def json_message(say: Say) -> Items:
    """Status 200 and the whole message as one JSON, though a stream was asked for."""
    return [status(200, None, wire.assemble(say.answer()))]


@fault("F22-unknown-block", "keep to the protocol: an index belongs to a block that is open")
def unknown_block(say: Say) -> Items:
    """Output for a block that was never opened."""
    return [*say.half(), *say.pieces(GOOD, 3)[:1], *say.pieces(GOOD)[3:], *say.closed()]


@fault("F22-other-kind", "the same: a block is made of pieces of its own kind")
def other_kind(say: Say) -> Items:
    """A tool's input in a text block, or text in a tool's input."""
    other = Say("tool" if say.shape == "text" else "text")
    pieces = say.pieces(GOOD)
    return [*say.opened(), *pieces[:3], *other.pieces(GOOD)[3:4], *pieces[4:], *say.closed()]


@fault("F22-second-start", "the same: a message starts once")
def second_start(say: Say) -> Items:
    """A second `message_start` in the middle: two answers in one stream."""
    return [*say.half(), *say.answer()]


@fault("F22-after-block", "the same: a block that is closed stays closed")
def after_block(say: Say) -> Items:
    """Output for a block after its end."""
    return [*say.opened(), *say.pieces(GOOD), wire.block_stop(), *say.pieces("x"), *say.closed()[1:]]


@fault("F22-same-block-twice", "the same: an index is used once")
def same_block_twice(say: Say) -> Items:
    """A block that is opened a second time."""
    return [*say.half(), *say.block(), *say.pieces(GOOD)[3:], *say.closed()]


@fault("F22-open-block", "the same: a message ends when its blocks have")
def open_block(say: Say) -> Items:
    """`message_stop` while a block is open."""
    return [*say.opened(), *say.pieces(GOOD), *say.closed()[1:]]


@fault("F22-no-start", "the same: what comes before the start belongs to no message")
def no_start(say: Say) -> Items:
    """The stream begins in the middle."""
    return say.answer()[1:]


@fault("F22-interleaved", "let blocks interleave: each event says which it belongs to", conforms=True)
def interleaved(say: Say) -> Items:
    """A thinking block and the document's block take turns."""
    mixed = [part for piece in say.pieces(GOOD) for part in (piece, wire.thinking_delta("hm ", 1))]
    return [*say.opened(), wire.block_start(1, "thinking"), *mixed, wire.block_stop(1), *say.closed(output=40)]


@fault("F23-gzip", "decompress what is compressed, though it was not asked for", conforms=True)
def gzip(say: Say) -> Items:
    """The body is compressed."""
    return [encode("gzip"), *say.answer()]


@fault("F23-gzip-cut", "take no compressed body for whole without its end")
def gzip_cut(say: Say) -> Items:
    """A compressed body is cut in the middle, in a body that ends in good order."""
    return [encode("gzip", cut=120), *say.answer()]
