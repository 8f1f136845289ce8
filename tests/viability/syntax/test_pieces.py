"""`viability.syntax.pieces`: any part of a text, from the pieces that are kept."""

from __future__ import annotations

from streamguard.viability.syntax.pieces import Pieces


def test_every_part_of_a_text() -> None:
    """Any two characters give what stands between them, empty pieces included."""
    pieces, text = Pieces(), "abcdefghij"
    for piece in ("", "ab", "", "cdef", "g", "hij"):
        pieces.append(piece)
    spans = [(begin, end) for begin in range(11) for end in range(begin, 11)]
    assert [pieces.text(*span) for span in spans] == [text[begin:end] for begin, end in spans]


def test_positions_go_on_after_what_was_let_go_of() -> None:
    """Positions count from the beginning of the whole text."""
    pieces = Pieces()
    pieces.append("abc")
    pieces.clear()
    pieces.append("defg")
    assert (pieces.end, pieces.text(4, 6)) == (7, "ef")
