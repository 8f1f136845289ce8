"""Chapter A: silence, slowness and clocks. All times are seconds of whatever clock the script is played on."""

from __future__ import annotations

from streamguard.testing import wire
from streamguard.testing.faults.base import GOOD, Catalogue, Items, Say
from streamguard.testing.steps import Item, drip, pause, repeat, stall, status

CHAPTER = Catalogue()
fault = CHAPTER.fault

_PING: list[Item] = [wire.ping(), pause(5)]


@fault("F01-no-head", "end with a typed timeout at its own limit for the response head", slow=True)
def no_head(_say: Say) -> Items:
    """The connection is accepted, and no response ever comes."""
    return [stall(), status()]


@fault("F01-head-only", "end with a typed timeout; a head is no token", slow=True)
def head_only(_say: Say) -> Items:
    """The response head comes at once, and then nothing."""
    return [status(), stall()]


@fault("F01-start-only", "end with a typed timeout; `message_start` is no token", slow=True)
def start_only(say: Say) -> Items:
    """`message_start` comes, and then nothing."""
    return [*say.start(), stall()]


@fault("F01-late-but-well", "wait: p99 of first tokens has been seen at 15 s", conforms=True, slow=True)
def late_but_well(say: Say) -> Items:
    """The first token takes 25 s, the head 4 s, and all is well."""
    return [pause(4), status(), *say.start(), pause(21), *say.answer()[1:]]


@fault("F02-mid-stream", "notice silence by the bytes received, not by the connection's state", slow=True)
def silent_mid_stream(say: Say) -> Items:
    """The stream stops in the middle, and the connection stays open."""
    return [*say.half(), stall()]


@fault("F03-pings-only", "tell an alive connection from a working model", slow=True)
def pings_only(say: Say) -> Items:
    """After the start nothing but pings, for ever."""
    return [*say.start(), repeat(_PING)]


@fault("F03-pings-after-output", "let pings keep the connection alive, and nothing else", slow=True)
def pings_after_output(say: Say) -> Items:
    """Half an answer, then nothing but pings, for ever."""
    return [*say.half(), repeat(_PING)]


@fault("F03-comments-only", "take comments for bytes, not for output", slow=True)
def comments_only(say: Say) -> Items:
    """Half an answer, then nothing but comment lines, as proxies send them."""
    return [*say.half(), repeat([b": keep-alive\n\n", pause(15)])]


@fault("F03-pings-while-thinking", "have a longer allowance for thinking, and an end of it", slow=True)
def pings_while_thinking(say: Say) -> Items:
    """Thinking begins, and nothing but pings comes of it, for ever."""
    return [*say.start(), wire.block_start(0, "thinking"), repeat(_PING)]


@fault("F03-pings-while-searching", "the same for a tool that the provider runs itself", slow=True)
def pings_while_searching(say: Say) -> Items:
    """A server tool is called, and nothing but pings comes of it, for ever."""
    return [*say.start(), wire.block_start(0, "server_tool_use"), wire.block_stop(0), repeat(_PING)]


@fault("F04-long-search", "wait: a provider's own tool takes its time too", conforms=True, slow=True)
def long_search(say: Say) -> Items:
    """Two minutes of a server tool at work, its result, then the whole answer at once."""
    return [
        *say.start(),
        wire.block_start(0, "server_tool_use"),
        wire.block_stop(0),
        *repeated_pings(120),
        wire.block_start(1, "web_search_tool_result", tool_use_id="srvtoolu_scripted", content=[]),
        wire.block_stop(1),
        *say.block(2),
        *say.pieces(GOOD, 2),
        wire.block_stop(2),
        *say.closed(output=90)[1:],
    ]


@fault("F04-long-thinking", "wait: healthy thinking is silent for minutes", conforms=True, slow=True)
def long_thinking(say: Say) -> Items:
    """Four minutes of thinking of which only pings show, then the whole answer at once."""
    return [
        *say.start(),
        wire.block_start(0, "thinking"),
        *repeated_pings(240),
        wire.signature_delta(index=0),
        wire.block_stop(0),
        *say.block(1),
        *say.pieces(GOOD, 1),
        wire.block_stop(1),
        *say.closed(output=900)[1:],
    ]


def repeated_pings(seconds: int, every: int = 15) -> Items:
    """Pings for so long."""
    return [repeat([wire.ping(), pause(every)], seconds // every)]


@fault("F05-long-and-healthy", "have no timer that its own signal does not reset", conforms=True, slow=True)
def long_and_healthy(say: Say) -> Items:
    """Twenty minutes with a piece of output every 20 seconds."""
    pieces = [item for piece in say.pieces(GOOD, chunk=1) for item in (piece, pause(1200 / len(GOOD)))]
    return [*say.opened(), *pieces, *say.closed()]


@fault("F06-drip", "have a clock that single bytes do not reset", slow=True)
def dripping(say: Say) -> Items:
    """One byte every 54 s: no silence is ever long enough, and no event is ever complete."""
    return [*say.half(), drip(1 / 54), *say.pieces(GOOD)[:1], drip(None), *say.closed()]


@fault("F06-slow-output", "bound the whole attempt", slow=True, conforms=True)
def slow_output(say: Say) -> Items:
    """A piece of output every 54 s: each clock of silence starts anew, and it takes the best part of an hour."""
    pieces = [item for piece in say.pieces(GOOD, chunk=1) for item in (piece, pause(54))]
    return [*say.opened(), *pieces, *say.closed()]


@fault(
    "F07-kept-open", "end at `message_stop`; the socket's end is the connection's business", conforms=True, slow=True
)
def kept_open(say: Say) -> Items:
    """The answer is complete, and the connection stays open for 30 s more."""
    return [*say.answer(), pause(30)]


@fault("F07-never-closed", "end at `message_stop`, whatever the socket does", conforms=True, slow=True)
def never_closed(say: Say) -> Items:
    """The answer is complete, and the connection stays open for ever, pings included."""
    return [*say.answer(), repeat(_PING)]


@fault("F08-stall-in-event", "have timers that do not depend on a read that returns", slow=True)
def stall_in_event(say: Say) -> Items:
    """The stream stops inside an event, in the middle of a line."""
    piece = say.pieces(GOOD)[3]
    return [*say.half(), piece[: len(piece) // 2], stall()]


@fault("F09-fifteen-minutes", "know the length of an answer from the silence in it", conforms=True, slow=True)
def fifteen_minutes(say: Say) -> Items:
    """A healthy answer of 15 minutes, with a piece every second for a minute now and then."""
    bursts = [item for piece in say.pieces(GOOD, chunk=4) for item in (piece, *repeated_pings(60, 20))]
    return [*say.opened(), *bursts[:-1], *say.closed()]


@fault("F10-dead-tunnel", "not rely on the transport's keep-alives", slow=True)
def dead_tunnel(say: Say) -> Items:
    """A tunnel answers for an upstream that is gone: the socket is healthy, and nothing comes."""
    return [*say.opened(), stall()]
