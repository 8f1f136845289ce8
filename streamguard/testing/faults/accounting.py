"""Chapters F and H: usage as it is told, and what was truly made; and what stands between client and provider.

The scripts say the truth (`truth`) beside what they put on the wire, so that an estimate can be held against it.
"""

from __future__ import annotations

from streamguard.testing import wire
from streamguard.testing.faults.base import GOOD, Catalogue, Items, Say, tokens
from streamguard.testing.steps import omit_last_chunk, pause, repeat, rst, stall, truth

CHAPTER = Catalogue()
fault = CHAPTER.fault


@fault("F58-cut-at-start", "tell usage as an interval that holds the truth, whenever it ends")
def cut_at_start(say: Say) -> Items:
    """Cut after `message_start`: no output was seen, and some was made."""
    return [truth(output=60, lag=4), *say.start(), omit_last_chunk()]


@fault("F58-cut-at-end", "the same")
def cut_at_end(say: Say) -> Items:
    """Cut right before the usage is told: all of it was made."""
    return [truth(output=tokens(GOOD)), *say.opened(), *say.pieces(GOOD), omit_last_chunk()]


def _placeholders() -> None:
    for count in (0, 1, 5, 7):
        title = f"`message_start` counts {count} output tokens, which means nothing; then the stream is cut."

        def written(say: Say, count: int = count) -> Items:
            return [*say.opened(placeholder=count), *say.pieces(GOOD)[:4], rst()]

        CHAPTER.add(f"F59-placeholder-{count}", title, "take no count of the start for output", written)


_placeholders()


@fault("F60-cached-input", "take the last count: the first one may leave out nearly all input", conforms=True)
def cached_input(say: Say) -> Items:
    """`message_start` counts 9 input tokens; the end tells of 480 more, read from a cache."""
    start = say.opened(usage={"input_tokens": 9})
    return [
        truth(input=9, output=tokens(GOOD), cache_read=480),
        *start,
        *say.pieces(GOOD),
        *say.closed(input_output=9, cache_read_input_tokens=480),
    ]


@fault("F61-cumulative", "replace counts, and never add them", conforms=True)
def cumulative(say: Say) -> Items:
    """Usage is told three times, each time for all so far; the input only once."""
    told = [wire.message_delta(None, usage={"output_tokens": tokens}) for tokens in (5, 14)]
    return [*say.opened(), *say.pieces(GOOD)[:3], told[0], *say.pieces(GOOD)[3:], told[1], *say.closed()]


@fault("F62-again-and-again", "count every attempt")
def again_and_again(say: Say) -> Items:
    """Each attempt is billed some output before it breaks."""
    return [truth(output=11), *say.half(), omit_last_chunk()]


@fault("F63-goes-on", "know that some backends finish, and bill, what was aborted", slow=True)
def goes_on(say: Say) -> Items:
    """The provider goes on after a disconnect: a stalled answer is billed in full."""
    return [truth(output=300, stops=False), *say.half(), stall()]


@fault("F64-hidden-thinking", "bound by what is allowed where output is hidden", conforms=True, slow=True)
def hidden_thinking(say: Say) -> Items:
    """Thinking of which nothing shows for a minute, and which is most of the bill."""
    return [
        *say.start(),
        wire.block_start(0, "thinking"),
        repeat([wire.ping(), pause(15)], 4),
        wire.signature_delta(index=0),
        wire.block_stop(0),
        *say.block(1),
        *say.pieces(GOOD, 1),
        wire.block_stop(1),
        *say.closed(output=800)[1:],
    ]


@fault("F64-hidden-thinking-cut", "the same, where it never ends well")
def hidden_thinking_cut(say: Say) -> Items:
    """Thinking of which nothing shows, cut: 700 tokens were made and none was seen."""
    return [truth(output=700, stops=False), *say.start(), wire.block_start(0, "thinking"), rst()]


def _dense() -> None:
    texts = {
        "cjk": ("発票番号七号請求書" * 12, 0.9),
        "emoji": ("🧾👩🧮🪙" * 20, 2.2),
        "digits": ("3141592653589793" * 8, 0.45),
        "base64": ("aGVsbG8gd29ybGQhIQ" * 8, 0.75),
    }
    for name, (text, rate) in texts.items():
        title = f"Text that has more tokens than its characters suggest ({name}), cut before it is counted."

        # All of what is seen was made, at a rate that tokenizers really have for such text.
        def written(say: Say, text: str = text, tokens: int = round(len(text) * rate) + 16) -> Items:
            pieces = say.pieces(f'{{"id": 7, "kind": "invoice", "lines": ["{text}', chunk=16)
            return [truth(output=tokens, stops=False), *say.opened(), *pieces, rst()]

        CHAPTER.add(f"F65-{name}", title, "estimate by kinds of characters, and give an interval", written)


_dense()


@fault("F80-buffered", "know a hop that holds everything back from a provider that is slow", slow=True, conforms=True)
def buffered(say: Say) -> Items:
    """A proxy holds the answer back, and gives it out at once after 40 s."""
    return [*say.start(), pause(40), b"".join(say.answer()[1:])]
