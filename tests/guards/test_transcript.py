"""What belongs to which block."""

from __future__ import annotations

from streamguard.events import BlockStarted, Delta
from streamguard.guards.transcript import Transcript


def test_a_piece_is_part_of_a_block_that_takes_it() -> None:
    """A tool's input in a text block, and text for no block at all, are counted as output and are nobody's text; a block
    yet to be invented takes everything."""
    transcript = Transcript()
    for event in (
        BlockStarted(0, "text"),
        Delta(0, "text", "a"),
        Delta(0, "tool_input", "{}"),
        Delta(7, "text", "stray"),
        BlockStarted(1, "other"),
        Delta(1, "text", "b"),
        Delta(1, "thinking", "c"),
    ):
        transcript.feed(event, 0.0)
    assert (transcript.text, transcript.block_text(1), transcript.characters) == ("a", "bc", 10)
