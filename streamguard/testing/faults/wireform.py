"""Chapter E: how the same events are spelled and cut on the wire. Most of it is allowed, and breaks clients."""

from __future__ import annotations

import json
from typing import Any

from streamguard.testing import wire
from streamguard.testing.faults.base import GOOD, Catalogue, Items, Say
from streamguard.testing.steps import omit_last_chunk, split

CHAPTER = Catalogue()
fault = CHAPTER.fault

FOREIGN = '{"id": 7, "kind": "invoice", "lines": ["größer", "発票", "🧾👩‍💻"]}'
"""A good document with characters of two, three and four bytes, and one made of several."""


@fault("F50-split-characters", "decode whole lines, never pieces of characters", conforms=True)
def split_characters(say: Say) -> Items:
    """Characters of several bytes, cut anywhere."""
    return [split(every=1), *say.opened(), *say.pieces(FOREIGN, chunk=9), split(), *say.closed()]


def _separators() -> None:
    # VT and FF, which `str.splitlines` splits at too, are never raw in JSON: there they are escaped.
    for name, char in {"ls": "\u2028", "ps": "\u2029", "nel": "\u0085"}.items():
        text = GOOD.replace("pen", f"p{char}en")
        title = f"U+{ord(char):04X} stands raw in the data: many languages take it for a line's end."
        must = "end lines at CR, LF and CR LF only"
        CHAPTER.add(f"F51-{name}", title, must, lambda say, text=text: say.answer(text), conforms=True)  # type: ignore[misc]


_separators()


@fault("F52-crlf", "know all three line ends", conforms=True)
def crlf(say: Say) -> Items:
    """Lines end with CR LF."""
    return _styled(say, wire.STYLES["crlf"])


@fault("F52-cr", "the same", conforms=True)
def cr(say: Say) -> Items:
    """Lines end with CR."""
    return _styled(say, wire.STYLES["cr"])


@fault("F52-crlf-split", "remember a CR whose LF has not come yet", conforms=True)
def crlf_split(say: Say) -> Items:
    """Lines end with CR LF, and each byte comes alone."""
    return [split(every=1), *_styled(say, wire.STYLES["crlf"])]


def _styled(say: Say, style: wire.Style) -> Items:
    """A good answer in another spelling."""
    return [frame.replace(b"\n", style.newline) for frame in say.answer()]


@fault("F53-no-blank-line", "discard an event that is not ended by a blank line: the message is not complete")
def no_blank_line(say: Say) -> Items:
    """The last event lacks its blank line."""
    return [*say.answer()[:-1], say.stop().rstrip(b"\n") + b"\n"]


@fault("F53-bom", "pass over a byte order mark at the start", conforms=True)
def bom(say: Say) -> Items:
    """The body begins with a byte order mark."""
    return [b"\xef\xbb\xbf", *say.answer()]


@fault("F54-one-write", "take every event of a read", conforms=True)
def one_write(say: Say) -> Items:
    """The whole answer comes in one write."""
    return [b"".join(say.answer())]


@fault("F55-comments", "pass over what the format allows and nobody needs", conforms=True)
def comments(say: Say) -> Items:
    """Comments, `retry:`, `id:`, unknown fields, empty data and events without data stand between the events."""
    noise = [b": keep-alive\n\n", b"retry: 3000\n\n", b"id: 7\n\n", b"data\n\n", b"event: ping\n\n", b"x: y\n\n"]
    frames = say.answer()
    return [part for n, frame in enumerate(frames) for part in (noise[n % len(noise)], frame)]


def _sized(size: int) -> bytes:
    """An event of exactly so many bytes of data, which says nothing."""
    data = b'{"type":"ping","pad":""}'
    return wire.frame("ping", data[:-2] + b"x" * (size - len(data)) + data[-2:])


@fault("F56-just-small-enough", "take an event of exactly the size that is allowed", conforms=True)
def just_small_enough(say: Say) -> Items:
    """An event as large as the bound allows: its longest line is as long as that."""
    return [*say.opened(), _sized(say.event_bytes - len(b"data: ")), *say.pieces(GOOD), *say.closed()]


@fault("F56-too-large", "bound one event, and say which bound it was")
def too_large(say: Say) -> Items:
    """An event larger than the bound."""
    return [*say.opened(), _sized(say.event_bytes + 1), *say.pieces(GOOD), *say.closed()]


@fault("F56-endless-line", "keep no more of a line than the bound")
def endless_line(say: Say) -> Items:
    """A line that does not end, of four times the bound, and then nothing."""
    return [*say.opened(), b"data: ", *[b"x" * (say.event_bytes // 4)] * 16, omit_last_chunk()]


@fault("F57-new-event", "let unknown events, deltas, blocks and fields pass", conforms=True)
def new_event(say: Say) -> Items:
    """Events, deltas, blocks and fields yet to be invented."""
    new: dict[str, Any] = {"type": "future_thing", "index": 0, "payload": {"deep": [1, 2, {}]}}
    delta = {"type": "future_delta", "future": [True]}
    start = json.loads(wire.message_start().split(b"data: ")[1])
    start["message"]["container"] = {"id": "c"}
    return [
        wire.frame("message_start", start),
        *say.block(),
        wire.frame("future_thing", new),
        *say.pieces(GOOD)[:3],
        wire.block_delta(0, delta),
        *say.pieces(GOOD)[3:],
        wire.block_stop(0),
        wire.block_start(1, "future_block"),
        wire.block_delta(1, delta, style=wire.STYLES["spaced"]),
        wire.block_stop(1),
        *say.closed()[1:],
    ]
