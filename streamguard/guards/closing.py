"""What follows a document that ended its answer: only the frames that close the message, or more output.

Most answers end where their document does. Then the provider's own count comes within moments, the answer is `whole`,
and nobody has to estimate its price. In charge of that one question; who reads, and for how long, is the engine's
matter.
"""

from __future__ import annotations

from typing import Final

from streamguard.events import BlockStarted, Delta, Event, Failed
from streamguard.guards.panel import Panel
from streamguard.verdict import Completed, Enough, Trip

_NO_OUTPUT: Final = " \t\r\n`~"
"""Characters that add nothing to a document: blanks, and a code fence that closes."""


class Closing:
    """Watch what follows a document that ended its answer.

    :param panel: the panel that said so, which is not fed any more.
    :param event: the event whose piece of text closed the document.
    """

    def __init__(self, panel: Panel, event: Event) -> None:
        self._panel = panel
        self.only = not _surplus(panel, event)
        """Whether nothing but closing frames has come so far."""
        self.events: list[Event] = []
        """The closing frames."""

    @classmethod
    def after(cls, verdict: Trip | Enough | None, panel: Panel, event: Event) -> Closing | None:
        """Return the watch for an answer that its document ended; `None` for any other verdict."""
        return cls(panel, event) if type(verdict) is Enough and verdict.completed == "cut" else None

    def feed(self, event: Event, now: float) -> bool:
        """Take the next event, of which only the counts matter.

        :returns: whether nothing but closing frames has come so far.
        """
        transcript = self._panel.transcript
        stopped = transcript.stopped
        transcript.feed(event, now)
        if not self.only or stopped:  # after the message's own end nothing counts
            return self.only
        if type(event) in (Failed, BlockStarted) or (type(event) is Delta and event.text.strip(_NO_OUTPUT)):
            self.only = False
        else:
            self.only = self._panel.closes(event, now) is None
            self.events.append(event)
        return self.only

    @property
    def completed(self) -> Completed:
        """`whole` if the provider ended the message itself, for a reason that is accepted, else `cut`."""
        return "whole" if self.only and self._panel.transcript.stopped else "cut"


def _surplus(panel: Panel, event: Event) -> bool:
    """Whether the piece that closed the document has more text behind it."""
    document = panel.document()
    if document is None or type(event) is not Delta:
        return False
    transcript = panel.transcript
    text = transcript.text if event.kind == "text" else transcript.block_text(event.index)
    at, begins = text.find(document.text), 0
    if at < 0:
        # The request's prefill began the document, so the answer begins inside it.
        whole = document.text
        places = (n for n in range(1, len(whole)) if text.startswith(whole[n : n + 64]) and text.startswith(whole[n:]))
        at, begins = 0, next(places, len(whole))
    return bool(text[at + len(document.text) - begins :].strip(_NO_OUTPUT))
